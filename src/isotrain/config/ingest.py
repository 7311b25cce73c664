"""Section ``ingest``: which series is read, how its file is written, what counts as a fault."""

import codecs
from datetime import datetime
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, Field, model_validator

from isotrain.config.sections import Count, Fraction, Positive, Section, Seed

AUTO, SIMULATED = "auto", "simulated"

Kind = Literal["load", "sub_load", "temperature", "solar"]
Unit = Literal["kW", "W", "degC", "W/m2"]

STORED_UNIT: dict[str, Unit] = {"load": "kW", "sub_load": "kW", "temperature": "degC", "solar": "W/m2"}
"""The unit in which the tidy table holds each kind of column."""


def _known_zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError(f"{name!r} is not a time zone: write one such as UTC or Europe/Paris")
    return name


def _text_encoding(name: str) -> str:
    """Refuse a codec that is none, or that does not turn bytes into text."""
    try:
        known = codecs.lookup(name)._is_text_encoding and "a,1.5\n".encode(name).decode(name) == "a,1.5\n"
    except (LookupError, ValueError):
        known = False
    if not known:
        raise ValueError(f"{name!r} is no encoding of text: write one such as utf-8 or latin-1")
    return name


def _no_part_of_a_field(separator: str) -> str:
    if separator.isalnum() or separator in "\"'+-.:/\\\r\n\0":
        raise ValueError(f"{separator!r} can be part of a field or ends a line: write one such as , or ; or a tab")
    return separator


Zone = Annotated[str, AfterValidator(_known_zone)]


class Column(Section):
    """One measured quantity and how the file writes it."""

    kind: Kind
    name: str | None = None  # heading in the file, stray blanks aside; the column's own key if left out
    unit: Unit | None = None  # unit in the file; the unit it is stored in if left out
    sign: Literal[1, -1] = 1  # -1 where the file counts consumption as negative

    @model_validator(mode="after")
    def _unit_fits_kind(self) -> "Column":
        stored = STORED_UNIT[self.kind]
        if self.unit not in ((None, "kW", "W") if stored == "kW" else (None, stored)):
            raise ValueError(f"unit {self.unit!r} does not fit kind {self.kind!r}, which is stored in {stored}")
        return self


class File(Section):
    """How the table is written; nothing here concerns a simulated series."""

    time_column: str = "Date and time (UTC)"  # heading, stray blanks aside
    time_zone: Zone = "UTC"  # zone of stamps that carry no offset
    time_format: str | None = None  # as in strptime, "%d/%m/%Y %H:%M"; left out: ISO 8601
    clock_change: Literal["infer", "gap"] = "infer"  # stamps the change makes ambiguous: by order, or left out
    step_minutes: Literal[1, 5, 15, 30, 60] = 60  # time between two rows
    enough: Fraction = 0.75  # share of an hour's samples below which the hour is a gap
    separator: Annotated[str, AfterValidator(_no_part_of_a_field)] = Field(default=",", min_length=1, max_length=1)
    decimal: Literal[".", ","] = "."
    encoding: Annotated[str, AfterValidator(_text_encoding)] = "utf-8"

    @model_validator(mode="after")
    def _separator_is_no_decimal(self) -> "File":
        if self.separator == self.decimal:
            raise ValueError(f"separator and decimal are both {self.decimal!r}: only quotes could tell them apart")
        return self


class Check(Section):
    """What makes a value of one kind a fault. Units: the tidy table's; None switches a check off."""

    lowest: float
    highest: float
    stuck_hours: Count | None = None  # so many equal hours in a row are a stuck sensor
    stuck_above: float | None = None  # equal values up to here are genuine (a solar sensor at night)
    outage_below: float | None = None  # a meter that reads less is off, and so are the sub-loads behind it
    jump: Positive | None = None  # further than this from each of the two hours before is a spike
    before_start: float = 0.0  # stands in where a column has no past at all to repair from

    @model_validator(mode="after")
    def _limits_in_order(self) -> "Check":
        if self.lowest >= self.highest:
            raise ValueError(f"lowest = {self.lowest} must lie below highest = {self.highest}")
        return self


class Checks(Section):
    """One :class:`Check` a kind; the defaults were chosen on the Drahi-X series (reasons in params.yaml)."""

    load: Check = Check(lowest=0.0, highest=200.0, stuck_hours=6, outage_below=3.0)
    sub_load: Check = Check(lowest=0.0, highest=100.0, stuck_hours=24)
    temperature: Check = Check(lowest=-20.0, highest=45.0, stuck_hours=6, jump=9.0, before_start=12.0)
    solar: Check = Check(lowest=-3.0, highest=1400.0, stuck_hours=4, stuck_above=20.0)


class Simulated(Section):
    """The series made up when ``source`` is "simulated"."""

    seed: Seed = 0
    start: datetime = Field(default=datetime(2017, 1, 1), strict=False)  # UTC, on the hour; text in YAML and JSON
    hours: int = Field(default=26_304, ge=24 * 28, le=24 * 366 * 100)

    @model_validator(mode="after")
    def _starts_on_the_hour(self) -> "Simulated":
        s = self.start
        if not 1970 <= s.year <= 2100:
            raise ValueError(f"start = {s} must lie between 1970 and 2100")
        if s.tzinfo is not None or (s.minute, s.second, s.microsecond) != (0, 0, 0):
            raise ValueError(f"start = {s} must be a UTC hour written without an offset, such as 2017-01-01")
        return self


def _drahix_columns() -> dict[str, Column]:
    solar = {f"{part}_Solar_Flux": Column(kind="solar") for part in ("Global", "Direct", "Diffuse")}
    zones = {f"T{number}": Column(kind="sub_load") for number in range(1, 8)}
    return {"TGBT": Column(kind="load"), **zones, "AirTemp": Column(kind="temperature"), **solar}


class Ingest(Section):
    """From a file, or the simulator, to an hourly table without gaps."""

    source: str = AUTO  # auto (brought in, else simulated) | simulated | a file: its path, or its name in data/raw
    target: str = "TGBT"  # key in columns
    time_zone: Zone = "Europe/Paris"  # the building's own: occupancy follows it
    country: str = Field(default="FR", pattern="^[A-Z]{2}$")  # whose public holidays it keeps, ISO 3166
    file: File = File()
    columns: dict[str, Column] = Field(default_factory=_drahix_columns)
    checks: Checks = Checks()
    simulated: Simulated = Simulated()

    @model_validator(mode="after")
    def _names_agree(self) -> "Ingest":
        if self.target not in self.columns:
            raise ValueError(f"target {self.target!r} is not in columns ({', '.join(self.columns)})")
        if self.columns[self.target].kind not in ("load", "sub_load"):
            raise ValueError(f"target {self.target!r} must be a load, not of kind {self.columns[self.target].kind!r}")
        for key in self.columns:
            if key == "time" or key.endswith("__flag"):
                raise ValueError(f"columns.{key}: this name is kept for the tidy table itself; choose another")
        headings = [self.heading(key) for key in self.columns]
        for heading in headings:
            if headings.count(heading) > 1 or heading == self.file.time_column.strip():
                raise ValueError(f"the heading {heading!r} is given to two columns; each needs its own")
        return self

    def heading(self, key: str) -> str:
        """The heading under which the file holds column ``key``."""
        return (self.columns[key].name or key).strip()

    @property
    def zone(self) -> ZoneInfo:
        """The building's time zone."""
        return ZoneInfo(self.time_zone)
