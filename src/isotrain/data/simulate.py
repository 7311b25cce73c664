"""A simulated building that behaves like Drahi-X, with its weather and its faults: it stands in for the real series.

Seven zones and a rest add up to the whole building. Each zone has a base load, a share of what people use (local time),
a share of what runs by itself (UTC) and a share of electric heating and cooling. The constants are rounded aggregates
of the real series, or were turned until the aggregates in docs/simulator.md agreed. Start with :func:`building`.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from isotrain.config.ingest import Simulated
from isotrain.data.calendar import day_kinds

Values = npt.NDArray[np.float64]

LATITUDE = np.radians(48.7)

# From aggregates of the SIRTA series (docs/simulator.md):
MEAN_TEMPERATURE, SEASON = 12.6, 8.3  # degC; yearly mean, half the range of monthly means
COLDEST_DAY = 18  # of the year
SWING = (1.3, 3.2)  # degC; half the daily range in winter, what summer adds, both under a clear sky
ANOMALY = 3.6  # degC; standard deviation of daily means about the season
ANOMALY_TOMORROW = 0.68  # its autocorrelation after 24 h; 0.78 for daily means
CLEARNESS_TOMORROW = 0.27  # autocorrelation of daily solar sums about the season
OFFSET, LARGEST_OFFSET = -0.7, -2.0  # W/m2; median and extreme of the fluxes at night


def persistent(rng: np.random.Generator, hours: int, tomorrow: npt.ArrayLike) -> Values:
    """Gaussian noise, (hours, k), mean 0, deviation 1, with autocorrelation ``tomorrow`` (k,) a day later."""
    memory = np.atleast_1d(np.asarray(tomorrow, dtype=np.float64)) ** (1 / 24)
    noise = rng.standard_normal((hours, len(memory)))
    noise[1:] *= np.sqrt(1 - memory**2)
    for t in range(1, hours):
        noise[t] += memory * noise[t - 1]
    return noise


def weather(rng: np.random.Generator, hours: pd.DatetimeIndex) -> pd.DataFrame:
    """AirTemp (degC) and three fluxes (W/m2, never negative), one row an hour of ``hours`` (UTC)."""
    anomaly, clouds, quick = persistent(rng, len(hours), (ANOMALY_TOMORROW, CLEARNESS_TOMORROW, 0.001)).T
    clear = 1 / (1 + np.exp(-(2.2 * clouds + 0.9 * quick + 0.35)))
    height = np.maximum(_sine_of_elevation(hours), 0.0)
    direct = 950 * clear**1.6 * np.exp(-0.12 / np.maximum(height, 0.05)) * (height > 0)
    diffuse = height**0.8 * (150 + 480 * clear * (1 - clear) + 60 * (1 - clear))
    smooth = pd.Series(anomaly).rolling(6, min_periods=1).mean().to_numpy()
    year = 2 * np.pi * (hours.day_of_year.to_numpy() - COLDEST_DAY) / 365.25
    summer = (1 - np.cos(year)) / 2
    day = -np.cos(2 * np.pi * (hours.hour.to_numpy() - 2.5) / 24)
    swing = (SWING[0] + SWING[1] * summer) * (0.4 + 1.2 * _day_mean(clear))
    temperature = MEAN_TEMPERATURE - SEASON * np.cos(year) + ANOMALY * smooth + swing * day
    return pd.DataFrame(
        {
            "Global_Solar_Flux": direct * height + diffuse,
            "Direct_Solar_Flux": direct,
            "Diffuse_Solar_Flux": diffuse,
            "AirTemp": temperature,
        },
        index=hours,
    )


def with_night_offset(rng: np.random.Generator, flux: Values) -> Values:
    """``flux`` (hours,) in W/m2 as a pyranometer shows it: slightly negative at night."""
    drift = persistent(rng, len(flux), 0.95)[:, 0]
    offset = np.maximum(OFFSET * np.exp(0.4 * drift), LARGEST_OFFSET)
    return np.asarray(flux + offset * np.exp(-flux / 20))


def _sine_of_elevation(hours: pd.DatetimeIndex) -> Values:
    """Of the sun, in the middle of the hour, at 2.2 degrees east."""
    declination = np.radians(-23.44) * np.cos(2 * np.pi * (hours.day_of_year.to_numpy() + 10) / 365.25)
    angle = 2 * np.pi * (hours.hour.to_numpy() + 0.5 - 12 + 2.2 / 15) / 24
    sine: Values = np.sin(LATITUDE) * np.sin(declination) + np.cos(LATITUDE) * np.cos(declination) * np.cos(angle)
    return sine


def _day_mean(values: Values) -> Values:
    """Mean of the 24 hours up to each hour."""
    return pd.Series(values).rolling(24, min_periods=1).mean().to_numpy()


HOURS_PER_OUTAGE = 6000  # the real series has eight in 42,481 h
LONGEST_OUTAGE = 8  # hours
STUCK_HOURS = 57  # one zone stands still, as over the weekend to 2020-06-22 in the real series
STUCK_SLOT = 28
SLOTS = 40  # faults are drawn one a slot, so that they do not overlap


def spoil(rng: np.random.Generator, table: pd.DataFrame, *, target: str, zones: list[str]) -> None:
    """Put faults into ``table`` (hours, columns; UTC index), in place. Loads in kW."""
    slots = iter(rng.permutation(np.delete(np.arange(1, SLOTS), STUCK_SLOT - 1)))

    def place(length: int) -> pd.Index:
        slot = len(table) / SLOTS
        start = int(next(slots) * slot + rng.uniform(0, max(slot - length, 1)))
        return table.index[start : start + length]

    loads = [target, *zones]
    stuck = table.index[len(table) * STUCK_SLOT // SLOTS :][:STUCK_HOURS]
    table.loc[stuck, zones[0]] = table[zones[0]].to_numpy()[table.index.get_indexer(stuck)[0]]
    for _ in range(max(1, round(len(table) / HOURS_PER_OUTAGE))):
        left = rng.uniform([0.04, *[0.0] * len(zones)], [0.26, *[0.03] * len(zones)])
        table.loc[place(int(rng.integers(1, LONGEST_OUTAGE + 1))), loads] = left.round(2)
    for column in ("Global_Solar_Flux", "Direct_Solar_Flux", "Diffuse_Solar_Flux"):
        table.loc[place(2), column] = np.nan
    table.loc[place(14), "AirTemp"] = np.nan
    table.loc[place(1), "AirTemp"] = -27.02
    table.loc[_clock_set_back(pd.DatetimeIndex(table.index)), loads] = np.nan


def _clock_set_back(hours: pd.DatetimeIndex) -> npt.NDArray[np.bool_]:
    """00h and 01h UTC of October's last Sunday, the autumn change: absent from the real loads."""
    return np.asarray((hours.month == 10) & (hours.day > 24) & (hours.day_of_week == 6) & (hours.hour < 2))


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


SIZES = (0.3, 4.0)  # of one of many buildings, in terms of the one
FLOOR_AREA = 4000.0  # m2 of the one


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


def one_of_many(settings: Simulated, number: int) -> tuple[pd.DataFrame, dict[str, str | float | None]]:
    """The building ``number`` of many, with weather, people, size and mean load of its own; and facts about it.

    These are ``building_category`` (small or large) and ``floor_area`` (m2).
    """
    rng = np.random.default_rng([settings.seed, number])
    size, intensity = SIZES[0] * (SIZES[1] / SIZES[0]) ** rng.uniform(), np.exp(0.25 * rng.standard_normal())
    table = building(settings.model_copy(update={"seed": int(rng.integers(2**32))}))
    loads = ["TGBT", *ZONES]
    table[loads] = (table[loads] * size * intensity).round(2)
    area = float(round(FLOOR_AREA * size))
    return table, {"building_category": "large" if area > FLOOR_AREA else "small", "floor_area": area}


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
