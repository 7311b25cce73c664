"""Read a CSV of any relative of the Drahi-X export into hourly columns in stored units, on the full UTC grid."""

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from isotrain.config.ingest import Column, File, Ingest
from isotrain.errors import InputError

OFFSET = r":\d\d(?:\.\d+)?\s*(Z|UTC|[+-]\d\d(?::?\d\d)?)$"
FIRST_ROW = 2  # line number of the first row under the heading
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
PROBABLY_WATTS = 1000.0  # kW; the median of no single building of a campus
PROBABLY_KILOWATTS = 0.1  # kW; the median of no metered building
LONGEST_GAP = 366 * 24 * 60  # minutes


def utc_stamps(text: pd.Series, file: File, path: Path) -> pd.Series:
    """``text`` (row i on line i + 2) as UTC instants, strictly increasing, under the same row labels.

    Stamps with an offset keep it; others are local to ``file.time_zone``. With ``file.clock_change = "gap"``
    the rows that the clock change makes ambiguous are left out. Raises :class:`InputError` naming the line of
    the first stamp that is unreadable, of another zone, twice there, out of order or on no clock.
    """
    text = text.str.strip()
    offsets = text.str.extract(OFFSET, expand=False)
    naive = offsets.isna() & text.notna()
    instants = _parsed(text, file, path, aware=not naive.all())
    if naive.any() and not naive.all():
        row = first_true(naive != naive.iloc[0])
        raise _problem(path, row, text, "offset present on some stamps only: write all of them alike")
    if naive.any():
        instants = _localised(instants, text, file, path)
    elif offsets.nunique() > 1:
        _check_offsets(instants, offsets, text, file, path)
    _check_order(instants, text, path)
    return instants


def _parsed(text: pd.Series, file: File, path: Path, *, aware: bool) -> pd.Series:
    instants = pd.to_datetime(text, format=file.time_format or "ISO8601", errors="coerce", utc=aware)
    if instants.isna().any():
        expected = f"as {file.time_format}" if file.time_format else "as ISO 8601 (2020-01-31 13:00:00)"
        raise _problem(
            path,
            first_true(instants.isna()),
            text,
            f"cannot be read {expected}: correct it or set ingest.file.time_format",
        )
    return instants


def _check_offsets(instants: pd.Series, offsets: pd.Series, text: pd.Series, file: File, path: Path) -> None:
    """Several offsets are fine where they are those of the configured zone, summer and winter."""
    local = instants.dt.tz_convert(file.time_zone).dt.strftime("%z")
    written = offsets.replace({"Z": "+0000", "UTC": "+0000"}).str.replace(":", "").str.ljust(5, "0")
    if (local != written).any():
        raise _problem(
            path,
            first_true(local != written),
            text,
            f"mixed offsets ({', '.join(offsets.unique()[:4])}) that are not those of ingest.file.time_zone "
            f"= {file.time_zone}: set the zone the file was written in, or write all stamps in UTC",
        )


def _localised(naive: pd.Series, text: pd.Series, file: File, path: Path) -> pd.Series:
    """Local stamps as UTC; the hour that comes twice in autumn is resolved by the order of the rows."""
    first = naive.dt.tz_localize(file.time_zone, ambiguous=np.ones(len(naive), bool), nonexistent="NaT")
    second = naive.dt.tz_localize(file.time_zone, ambiguous=np.zeros(len(naive), bool), nonexistent="NaT")
    absent = first.isna()
    if absent.any() and file.clock_change == "infer":
        raise _problem(
            path,
            first_true(absent),
            text,
            f"no clock in {file.time_zone} ever showed it (spring change): set ingest.file.time_zone to the "
            "zone the file was written in, or ingest.file.clock_change to gap to leave such rows out",
        )
    ambiguous = (first != second) & ~absent
    later, unknown = _second_pass(naive[ambiguous])
    if len(unknown) and file.clock_change == "infer":
        raise _problem(
            path,
            int(unknown[0]),
            text,
            f"the clock in {file.time_zone} showed it twice (autumn change) and the order of rows does not "
            "tell which is meant: set ingest.file.time_zone to the zone the file was written in, or "
            "ingest.file.clock_change to gap to leave such rows out",
        )
    instants = first.dt.tz_convert("UTC")
    instants[later] = second.dt.tz_convert("UTC")[later]
    return pd.Series(instants.drop(index=absent.index[absent]).drop(index=unknown))


