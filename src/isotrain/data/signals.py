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
    """Loads in kW, weather standardised. ``temperature`` and ``solar`` are the first column of their kind, if any."""

    load: Past
    level: Past
    spread: Past
    scale: float  # kW
    calendar: dict[str, Known]
    weather: dict[str, Past]
    temperature: Past | None
    solar: Past | None
    climate: Known | None  # of the temperature

    def above_level(self, load: Past) -> Past:
        """``load`` (kW) relative to the trailing week's mean, in the series' standard deviations."""
        return (load - self.level) / self.scale

    def lacks(self, kinds: tuple[str, ...]) -> list[str]:
        """Which of ``kinds`` of weather this series has not."""
        return [kind for kind in kinds if getattr(self, kind) is None]


def fit_statistics(table: pd.DataFrame, facts: dict[str, Any]) -> dict[str, Any]:
    """Every number that scales a feature, from ``table``: the rows of the training part alone.

    ``scale`` in kW; ``weather``: name, kind, mean, std of each column; ``climate``: 366 standardised temperatures
    or None.
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
    return {
        "scale": scale,
        "weather": weather,
        "climate": climatology(_standard(table, temperature), local) if temperature else None,
    }


def signals(table: pd.DataFrame, meta: dict[str, Any]) -> Signals:
    """The signals of ``table`` (n hours), scaled by ``meta["statistics"]``.

    Of ``meta`` it reads target, time_zone, country, horizon and statistics.
    """
    horizon, statistics = meta["horizon"], meta["statistics"]
    hours = pd.date_range(table[TIME].iloc[0], periods=len(table) + horizon, freq="h")
    calendar = calendar_features(hours, meta["time_zone"], meta["country"])
    weather = {about["name"]: Past(_standard(table, about), horizon) for about in statistics["weather"]}
    firsts = {kind: _first_of(kind, statistics["weather"]) for kind in WEATHER}
    temperature, solar = (weather[about["name"]] if about else None for about in firsts.values())
    climate = usual(statistics["climate"], hours.tz_convert(meta["time_zone"])) if temperature else None
    load = Past(table[meta["target"]].to_numpy(np.float64), horizon)
    return Signals(
        load=load,
        level=load.mean(LEVEL_HOURS),
        spread=load.spread(LEVEL_HOURS),
        scale=statistics["scale"],
        calendar={str(name): Known(column.to_numpy(np.float64), horizon) for name, column in calendar.items()},
        weather=weather,
        temperature=temperature,
        solar=solar,
        climate=None if climate is None else Known(climate, horizon),
    )


def _first_of(kind: str, weather: list[dict[str, Any]]) -> dict[str, Any] | None:
    return next((about for about in weather if about["kind"] == kind), None)


def _standard(table: pd.DataFrame, about: dict[str, Any]) -> Values:
    values: Values = (table[about["name"]].to_numpy(np.float64) - about["mean"]) / about["std"]
    return values
