"""What features are written from: signals that cannot use a later hour, and the numbers that scale them.

A :class:`Past` has a row an hour, known when that hour ends; a :class:`Known` has a row a target hour, known at every
origin that forecasts the hour. Every method keeps that promise, so every feature written with these methods keeps it.
Each signal has a *reach*: the number of hours that it goes back over, for a :class:`Past` its own hour included.

A window's sums are taken hour by hour in the same order in every row, not by a running sum: a row is the same to the
last bit wherever the series starts. What scales a signal (:func:`fit_statistics`) comes from the training part alone,
is kept with the windows, and is used as it stands on new data.
"""

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from isotrain.data.calendar import calendar_features, climatology, usual
from isotrain.data.schema import TIME
from isotrain.data.windows import DAY, LEVEL_HOURS, Facts, Fitted, Statistics, Weather
from isotrain.errors import InputError

Values = NDArray[np.float64]
SORTED = 4096  # windows at a time: they are copied to be sorted, and stay in the processor's cache
TYPE_DAYS = 14  # days searched for those of a kind: a fortnight holds two weekends
WEATHER = ("temperature", "solar")  # kinds of columns of which features are made
REGRESSORS = (*WEATHER, "other")  # kinds of columns that are read as they are, up to the origin


@dataclass(frozen=True, eq=False)
class _Signal:
    values: Values
    horizon: int  # leads, hours
    reach: int = 1

    def __sub__(self, other: Self) -> Self:
        return replace(self, values=self.values - other.values, reach=max(self.reach, other.reach))

    def __truediv__(self, number: float) -> Self:
        return replace(self, values=self.values / number)

    def mean(self, hours: int) -> Self:
        """Mean of the ``hours`` that end with each."""
        return self._window(hours, self._sum(self.values, hours) / self._count(hours))

    def lag(self, hours: int) -> Self:
        """The value ``hours`` before; the first value before the start."""
        if hours < 0:
            raise ValueError(f"a lag of {hours} h would use later hours")
        before = np.maximum(np.arange(len(self.values)) - hours, 0)
        return replace(self, values=self.values[before], reach=self.reach + hours)

    def _window(self, hours: int, values: Values) -> Self:
        return replace(self, values=values, reach=self.reach + hours - 1)

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
class Past(_Signal):
    """``values`` (n,): row t uses hours ``<= t``. Windows are shorter at the series' very beginning."""

    def spread(self, hours: int) -> "Past":
        """Standard deviation (of a sample) of the ``hours`` that end with each; 0 where there is but one."""
        mean, total = self.mean(hours).values, np.zeros(len(self.values))
        for back in range(min(hours, len(total))):
            total[back:] += (self.values[: len(total) - back] - mean[back:]) ** 2
        return self._window(hours, np.sqrt(total / np.maximum(self._count(hours) - 1, 1)))

    def quantile(self, hours: int, share: float) -> "Past":
        """The value that ``share`` of the ``hours`` that end with each stay below, interpolated."""
        known: dict[tuple[int, float], Past] = self.__dict__.setdefault("_quantiles", {})  # families share some
        if (hours, share) not in known:
            start = [np.quantile(self.values[: end + 1], share) for end in range(min(hours - 1, len(self.values)))]
            windows = sliding_window_view(self.values, hours) if self._fits(hours) else self.values[:0, None]
            pieces = [windows[at : at + SORTED] for at in range(0, len(windows), SORTED)]
            whole = [np.quantile(piece, share, axis=1) for piece in pieces]
            known[hours, share] = self._window(hours, np.concatenate([np.array(start), *whole]))
        return known[hours, share]

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

    def _fits(self, hours: int) -> bool:
        return len(self.values) >= hours


@dataclass(frozen=True, eq=False)
class Known(_Signal):
    """``values`` (n + horizon,): row f is known at every origin in ``f - horizon + 1 ... f``."""

    reach: int = 0

    def now(self) -> Past:
        """The same of each hour of the series: what is known before an hour is known when it ends."""
        return Past(self.values[: len(self.values) - self.horizon], self.horizon, self.reach + 1)


