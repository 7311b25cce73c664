"""Time stamps as files write them, turned into UTC instants that strictly increase."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from isotrain.config.ingest import File
from isotrain.errors import InputError

OFFSET = r":\d\d(?:\.\d+)?\s*(Z|UTC|[+-]\d\d(?::?\d\d)?)$"
FIRST_ROW = 2  # line number of the first row under the heading


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
            f"cannot be read {expected}: mend it or set ingest.file.time_format",
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
    """Local stamps as UTC; the hour that comes twice in autumn is told apart by the order of the rows."""
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
    """Row labels of ambiguous stamps after the clock was set back, and of those for which none can say.

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
