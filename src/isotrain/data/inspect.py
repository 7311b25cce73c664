"""Find out how an unknown CSV is written, and propose the section ``ingest`` of params.yaml that reads it.

Nothing here reads the series for the study: what is proposed is read once by the reader of the pipeline
(:mod:`isotrain.data.source`), which has the last word.
"""

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from zoneinfo import available_timezones

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from isotrain.config.ingest import Ingest
from isotrain.config.reader import read_yaml
from isotrain.data.cells import EMPTY, SAMPLE, Table, number_pattern, read_table, shape_of, unpacked
from isotrain.data.clocks import (
    USUAL_ZONES,
    busiest_hour,
    changes,
    country_of,
    how_it_follows,
    in_utc,
    rhythm_moves,
    rows_of_tab,
    zone_of_midnights,
    zones_of,
)
from isotrain.data.ingest import Many
from isotrain.data.source import SEPARATORS, STEPS, headings_of
from isotrain.data.windows import Facts
from isotrain.errors import InputError
from isotrain.files import replacing, same_content

Sure = Literal["certain", "likely", "guess"]

MOSTLY_MISSING = 0.5  # share of empty cells above which a column is left out
MOSTLY_ZERO = 0.75  # share of zeros above which a load that is not the target is left out
SMOOTH = 0.05  # of the mean: the sum of very many customers changes less from row to row, no building does
BUSY = (7.0, 21.0)  # o'clock, between which the middle of the busy hours of most buildings lies

ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?\s*(Z|[+-]\d\d(:?\d\d)?)?")

OFFSET = r"(Z|UTC|[+-]\d\d(?::?\d\d)?)"
UNITS = {  # as headings and unit lines write them, in lower case: as params.yaml does
    "w": "W", "kw": "kW", "mw": "MW", "wh": "Wh", "kwh": "kWh", "mwh": "MWh", "watt": "W", "watts": "W",
    "c": "degC", "°c": "degC", "degc": "degC", "deg c": "degC", "celsius": "degC",
    "w/m2": "W/m2", "w/m²": "W/m2", "w/m^2": "W/m2", "wm-2": "W/m2", "w.m-2": "W/m2", "w m-2": "W/m2",
    "m/s": "m/s", "%": "%", "hpa": "hPa", "mm": "mm", "deg": "deg", "°": "deg", "°f": "degF", "k": "K",
    "eur/mwh": "EUR/MWh", "eur/kwh": "EUR/kWh",
}  # fmt: skip
OF_LOADS = ("W", "kW", "MW", "Wh", "kWh", "MWh")
CALENDAR = r"holiday|weekend|weekday|season|^(year|month|week|day|hour|minute|date|time|dow|index|id|no|number|row)$"
NOT_OUTDOOR = r"dew|ros[ée]e|taupunkt|wet.?bulb|feels|apparent|indoor|inside|room|soil|set.?point|water|supply|return"
TEMPERATURE = r"temp|t_?out|t2m|dry.?bulb|^ta$"
SOLAR = r"ghi\b|dni\b|dhi\b|solar|irradi|radiation|rayonnement|strahlung|solglob|flux|insolation"
WEATHER = r"wind|humid|press|cloud|precip|rain|snow|visib|price|prix|preis|occup|count|sun|dew"
LOAD = (
    r"load|demand|consum|conso|usage|\buse\b|power|puissance|leistung|verbrauch|forbruk|strom|electr|energ|meter|"
    r"\bgrid|import|tgbt|mains|\bel"
)
HEAT = r"\bheat|\bht|thermal|chaleur|hot.?water|\bgas|produc|generat|export|\bpv"
WHOLE = r"total|\bmain|tgbt|import|\bgrid|whole|building|global|gesamt"


@dataclass(frozen=True)
class Asked:
    """What the user knows already; it goes before what the file seems to say."""

    day_first: bool | None = None
    time_zone: str | None = None
    country: str | None = None
    target: str | None = None  # its heading
    unit: str | None = None  # of the target


@dataclass(frozen=True)
class Finding:
    """One thing found: what, how sure, why."""

    what: str
    value: str
    sure: Sure
    why: str


