"""How many trials a second a study takes from many workers, and whether it keeps every one.

    python -m experiments.search.throughput --out experiments/search [--workers 64] [--trials 2000]
        [--sampler tpe]
    ISOTRAIN_STUDY_URL=postgresql://isotrain@host/study python -m experiments.search.throughput ...

The workers are processes of this machine and run the loop of `isotrain search worker` on the space of params.yaml;
the objective is arithmetic, so that what is timed is the machinery: recovering, asking, noting, ending. No torch, no
MLflow. ``between``: from the end of one objective to the beginning of the next in the same worker, wall-clock: with
more workers than cores most of it is waiting for a core. ``start``: from the process's birth to its first objective.

Counted apart from the study: each worker writes down every trial whose objective it ran. Prints a table row; with
``--out`` appends it to throughput.md there. Ends with an error if a trial was lost, run twice or left open.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from isotrain.data.windows import Meta, write_meta
from isotrain.search.study import open_study, place
from isotrain.search.worker import Job, Outcome, Report, work

ROOT = Path(__file__).parents[2]
TITLE = """\
# What the machinery of a study takes

`python -m experiments.search.throughput`; its first lines say what is measured. With many more workers than cores
the seconds between two objectives, and to the first, are mostly spent waiting for a core.

"""
HEAD = (
    "| storage | workers | cores | sampler | trials | lost | twice | open | seconds | trials a second "
    "| between, median ms | start, median s |\n" + "| --- " * 12 + "|\n"
)


@dataclass
class Account:
    """What one worker did: the numbers of its trials, seconds between them, seconds to the first."""

    born: float
    trials: list[int] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    start: float | None = None
    ended: float | None = None

    def objective(self, job: Job, report: Report) -> Outcome:
        """Arithmetic in two values that every point has."""
        if self.ended is None:
            self.start = time.time() - self.born
        else:
            self.between.append(time.time() - self.ended)
        self.trials.append(job.number)
        steps, hidden = job.settings.training.steps, job.settings.model.hidden
        error, seconds = 5 + 50 / steps + 3 / hidden, steps * hidden / 1000
        self.ended = time.time()
        return Outcome((error, seconds), {"val_mae": error, "seconds": seconds})


def main() -> None:
    """Run the workers of a study that ends with so many trials; print, check and keep what was counted."""
    asked = _parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="throughput-") as folder:
        params = _params(Path(folder), asked)
        begun = time.monotonic()
        running = [_worker(params, Path(folder) / f"account-{number}.json") for number in range(asked.workers)]
        statuses = {one.wait() for one in running}
        seconds = time.monotonic() - begun
        if statuses != {0}:
            sys.exit(f"workers ended with {sorted(statuses)}")
        accounts = [json.loads(path.read_text()) for path in Path(folder).glob("account-*.json")]
        row, wrong = _count(params, accounts, seconds)
    print(HEAD + row)
    if asked.out:
        table = asked.out / "throughput.md"
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text((table.read_text() if table.exists() else TITLE + HEAD) + row)
    if wrong:
        sys.exit("trials were lost, run twice or left open")


def _count(params: Path, accounts: list[dict], seconds: float) -> tuple[str, bool]:
    at = place(params)
    trials = open_study(at, create=False).get_trials(deepcopy=False)
    finished = {trial.number for trial in trials if trial.state.name == "COMPLETE"}
    ran = Counter(number for account in accounts for number in account["trials"])
    lost, twice = len(ran.keys() - finished), sum(times > 1 for times in ran.values()) + len(finished - ran.keys())
    still = sum(not trial.state.is_finished() for trial in trials)
    between = statistics.median(gap for account in accounts for gap in account["between"])
    start = statistics.median(account["start"] for account in accounts if account["start"] is not None)
    cells = [
        "PostgreSQL" if at.url else "journal",
        len(accounts),
        len(psutil.Process().cpu_affinity()),
        at.search.sampler,
        len(finished),
        lost,
        twice,
        still,
        f"{seconds:.0f}",
        f"{len(finished) / seconds:.1f}",
        f"{1000 * between:.0f}",
        f"{start:.1f}",
    ]
    return "| " + " | ".join(map(str, cells)) + " |\n", bool(lost or twice or still)


def _params(folder: Path, asked: argparse.Namespace) -> Path:
    """The project's params.yaml with another budget, and windows that are only named."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    ends = {"trials": asked.trials, "hours": None, "stall": None}
    params["search"] |= {"study": f"throughput-{os.getpid()}", "sampler": asked.sampler, **ends}
    windows = folder / params["paths"]["windows"]
    meta: Any = dict.fromkeys(Meta.__required_keys__, "none") | {"series": [{"ingest": {}}]}
    write_meta(windows / "windows.json", meta, of_arrays={})
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return folder / "params.yaml"


def _worker(params: Path, account: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "experiments.search.throughput", "--work", str(params), str(account)]
    with account.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)


def _work(params: str, path: str) -> None:
    account = Account(born=psutil.Process().create_time())
    work(place(params), account.objective)
    kept = {"trials": account.trials, "between": account.between, "start": account.start}
    Path(path).write_text(json.dumps(kept))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--sampler", default="tpe", choices=["tpe", "nsga2", "random"])
    parser.add_argument("--out", type=Path, help="folder of throughput.md")
    return parser


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        _work(*sys.argv[2:4])
    else:
        main()
