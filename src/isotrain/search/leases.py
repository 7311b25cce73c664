"""Signs of life: who runs a trial renews its lease, and whose lease is not renewed is taken for dead."""

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from isotrain.search.retries import VANISHED
from isotrain.search.storage import BEATS, UNREACHABLE

log = logging.getLogger(__name__)


Running = optuna.Trial | FrozenTrial


class SignsOfLife(Protocol):
    """Where signs of life are kept."""

    def beat(self, trial: Running) -> None:
        """Renew the lease of a running trial."""

    def end(self, trial: Running) -> None:
        """Drop the lease of a trial that is finished."""

    def recover(self, study: optuna.Study) -> None:
        """End as FAIL the running trials that nobody runs any more."""


class Leases:
    """A file a running trial, for the journal, which knows no heartbeat.

    Ages are differences between two times that the folder's own file system wrote: clocks of machines do not
    matter. A running trial without a lease (its worker died before the first) gets one from whoever looks, which
    nobody renews.
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
                _say_dead(trial)
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

    Optuna never fails a trial whose worker died before its first beat; whoever looks gives it one, once.
    """

    def __init__(self, storage: RDBStorage) -> None:
        self._storage = storage
        self._seen: set[int] = set()

    def beat(self, trial: Running) -> None:
        self._storage.record_heartbeat(trial._trial_id)

    def end(self, trial: Running) -> None:
        """Nothing: only running trials are looked at."""

    def recover(self, study: optuna.Study) -> None:
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if "worker" not in trial.user_attrs and trial.number not in self._seen:
                self.beat(trial)
                self._seen.add(trial.number)
        fail_stale_trials(study)


def _say_dead(trial: FrozenTrial) -> None:
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
