"""A small study for the failures: its files, its workers, and an account of what became of its trials."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial
from tests.search.counting import Count, count

from isotrain.data.windows import Meta, write_meta
from isotrain.search.study import open_study, place

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("light_worker.py")
SMALL = {
    "study": "light",
    "url": None,
    "sampler": "random",
    "trials": 12,
    "hours": None,
    "stall": None,
    "retries": 2,
    "lease": 2,
    "patience": 60,
    "failures": 5,
    "known": [],
    "space": {
        "isolation.schedule.fraction": {"low": 0.0, "high": 0.9},
        "training.learning_rate": {"low": 0.003, "high": 0.06, "log": True},
    },
}


@dataclass
class LightStudy:
    """The files of a study in ``folder``: params.yaml, what the stage ``window`` leaves, results."""

    folder: Path

    @property
    def params(self) -> Path:
        return self.folder / "params.yaml"

    @property
    def home(self) -> Path:
        """The study's own folder."""
        return place(self.params).folder

    def environment(self, **asked: Any) -> dict[str, str]:
        """The environment of its workers; ``asked`` as light_worker.py says, with ``trial_3="raise"`` for a number."""
        light = {name.removeprefix("trial_"): what for name, what in asked.items()}
        here = os.pathsep.join(p for p in (str(ROOT / "src"), os.environ.get("PYTHONPATH", "")) if p)
        return {"LIGHT": json.dumps({"log": str(self.folder / "ran"), **light}), "PYTHONPATH": here}

    @property
    def command(self) -> list[str]:
        """One worker."""
        return [sys.executable, str(WORKER), str(self.params)]

    def trials(self) -> list[FrozenTrial]:
        """The trials that the storage has now; none before it exists."""
        at = place(self.params)
        if at.url is None and not (at.folder / "journal.log").exists():
            return []
        return quietly(lambda: open_study(at, create=False).get_trials())

    def ran(self, what: str = "end") -> list[int]:
        """Numbers of the trials that began, or ended, in the workers' own account."""
        account = self.folder / "ran"
        lines = account.read_text().splitlines() if account.exists() else []
        return [int(line.split()[1]) for line in lines if line.startswith(f"{what} ")]

    def process(self, trial: int) -> int:
        """Which process began ``trial``."""
        lines = (line.split() for line in (self.folder / "ran").read_text().splitlines())
        return next(int(process) for what, number, _, process in lines if (what, int(number)) == ("begin", trial))

    def said(self) -> str:
        """What the workers said."""
        return "".join(
            path.read_text() for path in [self.folder / "said", *self.folder.glob("slurm-*.out")] if path.exists()
        )

    def count(self) -> Count:
        """What became of the trials, counted from its states alone."""
        return count(self.trials(), place(self.params).search.retries)


def light_study(folder: Path, **search: Any) -> LightStudy:
    """The project's params.yaml in ``folder``, with a small section ``search``, and no series behind it."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["search"] |= SMALL | search
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    windows = folder / params["paths"]["windows"]
    name_series(windows, "none")
    return LightStudy(folder)


def name_series(windows: Path, sha256: str) -> None:
    """A ``windows.json`` that names a series and has nothing behind it."""
    meta: Any = dict.fromkeys(Meta.__required_keys__, "none") | {"sha256": sha256, "series": [{"ingest": {}}]}
    write_meta(windows / "windows.json", meta, of_arrays={})


class Account:
    """A failure's counts, before and after, kept with the test's result; experiments/search/failures.py prints them."""

    def __init__(self, keep: Callable[[str, object], None]) -> None:
        self._keep = keep

    def before(self, study: LightStudy) -> Count:
        """The count when the failure came."""
        counted = study.count()
        self._keep("before", str(counted))
        return counted

    def after(self, study: LightStudy, workers: int, says: str) -> Count:
        """The count at the end, checked: every trial finished once, the budget reached, overshot by one a worker.

        ``says``: what a line of the workers' log must hold.
        """
        counted = study.count()
        self._keep("after", str(counted))
        lines = [line for line in study.said().splitlines() if says in line]
        assert lines, f"the log says nothing of {says!r}"
        self._keep("log", lines[0])
        assert (counted.open, counted.twice) == (0, 0)
        unknown = set(study.ran("begin")) - {trial.number for trial in study.trials()}
        assert not unknown, f"lost: {unknown}"
        budget = place(study.params).search.trials
        assert budget is not None
        assert budget <= counted.done + counted.failed < budget + workers
        return counted


@contextmanager
def workers(study: LightStudy, number: int, **asked: Any) -> Iterator[list[subprocess.Popen[bytes]]]:
    """So many workers of this machine; whoever still runs at the end of the block is killed."""
    environment = {**os.environ, **study.environment(**asked)}
    running = []
    for _ in range(number):
        with (study.folder / "said").open("ab") as said:
            running.append(subprocess.Popen(study.command, env=environment, stderr=said, stdout=said))
    try:
        yield running
    finally:
        for one in running:
            one.kill()
            one.wait()


@contextmanager
def small_file_system(folder: Path) -> Iterator[Path]:
    """``folder`` on a file system of 16 MB; ``PermissionError`` to who may not mount one."""
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], capture_output=True, check=False
    )
    if mount.returncode:
        raise PermissionError(mount.stderr.decode())
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def quietly(call: Any) -> Any:
    """The answer of ``call`` without Optuna's word on every study that it opens."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return call()
    finally:
        optuna.logging.set_verbosity(before)
