"""What features are written from: the load, the weather in its own units, the calendar; and the numbers to scale by.

Those numbers are fitted on the training part alone, kept with the windows, and used as they stand on new data.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from isotrain.data.calendar import calendar_features
from isotrain.data.climate import climatology, usual
from isotrain.data.past import Known, Past, Values
from isotrain.data.schema import TIME
from isotrain.data.windows import LEVEL_HOURS
from isotrain.errors import InputError

WEATHER = ("temperature", "solar")  # kinds of columns that are weather


@dataclass(frozen=True)
class Signals:
    """Loads in kW, weather standardised: every column of it in ``weather``, the first of each kind in ``first``."""

    load: Past
    level: Past
    spread: Past
    scale: float  # kW
    calendar: dict[str, Known]
    weather: dict[str, Past]
    first: dict[str, Past]  # by kind: it speaks for its kind
    usual: dict[str, Known]  # by kind: what the time of year lets one expect

    def above_level(self, load: Past) -> Past:
        """``load`` (kW) relative to the trailing week's mean, in the series' standard deviations."""
        return (load - self.level) / self.scale


def fit_statistics(table: pd.DataFrame, facts: dict[str, Any]) -> dict[str, Any]:
    """Every number that scales a feature, from ``table``: the rows of the training part alone.

    ``scale`` in kW; ``weather``: name, kind, mean, std of each column; ``climate``: kind -> 366
    standardised values, of the temperature if there is any.
    Raises :class:`InputError` if the target is constant.
    """
    target = facts["target"]
    scale = float(table[target].std())
    if not scale > 0:
        raise InputError(f"{facts['source']}: {target} is constant over the training part: there is nothing to learn")
    weather = []
    for name, about in facts["columns"].items():
        if about["kind"] in WEATHER:
            mean, std = float(table[name].mean()), float(table[name].std())
            weather.append({"name": name, "kind": about["kind"], "mean": mean, "std": std if std > 0 else 1.0})
    temperature = _first_of("temperature", weather)
    local = pd.DatetimeIndex(table[TIME]).tz_convert(facts["time_zone"])
    climate = {"temperature": climatology(_standard(table, temperature), local)} if temperature else {}
    return {"scale": scale, "weather": weather, "climate": climate}


def signals(table: pd.DataFrame, meta: dict[str, Any]) -> Signals:
    """The signals of ``table`` (n hours), scaled by ``meta["statistics"]``.

    Of ``meta`` it reads target, time_zone, country, horizon and statistics.
    """
    horizon, statistics = meta["horizon"], meta["statistics"]
    hours = pd.date_range(table[TIME].iloc[0], periods=len(table) + horizon, freq="h")
    calendar = calendar_features(hours, meta["time_zone"], meta["country"])
    weather = {about["name"]: Past(_standard(table, about), horizon) for about in statistics["weather"]}
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
        first={kind: weather[about["name"]] for kind, about in firsts.items() if about},
        usual={kind: Known(usual(climate, local), horizon) for kind, climate in statistics["climate"].items()},
    )


def _first_of(kind: str, weather: list[dict[str, Any]]) -> dict[str, Any] | None:
    return next((about for about in weather if about["kind"] == kind), None)


def _standard(table: pd.DataFrame, about: dict[str, Any]) -> Values:
    values: Values = (table[about["name"]].to_numpy(np.float64) - about["mean"]) / about["std"]
    return values
