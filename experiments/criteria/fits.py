"""The fits: the forecaster of params.yaml, its zones isolated by one criterion on one schedule, masked, equal steps.

Masked, since only the choice of zones is judged here, not time: every gradient is computed, every criterion sees the
same, and two fits may share a machine.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from isotrain.config import MethodsView, Settings, load
from isotrain.data.windows import Windows
from isotrain.isolation import Isolation
from isotrain.training.clock import Clock
from isotrain.training.fit import Fit, prepare, trainer_of
from isotrain.training.result import scored

SCHEDULES: dict[str, dict[str, Any]] = {
    "constant": {"shape": "constant", "start": 0.1, "stop": 1.0},
    "cubic": {"shape": "cubic", "start": 0.1, "stop": 0.6},
}
DRAWN_ONCE = "random, drawn once"
CRITERIA = (
    *("random", DRAWN_ONCE, "magnitude", "grad_norm", "snip", "fisher", "update_norm", "snr"),
    *("movement", "distance", "stability", "plasticity", "plateau"),
)


@dataclass(frozen=True)
class Job:
    """One fit; ``criterion`` None: nothing is isolated."""

    windows: str
    params: str
    zone: str
    fraction: float
    criterion: str | None
    schedule: str
    seed: int


def settings(job: Job) -> Settings:
    """The method ``isolated`` of params.yaml with what the job changes."""
    drawn_once = job.criterion == DRAWN_ONCE
    changes: dict[str, Any] = {"zone": job.zone, "mode": "masked", "scope": "local", "every": 5}
    changes["criterion"] = "random" if drawn_once else job.criterion or "random"
    changes["thaw"] = not drawn_once  # what is drawn stays
    schedule = {**SCHEDULES[job.schedule], "fraction": job.fraction if job.criterion else 0.0}
    overrides = {f"isolation.{key}": value for key, value in changes.items()}
    overrides |= {f"isolation.schedule.{key}": value for key, value in schedule.items()}
    return load(job.params, view=MethodsView, overrides=overrides).settings("isolated")


def fit(job: Job) -> Mapping[str, Any]:
    """Train, and return the errors (kW), and the means of isolated share (arcs, all steps), churn and neglect."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    s, windows = settings(job), Windows.load(job.windows)
    with tempfile.TemporaryDirectory() as folder:
        one = Fit(s, job.seed, windows, Path(folder))
        module, callbacks = prepare(one)
        watched = [c for c in callbacks if isinstance(c, Isolation)]
        clock = Clock(share=lambda: sum(c.history[-1]["share"] for c in watched if c.history))
        trainer_of(s, [*callbacks, clock]).fit(module)
        result = scored(module, clock, windows, Path(folder))
    history = [entry for c in watched for entry in c.history]
    after = history[1:]  # the first choice changes state because it is the first
    return {
        "criterion": job.criterion,
        "schedule": job.schedule,
        "seed": job.seed,
        **{key: result[key] for key in ("val_mae", "best_val_mae", "test_mae")},
        "share": clock.isolated_fraction,
        "churn": _mean([entry["churn"] for entry in after]),
        "neglected": _mean([entry["neglected"] for entry in history if "neglected" in entry]),
    }


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
