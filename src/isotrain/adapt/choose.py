"""Which part to thaw, by the errors of each candidate on the weeks held out: the last ones of the new series.

The rule: a candidate may replace the parent if its mean gain on the weeks held out exceeds its standard error, and of
those the one that changes least is taken among all whose gain is within a standard error of the greatest. It needs no
target beyond the data given; docs/adapting.md has its error rates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from isotrain.adapt.candidates import CANDIDATES, Candidate, Ground, Weights
from isotrain.data.windows import DAY
from isotrain.forecast.stretches import WEEK

LONGEST = 13  # weeks held out, of a quarter of those there are
SCORED = 600  # origins held out that strengths are compared at
FEW = 4  # weeks held out below which days stand for them, and resemble each other
KEPT = "nothing"
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Tried:
    """A candidate on the weeks held out.

    Attributes:
        name: of :data:`CANDIDATES`.
        strength: the best of its strengths.
        gain: mean absolute error less than the parent's, as a share of the parent's.
        doubt: standard error of the gain over the weeks (or days).
    """

    name: str
    strength: float
    gain: float
    doubt: float


@dataclass(frozen=True)
class Choice:
    """What is thawed.

    Attributes:
        name: of :data:`CANDIDATES`, or "nothing".
        strength: of its fit.
        tried: every candidate that was tried, from what changes least on.
        weeks, held_out: weeks of data in all, and of these held out.
        errors: (origins, leads) on the weeks held out, truth less forecast in the series' standard deviation, of the
            forecaster chosen as it was fitted without those weeks.
        origins: those origins.
        weights: what changes of the parent, fitted on all weeks; empty where nothing does.
    """

    name: str
    strength: float
    tried: list[Tried]
    weeks: int
    held_out: int
    errors: Values
    origins: NDArray[np.int64]
    weights: Weights

    @property
    def gain(self) -> float:
        """Of what was chosen, as a share of the parent's error on the weeks held out; 0 where the parent was kept."""
        return next((one.gain for one in self.tried if one.name == self.name), 0.0)


def held_out(weeks: int) -> int:
    """How many of so many weeks are held out for the choice: a quarter, one at least.

    Example:
        >>> [held_out(weeks) for weeks in (2, 8, 26, 104)]
        [1, 2, 6, 13]
    """
    return min(max(weeks // 4, 1), LONGEST)


def choose(
    ground: Ground, first: int, last: int, candidates: Mapping[str, Candidate] = CANDIDATES, always: bool = False
) -> Choice:
    """What to thaw of the forecaster on ``ground`` for a series with origins from ``first`` to ``last``.

    ``always``: the candidate with the greatest gain even if that is less than the rule asks for.
    """
    weeks = round((last - first) / WEEK)
    held = held_out(weeks)
    start = last - held * WEEK
    fitted = [(first, start - ground.net.series.horizon + 1)]  # no hour is a target in both
    seen = torch.arange(start, last)
    scored = slice(None, None, next(step for step in (1, 5, 7, 11) if len(seen) <= step * SCORED or step == 11))
    parent = _by_origin(ground.errors({}, seen))
    tried: list[Tried] = []
    paths = {}
    for name, candidate in candidates.items():
        if weeks < candidate.weeks:
            continue
        path = candidate.fit(ground, fitted, None)
        paths[name] = path
        errors = {s: _by_origin(ground.errors(path(s), seen[scored])) for s in candidate.strengths}
        strength = min(errors, key=lambda s: float(np.nanmean(errors[s])))
        gain, doubt = gained(parent[scored], errors[strength], seen[scored].numpy() - start, held)
        tried.append(Tried(name, strength, gain, doubt))
    name = max(tried, key=lambda one: one.gain).name if always else best(tried)
    if name == KEPT:
        return Choice(KEPT, 0.0, tried, weeks, held, ground.errors({}, seen).double().numpy(), seen.numpy(), {})
    strength = next(one.strength for one in tried if one.name == name)
    before = ground.errors(paths[name](strength), seen).double().numpy()
    whole = [*fitted, (fitted[0][1], last)]
    weights = candidates[name].fit(ground, whole, strength)(strength)
    return Choice(name, strength, tried, weeks, held, before, seen.numpy(), weights)


def gained(parent: Values, other: Values, hours: NDArray[np.int64], held: int) -> tuple[float, float]:
    """Mean gain of ``other`` over the ``parent``, a share of its error, and the standard error of that mean.

    Both are absolute errors of origins, which lie ``hours`` after the first of ``held`` weeks. The standard error is
    that over the weeks; where there are fewer than FEW it is that over the days, which resemble one another: twice that.

    Example:
        >>> hours = np.arange(4 * 168)
        >>> gain, doubt = gained(np.ones(672), np.repeat([0.9, 0.8, 0.9, 0.8], 168), hours, 4)
        >>> round(gain, 3), round(doubt, 3)
        (0.15, 0.029)
    """
    block = WEEK if held >= FEW else DAY
    of = hours // block
    difference = parent - other
    means = np.array([np.nanmean(difference[of == b]) for b in np.unique(of) if np.isfinite(difference[of == b]).any()])
    level = float(np.nanmean(parent))
    spread = float(means.std(ddof=1) / np.sqrt(len(means))) if len(means) > 1 else np.inf
    return float(means.mean()) / level, (1.0 if held >= FEW else 2.0) * spread / level


def best(tried: Sequence[Tried]) -> str:
    """The candidate that the rule takes, of those tried from what changes least on; "nothing" where none gained."""
    sure = [one for one in tried if one.gain > one.doubt]
    if not sure:
        return KEPT
    most = max(sure, key=lambda one: one.gain)
    return next(one.name for one in sure if one.gain >= most.gain - most.doubt)


def _by_origin(errors: torch.Tensor) -> Values:
    """Mean absolute error of each origin, NaN where no hour is known."""
    answer: Values = torch.nanmean(errors.abs().double(), dim=1).numpy()
    return answer
