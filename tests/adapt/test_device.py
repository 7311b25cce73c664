"""Adapting runs where the network is: nothing is computed on the CPU, and the answers are those of the CPU.

`python -m tests.adapt.test_device BUNDLE CSV` shows it on the device of `tests/second_device.py`, in its own process.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from tests.adapt.test_adapt import csv_of
from tests.serve.small_forecaster import Fitted

from isotrain.adapt import adapt as module
from isotrain.adapt import choose
from isotrain.adapt.adapt import adapt, device_of, read_new, windows_of
from isotrain.adapt.candidates import CANDIDATES, Candidate, trained
from isotrain.adapt.choose import Choice, Tried
from isotrain.adapt.monthly import Monthly
from isotrain.data.ingest import Tidy
from isotrain.forecast.bundle import Bundle, load_bundle

HERE: Mapping[str, Candidate] = {  # tried with any number of weeks; the network is trained for a few steps
    **{name: replace(one, strengths={min(one.strengths): 2}) for name, one in CANDIDATES.items()},
    "everything": Candidate("every weight", {1.0: 2}, lambda ground, parts, _: trained(ground, parts, True, steps=3)),
}
PRODUCTS = {
    *("mm", "addmm", "bmm", "mv", "linalg_solve_ex", "_linalg_solve_ex", "linalg_lstsq", "index_select"),
    *("gelu", "sigmoid", "tanh", "mkldnn_rnn_layer", "_thnn_fused_lstm_cell", "_fused_adam_"),
}


def most(tried: Sequence[Tried], weeks: int) -> Tried:
    """In the place of the rule: whatever gained most is thawed."""
    return max(tried, key=lambda one: one.gain)


def choices(bundle: Bundle, tidy: Tidy, device: str) -> list[Choice]:
    """What is chosen where each candidate is the only one, and by two months of the series."""
    with patch.object(module, "device_of", lambda _: device), patch.object(choose, "best", most):
        found = [adapt(bundle, tidy, {name: candidate}).choice for name, candidate in HERE.items()]
        other = bundle.for_another("other")
        windows = windows_of(other, tidy)
        first, last = windows.ranges("train")[0]
        monthly = Monthly.of(other.network(windows).to(device), first, last - 1000)
        found += [monthly.adapt(last - 672), monthly.adapt(last)]
        seen = torch.from_numpy(found[-1].origins)
        assert monthly.forecast(found[-1].weights, seen).device.type == "cpu"
    return found


def assert_alike(here: list[Choice], there: list[Choice], near: float) -> None:
    for ours, theirs in zip(here, there, strict=True):
        assert (ours.name, ours.strength) == (theirs.name, theirs.strength)
        assert [one.gain for one in theirs.tried] == pytest.approx([one.gain for one in ours.tried], abs=near)
        torch.testing.assert_close(
            torch.from_numpy(theirs.errors), torch.from_numpy(ours.errors), rtol=near, atol=near, equal_nan=True
        )
        assert ours.weights.keys() == theirs.weights.keys() and ours.weights
        for name, weight in theirs.weights.items():
            assert weight.device.type == "cpu"
            torch.testing.assert_close(weight, ours.weights[name], rtol=near, atol=near)


@pytest.mark.slow
def test_adapting_computes_nothing_on_the_cpu(fitted: Fitted, new: Tidy, tmp_path: Path) -> None:
    """On a device that refuses tensors of the CPU, as CUDA does."""
    words = [sys.executable, "-m", "tests.adapt.test_device", fitted.folder, csv_of(new, tmp_path / "meter.csv")]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("the same on both devices\n")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_adapting_on_a_gpu_is_adapting_on_the_cpu(parent: Bundle, new: Tidy, tmp_path: Path) -> None:
    tidy = read_new(parent, csv_of(new, tmp_path / "meter.csv"))
    assert device_of(parent) == "cuda"
    assert_alike(choices(parent, tidy, "cpu"), choices(parent, tidy, "cuda"), 0.03)  # products in bfloat16 and TF32


@pytest.mark.parametrize(
    ("accelerator", "there", "device"),
    [
        ("auto", True, "cuda"),
        ("auto", False, "cpu"),
        ("cpu", True, "cpu"),
        ("cuda", True, "cuda"),
        ("cuda", False, "cpu"),
    ],
)
def test_which_device_it_is(
    parent: Bundle, accelerator: str, there: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forecaster that was trained on a GPU is adapted without one too."""
    assert parent.settings is not None
    training = parent.settings.training.model_copy(update={"accelerator": accelerator})
    settings = parent.settings.model_copy(update={"training": training})
    monkeypatch.setattr(module, "cuda_is_there", lambda: there)
    assert device_of(replace(parent, settings=settings)) == device


def main(folder: str, csv: str) -> None:
    from tests.second_device import DEVICE, Watched, register

    torch.set_num_threads(1)
    register()
    bundle = load_bundle(Path(folder))
    tidy = read_new(bundle, Path(csv))
    with patch.object(torch, "autocast", lambda *_, **__: nullcontext()):
        here = choices(bundle, tidy, "cpu")
        with Watched() as watched:
            there = choices(bundle, tidy, DEVICE.type)
    assert_alike(here, there, 1e-3)
    assert watched.there.keys() >= {"addmm", "_thnn_fused_lstm_cell", "_fused_adam_", "linalg_lstsq"}, watched.there
    assert not watched.here.keys() & PRODUCTS, watched.here
    print("the same on both devices")


if __name__ == "__main__":
    main(*sys.argv[1:])
