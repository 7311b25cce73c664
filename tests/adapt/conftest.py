"""What the tests of adapting share: a forecaster with arbitrary weights, and series that it has never seen."""

from pathlib import Path

import pytest
import torch
from tests.serve.small_forecaster import Fitted, make

from isotrain.adapt.candidates import Ground
from isotrain.config import Ingest
from isotrain.config.ingest import Simulated
from isotrain.data.ingest import Tidy, ingest
from isotrain.data.windows import Windows
from isotrain.forecast.bundle import Bundle, load_bundle
from isotrain.forecast.network import Forecaster
from isotrain.forecast.series import Series


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    tidy = ingest(Ingest(simulated=Simulated(seed=1, hours=24 * 7 * 20)), Path())
    return make(tidy, tmp_path_factory.mktemp("parent"), "rich")


@pytest.fixture(scope="session")
def parent(fitted: Fitted) -> Bundle:
    return load_bundle(fitted.folder)


@pytest.fixture(scope="session")
def new() -> Tidy:
    """Ten weeks of another building."""
    return ingest(Ingest(simulated=Simulated(seed=2, hours=24 * 7 * 10)), Path())


@pytest.fixture
def net(windows: Windows) -> Forecaster:
    """A network whose decoder says something."""
    torch.manual_seed(0)
    net = Forecaster(
        Series(windows, "rich"), hidden=5, layers=1, decoder=7, dropout=0.1, state_dropout=0.1, remember=None
    )
    for p in (net.decoder.out.weight, net.decoder.out.bias, net.skip.of_recent):
        torch.nn.init.normal_(p, std=0.1)
    return net.eval()


@pytest.fixture
def ground(net: Forecaster) -> Ground:
    """Seven weeks of the series, less some hours."""
    first = net.series.history + 500
    return Ground.of(net, first, first + 7 * 168 - 23)
