"""Windowed training with the backward over the last k time steps: fixed k against k chosen by measurement.

    python -m experiments.horizon.run [--series FILE.csv] [--steps 300] [--seeds 3] [--budget steps|cost] [--timing]
    python -m experiments.horizon.run --task recall --steps 800 --seeds 8 --fixed 12 48 --tolerances 0.1 0.02 --probes 0

Trains the forecaster of ``params.yaml`` (method ``tuned-windowed``) on its windows, or on those of a file of hourly
rows with the same columns. Conditions take turns step by step in one process, from the same initial weights and on
the same batches; each keeps its own random state. ``--budget steps``: all make the same number of steps.
``--budget cost``: all spend the cost of ``--steps`` whole steps, with the learning rate decayed over *that*, so that
a cheaper step means more of them. Cost does not depend on hardware: a step is a forward (1) and a backward (2 k / T),
in units of a whole step (3); measured steps are whole ones and are counted so. Seconds are training seconds; use
``--timing`` (alone on the machine, one core a thread) before believing them.

``--task recall`` has a known memory: a pulse some ``--ages`` steps back is asked for at the end of silence. One
layer of 32 units whose forget gates start open (``--forget-bias``), in float32.

At each validation every condition is also probed, unpaid: the share of the gradient that each rung neglects on one
batch. Six times in a run ``--probes`` batches at fixed weights give the batch's noise, ||g - E g|| / ||E g||, and the
share neglected of E g itself, on the trajectory of the whole backward.

Writes horizon.json, horizon.png and horizon.svg into ``--out``; prints the tables.
"""

import argparse
import copy
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import torch
from torch import Tensor, nn

from isotrain.config import Params, load
from isotrain.data.ingest import ingest
from isotrain.data.windowing import make_windows
from isotrain.data.windows import Windows
from isotrain.files import write_json
from isotrain.lstm import LSTM, runtime
from isotrain.lstm.horizon import Horizon, Measurement
from isotrain.report.drawing import PALETTE, STYLE, new_figure, save
from isotrain.training.fit import Fit, prepare
from isotrain.training.machine import alone, hardware

WHOLE = "whole"


# --- what is trained -------------------------------------------------------------------------------------------------


@dataclass
class Task:
    """A model with one LSTM, its batches by number, its validation error and its optimiser."""

    module: nn.Module
    lstm: LSTM
    window: int
    loss: Callable[[int], Tensor]
    error: Callable[[], float]
    optimiser: torch.optim.Optimizer
    rates: list[float]  # learning rate by progress


def building(windows: Windows, settings: Any, seed: int, steps: int, out: Path) -> Task:
    """The forecaster as ``isotrain.training.fit`` prepares it; error: validation MAE, kW."""
    settings = settings.model_copy(update={"training": settings.training.model_copy(update={"steps": steps})})
    module, _ = prepare(Fit(settings, seed, windows, out))
    owner = SimpleNamespace(max_steps=steps)
    module.trainer = owner  # type: ignore[assignment]  # the length of training is all that it is asked for
    made = module.configure_optimizers()
    truth = torch.from_numpy(windows.targets(module.validation.numpy()))

    def error() -> float:
        difference = (module.forecast(module.validation) - truth).abs()
        module.train()
        return float(difference[~truth.isnan()].mean())

    rates = _rates(made["optimizer"], made["lr_scheduler"]["scheduler"], steps)
    return Task(
        module.train(),
        module.net.encoder.lstm,
        windows.meta["history"],
        lambda step: module.loss(module.sampler(step)),
        error,
        made["optimizer"],
        rates,
    )


def recall(settings: Any, seed: int, steps: int, window: int, ages: tuple[int, int], forget_bias: float) -> Task:
    """Inputs: a number in [-1, 1] and a mark at one step, else zeros; answer: the number. Error: MAE (0.5 for 0)."""
    torch.manual_seed(seed)
    t, hidden = settings.training, 32
    lstm, out = LSTM(2, hidden, batch_first=True, backend=settings.runtime.backend), nn.Linear(hidden, 1)
    with torch.no_grad():
        lstm.bias_hh_l0[hidden : 2 * hidden] = forget_bias

    def mean_error(number: int, size: int) -> Tensor:
        draw = torch.Generator().manual_seed(seed * 1_000_003 + number)
        asked = torch.rand(size, generator=draw) * 2 - 1
        marked = window - 1 - torch.randint(ages[0], ages[1] + 1, (size,), generator=draw)
        x = torch.zeros(size, window, 2)
        x[torch.arange(size), marked] = torch.stack([asked, torch.ones(size)], -1)
        return (out(lstm(x)[0][:, -1])[:, 0] - asked).abs().mean()

    @torch.no_grad()
    def error() -> float:
        return float(mean_error(999_999, 1024))

    module = nn.ModuleList([lstm, out])
    optimiser = torch.optim.Adam(module.parameters(), t.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, t.learning_rate, total_steps=steps, pct_start=t.rise, cycle_momentum=False, final_div_factor=100
    )
    rates = _rates(optimiser, schedule, steps)
    return Task(module, lstm, window, lambda step: mean_error(step, t.windows), error, optimiser, rates)


