"""A worker: it asks the study for a trial, runs it, writes its ending into the study, and asks for the next trial.

:func:`work` is the worker. The other classes describe one trial: what is to be run (:class:`Job`), what it found
(:class:`Outcome`), how it ended (:class:`Ending`), and the signals that end it early (:class:`Stop`). When a worker
ends, only what it wrote into the study and into the folders of its trials is left.
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
SEEDS = 1000  # seeds of trials lie below this number, fresh seeds do not
FREE_BYTES = 10_000_000  # with less than this the disk counts as full
ASKED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Leave(SystemExit):
    """Raised by a signal in the middle of a training; no Exception, so that nothing treats it as a failure."""


class Stop:
    """Whether a signal has asked the worker to leave: ``signal`` is its name, or None."""

    def __init__(self) -> None:
        self.signal: str | None = None
        self._interruptible = False

    @contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Handle the signals in the block; outside the main thread, which alone may, only run the block."""
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
        number: number of the trial in the study.
        seed: below 1000; a repeat of a trial has the seed of the first.
        overrides: dotted path -> value: what the trial changes in the settings of the base.
        settings: the settings of the base with these changes.
        out: the folder for the files of the trial.
    """

    number: int
    seed: int
    overrides: dict[str, Any]
    settings: Settings
    out: Path


@dataclass(frozen=True)
class Outcome:
    """What a trial found: its ``values`` in the order of the objectives, and the ``attrs`` to keep with the trial."""

    values: tuple[float, ...]
    attrs: dict[str, Any]


Report = Callable[[int, float, float], None]  # step, validation MAE (kW), seconds so far
Objective = Callable[[Job, Report], Outcome]


class Diverged(Exception):
    """The training met numbers that are not finite: the trial has failed and is not repeated."""


@dataclass(frozen=True)
class Ending:
    """How a trial ended: the reason ``why`` if it failed; ``error`` if the worker cannot go on after it."""

    state: TrialState
    values: tuple[float, ...] = ()
    attrs: dict[str, Any] = field(default_factory=dict)
    why: str = ""
    given_back: bool = False
    error: BaseException | None = None


def attempt(run: Callable[[], Outcome], stop: Stop) -> Ending:
    """How the trial ended that ``run`` runs.

    A failure of the trial itself ends the trial only. A trial that a signal interrupts, or that finds the disk full, is
    given back to be run again, and the worker ends too.
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
    except InputError as problem:  # what a user can correct needs no traceback
        log.error("the trial failed: %s", problem)
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
    """The class of a problem and its first line; torch has several classes for too little memory."""
    kind, first = type(problem).__name__, (str(problem).splitlines() or [""])[0]
    memory = kind in ("MemoryError", "OutOfMemoryError") or "can't allocate memory" in first
    return f"{'out of memory: ' if memory else ''}{kind}: {first}"


def reporter(trial: optuna.Trial, patience: float) -> Report:
    """What reports validation errors to the study's pruner.

    With two objectives, which Optuna cannot prune, it is idle.
    """

    def report(step: int, val_mae: float, _: float) -> None:
        if len(trial.study.directions) == 1:
            patiently(lambda: trial.report(val_mae, step), patience, "reporting")
            if patiently(trial.should_prune, patience, "asking whether to prune"):
                raise optuna.TrialPruned

    return report


def work(place: Place, objective: Objective, *, on_finished: Finished = lambda _: None) -> str:
    """Run trials until the budget is spent or a signal asks the worker to leave; returns the reason in words.

    ``on_finished`` is called with each trial that this worker ended, in whatever state, after the study has its ending.
    Any number of workers may run at once, start at any time and die at any time: the others find the trial of a dead
    worker by its lease and put it into the retry queue, at the latest when the next worker starts.

    Raises:
        InputError: the stored study is another one, or ``search.failures`` trials in a row have failed in this worker.
        OSError: the disk is full; the trial is given back first if that can still be written.
    """
    study = patiently(lambda: open_study(place), place.search.patience, "opening the study")
    with writing_to(place.folder / "workers" / f"{socket.gethostname()}-{os.getpid()}.log"), Stop().listening() as stop:
        reason = Worker(place, study, objective, on_finished, stop).run()
        log.info("worker ends: %s", reason)
    return reason


