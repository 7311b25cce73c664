"""Do the zones of the building, or means of several forecasters, make its most accurate forecast more accurate?

    python -m experiments.forecaster.run DATA [--seeds 5] [--out experiments/forecaster/results]

DATA is the folder of the Drahi-X file. The method ``rich`` as it is (*alone*); with the zones' past loads among the
inputs of its encoder (*columns*); trained on the building and its zones as series of their own, then on the building
(*pooled*, as in experiments/pretraining); and LightGBM on the same features (*trees*). Which of them, and which mean of
them, is chosen by the error on validation; of what was chosen alone, and of *alone*, the test part is read, as it is
and refitted on the validation part. What is there already is not made again.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from experiments.pretraining.run import TARGET, ZONES, Table, drahix, from_pool, pooled, trained

from isotrain.baselines import BASELINES, score
from isotrain.config import MethodsView, Settings, Window, load
from isotrain.data.windowing import make_windows
from isotrain.data.windows import Windows, save_all
from isotrain.errors import run_as_command
from isotrain.files import read_json, write_json, write_text
from isotrain.forecast.forecasts import Forecasts, mae, mean_forecast, read_forecasts
from isotrain.forecast.network import for_one_series
from isotrain.training.fit import Loop
from isotrain.training.machine import commit, hardware
from isotrain.training.result import save_forecasts

NETWORKS = ("alone", "columns", "pooled")
TREES = "trees"
KINDS = (*NETWORKS, TREES)


def main(*words: str) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("experiments/forecaster/results"))
    parser.add_argument("--work", type=Path, default=Path("results/forecaster/members"))
    asked = parser.parse_args(words)
    members = Members(asked.data, asked.work, asked.seeds)
    write_page(asked.out, members)


class Members:
    """The forecasters, each made when it is first asked for and kept in the folder ``work``."""

    def __init__(self, data: Path, work: Path, seeds: int) -> None:
        self.work, self.seeds = work, seeds
        self._settings = load("params.yaml", view=MethodsView)
        self._windows = made(data, work / "windows")

    def forecasts(self, kind: str, part: str, refit: bool = False) -> list[Forecasts]:
        """Those of each seed on ``part``; the trees have one."""
        return [read_forecasts(folder, part) for folder in self._folders(kind, refit)]

    def seconds(self, kind: str, refit: bool = False) -> list[float]:
        """Of training each of them."""
        return [float(read_json(folder / "member.json")["seconds"]) for folder in self._folders(kind, refit)]

    def commits(self) -> list[str]:
        """Of the code that made what is there."""
        return sorted({str(read_json(path)["commit"]) for path in self.work.glob("*/member.json")})

    def _folders(self, kind: str, refit: bool) -> list[Path]:
        found = []
        for seed in range(1 if kind == TREES else self.seeds):
            folder = self.work / f"{kind}{'-refit' if refit else ''}-{seed}"
            if not (folder / "member.json").exists():
                folder.mkdir(parents=True, exist_ok=True)
                seconds = self._make(kind, refit, seed, folder)
                write_json(folder / "member.json", {"seconds": seconds, "commit": commit()})
            found.append(folder)
        return found

    def _make(self, kind: str, refit: bool, seed: int, folder: Path) -> float:
        windows = self._windows[kind]
        alone = windows.only(0)
        if kind == TREES:
            row, arrays, _ = score(kind, BASELINES["lightgbm-rich-refit" if refit else "lightgbm-rich"], alone)
            np.savez(folder / "forecasts.npz", **arrays)  # type: ignore[arg-type]  # numpy's stubs know only its flag
            return row["seconds"]
        settings = self._settings.settings("rich-refit" if refit else "rich")
        loop, seconds = (from_zones if kind == "pooled" else from_scratch)(settings, windows, seed)
        parts = ("test",) if refit else ("validation", "test")
        answers = {part: loop.module.forecast(torch.from_numpy(alone.origins(part))).numpy() for part in parts}
        save_forecasts(folder / "forecasts.npz", alone, answers)
        return seconds


def from_scratch(settings: Settings, windows: Windows, seed: int) -> tuple[Loop, float]:
    loop = trained(settings, windows.only(0), seed)
    return loop, loop.clock.watch.total


def from_zones(settings: Settings, windows: Windows, seed: int) -> tuple[Loop, float]:
    pool = pooled(settings, windows, seed)
    loop = from_pool(settings, for_one_series(pool.module.net.state_dict(), 0), windows.only(0), seed)
    loop.run(validate=False)
    return loop, pool.clock.watch.total + loop.clock.watch.total


def made(data: Path, work: Path) -> dict[str, Windows]:
    """The windows that each kind reads, the building first in all of them, all with the weather of params.yaml."""
    columns = load("params.yaml").ingest.columns
    weather = {name: {"kind": one.kind} for name, one in columns.items() if one.kind in ("temperature", "solar")}
    zones = {zone: {"kind": "other", "unit": "kW"} for zone in ZONES}
    tables: dict[str, Callable[[], Iterator[Table]]] = {
        "pooled": lambda: drahix(data, others=weather),
        "columns": lambda: drahix(data, [TARGET], weather | zones),
    }
    for name, read in tables.items():
        if not (work / name / "windows.json").exists():
            ready = list(read())
            save_all((make_windows(*table, Window()) for table in ready), work / name, [len(t) for t, _ in ready])
    found = {name: Windows.load(work / name) for name in tables}
    return {kind: found["columns" if kind == "columns" else "pooled"] for kind in KINDS}


def mean_of(members: Members, kinds: Sequence[str], part: str, refit: bool = False) -> Forecasts:
    """The mean of ``kinds``, each the mean of its seeds."""
    return mean_forecast([mean_forecast(members.forecasts(kind, part, refit)) for kind in kinds])


def middle(members: Members, kind: str, part: str, refit: bool = False) -> float:
    """Median over the seeds of the error, kW."""
    return statistics.median(mae(one) for one in members.forecasts(kind, part, refit))


def write_page(out: Path, members: Members) -> None:
    """``members.md`` and ``members.json``."""
    single = {kind: middle(members, kind, "validation") for kind in KINDS}
    choices = [kinds for count in range(1, len(KINDS) + 1) for kinds in combinations(KINDS, count)]
    means = {kinds: mae(mean_of(members, kinds, "validation")) for kinds in choices}
    best_network = min(NETWORKS, key=lambda kind: single[kind])
    best_mean = min(choices, key=lambda kinds: means[kinds])
    tested = []
    for kind in dict.fromkeys(["alone", best_network]):
        tested.append((kind, "single", middle(members, kind, "test"), middle(members, kind, "test", refit=True)))
    for kinds in dict.fromkeys([("alone",), best_mean]):
        errors = [mae(mean_of(members, kinds, "test", refit)) for refit in (False, True)]
        tested.append((" + ".join(kinds), "mean", *errors))
    record = {
        "commits": members.commits(),
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(),
        "seeds": members.seeds,
        "validation": {
            "single": single,
            "mean": {" + ".join(kinds): error for kinds, error in means.items()},
        },
        "seconds": {kind: statistics.median(members.seconds(kind)) for kind in KINDS},
        "test": [dict(zip(("what", "of", "as it is", "refitted"), row, strict=True)) for row in tested],
    }
    write_json(out / "members.json", record)
    lines = [
        "# Zones and means",
        "",
        f"MAE in kW on the building {TARGET}, {members.seeds} seeds of each network, one of the trees. Written by "
        f"`python -m experiments.forecaster.run` on {record['date']}, commit {', '.join(members.commits())}, "
        f"one core of: {hardware()['cpu']}.",
        "",
        "## On validation, where everything is chosen",
        "",
        "| forecaster | training, s | validation, median |",
        "| --- | ---: | ---: |",
        *(f"| {kind} | {record['seconds'][kind]:.0f} | {error:.3f} |" for kind, error in single.items()),
        "",
        "| mean of the seeds of | validation |",
        "| --- | ---: |",
        *(f"| {' + '.join(kinds)} | {means[kinds]:.3f} |" for kinds in sorted(means, key=lambda one: means[one])),
        "",
        "## On the test part, what was chosen",
        "",
        "| forecaster | | test | test, refitted |",
        "| --- | --- | ---: | ---: |",
        *(f"| {what} | {of} | {test:.3f} | {refitted:.3f} |" for what, of, test, refitted in tested),
        "",
    ]
    write_text(out / "members.md", "\n".join(lines))


if __name__ == "__main__":
    run_as_command(main)
