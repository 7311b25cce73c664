"""The methods that no other method beats at everything."""

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
