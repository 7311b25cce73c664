"""A worker: asks the study for a trial, runs it, reports how it ended, and takes the next.

:func:`work` is the worker; the rest of the file is what it needs to know of one trial: what it is asked (:class:`Job`),
what it found (:class:`Outcome`), how it ended (:class:`Ending`), and the signals that end it early (:class:`Stop`).
Nothing of a worker outlives it but what the study was given.
"""

import contextlib
import copy
import errno
import json
import logging
import math
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from isotrain.config import Settings
from isotrain.errors import InputError
from isotrain.search import results as budget
from isotrain.search.recovery import alive, fail, first_of, lost, queue_again, waiting_repeats
from isotrain.search.storage import BEATS, FULL, exclusive, patiently
from isotrain.search.study import Place, open_study, signs_of_life

log = logging.getLogger(__name__)
T = TypeVar("T")
Finished = Callable[[FrozenTrial], None]
SEEDS = 1000  # a trial's seed lies below; fresh seeds do not
ROOM = 10_000_000  # bytes: less is a full disk
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


def work(place: Place, objective: Objective, *, on_finished: Finished = lambda _: None) -> str:
    """Run trials until the budget is spent or a signal asks to leave; returns which.

    ``on_finished`` is called with each trial that this worker ended, in whatever state, after the study knows.
    Any number of workers may run at once, start at any time and die at any time: what a dead one ran is found by its
    lease and queued again by the others, at the latest when the next one starts.

    Raises:
        InputError: what is stored is another study, or ``search.failures`` trials in a row have failed here.
        OSError: the disk is full; the trial is given back first if it can be.
    """
    study = patiently(lambda: open_study(place), place.search.patience, "opening the study")
    with writing_to(place.folder / "workers" / f"{socket.gethostname()}-{os.getpid()}.log"), Stop().listening() as stop:
        reason = Worker(place, study, objective, on_finished, stop).run()
        log.info("worker ends: %s", reason)
    return reason


def worker_name() -> str:
    """Machine and process, and the cluster's job if there is one."""
    job = os.environ.get("SLURM_ARRAY_JOB_ID") or os.environ.get("SLURM_JOB_ID")
    task = os.environ.get("SLURM_ARRAY_TASK_ID")
    within = f" job {job}" + (f"_{task}" if task else "") if job else ""
    return f"{socket.gethostname()}:{os.getpid()}{within}"