def _second_pass(naive: pd.Series) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Row labels of ambiguous stamps after the clock was set back, and of those that remain ambiguous.

    Within one autumn night the clock steps back once; rows before that are summer time, rows from there on
    winter time.
    """
    later, unknown = [], []
    for _, night in naive.groupby(naive.dt.date):
        back = np.flatnonzero(np.diff(night.to_numpy()) <= np.timedelta64(0))
        if len(back) == 1:
            later.append(night.index[back[0] + 1 :].to_numpy())
        else:
            unknown.append(night.index.to_numpy())
    nothing = [np.array([], dtype=np.int64)]
    return np.concatenate(later + nothing), np.concatenate(unknown + nothing)


def _check_order(instants: pd.Series, text: pd.Series, path: Path) -> None:
    steps = instants.diff().dt.total_seconds().to_numpy()[1:]
    wrong = np.flatnonzero(steps <= 0)
    if len(wrong):
        row, before = int(instants.index[wrong[0] + 1]), int(instants.index[wrong[0]])
        if steps[wrong[0]] == 0:
            raise _problem(path, row, text, f"the same instant as line {before + FIRST_ROW}: keep one of the two")
        raise _problem(path, row, text, f"earlier than {text[before]!r} before it: sort the rows by time")


def first_true(rows: pd.Series) -> int:
    """Label of the first row of ``rows`` (bool) that holds; there must be one."""
    return int(rows.index.to_numpy()[rows.to_numpy().argmax()])


def _problem(path: Path, row: int, text: pd.Series, what: str) -> InputError:
    shown = repr(text[row]) if isinstance(text[row], str) else "an empty cell"
    return InputError(f"{path} line {row + FIRST_ROW}, time stamp {shown}: {what}")


def read_hourly(settings: Ingest, path: Path) -> pd.DataFrame:
    """Hourly means of the configured columns, (hours, columns), float64 in stored units, NaN where missing.

    The index is the full UTC grid from the first hour to the last; an hour with less than
    ``settings.file.enough`` of its samples is missing. Raises :class:`InputError` naming file, line and
    column.
    """
    check_is_table(path, settings.file)
    table = _read_table(settings, path)
    stamps = utc_stamps(table.pop(settings.file.time_column.strip()), settings.file, path)
    table = table.loc[stamps.index]
    _check_step(stamps, settings.file.step_minutes, path)
    for key in settings.columns:
        table[key] = _numbers(table[key], settings.heading(key), settings.file.decimal, path)
        table[key] = _in_stored_unit(table[key], key, settings, path)
    return hourly_means(table.set_axis(pd.DatetimeIndex(stamps)), settings.file)


def hourly_means(table: pd.DataFrame, file: File) -> pd.DataFrame:
    """Means over UTC hours of ``table`` (any step, UTC index) on the full hourly grid."""
    hours = pd.DatetimeIndex(table.index).floor("h")
    if not hours.is_unique:
        samples = table.groupby(hours)
        wanted = np.ceil(file.enough * 60 / file.step_minutes)
        table = samples.mean().where(samples.count() >= wanted)
    else:
        table = table.set_axis(hours)
    grid = pd.date_range(hours[0], hours[-1], freq="h", name="time")
    return table.reindex(grid).astype(np.float64)


def check_is_table(path: Path, file: File) -> None:
    """Refuse, before parsing, what is no table: absent, empty, a web page, cut short."""
    if not path.is_file():
        raise InputError(
            f"{path} does not exist: fetch it (dvc import-url ADDRESS {path}), "
            'or set ingest.source to another file or to "simulated"'
        )
    content = path.read_bytes()
    if not content.strip():
        raise InputError(f"{path} is empty: fetch it again")
    start = content[:200].lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise InputError(f"{path} is a web page, not a table: give the address of the raw file and fetch it again")
    try:
        content.decode(file.encoding)
    except (UnicodeDecodeError, LookupError) as problem:
        raise InputError(
            f"{path} cannot be read as ingest.file.encoding = {file.encoding}: {problem}; set another, such as latin-1"
        ) from None
    if b'"' not in content:  # quoted fields may hold separators: left to the parser
        _check_widths(content, file, path)


def _check_widths(content: bytes, file: File, path: Path) -> None:
    lines = content.rstrip(b"\r\n \x00").split(b"\n")
    separator = file.separator.encode()
    width = lines[0].count(separator)
    for number, line in enumerate(lines, start=1):
        if (found := line.count(separator)) == width or not line.strip():
            continue
        if number == len(lines) and found < width:
            raise InputError(
                f"{path} line {number} (the last) has {found + 1} fields instead of {width + 1}: "
                "the download was cut short; fetch the file again"
            )
        raise InputError(
            f"{path} line {number} has {found + 1} fields instead of {width + 1}: "
            f"correct the line, or set ingest.file.separator (now {_shown(file.separator)})"
        )


def _read_table(settings: Ingest, path: Path) -> pd.DataFrame:
    """The time column as text and the configured ones as found, under their keys; row i is on line i + 2."""
    file = settings.file
    headings = _headings(path, file)
    wanted = {file.time_column.strip(): file.time_column.strip()}
    wanted |= {settings.heading(key): key for key in settings.columns}
    positions = {_position(headings, heading, path, file): key for heading, key in wanted.items()}
    try:
        table = pd.read_csv(
            path,
            sep=file.separator,
            decimal=file.decimal,
            encoding=_with_mark(file.encoding),
            header=None,
            skiprows=1,
            usecols=sorted(positions),
            dtype={next(iter(positions)): str},
            skip_blank_lines=False,
            skipinitialspace=True,
            low_memory=False,
        )
    except pd.errors.EmptyDataError:
        raise InputError(f"{path} holds a heading and no rows: fetch it again") from None
    except pd.errors.ParserError as problem:
        raise InputError(f"{path} cannot be read as a table: {problem}; correct the line or fetch it again") from None
    table = table.rename(columns=positions).dropna(how="all")
    if table.empty:
        raise InputError(f"{path} holds a heading and no rows: fetch it again")
    return table


def _headings(path: Path, file: File) -> list[str]:
    with path.open(encoding=_with_mark(file.encoding), newline="") as stream:
        headings = [heading.strip() for heading in next(csv.reader(stream, delimiter=file.separator))]
    if len(headings) == 1:
        likely = max(SEPARATORS, key=headings[0].count)
        hint = f"the fields seem to be separated by {_shown(likely)}; " if likely in headings[0] else ""
        raise InputError(
            f"{path} line 1 has one column only when split at {_shown(file.separator)}: "
            f"{hint}set ingest.file.separator (the line reads {headings[0][:80]!r})"
        )
    return headings


def _position(headings: list[str], heading: str, path: Path, file: File) -> int:
    if (count := headings.count(heading)) == 1:
        return headings.index(heading)
    setting = "ingest.file.time_column" if heading == file.time_column.strip() else "ingest.columns"
    if count > 1:
        raise InputError(f"{path} has {count} columns headed {heading!r}: rename one and correct {setting}")
    raise InputError(f"{path} has no column {heading!r}; it has {', '.join(headings)}: correct {setting}")


def _numbers(values: pd.Series, heading: str, decimal: str, path: Path) -> pd.Series:
    if values.dtype.kind in "fiu":
        return values.astype(np.float64)
    text = values.astype("str").str.strip()
    text = text.mask(text == "")
    numbers: pd.Series = pd.to_numeric(text.str.replace(decimal, ".", regex=False), errors="coerce")
    wrong = numbers.isna() & text.notna()
    if wrong.any():
        row = first_true(wrong)
        hint = ", or set ingest.file.decimal" if "," in str(text[row]) and decimal == "." else ""
        raise InputError(
            f"{path} line {row + FIRST_ROW}, column {heading!r}: {text[row]!r} is not a number: "
            f"correct it, leave it empty{hint}"
        )
    return pd.Series(numbers, dtype=np.float64)


def _in_stored_unit(values: pd.Series, key: str, settings: Ingest, path: Path) -> pd.Series:
    """Kilowatts, consumption positive; refuse what cannot be meant so."""
    column, heading = settings.columns[key], settings.heading(key)
    if values.isna().all():
        remedy = "choose another target" if key == settings.target else f"remove {key} from ingest.columns"
        raise InputError(f"{path}, column {heading!r} has no value at all: {remedy}")
    if column.kind not in ("load", "sub_load"):
        return values
    values = values * (column.sign / (1000.0 if column.unit == "W" else 1.0))
    problem = _suspicion(values, column, key, target=key == settings.target)
    if problem:
        raise InputError(f"{path}, column {heading!r}: {problem}")
    return values


def _suspicion(values: pd.Series, column: Column, key: str, *, target: bool) -> str | None:
    median = float(values[values != 0].median())
    if median > PROBABLY_WATTS:
        return f"half of the values exceed {median:.0f} kW, probably watts: set ingest.columns.{key}.unit to W"
    if target and column.unit == "W" and median < PROBABLY_KILOWATTS and median > 0:
        return (
            f"half of the values are below {median:.4f} kW, probably kilowatts already: "
            f"set ingest.columns.{key}.unit to kW"
        )
    if median < 0:
        return f"half of the values are below {median:.2f} kW: set ingest.columns.{key}.sign to {-column.sign}"
    return None


def _check_step(stamps: pd.Series, minutes: int, path: Path) -> None:
    """Refuse rows closer or, as a rule, further apart than configured, and gaps of over a year."""
    if len(stamps) < 2:
        raise InputError(f"{path} holds one row only: a series needs more; fetch it again")
    steps = stamps.diff().dt.total_seconds().to_numpy()[1:] / 60
    usual, close, far = float(np.median(steps)), steps * 2 < minutes, steps > LONGEST_GAP
    if abs(usual - minutes) * 2 > minutes:
        raise InputError(
            f"{path}: rows are {usual:g} minutes apart, ingest.file.step_minutes says {minutes}: set it to {usual:g}"
        )
    if close.any() or far.any():
        row = int(np.argmax(close | far)) + 1
        raise InputError(
            f"{path} line {stamps.index[row] + FIRST_ROW}: {stamps.iloc[row]:%Y-%m-%d %H:%M} UTC comes "
            f"{steps[row - 1]:.10g} minutes after the row before, ingest.file.step_minutes says {minutes}: "
            "correct the stamp, or split the file there"
        )


def _with_mark(encoding: str) -> str:
    """The encoding that also skips the byte order mark which spreadsheets put in front of UTF-8."""
    return "utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding


def _shown(separator: str) -> str:
    return SEPARATORS.get(separator, repr(separator))
