"""Signals that cannot look ahead: the verbs from which every feature is made.

A :class:`Past` has a row an hour, known when that hour ends; a :class:`Known` has a row a target hour, known at
every origin that forecasts the hour. Every verb keeps that promise, so whatever is written with them keeps it.
Each signal knows its *reach*: over how many hours it looks back, for a :class:`Past` its own hour included.

A window's sums are taken hour by hour in the same order in every row, not by a running sum: a row is the same
to the last bit wherever the series starts.
"""

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from isotrain.data.windows import DAY

Values = NDArray[np.float64]
TYPE_DAYS = 14  # days searched for those of a kind: a fortnight holds two weekends


@dataclass(frozen=True, eq=False)
class _Signal:
    values: Values
    horizon: int  # leads, hours
    reach: int = 1

    def __sub__(self, other: Self) -> Self:
        return replace(self, values=self.values - other.values, reach=max(self.reach, other.reach))

    def __truediv__(self, number: float) -> Self:
        return replace(self, values=self.values / number)

    def lag(self, hours: int) -> Self:
        """The value ``hours`` before; the first value before the start."""
        if hours < 0:
            raise ValueError(f"a lag of {hours} h would look ahead")
        before = np.maximum(np.arange(len(self.values)) - hours, 0)
        return replace(self, values=self.values[before], reach=self.reach + hours)


@dataclass(frozen=True, eq=False)
class Past(_Signal):
    """``values`` (n,): row t uses hours ``<= t``. Windows are shorter at the series' very beginning."""

    def mean(self, hours: int) -> "Past":
        """Mean of the ``hours`` that end with each."""
        return self._window(hours, self._sum(self.values, hours) / self._count(hours))

    def spread(self, hours: int) -> "Past":
        """Standard deviation (of a sample) of the ``hours`` that end with each; 0 where there is but one."""
        mean, total = self.mean(hours).values, np.zeros(len(self.values))
        for back in range(min(hours, len(total))):
            total[back:] += (self.values[: len(total) - back] - mean[back:]) ** 2
        return self._window(hours, np.sqrt(total / np.maximum(self._count(hours) - 1, 1)))

    def quantile(self, hours: int, share: float) -> "Past":
        """The value that ``share`` of the ``hours`` that end with each stay below, interpolated."""
        start = [np.quantile(self.values[: end + 1], share) for end in range(min(hours - 1, len(self.values)))]
        whole = [np.quantile(sliding_window_view(self.values, hours), share, axis=1)] if self._fits(hours) else []
        return self._window(hours, np.concatenate([np.array(start), *whole]))

    def change(self, hours: int) -> "Past":
        """How much more than ``hours`` before."""
        return self - self.lag(hours)

    @property
    def first_day(self) -> int:
        """The fewest whole days before a target hour that are known at every lead."""
        return math.ceil(self.horizon / DAY)

    def days_before(self, days: int) -> "Known":
        """Of each target hour, the value ``days`` whole days before it."""
        if days < self.first_day:
            raise ValueError(f"{days} days before a target is not yet known {self.horizon} h ahead")
        hours = np.arange(len(self.values) + self.horizon) - DAY * days
        return Known(self.values[np.maximum(hours, 0)], self.horizon, self.reach + DAY * days - 1)

    def same_kind_of_day(self, kind: "Known", count: int) -> "Known":
        """Of each target hour, the mean at its hour over the last ``count`` known days of the same ``kind``.

        Fewer than ``count`` if a fortnight holds no more; the last known day if it holds none.
        """
        last = self.first_day + TYPE_DAYS - 1
        total, found = np.zeros(len(kind.values)), np.zeros(len(kind.values))
        for days in range(self.first_day, last + 1):
            inside = np.arange(len(total)) >= DAY * days
            wanted = inside & (kind.lag(DAY * days).values == kind.values) & (found < count)
            total += np.where(wanted, self.days_before(days).values, 0.0)
            found += wanted
        values = np.where(found > 0, total / np.maximum(found, 1), self.days_before(self.first_day).values)
        return Known(values, self.horizon, max(self.reach - 1, kind.reach) + DAY * last)

    def _window(self, hours: int, values: Values) -> "Past":
        return replace(self, values=values, reach=self.reach + hours - 1)

    def _fits(self, hours: int) -> bool:
        return len(self.values) >= hours

    def _count(self, hours: int) -> Values:
        count: Values = np.minimum(np.arange(len(self.values)) + 1.0, hours)
        return count

    @staticmethod
    def _sum(values: Values, hours: int) -> Values:
        total = values.copy()
        for back in range(1, min(hours, len(values))):
            total[back:] += values[:-back]
        return total


@dataclass(frozen=True, eq=False)
class Known(_Signal):
    """``values`` (n + horizon,): row f is known at every origin in ``f - horizon + 1 ... f``."""

    reach: int = 0

    def now(self) -> Past:
        """The same of each hour of the series: what is known before an hour is known when it ends."""
        return Past(self.values[: len(self.values) - self.horizon], self.horizon, self.reach + 1)