def worker_name() -> str:
    """The machine and the process, and the job of the cluster if there is one."""
    job = os.environ.get("SLURM_ARRAY_JOB_ID") or os.environ.get("SLURM_JOB_ID")
    task = os.environ.get("SLURM_ARRAY_TASK_ID")
    within = f" job {job}" + (f"_{task}" if task else "") if job else ""
    return f"{socket.gethostname()}:{os.getpid()}{within}"


class Worker:
    """The loop of one process over the trials of a study."""

    def __init__(
        self, place: Place, study: optuna.Study, objective: Objective, on_finished: Finished, stop: Stop
    ) -> None:
        self._place, self._study, self._objective = place, study, objective
        self._on_finished, self._stop = on_finished, stop
        self._signs = signs_of_life(place, study)
        self._failed_in_a_row = 0

    def run(self) -> str:
        """Run trial after trial; returns why the worker ended.

        When the budget is spent and trials of other workers still run, the worker stays for the length of a lease: if
        one of them dies, its trial must not be left behind.
        """
        watch_ends = None
        while True:
            checked_at = time.monotonic()
            spent = self._patiently(self._check, "checking the study")
            if self._stop.signal:
                return f"asked to leave ({self._stop.signal})"
            if spent is None:
                watch_ends = None
                self._run_next()
                continue
            lease = self._place.search.lease
            watch_ends = watch_ends or time.monotonic() + lease * (1 + 1 / BEATS)
            if checked_at > watch_ends or not self._patiently(self._others_run, "reading the trials"):
                return spent
            time.sleep(lease / BEATS)

    def _check(self) -> str | None:
        """Queue the trials of dead workers again; returns why the study is over, or None.

        The retry queue is emptied first.
        """
        if shutil.disk_usage(self._place.folder).free < FREE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._place.folder))
        self._signs.recover(self._study)
        retries = self._place.search.retries
        if lost(self._trials(), retries):
            with exclusive(self._place.url, self._place.folder):
                queue_again(self._study, retries)
        trials = self._trials()
        return None if waiting_repeats(trials) else budget.spent(self._study, self._place.search)

    def _run_next(self) -> None:
        trial = self._patiently(self._study.ask, "asking for a trial")
        self._patiently(lambda: self._signs.beat(trial), "taking the lease")
        with alive(self._signs, trial, self._place.search.lease):
            try:
                ending = self._attempt(trial)
            except UpdateFinishedTrialError:  # while it was prepared: storage was away for longer than the lease
                log.warning(
                    "trial %d is queued again by others, which took this worker for dead before it began", trial.number
                )
                self._patiently(lambda: self._signs.end(trial), "dropping the lease")
                return
            accepted = self._patiently(lambda: self._end(trial, ending), f"ending trial {trial.number}")
        self._patiently(lambda: self._signs.end(trial), "dropping the lease")
        self._log_ending(trial, ending, accepted)
        if ending.error is not None:
            raise ending.error
        self._on_finished(self._patiently(lambda: copy.deepcopy(self._trials()[trial.number]), "reading the trial"))
        self._require_success(ending)

    def _attempt(self, trial: optuna.Trial) -> Ending:
        """Sample a trial, write into the study what is run, and run it."""
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

    def _end(self, trial: optuna.Trial, ending: Ending) -> bool:
        """Write the ending.

        False if other workers had ended the trial before, because they took this worker for dead.
        """
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
                "trial %d is queued again by others, which took this worker for dead: its result is dropped",
                trial.number,
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
    """Append every line that the block logs to the file ``path``."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
