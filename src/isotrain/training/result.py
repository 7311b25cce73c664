"""What a finished fit leaves behind: its times, its errors, its forecasts, and their copy in MLflow."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from isotrain.data.windows import Windows
from isotrain.files import replacing
from isotrain.forecast.forecasts import scores
from isotrain.forecast.module import ForecastModule
from isotrain.training.clock import Clock, Row
from isotrain.training.tracking import Run

log = logging.getLogger(__name__)
ERRORS = ("best_val_mae", "val_mae", "test_mae", "test_rmse", "test_mase")
TIMES = ("train_seconds", "step_ms_median", "machine_seconds", "isolated_fraction", "parameters")


def timed(clock: Clock) -> dict[str, Any]:
    """Steps and seconds."""
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


def scored(module: ForecastModule, clock: Clock, windows: Windows, out: Path, refit: bool = False) -> dict[str, Any]:
    """Errors (kW) on validation and test; writes the forecasts of both into ``out`` (:func:`save_forecasts`).

    A diverged fit has ``None`` for errors, no forecasts, and a history up to its last finite validation. A refit,
    which was trained on the validation part, has ``None`` for errors there, no forecasts of it and no history.
    """
    history = finite(clock.rows)
    diverged = len(history) < len(clock.rows)
    common = {"diverged": diverged, "history": [] if refit else history}
    if diverged:
        log.error("the fit diverged at step %s: lower training.learning_rate", clock.rows[-1]["step"])
        return {**common, **dict.fromkeys((*ERRORS, "mae_by_lead"))}
    parts = ("test",) if refit else ("validation", "test")
    answers = {part: module.forecast(torch.from_numpy(windows.origins(part))).numpy() for part in parts}
    save_forecasts(out / "forecasts.npz", windows, answers)
    errors = {
        part: scores(answer, windows.targets(windows.origins(part)), windows.meta["mase_scale"])
        for part, answer in answers.items()
    }
    return {
        **common,
        "best_val_mae": None if refit else best(history),
        "val_mae": None if refit else errors["validation"]["mae"],
        **{f"test_{name}": errors["test"][name] for name in ("mae", "rmse", "mase")},
        "mae_by_lead": errors["test"]["mae_by_lead"],
    }


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


def log_result(run: Run, result: dict[str, Any]) -> None:
    """The final figures as metrics, the machine as tags."""
    final = {f"final/{name}": result[name] for name in (*TIMES, *ERRORS) if result[name] is not None}
    seconds = {f"seconds/{phase}": value for phase, value in result["phase_seconds"].items()}
    run.metrics({**final, **seconds}, result["steps"])
    run.history(result["selections"], "isolation")
    hardware = {f"hardware.{key}": str(value) for key, value in result["hardware"].items()}
    run.tags({**hardware, "lstm.backend": result["backend"], "diverged": "yes" if result["diverged"] else "no"})
