"""Error against weeks of data: what is thawed of a trained forecaster, chosen by the rule or fixed, and the controls.

    python -m experiments.adapt.run --drammen TIDY WINDOWS --drahix CSV [--seeds 3] [--work FOLDER]

A forecaster (64 units) and a small one (16) are trained on a pool: 27 of the 36 public buildings of Drammen, or the
main meter of Drahi-X. They are adapted to the last 2 to 104 weeks, and all, before the test part of a series that they
have never seen: 8 other buildings, or the zones T1 to T7. Each row of results.json is one series, seed, amount and way;
a run that was interrupted goes on from there.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch

from isotrain.adapt.adapt import windows_of
from isotrain.adapt.candidates import CANDIDATES, Candidate, Ground, Weights, solved, train
from isotrain.adapt.choose import KEPT, Trials, Tried, best, held_out
from isotrain.adapt.memory import Draw
from isotrain.adapt.monthly import SOLVED
from isotrain.baselines.linear import ridge
from isotrain.config import IngestView, MethodsView, Window, load
from isotrain.config.ingest import Column
from isotrain.data.ingest import Tidy, ingest, read
from isotrain.data.windowing import described, make_windows
from isotrain.data.windows import Facts, Windows, save_all
from isotrain.files import read_json, write_json
from isotrain.forecast.bundle import Bundle, load_bundle
from isotrain.forecast.network import Forecaster, Series
from isotrain.forecast.stretches import WEEK
from isotrain.report.drawing import PALETTE, STYLE, new_figure, save
from isotrain.training.fit import fit, prepare_process
from isotrain.training.machine import commit, hardware

HERE = Path(__file__).parent
PARAMS = HERE / "params.yaml"
WEEKS = (2, 4, 8, 13, 26, 52, 104, 0)  # 0: all
EVERY = 5  # of the buildings one is left out of the pool
SELDOM = {"decoder": (2, 4, 8), "everything": (2, 4, 8, 13, 26, 104)}  # amounts at which they are not measured
COSTLY = (4, 52, 13, 0)  # amounts at which the ways that take most of the time are measured
TRUNK = (1e4, 3e3, 1e3, 300.0, 100.0, 30.0, 10.0)  # strengths of the ridge on random features
STRIDE = 11  # of the test origins
UNUSABLE = "building_6413"  # has no usable test part
WEATHER = ("AirTemp", "Global_Solar_Flux", "Direct_Solar_Flux", "Diffuse_Solar_Flux")


@dataclass(frozen=True)
class Target:
    """A series to adapt to. ``end``: one past the last hour known; what follows is the test part."""

    pool: str
    name: str
    table: pd.DataFrame
    facts: Facts
    end: int
    scale: float  # kW, over all that is known


def buildings(tidy: Path, windows: Path) -> Iterator[Target]:
    """The buildings that the pool leaves out."""
    meta = Windows.load(windows).meta
    for one in meta["series"][::EVERY]:
        table, facts = read(tidy / one["name"])
        end = one["origins"]["test"][0] - one["first"]
        yield Target("drammen", one["name"], table, facts, end, float(table[facts["target"]].iloc[:end].std()))


def drahix(csv: Path, column: str, window: Window) -> Tidy:
    """The series of one meter, under the name of the main meter: so a new meter's file is written."""
    view = load(PARAMS, view=IngestView)
    columns = {"TGBT": Column(kind="load", name=column), **{name: view.ingest.columns[name] for name in WEATHER}}
    return ingest(view.ingest.model_copy(update={"source": str(csv.resolve()), "columns": columns}), Path(), window)


def zones(csv: Path, window: Window) -> Iterator[Target]:
    """The zones behind the main meter."""
    for number in range(1, 8):
        tidy = drahix(csv, f"T{number}", window)
        end = window.ends(tidy.frame["time"].iloc[0], len(tidy.frame))[1]
        scale = float(tidy.frame["TGBT"].iloc[:end].std())
        yield Target("drahix", f"T{number}", tidy.frame, tidy.facts, end, scale)


