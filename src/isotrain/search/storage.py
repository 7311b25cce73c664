"""Where a study is kept: the journal in its folder, or PostgreSQL; and the one lock of a study."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning
from sqlalchemy import NullPool, create_engine, text

from isotrain.search.journal import WholeLinesBackend, file_lock
from isotrain.search.leases import BEATS

JOURNAL = "journal.log"
LOCK_KEY = 0x15071A1  # of PostgreSQL's advisory lock

warnings.filterwarnings("ignore", ".*heartbeat_interval", ExperimentalWarning)
warnings.filterwarnings("ignore", "Heartbeat of storage", UserWarning)  # we beat it ourselves


def storage_at(url: str | None, folder: Path, lease: float) -> optuna.storages.BaseStorage:
    """The storage at ``url``, or the journal in ``folder``; ``lease``: seconds for which a sign of life holds."""
    if url is None:
        return optuna.storages.JournalStorage(WholeLinesBackend(folder / JOURNAL))
    with exclusive(url, folder):  # several processes at once would all make the tables
        return optuna.storages.RDBStorage(
            url,
            engine_kwargs={"pool_pre_ping": True},
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
    with create_engine(url, poolclass=NullPool).connect() as connection:  # the lock ends with the connection
        connection.execute(text("select pg_advisory_lock(:key)"), {"key": LOCK_KEY})
        yield
