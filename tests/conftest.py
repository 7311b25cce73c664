"""What several folders of tests share."""

import os
from pathlib import Path

import pytest

from isotrain.config import Ingest, Window
from isotrain.config.ingest import Simulated
from isotrain.data.ingest import ingest
from isotrain.data.windowing import make_windows
from isotrain.data.windows import Windows


@pytest.fixture(scope="session")
def real_series() -> Path:
    """The real hourly Drahi-X series; tests that need it are skipped where it is not to be had."""
    named = os.environ.get("ISOTRAIN_REAL_SERIES")
    shared = Path(__file__).parents[2] / "shared" / "data"
    path = Path(named) if named else next(shared.glob("*.csv"), None)
    if path is None or not path.is_file():
        pytest.skip("no real series: set ISOTRAIN_REAL_SERIES to its file, or put it into ../shared/data")
    return path


@pytest.fixture(scope="session")
def windows() -> Windows:
    """Twenty weeks of the simulated building, ready for forecasting."""
    settings = Ingest(simulated=Simulated(seed=1, hours=24 * 7 * 20))
    tidy = ingest(settings, Path())
    split = Window(history=48, horizon=24, train=0.6, validation=0.2, stride=1)
    return make_windows(tidy.frame, tidy.facts, split)
