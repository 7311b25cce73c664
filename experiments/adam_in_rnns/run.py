"""How Adam treats isolated and thawed weights of a small LSTM: figures and numbers of docs/adam-in-rnns.md.

    python -m experiments.adam_in_rnns.run [--out docs/adam-in-rnns] [--only one_weight thaw ...]

One LSTM of 16 units reads 32 values of a sum of two sines (periods 11 and 29, random phases, noise 0.1) and says the
value 8 steps after the last. Every condition of an experiment starts from the same weights and sees the same batches.
One thread, fixed seeds; CPU, about two minutes. Prints tables in Markdown, writes one PNG an experiment and all tables
as results.json.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from torch import Tensor, nn

from isotrain.files import write_json
from isotrain.isolation.masking import Masked
from isotrain.isolation.optimisers import MaskedAdadelta, MaskedAdagrad, MaskedAdam, MaskedRMSprop, MaskedSGD
from isotrain.report.drawing import GREY, PALETTE, STYLE, new_figure, save
from isotrain.training.machine import commit, hardware

STEPS, BATCH, LEAD, UNITS, RATE = 32, 32, 8, 16, 1e-2
Optimiser = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
POLICIES: dict[str, dict[str, str]] = {
    "hold": {},
    "decay": {"moments": "decay"},
    "mean": {"moments": "mean"},
    "reset, global t": {"moments": "reset"},
    "reset, per-weight n": {"moments": "reset", "correction": "per_weight"},
    "lazy, hold": {"variant": "lazy"},
    "tf15, decay": {"variant": "tf15", "moments": "decay"},
}
COLOUR = {"never isolated": "#000000"} | dict(zip(POLICIES, PALETTE, strict=False))
DASHES: dict[str, Any] = {
    "never isolated": (0, (4, 2)),
    "lazy, hold": (0, (2, 2)),
    "tf15, decay": (0, (6, 1.5, 1, 1.5)),
}


def style_of(name: str) -> dict[str, Any]:
    return {"color": COLOUR[name], "ls": DASHES.get(name, "-"), "lw": 1.4, "label": name}


class Task:
    """The network, its batches and its optimiser, all from one seed."""

    def __init__(self, optimiser: Optimiser, seed: int = 0) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.lstm, self.head = nn.LSTM(1, UNITS, batch_first=True), nn.Linear(UNITS, 1)
        self.draw = torch.Generator().manual_seed(seed)
        self.parameters = [*self.lstm.parameters(), *self.head.parameters()]
        self.optimiser: Any = optimiser(self.parameters)

    def batch(self) -> tuple[Tensor, Tensor]:
        phase = 2 * math.pi * torch.rand(2, BATCH, 1, generator=self.draw)
        time_step = torch.arange(STEPS + LEAD)
        fast, slow = (torch.sin(2 * math.pi * time_step / period + phase[k]) for k, period in enumerate((11, 29)))
        series = fast + slow
        noisy = series + 0.1 * torch.randn(series.shape, generator=self.draw)
        return noisy[:, :STEPS, None], series[:, -1:]

    def backward(self) -> float:
        x, y = self.batch()
        self.optimiser.zero_grad()
        loss = (self.head(self.lstm(x)[0][:, -1]) - y).square().mean()
        loss.backward()
        return float(loss.detach())

    def advance(self, steps: int) -> list[float]:
        losses = []
        for _ in range(steps):
            losses.append(self.backward())
            self.optimiser.step()
        return losses

    @property
    def recurrent(self) -> Any:
        return self.lstm.weight_hh_l0


def adam(**rule: Any) -> Optimiser:
    return lambda parameters: MaskedAdam(parameters, lr=RATE, **rule)


def half(shape: torch.Size, seed: int = 7) -> Tensor:
    """True for the weights that stay active: a random half."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5


def rms(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())


TABLES: list[dict[str, Any]] = []  # all that were printed, for results.json


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    TABLES.append({"head": list(head), "rows": [list(row) for row in rows]})
    for row in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(row) + " |")
    print()


# One weight -------------------------------------------------------------------------------------------------


