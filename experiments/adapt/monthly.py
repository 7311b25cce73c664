"""Month after month of the buildings' test part: what a trained forecaster is worth, adapted each month or not.

    python -m experiments.adapt.monthly TIDY WINDOWS --work FOLDER [--seeds 5] [--out FOLDER]

The forecasters and the buildings are those of experiments.adapt.run, whose --work folder is named. Before each month a
network knows every hour before it, and forecasts it. Ways of coming to that network: the forecaster of the pool as it
is; adapted once, before the first month; the small one trained from scratch on all hours of the building; the
forecaster trained on whole, from last month's weights (warm), or from these shrunk and perturbed; and adapted each
month with its encoder isolated, as isotrain.adapt.monthly does: the decoder trained a few steps on the last year, or as
long as the whole network on all of the past ("longer"), or the readout solved alone. A run that was interrupted goes on
where it was.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from experiments.adapt.run import (
    HERE,
    PARAMS,
    Target,
    buildings,
    fresh,
    known,
    parents,
    pool_of_buildings,
    rounded,
    write_results,
)
from experiments.walk_forward.run import months

from isotrain.adapt.candidates import Ground, Weights, train
from isotrain.adapt.choose import choose
from isotrain.adapt.memory import Draw
from isotrain.adapt.monthly import SOLVED, Monthly
from isotrain.config import MethodsView, load
from isotrain.data.windows import Windows
from isotrain.files import read_json, write_json
from isotrain.forecast.bundle import Bundle
from isotrain.report.drawing import PALETTE, STYLE, new_figure, save
from isotrain.training.fit import prepare_process
from isotrain.training.machine import commit, hardware

SCRATCH, RATE = 200, 0.025  # steps of the small network, and their highest rate
STEPS = 60  # of going on from last month's weights
SHRINK, NOISE = 0.6, 0.01  # arXiv 1910.08475
REGROWN, REGROWN_RATE = 200, 0.01  # then as many steps as from scratch
UNADAPTED, ONCE, SMALL = "unadapted", "adapted once", "small, from scratch"
Found = tuple[Ground, Weights, str]  # what forecasts the month, and what was thawed
Way = Callable[[int], Found]  # from one past the last origin that is known


def ways(bundle: Bundle, small: Bundle, windows: Windows, first: int, last: int, seed: int) -> Mapping[str, Way]:
    """Ways to the network of each month, which remember what they did in the months before."""
    history = windows.meta["history"]
    kept, pooled = [Ground.of(bundle.network(windows), first, last) for _ in range(2)]
    of_warm, of_shrunk = [Ground.of(bundle.network(windows), first, first + 1) for _ in range(2)]
    latest: dict[str, Weights] = {"warm": {}, "shrunk": of_shrunk.parent}
    once: list[Weights] = []

    def adapted_once(end: int) -> Found:
        if not once:
            once.append(choose(pooled, first, end).weights)
        return pooled, once[0], ""

    def scratch(end: int) -> Found:
        ground = Ground.of(fresh(small, windows, seed), first, first + 1)
        with ground.thawed_encoder():
            return ground, train(ground.net, Draw(first, end, history, 16, 16, seed), SCRATCH, RATE), ""

    def warm(end: int) -> Found:
        with of_warm.thawed_encoder():
            of_warm.use(latest["warm"])
            latest["warm"] = train(of_warm.net, Draw(first, end, history, 16, 16, seed + end), STEPS)
        return of_warm, latest["warm"], ""

    def shrunk(end: int) -> Found:
        generator = torch.Generator().manual_seed(seed + end)
        start = {
            name: SHRINK * value + NOISE * torch.randn(value.shape, generator=generator)
            for name, value in latest["shrunk"].items()
        }
        with of_shrunk.thawed_encoder():
            of_shrunk.use(start)
            latest["shrunk"] = train(
                of_shrunk.net, Draw(first, end, history, 16, 16, seed + end), REGROWN, REGROWN_RATE
            )
        return of_shrunk, latest["shrunk"], ""

    def monthly(*names: str, **settings: Any) -> Way:
        adapting: list[Monthly] = []

        def way(end: int) -> Found:
            if not adapting:
                net = bundle.network(windows)
                adapting.append(Monthly.of(net, first, end, names=names, **settings))
            choice = adapting[0].adapt(end)
            return adapting[0].ground, choice.weights, choice.name

        return way

    return {
        UNADAPTED: lambda _: (kept, {}, ""),
        ONCE: adapted_once,
        SMALL: scratch,
        "warm, whole": warm,
        "shrink and perturb": shrunk,
        "isolated, trained": monthly(*SOLVED, "decoder"),
        "isolated, trained longer": monthly(*SOLVED, "decoder", steps=STEPS, recent=len(windows.time)),
        "isolated, solved": monthly(*SOLVED),
    }


def walk(bundle: Bundle, small: Bundle, target: Target, seed: int) -> Iterator[dict[str, Any]]:
    """A row of each way and month."""
    windows, _ = known(bundle, target, 0)
    first = windows.ranges("train")[0][0]
    all_months = months(windows)
    horizon = windows.meta["horizon"]
    start = int(all_months[0][1][0]) - horizon + 1
    for way, adapt in ways(bundle, small, windows, first, start, seed).items():
        for number, (name, origins) in enumerate(all_months):
            begin = time.process_time()
            ground, weights, thawed = adapt(int(origins[0]) - horizon + 1)
            seconds = time.process_time() - begin
            answer = ground.forecast(weights, torch.from_numpy(origins), remembered=False).numpy()
            truth = windows.targets(origins)
            data = {"target": target.name, "seed": seed, "way": way, "month": name, "number": number}
            error = rounded(float(np.nanmean(np.abs(truth - answer))) / target.scale)
            hours = int(np.isfinite(truth).sum())
            yield {**data, "mae": error, "hours": hours, "seconds": rounded(seconds), "thawed": thawed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tidy", type=Path)
    parser.add_argument("windows", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path("results/adapt"), help="as of experiments.adapt.run")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "monthly")
    words = parser.parse_args()
    prepare_process(load(PARAMS, view=MethodsView).settings("parent"))
    pool = pool_of_buildings(words.work, words.windows)
    rows: list[dict[str, Any]] = []
    for seed in range(words.seeds):
        pair = parents(words.work, "drammen", pool, seed)
        for target in buildings(words.tidy, words.windows):
            path = words.work / "months" / f"{target.name}-{seed}.json"
            if not path.exists():
                write_json(path, list(walk(*pair, target, seed)))
                print(target.name, seed, flush=True)
            rows += read_json(path)
    about = {"date": date.today().isoformat(), "commit": commit(), "hardware": hardware(), "seeds": words.seeds}
    write_results({**about, "rows": rows}, words.out)
    write_page({**about, "rows": rows}, words.out)


def by_month(rows: list[dict[str, Any]], way: str) -> list[float]:
    """Mean error of each month over buildings and seeds, in a building's standard deviation."""
    of_months: dict[str, list[float]] = {}
    for row in rows:
        if row["way"] == way:
            of_months.setdefault(row["month"], []).append(row["mae"])
    return [float(np.mean(errors)) for errors in of_months.values()]


