"""Does a forecaster of one building gain from what was learnt on others?

    python -m experiments.pretraining.run DATA [--seeds 3] [--out experiments/pretraining/results]

DATA is the folder of the Drahi-X file and of ``drammen-36-buildings.zip``. The method ``rich`` forecasts the building
TGBT. From scratch it learns from that series alone; with *zones* the seven zones of the building are further series;
with *drammen* 36 other buildings are (air temperature and solar flux alone are known of both, so all ways have these).
What lies in or after the test part of TGBT is trained on nowhere. Each pool is judged on TGBT as it is, and after a
fifth of the steps on TGBT alone at 0.3 of the rate, with everything trained and with the encoder isolated.
"""

import argparse
import statistics
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from experiments.published_series import DRAMMEN
from torch import Tensor

from isotrain.config import Ingest, MethodsView, Settings, Window, load
from isotrain.data.ingest import ingest, ingest_all
from isotrain.data.schema import TIME
from isotrain.data.windowing import make_windows
from isotrain.data.windows import Facts, Windows, save_all
from isotrain.errors import run_as_command
from isotrain.files import read_json, write_json, write_text
from isotrain.forecast.forecasts import scores
from isotrain.forecast.network import for_one_series
from isotrain.training.fit import Fit, Loop, prepare_process
from isotrain.training.machine import commit, hardware

DRAHIX = "DrahiX_SIRTA_allzones_20160715_20210520_1h.csv"
TARGET = "TGBT"
ZONES = [f"T{number}" for number in range(1, 8)]
WEATHER: Mapping[str, dict[str, Any]] = {
    "air": {"kind": "temperature", "name": "AirTemp"},
    "sun": {"kind": "solar", "name": "Global_Solar_Flux"},
}
POOL_STEPS = 2000
TUNED_STEPS, TUNED_RATE = 0.2, 0.3  # of those of a whole training
Table = tuple[pd.DataFrame, Facts]


def main(*words: str) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("experiments/pretraining/results"))
    parser.add_argument("--work", type=Path, default=Path("results/pretraining"))
    asked = parser.parse_args(words)
    settings = load("params.yaml", view=MethodsView).settings("rich")
    pools = made(asked.data, asked.work)
    for seed in range(asked.seeds):
        for name, windows in pools.items():
            path = asked.out / "runs" / f"{name}-{seed}.json"
            if not path.exists():
                write_json(path, {**judged(settings, name, windows, seed), "commit": commit()})
    write_page(asked.out)


def made(data: Path, work: Path) -> dict[str, Windows]:
    """The windows of each pool, TGBT first in all of them."""
    window = Window()
    building = list(drahix(data))
    first, rows = building[0][0][TIME].iloc[0], len(building[0][0])
    until = [first + timedelta(hours=end) for end in window.ends(first, rows)[:2]]
    others = list(drammen(data, until[1]))
    dates = Window(train=until[0].date(), validation=until[1].date())
    pools: dict[str, list[tuple[Table, Window]]] = {
        "scratch": [(building[0], window)],
        "zones": [(table, window) for table in building],
        "drammen": [(building[0], window), *((table, dates) for table in others)],
        "both": [*((table, window) for table in building), *((table, dates) for table in others)],
    }
    for name, tables in pools.items():
        if not (work / name / "windows.json").exists():
            save_all(
                (make_windows(*table, split) for table, split in tables), work / name, [len(t[0]) for t, _ in tables]
            )
    return {name: Windows.load(work / name) for name in pools}


def drahix(
    data: Path, series: Sequence[str] = (TARGET, *ZONES), others: Mapping[str, dict[str, Any]] = WEATHER
) -> Iterator[Table]:
    """The building and its zones, or those of them in ``series``, each with the columns ``others`` of the same file."""
    for target in series:
        columns = {"load": {"kind": "load", "name": target}, **others}
        tidy = ingest(Ingest.model_validate({"source": str(data / DRAHIX), "target": "load", "columns": columns}), data)
        yield tidy.frame, {**tidy.facts, "name": target, "sha256": f"{tidy.facts['sha256']} {target}"}