def one_weight(path: Path, isolate: int = 200, thaw: int = 600, stop: int = 750) -> None:
    """Weight, m and sqrt(v) of the isolated recurrent weight whose m was largest when it was isolated."""
    traces: dict[str, Tensor] = {}  # (step, 3): weight, m, sqrt(v)
    for name, rule in {"never isolated": {}, **POLICIES}.items():
        task = Task(adam(**rule))
        task.advance(isolate)
        stays, state = half(task.recurrent.shape), task.optimiser.state[task.recurrent]
        index = int((state["exp_avg"].abs() * ~stays).argmax())
        points = []
        for step in range(isolate, stop):
            if name != "never isolated" and step in (isolate, thaw):
                task.optimiser.set_active(task.recurrent, stays if step == isolate else None)
            task.advance(1)
            w, m, v = task.recurrent.detach(), state["exp_avg"], state["exp_avg_sq"]
            points.append([float(x.flatten()[index]) for x in (w, m, v.sqrt())])
        traces[name] = torch.tensor(points, dtype=torch.double)
    figure, grid = new_figure(8.4, 7, "One recurrent weight, isolated and thawed", 3, 2, sharex="col")
    what = ("weight", "m (first moment)", "√v (second moment)")
    for row, label in enumerate(what):
        for column, (low, high) in enumerate(((isolate, stop), (thaw - 15, thaw + 60))):
            axes = grid[row, column]
            axes.axvspan(isolate, thaw, color="#F0F0F0", lw=0)
            for name, trace in traces.items():
                x = torch.arange(isolate, stop) + 1
                shown = (x > low) & (x <= high)
                axes.plot(x[shown], trace[shown, row], **style_of(name))
            axes.set(xlim=(low, high), **({"ylabel": label} if column == 0 else {}))
            if row == 2:
                axes.set(xlabel="optimiser step", yscale="log")
                floor = min(float(trace[1:, 2][trace[1:, 2] > 0].min()) for trace in traces.values())
                axes.set_ylim(max(floor, 1e-6) / 1.5, None)
    grid[0, 0].set_title(f"isolated from step {isolate} to {thaw} (grey)")
    grid[0, 1].set_title("the same around the thaw")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=4, frameon=False)
    save(figure, path)
    drift = traces["tf15, decay"][thaw - isolate - 1, 0] - traces["tf15, decay"][0, 0]
    print(f"one weight: while isolated, tf15 + decay moves it by {abs(drift) / RATE:.2f} rates after its first step\n")


# The first steps after a thaw ----------------------------------------------------------------------------


def moves_after_thaw(task: Task, isolate: int, back: int, after: int, *, isolated: bool) -> list[float]:
    """Root mean square move in each of ``after`` steps of the weights isolated from ``isolate`` to ``back``."""
    task.advance(isolate)
    stays = half(task.recurrent.shape)
    task.optimiser.set_active(task.recurrent, stays if isolated else None)
    task.advance(back - isolate)
    task.optimiser.set_active(task.recurrent, None)
    moves = []
    for _ in range(after):
        before = task.recurrent.detach().clone()
        task.advance(1)
        moves.append(rms((task.recurrent.detach() - before)[~stays]))
    return moves


