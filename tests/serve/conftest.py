"""What the tests of a forecaster in use share."""

from pathlib import Path

import pytest
from tests.serve.small_forecaster import Fitted, make

from isotrain.config import Ingest
from isotrain.config.ingest import Simulated
from isotrain.data.ingest import Tidy, ingest


@pytest.fixture(scope="session")
def tidy() -> Tidy:
    """Twenty weeks from 1 January 2017 on: the clocks change on 26 March."""
    return ingest(Ingest(simulated=Simulated(seed=1, hours=24 * 7 * 20)), Path())


@pytest.fixture(scope="session", params=["rich", "plain"])
def fitted(request: pytest.FixtureRequest, tidy: Tidy, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    return make(tidy, tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="session")
def plain(tidy: Tidy, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """One of them, where the inputs do not matter."""
    return make(tidy, tmp_path_factory.mktemp("one"), "plain")
