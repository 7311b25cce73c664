"""What the tests of failures share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.search.light_study import Account, small_file_system


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