def thaw(path: Path, seeds: int = 3, isolate: int = 200, back: int = 600, after: int = 100) -> None:
    """How far the thawed weights move a step, in units of the rate, measured and for two simple gradients."""
    curves: dict[str, Tensor] = {}
    for name, rule in {"never isolated": {}, **POLICIES}.items():
        runs = []
        for seed in range(seeds):
            task = Task(adam(**rule), seed)
            moves = moves_after_thaw(task, isolate, back, after, isolated=name != "never isolated")
            runs.append([move / RATE for move in moves])
        curves[name] = torch.tensor(runs).mean(0)
    figure, grid = new_figure(8.4, 4.2, "The first steps after a thaw", 1, 2)
    k = torch.arange(1, after + 1)
    for name, curve in curves.items():
        grid[0, 0].plot(k, curve, **style_of(name))
    steady, noise = zero_start(k)
    for label, values, dashes in (("constant gradient", steady, "-"), ("pure noise", noise, ":")):
        grid[0, 1].plot(k, values, color=COLOUR["reset, global t"], lw=1.4, ls=dashes, label=f"{label}, global t")
    own = noise * (1 - 0.999**k).sqrt() / (1 - 0.9**k)
    for label, values, dashes in (("constant gradient", torch.ones(after), "-"), ("pure noise", own, ":")):
        grid[0, 1].plot(k, values, color=COLOUR["reset, per-weight n"], lw=1.4, ls=dashes, label=f"{label}, own n")
    grid[0, 0].set_title("measured, rms over the thawed weights")
    grid[0, 1].set_title("moments from zero, t large: computed")
    for axes in grid[0]:
        axes.set(xscale="log", yscale="log", xlabel="step after the thaw", ylim=(0.02, 10))
    grid[0, 1].legend(frameon=False, fontsize=8, loc="lower left")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=4, frameon=False)
    grid[0, 0].set_ylabel("move a step (learning rates)")
    save(figure, path)
    rows = [[name, *(f"{float(curve[i - 1]):.2f}" for i in (1, 3, 10, 30, 100))] for name, curve in curves.items()]
    table(["move a step, in rates", *(f"step {i} after" for i in (1, 3, 10, 30, 100))], rows)
    top = int(steady.argmax())
    print(
        f"constant gradient, zero moments, large t: {steady[0]:.2f} at step 1, at most {steady[top]:.2f} at {top + 1}\n"
    )


def zero_start(k: Tensor, beta1: float = 0.9, beta2: float = 0.999) -> tuple[Tensor, Tensor]:
    """|m|/sqrt(v) k steps after zero, uncorrected: for a constant gradient, and in root mean square for noise."""
    v = (1 - beta2**k).sqrt()
    return (1 - beta1**k) / v, ((1 - beta1) / (1 + beta1) * (1 - beta1 ** (2 * k))).sqrt() / v


# Where epsilon stands -------------------------------------------------------------------------------------


def epsilon(path: Path, steps: int = 400) -> None:
    """Move under tf15's epsilon over the move under torch's: computed for one weight, and on the network."""
    figure, grid = new_figure(8.4, 4, "Epsilon beside √v (tf15, lazy) or beside √v/√c2 (torch)", 1, 2, sharey=True)
    k = torch.arange(1, steps + 1, dtype=torch.double)
    c2 = (1 - 0.999**k).sqrt()
    for power, colour in zip((0, -1, -2, -3), PALETTE, strict=False):
        relative = 10.0**power
        ratio = (1 + relative) / (1 + relative / c2)
        label = f"ε = {'|g|' if power == 0 else f'|g| / {10**-power}'}"
        grid[0, 0].plot(k, ratio, color=colour, lw=1.4, label=label)
    task, rows = Task(adam()), []
    epsilons = (1e-3, 1e-4, 1e-5, 1e-8)
    curves: dict[float, list[float]] = {eps: [] for eps in epsilons}
    for number in range(1, steps + 1):
        task.advance(1)
        m = torch.cat([state["exp_avg"].flatten() for state in task.optimiser.state.values()]).double().abs()
        v = torch.cat([state["exp_avg_sq"].flatten() for state in task.optimiser.state.values()]).double().sqrt()
        corrected = math.sqrt(1 - 0.999**number)
        for eps in epsilons:
            one, other = (m * corrected / (v + eps)).mean(), (m / (v / corrected + eps)).mean()
            curves[eps].append(float(one / other))
    for eps, colour in zip(epsilons, PALETTE, strict=False):
        grid[0, 1].plot(k, curves[eps], color=colour, lw=1.4, label=f"ε = {eps:g}")
        rows.append([f"{eps:g}", *(f"{curves[eps][i - 1]:.3f}" for i in (1, 10, 100, 400))])
    grid[0, 0].set_title("one weight, constant gradient g: computed")
    grid[0, 1].set_title("mean over all weights: measured")
    for axes in grid[0]:
        axes.set(xscale="log", xlabel="optimiser step t", ylim=(0, 1.05))
        axes.legend(frameon=False, loc="lower right")
    grid[0, 0].set_ylabel("move with tf15 / move with torch")
    save(figure, path)
    table(["ε", *(f"step {i}" for i in (1, 10, 100, 400))], rows)


