"""A made-up building that behaves like Drahi-X: for trying everything without the real series, and for tests.

Seven zones and a rest add up to the whole building. Each zone has a base load, a share of what people use
(local time), a share of what runs by itself (UTC) and a share of electric heating and cooling. The constants
are rounded aggregates of the real series, or were turned until the aggregates in docs/simulator.md agreed.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from isotrain.config.ingest import Simulated
from isotrain.data.calendar import day_kinds
from isotrain.data.simulated_faults import spoil
from isotrain.data.simulated_weather import persistent, weather, with_night_offset

Values = npt.NDArray[np.float64]

LOCAL, COUNTRY = "Europe/Paris", "FR"
ZONES = ["T1", "T2", "T3", "T4", "T5", "T6", "T7"]

# kW a zone. Base: nights of August. People: rise from 00h to 10h on working days. Heat, as a share of the
# whole: January's mean less August's. Noise: relative, turned until errors from hour to hour were as large.
BASE = np.array([1.2, 1.8, 0.5, 1.0, 1.6, 1.6, 4.2])
PEOPLE = np.array([2.4, 1.8, 0.9, 2.4, 2.1, 2.3, 4.0])
HEAT = np.array([0.18, 0.11, 0.05, 0.07, 0.14, 0.09, 0.36])
NOISE = np.array([0.34, 0.2, 0.34, 0.2, 0.2, 0.34, 0.33])
REST, REST_DEVIATION = 3.97, 1.5  # kW; the whole less its zones

# Presence by local hour on a working day, from the mean daily profile.
PRESENCE = np.interp(
    np.arange(24),
    [5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 17, 18, 19, 20, 22],
    [0.0, 0.08, 0.25, 0.6, 0.9, 1.0, 0.96, 0.82, 0.82, 0.9, 0.82, 0.62, 0.4, 0.22, 0.12, 0.0],
)
WEEKEND, BRIDGE, YEAR_END, AUGUST = 0.12, 0.4, 0.1, 0.6  # presence relative to a working day

# Plant that runs by UTC: a boost each morning, then less; relative to its own mean. From days off.
PLANT = np.interp(
    np.arange(24), [0, 3, 6, 7, 8, 10, 15, 17, 20, 24], [0.9, 1.1, 1.4, 1.7, 1.2, 0.7, 0.85, 0.7, 0.8, 0.9]
)
PLANT_SHARE = 0.35  # of the base

HEATING, HEATS_BELOW = 2.6, 17.0  # kW/K and degC: mean load by temperature, all hours
COOLING, COOLS_ABOVE = 2.0, 23.0  # kW/K and degC: working hours
SETBACK = np.interp(
    np.arange(24), [0, 1, 4, 6, 8, 12, 17, 21, 24], [0.76, 0.8, 1.0, 1.4, 1.25, 0.98, 0.9, 0.7, 0.72]
)  # UTC
IDLE_HEATING = 0.76  # heating on days off, relative

# Level by share of the series: yearly means relative to their mean, before the closure.
LEVEL = ([0.0, 0.25, 0.5, 0.75, 1.0], [0.74, 0.97, 1.02, 1.15, 1.05])
# Presence by share of the series: closed for a while, back in part. Test parts begin inside the closure.
CLOSURE = ([0.0, 0.78, 0.78, 0.83, 0.83, 0.92, 1.0], [1.0, 1.0, 0.12, 0.12, 0.4, 0.75, 0.85])


def building(settings: Simulated) -> pd.DataFrame:
    """Hourly table with the real file's columns, faults included: loads in kW, degC, W/m2, two decimals.

    Index: ``settings.hours`` UTC hours from ``settings.start``. The same settings give the same bytes.
    """
    rng = np.random.default_rng(settings.seed)
    hours = pd.date_range(settings.start, periods=settings.hours, freq="h", tz="UTC", unit="us", name="time")
    table = weather(rng, hours)
    loads = zone_loads(rng, hours, table["AirTemp"].to_numpy(), table["Global_Solar_Flux"].to_numpy())
    for name in table.columns.drop("AirTemp"):
        table[name] = with_night_offset(rng, table[name].to_numpy())
    rest = np.clip(REST + REST_DEVIATION * persistent(rng, len(hours), 0.95)[:, 0], 0.0, 8.8)
    table["TGBT"] = loads.sum(axis=1) + rest
    table[ZONES] = loads
    table = table.round(2)
    spoil(rng, table, target="TGBT", zones=ZONES)
    return table


def zone_loads(rng: np.random.Generator, hours: pd.DatetimeIndex, temperature: Values, sun: Values) -> Values:
    """kW, (hours, zones), for ``temperature`` in degC and ``sun`` in W/m2, (hours,) each."""
    share = np.linspace(0.0, 1.0, len(hours))
    slow, mood, effort = persistent(rng, len(hours), (0.985, 0.75, 0.6)).T
    zone_noise = persistent(rng, len(hours), [0.004] * len(ZONES))
    level = np.interp(share, *LEVEL) * np.exp(0.05 * slow)
    people = presence(hours) * np.interp(share, *CLOSURE) * np.exp(0.08 * mood)
    plant = 1 - PLANT_SHARE + PLANT_SHARE * PLANT[hours.hour]
    climate = heating_and_cooling(hours, temperature, sun) * np.exp(0.12 * effort)
    kilowatts = np.outer(plant, BASE) + np.outer(people, PEOPLE) + np.outer(climate, HEAT)
    return np.asarray(level[:, None] * kilowatts * np.exp(NOISE * zone_noise - NOISE**2 / 2))


def presence(hours: pd.DatetimeIndex) -> Values:
    """Share of people present, (hours,): local hour of day times what the day is."""
    local = hours.tz_convert(LOCAL)
    days = pd.Index(local.date)
    of_day = pd.Series({day: _presence_of(day_kinds(day, COUNTRY)) for day in days.unique()})
    return np.asarray(PRESENCE[local.hour] * of_day.loc[days].to_numpy())


def heating_and_cooling(hours: pd.DatetimeIndex, temperature: Values, sun: Values) -> Values:
    """kW of the whole building, (hours,). Walls answer slowly, so the last 18 h of weather count."""
    felt = pd.Series(temperature + 0.004 * sun).ewm(halflife=6).mean().to_numpy()
    working = hours.tz_convert(LOCAL).day_of_week.to_numpy() < 5
    heating = HEATING * np.maximum(HEATS_BELOW - felt, 0) * SETBACK[hours.hour] * np.where(working, 1.0, IDLE_HEATING)
    cooling = COOLING * np.maximum(temperature - COOLS_ABOVE, 0) * np.where(working, 1.0, 0.3)
    return np.asarray(heating + cooling)


def _presence_of(day: dict[str, float]) -> float:
    if day["year_end"]:
        return YEAR_END
    if day["working"]:
        return AUGUST if day["august"] else 1.0
    return BRIDGE if day["bridge"] else WEEKEND