def _rates(optimiser: torch.optim.Optimizer, schedule: Any, steps: int) -> list[float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # stepped ahead of the optimiser on purpose: only the numbers are wanted
        rates = []
        for _ in range(steps):
            rates.append(optimiser.param_groups[0]["lr"])
            if len(rates) < steps:
                schedule.step()
    return rates


# --- one condition ---------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """One condition and seed under way. ``budget`` in steps or in cost, as ``by_cost`` says."""

    name: str
    seed: int
    task: Task
    fixed: int | None  # horizon; None: adaptive
    horizon: Horizon | None
    budget: int
    by_cost: bool
    clip: float
    bf16: bool
    ladder: tuple[int, ...]
    step: int = 0
    cost: float = 0.0
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    probes: list[dict[str, Any]] = field(default_factory=list)
    random_state: Tensor | None = None

    @property
    def progress(self) -> float:
        return (self.cost if self.by_cost else self.step) / self.budget

    @property
    def steps(self) -> int | None:
        return self.fixed if self.horizon is None else self.horizon.steps

    @contextmanager
    def own_random_state(self) -> Iterator[None]:
        """Dropout of one condition does not depend on which others run beside it."""
        others = torch.get_rng_state()
        if self.random_state is None:
            torch.manual_seed(self.seed)
        else:
            torch.set_rng_state(self.random_state)
        yield
        self.random_state = torch.get_rng_state()
        torch.set_rng_state(others)

    def backward(self, step: int) -> None:
        self.task.optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if self.bf16 else nullcontext():
            loss = self.task.loss(step)
        loss.backward()

    def train(self) -> None:
        """One optimiser step, timed and paid for."""
        task, horizon = self.task, self.horizon
        rate = task.rates[min(int(self.progress * len(task.rates)), len(task.rates) - 1)]
        for group in task.optimiser.param_groups:
            group["lr"] = rate
        with self.own_random_state():
            start = time.perf_counter()
            measured = horizon is not None and horizon.due(self.step)
            if measured:
                task.lstm.isolate()
                with Measurement(task.lstm, horizon.ladder) as measurement:
                    self.backward(self.step)
                horizon.observe(self.step, measurement.neglected())
                task.lstm.isolate(steps=horizon.steps)
            else:
                self.backward(self.step)
            if self.clip:
                nn.utils.clip_grad_norm_(task.module.parameters(), self.clip)
            task.optimiser.step()
            self.seconds += time.perf_counter() - start
        k = task.window if measured or self.steps is None else min(self.steps, task.window)
        self.cost += (1 + 2 * k / task.window) / 3
        self.step += 1

    def validate(self) -> None:
        row = {"step": self.step, "cost": self.cost, "seconds": self.seconds, "error": self.task.error()}
        self.rows.append({**row, "steps": self.steps, "neglected": self.measure(-1 - self.step).neglected()})

    def measure(self, number: int) -> Measurement:
        """The backward of batch ``number`` by age, at the weights as they are; unpaid, and forgotten."""
        kept = torch.get_rng_state()
        torch.manual_seed(abs(number) + 7)
        self.task.lstm.isolate()
        with Measurement(self.task.lstm, self.ladder) as measurement:
            self.backward(number)
        self.task.lstm.isolate(steps=self.steps)
        torch.set_rng_state(kept)
        return measurement

    def probe(self, batches: int) -> None:
        """Noise of a batch's gradient and the share neglected of the expected gradient, estimated without bias."""
        rows, adam = [], []
        scale = self._adam_scale()
        for number in range(batches):
            measurement = self.measure(-1_000_000 - batches * self.step - number)
            rows.append(torch.cat([part.double().flatten(1) for part in measurement.parts.values()], 1))
            adam.append(rows[-1] / scale)
        self.probes.append(
            {"step": self.step, "batches": batches, "gradient": _moments(torch.stack(rows), self.ladder)}
            | {"adam": _moments(torch.stack(adam), self.ladder)}
        )

    def _adam_scale(self) -> Tensor:
        state = self.task.optimiser.state
        values = [state[p]["exp_avg_sq"] if p in state else torch.ones_like(p) for p in self.task.lstm.parameters()]
        return torch.cat([v.double().sqrt().flatten() for v in values]) + 1e-8


def _moments(parts: Tensor, ladder: tuple[int, ...]) -> dict[str, Any]:
    """``parts`` (batches, R + 1, weights). Squared norms of means lose the part that is noise: s^2 / batches."""
    older = parts.flip(1).cumsum(1).flip(1)  # [:, 0] the whole gradient, [:, r] what rung r - 1 neglects
    n = len(older)
    spread = (older - older.mean(0)).square().sum(-1).sum(0) / (n - 1)  # (R + 1,)
    expected = (older.mean(0).square().sum(-1) - spread / n).clamp(min=0)
    per_batch = (older[:, 1:].square().sum(-1) / older[:, :1].square().sum(-1)).sqrt()
    return {
        "noise": float((spread[0] / expected[0]).sqrt()),
        "neglected_of_expected": dict(zip(ladder, (expected[1:] / expected[0]).sqrt().tolist(), strict=True)),
        "neglected_of_batch": dict(zip(ladder, per_batch.median(0).values.tolist(), strict=True)),
        "neglected_of_batch_highest": dict(zip(ladder, per_batch.max(0).values.tolist(), strict=True)),
    }


# --- all of them -----------------------------------------------------------------------------------------------------


def compete(runs: list[Run], points: int, probes: int) -> None:
    """The run that is least far takes the next step, until all are through."""
    for run in runs:
        run.validate()
        if run.name == WHOLE and probes:
            run.probe(probes)
    while waiting := [run for run in runs if run.progress < 1 - 1e-9]:
        run = min(waiting, key=lambda r: r.progress)
        before = run.progress
        run.train()
        if int(run.progress * points + 1e-9) > int(before * points + 1e-9):
            run.validate()
        if run.name == WHOLE and probes and int(run.progress * 5 + 1e-9) > int(before * 5 + 1e-9):
            run.probe(probes)


def summary(runs: list[Run], target: float | None, slack: float) -> dict[str, Any]:
    """By condition: median steps, cost, seconds; last and best error; cost and seconds to the target or infinity."""
    if target is None:
        best_whole = [min(row["error"] for row in run.rows) for run in runs if run.name == WHOLE]
        target = statistics.median(best_whole) * (1 + slack)
    last_whole = {run.seed: run.rows[-1]["error"] for run in runs if run.name == WHOLE}
    table: dict[str, Any] = {"target": target, "conditions": {}}
    for name in dict.fromkeys(run.name for run in runs):
        same = [run for run in runs if run.name == name]
        reached = [next((row for row in run.rows if row["error"] <= target), None) for run in same]
        last = [run.rows[-1]["error"] for run in same]
        table["conditions"][name] = {
            "steps": statistics.median(run.step for run in same),
            "cost": statistics.median(run.cost for run in same),
            "seconds": statistics.median(run.seconds for run in same),
            "last": last,
            "best": [min(row["error"] for row in run.rows) for run in same],
            "last_less_whole": [e - last_whole[run.seed] for e, run in zip(last, same, strict=True)],
            "cost_to_target": [row["cost"] if row else float("inf") for row in reached],
            "seconds_to_target": [row["seconds"] if row else float("inf") for row in reached],
        }
    return table


def show(table: dict[str, Any], runs: list[Run]) -> None:
    print(f"\ntarget error {table['target']:.3f}; medians over the seeds, `last-whole` a mean with its standard error")
    print("condition        steps   cost  seconds   last  [lowest, highest]     best      last-whole   cost to target")
    for name, row in table["conditions"].items():
        last, best = statistics.median(row["last"]), statistics.median(row["best"])
        print(
            f"{name:15s} {row['steps']:6.0f} {row['cost']:6.1f} {row['seconds']:8.1f} "
            f"{last:6.3f}  [{min(row['last']):6.3f}, {max(row['last']):6.3f}]   {best:6.3f}   "
            f"{_mean(row['last_less_whole'])}   {statistics.median(row['cost_to_target']):8.1f}   "
            f"{sum(c < float('inf') for c in row['cost_to_target'])} of {len(row['last'])}"
        )
    print("\nneglected on one batch, own trajectory, median over the seeds (first rung of the ladder first)")
    for name in table["conditions"]:
        same = [run for run in runs if run.name == name]
        for at in (1, len(same[0].rows) // 2, -1):
            rows = [run.rows[at] for run in same]
            shares = [statistics.median(row["neglected"][k] for row in rows) for k in same[0].ladder]
            print(f"{name:15s} step {rows[0]['step']:5d}  " + "  ".join(f"{share:9.2e}" for share in shares))
    for run in runs:
        for probe in run.probes:
            for kind in ("gradient", "adam"):
                p = probe[kind]
                each = "  ".join(f"{k}: {100 * v:6.2f} %" for k, v in p["neglected_of_expected"].items())
                print(f"seed {run.seed} step {probe['step']:5d} {kind:8s} noise {p['noise']:6.2f}   of E g: {each}")
    for run in runs:
        if run.horizon is not None:
            chosen = [(row["step"], row["steps"]) for row in run.horizon.history]
            print(f"{run.name} seed {run.seed}: " + " ".join(f"{step}:{k}" for step, k in chosen))


def _mean(values: list[float]) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{statistics.fmean(values):+7.3f} +- {error:5.3f}"


def _plain(value: Any) -> Any:
    """The same as JSON can say it: no infinity, no NaN."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def draw(runs: list[Run], ladder: tuple[int, ...], window: int, out: Path, title: str, unit: str) -> None:
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(11, 7.5, title, 2, 2)
        _draw_shares(axes[0, 0], [run for run in runs if run.name == WHOLE], ladder)
        _draw_chosen(axes[0, 1], runs, ladder, window)
        names = list(dict.fromkeys(run.name for run in runs))
        for panel, key, label in ((axes[1, 0], "cost", "cost, whole steps"), (axes[1, 1], "seconds", "seconds")):
            for index, name in enumerate(names):
                same = [run for run in runs if run.name == name]
                count = min(len(run.rows) for run in same)
                x = [statistics.median(run.rows[i][key] for run in same) for i in range(1, count)]
                y = [statistics.median(run.rows[i]["error"] for run in same) for i in range(1, count)]
                panel.plot(x, y, label=name, color=_colour(index, name), lw=2 if name.startswith("adaptive") else 1.1)
            lowest = min(row["error"] for run in runs for row in run.rows)
            middle = statistics.median(row["error"] for run in runs for row in run.rows[len(run.rows) // 4 :])
            panel.set(title=f"error against {key}", xlabel=label, ylabel=unit)
            panel.set_ylim(lowest * 0.99, middle + 3 * (middle - lowest))
        axes[1, 0].legend(frameon=False, fontsize=8)
        save(figure, out / "horizon.png")


def _colour(index: int, name: str) -> str:
    return "#111111" if name == WHOLE else PALETTE[index % len(PALETTE)]


def _draw_shares(panel: Any, runs: list[Run], ladder: tuple[int, ...]) -> None:
    for index, k in enumerate(ladder):
        rows = range(1, min(len(run.rows) for run in runs))
        y = [statistics.median(run.rows[i]["neglected"][k] for run in runs) for i in rows]
        if max(y) > 0:
            panel.plot([runs[0].rows[i]["step"] for i in rows], y, label=f"k={k}", color=_colour(index, ""))
    probes = [[probe for probe in run.probes if probe["step"]] for run in runs]
    if probes and probes[0]:
        noise = [statistics.median(run[i]["gradient"]["noise"] for run in probes) for i in range(len(probes[0]))]
        panel.plot([p["step"] for p in probes[0]], noise, "--", color="#666666", label="noise of a batch")
    panel.set(title="neglected share, whole backward", xlabel="step", ylabel="relative L2 norm", yscale="log")
    panel.set_ylim(1e-5, 10)
    panel.legend(frameon=False, fontsize=8)


def _draw_chosen(panel: Any, runs: list[Run], ladder: tuple[int, ...], window: int) -> None:
    """One thin line a run, in the colour of its condition."""
    names = list(dict.fromkeys(run.name for run in runs))
    for run in runs:
        if run.horizon is not None:
            steps = [row["step"] for row in run.horizon.history]
            chosen = [row["steps"] or window for row in run.horizon.history]
            color = _colour(names.index(run.name), run.name)
            panel.step([*steps, run.step], [*chosen, chosen[-1]], where="post", color=color, lw=1, alpha=0.7)
    panel.set(title="horizon chosen, every seed", xlabel="step", ylabel="time steps", yscale="log")
    panel.set_yticks(ladder, [str(k) for k in ladder])
    panel.minorticks_off()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=("building", "recall"), default="building")
    parser.add_argument("--series", help="hourly CSV with the columns of params.yaml; without it the simulated one")
    parser.add_argument("--ages", type=int, nargs=2, default=(14, 30), help="recall: of the pulse")
    parser.add_argument("--forget-bias", type=float, default=2.0, help="recall")
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--method", default="tuned-windowed")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ladder", type=int, nargs="+", default=(12, 24, 48, 96, 168))
    parser.add_argument("--fixed", type=int, nargs="*", default=(1, 12, 24, 48, 96))
    parser.add_argument("--tolerances", type=float, nargs="*", default=(0.1,))
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--budget", choices=("steps", "cost"), default="steps")
    parser.add_argument("--points", type=int, default=15, help="validations in a run")
    parser.add_argument("--probes", type=int, default=16, help="batches for the noise; 0: no probes")
    parser.add_argument("--target", type=float, help="error to reach; default: median best of the whole backward")
    parser.add_argument("--slack", type=float, default=0.005, help="of that default")
    parser.add_argument("--fp32", action="store_true", help="whatever the method says")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--timing", action="store_true", help="pin the threads and hold the machine's timing lock")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


def windows_of(params: Params, series: str | None) -> Windows:
    settings = params.ingest if series is None else params.ingest.model_copy(update={"source": series})
    tidy = ingest(settings, Path())
    return make_windows(tidy.frame, tidy.facts, params.window)


def conditions(args: argparse.Namespace, window: int) -> dict[str, tuple[int | None, Horizon | None]]:
    """Name -> (fixed horizon, adaptive horizon): of each pair one is None, both for the whole backward."""
    fixed = {f"k={k}": (k, None) for k in sorted(args.fixed) if k < window}
    adaptive = {f"adaptive {100 * t:g} %": (None, Horizon(args.ladder, t, args.every)) for t in args.tolerances}
    return {WHOLE: (None, None), **fixed, **adaptive}


def main() -> None:
    args = arguments()
    params = load(args.params)
    settings = params.settings(args.method)
    switches = settings.runtime
    runtime.prepare(
        keep_allocator=switches.keep_allocator,
        flush_denormals=switches.flush_denormals,
        pin_threads=args.timing,
        threads=args.threads,
    )
    windows = windows_of(params, args.series) if args.task == "building" else None
    window = params.window.history
    runs: list[Run] = []
    with ExitStack() as stack:
        if args.timing:
            stack.enter_context(alone())
        for seed in range(args.seeds):
            ours = []
            for name, (fixed, horizon) in conditions(args, window).items():
                if windows is None:
                    task = recall(settings, seed, args.steps, window, tuple(args.ages), args.forget_bias)
                else:
                    task = building(windows, settings, seed, args.steps, args.out)
                task.lstm.isolate(steps=fixed)
                by_cost, bf16 = args.budget == "cost", switches.bf16 and not args.fp32 and windows is not None
                clip = settings.training.clip
                ladder = tuple(sorted(args.ladder))
                horizon = copy.deepcopy(horizon)
                ours.append(Run(name, seed, task, fixed, horizon, args.steps, by_cost, clip, bf16, ladder))
            compete(ours, args.points, args.probes)
            runs += ours
            print(f"seed {seed} done", flush=True)
    table = summary(runs, args.target, args.slack)
    show(table, runs)
    source = "recall" if windows is None else windows.meta["source"]
    args.out.mkdir(parents=True, exist_ok=True)
    record = {
        "arguments": {**vars(args), "series": source},
        "hardware": hardware(),
        "source": source,
        "summary": table,
        "runs": [
            {"name": run.name, "seed": run.seed, "rows": run.rows, "probes": run.probes}
            | {"history": run.horizon.history if run.horizon else []}
            for run in runs
        ],
    }
    write_json(args.out / "horizon.json", _plain(record))
    simulated = "SIMULATED series: " if windows is not None and windows.meta["simulated"] else ""
    title = f"{simulated}backward over the last k of {window} steps, budget in {args.budget}"
    draw(runs, tuple(sorted(args.ladder)), window, args.out, title, "kW" if windows is not None else "error")


if __name__ == "__main__":
    main()