# A gradient that is zeroed --------------------------------------------------------------------------------


def zeroed(path: Path, trained: int = 300, steps: int = 300) -> None:
    """How far recurrent weights go whose gradient is zero from now on; the rest of the network trains on."""
    conditions: dict[str, tuple[Optimiser, str]] = {
        "Adam, gradient zeroed": (lambda p: torch.optim.Adam(p, lr=RATE), "zero"),
        "AdamW (λ = 0.1), gradient zeroed": (lambda p: torch.optim.AdamW(p, lr=RATE, weight_decay=0.1), "zero"),
        "MaskedAdam tf15, decay": (adam(variant="tf15", moments="decay"), "mask"),
        "MaskedAdam hold, λ = 0.1 decoupled": (adam(weight_decay=0.1, decoupled_weight_decay=True), "mask"),
        "AdamW (λ = 0.1), gradient None": (lambda p: torch.optim.AdamW(p, lr=RATE, weight_decay=0.1), "none"),
    }
    figure, grid = new_figure(8.4, 4.2, "A gradient of zero does not stop a weight", 1, 2)
    rows = []
    for (name, (optimiser, how)), colour in zip(conditions.items(), PALETTE, strict=False):
        task = Task(optimiser)
        task.advance(trained)
        stays = half(task.recurrent.shape)
        if how == "mask":
            task.optimiser.set_active(task.recurrent, stays)
        start, moves = task.recurrent.detach().clone(), []
        for _ in range(steps):
            task.backward()
            if how == "zero":
                task.recurrent.grad = task.recurrent.grad * stays
            if how == "none":  # of the whole parameter: nothing less can be None
                task.recurrent.grad = None
            task.optimiser.step()
            moves.append((task.recurrent.detach() - start)[~stays].abs() / RATE)
        gone = torch.stack(moves)
        dashes = {"zero": "-", "mask": (0, (5, 2)), "none": (0, (1, 2))}[how]
        for axes, values in ((grid[0, 0], gone.median(1).values), (grid[0, 1], gone.max(1).values)):
            axes.plot(torch.arange(1, steps + 1), values, color=colour, lw=1.5, ls=dashes, label=name)
        rows.append([name, *(f"{float(x):.2f}" for x in (gone[9].median(), gone[-1].median(), gone[-1].max()))])
    grid[0, 0].set_title("median of the isolated weights")
    grid[0, 1].set_title("the weight that went farthest")
    grid[0, 0].set_ylabel("distance gone (learning rates)")
    for axes in grid[0]:
        axes.set_xlabel("step since the gradient is zero")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=2, frameon=False)
    save(figure, path)
    table(["distance, in rates", "median, 10 steps", f"median, {steps} steps", f"largest, {steps} steps"], rows)


# What recurrence does -------------------------------------------------------------------------------------


def contributions(task: Task) -> Tensor:
    """The gradient of each recurrent weight as the terms of its sum over time steps: (step, 4 units, units).

    The equations of ``nn.LSTM`` written out, each step using the recurrent weights through a copy of its own.
    """
    lstm, (x, y) = task.lstm, task.batch()
    h = c = torch.zeros(BATCH, UNITS)
    copies = []
    for step in range(STEPS):
        copies.append(lstm.weight_hh_l0.detach().clone().requires_grad_())
        gates = x[:, step] @ lstm.weight_ih_l0.T + h @ copies[-1].T + lstm.bias_ih_l0 + lstm.bias_hh_l0
        i, f, g, o = gates.chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
    loss = (task.head(h) - y).square().mean()
    return torch.stack(torch.autograd.grad(loss, copies))


