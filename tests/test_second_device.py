"""A whole training on a device that is not the CPU: no step mixes the two, and it ends where that on the CPU does.

`python -m tests.test_second_device METHOD...` shows it on the device of `tests/second_device.py`, in its own process.
"""

import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.strategies import SingleDeviceStrategy
from tests.second_device import DEVICE, Watched, quiet, register
from torch import Tensor, nn

from isotrain.lstm import backends, credit, stacked
from isotrain.lstm import lstm as lstm_module
from isotrain.lstm.graphs import Recording, without_graph
from isotrain.lstm.stacked import StackedLSTM
from isotrain.training import fit as training
from isotrain.training.fit import Fit, Loop
from isotrain.training.graphed import GraphedModule
from isotrain.training.processes import Place

# one of each kind
METHODS = (
    *("tuned", "tuned-windowed", "masked-unit-50", "exact-75", "cut-75", "autonomous-75", "layer", "isolated", "rich"),
    *("credit-none", "credit-thawed", "credit-measured", "hours-4", "steps-adaptive", "state-zeroed", "rich-tcn"),
)
STACKED = "stacked"


class Replayed(GraphedModule):
    """No step that is replayed may wait, or copy from the CPU."""

    @staticmethod
    def record(step: Callable[[], Tensor]) -> Recording:
        return without_graph(quiet()(step))


class Second(CPUAccelerator):
    """The second device as Lightning knows it."""

    def setup_device(self, device: torch.device) -> None:
        assert device == DEVICE


@pytest.mark.slow
@pytest.mark.parametrize("methods", [METHODS[::2], (STACKED,)], ids=" ".join)
def test_a_training_mixes_no_tensors_of_two_devices(methods: tuple[str, ...]) -> None:
    words = [sys.executable, "-m", "tests.test_second_device", *methods]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-3000:]
    assert done.stdout.split() == list(methods)


def main(methods: list[str]) -> None:
    from tests.conftest import windows
    from tests.test_training import small

    register()
    torch.set_num_threads(1)
    series = windows.__wrapped__()  # type: ignore[attr-defined]
    on_device = (
        patch.object(training, "device", lambda _: Second()),
        patch.object(Place, "arguments", lambda *_, **__: {"strategy": SingleDeviceStrategy(DEVICE), "plugins": []}),
        patch.object(training, "ForecastModule", Replayed),
    )
    for method in methods:
        short: dict[str, Any] = {"runtime__bf16": False, "runtime__backend": "auto", "runtime__fused_adam": True}
        job = Fit(small(method, training__steps=12, training__validate_every=6, **short), 0, series, Path())
        here = Loop(job)
        here.run()
        with on_device[0], on_device[1], on_device[2], Watched() as watched:
            there = Loop(job)
            there.run()
        assert isinstance(there.module, Replayed) and there.module.graphed is not None
        assert there.module.graphed.replayed and watched.there["linalg_vector_norm"]  # of clipping
        for ours, theirs in zip(here.clock.rows, there.clock.rows, strict=True):
            assert theirs["val_mae"] == pytest.approx(ours["val_mae"], rel=1e-3)
        print(method, flush=True)


def many() -> None:
    """LSTMs stacked, each credit: the gradients of the CPU, without any wait."""
    register()
    for asked in ("full", "cell", "none"):
        torch.manual_seed(1)
        lstms = StackedLSTM([nn.LSTM(3, 5, 2) for _ in range(4)], asked)
        x, gradients = torch.randn(6, 4, 2, 3), []
        with Watched():
            for device in (torch.device("cpu"), DEVICE):
                moved = x.to(device)
                lstms.to(device).zero_grad()
                with quiet():
                    y, (_, c) = lstms(moved)
                    (y.sin().sum() + c.sum()).backward()
                gradients.append([p.grad.cpu() for p in lstms.parameters()])
        for here, there in zip(*gradients, strict=True):
            torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-5)
    print(STACKED)


if __name__ == "__main__":
    with ExitStack() as stack:
        for part in (backends, credit, lstm_module, stacked):
            stack.enter_context(patch.object(part, "on_gpu", lambda x: x.device == DEVICE))
        stack.enter_context(patch.object(credit, "scan", lambda: None))
        many() if sys.argv[1:] == [STACKED] else main(sys.argv[1:])
