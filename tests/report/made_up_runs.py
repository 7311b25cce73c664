"""Made-up folders of fits: plausible curves and forecasts, so that a report can be made without training."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isotrain.compare.results import Baseline, Role

HOUR = 3600
MONDAY = 1_600_041_600  # 2020-09-14 00:00 UTC, a Monday
HARDWARE = {
    "cpu": "Made-up CPU at 2.5 GHz",
    "cores": 2,
    "memory_gb": 8.0,
    "accelerator": None,
    "os": "Linux 6.1",
    "python": "3.11.9",
    "torch": "2.9.0",
    "threads": 2,
}


@dataclass(frozen=True)
class MadeUp:
    """A method: ms a step, final validation MAE (kW) and its decay (steps), share isolated at the end."""

    regime: str
    step_ms: float
    val_mae: float
    decay: float = 60.0
    isolated: float = 0.0
    steps: int = 300
    ramp: bool = False
    refit: bool = False
    role: Role = "tested"
    mode: str = "exact"
    budget: dict[str, Any] | None = None
    encoder: str = "lstm"


STEP = {"step": "layer", "goal_ms": 27.0, "hidden": 48}
TIME = {"time": "layer", "seconds": 8.1, "steps": 190}
METHODS = {
    "stock": MadeUp("streamed", 160, 4.98, role="reference"),
    "tuned": MadeUp("streamed", 42, 5.02, role="reference"),
    "masked-unit-50": MadeUp("streamed", 43, 5.04, isolated=0.5, role="control", mode="masked"),
    "layer": MadeUp("streamed", 27, 4.97, isolated=0.45, ramp=True),
    "small": MadeUp("streamed", 27, 5.06, decay=75, role="control", budget=STEP),
    "short": MadeUp("streamed", 42, 5.10, decay=45, steps=190, role="control", budget=TIME),
    "state-zeroed": MadeUp("streamed", 18, 5.60, role="control", encoder="zeroed"),
    "stock-windowed": MadeUp("windowed", 640, 4.98, role="reference"),
    "tuned-windowed": MadeUp("windowed", 170, 5.04, role="reference"),
    "steps-24": MadeUp("windowed", 60, 4.99, isolated=0.86),
    "refitted": MadeUp("streamed", 43, 4.90, refit=True),
}
ABOUT = {name: f"What {name} changes, in a sentence." for name in METHODS}
LEVELS = {"same-hour-yesterday": 6.1, "same-hour-last-week": 5.0, "ridge": 4.4}  # test MAE, kW


def make_baselines(folder: Path) -> list[Baseline]:
    """Write ``<folder>/<name>/forecasts.npz`` of three baselines."""
    return [make_baseline(folder, name, level, 1000 * rank) for rank, (name, level) in enumerate(LEVELS.items())]


def make_baseline(folder: Path, name: str, level: float, parameters: int) -> Baseline:
    """A baseline whose error is near ``level`` kW."""
    home = folder / name
    home.mkdir(parents=True)
    rng = np.random.default_rng(1)
    arrays = forecasts(level, rng) | {f"val_{key}": value for key, value in forecasts(level, rng).items()}
    np.savez(home / "forecasts.npz", **arrays)  # type: ignore[arg-type]
    return Baseline(
        name=name,
        folder=home,
        seconds=0.4,
        parameters=parameters,
        refit=False,
        val_mae=level + 1.0,
        test_mae=level,
        test_rmse=1.5 * level,
        test_mase=level / 6.1,
        mae_by_lead=tuple(level * (0.8 + lead / 60) for lead in range(24)),
    )


def make_runs(folder: Path, methods: dict[str, MadeUp] = METHODS, seeds: tuple[int, ...] = (0, 1, 2)) -> Path:
    """Write ``<folder>/<method>-<seed>/`` for every method and seed; return ``folder``."""
    for seed in seeds:
        for number, (name, made_up) in enumerate(methods.items()):
            rng = np.random.default_rng([seed, number])
            write_run(folder, *fit(name, seed, made_up, rng, number))
    return folder


def write_run(folder: Path, result: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """One fit's two files."""
    home = folder / f"{result['method']}-{result['seed']}"
    home.mkdir(parents=True)
    (home / "result.json").write_text(json.dumps(result))
    np.savez_compressed(home / "forecasts.npz", **arrays)


