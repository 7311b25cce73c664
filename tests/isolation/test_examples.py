"""The examples in the docstrings of isotrain.isolation run."""

import doctest
import pkgutil
from importlib import import_module

import isotrain.isolation


def test_every_example_gives_what_it_says() -> None:
    attempted = 0
    for module in pkgutil.iter_modules(isotrain.isolation.__path__, "isotrain.isolation."):
        result = doctest.testmod(import_module(module.name))
        assert result.failed == 0
        attempted += result.attempted
    assert attempted > 20
