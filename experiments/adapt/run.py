"""Error against weeks of data: what is thawed of a trained forecaster, chosen by the rule or fixed, and the controls.

    python -m experiments.adapt.run --drammen TIDY WINDOWS --drahix CSV [--seeds 5] [--work FOLDER]

A forecaster (64 units) and a small one (16) are trained on a pool: 27 of the 36 public buildings of Drammen, or the
main meter of Drahi-X. They are adapted to the last 2 to 104 weeks, and all, before the test part of a series that they
have never seen: 8 other buildings, or the zones T1 to T7. Each row of results.json is one series, seed, amount and way;
a run that was interrupted goes on from there.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch

from isotrain.adapt.adapt import windows_of
from isotrain.adapt.candidates import CANDIDATES, Candidate, Ground, Weights, solved, train, trained
from isotrain.adapt.choose import KEPT, SEASON, Trials, Tried, best, held_out, in_order
from isotrain.adapt.memory import Draw
from isotrain.adapt.monthly import SOLVED
from isotrain.baselines.fitted import Fitted, fitting_origins
from isotrain.baselines.linear import ridge
from isotrain.baselines.trees import SETTINGS, examples, restored_trees
from isotrain.config import IngestView, MethodsView, Window, load
from isotrain.config.ingest import Column
from isotrain.data.ingest import Tidy, ingest, read
from isotrain.data.windowing import described, make_windows
from isotrain.data.windows import Facts, Windows, save_all, stride_for
from isotrain.files import read_json, write_json, write_text
from isotrain.forecast.bundle import Bundle, load_bundle
from isotrain.forecast.network import Forecaster
from isotrain.forecast.series import Series
from isotrain.forecast.stretches import WEEK
from isotrain.report.drawing import PALETTE, STYLE, new_figure, save
from isotrain.training.fit import fit, prepare_process
from isotrain.training.machine import commit, hardware

HERE = Path(__file__).parent
PARAMS = HERE / "params.yaml"
WEEKS = (2, 4, 8, 13, 26, 52, 104, 0)  # 0: all
EVERY = 5  # of the buildings one is left out of the pool
COSTLY = (4, 13, 52, 0)  # amounts at which the ways that take most of the time are measured
TRIED: Mapping[str, Candidate] = {
    **CANDIDATES,
    "everything": Candidate(  # the rule does not know it
        "every weight", dict.fromkeys((0.5, 1.0), 0), lambda ground, parts, chosen: trained(ground, parts, True)
    ),
}
AT: Mapping[str, tuple[int, ...]] = {"decoder": (4, 13, 26, 52, 104, 0), "everything": (4, 52, 0)}  # all others: always
ROUNDS, ROUND = 8, 15  # early stopping: the best after so many rounds, or fewer, of so many steps
POOLED = 4000  # origins of the pool that trees are grown from, and at most as many of the building's own
TREES: Mapping[str, Any] = {**SETTINGS, "learning_rate": 0.1, "num_threads": 1}
GROWN = 200  # of them
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


def measured(bundle: Bundle, small: Bundle, target: Target, pool: Path, weeks: int, seed: int) -> list[dict[str, Any]]:
    """A row of every way: of a candidate with its gain on the weeks held out and its error on the test part."""
    windows, features = known(bundle, target, weeks)
    learnt = spoiled(windows)
    first, last = windows.ranges("train", "validation")[0]
    end = windows.series[0]["origins"]["test"][1]
    rows: list[dict[str, Any]] = []

    def note(way: str, seconds: float, error: float, **more: Any) -> None:
        data = {"pool": target.pool, "target": target.name, "seed": seed, "weeks": weeks, "scale": target.scale}
        rows.append({**data, "way": way, "mae": rounded(error), "seconds": rounded(seconds + features), **more})

    begin = time.process_time()
    Ground.of(bundle.network(learnt), first, last)
    remembering = time.process_time() - begin
    ground = Ground.of(bundle.network(learnt), first, end)  # the test part's states too: its forecasts are many
    note("unadapted", 0.0, network_mae(windows, ground, {}))
    tries = Trials(ground, first, last)
    for name, candidate in TRIED.items():
        if weeks not in AT.get(name, WEEKS):
            continue
        ground.forget()
        begin = time.process_time()
        tried = tries.of(name, candidate, list(candidate.strengths))
        deciding = time.process_time() - begin
        found, path, seconds = [], None, 0.0
        for one in tried:
            if path is None or name in SOLVED:  # what is trained, is so once, and then gone a part of the way to
                begin = time.process_time()
                path = candidate.fit(ground, tries.whole, one.strength)
                weights = path(one.strength)
                seconds = time.process_time() - begin
            weights = path(one.strength)
            numbers = one.gain, one.doubt, network_mae(windows, ground, weights)
            found.append([one.strength, *map(rounded, numbers)])
        of_best = max(found, key=lambda row: row[1])[3]
        note(name, remembering + deciding + seconds, of_best, deciding=rounded(deciding), tried=found)

    begin = time.process_time()
    of_small = Ground.of(small.network(learnt), first, end)
    with of_small.thawed_encoder():
        weights = train(of_small.net, Draw(first, last, windows.meta["history"], 16, 16, seed), 60)
    note("small, whole", time.process_time() - begin, network_mae(windows, of_small, weights))

    begin = time.process_time()
    drawn_once = Ground.of(fresh(bundle, learnt, seed), first, end)
    trunk = Candidate("", dict.fromkeys(TRUNK, 0), lambda g, parts, at: solved(g, parts, False, at))
    strength = max(Trials(drawn_once, first, last).of("trunk", trunk, TRUNK), key=lambda one: one.gain).strength
    weights = trunk.fit(drawn_once, [(first, last)], strength)(strength)
    note("random trunk", time.process_time() - begin, network_mae(windows, drawn_once, weights))

    if weeks in COSTLY:
        begin = time.process_time()
        untrained = Ground.of(fresh(small, learnt, seed), first, last)
        with untrained.thawed_encoder():
            draw = Draw(first, last, windows.meta["history"], 16, 16, seed)
            weights = train(untrained.net, draw, 200, 0.025)
        note("small, from scratch", time.process_time() - begin, network_mae(windows, untrained, weights))
    if weeks in COSTLY and seed == 0:
        begin = time.process_time()
        stopping = Candidate("", dict.fromkeys(range(ROUNDS + 1), 0), in_rounds)
        stopped = max(tries.of("early", stopping, list(stopping.strengths)), key=lambda one: one.gain).strength
        weights = tries.paths["early"](stopped)
        note("early stopping", time.process_time() - begin, network_mae(windows, ground, weights), rounds=stopped)
        begin = time.process_time()
        fitted = ridge("rich", refit=True)(learnt)
        note("ridge", time.process_time() - begin, mae(windows, fitted))
        begin = time.process_time()
        grown = pooled_trees(pool, learnt)
        note("pooled LightGBM", time.process_time() - begin, mae(windows, grown))
    return rows


def rounded(value: float) -> float:
    """To five digits."""
    return float(f"{value:.5g}")


def in_rounds(ground: Ground, parts: Sequence[tuple[int, int]], _: float | None) -> Callable[[float], Weights]:
    """The whole network trained on and on: its weights after each round, 0 of them being the parent."""
    found: list[Weights] = [{}]
    for number in range(ROUNDS):
        with ground.thawed_encoder():
            ground.use(found[-1])
            draw = Draw(parts[0][0], parts[-1][1], ground.net.series.history, 16, 16, number)
            found.append(train(ground.net, draw, ROUND))
    return lambda rounds: found[round(rounds)]


def pooled_trees(pool: Path, windows: Windows) -> Fitted:
    """Trees on the rows of the pool and those of ``windows`` together."""
    import lightgbm  # here, since it alone needs it

    both = [np.concatenate(pair) for pair in zip(rows_of_pool(pool), rows_of(windows, POOLED), strict=True)]
    grown = lightgbm.train(dict(TREES), lightgbm.Dataset(*both), GROWN)
    return restored_trees(windows, grown.model_to_string().encode(), "rich")


@cache
def rows_of_pool(windows: Path) -> tuple[Any, Any]:
    """Those of all series that were trained on, of about POOLED origins in all."""
    pool = Windows.load(windows)
    found = [rows_of(pool.only(index), POOLED // len(pool.series)) for index in range(len(pool.series))]
    return np.concatenate([x for x, _ in found]), np.concatenate([y for _, y in found])


def rows_of(one: Windows, most: int) -> tuple[Any, Any]:
    """What trees read of every lead of about ``most`` origins before the test part, and what they are to say of it."""
    origins = fitting_origins(one, refit=True)
    return examples(one, origins[:: stride_for(len(origins), most)], np.arange(one.meta["horizon"]), "rich")


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
        for weeks in (*COSTLY, *(w for w in WEEKS if w not in COSTLY)):
            for targets, windows in pools:
                for target in targets:
                    path = work / "rows" / f"{target.pool}-{target.name}-{weeks}-{seed}.json"
                    if not path.exists():
                        write_json(path, measured(*made[target.pool], target, windows, weeks, seed))
                        print(target.pool, target.name, weeks, seed, flush=True)
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
    parser.add_argument("--seeds", type=int, default=5)
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
    rows = with_choice(measure(words.work, pools, words.seeds))
    results = {
        "date": date.today().isoformat(),
        "commit": commit(),
        "hardware": hardware(),
        "seeds": words.seeds,
        "rows": rows,
    }
    write_results(results, words.out)
    write_page(results, words.out)


def write_results(results: dict[str, Any], out: Path) -> None:
    """results.json, with a line for each of its rows."""
    about = json.dumps({**results, "rows": []}, indent=2)
    lines = ",\n".join(json.dumps(row) for row in results["rows"])
    write_text(out / "results.json", about.replace("[]", f"[\n{lines}\n]") + "\n")


def with_choice(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """``rows``, and of each series, seed and amount one more: what the rule takes of the trials, and their time."""
    cells: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["pool"], row["target"], row["seed"], row["weeks"]), {})[row["way"]] = row
    return [*rows, *(choice_of(cell) for cell in cells.values())]


def choice_of(cell: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What the rule takes of the ways ``cell``, by name, all of one series, seed and amount."""
    kept = cell["unadapted"]
    weeks = kept["weeks"] or WEEKS[-2] + 1
    tried: list[Tried] = []
    taken, deciding = None, 0.0
    for name in in_order(CANDIDATES, weeks):
        allowed = CANDIDATES[name].tried(weeks)
        tried += [Tried(name, *one[:3]) for one in cell[name]["tried"] if one[0] in allowed]
        taken, deciding = best(tried, weeks), deciding + cell[name]["deciding"]
        if taken and weeks >= SEASON:
            break
    if taken is None:
        fitting = min(one["seconds"] - one["deciding"] for one in cell.values() if "tried" in one)
        return {**kept, "way": "chosen", "seconds": deciding + fitting, "thawed": KEPT}
    own = cell[taken.name]
    mae = next(one[3] for one in own["tried"] if one[0] == taken.strength)
    seconds = deciding + own["seconds"] - own["deciding"]
    return {**kept, "way": "chosen", "mae": mae, "seconds": seconds, "thawed": taken.name, "gain": taken.gain}


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


