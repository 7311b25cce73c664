"""Trials that lost their worker: whose signs of life stop is ended as failed, and queued again by another worker.

A worker renews the lease of the trial that it runs. A trial whose lease is not renewed, or that its worker gave back,
ends as FAIL, and a new trial of the same parameters is queued that says in ``again_of`` which trial it repeats. A trial
and its repeats count as one.
"""

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from isotrain.search.storage import BEATS, UNREACHABLE

log = logging.getLogger(__name__)
VANISHED = "vanished"


def given_back(trial: FrozenTrial) -> bool:
    """Whether its failure says nothing of the trial: given back by its worker, or left behind by a dead one.

    A worker notes ``why`` before it fails a trial, so a failure without a reason is the storage's.
    """
    attrs = trial.user_attrs
    return trial.state == TrialState.FAIL and bool(attrs.get("given_back", "why" not in attrs))


def why(trial: FrozenTrial) -> str:
    """Why a failed trial failed."""
    return str(trial.user_attrs.get("why", VANISHED))


def first_of(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> int:
    """Number of the first trial that ``trial`` repeats, or its own. ``trials``: all of the study, by their numbers."""
    return ([trial.number, *(earlier.number for earlier in _before(trial, trials))])[-1]


def settled(trials: Sequence[FrozenTrial], retries: int) -> list[FrozenTrial]:
    """How each trial ended for good, counted with its repeats, in the order of ending; ``trials``: all of the study."""
    ends: dict[int, FrozenTrial] = {}
    for trial in trials:
        if trial.state.is_finished() and not _repeatable(trial, trials, retries):
            ends.setdefault(first_of(trial, trials), trial)
    return sorted(ends.values(), key=lambda trial: (trial.datetime_complete, trial.number))


def lost(trials: Sequence[FrozenTrial], retries: int) -> list[FrozenTrial]:
    """Trials that have to be queued again and are not yet."""
    repeated = {trial.user_attrs.get("again_of") for trial in trials}
    return [t for t in trials if t.number not in repeated and _repeatable(t, trials, retries)]


def waiting_repeats(trials: Sequence[FrozenTrial]) -> int:
    """How many repeats are queued and not begun."""
    return sum(trial.state == TrialState.WAITING and "again_of" in trial.user_attrs for trial in trials)


def queue_again(study: optuna.Study, retries: int) -> None:
    """Queue every trial of :func:`lost`; done twice, or half, and then again, it queues nothing twice.

    The caller holds the study's lock: two at once could each find the same trial.
    """
    for trial in lost(study.get_trials(deepcopy=False), retries):
        attrs = {key: trial.user_attrs[key] for key in ("known",) if key in trial.user_attrs}
        enqueue(study, {**trial.user_attrs.get("queued", {}), **trial.params}, {**attrs, "again_of": trial.number})
        log.warning("trial %d (%s) is queued again", trial.number, why(trial))


def enqueue(study: optuna.Study, params: Mapping[str, Any], attrs: Mapping[str, Any]) -> None:
    """Queue ``params``; they are kept as ``queued``, for a worker that dies before it has taken them."""
    study.enqueue_trial(dict(params), user_attrs={**attrs, "queued": dict(params)})


def _repeatable(trial: FrozenTrial, trials: Sequence[FrozenTrial], retries: int) -> bool:
    """Of the trials that vanished only so many are repeated: one that takes its workers with it must end."""
    if not given_back(trial):
        return False
    return why(trial) != VANISHED or _vanished(_before(trial, trials)) < retries


def _vanished(trials: Iterable[FrozenTrial]) -> int:
    return sum(why(trial) == VANISHED for trial in trials)


def _before(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """What ``trial`` repeats, the latest first."""
    earlier = []
    while (number := trial.user_attrs.get("again_of")) is not None:
        trial = trials[number]
        earlier.append(trial)
    return earlier


Running = optuna.Trial | FrozenTrial


class SignsOfLife(Protocol):
    """Where signs of life are kept."""

    def beat(self, trial: Running) -> None:
        """Renew the lease of a running trial."""

    def end(self, trial: Running) -> None:
        """Drop the lease of a trial that is finished."""

    def recover(self, study: optuna.Study) -> None:
        """End as FAIL the running trials whose worker is gone."""


class Leases:
    """A file a running trial, for the journal, which knows no heartbeat.

    Ages are differences between two times that the folder's own file system wrote: clocks of machines do not
    matter. A running trial without a lease (its worker died before the first) gets one from the process
    that checks, which then is not renewed.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self._folder, self._seconds = folder, seconds

    def beat(self, trial: Running) -> None:
        self._of(trial).touch()

    def end(self, trial: Running) -> None:
        self._of(trial).unlink(missing_ok=True)

    def recover(self, study: optuna.Study) -> None:
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        now = self._clock() if running else 0.0
        for trial in running:
            if now - self._renewed(trial) > self._seconds:
                _report_dead(trial)
                with contextlib.suppress(UpdateFinishedTrialError):  # another was faster
                    fail(study, trial, VANISHED, given_back=True)
                self.end(trial)

    def _of(self, trial: Running) -> Path:
        return self._folder / str(trial.number)

    def _renewed(self, trial: FrozenTrial) -> float:
        with contextlib.suppress(FileExistsError):
            self._of(trial).touch(exist_ok=False)
        return self._of(trial).stat().st_mtime

    def _clock(self) -> float:
        probe = self._folder / f".now-{socket.gethostname()}-{os.getpid()}"
        probe.unlink(missing_ok=True)
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink()


class Heartbeats:
    """Optuna's heartbeats, for PostgreSQL, whose own clock tells their age.

    Optuna never fails a trial whose worker died before its first heartbeat, so the process that checks gives it one,
    once.
    """

    def __init__(self, storage: RDBStorage) -> None:
        self._storage = storage
        self._seen: set[int] = set()

    def beat(self, trial: Running) -> None:
        self._storage.record_heartbeat(trial._trial_id)

    def end(self, trial: Running) -> None:
        """Nothing: only running trials are checked."""

    def recover(self, study: optuna.Study) -> None:
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if "worker" not in trial.user_attrs and trial.number not in self._seen:
                self.beat(trial)
                self._seen.add(trial.number)
        fail_stale_trials(study)


def _report_dead(trial: FrozenTrial) -> None:
    log.warning("trial %d: no sign of life of its worker %s", trial.number, trial.user_attrs.get("worker", "(unknown)"))


def fail(study: optuna.Study, trial: Running, why: str, *, given_back: bool) -> None:
    """End a running trial as FAIL. ``why`` comes first: a FAIL without is taken for a vanished one.

    Raises Optuna's ``UpdateFinishedTrialError`` if another was faster.
    """
    storage = study._storage
    storage.set_trial_user_attr(trial._trial_id, "why", why)
    storage.set_trial_user_attr(trial._trial_id, "given_back", given_back)
    storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


@contextmanager
def alive(signs: SignsOfLife, trial: Running, seconds: float) -> Iterator[None]:
    """Renew the lease of ``trial`` from a thread while the block runs, ``BEATS`` times in ``seconds``."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(seconds / BEATS):
            try:
                signs.beat(trial)
            except UNREACHABLE as problem:
                log.warning("trial %d: its lease cannot be renewed (%s)", trial.number, problem)

    thread = threading.Thread(target=renew, name=f"lease-{trial.number}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=seconds)