def drammen(data: Path, end: datetime) -> Iterator[Table]:
    """The buildings of Drammen, without the hours from ``end`` on but for a day, so that a test part is left."""
    section: dict[str, Any] = {
        "source": str(data / DRAMMEN),
        "series": "each",
        "broken": "leave_out",
        "target": "load",
        "time_zone": "Europe/Oslo",
        "country": "NO",
        "file": {"time_column": "TimeStamp", "separator": ";"},
        "columns": {
            "load": {"kind": "load", "name": "ElImp", "unit": "Wh"},
            "air": {"kind": "temperature", "name": "Tout"},
            "sun": {"kind": "solar", "name": "SolGlob"},
        },
    }
    for tidy in ingest_all(Ingest.model_validate(section), data):
        kept = tidy.frame[tidy.frame[TIME] < end + timedelta(days=3)].reset_index(drop=True)
        yield kept, {**tidy.facts, "rows": len(kept)}


def judged(settings: Settings, name: str, windows: Windows, seed: int) -> dict[str, Any]:
    """Errors on TGBT of a pool's network, and of it trained on there; of ``scratch`` those of ``rich``."""
    alone = windows.only(0)
    if name == "scratch":
        loop = trained(settings, alone, seed)
        return {"pool": name, "seed": seed, "as it is": errors(loop, alone), "seconds": loop.clock.watch.total}
    loop = pooled(settings, windows, seed)
    weights = for_one_series(loop.module.net.state_dict(), 0)
    found = {"pool": name, "seed": seed, "seconds": loop.clock.watch.total}
    for way in ("as it is", "all trained on", "encoder isolated"):
        on = from_pool(settings, weights, alone, seed)
        if way == "encoder isolated":
            on.module.net.encoder.requires_grad_(False)
        if way != "as it is":
            on.run(validate=False)
        found[way] = errors(on, alone)
    return found


def pooled(settings: Settings, windows: Windows, seed: int) -> Loop:
    """A network trained on all series of ``windows``: longer, and with nothing dropped."""
    longer = settings.training.model_copy(update={"steps": POOL_STEPS})
    bare = settings.model.model_copy(update={"dropout": 0.0, "state_dropout": 0.0})
    return trained(settings.model_copy(update={"training": longer, "model": bare}), windows, seed)


def from_pool(settings: Settings, weights: Mapping[str, Tensor], alone: Windows, seed: int) -> Loop:
    """The shorter training on one series that starts from the ``weights`` of a pool."""
    steps = round(TUNED_STEPS * settings.training.steps)
    rate = TUNED_RATE * settings.training.learning_rate
    shorter = settings.training.model_copy(update={"steps": steps, "learning_rate": rate})
    loop = Loop(Fit(settings.model_copy(update={"training": shorter}), seed, alone, Path()))
    loop.module.net.load_state_dict(weights)
    return loop


def trained(settings: Settings, windows: Windows, seed: int) -> Loop:
    prepare_process(settings)
    loop = Loop(Fit(settings, seed, windows, Path()))
    loop.run(validate=False)
    return loop


def errors(loop: Loop, windows: Windows) -> dict[str, float]:
    """MAE of validation and test, kW."""
    answer = {}
    for part in ("validation", "test"):
        origins = windows.origins(part)
        answer[part] = scores(windows, origins, loop.module.forecast(torch.from_numpy(origins)).numpy())["mae"]
    return answer


def write_page(out: Path) -> None:
    """``pretraining.md`` and ``results.json`` from what is there."""
    runs = [read_json(path) for path in sorted((out / "runs").glob("*.json"))]
    table = [
        "| pool | on TGBT | seeds | validation, kW | test, kW | test, each seed |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    rows = []
    for pool in ("scratch", "zones", "drammen", "both"):
        own = [run for run in runs if run["pool"] == pool]
        for way in ("as it is", "all trained on", "encoder isolated"):
            seen = [run[way] for run in own if way in run]
            if seen:
                validation, test = (statistics.median(e[part] for e in seen) for part in ("validation", "test"))
                each = " ".join(f"{e['test']:.3f}" for e in seen)
                table.append(f"| {pool} | {way} | {len(seen)} | {validation:.3f} | {test:.3f} | {each} |")
                rows.append({"pool": pool, "way": way, "validation": validation, "test": test, "seeds": len(seen)})
    commits = ", ".join(sorted({str(run["commit"])[:12] for run in runs}))
    record = {"commit": commits, "date": datetime.now(UTC).date().isoformat(), "hardware": hardware(), "rows": rows}
    write_json(out / "results.json", record)
    head = (
        f"MAE on the building TGBT, medians over seeds. {record['date']}, commit {record['commit']}, "
        f"one core of: {record['hardware']['cpu']}."
    )
    write_text(out / "pretraining.md", "\n".join(["# Pretraining on other series", "", head, "", *table, ""]))


if __name__ == "__main__":
    run_as_command(main)