def recurrence(path: Path, trained: int = 300, steps: int = 2000) -> None:
    """Which time steps make the gradient, and which optimiser steps make v, with and without clipping."""
    figure, grid = new_figure(8.4, 4, "Recurrent weights: a sum over time steps, and a mean of its squares", 1, 2)
    task, done = Task(adam()), 0
    for when, colour in ((0, PALETTE[0]), (trained, PALETTE[1]), (steps, PALETTE[2])):
        task.advance(when - done)
        done = when
        terms = torch.stack([contributions(task) for _ in range(20)])
        size = terms.square().mean((0, 2, 3)).sqrt()  # at the first time step zero: h was
        grid[0, 0].plot(range(STEPS - 2, -1, -1), size[1:], color=colour, lw=1.5, label=f"after {when} steps")
        gain = rms(terms.sum(1)) / rms(terms) / math.sqrt(STEPS)
        last = float(size[-8:].square().sum() / size.square().sum())
        print(f"after {when} steps: the last 8 time steps hold {100 * last:.0f} % of the squares; ", end="")
        print(f"the sum is {gain:.2f} x what independent terms would give")
    rows = []
    for limit, colour in ((None, PALETTE[0]), (0.1, PALETTE[1])):
        task, gradients = Task(adam()), []
        for _ in range(trained + 1000):
            task.backward()
            if limit is not None:
                nn.utils.clip_grad_norm_(task.parameters, limit)
            gradients.append(task.recurrent.grad.flatten().double())
            task.optimiser.step()
        kept = torch.stack(gradients[trained:])
        shares = kept.square().sort(0, descending=True).values.cumsum(0) / kept.square().sum(0)
        label = "no clipping" if limit is None else f"norm clipped at {limit}"
        grid[0, 1].plot(torch.arange(1, 1001) / 10, 100 * shares.median(1).values, color=colour, lw=1.5, label=label)
        typical = kept.abs().median(0).values / kept.square().mean(0).sqrt()
        rows.append([label, f"{100 * float(shares[9].median()):.0f} %", f"{100 * float(shares[99].median()):.0f} %"])
        rows[-1].append(f"{float(typical.median()):.2f}")
    grid[0, 1].plot((0, 100), (0, 100), color=GREY, lw=1, ls=":", label="if all steps were equal")
    grid[0, 0].set(xlabel="time steps before the loss", yscale="log", ylabel="root mean square of ∂L/∂w at that step")
    grid[0, 0].set_title("terms of the gradient")
    grid[0, 1].set(xlabel="share of the optimiser steps, largest gradients first (%)", xlim=(0, 40), ylim=(0, 100))
    grid[0, 1].set_ylabel("share of the sum of g² (%), median weight")
    grid[0, 1].set_title(f"what v is made of, steps {trained} to {trained + 1000}")
    for axes in grid[0]:
        axes.legend(frameon=False)
    save(figure, path)
    print()
    table(["", "largest 1 % of steps hold", "largest 10 %", "median of abs(g) / rms g"], rows)


# Cycles of isolating and thawing --------------------------------------------------------------------------


def cycles(path: Path, seeds: int = 5, steps: int = 400) -> None:
    """Loss while a random half of the units is isolated, drawn anew every so many steps."""
    periods = (10, 100)
    figure, grid = new_figure(8.4, 4.2, "Half of the units isolated, drawn anew every few steps", 1, 2, sharey=True)
    rows: dict[str, list[str]] = {}
    for axes, period in zip(grid[0], periods, strict=True):
        for name, rule in {"never isolated": {}, **POLICIES}.items():
            losses = []
            for seed in range(seeds):
                task, lots, run = Task(adam(**rule), seed), torch.Generator().manual_seed(100 + seed), []
                for _ in range(0, steps, period):
                    units = torch.rand(UNITS, generator=lots) < 0.5
                    if name != "never isolated":
                        for p in task.lstm.parameters():
                            task.optimiser.set_active(p, units.repeat(4).reshape(-1, *[1] * (p.dim() - 1)))
                    run += task.advance(period)
                losses.append(run)
            means = torch.tensor(losses).reshape(seeds, -1, 20).mean(2)
            axes.plot(torch.arange(means.shape[1]) * 20 + 10, means.median(0).values, **style_of(name))
            last = torch.tensor(losses)[:, -100:].mean(1).tolist()
            cell = f"{1e3 * statistics.median(last):.1f} ({1e3 * min(last):.1f} to {1e3 * max(last):.1f})"
            rows.setdefault(name, [name]).append(cell)
        axes.set(yscale="log", xlabel="optimiser step")
        axes.set_title(f"every {period} steps")
    grid[0, 0].set_ylabel(f"squared error (median of {seeds} seeds)")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=4, frameon=False)
    save(figure, path)
    table(["loss of the last 100 steps, 1e-3", *(f"every {period} steps" for period in periods)], list(rows.values()))


