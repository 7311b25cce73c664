"""A study of a made-up trade-off, run by real samplers: conditional parameters, failures, repeats, early ends."""

import json
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState, create_trial

from isotrain.data.windows import Windows
from isotrain.search.study import Place, open_study, place

ROOT = Path(__file__).parents[2]
SEARCH = {"study": "small", "trials": 10, "hours": 2.0, "startup": 4, "known": ["native"], "sampler": "random"}
SPACE = {"model.hidden": {"low": 16, "high": 128, "step": 16}}
KNOWN = {
    "native": {"isolation.zone": "layer", "isolation.schedule.fraction": 0.0, "model.hidden": 64},
    "small": {"isolation.zone": "layer", "isolation.schedule.fraction": 0.0, "model.hidden": 48},
}


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    """Five parameters, one of which exists only for units."""
    values: dict[str, Any] = {
        "isolation.zone": trial.suggest_categorical("isolation.zone", ["unit", "layer"]),
        "isolation.schedule.fraction": trial.suggest_float("isolation.schedule.fraction", 0.0, 0.9),
        "model.hidden": trial.suggest_int("model.hidden", 16, 128, step=16),
        "training.learning_rate": trial.suggest_float("training.learning_rate", 1e-3, 3e-2, log=True),
    }
    if values["isolation.zone"] == "unit":
        modes = ["exact", "cut", "autonomous"]
        values["isolation.mode"] = trial.suggest_categorical("isolation.mode", modes)
    return values


def measured(values: dict[str, Any]) -> tuple[float, float]:
    """Validation MAE (kW) and seconds: larger networks are slower and better, isolation is faster and worse."""
    hidden, fraction = values["model.hidden"], values["isolation.schedule.fraction"]
    saving = {"exact": 0.3, "cut": 0.5, "autonomous": 0.8}[values.get("isolation.mode", "cut")]
    rate = values.get("training.learning_rate", 0.01)
    seconds = 1.5 + hidden / 16 * (1 - saving * fraction)
    off = abs(rate / 0.01 - 1)
    return 4.6 + 12 / hidden + 0.6 * fraction**2 * saving + 0.5 * off, seconds


def made_up_study(trials: int = 60, sampler: str = "tpe") -> optuna.Study:
    """``trials`` finished ones, three failures of two kinds, a trial with one repeat, one given back, one running."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    samplers = {
        "tpe": optuna.samplers.TPESampler(seed=1, n_startup_trials=16),
        "random": optuna.samplers.RandomSampler(1),
    }
    study = optuna.create_study(study_name="made-up", directions=["minimize", "minimize"], sampler=samplers[sampler])
    study.set_user_attr("began", "2026-11-01T20:00:00+00:00")
    for name, values in KNOWN.items():
        study.enqueue_trial(values, user_attrs={"known": name})
    for _ in range(trials):
        trial = study.ask()
        values = suggest(trial)
        mae, seconds = measured(values)
        early = trial.number in (20, 33)
        noted = {
            "overrides": json.dumps(values),
            "val_mae": mae,
            "seconds": seconds,
            "worker": f"host{trial.number % 2}:7",
        }
        for key, value in {**noted, "early": early}.items():
            trial.set_user_attr(key, value)
        study.tell(trial, (mae, seconds))
    for why in ("diverged", "diverged", "out of memory"):
        study.add_trial(failed(why=why))
    study.add_trial(failed(why="vanished", given_back=True))
    study.add_trial(finished_like(study.trials[5], again_of=len(study.trials) - 1))
    study.add_trial(failed(why="preempted", given_back=True))
    study.ask()
    return study


def failed(**noted: Any) -> FrozenTrial:
    """A trial that failed, with these user attributes."""
    return create_trial(state=TrialState.FAIL, user_attrs=noted)


def finished_like(trial: FrozenTrial, **noted: Any) -> FrozenTrial:
    """The same trial again, a little worse, with these user attributes besides."""
    values = [value * 1.01 for value in trial.values]
    attrs = {**trial.user_attrs, "val_mae": values[0], "seconds": values[1], **noted}
    same = {"params": trial.params, "distributions": trial.distributions}
    return create_trial(values=values, user_attrs=attrs, **same)


def small_place(folder: Path, windows: Windows) -> Place:
    """A study of ten trials to be, of one parameter, on the journal in ``folder``."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["search"] |= {**SEARCH, "space": SPACE}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    found = place(folder / "params.yaml")
    windows.save(found.windows)
    return found


def run_trials(at: Place, count: int) -> optuna.Study:
    """``count`` finished trials of :func:`small_place`: a larger network is slower and better."""
    study = open_study(at)
    for _ in range(count):
        trial = study.ask()
        values = at.space.suggest(trial)
        mae, seconds = 5 + 8 / values["model.hidden"], values["model.hidden"] / 8
        for key, value in {
            "worker": "here:1",
            "val_mae": mae,
            "seconds": seconds,
            "overrides": json.dumps(values),
        }.items():
            trial.set_user_attr(key, value)
        study.tell(trial, (mae, seconds))
    return study
