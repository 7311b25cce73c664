"""How long a forecast takes: of one origin, and of every hour of a year.

    python benchmarks/forecast_speed.py [--windows data/windows] [--methods plain-128 rich] [--threads 1]

Takes the networks of ``params.yaml`` untrained, which are as fast as trained ones. One origin: the last of the series,
its columns computed beforehand, median of 200. A year: 8760 origins an hour apart, median of 5; in the streamed regime
the encoder answers a week of them in one pass. Prints a line a method.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from isotrain.config import MethodsView, load
from isotrain.data.windows import Windows
from isotrain.lstm import runtime
from isotrain.training.fit import Fit, prepare
from isotrain.training.machine import alone

YEAR = 8760  # hours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=Path, default=Path("data/windows"))
    parser.add_argument("--methods", nargs="+", default=["plain-128", "rich"])
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    runtime.prepare(keep_allocator=True, flush_denormals=True, pin_threads=True, threads=asked.threads)
    windows, methods = Windows.load(asked.windows), load("params.yaml", view=MethodsView)
    last = len(windows.target)
    with alone():
        for name in asked.methods:
            module, _ = prepare(Fit(methods.settings(name), 0, windows, Path()))
            one, year = torch.tensor([last]), torch.arange(last - YEAR + 1, last + 1)
            milliseconds, whole = 1e3 * seconds(module.forecast, one, 200), seconds(module.forecast, year, 5)
            print(f"{name}: one origin {milliseconds:.1f} ms, a year of them {whole:.2f} s")


def seconds(forecast: Callable[[Tensor], Tensor], origins: Tensor, times: int) -> float:
    """Median seconds of a forecast, after two that do not count."""
    taken = []
    for _ in range(times + 2):
        start = time.perf_counter()
        forecast(origins)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[2:])


if __name__ == "__main__":
    main()
