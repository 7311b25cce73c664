"""The table of all families of features, and their columns for a series. docs/features.md lists every column."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isotrain.data import families
from isotrain.data.past import Known, Past
from isotrain.data.signals import WEATHER, Signals
from isotrain.data.windows import ARRAYS, Floats


@dataclass(frozen=True)
class Family:
    """Columns of one array that are switched on and off together.

    ``of`` answers name -> column; for ``ahead`` and ``lags`` a column is a :class:`Known`, else a :class:`Past`.
    ``needs`` is the kind of weather without which the family does not exist.
    """

    array: str
    group: str
    of: Callable[[Signals], Mapping[str, Past | Known]]
    plain: bool = False
    needs: str | None = None


FEATURES = (
    Family("inputs", "load", families.load_now, plain=True),
    Family("inputs", "weather", families.weather_now, plain=True),
    Family("inputs", "calendar", families.calendar_now, plain=True),
    Family("inputs", "load_history", families.load_history),
    Family("inputs", "day_type", families.day_type_now),
    Family("inputs", "weather_history", families.temperature_history, needs="temperature"),
    Family("ahead", "calendar", families.calendar_ahead, plain=True),
    Family("ahead", "day_type", families.day_type_ahead),
    Family("ahead", "weather_history", families.temperature_ahead, needs="temperature"),
    Family("ahead", "weather_history", families.solar_ahead, needs="solar"),
    Family("ahead", "climate", families.climate_ahead, needs="temperature"),
    Family("lags", "daily_lags", families.main_lags, plain=True),
    Family("lags", "daily_lags", families.other_lags),
    Family("lags", "day_type", families.day_type_lags),
    Family("origin", "origin_statistics", families.load_at_origin),
    Family("origin", "day_type", families.day_type_surprise),
    Family("origin", "weather_history", families.temperature_at_origin, needs="temperature"),
    Family("origin", "weather_history", families.solar_at_origin, needs="solar"),
    Family("origin", "climate", families.climate_at_origin, needs="temperature"),
    Family("recent", "recent", families.recent_loads, plain=True),
    Family("recent", "recent", families.recent_statistics),
    Family("recent", "day_type", families.day_type_recent),
)


@dataclass(frozen=True)
class Features:
    """``arrays``: the five arrays of :class:`isotrain.data.windows.Windows`; ``about``: what its meta says of them."""

    arrays: dict[str, Floats]
    about: dict[str, Any]


def compute(s: Signals, declared: Sequence[Family] = FEATURES) -> Features:
    """Every column of every family that the series allows, once an hour.

    ``about``: ``columns`` of each array; ``groups`` there are; ``left_out``: kind of weather that is missing ->
    groups that are poorer for it.
    """
    columns: dict[str, list[Floats]] = {array: [] for array in ARRAYS}
    about: dict[str, list[dict[str, Any]]] = {array: [] for array in ARRAYS}
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
        {"columns": about, "groups": sorted({family.group for family in declared}), "left_out": left_out},
    )  # fmt: skip
