"""What real-time recurrent learning and back-propagation through time cost as the network grows.

    python -m experiments.recurrent_learning.run [--steps 24] [--rounds 5]

Times both on one thread in float64 and takes the fastest round. Memory is the largest number of bytes that tensors made
by the method held at once, less those of the gradient, which both must hold. Exponents are slopes of a straight line
through the logarithms of the last four sizes; below them the fixed cost of a call to PyTorch hides the growth.
"""

import argparse
import datetime
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from experiments.recurrent_learning.methods import (
    Gradients,
    back_propagation_through_time,
    real_time_recurrent_learning,
)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from isotrain.training.machine import hardware

INPUTS = 4
METHODS: dict[str, tuple[Callable[..., Gradients], tuple[int, ...]]] = {
    "RTRL": (real_time_recurrent_learning, (8, 16, 32, 64, 96, 128, 192)),
    "BPTT": (back_propagation_through_time, (8, 16, 32, 64, 96, 128, 192, 512, 1024, 2048, 4096)),
}


class PeakBytes(TorchDispatchMode):
    """Inside it, ``peak`` is the most that tensors made inside held at once, in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(result):
            storage = leaf.untyped_storage() if isinstance(leaf, Tensor) else None
            if storage is not None and storage.data_ptr() not in given and storage.data_ptr() not in self.live:
                self.live[storage.data_ptr()] = storage.nbytes()
                weakref.finalize(storage, self.live.pop, storage.data_ptr(), None)
        self.peak = max(self.peak, sum(self.live.values()))
        return result


def problem(units: int, steps: int) -> tuple[Any, ...]:
    """Weights that keep the outputs lively, random inputs, and a loss at every step."""
    torch.manual_seed(0)
    weight, weight_in = torch.randn(units, units).double() / units**0.5, torch.randn(units, INPUTS).double()
    x, target = torch.randn(steps, INPUTS).double(), torch.randn(steps, units).double()
    return weight, weight_in, weight_in[:, 0], x, target[0] * 0, lambda t, h: 2 * (h - target[t])


def seconds(method: Callable[..., Gradients], arguments: tuple[Any, ...]) -> float:
    start = time.perf_counter()
    method(*arguments)
    return time.perf_counter() - start


def held(method: Callable[..., Gradients], arguments: tuple[Any, ...]) -> int:
    """Bytes at the worst moment, beyond the gradient."""
    with PeakBytes() as memory:
        gradients = method(*arguments)
    return memory.peak - sum(part.numel() * part.element_size() for part in gradients)


def exponent(sizes: list[int], costs: list[float]) -> float:
    """Of n, over the last four sizes."""
    return float(np.polyfit(np.log(sizes[-4:]), np.log(costs[-4:]), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    machine = hardware()
    print(
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {machine['cpu']}, 1 thread, torch {machine['torch']}, float64"
    )
    print(f"one sequence of {settings.steps} steps, {INPUTS} inputs\n")
    print("| method | units | ms a step | MB | MB, twice the steps |")
    print("| --- | ---: | ---: | ---: | ---: |")
    exponents = []
    for name, (method, sizes) in METHODS.items():
        times, memories = [], []
        for units in sizes:
            arguments = problem(units, settings.steps)
            times.append(min(seconds(method, arguments) for _ in range(settings.rounds)) / settings.steps)
            memories.append(held(method, arguments))
            twice = held(method, problem(units, 2 * settings.steps))
            print(
                f"| {name} | {units} | {1e3 * times[-1]:.3f} | {memories[-1] / 1e6:.3f} | {twice / 1e6:.3f} |",
                flush=True,
            )
        exponents.append(
            f"{name}: time a step grows as n^{exponent(sizes, times):.1f}, memory as n^{exponent(sizes, memories):.1f} "
            f"({sizes[-4]} to {sizes[-1]} units)"
        )
    print("\n" + "\n".join(exponents))


if __name__ == "__main__":
    main()