def change(folder: Path, run: str, **values: Any) -> None:
    """Replace keys of a written ``result.json``."""
    path = folder / run / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def fit(
    name: str, seed: int, method: MadeUp, rng: np.random.Generator, hour: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """``result.json`` and the arrays of ``forecasts.npz`` of one made-up fit."""
    step_ms = method.step_ms * rng.uniform(0.97, 1.03)
    steps = np.arange(20, method.steps + 1, 20)
    val = method.val_mae + 4 * np.exp(-steps / method.decay) + rng.normal(0, 0.015, len(steps))
    share = method.isolated * (np.minimum(1, steps / method.steps * 2) if method.ramp else np.ones(len(steps)))
    arrays = forecasts(val[-1] - 1.2, rng)
    if not method.refit:
        arrays |= {f"val_{key}": value for key, value in forecasts(val[-1], rng).items()}
    error = np.abs(arrays["prediction"] - arrays["truth"])
    seconds = step_ms * method.steps / 1000
    split = {"forward": 0.38, "backward": 0.5, "optimizer": 0.05, "selection": 0.02, "other": 0.05}
    history = [
        {
            "step": int(step),
            "train_seconds": float(step * step_ms / 1000),
            "val_mae": float(v),
            "train_loss": float(v / 20),
            "isolated_fraction": float(s),
        }
        for step, v, s in zip(steps, val, share, strict=True)
    ]
    isolation = {"isolation.zone": "layer", "isolation.mode": method.mode} if method.isolated else {}
    shape = {"model.hidden": 256, "model.encoder": method.encoder, "training.regime": method.regime}
    result = {
        "method": name,
        "role": method.role,
        "budget": method.budget,
        "seed": seed,
        "regime": method.regime,
        "started_at": f"2026-03-0{seed + 1}T{hour:02}:00:00+00:00",
        "finished_at": f"2026-03-0{seed + 1}T{hour:02}:10:00+00:00",
        "commit": "0123456789abcdef",
        "data": {
            "source": "simulated",
            "simulated": True,
            "rows": 8760,
            "sha256": "ab" * 32,
            "target": "TGBT",
            "unit": "kW",
        },
        "hardware": HARDWARE,
        "params": {**shape, "training.refit": method.refit, "training.steps": method.steps, **isolation},
        "parameters": 270_000,
        "steps": method.steps,
        "train_seconds": float(seconds),
        "phase_seconds": {phase: float(seconds * part) for phase, part in split.items()},
        "step_ms_median": float(step_ms),
        "machine_seconds": float(1.0 + 0.02 * rng.random()),
        "history": [] if method.refit else history,
        "isolated_fraction": float(share.mean()),
        "best_val_mae": None if method.refit else float(val.min()),
        "val_mae": None if method.refit else float(val[-1]),
        "test_mae": float(error[~np.isnan(error)].mean()),
        "test_rmse": float(np.sqrt((error[~np.isnan(error)] ** 2).mean())),
        "test_mase": float(error[~np.isnan(error)].mean() / 6.1),
        "mae_by_lead": [float(value) for value in np.nanmean(error, axis=0)],
    }
    return result, arrays


def forecasts(level: float, rng: np.random.Generator, days: int = 45) -> dict[str, np.ndarray]:
    """Hourly origins over ``days`` days of an office; errors near ``level`` kW grow with the lead."""
    hours = np.arange(days * 24 + 24)
    working = ((hours // 24 + 3) % 7) < 5  # the first day is a Thursday
    day = np.exp(-(((hours % 24) - 13) ** 2) / 18)
    truth = 30 + 35 * day * working + 6 * day + 3 * np.sin(hours / 91)
    truth = truth + np.random.default_rng(7).normal(0, 1.5, len(hours))
    truth[300:306] = np.nan
    origins = np.arange(days * 24)
    reach = origins[:, None] + np.arange(24)
    weekly = 0.7 + 0.1 * (origins // 168)[:, None]
    noise = np.random.default_rng(8).normal(0, 1, reach.shape) + 0.3 * rng.normal(0, 1, reach.shape)
    prediction = np.nan_to_num(truth[reach], nan=40) + level * weekly * (0.9 + np.arange(24) / 40) * noise
    return {
        "origins": origins + 5000,
        "prediction": prediction.astype(np.float32),
        "truth": truth[reach].astype(np.float32),
        "time": MONDAY + 3 * 24 * HOUR + origins * HOUR,
    }