class Worker:
    """One process's share of a study."""

    def __init__(
        self, place: Place, study: optuna.Study, objective: Objective, on_finished: Finished, stop: Stop
    ) -> None:
        self._place, self._study, self._objective = place, study, objective
        self._on_finished, self._stop = on_finished, stop
        self._signs = signs_of_life(place, study)
        self._failed_in_a_row = 0

    def run(self) -> str:
        """Trial after trial; why it ended.

        A study that is over is watched for a lease while trials of others run: none may be left by a dead worker.
        """
        watch_ends = None
        while True:
            checked_at = time.monotonic()
            spent = self._patiently(self._check, "checking the study")
            if self._stop.signal:
                return f"asked to leave ({self._stop.signal})"
            if spent is None:
                watch_ends = None
                self._one()
                continue
            lease = self._place.search.lease
            watch_ends = watch_ends or time.monotonic() + lease * (1 + 1 / BEATS)
            if checked_at > watch_ends or not self._patiently(self._others_run, "reading the trials"):
                return spent
            time.sleep(lease / BEATS)

    def _check(self) -> str | None:
        """Recover what dead workers left; why the study is over, or None: what was begun is run to its end first."""
        if shutil.disk_usage(self._place.folder).free < ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._place.folder))
        self._signs.recover(self._study)
        retries = self._place.search.retries
        if lost(self._trials(), retries):
            with exclusive(self._place.url, self._place.folder):
                queue_again(self._study, retries)
        trials = self._trials()
        return None if waiting_repeats(trials) else budget.spent(self._study, self._place.search)

    def _one(self) -> None:
        trial = self._patiently(self._study.ask, "asking for a trial")
        self._patiently(lambda: self._signs.beat(trial), "taking the lease")
        with alive(self._signs, trial, self._place.search.lease):
            ending = self._attempt(trial)
            accepted = self._patiently(lambda: self._tell(trial, ending), f"ending trial {trial.number}")
        self._patiently(lambda: self._signs.end(trial), "dropping the lease")
        self._log_ending(trial, ending, accepted)
        if ending.error is not None:
            raise ending.error
        self._on_finished(self._patiently(lambda: copy.deepcopy(self._trials()[trial.number]), "reading the trial"))
        self._require_success(ending)

    def _attempt(self, trial: optuna.Trial) -> Ending:
        """Sample, note in the study what is run, run it."""
        number, space = trial.number, self._place.space
        out = self._place.folder / "trials" / str(number)
        self._patiently(lambda: out.mkdir(exist_ok=True), "making the trial's folder")
        with writing_to(out / "log"):
            overrides = self._patiently(lambda: space.suggest(trial), "sampling")
            trials = self._patiently(self._trials, "reading the trials")
            seed = first_of(trials[number], trials) % SEEDS
            noted = {"worker": worker_name(), "seed": seed, "overrides": json.dumps(overrides)}
            self._patiently(lambda: _note(trial, noted), "noting the trial")
            log.info("trial %d, seed %d: %s", number, seed, ", ".join(f"{k} {v}" for k, v in overrides.items()))
            report = reporter(trial, self._place.search.patience)
            return attempt(
                lambda: self._objective(Job(number, seed, overrides, space.settings(overrides), out), report),
                self._stop,
            )

    def _tell(self, trial: optuna.Trial, ending: Ending) -> bool:
        """Whether the study took the ending: not if others took this worker for dead and ended the trial."""
        try:
            _note(trial, ending.attrs)
            if ending.state == TrialState.FAIL:
                fail(self._study, trial, ending.why, given_back=ending.given_back)
            else:
                self._study.tell(trial, ending.values or None, state=ending.state)
        except (UpdateFinishedTrialError, ValueError):
            known = self._trials()[trial.number]
            if not known.state.is_finished():
                raise
            return known.state == ending.state and known.user_attrs.get("why", "") == ending.why
        return True

    def _others_run(self) -> bool:
        return any(trial.state == TrialState.RUNNING for trial in self._trials())

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _log_ending(self, trial: optuna.Trial, ending: Ending, accepted: bool) -> None:
        if not accepted:
            log.warning(
                "trial %d was taken for dead meanwhile and is queued again: its result is dropped", trial.number
            )
        elif ending.state == TrialState.FAIL:
            back = ", given back" if ending.given_back else ""
            log.warning("trial %d failed%s: %s", trial.number, back, ending.why)
        else:
            found = ", ".join(f"{n} {v:.4g}" for n, v in zip(self._place.objectives, ending.values, strict=False))
            log.info("trial %d %s: %s", trial.number, ending.state.name.lower(), found)

    def _require_success(self, ending: Ending) -> None:
        failed = ending.state == TrialState.FAIL and not ending.given_back
        self._failed_in_a_row = self._failed_in_a_row + 1 if failed else 0
        if self._failed_in_a_row >= self._place.search.failures:
            raise InputError(
                f"{self._failed_in_a_row} trials in a row have failed on {worker_name()}, the last with: {ending.why}; "
                f"read {self._place.folder / 'trials'}/*/log, or raise search.failures"
            )

    def _patiently(self, call: Callable[[], T], what: str) -> T:
        return patiently(call, self._place.search.patience, what)


def _note(trial: optuna.Trial, attrs: Mapping[str, object]) -> None:
    for key, value in attrs.items():
        trial.set_user_attr(key, value)


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Append every log line of the block to ``path``."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
