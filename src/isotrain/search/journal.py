"""The journal of a study: a file that many machines append to, whole lines only."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

log = logging.getLogger(__name__)
GRACE = 30  # s after which a lock whose holder died is taken away


class WholeLinesBackend(JournalFileBackend):
    """Optuna's journal file, safe from a line that a full disk or a kill cut short.

    A writer that dies within a line leaves a tail without newline; the next line would be glued to it and no
    process could read on. So each writer, holding the lock, first cuts such a tail: its writer was never told that
    it was kept.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(str(path))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append ``logs`` as lines, on the disk before it returns; OSError, and nothing kept, if they do not fit."""
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
    """Cut a tail without newline; the journal's length, where it now stands."""
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
    """Hold ``path``.lock, by a link that every shared file system makes for one process only.

    Raises OSError if the folder cannot be reached. A holder that died loses it after 30 s.
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
                "%s.lock was gone before it was released: this process stood still for %d s, or the folder was moved",
                path,
                GRACE,
            )
