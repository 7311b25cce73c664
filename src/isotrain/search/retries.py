"""Trials and their repeats: which belong together, which are settled, which have to be queued again."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

# Trials and their repeats: which belong together, which are settled, which have to be queued again.
#
# A trial whose worker vanished, or gave it back, ends as FAIL; the study goes on with a new trial of the same
# parameters that says in ``again_of`` what it repeats. Such a chain counts as one trial.


log = logging.getLogger(__name__)
VANISHED = "vanished"


def given_back(trial: FrozenTrial) -> bool:
    """Whether it failed through no doing of its own: given back by its worker, or left behind by a dead one.

    A worker says ``why`` before it fails a trial, so what failed without a reason was failed by the storage.
    """
    attrs = trial.user_attrs
    return trial.state == TrialState.FAIL and bool(attrs.get("given_back", "why" not in attrs))


def why(trial: FrozenTrial) -> str:
    """Why a failed trial failed."""
    return str(trial.user_attrs.get("why", VANISHED))


def first_of(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> int:
    """Number of the first trial of the chain; ``trials`` are all of the study, in order of their numbers."""
    return ([trial.number, *(earlier.number for earlier in _before(trial, trials))])[-1]


def settled(trials: Sequence[FrozenTrial], retries: int) -> list[FrozenTrial]:
    """How each finished chain ended, in the order of ending; ``trials`` as in :func:`first_of`."""
    ends: dict[int, FrozenTrial] = {}
    for trial in trials:
        if trial.state.is_finished() and not _repeatable(trial, trials, retries):
            ends.setdefault(first_of(trial, trials), trial)
    return sorted(ends.values(), key=lambda trial: (trial.datetime_complete, trial.number))


def lost(trials: Sequence[FrozenTrial], retries: int) -> list[FrozenTrial]:
    """Trials that have to be queued again and are not yet."""
    repeated = {trial.user_attrs.get("again_of") for trial in trials}
    return [t for t in trials if t.number not in repeated and _repeatable(t, trials, retries)]


def waiting_repeats(trials: Sequence[FrozenTrial]) -> int:
    """How many repeats are queued and not begun."""
    return sum(trial.state == TrialState.WAITING and "again_of" in trial.user_attrs for trial in trials)


def queue_again(study: optuna.Study, retries: int) -> None:
    """Queue every trial of :func:`lost`; done twice, or half, and then again, it queues nothing twice.

    The caller holds the study's lock: two at once could each find the same trial.
    """
    for trial in lost(study.get_trials(deepcopy=False), retries):
        attrs = {key: trial.user_attrs[key] for key in ("known",) if key in trial.user_attrs}
        enqueue(study, {**trial.user_attrs.get("queued", {}), **trial.params}, {**attrs, "again_of": trial.number})
        log.warning("trial %d (%s) is queued again", trial.number, why(trial))


def enqueue(study: optuna.Study, params: Mapping[str, Any], attrs: Mapping[str, Any]) -> None:
    """Queue ``params``; they are kept as ``queued``, for a worker that dies before it has taken them."""
    study.enqueue_trial(dict(params), user_attrs={**attrs, "queued": dict(params)})


def _repeatable(trial: FrozenTrial, trials: Sequence[FrozenTrial], retries: int) -> bool:
    """Of the trials that vanished only so many are repeated: one that takes its workers with it must end."""
    if not given_back(trial):
        return False
    return why(trial) != VANISHED or _vanished(_before(trial, trials)) < retries


def _vanished(trials: Iterable[FrozenTrial]) -> int:
    return sum(why(trial) == VANISHED for trial in trials)


def _before(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """What ``trial`` repeats, the latest first."""
    earlier = []
    while (number := trial.user_attrs.get("again_of")) is not None:
        trial = trials[number]
        earlier.append(trial)
    return earlier
