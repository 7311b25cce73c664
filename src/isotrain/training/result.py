"""What a finished fit leaves behind: its times, its errors, its forecasts, and their copy in MLflow."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from isotrain.data.windows import Windows
from isotrain.files import replacing
from isotrain.forecast.forecasts import Errors as SeriesErrors
from isotrain.forecast.forecasts import scores
from isotrain.forecast.module import ForecastModule
from isotrain.training.clock import Clock, Row
from isotrain.training.fits import Allowed
from isotrain.training.machine import Hardware
from isotrain.training.tracking import Run

log = logging.getLogger(__name__)
FINAL = (  # what MLflow shows of a result
    "train_seconds",
    "step_ms_median",
    "machine_seconds",
    "isolated_fraction",
    "parameters",
    "best_val_mae",
    "val_mae",
    "test_mae",
    "test_rmse",
    "test_mase",
    "val_relative",
    "test_relative",
)


class Times(TypedDict):
    """Steps and seconds of a fit."""

    steps: int
    train_seconds: float
    phase_seconds: dict[str, float]
    step_ms_median: float
    isolated_fraction: float  # mean over the steps


class Errors(TypedDict):
    """Errors of a fit, kW but for the MASE; see :func:`scored` for where they are None."""

    diverged: bool
    history: list[Row]
    best_val_mae: float | None
    val_mae: float | None
    test_mae: float | None
    test_rmse: float | None
    test_mase: float | None
    val_relative: float | None  # MAE, each series in its standard deviation over the training part
    test_relative: float | None
    mae_by_lead: list[float] | None
    by_series: dict[str, SeriesErrors]  # of the test part, where there are several series


class Result(Times, Errors):
    """What ``result.json`` of a fit holds."""

    method: str
    role: str
    budget: Allowed | None
    seed: int
    regime: str
    started_at: str
    finished_at: str
    commit: str | None
    key: str  # of isotrain.training.fits.fit_key
    data: dict[str, Any]  # what isotrain.training.tracking.SERIES names of the windows
    hardware: Hardware
    params: dict[str, Any]  # every setting that decided the fit, by dotted path
    parameters: int
    machine_seconds: float
    backend: str
    selections: list[dict[str, Any]]  # the history of the isolator


def timed(clock: Clock) -> Times:
    """Steps and seconds so far."""
    return {
        "steps": len(clock.step_seconds),
        "train_seconds": clock.watch.total,
        "phase_seconds": dict(clock.watch.seconds),
        "step_ms_median": clock.step_ms_median,
        "isolated_fraction": clock.isolated_fraction,
    }


def finite(rows: list[Row]) -> list[Row]:
    """The validations whose error and loss are numbers; a fit that has others too has diverged."""
    return [row for row in rows if np.isfinite(row["val_mae"]) and np.isfinite(row["train_loss"])]


def best(history: list[Row]) -> float:
    """The best validation error, kW, of a fit's history."""
    return min(float(row["val_mae"]) for row in history)


def scored(module: ForecastModule, clock: Clock, windows: Windows, out: Path, refit: bool = False) -> Errors:
    """Errors (kW) on validation and test; writes the forecasts of both into ``out`` (:func:`save_forecasts`).

    A diverged fit has ``None`` for errors, no forecasts, and a history up to its last finite validation. A refit,
    which was trained on the validation part, has ``None`` for errors there, no forecasts of it and no history.
    """
    history = finite(clock.rows)
    diverged = len(history) < len(clock.rows)
    found: Errors = {
        "diverged": diverged,
        "history": [] if refit else history,
        "best_val_mae": None,
        "val_mae": None,
        "test_mae": None,
        "test_rmse": None,
        "test_mase": None,
        "val_relative": None,
        "test_relative": None,
        "mae_by_lead": None,
        "by_series": {},
    }
    if diverged:
        log.error("the fit diverged at step %s: lower training.learning_rate", clock.rows[-1]["step"])
        return found
    parts = ("test",) if refit else ("validation", "test")
    answers = {part: module.forecast(torch.from_numpy(windows.origins(part))).numpy() for part in parts}
    save_forecasts(out / "forecasts.npz", windows, answers)
    errors = {part: scores(windows, windows.origins(part), answer) for part, answer in answers.items()}
    if not refit:
        seen = errors["validation"]
        found |= {"best_val_mae": best(history), "val_mae": seen["mae"], "val_relative": seen["relative"]}
    test = errors["test"]
    found |= {"test_mae": test["mae"], "test_rmse": test["rmse"], "test_mase": test["mase"]}
    found |= {"test_relative": test["relative"], "mae_by_lead": test["mae_by_lead"], "by_series": test["by_series"]}
    return found


def save_forecasts(path: Path, windows: Windows, answers: Mapping[str, NDArray[np.float32]]) -> None:
    """Forecasts of the test part as ``origins``, ``time``, ``prediction``, ``truth``; of validation as ``val_...``."""
    arrays: dict[str, Any] = {}
    for part, answer in answers.items():
        prefix, origins = "val_" if part == "validation" else "", windows.origins(part)
        arrays |= {
            f"{prefix}origins": origins,
            f"{prefix}time": windows.time[origins],
            f"{prefix}prediction": answer,
            f"{prefix}truth": windows.targets(origins),
        }
    with replacing(path) as draft, draft.open("wb") as stream:
        np.savez(stream, **arrays)


def log_result(run: Run, result: Result) -> None:
    """The final figures as metrics, the machine as tags."""
    final = {f"final/{name}": v for name, v in result.items() if name in FINAL and isinstance(v, int | float)}
    seconds = {f"seconds/{phase}": value for phase, value in result["phase_seconds"].items()}
    run.once({**final, **seconds})
    run.history(result["selections"], "isolation")
    hardware = {f"hardware.{key}": str(value) for key, value in result["hardware"].items()}
    run.tags({**hardware, "lstm.backend": result["backend"], "diverged": "yes" if result["diverged"] else "no"})
