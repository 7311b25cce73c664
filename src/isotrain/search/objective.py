"""What a trial runs: one training with the trial's settings. Its values are the validation error and the seconds."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isotrain.config import decisive
from isotrain.data.windows import Windows
from isotrain.errors import InputError
from isotrain.files import read_json, write_json
from isotrain.search.cost import QuietCost
from isotrain.search.study import Place
from isotrain.search.worker import Diverged, Job, Objective, Outcome, Report
from isotrain.training.clock import Clock, Row
from isotrain.training.fit import Fit, Loop, prepare_process
from isotrain.training.machine import commit, shared
from isotrain.training.result import best, finite

log = logging.getLogger(__name__)
FEWEST = 10  # finished trials before any trial may end early
History = Sequence[tuple[float, float]]  # (share of the training done, best error so far) at each validation


def objective(place: Place) -> Objective:
    """Load what every trial needs, set the process up as the base method asks, and return the function that runs a
    trial.

    The values are the best validation error (kW) and the seconds of the training (:mod:`isotrain.search.cost`); or,
    for ``time-to-target``, the seconds until the first validation at the target or below, infinite if there is none.
    The test part is never forecast. Each trial leaves ``result.json`` in its folder, and no checkpoint.

    Raises :class:`InputError` where the windows are missing, or the base trains on the validation part.
    """
    base = place.space.settings({})
    if base.training.refit:
        raise InputError(f"search.base {place.search.base} trains on the validation part: choose one without refit")
    if base.runtime.processes > 1:
        raise InputError(f"runtime.processes = {base.runtime.processes}: a trial has one process, set it to 1")
    windows = Windows.load(place.windows)
    prepare_process(base)
    search = place.search

    def run(job: Job, report: Report) -> Outcome:
        rule = Rule.of(place.folder) if search.early_stop and search.objectives == "trade-off" else None
        trained = _train(job, windows, report, rule)
        values = trained.values(search.target)
        write_json(job.out / "result.json", trained.result(values))
        return Outcome(values, trained.attrs(f"{search.study}-{job.number}"))

    return run


def _train(job: Job, windows: Windows, report: Report, rule: "Rule | None") -> "Trained":
    """Train a trial beside the other workers of this machine; raises :class:`Diverged`, and what ``report`` raises."""
    s = job.settings
    loop, early = Loop(Fit(s, job.seed, windows, job.out)), False
    clock, every = loop.clock, s.isolation.every if s.isolation else 0

    def on_row(row: Row) -> None:
        nonlocal early
        if not finite([row]):
            return  # the fit ends here: StopWhenDiverged
        row["seconds"] = cost.seconds()
        log.info("step %d: val MAE %.3f kW, %.2f s", row["step"], row["val_mae"], row["seconds"])
        report(row["step"], row["val_mae"], row["seconds"])
        if rule is not None and rule.hopeless(best(clock.rows), row["seconds"], row["step"] / s.training.steps):
            early = loop.module.trainer.should_stop = True

    clock.on_row = on_row
    with shared() as lock:
        cost = QuietCost(lock, clock, every, lambda: sum(len(c.history) for c in loop.chosen))
        loop.run(cost)
    if len(finite(clock.rows)) < len(clock.rows):
        raise Diverged(f"the training diverged at step {clock.rows[-1]['step']}: its error or its loss is no number")
    return Trained(job, clock, cost, sum(p.numel() for p in loop.module.parameters()), early)


@dataclass(frozen=True)
class Trained:
    """A training that ended, with its clock and its costs."""

    job: Job
    clock: Clock
    cost: QuietCost
    parameters: int
    early: bool

    @property
    def seconds(self) -> float:
        """Seconds of the whole training; if it ended early, those that it would have taken at its mean cost a step."""
        done = len(self.cost.cost.steps)
        return self.cost.seconds() * (self.job.settings.training.steps / done if self.early else 1.0)

    def values(self, target: float | None) -> tuple[float, ...]:
        """The values of the trial: seconds to ``target`` (kW), or error and seconds if ``target`` is None."""
        if target is None:
            return best(self.clock.rows), self.seconds
        reached = [row["step"] for row in self.clock.rows if row["val_mae"] <= target]
        return (self.cost.seconds(reached[0]) if reached else math.inf,)

    def attrs(self, run: str) -> dict[str, Any]:
        """The attributes of the trial in the study; ``run``: the name of its MLflow run."""
        return {
            "val_mae": best(self.clock.rows),
            "seconds": self.seconds,
            "wall_seconds": self.clock.watch.total,
            "waited_seconds": self.cost.waited,
            "steps": len(self.cost.cost.steps),
            "step_ms": 1e3 * self.cost.seconds() / len(self.cost.cost.steps),
            "parameters": self.parameters,
            "isolated_fraction": self.clock.isolated_fraction,
            "early": self.early,
            "mlflow_run": run,
            "commit": commit(),
        }

    def result(self, values: tuple[float, ...]) -> dict[str, Any]:
        """The content of ``result.json``.

        In its history ``train_seconds`` are wall-clock seconds, ``seconds`` those of cost.py.
        """
        return {
            "number": self.job.number,
            "seed": self.job.seed,
            "overrides": self.job.overrides,
            "params": decisive(self.job.settings),
            "values": [value if math.isfinite(value) else None for value in values],
            **self.attrs(""),
            "history": [{**row, "seconds": self.cost.seconds(row["step"])} for row in self.clock.rows],
            "quiet": [
                {"step": n, **step._asdict()} for n, step in enumerate(self.cost.cost.steps) if step.seconds is not None
            ],
        }


@dataclass(frozen=True)
class Rule:
    """When a trial of two objectives may end early: when it cannot reach the front if it improves as others did.

    Optuna prunes studies of one objective only. At a validation a trial has spent some seconds, which can only grow,
    and has a best error, which can only fall. The finished trials say how far this error may still fall: the largest
    improvement that one of them made after the same share of its training. If a point of the front has fewer seconds
    and a smaller error than even that, the trial ends.

    The rule is optimistic for errors, but it biases the study: the sampler sees the error of a shortened training with
    the seconds of a whole one, and a trial that would have improved late, unlike every finished one, is lost. So the
    rule is off by default.

    Attributes:
        front: (seconds, error) of each finished trial.
        histories: one of each trial that was trained to its end.

    Example:
        >>> rule = Rule(front=[(4.0, 5.0)], histories=[[(0.5, 5.4), (1.0, 5.2)]] * 10)  # each gained 0.2 kW more
        >>> rule.hopeless(error=5.5, seconds=6.0, share=0.5), rule.hopeless(error=5.1, seconds=6.0, share=0.5)
        (True, False)
    """

    front: Sequence[tuple[float, float]]
    histories: Sequence[History]

    @classmethod
    def of(cls, folder: Path) -> "Rule":
        """The rule for the results that lie in a study's folder now."""
        results = [read_json(path) for path in sorted(folder.glob("trials/*/result.json"))]
        whole = [result for result in results if not result["early"]]
        return cls([(r["seconds"], r["val_mae"]) for r in whole], [_history(r["history"]) for r in whole])

    def hopeless(self, error: float, seconds: float, share: float) -> bool:
        """Whether a trial with this best ``error`` and these ``seconds`` at ``share`` cannot reach the front."""
        if len(self.histories) < FEWEST:
            return False
        optimistic = error - max(improvement(history, share) for history in self.histories)
        return any(time < seconds and least < optimistic for time, least in self.front)


def improvement(history: History, share: float) -> float:
    """By how much the error fell after ``share`` of the training: from the last validation before it to the end.

    Before the first validation nothing is known of the error then: infinite.
    """
    before = [error for done, error in history if done <= share + 1e-9]
    return before[-1] - history[-1][1] if before else float("inf")


def _history(rows: list[dict[str, float]]) -> History:
    steps, least = rows[-1]["step"], float("inf")
    history = []
    for row in rows:
        least = min(least, row["val_mae"])
        history.append((row["step"] / steps, least))
    return history
