"""Which part to thaw, by the errors of each candidate on the weeks held out: the last ones of the new series.

The rule. With less than 13 weeks of data: of all candidates and strengths whose gain on the weeks held out is more than
twice its standard error the one that gains most; where there is none the parent is kept. With more: the candidate that
changes most, at the strength that gains most, unless it loses more than its standard error; then the next. For a trial
leaves out the last quarter of the data, and so understates what the fit on all weeks gains, the more so the more
weights are fitted.
The rule needs no target beyond the data given; docs/adapting.md has its error rates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from isotrain.adapt.candidates import CANDIDATES, Candidate, Ground, Path, Weights
from isotrain.data.windows import DAY
from isotrain.forecast.stretches import WEEK

LONGEST = 13  # weeks held out, of a quarter of those there are
SCORED = 600  # origins held out that strengths are compared at
FEW = 4  # weeks held out below which days stand for them, and resemble each other
SEASON = 13  # weeks of data below which a gain must be sure
SURE = 2.0  # standard errors that it must then exceed
KEPT = "nothing"
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Tried:
    """A candidate on the weeks held out.

    Attributes:
        name: of :data:`CANDIDATES`.
        strength: of its fit.
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
        tried: every candidate that was tried, in the order in which it was.
        weeks, held_out: weeks of data in all, and of these held out.
        errors: (origins, leads) on the weeks held out, truth less forecast in the series' standard deviation, of the
            forecaster chosen as it was fitted without those weeks.
        origins: those origins.
        weights: what changes of the parent, fitted on all weeks, on the CPU; empty where nothing does.
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
        return next((one.gain for one in self.shown if one.name == self.name), 0.0)

    @property
    def shown(self) -> list[Tried]:
        """One trial of each candidate: of what was chosen the one taken, of each other that with the greatest gain."""
        names = dict.fromkeys(one.name for one in self.tried)
        return [max((one for one in self.tried if one.name == name), key=self._rank) for name in names]

    def _rank(self, one: Tried) -> tuple[bool, float]:
        return (one.name, one.strength) == (self.name, self.strength), one.gain


def held_out(weeks: int) -> int:
    """How many of so many weeks are held out for the choice: a quarter, one at least.

    Example:
        >>> [held_out(weeks) for weeks in (2, 8, 26, 104)]
        [1, 2, 6, 13]
    """
    return min(max(weeks // 4, 1), LONGEST)


def choose(ground: Ground, first: int, last: int, candidates: Mapping[str, Candidate] = CANDIDATES) -> Choice:
    """What to thaw of the forecaster on ``ground`` for a series with origins from ``first`` to ``last``."""
    trials = Trials(ground, first, last)
    tried: list[Tried] = []
    for name in in_order(candidates, trials.weeks):
        tried += trials.of(name, candidates[name], candidates[name].tried(trials.weeks))
        if trials.weeks >= SEASON and best(tried, trials.weeks):
            break
    chosen = best(tried, trials.weeks)
    if chosen is None:
        errors = ground.errors({}, trials.seen)
        return Choice(KEPT, 0.0, tried, trials.weeks, trials.held, _numpy(errors), trials.seen.numpy(), {})
    before = trials.paths[chosen.name](chosen.strength)
    final = candidates[chosen.name].fit(ground, trials.whole, chosen.strength)(chosen.strength)
    return Choice(
        chosen.name,
        chosen.strength,
        tried,
        trials.weeks,
        trials.held,
        _numpy(ground.errors(before, trials.seen)),
        trials.seen.numpy(),
        {name: value.cpu() for name, value in final.items()},
    )


class Trials:
    """Candidates fitted on a series without the weeks held out, and their errors there.

    Attributes:
        weeks, held: weeks in all, and held out.
        fitted, whole: ranges of origins to fit in the trial, and in the end; no hour held out is a target of the first.
        seen: the origins held out.
        paths: of each candidate what its fit gave.
    """

    def __init__(self, ground: Ground, first: int, last: int) -> None:
        self.ground = ground
        self.weeks = round((last - first) / WEEK)
        self.held = held_out(self.weeks)
        start = last - self.held * WEEK
        end = start - ground.net.series.horizon + 1
        self.fitted, self.whole = [(first, end)], [(first, end), (end, last)]
        self.seen = torch.arange(start, last)
        self.paths: dict[str, Path] = {}
        step = next(step for step in (1, 5, 7, 11) if len(self.seen) <= step * SCORED or step == 11)  # prime to 24
        self._scored = self.seen[::step]
        self._parent = _by_origin(ground.errors({}, self._scored))

    def of(self, name: str, candidate: Candidate, strengths: Sequence[float]) -> list[Tried]:
        """The candidate at each of ``strengths``."""
        path = self.paths[name] = candidate.fit(self.ground, self.fitted, None)
        hours = (self._scored - self.seen[0]).numpy()
        errors = {strength: _by_origin(self.ground.errors(path(strength), self._scored)) for strength in strengths}
        return [Tried(name, s, *gained(self._parent, e, hours, self.held)) for s, e in errors.items()]


def gained(parent: Values, other: Values, hours: NDArray[np.int64], held: int) -> tuple[float, float]:
    """Mean gain of ``other`` over the ``parent``, a share of its error, and the standard error of that mean.

    Both are absolute errors of origins, which lie ``hours`` after the first of ``held`` weeks. The standard error is
    that over the weeks; where there are fewer than FEW it is twice that over the days, which resemble one another.

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


def in_order(candidates: Mapping[str, Candidate], weeks: int) -> list[str]:
    """Those that are tried with so many weeks of data, in the order in which they are."""
    names = [name for name, candidate in candidates.items() if candidate.tried(weeks)]
    return names if weeks < SEASON else names[::-1]


def best(tried: Sequence[Tried], weeks: int) -> Tried | None:
    """What the rule takes of trials :func:`in_order` with so many weeks of data; None: the parent is kept."""
    if weeks < SEASON:
        return max((one for one in tried if one.gain > SURE * one.doubt), key=lambda one: one.gain, default=None)
    for name in dict.fromkeys(one.name for one in tried):
        one = max((one for one in tried if one.name == name), key=lambda one: one.gain)
        if one.gain > -one.doubt:
            return one
    return None


def _numpy(errors: torch.Tensor) -> Values:
    answer: Values = errors.double().numpy()
    return answer


def _by_origin(errors: torch.Tensor) -> Values:
    """Mean absolute error of each origin, NaN where no hour is known."""
    answer: Values = torch.nanmean(errors.abs().double(), dim=1).numpy()
    return answer