# Other optimisers -----------------------------------------------------------------------------------------


def optimisers(path: Path, seeds: int = 2, isolate: int = 200, back: int = 400, after: int = 100) -> None:
    """Moves after a thaw over those of a twin of which nothing was isolated, under hold and under reset."""
    kinds: dict[str, Callable[..., Masked]] = {
        "SGD": lambda p, **s: MaskedSGD(p, lr=0.3, **s),
        "SGD, momentum 0.9": lambda p, **s: MaskedSGD(p, lr=0.03, momentum=0.9, **s),
        "Adagrad": lambda p, **s: MaskedAdagrad(p, lr=0.03, **s),
        "RMSProp (α = 0.99)": lambda p, **s: MaskedRMSprop(p, lr=3e-3, **s),
        "Adadelta (ρ = 0.9)": lambda p, **s: MaskedAdadelta(p, lr=1.0, **s),
        "Adam": lambda p, **s: MaskedAdam(p, lr=RATE, **s),
    }
    figure, grid = new_figure(8.4, 5, "The same thaw under other optimisers", 2, 3, sharex=True)
    rows = []
    for axes, (name, make) in zip(grid.flat, kinds.items(), strict=True):
        curves = {}
        for policy in ("never isolated", "hold", "reset"):
            runs = []
            for seed in range(seeds):
                task = Task(
                    lambda p, make=make, policy=policy: make(p, moments=policy.replace("never isolated", "hold")), seed
                )
                runs.append(moves_after_thaw(task, isolate, back, after, isolated=policy != "never isolated"))
            curves[policy] = torch.tensor(runs).log().mean(0).exp()
        for policy, colour in (("hold", PALETTE[0]), ("reset", PALETTE[1])):
            ratio = curves[policy] / curves["never isolated"]
            axes.plot(torch.arange(1, after + 1), ratio, color=colour, lw=1.3, label=policy)
            rows.append([name, policy, *(f"{float(ratio[i - 1]):.2f}" for i in (1, 3, 10, 100))])
        axes.axhline(1, color=GREY, lw=1, ls=":")
        axes.set(xscale="log", yscale="log", ylim=(0.05, 100))
        axes.set_title(name)
    for axes in grid[-1]:
        axes.set_xlabel("step after the thaw")
    for axes in grid[:, 0]:
        axes.set_ylabel("move / move never isolated")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=2, frameon=False)
    save(figure, path)
    table(["optimiser", "state", *(f"step {i} after" for i in (1, 3, 10, 100))], rows)


EXPERIMENTS: dict[str, Callable[[Path], None]] = {
    f.__name__: f for f in (one_weight, thaw, epsilon, zeroed, recurrence, cycles, optimisers)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/adam-in-rnns"))
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    settings = parser.parse_args()
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    settings.out.mkdir(parents=True, exist_ok=True)
    for name in settings.only:
        start = time.perf_counter()
        with mpl.rc_context(STYLE):
            EXPERIMENTS[name](settings.out / f"{name}.png")
        print(f"({name}: {time.perf_counter() - start:.0f} s)\n")
    if settings.only == list(EXPERIMENTS):
        about = {"date": date.today().isoformat(), "commit": commit(), "hardware": hardware()}
        write_json(settings.out / "results.json", {**about, "tables": TABLES})


if __name__ == "__main__":
    main()
