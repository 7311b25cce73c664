"""Whether networks of one shape train faster stacked than one after the other, on this processor.

    python benchmarks/stacked.py [THREADS]

A step: T = 168 hours, B = 16 windows, 12 inputs, loss on all states, fused Adam. One after the other: the fastest
backend of isotrain.lstm.LSTM. Milliseconds for one network; medians of 15 steps taken in turns.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from isotrain.lstm import LSTM, runtime
from isotrain.lstm.stacked import StackedLSTM

STEPS, BATCH, INPUTS = 168, 16, 12


def trainer(net: nn.Module, x: torch.Tensor, autocast: bool) -> Callable[[], None]:
    """A training step of ``net``."""
    optimiser = torch.optim.Adam(net.parameters(), fused=True)

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = net(x)[0].float().square().mean()
        loss.backward()
        optimiser.step()

    return step


def milliseconds(several: int, hidden: int, credit: Any) -> tuple[float, float]:
    """For one network: one after the other, and stacked."""
    lstms = [LSTM(INPUTS, hidden, compute="bf16") for _ in range(several)]
    stacked = StackedLSTM(lstms, credit)
    x = torch.randn(STEPS, several, BATCH, INPUTS)
    for lstm in lstms:
        lstm.isolate(credit=credit)
    each = [trainer(lstm, x[:, n].contiguous(), False) for n, lstm in enumerate(lstms)]
    ways: list[list[Callable[[], None]]] = [each, [trainer(stacked, x, True)]]
    taken: list[list[float]] = [[], []]
    for _ in range(17):
        for way, times in zip(ways, taken, strict=True):
            start = time.perf_counter()
            for step in way:
                step()
            times.append(1e3 * (time.perf_counter() - start) / several)
    alone, together = (statistics.median(times[2:]) for times in taken)
    return alone, together


def main() -> None:
    runtime.prepare(keep_allocator=True, flush_denormals=True, threads=int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    print("| units | credit | networks | one after the other, ms | stacked, ms | times as fast |")
    print("| ---: | --- | ---: | ---: | ---: | ---: |")
    for hidden in (16, 64):
        for credit in ("none", "full"):
            for several in (1, 4, 16):
                alone, together = milliseconds(several, hidden, credit)
                cells = (hidden, credit, several, f"{alone:.2f}", f"{together:.2f}", f"{alone / together:.2f}")
                print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
