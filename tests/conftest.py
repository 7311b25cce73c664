"""What several folders of tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_series() -> Path:
    """The real hourly Drahi-X series; tests that need it are skipped where it is not to be had."""
    named = os.environ.get("ISOTRAIN_REAL_SERIES")
    shared = Path(__file__).parents[2] / "shared" / "data"
    path = Path(named) if named else next(shared.glob("*.csv"), None)
    if path is None or not path.is_file():
        pytest.skip("no real series: set ISOTRAIN_REAL_SERIES to its file, or put it into ../shared/data")
    return path
