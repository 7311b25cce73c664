"""The examples in the docstrings give what they print, in a project's folder with windows of a simulated building."""

import doctest
from importlib import import_module
from pathlib import Path
from shutil import copy

import pytest
import torch

from isotrain.data.windows import Windows

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
MODULES = [path for path in sorted(SOURCE.rglob("*.py")) if ">>>" in path.read_text(encoding="utf-8")]
PUBLIC = [
    "errors.InputError",
    "lstm.lstm.LSTM",
    "lstm.graphs.GraphedStep",
    "lstm.stacked.StackedLSTM",
    "lstm.horizon.Measurement",
    "lstm.horizon.Horizon",
    "isolation.callback.Isolation",
    "isolation.callback.AdaptiveHorizon",
    "isolation.isolator.Isolator",
    "isolation.isolator.isolate",
    "isolation.optimisers.MaskedAdam",
    "isolation.settings.Policy",
    "isolation.settings.Schedule",
    "forecast.network.Forecaster",
    "forecast.stretches.Sampler",
    "forecast.intervals.Intervals",
    "baselines.fitted.Fitted",
    "compare.statistics.Interval",
    "compare.searched.Searched",
    "training.fit.Loop",
    "training.machine.Stopwatch",
    "training.tracking.PendingRun",
    "search.study.Place",
    "search.space.Space",
    "search.cost.StepCost",
    "search.objective.Rule",
]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, windows: Windows) -> None:
    """The working folder: params.yaml and data/windows."""
    copy(ROOT / "params.yaml", tmp_path)
    windows.save(tmp_path / "data" / "windows")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_examples_run_as_printed(path: Path) -> None:
    name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
    try:
        found = doctest.testmod(import_module(name), extraglobs={"torch": torch})
    finally:
        torch.set_flush_denormal(False)  # the example of runtime.prepare sets it for the whole process
    assert found.attempted and not found.failed


@pytest.mark.parametrize("public", PUBLIC)
def test_what_is_public_has_an_example(public: str) -> None:
    module, _, name = public.rpartition(".")
    owner = getattr(import_module(f"isotrain.{module}"), name)
    assert any(part.examples for part in doctest.DocTestFinder().find(owner, public))
