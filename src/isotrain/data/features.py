"""The features, one small function a family, and the table of all families. docs/features.md lists every column.

A family is written with the verbs of :mod:`isotrain.data.past` alone, so it cannot look ahead.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isotrain.data.past import Known, Past
from isotrain.data.signals import Signals
from isotrain.data.windows import ARRAYS, DAY, Floats

WEEK = 7  # days


@dataclass(frozen=True)
class Family:
    """Columns of one array that are switched on and off together.

    ``of`` answers name -> column; for ``ahead`` and ``lags`` a column is a :class:`Known`, else a :class:`Past`.
    ``needs`` names the kinds of weather without which the family does not exist.
    """

    array: str
    group: str
    of: Callable[[Signals], Mapping[str, Past | Known]]
    plain: bool = False
    needs: tuple[str, ...] = ()


def load_now(s: Signals) -> dict[str, Past]:
    return {"load": s.above_level(s.load)}


def weather_now(s: Signals) -> dict[str, Past]:
    return s.weather


def calendar_now(s: Signals) -> dict[str, Past]:
    return {name: column.now() for name, column in s.calendar.items()}


def calendar_ahead(s: Signals) -> dict[str, Known]:
    return s.calendar


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
    t = _temperature(s)
    return {
        "temperature_mean_24h": t.mean(24),
        "temperature_lag_24h": t.lag(24),
        "temperature_lag_168h": t.lag(168),
    }


def temperature_ahead(s: Signals) -> dict[str, Known]:
    return _weather_before("temperature", _temperature(s))


def solar_ahead(s: Signals) -> dict[str, Known]:
    return _weather_before("solar", _solar(s))


def temperature_at_origin(s: Signals) -> dict[str, Past]:
    t, day = _temperature(s), _temperature(s).mean(24)
    return {
        "temperature": t,
        **{f"temperature_mean_{hours}h": t.mean(hours) for hours in (24, 72, 168)},
        **{f"temperature_mean_24h_lag_{hours}h": day.lag(hours) for hours in (24, 48)},
        **{f"temperature_change_{hours}h": t.change(hours) for hours in (3, 24)},
        "temperature_mean_24h_change_24h": day.change(24),
    }


def solar_at_origin(s: Signals) -> dict[str, Past]:
    return {"solar_mean_24h": _solar(s).mean(24)}


def climate_ahead(s: Signals) -> dict[str, Known]:
    return {"temperature_usual": _climate(s)}


def climate_at_origin(s: Signals) -> dict[str, Past]:
    return {"temperature_mean_24h_unusual": _temperature(s).mean(24) - _climate(s).now()}


def recent_loads(s: Signals) -> dict[str, Past]:
    lags = (0, 1, 2, 3, 23, 24, 25, 167, 168, 169)
    means = {"load_mean_24h": s.load.mean(24), "load_low_24h": s.load.quantile(24, 0.05)}
    return {f"load_lag_{hours}h": s.load.lag(hours) for hours in lags} | means


def day_type_recent(s: Signals) -> dict[str, Past]:
    return {f"load_same_day_type_{k}": _same_type(s, k).now() for k in (1, 3)}


T, S = ("temperature",), ("solar",)
FEATURES = (
    Family("inputs", "load", load_now, plain=True),
    Family("inputs", "weather", weather_now, plain=True),
    Family("inputs", "calendar", calendar_now, plain=True),
    Family("inputs", "load_history", load_history),
    Family("inputs", "day_type", day_type_now),
    Family("inputs", "weather_history", temperature_history, needs=T),
    Family("ahead", "calendar", calendar_ahead, plain=True),
    Family("ahead", "day_type", day_type_ahead),
    Family("ahead", "weather_history", temperature_ahead, needs=T),
    Family("ahead", "weather_history", solar_ahead, needs=S),
    Family("ahead", "climate", climate_ahead, needs=T),
    Family("lags", "daily_lags", main_lags, plain=True),
    Family("lags", "daily_lags", other_lags),
    Family("lags", "day_type", day_type_lags),
    Family("origin", "origin_statistics", load_at_origin),
    Family("origin", "day_type", day_type_surprise),
    Family("origin", "weather_history", temperature_at_origin, needs=T),
    Family("origin", "weather_history", solar_at_origin, needs=S),
    Family("origin", "climate", climate_at_origin, needs=T),
    Family("recent", "recent", recent_loads),
    Family("recent", "day_type", day_type_recent),
)


@dataclass(frozen=True)
class Features:
    """``arrays``: the five arrays of :class:`isotrain.data.windows.Windows`; ``about``: what its meta says of them."""

    arrays: dict[str, Floats]
    about: dict[str, Any]


def compute(s: Signals, families: Sequence[Family] = FEATURES) -> Features:
    """Every column of every family that the series allows, once an hour.

    ``about``: ``columns`` of each array; ``groups`` there are; ``left_out``: kind of weather that is missing ->
    groups that are poorer for it.
    """
    columns: dict[str, list[Floats]] = {array: [] for array in ARRAYS}
    about: dict[str, list[dict[str, Any]]] = {array: [] for array in ARRAYS}
    left_out = {kind: ["weather"] for kind in s.lacks(("temperature", "solar"))}
    for family in families:
        if missing := s.lacks(family.needs):
            for kind in missing:
                left_out[kind] = sorted({*left_out[kind], family.group})
            continue
        for name, column in family.of(s).items():
            if isinstance(column, Known) != (family.array in ("ahead", "lags")):
                raise TypeError(f"{name} is a {type(column).__name__}, which is not what {family.array} holds")
            columns[family.array].append(column.values.astype(np.float32))
            kind_of = {"name": name, "group": family.group, "plain": family.plain, "reach": column.reach}
            about[family.array].append(kind_of)
    hours = {array: len(s.load.values) + (s.load.horizon if array in ("ahead", "lags") else 0) for array in ARRAYS}
    return Features(
        {array: np.stack(found, 1) if found else np.empty((hours[array], 0), np.float32)
         for array, found in columns.items()},
        {"columns": about, "groups": sorted({family.group for family in families}), "left_out": left_out},
    )  # fmt: skip


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


def _temperature(s: Signals) -> Past:
    assert s.temperature is not None  # compute() asks for what a family needs
    return s.temperature


def _solar(s: Signals) -> Past:
    assert s.solar is not None
    return s.solar


def _climate(s: Signals) -> Known:
    assert s.climate is not None
    return s.climate
