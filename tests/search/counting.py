"""What became of every trial of a study, counted apart from the code that queues and settles them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from optuna.trial import FrozenTrial, TrialState


@dataclass(frozen=True)
class Count:
    """What became of the trials; a trial and its repeats are one.

    Attributes:
        asked: trials, repeats not counted.
        done: with values.
        failed: for good.
        again: repeats.
        open: running, queued, or given back and to be queued.
        twice: finished more than once.
    """

    asked: int
    done: int
    failed: int
    again: int
    open: int
    twice: int

    def __str__(self) -> str:
        return ", ".join(
            f"{value} {name}" for name, value in asdict(self).items() if value or name in ("lost", "twice")
        )


def count(trials: Sequence[FrozenTrial], retries: int) -> Count:
    """Count trials and their repeats by their states and attributes."""
    families: dict[int, list[FrozenTrial]] = {}
    for trial in trials:
        families.setdefault(_root(trial, trials), []).append(trial)
    ends = {first: [t for t in family if _is_end(t, family, retries)] for first, family in families.items()}
    states = Counter(ended[0].state for ended in ends.values() if ended)
    return Count(
        asked=len(families),
        done=states[TrialState.COMPLETE],
        failed=states[TrialState.FAIL],
        again=len(trials) - len(families),
        open=sum(not ended for ended in ends.values()),
        twice=sum(
            len(ended) > 1 or (bool(ended) and not families[first][-1].state.is_finished())
            for first, ended in ends.items()
        ),
    )


def _root(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> int:
    while "again_of" in trial.user_attrs:
        trial = trials[trial.user_attrs["again_of"]]
    return trial.number


def _is_end(trial: FrozenTrial, family: Sequence[FrozenTrial], retries: int) -> bool:
    """Whether a trial and its repeats ended with it: it was not to be repeated, or had been too often."""
    if trial.state != TrialState.FAIL:
        return trial.state.is_finished()
    if not trial.user_attrs.get("given_back", "why" not in trial.user_attrs):
        return True
    return trial is family[-1] and _vanished(trial) and sum(map(_vanished, family)) > retries


def _vanished(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and trial.user_attrs.get("why", "vanished") == "vanished"
