"""What a study's trials amount to: those that count, the front, and the command that does a point again."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from isotrain.config import Settings, decisive
from isotrain.search.chains import lost, settled, why
from isotrain.tradeoff.searched import Point


@dataclass(frozen=True)
class Tally:
    """The trials of a study by what became of them; a chain of repeats counts once, by its last trial.

    ``pruned``: on the way to a target. ``failed``: for good, why -> number. ``again``: to be queued again.
    ``repeated``: trials that repeat another.
    """

    finished: tuple[FrozenTrial, ...]  # in the order in which they did
    pruned: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)
    running: int = 0
    waiting: int = 0
    again: int = 0
    repeated: int = 0

    @property
    def ended(self) -> int:
        """What the budget counts: finished, pruned and failed for good."""
        return len(self.finished) + self.pruned + sum(self.failed.values())


def tally(trials: Sequence[FrozenTrial], retries: int) -> Tally:
    """Count ``trials``, all of a study's, of which one whose worker vanished is repeated at most ``retries`` times."""
    states = Counter(trial.state for trial in trials)
    ended = settled(trials, retries)
    return Tally(
        finished=tuple(trial for trial in ended if trial.state == TrialState.COMPLETE),
        pruned=sum(trial.state == TrialState.PRUNED for trial in ended),
        failed=Counter(_kind(why(trial)) for trial in ended if trial.state == TrialState.FAIL),
        running=states[TrialState.RUNNING],
        waiting=states[TrialState.WAITING],
        again=len(lost(trials, retries)),
        repeated=sum(trial.user_attrs.get("again_of") is not None for trial in trials),
    )


def points(finished: Sequence[FrozenTrial]) -> tuple[Point, ...]:
    """The trials of :attr:`Tally.finished` as points."""
    return tuple(_point(trial) for trial in finished)


def reproduce(point: Settings, isolated: Mapping[str, Any], seed: int) -> str:
    """The command that trains ``point`` once, as method ``isolated`` with ``seed`` of ``compare.seeds``.

    ``isolated``: the sections of params.yaml that this method runs as they stand (dotted path -> value); only what
    differs from them is set. Works in the project's folder, and leaves params.yaml changed as after every
    ``dvc exp run``.
    """
    wanted = decisive(point)
    if point.isolation is None:
        wanted = {path: value for path, value in wanted.items() if not path.startswith("isolation")}
        wanted["isolation.schedule.fraction"] = 0.0
    words = [f"-S '{path}={_word(value)}'" for path, value in wanted.items() if value != isolated[path]]
    return " ".join(["dvc exp run", *words, f"train@{seed}-isolated"])


def overrides(trial: FrozenTrial) -> dict[str, Any]:
    """Dotted path -> value that ``trial`` ran with: what it noted, else its parameters."""
    noted = trial.user_attrs.get("overrides")
    return dict(json.loads(noted) if noted else trial.params)


def _point(trial: FrozenTrial) -> Point:
    noted, values = trial.user_attrs, tuple(trial.values)
    return Point(
        number=trial.number,
        values=values,
        val_mae=float(noted.get("val_mae", values[0])),
        seconds=float(noted.get("seconds", values[-1])),
        settings=overrides(trial),
        known=noted.get("known"),
        early=bool(noted.get("early")),
    )


def _kind(why: str) -> str:
    """Why a trial failed, without the details after the colon."""
    return why.partition(":")[0]


def _word(value: Any) -> str:
    """As Hydra's grammar reads it."""
    return value if isinstance(value, str) else json.dumps(value)