def parents(work: Path, pool: str, windows: Path, seed: int) -> tuple[Bundle, Bundle]:
    """The forecaster and the small one, trained if they are not there yet."""
    view = load(PARAMS, view=MethodsView)
    made = []
    for method in ("parent", "parent-16"):
        out = work / f"{pool}-{method}-{seed}"
        if not (out / "result.json").exists():
            settings = view.settings(method)
            tracking = settings.tracking.model_copy(update={"uri": f"sqlite:///{work.resolve()}/mlflow.db"})
            fit(settings.model_copy(update={"tracking": tracking}), seed, Windows.load(windows), out)
        made.append(load_bundle(out).for_another(""))  # none of the targets is one of those that it learnt
    return made[0], made[1]


def known(bundle: Bundle, target: Target, weeks: int) -> tuple[Windows, float]:
    """So many weeks of ``target`` and its test part after them, with the scales of the weeks; seconds of features.

    The windows end with the test part, but nothing of it counts in the scales, the choice or the fit.
    """
    first = bundle.needed_hours
    horizon = bundle.meta["horizon"]
    rows = min(first + weeks * WEEK + horizon - 1, target.end) if weeks else target.end
    part = target.table.iloc[target.end - rows : target.end].reset_index(drop=True)
    begin = time.process_time()
    own = windows_of(bundle, Tidy(part, part, {**target.facts, "rows": len(part)}))
    seconds = time.process_time() - begin
    whole = target.table.iloc[target.end - rows :].reset_index(drop=True)
    facts: Facts = {**target.facts, "rows": len(whole)}
    windows = described(whole, facts, own.meta)
    origins = own.series[0]["origins"]["train"]
    start = origins[1] - held_out(round((origins[1] - origins[0]) / WEEK)) * WEEK
    windows.series[0]["origins"] = {
        "train": [first, start - horizon + 1],
        "validation": [start, origins[1]],
        "test": [rows, len(whole) - horizon + 1],
    }
    return windows, seconds


def spoiled(windows: Windows) -> Windows:
    """``windows`` whose test part is no truth: so nothing can be learnt from it."""
    truth = windows.truth.copy()
    truth[windows.series[0]["origins"]["test"][0] :] = np.nan
    return replace(windows, truth=truth)


def mae(windows: Windows, answer: Any) -> float:
    """Of the test part, kW."""
    origins = windows.origins("test")[::STRIDE]
    return float(np.nanmean(np.abs(windows.targets(origins) - answer(origins))))


def network_mae(windows: Windows, ground: Ground, weights: Weights) -> float:
    """Of the test part, kW, with ``weights`` in the place of the parent's."""
    return mae(windows, lambda origins: ground.forecast(weights, torch.from_numpy(origins)).numpy())


def trials(bundle: Bundle, small: Bundle, target: Target, weeks: int, seed: int) -> Iterator[dict[str, Any]]:
    """A row of every candidate at each strength: its gain on the weeks held out, and its error on the test part."""
    windows, features = known(bundle, target, weeks)
    learnt = spoiled(windows)
    (first, last) = windows.ranges("train", "validation")[0]
    data = {"pool": target.pool, "target": target.name, "seed": seed, "weeks": weeks, "scale": target.scale}
    begin = time.process_time()
    Ground.of(bundle.network(learnt), first, last)
    remembering = time.process_time() - begin + features
    end = windows.series[0]["origins"]["test"][1]
    ground = Ground.of(bundle.network(learnt), first, end)  # the test part's states too: its forecasts are many
    yield {**data, "way": "unadapted", "mae": network_mae(windows, ground, {}), "seconds": features}
    tries = Trials(ground, first, last)
    for name, candidate in CANDIDATES.items():
        if weeks in SELDOM.get(name, ()):
            continue
        ground.forget()
        begin = time.process_time()
        tried = tries.of(name, candidate, list(candidate.strengths))
        deciding = time.process_time() - begin
        rows, path, seconds = [], None, 0.0
        for one in tried:
            if path is None or name in SOLVED:  # what is trained, is so once, and then gone a part of the way to
                begin = time.process_time()
                path = candidate.fit(ground, tries.whole, one.strength)
                weights = path(one.strength)
                seconds = time.process_time() - begin
            weights = path(one.strength)
            rows.append([one.strength, one.gain, one.doubt, network_mae(windows, ground, weights)])
        mae_of_best = max(rows, key=lambda row: row[1])[3]
        times = {"deciding": deciding, "seconds": remembering + deciding + seconds}
        yield {**data, "way": name, "mae": mae_of_best, "tried": rows, **times}


