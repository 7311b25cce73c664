"""Whether a trial's seconds mean the same with one worker on the machine and with several.

    python -m experiments.search.ranking [--params params.yaml] [--windows FOLDER] [--steps 100] [--repeats 2]
        [--workers 2] [--out experiments/search/ranking.md]

Ten settings of the search's space are trained by one worker, alone on the machine and beside others that train too,
each on cores of its own. Three kinds of seconds are compared: the objective of the search (quiet moments), with and
without neighbours; and the plain wall-clock, which without neighbours is the truth. Every repeat runs both conditions;
a setting's seconds are the median over the repeats. Run it on an otherwise idle machine; the default takes some four
minutes on two cores. Without --windows the series of ``ingest.simulated`` is used.
"""

import argparse
import dataclasses
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from statistics import fmean, median
from typing import Any

from isotrain.files import read_json, write_text

SCHEDULE = {"isolation.schedule.start": 0.25, "isolation.schedule.shape": "constant"}
UNITS: dict[str, Any] = {**SCHEDULE, "isolation.zone": "unit", "isolation.criterion": "update_norm"}
SETTINGS: dict[str, dict[str, Any]] = {
    "64 units": {},
    "96 units": {"model.hidden": 96},
    "48 units": {"model.hidden": 48},
    "16 units": {"model.hidden": 16},
    "layer": {**SCHEDULE, "isolation.zone": "layer", "isolation.mode": "exact", "isolation.schedule.fraction": 0.5},
    "unit, exact": {**UNITS, "isolation.mode": "exact", "isolation.schedule.fraction": 0.75},
    "unit, cut": {**UNITS, "isolation.mode": "cut", "isolation.schedule.fraction": 0.75},
    "unit, autonomous": {**UNITS, "isolation.mode": "autonomous", "isolation.schedule.fraction": 0.75},
    "unit, autonomous, rising, 96 units": {
        **UNITS,
        "model.hidden": 96,
        "isolation.mode": "autonomous",
        "isolation.schedule.shape": "linear",
        "isolation.schedule.fraction": 0.9,
    },
    "step, windowed": {
        **SCHEDULE,
        "isolation.zone": "step",
        "isolation.criterion": "depth",
        "isolation.schedule.fraction": 0.857143,
        "training.regime": "windowed",
    },
}
KINDS = {
    "wall, 1": ("1", "wall_seconds"),
    "quiet, 1": ("1", "seconds"),
    "quiet, n": ("n", "seconds"),
    "wall, n": ("n", "wall_seconds"),
}
AGAINST = (("quiet, 1", "wall, 1"), ("quiet, n", "quiet, 1"), ("quiet, n", "wall, 1"), ("wall, n", "wall, 1"))
NEAR = 0.05  # settings closer than this, as a share, may change places


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--windows", type=Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="on the machine, in the busy condition")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--role", choices=["measure", "load"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    if asked.role:
        run_worker(asked)
        return
    with tempfile.TemporaryDirectory() as folder:
        asked.windows = asked.windows or simulated(asked.params, Path(folder))
        seconds = measured(asked)
        of = read_json(asked.windows / "windows.json")
    text = page(seconds, asked, "a simulated series" if of["simulated"] else Path(of["source"]).name)
    print(text)
    if asked.out:
        write_text(asked.out, text)


def simulated(params: Path, folder: Path) -> Path:
    """The windows of the simulated series that ``params`` describes, in ``folder``."""
    from isotrain.config import load
    from isotrain.data.ingest import ingest
    from isotrain.data.windowing import make_windows

    p = load(params)
    tidy = ingest(p.ingest.model_copy(update={"source": "simulated"}), folder)
    make_windows(tidy.frame, tidy.facts, p.window).save(folder)
    return folder


def measured(asked: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Setting -> a row a training: ``condition`` (1 or n workers) and what the objective notes with a trial."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in SETTINGS}
    for repeat in range(asked.repeats):
        for condition in ("1", "n") if repeat % 2 == 0 else ("n", "1"):
            neighbours = asked.workers - 1 if condition == "n" else 0
            with ExitStack() as stack:
                for _ in range(neighbours):
                    stack.enter_context(worker("load", asked))
                lines = stack.enter_context(worker("measure", asked))
                for line in lines:
                    row = json.loads(line)
                    rows[row["name"]].append({**row, "condition": condition})
            print(f"repeat {repeat + 1}, {neighbours} neighbours: done", file=sys.stderr)
    return rows


@contextmanager
def worker(role: str, asked: argparse.Namespace) -> Iterator[Iterator[str]]:
    """A process in ``role``, once it trains; yields what it prints from then on."""
    options = {"--role": role, "--params": asked.params, "--windows": asked.windows, "--steps": asked.steps}
    command = [sys.executable, __file__, *(str(word) for option in options.items() for word in option)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        if process.stdout.readline() != "ready\n":
            sys.exit(f"a worker in role {role} ended with status {process.wait()}")
        yield iter(process.stdout)
    finally:
        if role == "load":
            process.kill()
        status = process.wait()
        process.stdout.close()
    if role == "measure" and status:
        sys.exit(f"the measuring worker ended with status {status}")


def run_worker(asked: argparse.Namespace) -> None:
    """Train every setting once, after a short one to warm up, and print a line each; ``load``: for ever."""
    from isotrain.search.local_workers import own_cores

    own_cores(1)
    from isotrain.search.objective import objective
    from isotrain.search.study import place
    from isotrain.search.worker import Job

    with tempfile.TemporaryDirectory() as folder:
        here = dataclasses.replace(place(asked.params), windows=asked.windows, folder=Path(folder))
        run = objective(here)

        def train(name: str, steps: int) -> dict[str, Any]:
            changes = {**SETTINGS[name], "training.steps": steps, "training.validate_every": steps}
            job = Job(0, 0, changes, here.space.settings(changes), Path(folder) / "trial")
            return run(job, lambda *_: None).attrs

        train("64 units", 5)
        print("ready", flush=True)
        while True:
            for name in SETTINGS:
                noted = train(name, asked.steps)
                print(json.dumps({"name": name, **noted}), flush=True)
            if asked.role == "measure":
                return


def page(rows: dict[str, list[dict[str, Any]]], asked: argparse.Namespace, series: str) -> str:
    """The comparison as Markdown."""
    table = {name: {kind: _median(of, *which) for kind, which in KINDS.items()} for name, of in rows.items()}
    names = sorted(table, key=lambda name: table[name]["wall, 1"])
    every = [row for of in rows.values() for row in of]
    lost = {c: _share_waited([row for row in every if row["condition"] == c]) for c in ("1", "n")}
    lines = [
        "# Seconds on a busy and on an idle machine",
        "",
        f"*{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, `python -m experiments.search.ranking`: "
        f"{series}, {asked.steps} steps, {asked.repeats} repeats, 1 thread a worker; "
        f"n = {asked.workers} workers.*",
        "",
        "Seconds of a training. *Wall* is the wall-clock; with one worker it is the truth. *Quiet* is the objective of",
        "the search: steps x their cost in quiet moments.",
        "",
        "| setting | wall, 1 | quiet, 1 | quiet, n | wall, n | quiet, 1 / truth | quiet, n / truth | wall, n / truth |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in names:
        of = table[name]
        ratios = [f"{of[kind] / of['wall, 1']:.3f}" for kind in ("quiet, 1", "quiet, n", "wall, n")]
        lines.append(f"| {name} | " + " | ".join([*(f"{of[kind]:.2f}" for kind in KINDS), *ratios]) + " |")
    lines += [
        "",
        "| ranking by | against | Kendall's tau | inversions | of settings 5 % apart | ratio |",
    ]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for kind, against in AGAINST:
        lines.append(f"| {kind} | {against} | " + _agreement(table, kind, against) + " |")
    lines += [
        "",
        f"At its gates it stood still for {lost['1']:.1%} of its time alone, {lost['n']:.1%} among n.",
    ]
    return "\n".join([*lines, ""])


def _agreement(table: dict[str, dict[str, float]], kind: str, against: str) -> str:
    seconds = [(of[kind], of[against]) for of in table.values()]
    pairs = list(combinations(seconds, 2))
    turned = [(a, b) for a, b in pairs if (a[0] - b[0]) * (a[1] - b[1]) < 0]
    clear = [(a, b) for a, b in turned if max(a[1], b[1]) > (1 + NEAR) * min(a[1], b[1])]
    ratios = [mine / other for mine, other in seconds]
    tau = 1 - 2 * len(turned) / len(pairs)
    return f"{tau:.3f} | {len(turned)} of {len(pairs)} | {len(clear)} | {min(ratios):.3f} to {max(ratios):.3f}"


def _median(rows: Sequence[dict[str, Any]], condition: str, key: str) -> float:
    return median(row[key] for row in rows if row["condition"] == condition)


def _share_waited(rows: Sequence[dict[str, Any]]) -> float:
    return fmean(row["waited_seconds"] / (row["wall_seconds"] + row["waited_seconds"]) for row in rows)


if __name__ == "__main__":
    main()