@dataclass
class Proposal:
    """The section ``ingest`` for some files, and the reasons for it."""

    section: dict[str, Any]  # as in params.yaml, what is left at its default left out
    rows: int
    first: datetime
    last: datetime
    findings: list[Finding] = field(default_factory=list)
    to_check: list[str] = field(default_factory=list)  # what only a human can know

    def settings(self, source: str | list[str]) -> Ingest:
        """The section as the pipeline reads it, of the file or files ``source``."""
        return Ingest.model_validate({**self.section, "source": source})


def inspect(paths: Sequence[Path], asked: Asked = Asked()) -> Proposal:
    """Propose the section ``ingest`` for the files ``paths``, which are one series.

    Raises :class:`InputError` where no section could read them, with what is to be changed in the file, and where an
    option is needed to decide (the order of day and month).

    Example:
        >>> import tempfile
        >>> hours = pd.date_range("2020-01-01", periods=1000, freq="h")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "meter.csv"
        ...     table = pd.DataFrame({"When": hours.strftime("%m/%d/%Y %H:%M"), "Load": 5.0 + hours.hour})
        ...     table.to_csv(path, sep=";", decimal=",", index=False)
        ...     section = inspect([path]).section
        >>> section["target"], section["file"]["separator"], section["file"]["time_format"]
        ('Load', ';', '%m/%d/%Y %H:%M')
    """
    tables = [read_table(path) for path in paths]
    first = tables[0]
    for other in tables[1:]:
        if other.form != first.form:
            raise InputError(
                f"{other.path} is written in another form than {first.path} (encoding, separator, decimal "
                "sign or heading): inspect each by itself, and write them alike"
            )
    cells = pd.concat([table.cells for table in tables], ignore_index=True)
    proposal = Proposal({}, len(cells), datetime(1970, 1, 1), datetime(1970, 1, 1))
    _say_form(proposal, first)
    time_format, naive, offset = _time(proposal, first, cells[first.time], asked)
    if len(tables) > 1:  # which may be named in any order
        cells, naive = cells.loc[naive.sort_values(kind="stable").index], naive.sort_values(kind="stable")
        offset = None if offset is None else offset.loc[naive.index]
    minutes = _step(proposal, naive, first.path)
    columns, target, load = _columns(proposal, first, cells, asked)
    heading = first.headings[first.time]
    stamps_zone, change = _zones(proposal, first, naive, offset, load, cells, asked)
    file: dict[str, Any] = {
        "time_column": heading, "time_zone": stamps_zone, "time_format": time_format, "step_minutes": minutes,
        "separator": first.separator, "decimal": first.decimal, "encoding": first.encoding,
    }  # fmt: skip
    if change != "infer":
        file["clock_change"] = change
    if not heading or any(heading in row for row in first.head):  # else the reader finds the heading by it
        file["head_lines"] = len(first.head)
    proposal.section = {"target": target, **proposal.section, "file": file, "columns": columns, "checks": "auto"}
    proposal.first, proposal.last = naive.iloc[0].to_pydatetime(), naive.iloc[-1].to_pydatetime()
    return proposal


def inspect_many(paths: Sequence[Path], asked: Asked = Asked()) -> Proposal:
    """Propose the section for ``paths``, each a series of its own, from the first of them.

    A column that one of the others lacks is left out; a file that lacks the target is not asked. Paths may be members
    of a zip file. Raises :class:`InputError` as :func:`inspect` does.
    """
    with tempfile.TemporaryDirectory() as folder:
        proposal = inspect([unpacked(paths[0], Path(folder))], asked)
    settings = proposal.settings("simulated")
    headings = [headings_of(path, settings.file) for path in paths]
    has = [those for those in headings if settings.heading(settings.target) in those]
    short = {key for key in settings.columns if any(settings.heading(key) not in those for those in has)}
    columns = {key: one for key, one in proposal.section["columns"].items() if key not in short}
    proposal.section = {"series": "each", **proposal.section, "columns": columns}
    proposal.findings.insert(0, Finding("series", f"{len(paths)}, one a file", "guess", f"read from {paths[0].name}"))
    if short:
        why = f"not in all of the {len(has)} files that have {settings.target}"
        proposal.findings.append(Finding("left out", ", ".join(sorted(short)), "certain", why))
    return proposal


