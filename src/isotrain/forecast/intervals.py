"""Intervals around a forecast from its errors on the validation part: split conformal prediction, by lead and day type.

Source: Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World" (2005), the inductive form; finite-sample
ranks as in Lei et al., "Distribution-Free Predictive Inference for Regression" (2018); each end by its own residuals as
in Romano, Patterson and Candes, "Conformalized Quantile Regression" (2019); classes of their own ("Mondrian"): Vovk.

What is guaranteed: if the new residual and the ``m`` of its class are exchangeable, the interval holds it with
probability ``coverage`` or more, whatever the forecaster. What is not: residuals of neighbouring hours resemble each
other and a building changes, so they are *not* exchangeable. The coverage is then approximate, varies more from month
to month than ``m`` suggests, and says nothing of several leads at once. So it is measured: on the validation part by
:func:`cross_fitted`, and on the test part.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isotrain.data.windows import Windows
from isotrain.errors import InputError

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
DAY_TYPES = ("off", "working")  # rows of the limits: index = the flag `working` of the target hour


@dataclass(frozen=True)
class Intervals:
    """What to add to a forecast of each day type and lead, kW; K leads.

    Example:
        >>> residuals = np.linspace(-1, 1, 401)[:, None]  # of 401 origins and one lead
        >>> intervals = calibrate(residuals, np.ones((401, 1), dtype=bool), coverage=0.8)
        >>> low, high = intervals.around(np.array([[10.0]]), np.array([[True]]))
        >>> round(float(low[0, 0]), 1), round(float(high[0, 0]), 1)
        (9.2, 10.8)
    """

    coverage: float
    low: Floats  # (2, K), rows as in DAY_TYPES
    high: Floats  # (2, K)
    pooled: Flags  # (2, K): too few residuals of the day type, so those of both stand in

    def around(self, forecast: NDArray[Any], working: Flags) -> tuple[Floats, Floats]:
        """Lower and upper end, kW, of ``forecast`` (m, K) where the target hours are ``working`` (m, K) or not."""
        row, lead = working.astype(np.int64), np.arange(self.low.shape[1])
        return forecast + self.low[row, lead], forecast + self.high[row, lead]

    def holds(self, residuals: NDArray[Any], working: Flags) -> Floats:
        """(m, K): 1 where the truth lies inside, 0 where not, NaN where ``residuals`` (truth - forecast) is unknown."""
        low, high = self.around(np.zeros(residuals.shape), working)
        inside = ((low <= residuals) & (residuals <= high)).astype(np.float64)
        return np.where(np.isnan(residuals), np.nan, inside)


def calibrate(residuals: NDArray[Any], working: Flags, coverage: float) -> Intervals:
    """Limits such that a share ``coverage`` of future residuals lies between them, half of the rest on each side.

    ``residuals`` (m, K): truth - forecast, kW, of origins that the forecaster was not trained on, NaN where unknown;
    ``working`` (m, K): whether the target hour belongs to a working day. A day type with too few residuals at a
    lead takes those of both types (``pooled``). Raises :class:`InputError` where these are too few as well.
    """
    if not 0 < coverage < 1:
        raise InputError(f"coverage = {coverage}: give a share between 0 and 1, such as 0.8")
    leads = residuals.shape[1]
    low, high, pooled = np.empty((2, leads)), np.empty((2, leads)), np.zeros((2, leads), dtype=bool)
    for lead in range(leads):
        known = ~np.isnan(residuals[:, lead])
        all_types = np.sort(residuals[known, lead].astype(np.float64))
        for row in range(2):
            own = np.sort(residuals[known & (working[:, lead] == bool(row)), lead].astype(np.float64))
            pooled[row, lead] = len(own) < fewest(coverage)
            low[row, lead], high[row, lead] = _limits(all_types if pooled[row, lead] else own, coverage)
    return Intervals(coverage, low, high, pooled)


def cross_fitted(residuals: NDArray[Any], working: Flags, weeks: NDArray[np.int64], coverage: float) -> Floats:
    """What :meth:`Intervals.holds` says of each half of the weeks when the other half calibrates; (m, K).

    ``weeks`` (m,): number of the week of each origin; even weeks against odd ones. Whole weeks, since the
    residuals of neighbouring origins are nearly the same, so calibrating on one and testing on the other would flatter.
    """
    holds = np.full(residuals.shape, np.nan)
    even = weeks % 2 == 0
    for half in (even, ~even):
        other = calibrate(residuals[~half], working[~half], coverage)
        holds[half] = other.holds(residuals[half], working[half])
    return holds


def coverage_of(holds: Floats, working: Flags) -> dict[str, Any]:
    """Shares of the known hours that are inside: ``all``, by day type and ``by_lead``; None where nothing is known."""
    return {
        "all": _mean(holds),
        **{name: _mean(holds[working == bool(row)]) for row, name in enumerate(DAY_TYPES)},
        "by_lead": [_mean(column) for column in holds.T],
    }


def working_hours(windows: Windows, origins: NDArray[np.int64]) -> Flags:
    """(m, K): whether each target hour of ``origins`` (m,) belongs to a working day of the building's calendar."""
    working = windows.ahead[:, windows.names("ahead").index("working")] > 0.5
    return np.asarray(working[origins[:, None] + np.arange(windows.meta["horizon"])])


def fewest(coverage: float) -> int:
    """How many residuals it takes: with fewer, no finite limit has the guarantee."""
    m = 1
    while _rank(m, coverage) > m:
        m += 1
    return m


def _limits(ordered: Floats, coverage: float) -> tuple[float, float]:
    """The k-th smallest and the k-th largest residual, k such that each side misses (1 - coverage) / 2 at most."""
    m = len(ordered)
    rank = _rank(m, coverage)
    if rank > m:
        raise InputError(
            f"{m} residuals at a lead are too few for intervals of coverage {coverage:g}, which take "
            f"{fewest(coverage)}: lower compare.coverage or enlarge window.validation"
        )
    return float(ordered[m - rank]), float(ordered[rank - 1])


def _rank(m: int, coverage: float) -> int:
    return math.ceil((m + 1) * (1 + coverage) / 2 - 1e-9)  # 1e-9: 0.9 * 10 is not above 9


def _mean(holds: Floats) -> float | None:
    known = holds[~np.isnan(holds)]
    return float(known.mean()) if len(known) else None
