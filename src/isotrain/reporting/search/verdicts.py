"""What fresh seeds say of the points that a search chose: against each rival, and against the search's own figures."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from isotrain.tradeoff.forecasts import read_forecasts
from isotrain.tradeoff.results import Run
from isotrain.tradeoff.searched import Point, Searched
from isotrain.tradeoff.statistics import Interval, mae_difference, median_interval
from isotrain.tradeoff.target import best_validation


@dataclass(frozen=True)
class Rules:
    """Intervals of ``confidence`` from ``bootstrap`` resamples; apart by up to ``tolerance``, a share, is equal."""

    confidence: float = 0.9
    bootstrap: int = 2000
    tolerance: float = 0.005

    def interval(self, values: Sequence[float]) -> Interval:
        """Median of ``values``, one a seed."""
        return median_interval(values, self.confidence, self.bootstrap)


@dataclass(frozen=True)
class Again:
    """A point as the search measured it and as it was on fresh seeds; ``runs`` are those that did not diverge.

    ``val_mae`` is the best of a fit, as in the search; ``test_mae`` that of its end (kW).
    """

    point: Point
    runs: tuple[Run, ...]
    diverged: int
    val_mae: Interval
    test_mae: Interval
    seconds: Interval

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        figures = {name: getattr(self, name).as_json() for name in ("val_mae", "test_mae", "seconds")}
        seen = {"trial": self.point.number, "searched": {"val_mae": self.point.val_mae, "seconds": self.point.seconds}}
        return seen | {"seeds": [run.seed for run in self.runs], "diverged": self.diverged} | figures


@dataclass(frozen=True)
class Duel:
    """A point against a rival on common seeds: ``ratio`` of training seconds, ``difference`` in test MAE (kW)."""

    point: Point
    rival: str
    ratio: Interval
    difference: Interval | None
    verdict: str  # beats it | is beaten | trades | undecided

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        difference = self.difference.as_json() if self.difference else None
        named = {"trial": self.point.number, "rival": self.rival, "verdict": self.verdict}
        return named | {"seconds_ratio": self.ratio.as_json(), "test_mae_difference": difference}


def again(found: Searched, rules: Rules) -> list[Again]:
    """The points that were run again, the fastest as searched first; those of which no fit ended well are left out."""
    return [one for point in found.again if (one := _again(found, point, rules))]


def duels(found: Searched, rules: Rules) -> list[Duel]:
    """Every point that was run again against every method run beside it."""
    return [duel for point in found.again for rival in found.against if (duel := _duel(found, point, rival, rules))]


def verdict(ratio: Interval, difference: Interval | None, margin: float, tolerance: float) -> str:
    """One word for a point against a rival.

    It beats it if one of time and accuracy is clearly better (the whole interval is) and the other at worst equal
    (the whole interval within ``margin`` kW, or ``tolerance`` of the time); the other way round it is beaten.
    Clearly better in one and clearly worse in the other is a trade; all else is undecided.
    """
    if difference is None:
        return "undecided"
    faster, slower = ratio.high < 1, ratio.low > 1
    better, worse = difference.high < 0, difference.low > 0
    if (faster and difference.high <= margin) or (better and ratio.high <= 1 + tolerance):
        return "beats it"
    if (slower and difference.low >= -margin) or (worse and ratio.low >= 1 - tolerance):
        return "is beaten"
    return "trades" if (faster and worse) or (slower and better) else "undecided"


def curse(rows: Sequence[Again], of: Callable[[Again], float]) -> float:
    """Median over the points run again of ``of``."""
    return median(of(row) for row in rows)


def rise_in_error(row: Again) -> float:
    """Validation MAE on fresh seeds less that which the search measured, kW."""
    return row.val_mae.median - row.point.val_mae


def change_of_seconds(row: Again) -> float:
    """Seconds alone on the machine over those that the search estimated."""
    return row.seconds.median / row.point.seconds


def _again(found: Searched, point: Point, rules: Rules) -> Again | None:
    runs = found.runs_of(point.name)
    well = tuple(run for run in runs if not run.diverged)
    if not well:
        return None
    return Again(
        point,
        well,
        diverged=len(runs) - len(well),
        val_mae=rules.interval([best_validation(run.history) for run in well]),
        test_mae=rules.interval([run.test_mae for run in well]),
        seconds=rules.interval([run.train_seconds for run in well]),
    )


def _duel(found: Searched, point: Point, rival: str, rules: Rules) -> Duel | None:
    own, other = ({run.seed: run for run in found.runs_of(name)} for name in (point.name, rival))
    seeds = sorted(own.keys() & other.keys())
    if not seeds:
        return None
    ratio = rules.interval([own[seed].train_seconds / other[seed].train_seconds for seed in seeds])
    if any(own[seed].diverged or other[seed].diverged for seed in seeds):
        return Duel(point, rival, ratio, None, "undecided")
    mine, theirs = ([read_forecasts(side[seed].folder) for seed in seeds] for side in (own, other))
    difference = mae_difference(mine, theirs, rules.confidence, rules.bootstrap)
    margin = rules.tolerance * median(other[seed].test_mae for seed in seeds)
    return Duel(point, rival, ratio, difference, verdict(ratio, difference, margin, rules.tolerance))


def isolates(runs: Sequence[Run]) -> bool:
    """Whether anything was left out of these fits' training."""
    return any(run.isolated_fraction > 0 for run in runs)


def finite(value: float) -> float | None:
    """``value``, or ``None`` for what JSON cannot say."""
    return value if math.isfinite(value) else None
