"""The retry queue: trials that lost their worker are ended as failed and queued again by another worker.

A worker renews the lease of the trial that it runs. A trial whose lease is not renewed, or that its worker gave back,
ends as FAIL, and a new trial of the same parameters is queued whose attribute ``again_of`` is the number of the trial
that it repeats. A trial and its repeats count as one.
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
    """Whether the trial failed for no reason of its own: its worker gave it back, or died.

    A worker notes the reason (``why``) before it ends a trial as failed, so a failure without a reason was written by
    the storage, for a trial whose worker died.
    """
    attrs = trial.user_attrs
    return trial.state == TrialState.FAIL and bool(attrs.get("given_back", "why" not in attrs))


def why(trial: FrozenTrial) -> str:
    """Why a failed trial failed."""
    return str(trial.user_attrs.get("why", VANISHED))


def first_of(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> int:
    """The number of the first trial that ``trial`` repeats, or its own.

    ``trials``: all trials of the study, by number.
    """
    return ([trial.number, *(earlier.number for earlier in _before(trial, trials))])[-1]


def settled(trials: Sequence[FrozenTrial], retries: int) -> list[FrozenTrial]:
    """The last trial of each trial and its repeats that ended for good, in the order of ending.

    ``trials``: all trials of the study.
    """
    ends: dict[int, FrozenTrial] = {}
    for trial in trials:
        if trial.state.is_finished() and not _repeatable(trial, trials, retries):
            ends.setdefault(first_of(trial, trials), trial)
    return sorted(ends.values(), key=lambda trial: (trial.datetime_complete, trial.number))


def lost(trials: Sequence[FrozenTrial], retries: int) -> list[FrozenTrial]:
    """The trials that have to be put into the retry queue and are not there yet."""
    repeated = {trial.user_attrs.get("again_of") for trial in trials}
    return [t for t in trials if t.number not in repeated and _repeatable(t, trials, retries)]


def waiting_repeats(trials: Sequence[FrozenTrial]) -> int:
    """The length of the retry queue: repeats that are queued and not begun."""
    return sum(trial.state == TrialState.WAITING and "again_of" in trial.user_attrs for trial in trials)


def queue_again(study: optuna.Study, retries: int) -> None:
    """Put every trial of :func:`lost` into the retry queue; a call after a complete or an interrupted one adds none
    twice.

    The caller must hold the study's lock: two processes at once could both find the same trial.
    """
    for trial in lost(study.get_trials(deepcopy=False), retries):
        attrs = {key: trial.user_attrs[key] for key in ("known",) if key in trial.user_attrs}
        enqueue(study, {**trial.user_attrs.get("queued", {}), **trial.params}, {**attrs, "again_of": trial.number})
        log.warning("trial %d (%s) is queued again", trial.number, why(trial))


def enqueue(study: optuna.Study, params: Mapping[str, Any], attrs: Mapping[str, Any]) -> None:
    """Queue a trial of ``params``; its attribute ``queued`` keeps them in case its worker dies before it samples."""
    study.enqueue_trial(dict(params), user_attrs={**attrs, "queued": dict(params)})


def _repeatable(trial: FrozenTrial, trials: Sequence[FrozenTrial], retries: int) -> bool:
    """Whether to repeat a trial.

    One whose worker died is repeated ``retries`` times only: it may be what killed its worker.
    """
    if not given_back(trial):
        return False
    return why(trial) != VANISHED or _vanished(_before(trial, trials)) < retries


def _vanished(trials: Iterable[FrozenTrial]) -> int:
    return sum(why(trial) == VANISHED for trial in trials)


def _before(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that ``trial`` repeats, the latest first."""
    earlier = []
    while (number := trial.user_attrs.get("again_of")) is not None:
        trial = trials[number]
        earlier.append(trial)
    return earlier


Running = optuna.Trial | FrozenTrial


class SignsOfLife(Protocol):
    """How the workers of a study show that they live."""

    def beat(self, trial: Running) -> None:
        """Renew the lease of a running trial."""

    def end(self, trial: Running) -> None:
        """Drop the lease of a trial that is finished."""

    def recover(self, study: optuna.Study) -> None:
        """End as FAIL the running trials whose worker is gone."""


class Leases:
    """Signs of life for the journal, which has no heartbeats: one file for each running trial.

    The age of a lease is the difference between two times that the file system of the folder wrote, so the clocks of
    the machines do not matter. A running trial without a lease (its worker died before it wrote one) gets a lease from
    the process that checks; nobody renews that one.
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
                with contextlib.suppress(UpdateFinishedTrialError):  # another process ended it before
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
    """Signs of life for PostgreSQL: Optuna's heartbeats, whose age the clock of the database measures.

    Optuna never ends a trial whose worker died before its first heartbeat, so the process that checks records one for
    it, once.
    """

    def __init__(self, storage: RDBStorage) -> None:
        self._storage = storage
        self._seen: set[int] = set()

    def beat(self, trial: Running) -> None:
        self._storage.record_heartbeat(trial._trial_id)

    def end(self, trial: Running) -> None:
        """Do nothing: only running trials are checked."""

    def recover(self, study: optuna.Study) -> None:
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if "worker" not in trial.user_attrs and trial.number not in self._seen:
                self.beat(trial)
                self._seen.add(trial.number)
        fail_stale_trials(study)


def _report_dead(trial: FrozenTrial) -> None:
    log.warning("trial %d: no sign of life of its worker %s", trial.number, trial.user_attrs.get("worker", "(unknown)"))


def fail(study: optuna.Study, trial: Running, why: str, *, given_back: bool) -> None:
    """End a running trial as FAIL. Its reason is written first: a FAIL without one is taken for a lost worker.

    Raises Optuna's ``UpdateFinishedTrialError`` if another process ended the trial before.
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
