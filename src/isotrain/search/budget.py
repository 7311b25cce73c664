"""When a study has had enough: by trials, by hours, or because its front no longer grows."""

from collections.abc import Sequence
from datetime import UTC, datetime

import optuna
from optuna.trial import FrozenTrial, TrialState

from isotrain.config import Search
from isotrain.search.chains import settled
from isotrain.tradeoff.searched import history

GROWTH = 1.001  # a hypervolume that grows by less stands still


def spent(study: optuna.Study, search: Search) -> str | None:
    """Why the study is over, or None. A repeat of a trial is no other trial; a running one is not finished."""
    finished = settled(study.get_trials(deepcopy=False), search.retries)
    if search.trials is not None and len(finished) >= search.trials:
        return f"{len(finished)} of {search.trials} trials are finished"
    hours = hours_since(study.user_attrs["began"])
    if search.hours is not None and hours >= search.hours:
        return f"{hours:.2f} of {search.hours:g} h are over"
    if search.stall is not None and stalled(finished, search.startup, search.stall):
        return f"the hypervolume has not grown by 0.1 % in {search.stall} trials"
    return None


def stalled(finished: Sequence[FrozenTrial], startup: int, count: int) -> bool:
    """Whether the last ``count`` trials, in the order of finishing, left the hypervolume where it was.

    A trial that failed or ended early adds nothing, but is counted. Before ``startup`` trials with values nothing
    has stalled: the reference point is theirs.
    """
    points = [_values(trial) for trial in finished]
    volumes = history(points, startup)
    return len(volumes) > count and 0 < volumes[-1] < GROWTH * volumes[-1 - count]


def hours_since(began: str) -> float:
    """Hours since ``began``, a study's attribute."""
    return (datetime.now(UTC) - datetime.fromisoformat(began)).total_seconds() / 3600


def _values(trial: FrozenTrial) -> tuple[float, float] | None:
    if trial.state != TrialState.COMPLETE or trial.user_attrs.get("early"):
        return None
    return trial.values[0], trial.values[-1]
