"""The methods that no other method beats at everything, what they reach together, a few that stand for all."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


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
