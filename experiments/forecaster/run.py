"""Do the zones of the building, or means of several forecasters, make its most accurate forecast more accurate?

    python -m experiments.forecaster.run DATA [--kinds alone,columns,pooled,trees]

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
from typing import Any

import numpy as np
import torch
from experiments.pretraining.run import TARGET, ZONES, Table, drahix, from_pool, pooled, trained

from isotrain.baselines import BASELINES, score
from isotrain.config import MethodsView, Window, load
from isotrain.data.windowing import make_windows
from isotrain.data.windows import Windows, save_all
from isotrain.errors import run_as_command
from isotrain.files import read_json, write_json, write_text
from isotrain.forecast.forecasts import Forecasts, mae, mean_forecast, read_forecasts
from isotrain.forecast.network import for_one_series
from isotrain.training.machine import commit, hardware
from isotrain.training.result import save_forecasts

SEEDS = {"alone": 3, "columns": 3, "pooled": 3, "trees": 1}
TREES = "trees"


def main(*words: str) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--kinds", default=",".join(SEEDS), help="separated by commas; trees take most of the time")
    parser.add_argument("--out", type=Path, default=Path("experiments/forecaster/results"))
    parser.add_argument("--work", type=Path, default=Path("results/forecaster/members"))
    asked = parser.parse_args(words)
    write_page(asked.out, Members(asked.data, asked.work), asked.kinds.split(","))


class Members:
    """The forecasters, each made when it is first asked for and kept in the folder ``work``."""

    def __init__(self, data: Path, work: Path) -> None:
        self.work = work
        self._settings = load("params.yaml", view=MethodsView)
        self._windows = made(data, work / "windows")

    def forecasts(self, kind: str, part: str, refit: bool = False) -> list[Forecasts]:
        """Those of each seed on ``part``."""
        return [read_forecasts(folder, part) for folder in self._folders(kind, refit)]

    def commits(self) -> list[str]:
        """Of the code that made what is there."""
        return sorted({str(read_json(path)["commit"]) for path in self.work.glob("*/member.json")})

    def _folders(self, kind: str, refit: bool) -> list[Path]:
        found = []
        for seed in range(SEEDS[kind]):
            folder = self.work / f"{kind}{'-refit' if refit else ''}-{seed}"
            if not (folder / "member.json").exists():
                folder.mkdir(parents=True, exist_ok=True)
                self._make(kind, refit, seed, folder)
                write_json(folder / "member.json", {"commit": commit()})
            found.append(folder)
        return found

    def _make(self, kind: str, refit: bool, seed: int, folder: Path) -> None:
        windows = self._windows[kind]
        alone = windows.only(0)
        if kind == TREES:
            _, arrays, _ = score(kind, BASELINES["lightgbm-rich-refit" if refit else "lightgbm-rich"], alone)
            np.savez(folder / "forecasts.npz", **arrays)  # type: ignore[arg-type]  # numpy's stubs know only its flag
            return
        settings = self._settings.settings("rich-refit" if refit else "rich")
        if kind == "pooled":
            weights = for_one_series(pooled(settings, windows, seed).module.net.state_dict(), 0)
            loop = from_pool(settings, weights, alone, seed)
            loop.run(validate=False)
        else:
            loop = trained(settings, alone, seed)
        parts = ("test",) if refit else ("validation", "test")
        answers = {part: loop.module.forecast(torch.from_numpy(alone.origins(part))).numpy() for part in parts}
        save_forecasts(folder / "forecasts.npz", alone, answers)


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
    return {kind: found["columns" if kind == "columns" else "pooled"] for kind in SEEDS}


def mean_of(members: Members, kinds: Sequence[str], part: str, refit: bool = False) -> float:
    """Error, kW, of the mean of ``kinds``, each the mean of its seeds."""
    return mae(mean_forecast([mean_forecast(members.forecasts(kind, part, refit)) for kind in kinds]))


def middle(members: Members, kinds: Sequence[str], part: str, refit: bool = False) -> float:
    """Median over the seeds of the error, kW, of the one of ``kinds``."""
    return statistics.median(mae(one) for one in members.forecasts(kinds[0], part, refit))


def write_page(out: Path, members: Members, kinds: Sequence[str]) -> None:
    """``members.md`` and ``members.json``."""
    choices: dict[str, tuple[Callable[..., float], list[tuple[str, ...]]]] = {
        "single": (middle, [(kind,) for kind in kinds]),
        "mean": (mean_of, [some for count in range(1, len(kinds) + 1) for some in combinations(kinds, count)]),
    }
    validation, test = {}, []
    for what, (error, of) in choices.items():
        seen = {some: error(members, some, "validation") for some in of}
        ranked = sorted(seen, key=lambda some: seen[some])
        validation[what] = {" + ".join(some): seen[some] for some in ranked}
        for some in dict.fromkeys([("alone",), ranked[0]]):
            as_it_is, refitted = (error(members, some, "test", refit) for refit in (False, True))
            test.append({"what": what, "of": " + ".join(some), "as it is": as_it_is, "refitted": refitted})
    record = {
        "commits": members.commits(),
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(),
        "seeds": {kind: SEEDS[kind] for kind in kinds},
        "validation": validation,
        "test": test,
    }
    write_json(out / "members.json", record)
    write_text(out / "members.md", page(record))


def page(record: dict[str, Any]) -> str:
    """The page as Markdown."""
    seeds = ", ".join(f"{kind} {count}" for kind, count in record["seeds"].items())
    lines = [
        "# Zones and means",
        "",
        f"MAE in kW on the building {TARGET}; seeds: {seeds}. Written by `python -m experiments.forecaster.run` on "
        f"{record['date']}, commit {', '.join(record['commits'])}, one core of: {record['hardware']['cpu']}.",
        "",
        "On validation, where everything is chosen. Single: the median over the seeds. Mean: of kinds, each the mean "
        "of its seeds.",
        "",
        "| | of | validation |",
        "| --- | --- | ---: |",
        *(f"| {what} | {of} | {mae:.3f} |" for what, seen in record["validation"].items() for of, mae in seen.items()),
        "",
        "On the test part, what was chosen, and `rich` as it is.",
        "",
        "| | of | test | test, refitted |",
        "| --- | --- | ---: | ---: |",
        *(f"| {row['what']} | {row['of']} | {row['as it is']:.3f} | {row['refitted']:.3f} |" for row in record["test"]),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    run_as_command(main)
