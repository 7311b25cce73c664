"""Which clock a series follows: by the hours that a clock change skips or repeats, and by when people are busy.

``naive`` are stamps as clocks showed them, without a zone; ``zone`` is a name of the time-zone database.
"""

from collections.abc import Iterator
from importlib.resources import files as package_files

import numpy as np
import pandas as pd

from isotrain.data.cells import Table, is_date, shape_of

WEEKS_AROUND = 3  # before and after a clock change, over which a day's mean course is taken
USUAL_ZONES = (  # a zone each of the rules by which clocks change
    "Europe/Paris", "Europe/London", "Europe/Helsinki", "America/New_York", "America/Chicago", "America/Denver",
    "America/Los_Angeles", "Australia/Sydney", "Australia/Adelaide", "Pacific/Auckland", "America/Santiago",
)  # fmt: skip


def rows_of_tab(name: str) -> Iterator[list[str]]:
    """The rows of a table of the time-zone database."""
    for line in (package_files("tzdata") / "zoneinfo" / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            yield line.split("\t")


def country_of(zone: str) -> str | None:
    return next((row[0] for row in rows_of_tab("zone.tab") if row[2] == zone), None)


def zones_of(country: str) -> list[str]:
    return [row[2] for row in rows_of_tab("zone.tab") if row[0] == country]


def changes(naive: pd.Series, zone: str) -> tuple[pd.DatetimeIndex, pd.DatetimeIndex]:
    """The hours that the clock of ``zone`` skipped in spring and showed twice in autumn, within the series."""
    hours = pd.date_range(naive.min().ceil("h"), naive.max().floor("h"), freq="h")
    skipped = hours[hours.tz_localize(zone, ambiguous=np.ones(len(hours), bool), nonexistent="NaT").isna()]
    twice = hours[hours.tz_localize(zone, ambiguous="NaT", nonexistent="shift_forward").isna()]
    return skipped, twice


def how_it_follows(naive: pd.Series, zone: str) -> str | None:
    """``infer`` or ``gap`` if the stamps are those of a clock in ``zone``; ``None`` if not, or if no change tells.

    Both hours, the skipped and the repeated one, must be as that clock shows them; a file that drops the second of the
    repeated ones has a gap there.
    """
    skipped, twice = changes(naive, zone)
    if not len(skipped):
        return None
    hours = naive.dt.floor("h")
    if hours.isin(skipped).any():
        return None
    around = pd.DatetimeIndex(np.concatenate([skipped - pd.Timedelta(hours=1), skipped + pd.Timedelta(hours=1)]))
    if not around.isin(hours).all():  # a longer gap lies there, which says nothing of the clock
        return None
    if not len(twice):
        return "infer"
    counts = hours.value_counts()
    usual = counts.median()
    return "infer" if (counts.reindex(twice, fill_value=0) == 2 * usual).all() else "gap"


def rhythm_moves(naive: pd.Series, load: pd.Series, zone: str) -> bool | None:
    """Whether the load's mean course over a day moves by an hour, against the stamps, at the clock changes of ``zone``.

    It does where stamps are UTC and people follow the clock. ``None`` where neither fits clearly better.
    """
    skipped, twice = changes(naive, zone)
    series = load.set_axis(pd.DatetimeIndex(naive)).groupby(level=0).mean()
    span = pd.Timedelta(weeks=WEEKS_AROUND)
    still, moved = [], []
    for change, hours in [*((day, -1) for day in skipped), *((day, 1) for day in twice)]:
        parts = series[change - span : change], series[change : change + span]
        courses = [
            part.groupby(pd.DatetimeIndex(part.index).hour).mean().reindex(range(24)).to_numpy() for part in parts
        ]
        if any(len(part) < len(series[: series.index[0] + span]) / 2 for part in parts) or np.isnan(courses).any():
            continue
        still.append(np.corrcoef(courses[0], courses[1])[0, 1])
        moved.append(np.corrcoef(np.roll(courses[0], hours), courses[1])[0, 1])
    if len(still) < 2:
        return None
    difference = np.array(moved) - np.array(still)
    clear = abs(difference.mean()) > 2 * difference.std(ddof=1) / np.sqrt(len(difference))
    return bool(difference.mean() > 0) if clear else None


def zone_of_midnights(table: Table, cells: pd.DataFrame, naive: pd.Series, offsets: pd.Series) -> str | None:
    """The zone at whose midnights another column of plain dates goes on to the next day."""
    utc = in_utc(naive, offsets, "UTC")
    for i in range(len(table.headings)):
        if i == table.time or not cells[i].iloc[:50].map(is_date).all():
            continue
        dates = pd.to_datetime(cells[i], format=shape_of(cells[i].iloc[0]), errors="coerce")
        starts = np.flatnonzero((dates != dates.shift()).to_numpy())[1:]
        for zone in (*USUAL_ZONES, *(row[2] for row in rows_of_tab("zone1970.tab"))):
            local = utc.iloc[starts].dt.tz_convert(zone).dt.tz_localize(None)
            if len(local) and (local.to_numpy() == dates.iloc[starts].to_numpy()).all():
                return str(zone)
    return None


def busiest_hour(utc: pd.Series, load: pd.Series, zone: str) -> float | None:
    """The middle of the busy hours by the building's clock: where the day's fundamental wave of the load is highest."""
    course = load.groupby(utc.dt.tz_convert(zone).dt.hour).mean().reindex(range(24)).to_numpy()
    if np.isnan(course).any():
        return None
    return float(np.angle(course @ np.exp(2j * np.pi * np.arange(24) / 24)) / (2 * np.pi) * 24 % 24)


def in_utc(naive: pd.Series, offsets: pd.Series | None, stamps: str) -> pd.Series:
    """The stamps in UTC, near enough for a mean over all days: not exact in the hours of a clock change."""
    if offsets is None:
        local = naive.dt.tz_localize(stamps, ambiguous=np.ones(len(naive), bool), nonexistent="shift_forward")
        return pd.Series(local.dt.tz_convert("UTC"))
    parts = offsets.replace({"Z": "+00", "UTC": "+00"}).str.extract(r"([+-])(\d\d):?(\d\d)?")
    minutes = parts[1].astype(int) * 60 + parts[2].fillna("0").astype(int)
    return (naive - pd.to_timedelta(minutes.where(parts[0] == "+", -minutes), unit="min")).dt.tz_localize("UTC")