def shares(rows: list[dict[str, Any]], way: str, other: str) -> Any:
    """Of each month the error of ``way`` over that of ``other``, of the seeds that both have."""
    both = {row["seed"] for row in rows if row["way"] == way} & {row["seed"] for row in rows if row["way"] == other}
    shared = [row for row in rows if row["seed"] in both]
    return np.array(by_month(shared, way)) / np.array(by_month(shared, other))


def against(rows: list[dict[str, Any]], way: str, other: str) -> str:
    """How much greater the error of ``way`` is than that of ``other``: mean over the months, and its standard error."""
    if way == other:
        return ""
    more = 100 * (shares(rows, way, other) - 1)
    return f"{more.mean():+.1f} ± {more.std(ddof=1) / len(more) ** 0.5:.1f} %"


def write_page(results: dict[str, Any], out: Path) -> None:
    """monthly.md and its figure, from results.json alone."""
    rows = results["rows"]
    names = list(dict.fromkeys(row["way"] for row in rows))
    buildings_ = len({row["target"] for row in rows})
    lines = [
        "# Month after month\n",
        f"{buildings_} buildings of Drammen, months of their test part, {results['hardware']['cpu']}, "
        f"{results['date']}, seeds: {results['seeds']}. "
        "`python -m experiments.adapt.monthly`. Errors: MAE in a building's standard deviation, mean over months, "
        "buildings and seeds. Differences are paired by month, over the seeds that both have: mean and standard error "
        "over the months. Seconds: of the processor, for a month after the first.\n",
        f"| way | error | over {ONCE} | over {SMALL} | seconds a month |",
        "| --- | --- | --- | --- | --- |",
    ]
    for way in names:
        later = [row["seconds"] for row in rows if row["way"] == way and row["number"]]
        both = f"{against(rows, way, ONCE)} | {against(rows, way, SMALL)}"
        lines.append(f"| {way} | {np.mean(by_month(rows, way)):.4f} | {both} | {np.mean(later):.2f} |")
    lines += ["\nWhat was thawed, building-months of all seeds:\n"]
    months_ = list(dict.fromkeys(row["month"] for row in rows))
    lines += ["| way | " + " | ".join(months_) + " |", "| --- |" + " --- |" * len(months_)]
    for way in (way for way in names if any(row["thawed"] for row in rows if row["way"] == way)):
        cells = []
        for month in months_:
            thawed = [row["thawed"] for row in rows if row["way"] == way and row["month"] == month]
            cells.append(", ".join(f"{name} {thawed.count(name)}" for name in sorted(set(thawed))))
        lines.append(f"| {way} | {' | '.join(cells)} |")
    lines.append("\n![Error by month](months.png)\n")
    (out / "monthly.md").write_text("\n".join(lines), encoding="utf-8")
    with mpl.rc_context(STYLE):
        figure, grid = new_figure(9.5, 4.2, f"Error over that of the forecaster {ONCE}, by month")
        axes = grid[0, 0]
        for colour, way in zip(PALETTE * 2, names, strict=False):
            line = {"lw": 2} if way.startswith("isolated") else {"lw": 1, "ls": "--"}
            axes.plot(months_, shares(rows, way, ONCE), "o", color=colour, ms=3, label=way, **{"ls": "-", **line})
        axes.legend(frameon=False, fontsize=8, ncols=2)
        save(figure, out / "months.png")


if __name__ == "__main__":
    main()
