"""Seconds until the network forecasts as well as gradient boosting, and the seconds that boosting takes.

    python -m experiments.against_boosting.run WINDOWS [--rounds 3] [--method rich] [--trees lightgbm-rich]
        [--out FILE.md]

A round is a fit of the trees, then one of the network with the round's number as seed, on the same core, alone on the
machine. The network's goal is the trees' validation error of that round at the origins that a fit validates at; it is
checked every 10 steps, with the clock standing still, and a fit that never gets there counts as infinite.
"""

import argparse
import math
import statistics
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from isotrain.baselines import BASELINES
from isotrain.config import MethodsView, Settings, load
from isotrain.data.windows import Windows
from isotrain.files import write_text
from isotrain.forecast.module import VALIDATION_STRIDE
from isotrain.training.baselines import on_cores
from isotrain.training.fit import Fit, Loop, prepare_process
from isotrain.training.machine import alone, hardware


def trees(name: str, windows: Windows) -> tuple[float, float]:
    """Seconds of a fit, and its validation MAE, kW."""
    start = time.perf_counter()
    fitted = BASELINES[name](windows)
    seconds = time.perf_counter() - start
    origins = windows.origins("validation")[::VALIDATION_STRIDE]
    return seconds, float(np.nanmean(np.abs(fitted(origins) - windows.targets(origins))))


def network(settings: Settings, seed: int, windows: Windows, goal: float) -> tuple[float, float, float]:
    """Training seconds to ``goal`` kW and to the end, and the best validation MAE, kW."""
    loop = Loop(Fit(settings, seed, windows, Path("unused")))
    loop.run()
    clock = loop.clock
    reached = [row["train_seconds"] for row in clock.rows if row["val_mae"] <= goal]
    return min(reached, default=math.inf), clock.watch.total, min(row["val_mae"] for row in clock.rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("windows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--method", default="rich")
    parser.add_argument("--trees", default="lightgbm-rich")
    parser.add_argument("--out", type=Path)
    words = parser.parse_args()
    changes = {f"methods.{words.method}.training.validate_every": 10}
    settings = load("params.yaml", view=MethodsView, overrides=changes).settings(words.method)
    prepare_process(settings)
    windows, rows = Windows.load(words.windows), []
    with alone(), on_cores(max(settings.runtime.threads, 1)):
        for seed in range(words.rounds):
            theirs, goal = trees(words.trees, windows)
            rows.append((theirs, goal, *network(settings, seed, windows, goal)))
            print(line(seed, rows[-1]), flush=True)
    page = report(words, windows, rows)
    print(page)
    if words.out:
        write_text(words.out, page)


def line(seed: int, row: tuple[float, ...]) -> str:
    """One round of the table."""
    theirs, goal, reached, whole, best = row
    return f"| {seed} | {theirs:.1f} | {goal:.3f} | {reached:.1f} | {whole:.1f} | {best:.3f} | {theirs / reached:.2f} |"


def report(words: Any, windows: Windows, rows: list[tuple[float, ...]]) -> str:
    """The page."""
    source = "a **simulated** series" if windows.meta["simulated"] else "the Drahi-X series"
    ratio = statistics.median(theirs / reached for theirs, _, reached, _, _ in rows)
    machine = ", ".join(f"{key} {value}" for key, value in hardware().items())
    return "\n".join(
        [
            f"# {words.method} against {words.trees}: seconds to the same validation error\n",
            f"On {source} ({windows.meta['target']}), {date.today().isoformat()}, one core of: {machine}. "
            "`python -m experiments.against_boosting.run WINDOWS`\n",
            f"| seed | {words.trees}, s | its val. MAE, kW | {words.method} to there, s | to its end, s "
            "| its best val. MAE, kW | times sooner |",
            "| --: | --: | --: | --: | --: | --: | --: |",
            *(line(seed, row) for seed, row in enumerate(rows)),
            f"\nMedian: {ratio:.2f} times sooner.\n",
        ]
    )


if __name__ == "__main__":
    main()
