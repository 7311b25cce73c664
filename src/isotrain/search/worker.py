"""A worker: asks the study for a trial, runs it, tells; nothing of it outlives it but what it told."""

import copy
import errno
import json
import logging
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from isotrain.errors import InputError
from isotrain.search import results as budget
from isotrain.search.attempt import Diverged, Ending, Job, Objective, Outcome, Report, Stop, attempt, reporter
from isotrain.search.leases import alive, fail
from isotrain.search.retries import first_of, lost, queue_again, waiting_repeats
from isotrain.search.storage import BEATS, exclusive, patiently
from isotrain.search.study import Place, open_study, signs_of_life


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


__all__ = ["Diverged", "Job", "Objective", "Outcome", "Report", "work", "worker_name"]

log = logging.getLogger(__name__)
T = TypeVar("T")
Finished = Callable[[FrozenTrial], None]
SEEDS = 1000  # a trial's seed lies below; fresh seeds do not
ROOM = 10_000_000  # bytes: less is a full disk


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
            looked = time.monotonic()
            spent = self._patiently(self._look_after, "looking after the study")
            if self._stop.signal:
                return f"asked to leave ({self._stop.signal})"
            if spent is None:
                watch_ends = None
                self._one()
                continue
            lease = self._place.search.lease
            watch_ends = watch_ends or time.monotonic() + lease * (1 + 1 / BEATS)
            if looked > watch_ends or not self._patiently(self._others_run, "reading the trials"):
                return spent
            time.sleep(lease / BEATS)

    def _look_after(self) -> str | None:
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
            told = self._patiently(lambda: self._tell(trial, ending), f"telling trial {trial.number}")
        self._patiently(lambda: self._signs.end(trial), "dropping the lease")
        self._say(trial, ending, told)
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

    def _say(self, trial: optuna.Trial, ending: Ending, told: bool) -> None:
        if not told:
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
