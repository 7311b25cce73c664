"""What the tests of a study share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.search.light_study import Account, small_file_system
from tests.search.postgres import Postgres, server, why_not


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL on loopback; skipped with the reason where there is none."""
    if reason := why_not():
        pytest.skip(reason)
    with server() as running:
        yield running


@pytest.fixture
def account(record_property: Callable[[str, object], None]) -> Account:
    """Keeps a failure's counts before and after."""
    return Account(record_property)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The folder of results on a file system of 16 MB; skipped where none can be mounted."""
    try:
        with small_file_system(tmp_path / "results") as folder:
            yield folder
    except PermissionError as problem:
        pytest.skip(f"no small file system to fill: {problem}")
