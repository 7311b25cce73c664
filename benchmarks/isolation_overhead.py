"""What MaskedAdam and the Isolation callback cost a training step between two selections.

    python benchmarks/isolation_overhead.py [--hidden 256] [--rounds 200] [--threads 1]

Times one optimiser step of an LSTM layer's parameters, gradients given, with torch.optim.Adam and with
MaskedAdam (all active; half of the units isolated; half of the arcs isolated), preceded by the callback's hook
where there is one. Conditions take turns step by step, so that whatever else the machine does falls on all of
them; the medians are compared with a whole training step of the stock LSTM (T=168, B=64), timed in turn too.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from isotrain.isolation import CRITERIA, SCHEDULES, Isolation, MaskedAdam
from isotrain.isolation.criteria import view_of
from isotrain.isolation.selection import select
from isotrain.isolation.zones import zones


def parameters(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    copies = [torch.nn.Parameter(p.detach().clone()) for p in module.parameters()]
    for p in copies:
        p.grad = torch.randn_like(p)
    return copies


def masked(module: torch.nn.Module, kind: str | None) -> Callable[[], Any]:
    """One step of MaskedAdam, the callback's hook before it, at a step that is no selection."""
    copies = parameters(module)
    optimiser = MaskedAdam(copies)
    if kind is not None:
        (zone_map,) = zones(module, kind)
        active = torch.rand(zone_map.count) < 0.5
        for p, mask in zip(copies, zone_map.expand(active).values(), strict=True):
            optimiser.set_active(p, mask)
    callback = Isolation(kind or "unit", "random", SCHEDULES["constant"](), every=20)
    trainer: Any = SimpleNamespace(global_step=7)

    def step() -> None:
        callback.on_before_optimizer_step(trainer, None, optimiser)  # type: ignore[arg-type]
        optimiser.step()

    return step


def selection(module: torch.nn.Module, kind: str) -> Callable[[], Any]:
    """One selection by update norm, from the scores to the optimiser being told."""
    (zone_map,) = zones(module, kind)
    named = dict(module.named_parameters())
    optimiser = MaskedAdam(named.values())
    for p in named.values():
        p.grad = torch.randn_like(p)
    optimiser.step()

    def choose() -> None:
        score = CRITERIA["update_norm"](view_of(zone_map, named, optimiser, torch.Generator()))
        active = select({zone_map.name: score}, 0.5)[zone_map.name]
        for name, mask in zone_map.expand(active).items():
            optimiser.set_active(named[name], mask)

    return choose


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
        "MaskedAdam, all active": masked(module, None),
        "MaskedAdam, half the units": masked(module, "unit"),
        "MaskedAdam, half the arcs": masked(module, "arc"),
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
    for kind in ("unit", "layer", "arc"):
        choose = selection(torch.nn.LSTM(7, settings.hidden), kind)
        ms = 1e3 * statistics.median(seconds(choose) for _ in range(9))
        print(f"one selection, kind {kind:12s} {ms:7.3f} ms")


if __name__ == "__main__":
    main()
