"""Medians with bootstrap intervals, speed-ups that survive infinite times, the trade-off's front and hypervolume.

The percentile bootstrap is Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. Its quantiles are
values that occurred (``inverted_cdf``): interpolating towards infinity would give NaN.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isotrain.forecast.forecasts import Forecasts

SEED = 20210
WEEK = 7 * 24 * 3600
FIRST_MONDAY = 4 * 24 * 3600  # 1970-01-05, in seconds since 1970-01-01


@dataclass(frozen=True)
class Interval:
    """A median between the ends of its bootstrap interval; infinite values are allowed.

    Example:
        >>> median_interval([2.0, 3.0, 2.5], confidence=0.9, resamples=2000)
        Interval(median=2.5, low=2.0, high=3.0)
    """

    median: float
    low: float
    high: float

    def as_json(self) -> dict[str, float | None]:
        """``{median, low, high}`` with null for what is infinite, which JSON cannot say."""
        values = {"median": self.median, "low": self.low, "high": self.high}
        return {name: value if math.isfinite(value) else None for name, value in values.items()}


def median_interval(values: Sequence[float], confidence: float, resamples: int) -> Interval:
    """Median of ``values`` with its percentile bootstrap interval.

    The generator is seeded afresh, so equal values always have equal intervals. Of three values or fewer the
    interval at 90 % is their range: the smallest is the median of a resample in 7 of 27 cases, not in 5 %.
    Raises ``ValueError`` without values.
    """
    if len(values) == 0:
        raise ValueError("an interval needs at least one value")
    sample = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(SEED).integers(len(sample), size=(resamples, len(sample)))
    low, high = _ends(_median(sample[draws]), confidence)
    return Interval(float(_median(sample[None, :])[0]), low, high)


def speedup(reference: float, own: float) -> float:
    """``reference / own`` in seconds to target: above 1 if the own fit is faster.

    An own fit that missed the target has -inf, whatever the reference did, so that medians sort it below
    everything. A reference that missed what the own fit reached gives +inf, a speed-up without bound.
    """
    if math.isinf(own):
        return -math.inf
    if own == 0:
        return 1.0 if reference == 0 else math.inf
    return reference / own


def week_of(time: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Number of the week, from Monday 00:00 UTC, of each ``time`` (UTC seconds)."""
    return (time - FIRST_MONDAY) // WEEK


def mae_difference(
    a: Sequence[Forecasts],
    b: Sequence[Forecasts],
    confidence: float,
    resamples: int,
    scale_at: Callable[[npt.NDArray[np.int64]], npt.NDArray[Any]] | None = None,
) -> Interval | None:
    """Test MAE of method ``a`` less that of ``b`` (kW) on their common origins, with its week-block interval.

    ``scale_at`` gives what the errors at origins (m,) are divided by (m,), such as the standard deviation of each
    origin's series; without it they are kW.

    Errors are averaged over each method's seeds; whole weeks are drawn with replacement, both methods' errors
    of a week together, since errors of neighbouring hours are alike (Künsch 1989, blocks fixed to the
    calendar). Of many series a week of all of them is one block: buildings share their weather and their holidays.
    The interval speaks of other weeks, not of other seeds; ``median`` holds the difference itself. ``None`` if the
    methods share no origin with a known truth.
    """
    common = a[0].origins
    for forecasts in (*a[1:], *b):
        common = np.intersect1d(common, forecasts.origins)
    difference = _errors(a, common) - _errors(b, common)
    if scale_at is not None:
        difference = difference / np.asarray(scale_at(common), np.float64)[:, None]
    known = ~np.isnan(difference)
    weeks, block = np.unique(week_of(a[0].time[np.searchsorted(a[0].origins, common)]), return_inverse=True)
    sums = np.bincount(block, np.where(known, difference, 0.0).sum(axis=1), len(weeks))
    counts = np.bincount(block, known.sum(axis=1), len(weeks))
    sums, counts = sums[counts > 0], counts[counts > 0]
    if len(sums) == 0:
        return None
    draws = np.random.default_rng(SEED).integers(len(sums), size=(resamples, len(sums)))
    low, high = _ends(sums[draws].sum(axis=1) / counts[draws].sum(axis=1), confidence)
    return Interval(float(sums.sum() / counts.sum()), low, high)


def _errors(seeds: Sequence[Forecasts], origins: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Absolute error (origins, leads) at ``origins``, averaged over ``seeds``."""
    rows = [np.searchsorted(forecasts.origins, origins) for forecasts in seeds]
    errors = [np.abs(f.prediction[at] - f.truth[at]) for f, at in zip(seeds, rows, strict=True)]
    mean: npt.NDArray[np.float64] = np.mean(errors, axis=0)
    return mean


def _median(samples: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Median of each row. Half-way between -inf and +inf there is nothing: counted as missed."""
    with np.errstate(invalid="ignore"):
        medians = np.median(samples, axis=1)
    return np.where(np.isnan(medians), -np.inf, medians)


def _ends(values: npt.NDArray[np.float64], confidence: float) -> tuple[float, float]:
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(values, [tail, 1.0 - tail], method="inverted_cdf")
    return float(low), float(high)


def pareto(points: npt.ArrayLike) -> list[int]:
    """Indices of the rows of ``points`` (n, 2) that no row dominates, in order; both columns are minimised.

    A row dominates another if it is nowhere larger and somewhere smaller, so equal rows stay together.
    Infinity is allowed; NaN has no place in an order and raises ``ValueError``, as a wrong shape does.
    """
    values = np.asarray(points, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != 2:
        raise ValueError(f"points must have the shape (n, 2), not {values.shape}")
    if np.isnan(values).any():
        raise ValueError("points must not hold NaN")
    x, y = values.T
    nowhere_larger = (x <= x[:, None]) & (y <= y[:, None])
    somewhere_smaller = (x < x[:, None]) | (y < y[:, None])
    dominated = (nowhere_larger & somewhere_smaller).any(axis=1)
    return [int(index) for index in np.flatnonzero(~dominated)]


def hypervolume(points: npt.ArrayLike, reference: Sequence[float]) -> float:
    """Area that the rows of ``points`` (n, 2), both columns minimised, dominate within ``reference``.

    A row that is not below ``reference`` in both columns adds nothing. Zitzler and Thiele, IEEE Transactions on
    Evolutionary Computation 3 (1999) 257.
    """
    values = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    inside = values[(values < reference).all(axis=1)]
    area, above = 0.0, reference[1]
    for x, y in sorted(map(tuple, inside[pareto(inside)])):
        area += (reference[0] - x) * (above - y)
        above = y
    return float(area)


def spread_out(points: npt.ArrayLike, count: int, reference: Sequence[float]) -> list[int]:
    """Indices of ``count`` rows of the front of ``points`` (n, 2), or of all if it has fewer, in the front's order.

    First the two ends, then, one at a time, the row that adds most to the :func:`hypervolume` of those taken.
    """
    values = np.asarray(points, dtype=np.float64)
    left = _without_equals(values, pareto(values))
    taken = list(dict.fromkeys([left[0], left[-1]]))[:count] if left else []
    while len(taken) < min(count, len(left)):
        rest = [index for index in left if index not in taken]
        taken.append(max(rest, key=lambda index: hypervolume(values[[*taken, index]], reference)))
    return sorted(taken, key=left.index)


def _without_equals(values: npt.NDArray[np.float64], front: Sequence[int]) -> list[int]:
    """``front`` along its first column, of equal rows the first."""
    first = {tuple(values[index]): index for index in reversed(front)}
    return [first[row] for row in sorted(first)]
