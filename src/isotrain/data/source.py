"""Read the CSV files of a series, as loggers and portals write them, into hourly columns on the full UTC grid."""

import contextlib
import csv
import io
import logging
import re
from collections.abc import Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from isotrain.config.ingest import STORED_UNIT, Column, File, Ingest
from isotrain.data.locate import content_of, exists
from isotrain.errors import InputError

log = logging.getLogger(__name__)
OFFSET = r":\d\d(?:\.\d+)?\s*(Z|UTC|[+-]\d\d(?::?\d\d)?)$"
NEWLINE = re.compile(r"\r\n|\n|\r")
HEAD_BYTES = 2**16  # of a file, in which the facts about its meter are looked for
HEAD = 100  # lines in which the heading is looked for
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
PROBABLY_WATTS = 1000.0  # kW; the median of no single building of a campus
PROBABLY_KILOWATTS = 0.05  # kW; the median of no metered building
LONGEST_GAP = 366 * 24 * 60  # minutes
YEARS = (1970, 2100)  # between which a load can have been measured every hour
STEPS = (1, 5, 15, 30, 60)  # minutes, that ingest.file.step_minutes may be
CLOCK = 0.1  # of a step: so far a stamp may lie beside it, by a logger that jitters or is slow
SPARSEST = 0.1  # share of the hours from the first to the last that must have a row


