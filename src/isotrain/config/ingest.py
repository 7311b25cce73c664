"""Section ``ingest``: which series is read, how its file is written, what counts as a fault."""

import codecs
from collections.abc import Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, get_args
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from isotrain.config.sections import Count, Fraction, Positive, Section, Seed

AUTO, SIMULATED, DRAHIX = "auto", "simulated", "drahix"
OVERRIDABLE = ("file", "columns", "checks", "target", "time_zone", "country")  # what files of one source may differ in

Kind = Literal["load", "sub_load", "temperature", "solar", "other"]

POWER = {"W": 0.001, "kW": 1.0, "MW": 1000.0}
"""Units of a load, and how many kW each is."""

ENERGY = {"Wh": 0.001, "kWh": 1.0, "MWh": 1000.0}
"""Units of the energy used in one step of the file, and how many kWh each is."""

STORED_UNIT: dict[str, str] = {"load": "kW", "sub_load": "kW", "temperature": "degC", "solar": "W/m2"}
"""The unit in which the tidy table holds each kind of column; the kind ``other`` keeps the unit of its file."""


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


def _quoted_code(country: Any) -> Any:
    """An unquoted NO (Norway) reaches the program as false: YAML reads no, off, yes and on as truth values."""
    if isinstance(country, bool):
        raise ValueError(f'YAML reads the code without quotes as {str(country).lower()}: quote it, country: "NO"')
    if not (isinstance(country, str) and len(country) == 2 and country.isascii() and country.isupper()):
        raise ValueError(f'{country!r} is no code of a country: write its two capitals of ISO 3166 in quotes, "NO"')
    return country


def _one_or_several(source: Any) -> Any:
    names = source if isinstance(source, list) else [source]
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(
            f"{source!r} names no file: write auto, simulated, a file, a folder, a zip file, a list of them or a "
            "pattern such as meter-*.csv"
        )
    if isinstance(source, list) and {AUTO, SIMULATED} & {*source}:
        raise ValueError(f"{source!r}: auto and simulated stand alone; a list holds files only")
    return source


class Column(Section):
    """One measured quantity and how the file writes it.

    Example:
        A meter that counts the energy of each step in Wh::

            Column(kind="load", name="ElImp", unit="Wh")
    """

    kind: Kind  # other: any further series that may explain the load, such as wind, humidity, a price, a count
    name: str | None = None  # heading in the file, stray blanks aside; the column's own key if left out
    unit: str | None = None  # unit in the file; the unit it is stored in if left out; of kind other: any text
    sign: Literal[1, -1] = 1  # -1 where the file counts consumption as negative
    # known: its values at the hours forecast are known before (a forecast as issued, a timetable, a price)
    # perfect: measured values stand in for such a forecast, and everything that is reported says so
    ahead: Literal["known", "perfect"] | None = None

    @model_validator(mode="after")
    def _unit_fits_kind(self) -> "Column":
        stored = STORED_UNIT.get(self.kind)
        known = [*POWER, *ENERGY] if stored == "kW" else [stored]
        if stored and self.unit is not None and self.unit not in known:
            raise ValueError(
                f"unit {self.unit!r} does not fit kind {self.kind!r}: write {', '.join(map(str, known))}"
                + ("" if stored == "kW" else "; a column in another unit can be of kind other")
            )
        return self

    @model_validator(mode="after")
    def _no_load_is_known_ahead(self) -> "Column":
        if self.ahead and self.kind in ("load", "sub_load"):
            raise ValueError(
                f"ahead: {self.ahead} does not fit kind {self.kind!r}: a load is forecast; leave it out, or give a "
                "timetable or a plan of the load the kind other"
            )
        return self

    @property
    def stored_unit(self) -> str:
        """The unit in which the tidy table holds it; may be empty for a column of kind ``other``."""
        return STORED_UNIT.get(self.kind) or self.unit or ""


