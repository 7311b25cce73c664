"""A SLURM for the session, beside what the tests of failures share."""

from collections.abc import Iterator

import pytest
from tests.cluster.slurm import Slurm, cluster, why_not
from tests.search.conftest import account, small_disk

__all__ = ["account", "slurm", "small_disk"]


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Three nodes of two cores; skipped, with the reason, where SLURM cannot run."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running
