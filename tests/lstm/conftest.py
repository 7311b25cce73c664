"""The compiled kernels, for the tests that need them."""

from collections.abc import Iterator

import pytest
import torch

from isotrain.errors import InputError
from isotrain.lstm.kernels import build


@pytest.fixture(scope="session")
def kernels() -> None:
    """Compiled if they are not yet; tests that need them are skipped where that is impossible."""
    try:
        build.build()
    except InputError as problem:
        pytest.skip(str(problem))
    build.load()


@pytest.fixture(scope="session")
def bf16_kernels(kernels: None) -> None:
    """Kernels on a processor that multiplies in bf16."""
    if not build.has_brgemm(True):
        pytest.skip("this processor has no bf16 products")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small networks: two threads would mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
