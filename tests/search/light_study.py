"""A small study for the failures: its files, its workers, and a count of what became of every trial."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

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
        "training.learning_rate": {"low": 0.003, "high": 0.03, "log": True},
    },
}


@dataclass(frozen=True)
class Count:
    """What became of the trials; a trial and its repeats are one.

    Attributes:
        asked: trials, repeats not counted.
        done: with values.
        failed: for good.
        again: repeats.
        open: running or queued.
        lost: neither open nor finished.
        twice: finished more than once.
    """

    asked: int
    done: int
    failed: int
    again: int
    open: int
    lost: int
    twice: int

    def __str__(self) -> str:
        return ", ".join(
            f"{value} {name}" for name, value in asdict(self).items() if value or name in ("lost", "twice")
        )


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

    def environment(self, **told: Any) -> dict[str, str]:
        """Of its workers; ``told`` as light_worker.py says, numbers written ``trial_3="raise"``."""
        light = {name.removeprefix("trial_"): what for name, what in told.items()}
        here = os.pathsep.join(p for p in (str(ROOT / "src"), os.environ.get("PYTHONPATH", "")) if p)
        return {"LIGHT": json.dumps({"log": str(self.folder / "ran"), **light}), "PYTHONPATH": here}

    @property
    def command(self) -> list[str]:
        """One worker."""
        return [sys.executable, str(WORKER), str(self.params)]

    def trials(self) -> list[FrozenTrial]:
        """As the storage tells them now; none before it is there."""
        at = place(self.params)
        if at.url is None and not (at.folder / "journal.log").exists():
            return []
        return quietly(lambda: open_study(at, create=False).get_trials())

    def ran(self, what: str = "end") -> list[int]:
        """Numbers of the trials that began, or ended, in the workers' own account."""
        account = self.folder / "ran"
        lines = account.read_text().splitlines() if account.exists() else []
        return [int(line.split()[1]) for line in lines if line.startswith(f"{what} ")]

    def said(self) -> str:
        """What the workers said."""
        return "".join(
            path.read_text() for path in [self.folder / "said", *self.folder.glob("slurm-*.out")] if path.exists()
        )

    def count(self) -> Count:
        """What became of the trials, told by their states alone."""
        trials = self.trials()
        chains: dict[int, list[FrozenTrial]] = {}
        for trial in trials:
            chains.setdefault(root(trial, trials), []).append(trial)
        final = {first: [t for t in chain if self._is_final(t, chain)] for first, chain in chains.items()}
        still = {first for first, chain in chains.items() if any(not t.state.is_finished() for t in chain)}
        states = Counter(ends[0].state for ends in final.values() if ends)
        return Count(
            asked=len(chains),
            done=states[TrialState.COMPLETE],
            failed=states[TrialState.FAIL],
            again=len(trials) - len(chains),
            open=len(still),
            lost=sum(not ends for first, ends in final.items() if first not in still),
            twice=sum(len(ends) > 1 or (bool(ends) and first in still) for first, ends in final.items()),
        )

    def _is_final(self, trial: FrozenTrial, chain: list[FrozenTrial]) -> bool:
        if trial.state != TrialState.FAIL:
            return trial.state.is_finished()
        spent = sum(vanished(t) for t in chain) > place(self.params).search.retries
        return bool(
            not trial.user_attrs.get("given_back", "why" not in trial.user_attrs) or (vanished(trial) and spent)
        )


def light_study(folder: Path, **search: Any) -> LightStudy:
    """The project's params.yaml in ``folder``, with a small section ``search``, and no series behind it."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["search"] |= SMALL | search
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    windows = folder / params["paths"]["windows"]
    windows.mkdir(parents=True)
    (windows / "windows.json").write_text('{"sha256": "none"}')
    return LightStudy(folder)


class Account:
    """A failure's counts, before and after, kept with the test's result (benchmarks/search_failures.py prints them)."""

    def __init__(self, keep: Callable[[str, object], None]) -> None:
        self._keep = keep

    def before(self, study: LightStudy) -> Count:
        """The count when the failure came."""
        count = study.count()
        self._keep("before", str(count))
        return count

    def after(self, study: LightStudy, workers: int) -> Count:
        """The count at the end, checked: every trial finished once, the budget reached, overshot by a trial a worker."""
        count = study.count()
        self._keep("after", str(count))
        assert (count.open, count.lost, count.twice) == (0, 0, 0)
        budget = place(study.params).search.trials
        assert budget is not None
        assert budget <= count.done + count.failed < budget + workers
        return count


@contextmanager
def workers(study: LightStudy, number: int, **told: Any) -> Iterator[list[subprocess.Popen[bytes]]]:
    """So many workers of this machine; whoever still runs at the end of the block is killed."""
    environment = {**os.environ, **study.environment(**told)}
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


def root(trial: FrozenTrial, trials: list[FrozenTrial]) -> int:
    """Number of the first of the trials that repeat each other."""
    while "again_of" in trial.user_attrs:
        trial = trials[trial.user_attrs["again_of"]]
    return trial.number


def vanished(trial: FrozenTrial) -> bool:
    """Whether its worker was taken for dead."""
    return trial.state == TrialState.FAIL and trial.user_attrs.get("why", "vanished") == "vanished"


def quietly(call: Any) -> Any:
    """The answer of ``call`` without Optuna's word on every study that it opens."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return call()
    finally:
        optuna.logging.set_verbosity(before)
