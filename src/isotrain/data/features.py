"""The families of features, one small function each (name -> column), and their columns for a series.

They are written with the methods of :mod:`isotrain.data.signals` alone, so none can use a later hour. Loads of ``lags``
and ``recent`` stay in kW; other loads are in the series' standard deviations, as the weather is in its own.
docs/features.md has the formula of each.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from isotrain.data.signals import WEATHER, Known, Past, Signals
from isotrain.data.windows import ARRAYS, DAY, KNOWN_AHEAD, Column, Floats

WEEK = 7  # days


def load_now(s: Signals) -> dict[str, Past]:
    return {"load": s.above_level(s.load)}


def weather_now(s: Signals) -> dict[str, Past]:
    return s.weather


def calendar_now(s: Signals) -> dict[str, Past]:
    return {name: column.now() for name, column in s.calendar.items()}


def calendar_ahead(s: Signals) -> dict[str, Known]:
    return s.calendar


def known_ahead(s: Signals) -> dict[str, Known]:
    return s.ahead | {f"{name}_mean_24h": column.mean(24) for name, column in s.ahead.items()}


def load_history(s: Signals) -> dict[str, Past]:
    past = {
        "load_lag_24h": s.load.lag(24),
        "load_lag_168h": s.load.lag(168),
        "load_mean_24h": s.load.mean(24),
        "load_low_24h": s.load.quantile(24, 0.05),
    }
    return {name: s.above_level(load) for name, load in past.items()} | {"load_spread_168h": s.spread / s.scale}


def day_type_now(s: Signals) -> dict[str, Past]:
    return {f"load_same_day_type_{k}": s.above_level(_same_type(s, k).now()) for k in (1, 3)}


def day_type_lags(s: Signals) -> dict[str, Known]:
    return {f"load_same_day_type_{k}": _same_type(s, k) for k in (1, 3, 5)}


def day_type_ahead(s: Signals) -> dict[str, Known]:
    yesterday, last_week = _yesterday(s), _last_week(s)
    return {f"working_{days}d_before": s.calendar["working"].lag(DAY * days) for days in (yesterday, last_week)}


def day_type_surprise(s: Signals) -> dict[str, Past]:
    surprise = s.load - _same_type(s, 1).now()
    return {f"load_surprise_{hours}h": surprise.mean(hours) / s.scale for hours in (6, 24)}


def main_lags(s: Signals) -> dict[str, Known]:
    return _days_before(s, [_yesterday(s), _last_week(s)])


def other_lags(s: Signals) -> dict[str, Known]:
    first, last_week = _yesterday(s), _last_week(s)
    return _days_before(s, sorted({*range(first, first + WEEK), last_week + WEEK} - {first, last_week}))


def load_at_origin(s: Signals) -> dict[str, Past]:
    load, day = s.load, s.load.mean(24)
    relative = {
        **{f"load_lag_{hours}h": load.lag(hours) for hours in (0, 1, 2, 3, 24)},
        **{f"load_mean_{hours}h": load.mean(hours) for hours in (24, 336)},
        **{f"load_low_{hours}h": load.quantile(hours, 0.05) for hours in (24, 168)},
        "load_high_24h": load.quantile(24, 0.95),
    }
    differences = {
        "load_spread_24h": load.spread(24),
        "load_spread_168h": s.spread,
        **{f"load_mean_24h_change_{hours}h": day.change(hours) for hours in (24, 168)},
        **{f"load_mean_3h_change_{hours}h": load.mean(3).change(hours) for hours in (24, 168)},
    }
    return {name: s.above_level(column) for name, column in relative.items()} | {
        name: column / s.scale for name, column in differences.items()
    }


def temperature_history(s: Signals) -> dict[str, Past]:
    t = s.first["temperature"]
    return {
        "temperature_mean_24h": t.mean(24),
        "temperature_lag_24h": t.lag(24),
        "temperature_lag_168h": t.lag(168),
    }


def temperature_ahead(s: Signals) -> dict[str, Known]:
    return _weather_before("temperature", s.first["temperature"])


def solar_ahead(s: Signals) -> dict[str, Known]:
    return _weather_before("solar", s.first["solar"])


def temperature_at_origin(s: Signals) -> dict[str, Past]:
    t, day = s.first["temperature"], s.first["temperature"].mean(24)
    return {
        "temperature": t,
        **{f"temperature_mean_{hours}h": t.mean(hours) for hours in (24, 72, 168)},
        **{f"temperature_mean_24h_lag_{hours}h": day.lag(hours) for hours in (24, 48)},
        **{f"temperature_change_{hours}h": t.change(hours) for hours in (3, 24)},
        "temperature_mean_24h_change_24h": day.change(24),
    }


def solar_at_origin(s: Signals) -> dict[str, Past]:
    return {"solar_mean_24h": s.first["solar"].mean(24)}


def climate_ahead(s: Signals) -> dict[str, Known]:
    return {"temperature_usual": s.usual["temperature"]}


def climate_at_origin(s: Signals) -> dict[str, Past]:
    return {"temperature_mean_24h_unusual": s.first["temperature"].mean(24) - s.usual["temperature"].now()}


def recent_loads(s: Signals) -> dict[str, Past]:
    return {f"load_lag_{hours}h": s.load.lag(hours) for hours in (0, 1, 2, 3, 23, 24, 25, 167, 168, 169)}


def recent_statistics(s: Signals) -> dict[str, Past]:
    return {"load_mean_24h": s.load.mean(24), "load_low_24h": s.load.quantile(24, 0.05)}


def day_type_recent(s: Signals) -> dict[str, Past]:
    return {f"load_same_day_type_{k}": _same_type(s, k).now() for k in (1, 3)}


def _yesterday(s: Signals) -> int:
    return s.load.first_day


def _last_week(s: Signals) -> int:
    """The first whole weeks before a target, in days, that are known at every lead."""
    return WEEK * -(-s.load.first_day // WEEK)


def _days_before(s: Signals, days: Sequence[int]) -> dict[str, Known]:
    return {f"load_{d}d_before": s.load.days_before(d) for d in days}


def _same_type(s: Signals, count: int) -> Known:
    return s.load.same_kind_of_day(s.calendar["working"], count)


def _weather_before(name: str, weather: Past) -> dict[str, Known]:
    first = weather.first_day
    days = sorted({first, first + 1, WEEK * -(-first // WEEK)})
    return {f"{name}_{d}d_before": weather.days_before(d) for d in days}


@dataclass(frozen=True)
class Family:
    """Columns of one array that are switched on and off together.

    Attributes:
        array: the array of :class:`.windows.Windows` that the columns belong to.
        group: the name under which ``model.leave_out`` of params.yaml leaves them out.
        of: gives name -> column; for ``ahead`` and ``lags`` a column is a :class:`Known`, else a :class:`Past`.
        plain: whether the plain input set has them too.
        needs: the kind of weather without which the family does not exist.
    """

    array: str
    group: str
    of: Callable[[Signals], Mapping[str, Past | Known]]
    plain: bool = False
    needs: str | None = None


FEATURES = (
    Family("inputs", "load", load_now, plain=True),
    Family("inputs", "weather", weather_now, plain=True),
    Family("inputs", "calendar", calendar_now, plain=True),
    Family("inputs", "load_history", load_history),
    Family("inputs", "day_type", day_type_now),
    Family("inputs", "weather_history", temperature_history, needs="temperature"),
    Family("ahead", "calendar", calendar_ahead, plain=True),
    Family("ahead", KNOWN_AHEAD, known_ahead, plain=True),
    Family("ahead", "day_type", day_type_ahead),
    Family("ahead", "weather_history", temperature_ahead, needs="temperature"),
    Family("ahead", "weather_history", solar_ahead, needs="solar"),
    Family("ahead", "climate", climate_ahead, needs="temperature"),
    Family("lags", "daily_lags", main_lags, plain=True),
    Family("lags", "daily_lags", other_lags),
    Family("lags", "day_type", day_type_lags),
    Family("origin", "origin_statistics", load_at_origin),
    Family("origin", "day_type", day_type_surprise),
    Family("origin", "weather_history", temperature_at_origin, needs="temperature"),
    Family("origin", "weather_history", solar_at_origin, needs="solar"),
    Family("origin", "climate", climate_at_origin, needs="temperature"),
    Family("recent", "recent", recent_loads, plain=True),
    Family("recent", "recent", recent_statistics),
    Family("recent", "day_type", day_type_recent),
)


@dataclass(frozen=True)
class Features:
    """The five arrays of features, and what :class:`.windows.Meta` says of them."""

    arrays: dict[str, Floats]
    columns: dict[str, list[Column]]  # of each array
    groups: list[str]  # all there are
    left_out: dict[str, list[str]]  # kind of weather that is missing -> groups that lack columns for it


def compute(s: Signals, declared: Sequence[Family] = FEATURES) -> Features:
    """Every column of every family that the series allows, a row an hour.

    Raises TypeError for a family whose columns are of the wrong kind for its array.
    """
    columns: dict[str, list[Floats]] = {array: [] for array in ARRAYS}
    about: dict[str, list[Column]] = {array: [] for array in ARRAYS}
    left_out = {kind: ["weather"] for kind in WEATHER if kind not in s.first}
    for family in declared:
        if family.needs and family.needs not in s.first:
            left_out[family.needs] = sorted({*left_out[family.needs], family.group})
            continue
        for name, column in family.of(s).items():
            if isinstance(column, Known) != (family.array in ("ahead", "lags")):
                raise TypeError(f"{name} is a {type(column).__name__}, which is not what {family.array} holds")
            columns[family.array].append(column.values.astype(np.float32))
            about[family.array].append(
                {"name": name, "group": family.group, "plain": family.plain, "reach": column.reach}
            )
    hours = {array: len(s.load.values) + (s.load.horizon if array in ("ahead", "lags") else 0) for array in ARRAYS}
    return Features(
        {array: np.stack(found, 1) if found else np.empty((hours[array], 0), np.float32)
         for array, found in columns.items()},
        about,
        sorted({family.group for family in declared}),
        left_out,
    )  # fmt: skip