@dataclass(frozen=True)
class Signals:
    """All that a family of features may read: loads in kW, weather and other regressors standardised, the calendar."""

    load: Past
    level: Past
    spread: Past
    scale: float  # kW
    calendar: dict[str, Known]
    weather: dict[str, Past]  # by column
    ahead: dict[str, Known]  # by column, of those that are known ahead: (n + horizon,)
    first: dict[str, Past]  # by kind: its first column
    usual: dict[str, Known]  # by kind: the usual value at that time of year

    def above_level(self, load: Past) -> Past:
        """``load`` (kW) relative to the trailing week's mean, in the series' standard deviations."""
        return (load - self.level) / self.scale


def fit_statistics(table: pd.DataFrame, facts: Facts) -> Statistics:
    """Every number that scales a feature, from ``table``: the rows of the training part alone.

    Raises :class:`InputError` if the target is constant.
    """
    target = facts["target"]
    scale = float(table[target].std())
    if not scale > 0:
        raise InputError(f"{facts['source']}: {target} is constant over the training part: there is nothing to learn")
    weather: list[Weather] = []
    for name, about in facts["columns"].items():
        if about["kind"] in REGRESSORS:
            mean, std = float(table[name].mean()), float(table[name].std())
            weather.append({"name": name, "kind": about["kind"], "mean": mean, "std": std if std > 0 else 1.0})
            if ahead := facts["ingest"]["columns"].get(name, {}).get("ahead"):
                weather[-1]["ahead"] = ahead
    temperature = _first_of("temperature", weather)
    local = pd.DatetimeIndex(table[TIME]).tz_convert(facts["time_zone"])
    climate = {"temperature": climatology(_standard(table, temperature), local)} if temperature else {}
    return {"scale": scale, "weather": weather, "climate": climate}


def signals(table: pd.DataFrame, meta: Fitted, future: pd.DataFrame | None = None) -> Signals:
    """The signals of ``table`` (n hours), scaled by ``meta["statistics"]``.

    ``future`` holds the columns that are known ahead in the ``horizon`` hours after the table; left out, each of them
    repeats its last value there, which is right for origins that do not reach so far.
    """
    horizon, statistics = meta["horizon"], meta["statistics"]
    hours = pd.date_range(table[TIME].iloc[0], periods=len(table) + horizon, freq="h")
    calendar = calendar_features(hours, meta["time_zone"], meta["country"])
    weather = {about["name"]: Past(_standard(table, about), horizon) for about in statistics["weather"]}
    later = table.iloc[[-1] * horizon] if future is None else future
    ahead = {
        about["name"]: Known(np.concatenate([_standard(table, about), _standard(later, about)]), horizon)
        for about in statistics["weather"]
        if about.get("ahead")
    }
    firsts = {kind: _first_of(kind, statistics["weather"]) for kind in WEATHER}
    local = hours.tz_convert(meta["time_zone"])
    load = Past(table[meta["target"]].to_numpy(np.float64), horizon)
    return Signals(
        load=load,
        level=load.mean(LEVEL_HOURS),
        spread=load.spread(LEVEL_HOURS),
        scale=statistics["scale"],
        calendar={str(name): Known(column.to_numpy(np.float64), horizon) for name, column in calendar.items()},
        weather=weather,
        ahead=ahead,
        first={kind: weather[about["name"]] for kind, about in firsts.items() if about},
        usual={kind: Known(usual(climate, local), horizon) for kind, climate in statistics["climate"].items()},
    )


def _first_of(kind: str, weather: list[Weather]) -> Weather | None:
    return next((about for about in weather if about["kind"] == kind), None)


def _standard(table: pd.DataFrame, about: Weather) -> Values:
    values: Values = (table[about["name"]].to_numpy(np.float64) - about["mean"]) / about["std"]
    return values
