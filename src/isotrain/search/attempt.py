"""One trial run: whatever happens in it, how it ends, and when it may end early."""

import contextlib
import logging
import math
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
from optuna.trial import TrialState

from isotrain.config import Settings
from isotrain.files import read_json
from isotrain.search.storage import FULL, patiently

ASKED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Leave(SystemExit):
    """Raised in the middle of a training by a signal; not an Exception, so that nothing takes it for a failure."""


class Stop:
    """What has asked the worker to leave, if anything: a signal's name."""

    def __init__(self) -> None:
        self.signal: str | None = None
        self._interruptible = False

    @contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Take the signals in the block; outside the main thread they are not ours, and only the block runs."""
        before = {number: signal.getsignal(number) for number in ASKED}
        with contextlib.suppress(ValueError):
            for number in ASKED:
                signal.signal(number, self._asked)
        try:
            yield self
        finally:
            with contextlib.suppress(ValueError):
                for number, handler in before.items():
                    signal.signal(number, handler)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A signal in the block raises :class:`Leave` there; so does one that came before it."""
        self._interruptible = True
        try:
            if self.signal:
                raise Leave(self.signal)
            yield
        finally:
            self._interruptible = False

    def _asked(self, number: int, _: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        if self._interruptible:
            self._interruptible = False
            raise Leave(self.signal)


# When a trial of several objectives may end early: it cannot reach the front, as far as finished trials tell.
#
# With several objectives Optuna neither reports nor prunes, so this is our own rule. At a validation a trial has
# spent some seconds, which can only grow, and has some best error, which can only fall. How far it may still fall is
# taken from the finished trials: the largest improvement that any of them made from the same share of its training
# on. If some point of the front has less time and less error than even that, the trial ends.
#
# The rule is optimistic for errors, yet it biases the study: the sampler sees the error at the end of a shortened
# training with the seconds of a whole one, a point that lies above and never on the front, and late improvers unlike
# any finished trial are lost. So it is off by default.


LEAST = 10  # finished trials before any ends early

History = Sequence[tuple[float, float]]  # (share of the training done, best error so far) at each validation


@dataclass(frozen=True)
class Rule:
    """What finished trials tell.

    ``front``: (seconds, error) of the best; ``histories``: one of each trial that was trained to its end.
    """

    front: Sequence[tuple[float, float]]
    histories: Sequence[History]

    @classmethod
    def of(cls, folder: Path) -> "Rule":
        """The rule as the results in a study's folder have it now."""
        results = [read_json(path) for path in sorted(folder.glob("trials/*/result.json"))]
        whole = [result for result in results if not result["early"]]
        return cls([(r["seconds"], r["val_mae"]) for r in whole], [_history(r["history"]) for r in whole])

    def hopeless(self, error: float, seconds: float, share: float) -> bool:
        """Whether a trial cannot reach the front that has ``error`` (its best) and ``seconds`` at ``share``."""
        if len(self.histories) < LEAST:
            return False
        optimistic = error - max(improvement(history, share) for history in self.histories)
        return any(time < seconds and least < optimistic for time, least in self.front)


def improvement(history: History, share: float) -> float:
    """By how much the error fell after ``share`` of the training: from the last validation before it to the end.

    Before the first validation nothing is known of the error then: infinite.
    """
    before = [error for done, error in history if done <= share + 1e-9]
    return before[-1] - history[-1][1] if before else float("inf")


def _history(rows: list[dict[str, float]]) -> History:
    steps, least = rows[-1]["step"], float("inf")
    history = []
    for row in rows:
        least = min(least, row["val_mae"])
        history.append((row["step"] / steps, least))
    return history


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
