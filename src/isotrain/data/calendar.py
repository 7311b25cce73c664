"""What is known of an hour in advance (local time, day of week, holidays), and what is usual at a time of year."""

from datetime import date, timedelta
from functools import lru_cache

import holidays
import numpy as np
import pandas as pd
from numpy.typing import NDArray

DAY = timedelta(days=1)
DAYS = 366  # of a year
SMOOTH = 21  # days, centred, over which a usual value is averaged


def calendar_features(hours: pd.DatetimeIndex, time_zone: str, country: str) -> pd.DataFrame:
    """One row an hour of ``hours`` (UTC): three harmonics of the local hour, day of week, kinds of day.

    Occupancy follows the building's clock, not UTC, so everything is in ``time_zone``. All columns are in
    [-1, 1]. ``country`` is the ISO code whose public holidays count.
    """
    local = hours.tz_convert(time_zone)
    clock = 2 * np.pi * local.hour.to_numpy() / 24
    columns = {
        f"{function.__name__}_{k}_per_day": function(k * clock) for k in (1, 2, 3) for function in (np.sin, np.cos)
    }
    columns |= {f"weekday_{day}": (local.day_of_week == day).astype(float) for day in range(7)}
    days = pd.Index(local.date)
    kinds = pd.DataFrame.from_dict({d: day_kinds(d, country) for d in days.unique()}, orient="index")
    return pd.DataFrame(columns, index=hours).join(kinds.loc[days].set_axis(hours)).astype(np.float32)


@lru_cache(maxsize=2**16)  # the series of a pool share their days; nobody may change the answer
def day_kinds(day: date, country: str) -> dict[str, float]:
    """Flags of a local day: holiday, day off yesterday and tomorrow, bridge, year's end, August, working."""
    off, before, after = (_is_off(d, country) for d in (day, day - DAY, day + DAY))
    holiday = day in _holidays(country, day.year)
    bridge = not off and (
        (day.weekday() == 4 and day - DAY in _holidays(country, (day - DAY).year))
        or (day.weekday() == 0 and day + DAY in _holidays(country, (day + DAY).year))
    )
    year_end = (day.month, day.day) >= (12, 23) or (day.month, day.day) <= (1, 2)
    august = day.month == 8 and day.day <= 24
    flags = {
        "holiday": holiday,
        "off_before": before,
        "off_after": after,
        "bridge": bridge,
        "year_end": year_end,
        "august": august,
        "working": not (off or bridge or year_end),
    }
    return {name: float(value) for name, value in flags.items()}


def _is_off(day: date, country: str) -> bool:
    return day.weekday() >= 5 or day in _holidays(country, day.year)


@lru_cache
def _holidays(country: str, year: int) -> holidays.HolidayBase:
    return holidays.country_holidays(country, years=year)


def climatology(values: NDArray[np.float64], local: pd.DatetimeIndex) -> list[float]:
    """The usual value on each of the 366 days of a year, from hourly ``values`` at the hours ``local``.

    Days that never occur are interpolated around the year.
    """
    known = pd.Series(values).groupby(local.day_of_year.to_numpy()).mean()
    daily = np.interp(np.arange(1, DAYS + 1), known.index.to_numpy(), known.to_numpy(), period=DAYS)
    around = np.concatenate([daily[-(SMOOTH // 2) :], daily, daily[: SMOOTH // 2]])
    smooth = np.convolve(around, np.full(SMOOTH, 1 / SMOOTH), mode="valid")
    return [float(value) for value in smooth]


def usual(climate: list[float], local: pd.DatetimeIndex) -> NDArray[np.float64]:
    """(hours,): :func:`climatology`'s value for the day of each hour of ``local``."""
    values: NDArray[np.float64] = np.array(climate)[local.day_of_year.to_numpy() - 1]
    return values
