"""One trial, run: whatever happens in it, how it ends."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from isotrain.config import Settings
from isotrain.search.patience import FULL, patiently
from isotrain.search.signals import Stop

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One trial to run.

    Attributes:
        number: of the trial.
        seed: below 1000; a repeat of a trial has the seed of the first.
        overrides: dotted path -> value, what the trial changes in the base.
        settings: the base so changed.
        out: folder for whatever the trial writes.
    """

    number: int
    seed: int
    overrides: dict[str, Any]
    settings: Settings
    out: Path


@dataclass(frozen=True)
class Outcome:
    """What a trial found: ``values`` in the order of the objectives, ``attrs`` to be kept with the trial."""

    values: tuple[float, ...]
    attrs: dict[str, Any]


Report = Callable[[int, float, float], None]  # step, validation MAE (kW), seconds so far
Objective = Callable[[Job, Report], Outcome]


class Diverged(Exception):
    """The training ran into numbers that are not finite: the trial has failed and is not repeated."""


@dataclass(frozen=True)
class Ending:
    """How a trial ended: ``why`` if it failed; ``error`` if the worker cannot go on after it."""

    state: TrialState
    values: tuple[float, ...] = ()
    attrs: dict[str, Any] = field(default_factory=dict)
    why: str = ""
    given_back: bool = False
    error: BaseException | None = None


def attempt(run: Callable[[], Outcome], stop: Stop) -> Ending:
    """What became of ``run``; a failure of the trial's own ends the trial only.

    Given back, to be run again: a trial that a signal interrupts, or that finds the disk full. Then the worker ends
    too.
    """
    try:
        with stop.interruptible():
            outcome = run()
    except optuna.TrialPruned:
        return Ending(TrialState.PRUNED)
    except Diverged as reason:
        return _failed(f"diverged: {reason}")
    except (SystemExit, KeyboardInterrupt) as reason:
        stop.signal = stop.signal or type(reason).__name__
        return Ending(TrialState.FAIL, why=f"interrupted ({stop.signal})", given_back=True)
    except OSError as problem:
        if problem.errno in FULL:
            return Ending(TrialState.FAIL, why=f"disk full: {problem}", given_back=True, error=problem)
        log.exception("the trial failed")
        return _failed(_in_words(problem))
    except Exception as problem:
        log.exception("the trial failed")
        return _failed(_in_words(problem))
    if any(math.isnan(value) for value in outcome.values):
        return _failed(f"diverged: the objectives are {outcome.values}")
    return Ending(TrialState.COMPLETE, outcome.values, outcome.attrs)


def _failed(why: str) -> Ending:
    return Ending(TrialState.FAIL, why=why)


def _in_words(problem: Exception) -> str:
    """The kind of problem and its first line; torch has no one class for too little memory."""
    kind, first = type(problem).__name__, (str(problem).splitlines() or [""])[0]
    memory = kind in ("MemoryError", "OutOfMemoryError") or "can't allocate memory" in first
    return f"{'out of memory: ' if memory else ''}{kind}: {first}"


def reporter(trial: optuna.Trial, patience: float) -> Report:
    """Hands errors to the study's pruner, for one objective; with two Optuna has no pruning, and nothing is done."""

    def report(step: int, val_mae: float, _: float) -> None:
        if len(trial.study.directions) == 1:
            patiently(lambda: trial.report(val_mae, step), patience, "reporting")
            if patiently(trial.should_prune, patience, "asking whether to prune"):
                raise optuna.TrialPruned

    return report