def controls(bundle: Bundle, small: Bundle, target: Target, weeks: int, seed: int) -> Iterator[dict[str, Any]]:
    """A row of every control."""
    windows, features = known(bundle, target, weeks)
    learnt = spoiled(windows)
    (first, last) = windows.ranges("train", "validation")[0]
    data = {"pool": target.pool, "target": target.name, "seed": seed, "weeks": weeks, "scale": target.scale}
    end = windows.series[0]["origins"]["test"][1]

    begin = time.process_time()
    ground = Ground.of(small.network(learnt), first, end)
    with ground.thawed_encoder():
        weights = train(ground.net, Draw(first, last, windows.meta["history"], 16, 16, seed), 60)
    seconds = time.process_time() - begin + features
    yield {**data, "way": "small, whole", "mae": network_mae(windows, ground, weights), "seconds": seconds}

    begin = time.process_time()
    ground = Ground.of(fresh(bundle, learnt, seed), first, end)
    trunk = Candidate("", dict.fromkeys(TRUNK, 0), lambda g, parts, at: solved(g, parts, False, at))
    tried = Trials(ground, first, last).of("trunk", trunk, TRUNK)
    strength = max(tried, key=lambda one: one.gain).strength
    weights = trunk.fit(ground, [(first, last)], strength)(strength)
    seconds = time.process_time() - begin + features
    yield {**data, "way": "random trunk", "mae": network_mae(windows, ground, weights), "seconds": seconds}

    if seed == 0 and weeks in COSTLY:
        begin = time.process_time()
        ground = Ground.of(fresh(small, learnt, seed), first, last)
        with ground.thawed_encoder():
            weights = train(ground.net, Draw(first, last, windows.meta["history"], 16, 16, seed), 200, 0.025)
        seconds = time.process_time() - begin + features
        yield {**data, "way": "small, from scratch", "mae": network_mae(windows, ground, weights), "seconds": seconds}

        begin = time.process_time()
        fitted = ridge("rich", refit=True)(learnt)
        yield {**data, "way": "ridge", "mae": mae(windows, fitted), "seconds": time.process_time() - begin + features}


def fresh(bundle: Bundle, windows: Windows, seed: int) -> Forecaster:
    """The network of ``bundle`` before any training."""
    assert bundle.settings is not None
    model = bundle.settings.model
    torch.manual_seed(seed)
    series = Series(windows, model.inputs, model.leave_out)
    shape = model.model_dump(exclude={"inputs", "leave_out"})
    return Forecaster(series, **shape, backend="torch", remember=None)


def measure(work: Path, pools: list[tuple[list[Target], Path]], seeds: int) -> list[dict[str, Any]]:
    """All rows of the pools, each its targets and the windows trained on: those that are there already are read."""
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        made = {targets[0].pool: parents(work, targets[0].pool, windows, seed) for targets, windows in pools}
        for part in (trials, controls):
            for weeks in (*COSTLY, *(w for w in WEEKS if w not in COSTLY)):
                for target in [target for targets, _ in pools for target in targets]:
                    path = work / "rows" / f"{target.pool}-{target.name}-{weeks}-{seed}-{part.__name__}.json"
                    if not path.exists():
                        write_json(path, list(part(*made[target.pool], target, weeks, seed)))
                        print(part.__name__, target.pool, target.name, weeks, seed, flush=True)
                    rows += read_json(path)
    return rows


