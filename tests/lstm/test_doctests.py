"""The examples in the docstrings of isotrain.lstm do what they say."""

import doctest
import importlib
import pkgutil

import pytest
import torch

import isotrain.lstm

pytestmark = pytest.mark.usefixtures("one_thread")
MODULES = ["isotrain.lstm", *(m.name for m in pkgutil.walk_packages(isotrain.lstm.__path__, "isotrain.lstm."))]


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_examples_run_as_printed(name: str) -> None:
    torch.manual_seed(0)
    try:
        found = doctest.testmod(importlib.import_module(name), extraglobs={"torch": torch})
    finally:
        torch.set_flush_denormal(False)  # the example of runtime.prepare sets it for the whole process
    assert not found.failed


@pytest.mark.parametrize("public", ["lstm.LSTM", "horizon.Measurement", "horizon.Horizon", "runtime.prepare"])
def test_what_is_public_has_an_example(public: str) -> None:
    module, name = public.split(".")
    owner = getattr(importlib.import_module(f"isotrain.lstm.{module}"), name)
    assert doctest.DocTestFinder().find(owner, public)[0].examples
