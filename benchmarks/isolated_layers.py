"""What isolating the lower half of the layers saves of a training step, for every encoder of the forecaster.

    python benchmarks/isolated_layers.py [--hidden 64] [--layers 2] [--rounds 15] [--fp32]

A step: 16 stretches of 336 hours with 16 origins each and 12 inputs, the encoder and a linear head, squared error, bf16
autocast, fused Adam; one thread, and its processor time. ``masked``: the lower half is isolated and its gradients are
computed all the same. ``exact``: they are not, and the backward stops above it. Steps of all three in turns; medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from isotrain.forecast.encoders import ENCODERS
from isotrain.forecast.stretches import Stretches
from isotrain.isolation import Isolator, MaskedAdam, Policy, Schedule
from isotrain.lstm import runtime

STRETCHES, HOURS, ORIGINS, HISTORY, INPUTS = 16, 336, 16, 168, 12
NEVER = 10**9


class Inputs:
    """What an encoder reads of a series."""

    def __init__(self, hours: int) -> None:
        self.inputs = torch.randn(hours, INPUTS)

    def rows(self, name: str, hours: torch.Tensor) -> torch.Tensor:
        return self.inputs[hours]


def trainer(name: str, hidden: int, layers: int, mode: str | None, bf16: bool) -> Callable[[], None]:
    """A training step with the lower half of the layers isolated in ``mode``; None: with nothing isolated."""
    torch.manual_seed(0)
    encoder, head = ENCODERS[name](INPUTS, hidden, layers, HISTORY, "auto"), nn.Linear(hidden, 1)
    optimiser = MaskedAdam([*encoder.parameters(), *head.parameters()], fused=True)
    series = Inputs(STRETCHES * HOURS)
    at = Stretches(HOURS * torch.arange(STRETCHES), torch.randint(HISTORY, HOURS + 1, (STRETCHES, ORIGINS)), HOURS)

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = head(encoder(series, at)).float().square().mean()  # type: ignore[arg-type]  # all that it reads
        loss.backward()
        if isolator is not None:
            isolator.before_step(1, 2)
        optimiser.step()

    isolator = None
    if mode is not None:
        schedule = Schedule(fraction=0.5, start=0.0)
        isolator = Isolator(encoder, optimiser, Policy("layer", mode, "depth", schedule, every=NEVER, modules=["*"]))
        isolator.before_step(0, 2)
    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--fp32", action="store_true")
    given = parser.parse_args()
    runtime.prepare(keep_allocator=True, flush_denormals=True, threads=1)
    print(f"{given.layers} layers of {given.hidden} units, processor ms a step (of whole)")
    for name in ("lstm", "gru", "tcn", "attention"):
        ways = {
            word: trainer(name, given.hidden, given.layers, mode, not given.fp32)
            for word, mode in {"whole": None, "masked": "masked", "exact": "exact"}.items()
        }
        times: dict[str, list[float]] = {word: [] for word in ways}
        for number in range(given.rounds + 1):
            for word, step in ways.items():
                start = time.process_time()
                step()
                if number:  # the first makes Adam's moments
                    times[word].append(1e3 * (time.process_time() - start))
        ms = {word: statistics.median(found) for word, found in times.items()}
        print(f"{name:10s}", "   ".join(f"{word} {x:6.1f} ({x / ms['whole']:.2f})" for word, x in ms.items()))


if __name__ == "__main__":
    main()