def seeds_of(rows: list[dict[str, Any]]) -> list[int]:
    """The seeds that occur."""
    return sorted({row["seed"] for row in rows})


def judged(rows: list[dict[str, Any]], pool: str) -> list[str]:
    """The choice beside hindsight: the best fixed way at each amount, how much worse the choice is, what it thawed."""
    share = relative(rows, pool)
    fixed = ["unadapted", *TRIED]
    lines = [
        "| weeks | best fixed | its error | of the choice | of each seed | worst | worse by over 0.5 % | thawed |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for w in WEEKS:
        if ("chosen", w) not in share:
            continue
        there = [way for way in fixed if (way, w) in share]
        leading = min(there, key=lambda way: float(np.mean(share[way, w])))
        own = share["chosen", w]
        of = [row for row in rows if row["pool"] == pool and row["weeks"] == w and row["way"] == "chosen"]
        thawed = [row["thawed"] for row in of]
        seeds = [np.mean([one for one, row in zip(own, of, strict=True) if row["seed"] == k]) for k in seeds_of(of)]
        counts = ", ".join(f"{name} {thawed.count(name)}" for name in dict.fromkeys(sorted(thawed)))
        worse = f"{sum(one > 1.005 for one in own)} of {len(own)}"
        spread = f"{min(seeds):.3f} to {max(seeds):.3f} | {max(own):.3f}"
        errors = f"{np.mean(share[leading, w]):.3f} | {np.mean(own):.3f} | {spread}"
        lines.append(f"| {w or 'all'} | {leading} | {errors} | {worse} | {counts} |")
    return lines


NAMES = {"drahix": "The zones of Drahi-X, from its main meter", "drammen": "8 buildings of Drammen, from 27 others"}


def write_page(results: dict[str, Any], out: Path) -> None:
    """adapt.md and its figure, from results.json alone."""
    rows = results["rows"]
    pools = list(dict.fromkeys(row["pool"] for row in rows))
    lines = [
        "# Error against weeks of data\n",
        f"{results['hardware']['cpu']}, {results['date']}, seeds: {results['seeds']}. "
        "`python -m experiments.adapt.run`. "
        "Errors: MAE of the test part in the series' standard deviation, mean over series and seeds; early stopping, "
        "ridge and LightGBM are of seed 0 alone. Seconds: of the processor, for 52 weeks, with features, remembering "
        "and deciding.\n",
    ]
    for pool in pools:
        lines += [f"## {NAMES[pool]}\n", *table(rows, pool), ""]
        lines += ["The choice beside the best fixed way in hindsight; error over that of the unadapted forecaster:\n"]
        lines += [*judged(rows, pool), ""]
    lines.append("![Error against weeks of data](weeks.png)\n")
    (out / "adapt.md").write_text("\n".join(lines), encoding="utf-8")
    with mpl.rc_context(STYLE):
        figure, grid = new_figure(11, 4.4, "Error over that of the unadapted forecaster", columns=len(pools))
        for axes, pool in zip(grid[0], pools, strict=True):
            share = relative(rows, pool)
            others = [way for way in dict.fromkeys(way for way, _ in share) if way not in ("unadapted", "chosen")]
            colours = {**dict(zip(others, PALETTE * 2, strict=False)), "chosen": "black"}
            axes.axhline(1.0, color="grey", lw=1)
            for way, colour in colours.items():
                at = [w for w in WEEKS if (way, w) in share]
                axes.plot(
                    [WEEKS.index(w) for w in at],
                    [float(np.mean(share[way, w])) for w in at],
                    "o-" if way == "chosen" or way in TRIED else "o:",
                    color=colour,
                    lw=2.4 if way == "chosen" else 1.2,
                    ms=3,
                    label=way,
                )
            axes.set_xticks(range(len(WEEKS)), [str(w) if w else "all" for w in WEEKS])
            axes.set_xlabel(f"weeks of data\n{NAMES[pool]}")
            axes.set_ylim(0.86, 1.3)
        lines_ = grid[0, 0].get_legend_handles_labels()
        figure.legend(*lines_, loc="outside right center", frameon=False, fontsize=8, title="dotted: controls")
        save(figure, out / "weeks.png")


if __name__ == "__main__":
    main()
