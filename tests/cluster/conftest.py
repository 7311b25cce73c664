"""A SLURM for the session."""

from collections.abc import Callable, Iterator

import pytest
from tests.cluster.slurm import Slurm, cluster, why_not
from tests.search.light_study import Account


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Three nodes of two cores; skipped, with the reason, where SLURM cannot run."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture
def account(record_property: Callable[[str, object], None]) -> Account:
    """Keeps a failure's counts before and after."""
    return Account(record_property)
