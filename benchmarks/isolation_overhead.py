"""What MaskedAdam and the isolator cost a training step between two selections.

    python benchmarks/isolation_overhead.py [--hidden 256] [--rounds 200] [--threads 1]

Times one optimiser step of an LSTM layer's parameters, gradients given, with torch.optim.Adam and with
MaskedAdam (all active; half of the units isolated; half of the weights isolated), preceded by the isolator's
hook where there is one. Conditions take turns step by step, so that whatever else the machine does falls on all of
them; the medians are compared with a whole training step of the stock LSTM (T=168, B=64), timed in turn too.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from isotrain.isolation import Isolator, MaskedAdam, Policy, Schedule

EVERY = 20


def parameters(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    copies = [torch.nn.Parameter(p.detach().clone()) for p in module.parameters()]
    for p in copies:
        p.grad = torch.randn_like(p)
    return copies


def isolator_of(module: torch.nn.Module, kind: str, criterion: str) -> Isolator:
    for p in module.parameters():
        p.grad = torch.randn_like(p)
    policy = Policy(kind, "masked", criterion, Schedule("constant", fraction=0.5, start=0.0), every=EVERY)
    return Isolator(module, MaskedAdam(module.parameters()), policy)


def masked(module: torch.nn.Module, kind: str | None) -> Callable[[], Any]:
    """One step of MaskedAdam, the isolator asked before it, at a step without a selection."""
    isolator = isolator_of(module, kind or "unit", "random")
    if kind is not None:
        isolator.before_step(0, 100)

    def step() -> None:
        isolator.before_step(7, 100)
        isolator.optimiser.step()

    return step


def selection_ms(module: torch.nn.Module, kind: str, selections: int = 9) -> float:
    """Median milliseconds of a selection by update norm: scores, choice, active sets, record."""
    isolator = isolator_of(module, kind, "update_norm")
    for number in range(selections):
        for p in module.parameters():
            p.grad = torch.randn_like(p)
        isolator.optimiser.step()
        isolator.before_step(number * EVERY, 10**6)
    return 1e3 * statistics.median(entry["seconds"] for entry in isolator.history)


def stock_step(module: torch.nn.LSTM) -> Callable[[], Any]:
    x = torch.randn(168, 64, module.input_size)
    optimiser = torch.optim.Adam(module.parameters())

    def step() -> None:
        optimiser.zero_grad()
        module(x)[0][-1].square().mean().backward()
        optimiser.step()

    return step


def seconds(step: Callable[[], Any]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    settings = parser.parse_args()
    torch.set_flush_denormal(True)
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    module = torch.nn.LSTM(7, settings.hidden)
    conditions = {
        "torch.optim.Adam": torch.optim.Adam(parameters(module)).step,
        "MaskedAdam, all active": masked(copy.deepcopy(module), None),
        "MaskedAdam, half the units": masked(copy.deepcopy(module), "unit"),
        "MaskedAdam, half the weights": masked(copy.deepcopy(module), "weight"),
    }
    whole = stock_step(torch.nn.LSTM(7, settings.hidden))
    times: dict[str, list[float]] = {name: [] for name in conditions}
    whole_times = []
    for number in range(settings.rounds):
        for name, step in conditions.items():
            times[name].append(seconds(step))
        if number % 20 == 0:  # it is a hundred times longer
            whole_times.append(seconds(whole))
    step_ms = 1e3 * statistics.median(whole_times)
    adam_ms = 1e3 * statistics.median(times["torch.optim.Adam"])
    print(f"a stock training step, H={settings.hidden}: {step_ms:.1f} ms ({settings.threads} threads)")
    for name, measured in times.items():
        ms = 1e3 * statistics.median(measured)
        print(
            f"{name:28s} {ms:7.3f} ms   x{ms / adam_ms:5.2f} Adam   {100 * (ms - adam_ms) / step_ms:+6.2f} % of a step"
        )
    for kind, layers in (("unit", 1), ("weight", 1), ("layer", 2)):
        ms = selection_ms(torch.nn.LSTM(7, settings.hidden, layers), kind)
        share = 100 * ms / EVERY / step_ms
        print(f"a selection, {kind}s of {layers} layer(s) {ms:12.3f} ms   {share:6.2f} % of {EVERY} steps")


if __name__ == "__main__":
    main()