def agreement(many: Many) -> str:
    """How many of the series, which have been read, can be used, and why the others cannot."""
    good = len(many.names) - len(many.left_out)
    lines = [f"{good} of {len(many.names)} files are read by this section."]
    lines += [f"  {name}: {reason}" for name, reason in many.left_out.items()]
    if many.left_out:
        lines.append("Say what differs in them in ingest.overrides, or set ingest.broken to leave_out.")
    lines += [f"  {name}: {remark}" for name, of_name in many.remarks.items() for remark in of_name]
    return "\n".join(lines)


# --- time


def _time(
    proposal: Proposal, table: Table, text: pd.Series, asked: Asked
) -> tuple[str | None, pd.Series, pd.Series | None]:
    """The format of the stamps (``None``: ISO 8601), the stamps as clocks showed them, and their offsets."""
    heading = table.headings[table.time]
    if text.map(lambda cell: bool(ISO.fullmatch(cell))).all():
        found, why, shape = "ISO 8601", "all of its stamps are written year-month-day, hour:minute", None
        sure: Sure = "certain"
    else:
        shape = Counter(shape_of(cell) for cell in text.iloc[:: max(1, len(text) // SAMPLE)]).most_common(1)[0][0] or ""
        sure, why = "certain", "its stamps have this form"
        if shape.startswith("%d") and "%b" not in shape:
            shape, sure, why = _day_or_month(table.path, text, shape, asked)
        found = shape
    offsets = text.str.extract(rf"{OFFSET}$", expand=False) if shape is None or "%z" in shape else None
    if offsets is not None and offsets.isna().all():
        offsets = None
    parsed = pd.to_datetime(
        text if offsets is None else text.str.replace(rf"\s*{OFFSET}$", "", regex=True),
        format="ISO8601" if shape is None else shape.replace("%z", "").strip(), errors="coerce",
    )  # fmt: skip
    if (wrong := parsed.isna()).any():
        cell = text[wrong].iloc[0]
        hint = (
            ": this file counts the last hour of a day as 24:00; write 00:00 of the next day" if "24:00" in cell else ""
        )
        raise InputError(
            f"{table.path}, column {heading!r}: {wrong.sum()} of {len(text)} stamps are not {found}, the first is "
            f"{cell!r}{hint or ': correct or remove those rows'}"
        )
    proposal.findings.append(Finding("time column", f"{heading!r}, {found}", sure, why))
    return shape, parsed, offsets


def _day_or_month(path: Path, text: pd.Series, shape: str, asked: Asked) -> tuple[str, Sure, str]:
    """``shape`` with day and month in the order that the data, or else the user, say."""
    numbers = text.str.extract(r"^(\d{1,2})[./-](\d{1,2})").astype(float).max()
    other = shape.replace("%d", "%M0").replace("%m", "%d").replace("%M0", "%m")
    day_first, month_first = numbers[0] > 12, numbers[1] > 12
    if day_first != month_first:
        if asked.day_first is not None and asked.day_first != day_first:
            first, said = ("first", "month") if day_first else ("second", "day")
            raise InputError(
                f"{path}: the {first} number of a date is over 12, so that it is no {said}: leave out the option"
            )
        place, day = ("first", numbers[0]) if day_first else ("second", numbers[1])
        order = "day before month" if day_first else "month before day"
        return shape if day_first else other, "certain", f"{order}: the {place} number goes up to {day:.0f}"
    if asked.day_first is not None:
        return shape if asked.day_first else other, "certain", "the order of day and month is what the option says"
    regular = [_regular(pd.to_datetime(text, format=one, errors="coerce")) for one in (shape, other)]
    if abs(regular[0] - regular[1]) > 0.001 and max(regular) > 0.9:
        order = ("day before month", "month before day")[int(np.argmax(regular))]
        return (shape, other)[int(np.argmax(regular))], "likely", f"{order}: only so the rows follow one another evenly"
    raise InputError(
        f"{path}: whether {text.iloc[0]!r} begins with the day or the month cannot be told from the data: add "
        "--day-first or --month-first"
    )


def _regular(stamps: pd.Series) -> float:
    """Share of the rows that come one usual step after the row before."""
    steps = stamps.diff().iloc[1:].dt.total_seconds()
    usual = steps.median()
    return float((steps == usual).mean()) if usual > 0 else 0.0


def _step(proposal: Proposal, stamps: pd.Series, path: Path) -> int:
    steps = stamps.diff().iloc[1:].dt.total_seconds() / 60
    if not len(steps):
        raise InputError(f"{path} holds one row only: a series needs more")
    usual = float(steps.median())
    minutes = min(STEPS, key=lambda step: abs(step - usual))
    if abs(minutes - usual) > 0.1 * minutes:
        known = ", ".join(map(str, STEPS))
        raise InputError(
            f"{path}: its rows are {usual:g} minutes apart, the reader takes steps of {known}: write one of them"
            + ("; rows that go back in time must be sorted" if usual < 0 else "")
        )
    even = float((steps == usual).mean())
    proposal.findings.append(
        Finding("step", f"{minutes} minutes", "certain", f"{even:.1%} of the rows are so far apart")
    )
    return minutes


# --- columns


def _unit_of(heading: str) -> str | None:
    """The unit that a heading gives, in brackets or at its end."""
    for text in re.findall(r"[\[(]([^\])]+)[\])]", heading):
        if (known := UNITS.get(text.strip().lower())) is not None:
            return known
    ending = re.split(r"[_ ]", heading)[-1].lower()
    known = UNITS.get(ending)
    return known if ending not in ("c", "k", "w", "%", "mm", "deg") or known is None else None


def _kind_of(text: str, unit: str | None, values: pd.Series) -> str | None:
    """Load, temperature, solar or other by name, unit and range; ``None`` where the name says nothing."""
    low, high = values.quantile(0.001), values.quantile(0.999)
    if unit in OF_LOADS:
        return "load"
    if re.search(TEMPERATURE, text) or unit == "degC":
        outdoor = low >= -60 and high <= 60 and not re.search(NOT_OUTDOOR, text) and unit in (None, "degC")
        return "temperature" if outdoor else "other"
    if unit == "W/m2" or (unit is None and re.search(SOLAR, text)):
        return "solar" if low >= -150 and 20 < high <= 1600 else "other"
    if unit is not None or re.search(WEATHER, text):
        return "other"
    return "load" if re.search(LOAD, text) else None


def _columns(
    proposal: Proposal, table: Table, cells: pd.DataFrame, asked: Asked
) -> tuple[dict[str, dict[str, Any]], str, pd.Series]:
    """The section ``columns``, the target's key in it, and the target's values as written."""
    number = number_pattern(table.decimal)
    found: dict[int, tuple[str | None, str | None, pd.Series]] = {}
    for i, heading in enumerate(table.headings):
        if i == table.time:
            continue
        text = cells[i].mask(cells[i].str.lower().isin(EMPTY))
        some = text.dropna()
        if not len(some):
            _leave_out(proposal, heading, "it has no value at all")
            continue
        if not some.map(lambda cell: bool(number.fullmatch(cell))).all():
            wrong = some[~some.map(lambda cell: bool(number.fullmatch(cell)))]
            what = "flags" if set(some.str.lower()) <= {"true", "false", "yes", "no"} else "text"
            few = f"{len(wrong)} of its cells are no numbers, such as {wrong.iloc[0]!r}"
            _leave_out(proposal, heading, f"it holds {what}" if len(wrong) > 0.01 * len(some) else few)
            if len(wrong) <= 0.01 * len(some):
                proposal.to_check.append(f"column {heading!r} is left out, because {few}: empty those cells to use it")
            continue
        values = pd.to_numeric(text.str.replace(table.decimal, "."), errors="coerce")
        name = " ".join([re.sub(r"(?<=[a-z])(?=[A-Z])", " ", heading), *table.above(i)]).lower()
        if re.search(CALENDAR, heading.lower()) and heading != asked.target:
            _leave_out(proposal, heading, "it says the date, which the study knows by itself")
        elif values.nunique() == 1:
            _leave_out(proposal, heading, f"it is {values.dropna().iloc[0]:g} all the time")
        elif values.isna().mean() > MOSTLY_MISSING and heading != asked.target:
            _leave_out(proposal, heading, f"{values.isna().mean():.0%} of its cells are empty")
        else:
            written = next((known for cell in table.above(i) if (known := UNITS.get(cell.lower()))), None)
            unit = written or _unit_of(heading)
            found[i] = _kind_of(name, unit, values), unit, values
    target = _target(proposal, table, found, asked)
    kinds = _kinds(table, found, target)
    for i in [i for i in found if kinds[i] == "sub_load" and (found[i][2].fillna(0) == 0).mean() > MOSTLY_ZERO]:
        _leave_out(proposal, table.headings[i], "it is 0 or empty most of the time")
        del found[i]
    shared_unit = asked.unit or found[target][1] or _unit_by_range(found[target][2])[0]
    columns: dict[str, dict[str, Any]] = {}
    keys = _keys([table.headings[i] for i in found])
    for (i, (said, unit, values)), key in zip(found.items(), keys, strict=True):
        kind, heading = kinds[i], table.headings[i]
        sure: Sure = "certain" if unit else "likely" if said else "guess"
        why = "its unit is written in the file" if unit else "its name and range say so" if said else "of its values"
        column: dict[str, Any] = {"kind": kind} | ({"name": heading} if key != heading else {})
        if kind in ("load", "sub_load"):
            if i == target and asked.unit:
                unit, sure, why = asked.unit, "certain", "the option says so"
            if unit is None and i != target:
                unit, sure, why = shared_unit, "guess", "no unit is written; it is taken as the target's"
            elif unit is None:
                unit, why = _unit_by_range(values)
                sure = "guess"
                proposal.to_check.append(f"the unit of {heading!r}, {unit}, is a guess ({why}): --unit gives another")
            column["unit"] = unit
            if values.median() < 0:
                column["sign"] = -1
        elif kind == "other":
            column |= {"unit": unit} if unit else {}
        columns[key] = column
        what = "target" if i == target else kind.replace("_", "-")
        proposal.findings.append(
            Finding(what, f"{heading!r}" + (f" in {column['unit']}" if "unit" in column else ""), sure, why)
        )
    return columns, keys[list(found).index(target)], found[target][2]


def _leave_out(proposal: Proposal, heading: str, why: str) -> None:
    proposal.findings.append(Finding("left out", repr(heading), "certain", why))


def _target(
    proposal: Proposal, table: Table, found: Mapping[int, tuple[str | None, str | None, pd.Series]], asked: Asked
) -> int:
    """The column to forecast: the load whose name is that of a whole building's, else the largest."""
    if asked.target is not None:
        for i in found:
            if table.headings[i] == asked.target:
                return i
        names = ", ".join(table.headings[i] for i in found)
        raise InputError(f"{table.path} has no column of numbers {asked.target!r}; it has {names}: correct --target")
    loads = [i for i, (kind, _, _) in found.items() if kind == "load"]
    unnamed = [i for i, (kind, _, _) in found.items() if kind is None]
    if not loads and not unnamed:
        names = ", ".join(table.headings[i] for i in found) or "no columns of numbers"
        others = "".join(f"; {one.value}: {one.why}" for one in proposal.findings if one.what == "left out")
        raise InputError(f"{table.path}: no column looks like a load (it has {names}{others}): name it by --target")

    def rank(i: int) -> tuple[bool, bool, float]:
        name = " ".join([table.headings[i], *table.above(i)]).lower()
        heat, whole = re.search(HEAT, name), re.search(WHOLE, name)
        return not heat, bool(whole), abs(float(found[i][2].mean()))

    best = max(loads or unnamed, key=rank)
    if len(loads or unnamed) > 1:
        others = ", ".join(repr(table.headings[i]) for i in (loads or unnamed) if i != best)
        proposal.to_check.append(f"the target is {table.headings[best]!r}, and not {others}: --target names another")
    return best


def _kinds(table: Table, found: Mapping[int, tuple[str | None, str | None, pd.Series]], target: int) -> dict[int, str]:
    """The kind of each column; one whose name says nothing is a load behind the target's meter if it moves with it.

    Columns that differ by a number only (T1, T2, ...) are of one kind.
    """
    load = found[target][2]
    kinds: dict[int, str] = {}
    votes: dict[str, list[bool]] = {}
    for i, (kind, _, values) in found.items():
        if i != target and kind is None:
            part = bool(values.min() >= 0 and values.mean() < abs(load.mean()) and values.corr(load) > 0.3)
            votes.setdefault(re.sub(r"\d+", "", table.headings[i]), []).append(part)
    for i, (kind, _, _) in found.items():
        if i == target:
            kinds[i] = "load"
        elif kind is None:
            vote = votes[re.sub(r"\d+", "", table.headings[i])]
            kinds[i] = "sub_load" if 2 * sum(vote) > len(vote) else "other"
        else:
            kinds[i] = "sub_load" if kind == "load" else kind
    return kinds


def _unit_by_range(values: pd.Series) -> tuple[str, str]:
    """A unit for a load that names none."""
    median = float(values[values != 0].abs().median())
    change = float(values.diff().abs().mean() / abs(values.mean()))
    if median <= 1000:
        return "kW", f"no unit is written, and half of the values are below {median:.3g}"
    if change < SMOOTH:
        return (
            "MW",
            f"no unit is written; a row differs by {change:.1%} from the one before, as the sum of many customers",
        )
    return "W", f"no unit is written, and half of the values exceed {median:.4g}"


def _keys(headings: list[str]) -> list[str]:
    """A word for each heading, each its own: without the unit in brackets, blanks as underscores."""
    keys: list[str] = []
    for heading in headings:
        bare = re.sub(r"[\[(][^\])]*[\])]", "", heading).strip() or heading
        key = re.sub(r"\W+", "_", bare).strip("_") or "column"
        while key in keys or key == "time":
            key += "_2"
        keys.append(key)
    return keys


# --- zones and country


def _zones(
    proposal: Proposal,
    table: Table,
    naive: pd.Series,
    offsets: pd.Series | None,
    load: pd.Series,
    cells: pd.DataFrame,
    asked: Asked,
) -> tuple[str, str]:
    """The zone of the stamps and how the clock change is written; the building's go into the section."""
    words = [cell for row in table.head for cell in row if cell]
    by_name = {zone.casefold(): zone for zone in available_timezones()}
    written = next((by_name[word.casefold()] for word in words if "/" in word and word.casefold() in by_name), None)
    names = {row[1].casefold(): row[0] for row in rows_of_tab("iso3166.tab")}
    text = " ".join(words).casefold()
    named = next((names[name] for name in names if len(name) > 3 and re.search(rf"\b{re.escape(name)}\b", text)), None)

    if asked.time_zone is not None and asked.time_zone not in available_timezones():
        raise InputError(f"{asked.time_zone!r} is no time zone: write one such as Europe/Oslo")
    country, zone, sure, why = asked.country, asked.time_zone, "certain", "the option says so"
    if zone is None and country is None and named:
        country, sure, why = named, "likely", "the lines above the table name the country"
    if zone is None and country is None and written and country_of(written):
        zone, sure, why = written, "likely", "the lines above the table name it"
    if zone is None and country is not None:
        if not (zones := zones_of(country)):
            raise InputError(f"{country!r} is no country: write two letters of ISO 3166, such as FR")
        zone = zones[0]
        if len(zones) > 1:
            proposal.to_check.append(
                f"{country} has {len(zones)} time zones, {zone} is the first: --time-zone names another"
            )
    if zone is None and offsets is None:
        local = next((one for one in USUAL_ZONES if how_it_follows(naive, one) is not None), None)
        zone, sure, why = local, "likely", "the hours that a clock change skips and repeats are those of this zone"
        if local:
            proposal.to_check.append(
                f"where the building stands: {local} is one zone whose clocks change so; --country names the place"
            )
    if zone is None and offsets is not None:
        zone, sure, why = (
            zone_of_midnights(table, cells, naive, offsets),
            "likely",
            "a column of dates begins its days there",
        )
    if zone is None:
        zone, sure, why = Ingest().time_zone, "guess", "nothing in the file tells where the building stands"
        proposal.to_check.append(f"where the building stands: {zone} is a guess; --time-zone and --country say it")
    country = country or country_of(zone)
    if country is None:
        country = Ingest().country
        proposal.to_check.append(f"whose public holidays count: {country} is a guess; --country says it")
    proposal.section |= {"time_zone": zone, "country": country}
    proposal.findings.append(Finding("building", f"{zone}, {country}", sure, why))  # type: ignore[arg-type]

    stamps, change = _zone_of_stamps(proposal, table, naive, offsets, load, zone, written)
    busiest = busiest_hour(in_utc(naive, offsets, stamps), load, zone)
    if busiest is not None and not BUSY[0] <= busiest <= BUSY[1]:
        proposal.to_check.append(
            f"the load is highest around {busiest:.0f}:00 by the clock of {zone}, which is unusual: check where the "
            "building stands and the zone of the stamps"
        )
    return stamps, change


def _zone_of_stamps(
    proposal: Proposal,
    table: Table,
    naive: pd.Series,
    offsets: pd.Series | None,
    load: pd.Series,
    zone: str,
    written: str | None,
) -> tuple[str, str]:
    heading = table.headings[table.time]
    change = "infer"
    sure: Sure = "certain"
    if offsets is not None:
        kinds = sorted(set(offsets))
        stamps, why = "UTC", f"each stamp carries its offset ({', '.join(kinds[:3])})"
        if len(kinds) > 1:
            stamps = zone
    elif re.search(r"\b(utc|gmt)\b", heading.lower()):
        stamps, why = "UTC", f"the heading {heading!r} says so"
    elif (follows := how_it_follows(naive, zone)) is not None:
        stamps, change = zone, follows
        why = "the hour that the spring change skips is absent" + (
            ", the one that autumn repeats is there twice"
            if follows == "infer"
            else "; autumn's second hour is absent too"
        )
    elif written:
        stamps, why = written, "the lines above the table name it"
    else:
        skipped, _ = changes(naive, zone)
        moved = rhythm_moves(naive, load, zone)
        sure = "guess"
        if not len(skipped):
            stamps, why = zone, f"no clock change of {zone} lies in the file, so that nothing tells"
        elif moved is False:
            stamps, change, sure = zone, "gap", "likely"
            why = "the days' course keeps its hours over the clock changes, so the stamps follow the local clock"
        else:
            stamps = "UTC"
            why = "the hour that the spring change skips is there, so the stamps do not follow a clock that changes"
            why += "; the days' course moves by an hour at the changes" if moved else ""
        proposal.to_check.append(
            f"the zone of the stamps, {stamps}: no stamp names it; for winter time all year set ingest.file.time_zone "
            "to a zone such as Etc/GMT-1 (an hour ahead of UTC)"
        )
    proposal.findings.append(Finding("zone of stamps", stamps, sure, why))
    return stamps, change


# --- into the project


def bring_in(paths: Sequence[Path], raw: Path) -> str | list[str]:
    """Copy the files, or a folder, into the folder ``raw``, unless they lie there; give ``ingest.source``'s names.

    Raises :class:`InputError` where a file of that name and another content is there already.
    """
    names = [re.sub(r"[^\w .,+()-]", "_", path.name) for path in paths]
    for path, name in zip(paths, names, strict=True):
        goal = raw / name
        if names.count(name) > 1 or (goal.exists() and not same_content(goal, path)):
            raise InputError(f"{goal} would hold two files, one of them {path}: rename that one, or remove the old one")
    for path, name in zip(paths, names, strict=True):
        if (raw / name).exists():
            continue
        if path.is_dir():
            shutil.copytree(path, raw / name)
        else:
            with replacing(raw / name) as draft:
                shutil.copyfile(path, draft)
    return names[0] if len(names) == 1 else names


# --- words and YAML


def _say_form(proposal: Proposal, table: Table) -> None:
    decimal = {".": "a point", ",": "a comma"}[table.decimal]
    at, width = len(table.head), len(table.headings)
    unicode = table.encoding.startswith("utf")
    proposal.findings += [
        Finding("encoding", table.encoding, "certain" if unicode else "likely", table.why_encoding),
        Finding("separator", SEPARATORS[table.separator], "certain", f"it splits the rows into {width} cells each"),
        Finding("decimal sign", decimal, "certain" if table.decimal == "," else "likely", "so the cells are numbers"),
        Finding("heading", f"line {at + 1}", "certain", f"it begins {table.headings[0]!r}"),
    ]


def words(proposal: Proposal) -> str:
    """What was found, how sure and why, and what a human must check, as lines for a terminal."""
    wide = [max(len(getattr(one, name)) for one in proposal.findings) for name in ("what", "value")]
    wide[1] = min(wide[1], 40)
    lines = [f"{proposal.rows:,} rows from {proposal.first:%Y-%m-%d %H:%M} to {proposal.last:%Y-%m-%d %H:%M}", ""]
    for one in proposal.findings:
        lines.append(f"  {one.what:{wide[0]}}  {one.value:{wide[1]}}  {one.sure:7}  {one.why}")
    lines += ["", "Please check:" if proposal.to_check else "Nothing is left in doubt."]
    lines += [f"  {number}. {what}" for number, what in enumerate(proposal.to_check, start=1)]
    return "\n".join(lines)


def as_yaml(section: Mapping[str, Any]) -> str:
    """The section ``ingest`` as text: a line a setting and a column."""
    lines = ["ingest:"]
    for key, value in section.items():
        if key in ("file", "columns"):
            lines.append(f"  {key}:")
            lines += [f"    {_flow(name)}: {_flow(one)}" for name, one in value.items()]
        else:
            lines.append(f"  {key}: {_flow(value)}")
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    """``value`` in one line of YAML; PyYAML quotes what would be read as something else (NO)."""
    text: str = yaml.safe_dump([value], default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**9)
    return text.strip()[1:-1]


def write_section(params: Path, section: Mapping[str, Any]) -> None:
    """Put ``section`` in the place of the section ``ingest`` of ``params``; every other byte stays.

    Raises :class:`InputError` if the file has no such section at the beginning of a line.
    """
    before = read_yaml(params)
    if isinstance(old := before.get("ingest"), dict) and "simulated" in old:
        section = {**section, "simulated": old["simulated"]}
    text = params.read_bytes().decode("utf-8")
    lines = text.splitlines(keepends=True)
    start = next((i for i, line in enumerate(lines) if re.match(r"ingest\s*:", line)), None)
    if start is None:
        raise InputError(f"{params} has no section ingest at the beginning of a line: add one (ingest: {{}})")
    end = next((i for i in range(start + 1, len(lines)) if re.match(r"[^\s#]", lines[i])), len(lines))
    while end > start + 1 and (not lines[end - 1].strip() or lines[end - 1].startswith("#")):
        end -= 1  # what stands above the next section belongs to that
    newline = "\r\n" if lines[start].endswith("\r\n") else "\n"
    new = as_yaml(section).replace("\n", newline)
    with replacing(params) as draft:
        draft.write_bytes("".join([*lines[:start], new, *lines[end:]]).encode("utf-8"))
        after = read_yaml(draft)
        if after["ingest"] != dict(section) or {**after, "ingest": None} != {**before, "ingest": None}:
            raise AssertionError(f"writing the section ingest would have changed another part of {params}")


def flagged(facts: Facts) -> str:
    """Which hours the checks take for faults, column by column; one that has none is passed over."""
    lines = []
    for name, counts in facts["flags"].items():
        some = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in counts.items() if count)
        if some:
            lines.append(f"  {name}: {some}")
    return "\n".join([f"Hours flagged, of {facts['rows']:,}:" if lines else "No hour is flagged.", *lines])


BLOCKS = "▁▂▃▄▅▆▇█"


def bars(values: npt.NDArray[np.float64]) -> str:
    """``values`` as a row of blocks from the lowest to the highest; a blank where one is missing."""
    low, high = np.nanmin(values), np.nanmax(values)
    steps = np.zeros(len(values)) if high == low else (values - low) / (high - low) * (len(BLOCKS) - 1)
    return "".join(" " if np.isnan(step) else BLOCKS[round(float(step))] for step in steps)


def picture(load: pd.Series, zone: str, unit: str) -> str:
    """The series month by month, and the typical week hour by hour on the building's clock, as rows of blocks.

    ``load``: hourly, UTC index.
    """
    local = load.tz_convert(zone)
    at = pd.DatetimeIndex(local.index)
    months = local.resample("MS").mean()
    week = local.groupby([at.day_of_week, at.hour]).mean().unstack().reindex(range(7))
    low, high = float(week.min().min()), float(week.max().max())
    lines = [f"months   {bars(months.to_numpy())}   means of {months.min():.3g} to {months.max():.3g} {unit}"]
    scaled = bars(week.to_numpy().ravel())
    for day, name in enumerate(("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")):
        lines.append(f"{name}      {scaled[24 * day : 24 * day + 24]}" + ("   0 to 23 h" if day == 0 else ""))
    lines[1] += f" in {zone}, hourly means of {low:.3g} to {high:.3g} {unit}"
    return "\n".join(lines)
