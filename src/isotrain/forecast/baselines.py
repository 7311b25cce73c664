"""Forecasts that need no network, on the same origins: what a trained one must beat."""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isotrain.data.windows import DAY, LEVEL_HOURS, Windows
from isotrain.forecast.scores import scores

log = logging.getLogger(__name__)
Origins = NDArray[np.int64]
Forecast = NDArray[np.float32]
Baseline = Callable[[Windows], Callable[[Origins], Forecast]]
PENALTIES = (1.0, 10.0, 100.0, 1000.0)  # of the ridge, chosen on the validation part
BLOCK = 4096  # origins a block: memory does not grow with the number of origins


def same_hour(days: int) -> Baseline:
    """The same hour ``days`` days before, or the last such day that is known at the origin."""

    def fit(windows: Windows) -> Callable[[Origins], Forecast]:
        leads = np.arange(windows.meta["horizon"])
        back = days * DAY * (leads // (days * DAY) + 1)
        return lambda origins: windows.target[origins[:, None] + leads - back]

    return fit


def ridge(windows: Windows) -> Callable[[Origins], Forecast]:
    """Ridge regression of every lead on the last week, the inputs now and the local hour of the week.

    One solve in closed form gives all leads. The penalty is the best of :data:`PENALTIES` on validation MAE.
    """
    train, validation = windows.origins("train"), windows.origins("validation")
    known = ~np.isnan(windows.targets(train)).any(1)
    gram, cross = np.zeros(()), np.zeros(())
    for origins in _blocks(train[known]):
        x, y = _ridge_inputs(windows, origins), _relative(windows, windows.targets(origins), origins)
        gram, cross = gram + x.T @ x, cross + x.T @ y
    fits = [np.linalg.solve(gram + penalty * np.eye(len(gram)), cross) for penalty in PENALTIES]
    answers = [_linear(windows, weights) for weights in fits]
    truth = windows.targets(validation)
    errors = [np.nanmean(np.abs(answer(validation) - truth)) for answer in answers]
    return answers[int(np.argmin(errors))]


BASELINES: dict[str, Baseline] = {
    "same-hour-yesterday": same_hour(1),
    "same-hour-last-week": same_hour(7),
    "ridge": ridge,
}


def score_baselines(windows: Windows) -> list[dict[str, Any]]:
    """Every baseline fitted on the training part, scored on validation and test; seconds include the fit."""
    rows = []
    for name, baseline in BASELINES.items():
        start = time.perf_counter()
        forecast = baseline(windows)
        seconds = time.perf_counter() - start
        validation, test = (
            scores(forecast(origins), windows.targets(origins), windows.meta["mase_scale"])
            for origins in (windows.origins("validation"), windows.origins("test"))
        )
        test_scores = {f"test_{key}": test[key] for key in ("mae", "rmse", "mase")}
        lead = {"mae_by_lead": test["mae_by_lead"]}
        rows.append({"name": name, "seconds": seconds, "val_mae": validation["mae"], **test_scores, **lead})
        log.info("baseline %s: test MAE %.2f kW", name, test["mae"])
    return rows


def _linear(windows: Windows, weights: NDArray[Any]) -> Callable[[Origins], Forecast]:
    def forecast(origins: Origins) -> Forecast:
        parts = [_ridge_inputs(windows, block) @ weights for block in _blocks(origins)]
        relative = np.concatenate(parts)
        answer: Forecast = (relative * windows.meta["scale"] + windows.level[origins - 1][:, None]).astype(np.float32)
        return answer

    return forecast


def _ridge_inputs(windows: Windows, origins: Origins) -> NDArray[Any]:
    """(origins, 168 lags + the hour's inputs + hour of the week + the calendar a day on)."""
    lags = _relative(windows, windows.target[origins[:, None] - 1 - np.arange(LEVEL_HOURS)], origins)
    week_hour = np.eye(LEVEL_HOURS)[_hour_of_week(windows, origins)]
    now, tomorrow = windows.inputs[origins - 1], windows.calendar[origins + windows.meta["horizon"] - 1]
    return np.concatenate([lags, week_hour, now, tomorrow], axis=1, dtype=np.float64)


def _hour_of_week(windows: Windows, origins: Origins) -> NDArray[np.int64]:
    """Local hour of the week, 0 to 167, read back from the calendar columns."""
    names = windows.meta["calendar"]
    rows = windows.calendar[origins]
    angle = np.arctan2(rows[:, names.index("sin_1_per_day")], rows[:, names.index("cos_1_per_day")])
    hour = np.round(angle / (2 * np.pi) * DAY).astype(int) % DAY
    day = rows[:, [names.index(f"weekday_{d}") for d in range(7)]].argmax(1)
    return day * DAY + hour


def _relative(windows: Windows, load: Forecast, origins: Origins) -> NDArray[Any]:
    return (load.astype(np.float64) - windows.level[origins - 1][:, None]) / windows.meta["scale"]


def _blocks(origins: Origins) -> Iterable[Origins]:
    return np.array_split(origins, -(-len(origins) // BLOCK)) if len(origins) else []