class File(Section):
    """How the table is written; nothing here concerns a simulated series."""

    head_lines: Annotated[int, Field(ge=0, le=10_000)] | None = None  # before the heading; None: found by time_column
    time_column: str = "Date and time (UTC)"  # heading, stray blanks aside; may be empty, as the file writes it
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
    """What makes a value a fault, in the units of the tidy table. Left out: derived from the series; None: no check."""

    lowest: float | None = None
    highest: float | None = None
    stuck_hours: Count | None = None  # so many equal hours in a row are a stuck sensor
    stuck_above: float | None = None  # equal values up to here are genuine (a solar sensor at night)
    outage_below: float | None = None  # a meter that reads less is off, and so are the sub-loads behind it
    jump: Positive | None = None  # further than this from each of the two hours before is a spike
    before_start: float = 0.0  # stands in where a column has no past at all to repair from

    @model_validator(mode="after")
    def _limits_in_order(self) -> "Check":
        if self.lowest is not None and self.highest is not None and self.lowest >= self.highest:
            raise ValueError(f"lowest = {self.lowest} must lie below highest = {self.highest}")
        return self

    @model_serializer(mode="wrap")
    def _only_what_was_said(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """So that what was left out stays left out when the settings are written and read again."""
        return {name: value for name, value in dump(self).items() if name in self.model_fields_set}


PROFILES: dict[str, dict[str, Check]] = {
    AUTO: {},
    DRAHIX: {
        # the highest hour seen is 114 kW, the lowest genuine one 5.86; a meter that is off shows 0.04 to 1.65
        "load": Check(
            lowest=0.0, highest=200.0, stuck_hours=6, stuck_above=None, outage_below=3.0, jump=None, before_start=0.0
        ),
        "sub_load": Check(  # zones repeat for up to 15 h
            lowest=0.0, highest=100.0, stuck_hours=24, stuck_above=None, outage_below=None, jump=None, before_start=0.0
        ),
        "temperature": Check(  # a thunderstorm has taken off 7.8 degC in an hour
            lowest=-20.0, highest=45.0, stuck_hours=6, stuck_above=None, outage_below=None, jump=9.0, before_start=12.0
        ),
        "solar": Check(  # night offsets reach -2.1: between lowest and 0 the flux is set to 0; night and dusk do repeat
            lowest=-3.0, highest=1400.0, stuck_hours=4, stuck_above=20.0, outage_below=None, jump=None, before_start=0.0
        ),
    },
}  # fmt: skip
"""Named limits, by kind of column; ``auto`` says nothing, so that all of them are derived."""


def _named_checks(checks: Any) -> Any:
    if isinstance(checks, str):
        if checks not in PROFILES:
            raise ValueError(
                f"{checks!r} is no profile: write {' or '.join(PROFILES)}, or limits by kind or column, such as "
                "load: {highest: 500.0}"
            )
        return PROFILES[checks]
    return checks


class Simulated(Section):
    """The series made up when ``source`` is "simulated"."""

    seed: Seed = 0
    start: datetime = Field(default=datetime(2017, 1, 1), strict=False)  # UTC, on the hour; text in YAML and JSON
    hours: int = Field(default=26_304, ge=24 * 28, le=24 * 366 * 100)
    series: Annotated[int, Field(ge=1, le=10_000)] = 1  # with ingest.series: each, so many buildings, no two alike

    @model_validator(mode="after")
    def _starts_on_the_hour(self) -> "Simulated":
        s = self.start
        if not 1970 <= s.year <= 2100:
            raise ValueError(f"start = {s} must lie between 1970 and 2100")
        if s.tzinfo is not None or (s.minute, s.second, s.microsecond) != (0, 0, 0):
            raise ValueError(f"start = {s} must be a UTC hour written without an offset, such as 2017-01-01")
        return self


def _laid_over(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes``; a column, or a check, that is null is taken out."""
    laid = dict(base)
    for key, value in changes.items():
        old = laid.get(key)
        laid[key] = _laid_over(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
        if key in ("columns", "checks") and isinstance(laid[key], Mapping):
            laid[key] = {name: one for name, one in laid[key].items() if one is not None}
    return laid


def _drahix_columns() -> dict[str, Column]:
    solar = {f"{part}_Solar_Flux": Column(kind="solar") for part in ("Global", "Direct", "Diffuse")}
    zones = {f"T{number}": Column(kind="sub_load") for number in range(1, 8)}
    return {"TGBT": Column(kind="load"), **zones, "AirTemp": Column(kind="temperature"), **solar}


class Ingest(Section):
    """From a file, or the simulator, to an hourly table without gaps."""

    # auto (brought in, else simulated) | simulated | a file, a folder, a zip file: its path, or its name in data/raw |
    # a list of them | a pattern such as meter-*.csv
    source: Annotated[str | list[str], BeforeValidator(_one_or_several)] = AUTO
    # one: the files are one series, its rows joined by time, its columns in any of them | each: every file is one
    series: Literal["one", "each"] = "one"
    broken: Literal["stop", "leave_out"] = "stop"  # a file of several series that cannot be used: all of them are named
    target: str = "TGBT"  # key in columns
    time_zone: Zone = "Europe/Paris"  # the building's own: occupancy follows it
    country: Annotated[str, BeforeValidator(_quoted_code)] = "FR"  # its public holidays count, ISO 3166
    file: File = File()
    columns: dict[str, Column] = Field(default_factory=_drahix_columns)
    # auto: derived from the training part | drahix: those of that building | by kind or column, over what is derived
    checks: Annotated[dict[str, Check], BeforeValidator(_named_checks)] = Field(default_factory=dict)
    most_flagged: Fraction = 0.2  # share of the target's hours with a fault, gaps apart, above which the run stops
    simulated: Simulated = Simulated()
    # pattern of series' names -> what differs in them: parts of file, columns (null: lacks it), checks, target, ...
    overrides: dict[str, dict[str, Any]] = Field(default_factory=dict)
    about: dict[str, str] = Field(default_factory=dict)  # fact about a building -> its key in the file's head lines

    @model_validator(mode="after")
    def _names_agree(self) -> "Ingest":
        if self.target not in self.columns:
            raise ValueError(f"target {self.target!r} is not in columns ({', '.join(self.columns)})")
        if self.columns[self.target].kind not in ("load", "sub_load"):
            raise ValueError(f"target {self.target!r} must be a load, not of kind {self.columns[self.target].kind!r}")
        for key in self.columns:
            if key == "time" or key.endswith("__flag"):
                raise ValueError(f"columns.{key}: this name is kept for the tidy table itself; choose another")
        for key in self.checks:
            if key not in self.columns and key not in get_args(Kind):
                kinds = ", ".join(get_args(Kind))
                raise ValueError(f"checks.{key} is neither a kind ({kinds}) nor a column ({', '.join(self.columns)})")
        headings = [self.heading(key) for key in self.columns]
        for heading in headings:
            if headings.count(heading) > 1 or heading == self.file.time_column.strip():
                raise ValueError(f"the heading {heading!r} is given to two columns; each needs its own")
        return self

    @model_validator(mode="after")
    def _many_fit_together(self) -> "Ingest":
        if self.series == "one" and self.overrides:
            raise ValueError("overrides say what differs between series: set ingest.series to each, or leave them out")
        if self.series == "one" and self.simulated.series > 1:
            raise ValueError(f"simulated.series = {self.simulated.series} needs ingest.series: each")
        for pattern, override in self.overrides.items():
            if unknown := [key for key in override if key not in OVERRIDABLE]:
                raise ValueError(f"overrides.{pattern}.{unknown[0]}: only {', '.join(OVERRIDABLE)} may differ")
            try:
                self._with(override)
            except ValidationError as problem:
                first = problem.errors()[0]
                where = ".".join(map(str, ("overrides", pattern, *first["loc"])))
                raise ValueError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None
        return self

    def of(self, name: str, source: str) -> "Ingest":
        """The settings of the one series ``name``, which is read from ``source``: what ``overrides`` say is laid over.

        Where several patterns fit, a later one goes before an earlier one.
        """
        one = {"series": "one", "overrides": {}, "source": source}
        own = self.model_copy(update={**one, "simulated": self.simulated.model_copy(update={"series": 1})})
        for pattern, override in self.overrides.items():
            if fnmatchcase(name, pattern):
                own = own._with(override)
        return own

    def _with(self, override: Mapping[str, Any]) -> "Ingest":
        values = self.model_dump(mode="json", exclude={"overrides", "series", "simulated"})
        settings = Ingest.model_validate(_laid_over(values, override))
        return settings.model_copy(update={"simulated": self.simulated})

    def heading(self, key: str) -> str:
        """The heading under which the file holds column ``key``."""
        name = self.columns[key].name
        return (key if name is None else name).strip()

    def factor(self, key: str) -> float:
        """What a value of the load ``key`` in the file is multiplied by to be kW, consumption positive."""
        column = self.columns[key]
        unit = column.unit or "kW"
        size = POWER[unit] if unit in POWER else ENERGY[unit] * 60 / self.file.step_minutes
        return column.sign * size

    def check(self, key: str) -> Check:
        """What ``checks`` say of the column ``key``: its own limits over those of its kind."""
        own = [self.checks[name] for name in (self.columns[key].kind, key) if name in self.checks]
        return Check(**{name: getattr(said, name) for said in own for name in said.model_fields_set})

    @property
    def zone(self) -> ZoneInfo:
        """The building's time zone."""
        return ZoneInfo(self.time_zone)
