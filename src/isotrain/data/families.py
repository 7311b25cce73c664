"""The families of features, one small function each: name -> column; docs/features.md has the formula of each.

They are written with the verbs of :mod:`isotrain.data.past` alone, so none can look ahead. Loads of ``lags`` and
``recent`` stay in kW; elsewhere they are in the series' standard deviations, as the weather is in its own.
"""

from collections.abc import Sequence

from isotrain.data.past import Known, Past
from isotrain.data.signals import Signals
from isotrain.data.windows import DAY

WEEK = 7  # days


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