def pool_of_buildings(work: Path, windows: Path) -> Path:
    """The windows of the buildings that are trained on."""
    out = work / "drammen.windows"
    if not (out / "windows.json").exists():
        every = Windows.load(windows)
        kept = [i for i, one in enumerate(every.series) if i % EVERY and one["name"] != UNUSABLE]
        save_all((every.only(i) for i in kept), out, [every.series[i]["rows"] for i in kept])
    return out


def main_meter(work: Path, csv: Path, window: Window) -> Path:
    """The windows of the main meter of Drahi-X."""
    out = work / "drahix.windows"
    if not (out / "windows.json").exists():
        tidy = drahix(csv, "TGBT", window)
        make_windows(tidy.frame, tidy.facts, window).save(out)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--drammen", type=Path, nargs=2, metavar=("TIDY", "WINDOWS"), help="tables and windows of all 36 buildings"
    )
    parser.add_argument("--drahix", type=Path, metavar="CSV", help="the file of all zones")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("results/adapt"), help="where parents and rows go")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    words = parser.parse_args()
    window = load(PARAMS, view=IngestView).window
    prepare_process(load(PARAMS, view=MethodsView).settings("parent"))
    pools = []
    if words.drahix:
        pools.append((list(zones(words.drahix, window)), main_meter(words.work, words.drahix, window)))
    if words.drammen:
        pools.append((list(buildings(*words.drammen)), pool_of_buildings(words.work, words.drammen[1])))
    rows = measure(words.work, pools, words.seeds)
    results = {
        "date": date.today().isoformat(),
        "commit": commit(),
        "hardware": hardware(),
        "seeds": words.seeds,
        "rows": rows,
    }
    write_json(words.out / "results.json", results)
    write_page(results, words.out)


