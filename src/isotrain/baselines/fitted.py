"""What every baseline returns, what several of them read, and how one is fitted, timed and scored.

Shapes: m origins, K leads (the horizon), P columns known at an origin, Q columns of one lead.
"""

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from isotrain.data.windows import Windows
from isotrain.forecast.forecasts import Errors, Scores, scores

Origins = NDArray[np.int64]
Forecast = NDArray[np.float32]
Values = NDArray[Any]
Inputs = Literal["plain", "rich"]
BLOCK = 4096  # origins a block: memory does not grow with the number of origins


@dataclass(frozen=True)
class Fitted:
    """A forecast function: origins (m,) to kW (m, K).

    ``parameters`` counts the numbers that were fitted; a ``refit`` forecast has seen the validation part, so its
    error there says nothing. ``file`` is what was fitted, from which :data:`isotrain.baselines.RESTORED` makes
    the same forecast function again; empty where nothing was fitted.

    Example:
        >>> from isotrain.baselines import BASELINES
        >>> windows = Windows.load("data/windows")
        >>> yesterday = BASELINES["same-hour-yesterday"](windows)
        >>> origins = windows.origins("test")
        >>> yesterday(origins).shape == (len(origins), 24)
        True
    """

    answer: Callable[[Origins], Forecast]
    parameters: int = 0
    refit: bool = False
    file: bytes = b""

    def __call__(self, origins: Origins) -> Forecast:
        """Forecasts of every lead, kW."""
        return self.answer(origins)


Baseline = Callable[[Windows], Fitted]


def each(baseline: Baseline) -> Baseline:
    """``baseline`` fitted on every series by itself; :attr:`Fitted.file` then holds the arrays of each by its name."""

    def fit(windows: Windows) -> Fitted:
        if len(windows.series) == 1:
            return baseline(windows)
        fitted = [baseline(windows.only(index)) for index in range(len(windows.series))]
        firsts = np.array([one["first"] for one in windows.series])

        def answer(origins: Origins) -> Forecast:
            forecast = np.empty((len(origins), windows.meta["horizon"]), np.float32)
            of = windows.series_at(origins - 1)
            for index in np.unique(of):
                forecast[of == index] = fitted[index](origins[of == index] - firsts[index])
            return forecast

        kept: dict[str, Any] = {}
        for one, own in zip(windows.series, fitted, strict=True):
            with np.load(io.BytesIO(own.file)) as arrays:
                kept |= {f"{one['name']}/{name}": array for name, array in arrays.items()}
        np.savez(content := io.BytesIO(), **kept)
        return Fitted(answer, sum(own.parameters for own in fitted), fitted[0].refit, content.getvalue())

    return fit


def fitting_origins(windows: Windows, refit: bool) -> Origins:
    """Every origin of the training part; with ``refit`` up to the last of the validation part."""
    ranges = windows.ranges("train", "validation" if refit else "train")
    return np.concatenate([np.arange(first, last) for first, last in ranges])


def blocks(origins: Origins) -> Iterator[Origins]:
    """``origins`` in order, some thousand at a time."""
    for start in range(0, len(origins), BLOCK):
        yield origins[start : start + BLOCK]


def relative(windows: Windows, load: Values, origins: Origins) -> Values:
    """``load`` (m, any) in kW above the level at each origin, in training standard deviations."""
    return (load - windows.level[origins - 1][:, None]) / windows.scale_at(origins)[:, None]


def absolute(windows: Windows, change: Values, origins: Origins) -> Forecast:
    """The inverse of :func:`relative`, kW."""
    answer: Forecast = (change * windows.scale_at(origins)[:, None] + windows.level[origins - 1][:, None]).astype(
        np.float32
    )
    return answer


def last_hours(windows: Windows, origins: Origins, hours: int) -> Values:
    """(m, hours): the load of each of the last ``hours`` hours, latest first, relative."""
    return relative(windows, windows.target[origins[:, None] - 1 - np.arange(hours)], origins)


def known_at_origin(windows: Windows, origins: Origins, inputs: Inputs) -> Values:
    """(m, P): the inputs of the last hour known, and what is computed at the end of it."""
    columns = {name: windows.columns(name, inputs) for name in ("inputs", "origin", "recent")}
    rows = origins - 1
    recent = relative(windows, windows.recent[rows][:, columns["recent"]], origins)
    return np.hstack([windows.inputs[rows][:, columns["inputs"]], windows.origin[rows][:, columns["origin"]], recent])


def known_of_lead(windows: Windows, origins: Origins, lead: int, inputs: Inputs) -> Values:
    """(m, Q): what is known of the target hour ``lead`` hours after each origin, its daily lags relative."""
    hours = origins + lead
    lags = relative(windows, windows.lags[hours][:, windows.columns("lags", inputs)], origins)
    return np.hstack([windows.ahead[hours][:, windows.columns("ahead", inputs)], lags])


class Score(TypedDict):
    """A row of ``baselines.json``: errors in kW, but for the MASE."""

    name: str
    seconds: float  # of the fit, with everything that it chose on validation
    parameters: int
    refit: bool
    test_mae: float
    test_rmse: float
    test_mase: float
    test_relative: float  # each series in its standard deviation over the training part
    mae_by_lead: list[float]
    by_series: dict[str, Errors]  # of the test part, where there are several series
    val_mae: float | None  # None after a refit, which has seen the validation part
    val_relative: float | None
    key: NotRequired[str]  # of what decides it: windows, code, cores


def score(name: str, baseline: Baseline, windows: Windows) -> tuple[Score, dict[str, Values], Fitted]:
    """A baseline's row of ``baselines.json``, the arrays of its ``forecasts.npz`` (laid out as a fit's), and itself."""
    start = time.perf_counter()
    fitted = baseline(windows)
    seconds = time.perf_counter() - start
    errors: dict[str, Scores] = {}
    arrays: dict[str, Values] = {}
    for part, prefix in (("test", ""), ("validation", "val_")):
        origins = windows.origins(part)
        answer, truth = fitted(origins), windows.targets(origins)
        errors[part] = scores(windows, origins, answer)
        values = {"origins": origins, "prediction": answer, "truth": truth, "time": windows.time[origins]}
        if part == "test" or not fitted.refit:
            arrays |= {f"{prefix}{key}": np.asarray(value) for key, value in values.items()}
    test = errors["test"]
    row: Score = {
        "name": name,
        "seconds": seconds,
        "parameters": fitted.parameters,
        "refit": fitted.refit,
        "test_mae": test["mae"],
        "test_rmse": test["rmse"],
        "test_mase": test["mase"],
        "test_relative": test["relative"],
        "mae_by_lead": test["mae_by_lead"],
        "by_series": test["by_series"],
        "val_mae": None if fitted.refit else errors["validation"]["mae"],
        "val_relative": None if fitted.refit else errors["validation"]["relative"],
    }
    return row, arrays, fitted
