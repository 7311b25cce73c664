"""What a search found, as plain values: points, their front, its growth. Knows neither Optuna nor files."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from isotrain.compare.results import Run
from isotrain.compare.statistics import hypervolume, pareto, spread_out

MARGIN = 1.1  # of the reference beyond the worst: else the worst itself would add no area


@dataclass(frozen=True)
class Point:
    """A trial that finished with values: kW of validation MAE and training seconds, as the search measured them.

    ``values``: of the objectives, each minimised, in their order. ``settings``: dotted path -> value. ``known``:
    the method that it is, if it was enqueued as one. ``early``: it was stopped before its end, so that its values
    do not count towards the front. ``command`` does it again.
    """

    number: int
    values: tuple[float, ...]
    val_mae: float
    seconds: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    known: str | None = None
    early: bool = False
    command: str = ""

    @property
    def name(self) -> str:
        """Its method's name when it is run again."""
        return f"search-{self.number}"

    @property
    def counts(self) -> bool:
        """Whether it may stand on the front: run to its end, every value finite (a target never reached is not)."""
        return not self.early and all(math.isfinite(value) for value in self.values)


@dataclass(frozen=True)
class Importance:
    """How much each parameter matters for one objective, with what chance alone reaches in one draw of twenty."""

    objective: str
    trials: int
    share: Mapping[str, float]
    chance: Mapping[str, float]


@dataclass(frozen=True)
class Searched:
    """A study: ``points`` in the order in which they finished, the trials that failed by why.

    ``pruned``: trials that fell behind on the way to a target.
    ``startup``: points after which the reference of the hypervolume is fixed. ``data``: source, simulated, rows and
    sha256 of the series. ``hosts``: the machines of the trials. ``confirmed``: fits of some points (method
    :attr:`Point.name`) and of the methods ``against``, on the same seeds, none of which the search saw.

    Example:
        >>> points = [Point(n, (mae, s), mae, s) for n, (mae, s) in enumerate([(5.0, 10.0), (5.2, 4.0), (5.3, 6.0)])]
        >>> found = Searched("small", ("val_mae", "seconds"), "tpe", "", tuple(points), startup=2, data={})
        >>> [point.number for point in found.front]  # point 1 beats point 2 in both
        [1, 0]
    """

    study: str
    objectives: tuple[str, ...]
    sampler: str
    began: str
    points: tuple[Point, ...]
    startup: int
    data: Mapping[str, Any]
    pruned: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)
    repeated: int = 0
    hosts: tuple[str, ...] = ()
    importances: tuple[Importance, ...] = ()
    against: tuple[str, ...] = ()
    confirmed: tuple[Run, ...] = ()

    @cached_property
    def front(self) -> tuple[Point, ...]:
        """The points that no other beats in every objective, the fastest first; those stopped early never count."""
        whole = [point for point in self.points if point.counts]
        best = [whole[index] for index in pareto([_plane(point) for point in whole])] if whole else []
        return tuple(sorted(best, key=lambda point: (point.seconds, point.number)))

    @cached_property
    def reference(self) -> tuple[float, float] | None:
        """The corner of the hypervolume, :func:`reference_of` the points that count."""
        return reference_of([_plane(point) for point in self.points if point.counts], self.startup)

    @cached_property
    def hypervolumes(self) -> tuple[float, ...]:
        """The area that the front dominates, after each finished point; 0 before there is a reference."""
        return tuple(history([_plane(p) if p.counts else None for p in self.points], self.startup))

    def chosen(self, count: int) -> list[Point]:
        """Up to ``count`` points to run again: the best of one value, or the front's ends and some between."""
        if len(self.objectives) == 1:
            whole = [point for point in self.points if point.counts]
            return sorted(whole, key=lambda point: (point.values, point.number))[:count]
        planes = [_plane(point) for point in self.front]
        at = spread_out(planes, count, self.reference or _beyond(planes)) if planes else []
        return [self.front[index] for index in at]

    @cached_property
    def again(self) -> tuple[Point, ...]:
        """The points that were run again, the fastest first."""
        names = {run.method for run in self.confirmed}
        return tuple(sorted((p for p in self.points if p.name in names), key=lambda p: (p.seconds, p.number)))

    def runs_of(self, method: str) -> list[Run]:
        """The confirming fits of ``method``, by seed."""
        return sorted((run for run in self.confirmed if run.method == method), key=lambda run: run.seed)


Plane = tuple[float, float]


def reference_of(points: Sequence[Plane], startup: int) -> Plane | None:
    """A tenth beyond the worst of each column among the first ``startup`` of ``points``; ``None`` with fewer.

    Fixed from then on, so that hypervolumes at different times compare; what lies beyond adds nothing to them.
    """
    return _beyond(points[:startup]) if len(points) >= max(startup, 1) else None


def history(points: Sequence[Plane | None], startup: int) -> list[float]:
    """Hypervolume after each of ``points`` in the order in which they finished, within :func:`reference_of` them.

    ``None`` stands for a point without values that count. Nothing before the reference is fixed: 0.
    """
    reference = reference_of([point for point in points if point], startup)
    front: list[Plane] = []  # alone, or a study of thousands of trials would take minutes
    seen, grown = 0, []
    for point in points:
        if point:
            seen += 1
            front = [(*front, point)[index] for index in pareto([*front, point])]
        grown.append(hypervolume(front, reference) if reference and seen >= startup else 0.0)
    return grown


def _plane(point: Point) -> Plane:
    """The objectives as two numbers: one alone is taken twice."""
    return point.values[0], point.values[-1]


def _beyond(points: Sequence[Plane]) -> Plane:
    return MARGIN * max(x for x, _ in points), MARGIN * max(y for _, y in points)
