"""What the machinery of the search costs a trial, and how long a worker takes to its first.

    python -m experiments.search.overhead [--params params.yaml] [--windows FOLDER] [--trials 20] [--steps 60]
        [--out experiments/search/overhead.md]

One worker as `isotrain search worker` runs it, on a new study of its own: the real objective with a short training,
the journal, MLflow on a local sqlite. Counted a trial: everything between the end of one objective and the start of
the next (ending, lease, pending run, recovery, ask, notes), and within it the MLflow run alone; the quiet moments are
measured with neighbours by ranking.py. The first objective's start is counted from the process's.
"""

import argparse
import dataclasses
import logging
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, median
from typing import Any

import psutil

from isotrain.search.local_workers import own_cores
from isotrain.search.study import Place, place

TRIAL = 60.0  # s, the trial that the cost is held against


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--windows", type=Path, default=Path("data/windows"))
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        text = page(**measured(own_place(asked, Path(folder)), asked.steps), steps=asked.steps)
    print(text)
    if asked.out:
        from isotrain.files import write_text

        write_text(asked.out, text)


def own_place(asked: argparse.Namespace, folder: Path) -> Place:
    """The study of ``params``, with its journal and its runs in ``folder``."""
    given = place(asked.params)
    return dataclasses.replace(
        given,
        search=given.search.model_copy(update={"trials": asked.trials, "hours": None, "stall": None, "url": None}),
        folder=folder / "study",
        windows=asked.windows,
        tracking=given.tracking.model_copy(update={"uri": f"sqlite:///{folder}/mlflow.db"}),
    )


def measured(here: Place, steps: int) -> dict[str, Any]:
    """Seconds: ``start`` of the first objective, ``between`` objectives and ``pending`` of each trial."""
    own_cores(here.space.settings({}).runtime.threads)

    from optuna.trial import FrozenTrial

    from isotrain.search.objective import objective
    from isotrain.search.tracking import TrialTracking
    from isotrain.search.worker import Job, Outcome, Report, work

    run, track = objective(here), TrialTracking(here)
    began: list[float] = []
    ended: list[float] = []
    pending: list[float] = []

    def timed(job: Job, report: Report) -> Outcome:
        began.append(time.time())
        changes = {**job.overrides, "training.steps": steps, "training.validate_every": steps}
        outcome = run(dataclasses.replace(job, settings=here.space.settings(changes)), report)
        ended.append(time.time())
        return outcome

    def sent(trial: FrozenTrial) -> None:
        start = time.time()
        track(trial)
        pending.append(time.time() - start)

    work(here, timed, on_finished=sent)
    between = [start - end for start, end in zip(began[1:], ended[:-1], strict=True)]
    return {"start": began[0] - psutil.Process().create_time(), "between": between, "pending": pending}


def page(start: float, between: list[float], pending: list[float], steps: int) -> str:
    """What was measured, as Markdown."""
    return "\n".join(
        [
            "# What the machinery costs a trial",
            "",
            f"*{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, `python -m experiments.search.overhead`: "
            f"a worker, "
            f"the journal, MLflow on sqlite, {len(pending)} trials of {steps} steps.*",
            "",
            "| | seconds | of a trial of 60 s |",
            "| --- | --- | --- |",
            f"| between two objectives, median | {median(between):.3f} | {median(between) / TRIAL:.2%} |",
            f"| between two objectives, mean (the first makes the MLflow store) | {mean(between):.3f} | "
            f"{mean(between) / TRIAL:.2%} |",
            f"| of it the MLflow run, median | {median(pending):.3f} | {median(pending) / TRIAL:.2%} |",
            f"| from the worker's start to its first objective | {start:.1f} | |",
            "",
        ]
    )


if __name__ == "__main__":
    main()
