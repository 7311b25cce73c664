"""A worker whose objective is a little arithmetic and some sleep, and that fails where it is asked to. No torch.

    python light_worker.py params.yaml

``LIGHT`` is JSON: ``seconds`` of a trial; ``log``, a file that gets a line when a trial begins and one when it ends (a
second account of what ran, beside the study's); and number of a trial (or ``retries_0``: a first trial and its repeats)
-> what goes wrong in it: ``raise``, ``nan``, ``memory`` (MemoryError), ``killed`` (as the kernel does when memory is
short), ``disk`` (fills it), ``slow``, ``long``.
"""

import json
import math
import os
import signal
import sys
import time
from itertools import count
from pathlib import Path

from isotrain.errors import run_as_command
from isotrain.search.study import place
from isotrain.search.worker import Diverged, Job, Outcome, Report, work

ASKED = json.loads(os.environ.get("LIGHT", "{}"))
SLICES = 10
LONGER = {"slow": 10, "long": 1000}  # times


def objective(job: Job, report: Report) -> Outcome:
    """A smooth front: the more is isolated, the quicker and the worse."""
    note("begin", job)
    wrong = ASKED.get(str(job.number), ASKED.get(f"retries_{job.seed}"))
    rate, fraction = job.settings.training.learning_rate, job.settings.isolation.schedule.fraction
    error = 5 + fraction**2 + abs(math.log10(rate / 0.01))
    seconds = 10 * (1 - 0.5 * fraction)
    for step in range(SLICES * LONGER.get(wrong, 1)):
        time.sleep(ASKED.get("seconds", 0.2) / SLICES)
        report(step, error, seconds * (step + 1) / SLICES)
        if step == SLICES // 2:
            go_wrong(wrong, job)
    note("end", job)
    return Outcome((error, seconds), {"val_mae": error, "seconds": seconds})


def go_wrong(how: str | None, job: Job) -> None:
    """Do what ``LIGHT`` says of this trial."""
    if how == "raise":
        raise RuntimeError("asked to raise")
    if how == "nan":
        raise Diverged("the loss is nan")
    if how == "memory":
        raise MemoryError("asked to run out")
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "disk":
        job.out.mkdir(parents=True, exist_ok=True)
        for number in count():  # to the brim: what does not fit whole is cut
            with (job.out / f"ballast-{number}").open("wb", buffering=0) as ballast:
                ballast.write(b"x" * 65536)


def note(what: str, job: Job) -> None:
    """A line in the second account: trial, its seed (the first of its repeats), process."""
    if "log" in ASKED:
        with Path(ASKED["log"]).open("a") as log:
            log.write(f"{what} {job.number} {job.seed} {os.getpid()}\n")


if __name__ == "__main__":
    run_as_command(lambda params: print("ended:", work(place(params), objective), file=sys.stderr))
