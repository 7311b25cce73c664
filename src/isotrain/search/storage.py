"""Where a study is kept: a journal in its folder, or PostgreSQL; its lock; and waiting for storage out of reach."""

import errno
import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

from isotrain.errors import InputError

log = logging.getLogger(__name__)
BEATS = 6  # how often a lease is renewed while it is valid: five renewals may be lost
T = TypeVar("T")
FULL = (errno.ENOSPC, errno.EDQUOT)
FINAL = (*FULL, errno.ENOTDIR, errno.EISDIR, errno.EROFS, errno.ELOOP)  # what waiting does not mend
UNREACHABLE = (OSError, DBAPIError, StorageInternalError)


def patiently(call: Callable[[], T], seconds: float, what: str) -> T:
    """What ``call`` returns, tried again for up to ``seconds`` while its storage cannot be reached.

    ``call`` may be executed twice, because its answer can be lost on the way. What :data:`FINAL` names is raised at
    once; what else the last attempt raised is raised after ``seconds``. ``what`` names the call in the log.
    """
    begun, pause = time.monotonic(), 0.1
    while True:
        try:
            answer = call()
        except UNREACHABLE as problem:
            waited = time.monotonic() - begun
            if getattr(problem, "errno", None) in FINAL or waited >= seconds:
                raise
            log.warning(
                "%s: storage does not answer (%s); waited %.0f of %.0f s", what, _short(problem), waited, seconds
            )
            time.sleep(min(pause, max(0.0, seconds - waited)))
            pause = min(2 * pause, 5.0)
        else:
            if pause > 0.1:
                log.warning("%s: storage answers again after %.1f s", what, time.monotonic() - begun)
            return answer


@contextmanager
def reachable() -> Iterator[None]:
    """For a command on a study: storage that cannot be reached becomes an :class:`InputError`.

    A full disk stays OSError.
    """
    try:
        yield
    except UNREACHABLE as problem:
        if getattr(problem, "errno", None) in FULL:
            raise
        raise InputError(
            f"the study's storage cannot be reached ({_short(problem)}): start its database or correct "
            "ISOTRAIN_STUDY_URL, or check that its folder can be written"
        ) from problem


def _short(problem: Exception) -> str:
    return (str(problem.__cause__ or problem).splitlines() or [type(problem).__name__])[0]


FIELDS = {  # of an entry of the journal, as Optuna writes it
    "op_code": int, "worker_id": str, "study_id": int, "trial_id": int, "study_name": str, "param_name": str,
    "distribution": str, "user_attr": dict, "system_attr": dict, "state": int,
}  # fmt: skip
DAMAGED = "remove that line, or move the study's folder away and begin again"
GRACE = 30  # s after which a lock whose holder died is taken away


class WholeLinesBackend(JournalFileBackend):
    """Optuna's journal file, safe from a line that a full disk or a kill cut short.

    A writer that dies within a line leaves a tail without newline; the next line would be joined to it, and no process
    could read the rest. So each writer, while it holds the lock, first cuts such a tail: its own writer did not count
    it as written.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise InputError(f"{path} is no plain file: move it away, or give search.study another name")
        super().__init__(str(path))

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        """The entries from a line number on; :class:`InputError` for a line that is no entry."""
        try:
            for entry in super().read_logs(log_number_from):
                if not isinstance(entry, dict):
                    raise ValueError(f"{str(entry)[:80]!r} is no entry")
                for key, kind in FIELDS.items():
                    if not isinstance(entry.get(key, kind()), kind) or isinstance(entry.get(key), bool):
                        raise ValueError(f"{key} is {str(entry[key])[:80]!r}")
                numbers = entry.get("values") or []
                if not isinstance(numbers, list) or not all(isinstance(one, int | float) for one in numbers):
                    raise ValueError(f"values is {str(numbers)[:80]!r}")
                yield entry
        except ValueError as problem:
            raise InputError(f"{self._file_path} has a damaged line ({problem}): {DAMAGED}") from None

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append ``logs`` as lines and wait until they are on the disk.

        OSError, with nothing kept, if they do not fit.
        """
        lines = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in logs).encode()
        with file_lock(Path(self._file_path)), Path(self._file_path).open("r+b", buffering=0) as journal:
            end = _whole_lines(journal)
            try:
                _write(journal, lines)
                os.fsync(journal.fileno())
            except OSError:
                journal.truncate(end)
                raise


def _write(journal: Any, lines: bytes) -> None:
    done = 0
    while done < len(lines):
        done += journal.write(lines[done:])


def _whole_lines(journal: Any) -> int:
    """Cut a tail without newline, and place ``journal`` at its end; returns its length."""
    size = end = journal.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - 4096)
        journal.seek(start)
        newline = journal.read(end - start).rfind(b"\n")
        end = start + newline + 1
        if newline >= 0:
            break
    if end < size:
        log.warning("the journal ended within a line (%d bytes): a writer was killed or its disk full; cut", size - end)
        journal.truncate(end)
    journal.seek(end)
    return int(end)


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the lock ``<path>.lock``: a link, which every shared file system makes for one process only.

    Raises OSError if the folder cannot be reached. A process that died loses the lock after 30 s.
    """
    lock = JournalFileSymlinkLock(str(path), grace_period=GRACE)
    lock.acquire()
    try:
        yield
    finally:
        try:
            lock.release()
        except RuntimeError:
            log.warning(
                "%s.lock was gone before its release: this process stood still for %d s, or the folder was moved",
                path,
                GRACE,
            )


JOURNAL = "journal.log"
LOCK_KEY = 0x15071A1  # of PostgreSQL's advisory lock
CONNECT = {"connect_timeout": 10}  # s; else a host that swallows packets is waited for for minutes

warnings.filterwarnings("ignore", ".*heartbeat_interval", ExperimentalWarning)
warnings.filterwarnings("ignore", "Heartbeat of storage", UserWarning)  # recovery.py records them


def storage_at(url: str | None, folder: Path, lease: float) -> optuna.storages.BaseStorage:
    """The storage at ``url``, or the journal in ``folder``.

    ``lease``: seconds after which a trial has lost its worker.
    """
    if url is None:
        return optuna.storages.JournalStorage(WholeLinesBackend(folder / JOURNAL))
    with exclusive(url, folder):  # several processes at once would all create the tables
        return optuna.storages.RDBStorage(
            url,
            engine_kwargs={"pool_pre_ping": True, "connect_args": CONNECT},
            heartbeat_interval=max(1, int(lease / BEATS)),
            grace_period=max(1, int(lease)),
        )


@contextmanager
def exclusive(url: str | None, folder: Path) -> Iterator[None]:
    """Hold the study's one lock: PostgreSQL's advisory lock, or a file beside the journal."""
    if url is None:
        with file_lock(folder / "study"):
            yield
        return
    with create_engine(url, poolclass=NullPool, connect_args=CONNECT).connect() as connection:  # its end drops the lock
        connection.execute(text("select pg_advisory_lock(:key)"), {"key": LOCK_KEY})
        yield
