"""How long adapting takes: python -m benchmarks.adapting [--meters 100] [--weeks 52].

Simulates so many meters with so many weeks each, trains a forecaster (`rich` with 64 units) on another one, and times
`isotrain adapt` on the folder of all of them, in a process of its own with one thread, start-up included. Then, in this
process, the parts of adapting to one meter. All files are temporary. Prints a line of each: seconds of the processor,
in parts the median over some of the meters.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from isotrain.adapt.adapt import Adapted, read_new, windows_of
from isotrain.adapt.candidates import Ground
from isotrain.adapt.choose import choose
from isotrain.config import Ingest, MethodsView, Window, load
from isotrain.config.ingest import Simulated
from isotrain.config.sections import Tracking
from isotrain.data.ingest import ingest_all
from isotrain.data.windowing import make_windows
from isotrain.forecast.bundle import Bundle, load_bundle
from isotrain.forecast.stretches import WEEK
from isotrain.training.fit import fit, prepare_process

PARENT = {"model.hidden": 64, "model.decoder": 32, "training.steps": 300, "training.validate_every": 300}
PARENTS_WEEKS = 104
LOOKED_BACK = 504  # hours before the first origin
MEASURED = 9  # meters that the parts are measured on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meters", type=int, default=100)
    parser.add_argument("--weeks", type=int, default=52)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, asked.meters, asked.weeks)
        meters = sorted((folder / "meters").iterdir())
        print(f"{len(meters)} meters with {asked.weeks} weeks each: {seconds_of(folder, 'meters'):.1f} s with start-up")
        print(f"one of them: {seconds_of(folder, f'meters/{meters[0].name}'):.1f} s with start-up")
        bundle = load_bundle(folder / "parent")
        parts = [dict(parts_of(bundle, path, folder)) for path in meters[: MEASURED + 1]][1:]  # the first one warms up
        for part in parts[0]:
            print(f"  {part}: {statistics.median(one[part] for one in parts):.3f} s")


def make(folder: Path, meters: int, weeks: int) -> None:
    """The forecaster as ``folder / parent``, and the files of so many meters in ``folder / meters``."""
    hours = max(weeks, PARENTS_WEEKS) * WEEK + LOOKED_BACK
    many = iter(ingest_all(Ingest(series="each", simulated=Simulated(hours=hours, series=meters + 1)), Path()))
    first = next(many)
    changes = {f"methods.rich.{key}": value for key, value in PARENT.items()}
    settings = load(view=MethodsView, overrides=changes).settings("rich")
    prepare_process(settings)
    settings = settings.model_copy(update={"tracking": Tracking(uri=f"sqlite:///{folder}/mlflow.db")})
    fit(settings, 0, make_windows(first.frame, first.facts, Window()), folder / "parent")
    (folder / "meters").mkdir()
    card = Ingest.model_validate(first.facts["ingest"])
    read = [name for name, column in card.columns.items() if column.kind != "sub_load"]
    for tidy in many:
        table: pd.DataFrame = tidy.raw[read].iloc[-weeks * WEEK - LOOKED_BACK :]
        table = table.reset_index(names=card.file.time_column)
        table.to_csv(folder / "meters" / f"{tidy.facts['name']}.csv", index=False)


def seconds_of(folder: Path, csv: str) -> float:
    """Of the command on ``csv``, one thread."""
    words = ["-m", "isotrain.cli", "adapt", "--model", "parent", "--csv", csv, "--out", f"adapted-{Path(csv).stem}"]
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], cwd=folder, env=here, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def parts_of(bundle: Bundle, path: Path, folder: Path) -> Iterator[tuple[str, float]]:
    """Each part of adapting to the meter ``path``, and its seconds."""
    begin = time.process_time()
    tidy = read_new(bundle, path)
    yield "reading and repairing", (read := time.process_time()) - begin
    windows = windows_of(bundle, tidy)
    yield "features", (made := time.process_time()) - read
    first, last = windows.ranges("train")[0]
    ground = Ground.of(bundle.network(windows), first, last)
    yield "states remembered", (remembered := time.process_time()) - made
    adapted = Adapted(bundle, windows, choose(ground, first, last))
    yield "choosing and fitting", (chosen := time.process_time()) - remembered
    adapted.save(folder / "again" / adapted.name)
    yield "writing", time.process_time() - chosen


if __name__ == "__main__":
    main()