def utc_stamps(text: pd.Series, file: File, path: Path) -> pd.Series:
    """``text`` (labelled by the line of each row) as UTC instants, strictly increasing, under the same labels.

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
    years = instants.dt.year
    if (absurd := (years < YEARS[0]) | (years > YEARS[1])).any():
        raise _problem(path, first_true(absurd), text, "no year in which this can have been measured: correct it")
    if naive.any():
        instants = _localised(instants, text, file, path)
    elif offsets.nunique() > 1:
        _check_offsets(instants, offsets, text, file, path)
    _check_order(instants, text, path)
    return instants


def _parsed(text: pd.Series, file: File, path: Path, *, aware: bool) -> pd.Series:
    expected = f"as {file.time_format}" if file.time_format else "as ISO 8601 (2020-01-31 13:00:00)"
    remedy = f"cannot be read {expected}: correct it or set ingest.file.time_format"
    instants = None
    with contextlib.suppress(ValueError, TypeError, OverflowError):  # mixed in a way that pandas does not coerce
        instants = pd.to_datetime(text, format=file.time_format or "ISO8601", errors="coerce", utc=aware)
    wrong = text.isna() if instants is None else instants.isna()
    if wrong.any():
        raise _problem(path, first_true(wrong), text, remedy)
    if instants is None or not hasattr(instants, "dt") or (instants.dt.tz is not None) != aware:
        raise _problem(path, int(text.index[0]), text, remedy)  # such as the basic form, 20200131T130000Z
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
            raise _problem(path, row, text, f"the same instant as line {before}: keep one of the two")
        raise _problem(path, row, text, f"earlier than {text[before]!r} before it: sort the rows by time")


def first_true(rows: pd.Series) -> int:
    """Label of the first row of ``rows`` (bool) that holds; there must be one."""
    return int(rows.index.to_numpy()[rows.to_numpy().argmax()])


def _problem(path: Path, row: int, text: pd.Series, what: str) -> InputError:
    shown = repr(text[row]) if isinstance(text[row], str) else "an empty cell"
    return InputError(f"{path} line {row}, time stamp {shown}: {what}")


def read_hourly(settings: Ingest, path: Path | Sequence[Path]) -> pd.DataFrame:
    """Hourly means of the configured columns, (hours, columns), float64 in stored units, NaN where missing.

    Several paths are one series: their rows are joined by time, and a column may stand in any of them. The index is the
    full UTC grid from the first hour to the last; an hour with less than ``settings.file.enough`` of its samples is
    missing. Raises :class:`InputError` naming file, line and column.
    """
    paths = [path] if isinstance(path, Path) else list(path)
    tables = [_read_file(settings, one, alone=len(paths) == 1) for one in paths]
    where = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    for key in settings.columns:
        if not any(key in table for table in tables):
            raise InputError(
                f"none of {', '.join(map(str, paths))} has a column {settings.heading(key)!r}: correct ingest.columns"
            )
    table = tables[0].set_index("instant") if len(tables) == 1 else _joined(tables, paths, settings)
    for key in settings.columns:
        table[key] = _in_stored_unit(table[key], key, settings, where)
    return hourly_means(table[list(settings.columns)], settings.file)


def _read_file(settings: Ingest, path: Path, *, alone: bool) -> pd.DataFrame:
    """The configured columns that one file holds, as its numbers, and ``instant``; labelled by line.

    A file that stands ``alone`` must hold all of the columns, one of several at least one.
    """
    text = text_of(path, settings.file)
    head, start = _heading(text, settings.file, path)
    content = text[start:]
    headings = _check_fields(content, head, settings.file, path)
    keys = [key for key in settings.columns if alone or settings.heading(key) in headings]
    if not keys:
        wanted = ", ".join(settings.heading(key) for key in settings.columns)
        raise InputError(
            f"{path} has none of the columns {wanted}; it has {', '.join(headings)}: correct ingest.columns, or take "
            "the file out of ingest.source"
        )
    table = _read_table(content, head, headings, keys, settings, path)
    stamps = utc_stamps(table.pop("instant"), settings.file, path)
    table = table.loc[stamps.index]
    for key in keys:
        table[key] = _numbers(table[key], settings.heading(key), settings.file.decimal, path)
    return table.assign(instant=on_the_step(stamps, settings.file.step_minutes, path))


def _joined(tables: list[pd.DataFrame], paths: list[Path], settings: Ingest) -> pd.DataFrame:
    """The columns of several files by instant; refused where two of them differ about the same value."""
    joined = {}
    for key in settings.columns:
        parts = [
            pd.DataFrame({key: table[key], "at": table.index, "file": number}).set_axis(table["instant"])
            for number, table in enumerate(tables)
            if key in table
        ]
        rows = pd.concat(parts).dropna(subset=[key]).sort_index(kind="stable")
        again = rows.index.duplicated()
        values = rows[key].to_numpy()
        if (differ := again & (values != np.concatenate([values[:1], values[:-1]]))).any():
            second = int(differ.argmax())
            pair = rows[["file", "at"]].iloc[[second - 1, second]].to_numpy()
            one, other = (f"{paths[file]} line {line}" for file, line in pair)
            raise InputError(
                f"{one} and {other} differ at {rows.index[second]:%Y-%m-%d %H:%M} UTC, column "
                f"{settings.heading(key)!r}: {values[second - 1]:g} and {values[second]:g}; take one of them out, or "
                "give each its own column if they are two meters"
            )
        joined[key] = rows.loc[~again, key]
    table = pd.DataFrame(joined).sort_index()
    far = np.flatnonzero(np.diff(table.index.asi8) > pd.Timedelta(minutes=LONGEST_GAP).as_unit(table.index.unit).value)  # type: ignore[attr-defined]
    if len(far):
        raise InputError(
            f"{', '.join(map(str, paths))}: nothing was measured from {table.index[far[0]]:%Y-%m-%d} to "
            f"{table.index[far[0] + 1]:%Y-%m-%d}: take the files on one side of it out of ingest.source"
        )
    return table


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


def text_of(path: Path, file: File) -> str:
    """The file as text; refused, before parsing, where it is no table: absent, empty, a web page, JSON, cut short."""
    if not exists(path):
        raise InputError(
            f"{path} does not exist: fetch it (dvc import-url ADDRESS {path}), "
            'or set ingest.source to another file or to "simulated"'
        )
    content = content_of(path)
    try:
        text = content.decode(_with_mark(file.encoding))
    except (ValueError, LookupError) as problem:
        raise InputError(
            f"{path} cannot be read as ingest.file.encoding = {file.encoding}: {problem}; set another, such as latin-1"
        ) from None
    if not text.strip("\ufeff \r\n\t"):
        raise InputError(f"{path} is empty: fetch it again")
    refuse_what_is_no_table(text, path)
    return text


def about_of(path: Path, file: File, wanted: Mapping[str, str]) -> dict[str, str | float | None]:
    """Facts about the meter from the lines before the heading, each ``key;value`` by the file's separator.

    ``wanted``: name of a fact -> its key there. A value that reads as a number is one; ``None`` where there is none.
    """
    said = _head_of(path, file)[0] if wanted else {}
    return {name: _fact(said.get(key.strip(), ""), file.decimal) for name, key in wanted.items()}


def headings_of(path: Path, file: File) -> list[str]:
    """The headings of a file; none where it has no such heading."""
    return _head_of(path, file)[1]


def _head_of(path: Path, file: File) -> tuple[dict[str, str], list[str]]:
    """What the lines before the heading say, key and value, and the headings."""
    text = content_of(path, HEAD_BYTES).decode(_with_mark(file.encoding), errors="ignore")
    start = _heading(text, file, path)[1]
    said: dict[str, str] = {}
    for line in text[:start].splitlines():
        key, *values = [*_fields(line, file), ""]
        said.setdefault(key.lstrip("#").strip(), values[0] if values else "")
    return said, _fields(text[start:].splitlines()[0] if text[start:] else "", file)


def _fields(line: str, file: File) -> list[str]:
    with contextlib.suppress(csv.Error):
        rows = csv.reader([line], delimiter=file.separator, skipinitialspace=True)
        return [field.strip() for field in next(rows, [])]
    return []


def _fact(text: str, decimal: str) -> str | float | None:
    number = re.fullmatch(r"[-+]?\d+(\.\d+)?([eE][-+]?\d{1,2})?", plain := text.replace(decimal, "."))
    return float(plain) if number else text or None


def refuse_what_is_no_table(text: str, path: Path) -> None:
    """:class:`InputError` for a web page, JSON, or bytes that are no text."""
    start = text[:200].lstrip("\ufeff \r\n\t").lower()
    if start.startswith(("<!doctype", "<html", "<?xml", "<head")):
        raise InputError(f"{path} is a web page, not a table: give the address of the raw file and fetch it again")
    if start.startswith(("{", "[")):
        raise InputError(f"{path} is JSON, not a table: export it as CSV")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(
            f"{path} line {line} holds a NUL byte: the file is damaged or of another encoding; fetch it again"
        )


def _heading(text: str, file: File, path: Path) -> tuple[int, int]:
    """How many lines stand before the heading, and where in ``text`` it starts.

    The first lines of some files describe the meter: where ``file.head_lines`` does not count them, the heading is the
    first line that holds the time column's; if none does, the first line of all, which is then refused by name.
    """
    most = HEAD if file.head_lines is None else file.head_lines + 1
    starts = [0, *(line.end() for line in islice(NEWLINE.finditer(text), most))]
    if file.head_lines is not None:
        if file.head_lines >= max(1, len(starts) - 1):
            raise InputError(f"{path} has {len(starts) - 1} lines, ingest.file.head_lines says {file.head_lines}")
        return file.head_lines, starts[file.head_lines]
    wanted = file.time_column.strip()
    for number, (start, end) in enumerate(pairwise(starts)):
        line = text[start:end].rstrip("\r\n")
        if wanted and wanted in line:
            with contextlib.suppress(csv.Error, StopIteration):
                fields = next(csv.reader([line], delimiter=file.separator, skipinitialspace=True))
                if wanted in map(str.strip, fields):
                    return number, start
    return 0, 0


def _check_fields(content: str, head: int, file: File, path: Path) -> list[str]:
    """The headings of ``content``, which ``head`` lines precede.

    Refused where a line has more or fewer fields, an open quote, or no end, which is a cut.
    """
    rows = csv.reader(io.StringIO(content, newline=""), delimiter=file.separator, skipinitialspace=True, strict=True)
    headings: list[str] = []
    last, ended = 0, content.endswith(("\n", "\r"))
    lines = len(content.rstrip("\r\n \t").splitlines())
    try:
        for fields in rows:
            if rows.line_num > last + 1:
                raise csv.Error("a quoted field goes on over the end of the line")
            last = rows.line_num
            if last == 1:
                headings = [heading.strip() for heading in fields]
                _check_headings(headings, head, file, path)
            elif (found := len(fields)) != len(headings) and "".join(fields).strip():
                raise InputError(
                    f"{path} line {head + last} (the last) has {found} fields instead of {len(headings)}: "
                    "the download was cut short; fetch the file again"
                    if last == lines and found < len(headings)
                    else f"{path} line {head + last} has {found} fields instead of {len(headings)}: "
                    f"correct the line, or set ingest.file.separator (now {_shown(file.separator)})"
                )
    except csv.Error as problem:
        line = head + last + 1
        raise InputError(f"{path} line {line}: {problem}: correct its quotes or fetch the file again") from None
    if not ended:
        raise InputError(
            f"{path} line {head + last} (the last) has no end: the download was cut short; fetch the file again, or "
            "end the line with a newline if it is whole"
        )
    return headings


def _check_headings(headings: list[str], head: int, file: File, path: Path) -> None:
    if len(headings) <= 1:
        line = headings[0] if headings else ""
        likely = max(SEPARATORS, key=line.count)
        hint = f"the fields seem to be separated by {_shown(likely)}; " if likely in line else ""
        raise InputError(
            f"{path} line {head + 1} has one column only when split at {_shown(file.separator)}: "
            f"{hint}set ingest.file.separator (the line reads {line[:80]!r})"
        )
    _position(headings, file.time_column.strip(), path, "ingest.file.time_column")


def _read_table(
    content: str, head: int, headings: list[str], keys: list[str], settings: Ingest, path: Path
) -> pd.DataFrame:
    """The time column as text, under ``instant``, and those of ``keys`` as found; labelled by line."""
    file = settings.file
    positions = {_position(headings, file.time_column.strip(), path, "ingest.file.time_column"): "instant"}
    positions |= {_position(headings, settings.heading(key), path, "ingest.columns"): key for key in keys}
    try:
        table = pd.read_csv(
            io.StringIO(content),
            sep=file.separator,
            decimal=file.decimal,
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
    except (pd.errors.ParserError, ValueError, OverflowError) as problem:
        raise InputError(f"{path} cannot be read as a table: {problem}; correct the line or fetch it again") from None
    table = table.rename(columns=positions).set_axis(np.arange(len(table)) + head + 2).dropna(how="all")
    if table.empty:
        raise InputError(f"{path} holds a heading and no rows: fetch it again")
    return table


def _position(headings: list[str], heading: str, path: Path, setting: str) -> int:
    if (count := headings.count(heading)) == 1:
        return headings.index(heading)
    if count > 1:
        raise InputError(f"{path} has {count} columns headed {heading!r}: rename one and correct {setting}")
    counted = ", or count the lines before the heading in ingest.file.head_lines" if "time" in setting else ""
    raise InputError(f"{path} has no column {heading!r}; it has {', '.join(headings)}: correct {setting}{counted}")


def _numbers(values: pd.Series, heading: str, decimal: str, path: Path) -> pd.Series:
    if values.dtype.kind in "fiu":
        text, numbers = values, values.astype(np.float64)
    else:
        text = values.astype("str").str.strip()
        text = text.mask(text == "")
        numbers = pd.to_numeric(text.str.replace(decimal, ".", regex=False), errors="coerce").astype(np.float64)
    wrong = (numbers.isna() & text.notna()) | np.isinf(numbers)
    if wrong.any():
        row = first_true(wrong)
        hint = ", or set ingest.file.decimal" if "," in str(text[row]) and decimal == "." else ""
        shown = repr(str(text[row])[:80])
        raise InputError(
            f"{path} line {row}, column {heading!r}: {shown} is not a number: correct it, leave it empty{hint}"
        )
    return pd.Series(numbers, dtype=np.float64)


def _in_stored_unit(values: pd.Series, key: str, settings: Ingest, where: str) -> pd.Series:
    """Kilowatts, consumption positive; refuse what cannot be meant so."""
    column, heading = settings.columns[key], settings.heading(key)
    if values.isna().all():
        remedy = "choose another target" if key == settings.target else f"remove {key} from ingest.columns"
        raise InputError(f"{where}, column {heading!r} has no value at all: {remedy}")
    if STORED_UNIT.get(column.kind) != "kW":
        return values
    values = values * settings.factor(key)
    problem = _suspicion(values, column, key, target=key == settings.target)
    if problem:
        raise InputError(f"{where}, column {heading!r}: {problem}")
    return values


def _suspicion(values: pd.Series, column: Column, key: str, *, target: bool) -> str | None:
    median = float(values[values != 0].median())
    if median > PROBABLY_WATTS and column.unit is None:  # who wrote a unit meant it: a district uses as much
        return (
            f"half of the values exceed {median:.0f} kW, probably watts: set ingest.columns.{key}.unit to W, "
            "or to kW or MW if that is what the file holds"
        )
    if target and column.unit in ("W", "Wh") and median < PROBABLY_KILOWATTS and median > 0:
        return (
            f"half of the values are below {median:.4f} kW, probably kilowatts already: "
            f"set ingest.columns.{key}.unit to k{column.unit}"
        )
    if median < 0:
        return f"half of the values are below {median:.2f} kW: set ingest.columns.{key}.sign to {-column.sign}"
    return None


def on_the_step(stamps: pd.Series, minutes: int, path: Path) -> pd.Series:
    """``stamps`` (UTC, increasing) rounded to the steps of ``minutes`` that they follow, which need not start at :00.

    A stamp may lie up to :data:`CLOCK` of a step beside its own: a logger whose clock jitters, or is seconds slow,
    loses no hour. Raises :class:`InputError` for rows that are not a whole number of steps apart, for gaps of over a
    year, for a file with hardly any of its hours, and for a clock that drifts away from the steps.
    """
    if len(stamps) < 2:
        raise InputError(f"{path} holds one row only: a series needs more; fetch it again")
    seconds = stamps.dt.tz_localize(None).astype("datetime64[us]").astype(np.int64).to_numpy() / 1e6
    step, allowed = 60.0 * minutes, 60.0 * minutes * CLOCK
    steps = np.diff(seconds)
    usual = float(np.median(steps))
    if abs(usual - step) > allowed:
        found = usual / 60
        remedy = f"set it to {found:g}" if found in STEPS else f"write a row every {minutes} minutes"
        raise InputError(f"{path}: rows are {found:g} minutes apart, ingest.file.step_minutes says {minutes}: {remedy}")
    whole = np.maximum(1, np.round(steps / step))
    wrong = (np.abs(steps - whole * step) > 2 * allowed) | (steps > 60 * LONGEST_GAP)
    if wrong.any():
        row = int(wrong.argmax()) + 1
        raise InputError(
            f"{path} line {stamps.index[row]}: {stamps.iloc[row]:%Y-%m-%d %H:%M} UTC comes "
            f"{steps[row - 1] / 60:.10g} minutes after the row before, ingest.file.step_minutes says {minutes}: "
            "correct the stamp, or split the file there"
        )
    if (hours := (seconds[-1] - seconds[0]) / 3600) * SPARSEST > len(np.unique(seconds // 3600)):
        raise InputError(f"{path} holds hardly any of its {hours:.0f} h: correct its stamps, or split it at its gaps")
    beside = (seconds - seconds[0] + step / 2) % step - step / 2  # around the first stamp
    phase = (seconds[0] + np.median(beside)) % step
    phase = 0.0 if min(phase, step - phase) <= allowed else round(phase / 60) * 60.0
    rounded = np.round((seconds - phase) / step) * step + phase
    off = np.abs(seconds - rounded)
    if (drifted := off > allowed).any():
        row = int(drifted.argmax())
        raise InputError(
            f"{path} line {stamps.index[row]}: {stamps.iloc[row]:%Y-%m-%d %H:%M:%S} UTC lies "
            f"{off[row]:.0f} s beside the steps of {minutes} minutes that the file follows, where {allowed:.0f} s are "
            "allowed: correct the clock's drift, or split the file there"
        )
    if off.any():
        log.warning(
            "%s: %d stamps lie up to %.3g s beside their step of %d minutes (%.0f s are allowed) and are rounded to it",
            path, (off > 0).sum(), off.max(), minutes, allowed,
        )  # fmt: skip
    if phase % 3600 and step == 3600:
        log.warning("%s: its hours begin at minute %d; they are counted from the full hour before", path, phase // 60)
    return pd.Series(pd.to_datetime(np.round(rounded * 1e6).astype(np.int64), unit="us", utc=True), index=stamps.index)


def _with_mark(encoding: str) -> str:
    """The encoding that also skips the byte order mark which spreadsheets put in front of UTF-8."""
    return "utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding


def _shown(separator: str) -> str:
    return SEPARATORS.get(separator, repr(separator))