def with_choice(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """``rows``, and of each series, seed and amount one more: what the rule takes of the trials, in the time of all."""
    made = []
    for kept in [row for row in rows if row["way"] == "unadapted"]:
        weeks = kept["weeks"] or 10**6
        same = [
            r for r in rows if all(r[key] == kept[key] for key in ("pool", "target", "seed", "weeks")) and "tried" in r
        ]
        allowed = {r["way"]: CANDIDATES[r["way"]].tried(weeks) for r in same}
        errors = {(r["way"], one[0]): one[3] for r in same for one in r["tried"]}
        tried = [Tried(r["way"], *one[:3]) for r in same for one in r["tried"] if one[0] in allowed[r["way"]]]
        chosen = best(tried, weeks)
        seconds = sum(r["deciding"] for r in same if allowed[r["way"]])
        name = chosen.name if chosen else KEPT
        own = next((r for r in same if r["way"] == name), None)
        seconds += own["seconds"] - own["deciding"] if own else min(r["seconds"] - r["deciding"] for r in same)
        mae = errors[chosen.name, chosen.strength] if chosen else kept["mae"]
        made.append({**kept, "way": "chosen", "mae": mae, "seconds": seconds, "thawed": name})
    return [*rows, *made]


def relative(rows: list[dict[str, Any]], pool: str) -> dict[tuple[str, int], list[float]]:
    """Way and weeks -> error of each series and seed over that of the unadapted forecaster with the same scales."""
    own = [row for row in rows if row["pool"] == pool]
    before = {(r["target"], r["seed"], r["weeks"]): r["mae"] for r in own if r["way"] == "unadapted"}
    found: dict[tuple[str, int], list[float]] = {}
    for row in own:
        share = row["mae"] / before[row["target"], row["seed"], row["weeks"]]
        found.setdefault((row["way"], row["weeks"]), []).append(share)
    return found


def table(rows: list[dict[str, Any]], pool: str) -> list[str]:
    """Of each way the error at each amount, in the series' standard deviation, mean over series and seeds; seconds."""
    own = [row for row in rows if row["pool"] == pool]
    weeks = [w for w in WEEKS if any(row["weeks"] == w for row in own)]
    lines = [
        "| way | " + " | ".join(f"{w} weeks" if w else "all" for w in weeks) + " | seconds |",
        "| --- |" + " --- |" * (len(weeks) + 1),
    ]
    for way in dict.fromkeys(row["way"] for row in own):
        cells = []
        for w in weeks:
            errors = [r["mae"] / r["scale"] for r in own if r["way"] == way and r["weeks"] == w]
            cells.append(f"{np.mean(errors):.4f}" if errors else "")
        year = [r["seconds"] for r in own if r["way"] == way and r["weeks"] == 52]
        lines.append(f"| {way} | {' | '.join(cells)} | {np.mean(year):.2f} |")
    return lines


def judged(rows: list[dict[str, Any]], pool: str) -> list[str]:
    """The choice beside hindsight: the best fixed way at each amount, how much worse the choice is, what it thawed."""
    share = relative(rows, pool)
    fixed = ["unadapted", *CANDIDATES]
    lines = [
        "| weeks | best fixed | its error | of the choice | worst series | series worse by over 0.5 % | thawed |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for w in WEEKS:
        if ("chosen", w) not in share:
            continue
        there = [way for way in fixed if (way, w) in share]
        leading = min(there, key=lambda way: float(np.mean(share[way, w])))
        chosen = share["chosen", w]
        thawed = [r["thawed"] for r in rows if r["pool"] == pool and r["weeks"] == w and r["way"] == "chosen"]
        counts = ", ".join(f"{name} {thawed.count(name)}" for name in dict.fromkeys(sorted(thawed)))
        worse = f"{sum(one > 1.005 for one in chosen)} of {len(chosen)}"
        errors = f"{np.mean(share[leading, w]):.3f} | {np.mean(chosen):.3f} | {max(chosen):.3f}"
        lines.append(f"| {w or 'all'} | {leading} | {errors} | {worse} | {counts} |")
    return lines


NAMES = {"drahix": "The zones of Drahi-X, from its main meter", "drammen": "8 buildings of Drammen, from 27 others"}


def write_page(results: dict[str, Any], out: Path) -> None:
    """adapt.md and its figure, from results.json alone."""
    rows = with_choice(results["rows"])
    pools = list(dict.fromkeys(row["pool"] for row in rows))
    lines = [
        "# Error against weeks of data\n",
        f"{results['hardware']['cpu']}, {results['date']}, seeds: {results['seeds']}. "
        "`python -m experiments.adapt.run`. "
        "Errors: MAE of the test part in the series' standard deviation, mean over series and seeds. Seconds: of the "
        "processor, for 52 weeks, with features, remembering and deciding.\n",
    ]
    for pool in pools:
        lines += [f"## {NAMES[pool]}\n", *table(rows, pool), ""]
        lines += ["The choice beside the best fixed way in hindsight; error over that of the unadapted forecaster:\n"]
        lines += [*judged(rows, pool), ""]
    lines.append("![Error against weeks of data](weeks.png)\n")
    (out / "adapt.md").write_text("\n".join(lines), encoding="utf-8")
    with mpl.rc_context(STYLE):
        figure, grid = new_figure(9.5, 4.4, "Error over that of the unadapted forecaster", columns=len(pools))
        for axes, pool in zip(grid[0], pools, strict=True):
            share = relative(rows, pool)
            ways = dict.fromkeys(way for way, _ in share)
            for colour, way in zip(PALETTE * 2, ways, strict=False):
                at = [w for w in WEEKS if (way, w) in share]
                axes.plot(
                    [WEEKS.index(w) for w in at],
                    [float(np.mean(share[way, w])) for w in at],
                    "o-" if way == "chosen" else "o--",
                    color=colour,
                    lw=2.4 if way == "chosen" else 1.0,
                    ms=3,
                    label=way,
                )
            axes.set_xticks(range(len(WEEKS)), [str(w) if w else "all" for w in WEEKS])
            axes.set_xlabel(f"weeks of data\n{NAMES[pool]}")
            axes.set_ylim(0.86, 1.3)
            axes.legend(frameon=False, fontsize=7)
        save(figure, out / "weeks.png")


if __name__ == "__main__":
    main()
