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
    """Trials and their repeats, told by their states and what is written on them."""
    chains: dict[int, list[FrozenTrial]] = {}
    for trial in trials:
        chains.setdefault(_root(trial, trials), []).append(trial)
    ends = {first: [t for t in chain if _is_end(t, chain, retries)] for first, chain in chains.items()}
    states = Counter(ended[0].state for ended in ends.values() if ended)
    return Count(
        asked=len(chains),
        done=states[TrialState.COMPLETE],
        failed=states[TrialState.FAIL],
        again=len(trials) - len(chains),
        open=sum(not ended for ended in ends.values()),
        twice=sum(
            len(ended) > 1 or (bool(ended) and not chains[first][-1].state.is_finished())
            for first, ended in ends.items()
        ),
    )


def _root(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> int:
    while "again_of" in trial.user_attrs:
        trial = trials[trial.user_attrs["again_of"]]
    return trial.number


def _is_end(trial: FrozenTrial, chain: Sequence[FrozenTrial], retries: int) -> bool:
    """Whether the chain ended with it: it was not to be done again, or had been too often."""
    if trial.state != TrialState.FAIL:
        return trial.state.is_finished()
    if not trial.user_attrs.get("given_back", "why" not in trial.user_attrs):
        return True
    return trial is chain[-1] and _vanished(trial) and sum(map(_vanished, chain)) > retries


def _vanished(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and trial.user_attrs.get("why", "vanished") == "vanished"
