"""A file of cells: how an unknown CSV is encoded and split, where its heading and its time stamps are."""

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isotrain.data.locate import archive_of, content_of, members
from isotrain.data.source import SEPARATORS, YEARS, refuse_what_is_no_table
from isotrain.errors import InputError
from isotrain.files import read_plain, reading

SAMPLE = 300  # lines of the file's middle from which its form is found
EMPTY = frozenset({"", "na", "n/a", "nan", "null", "none", "-", "#n/a"})  # cells without a value; pandas reads most so

OFFSET = r"\s*(?P<offset>Z|UTC|[+-]\d\d:?\d\d)?"
CLOCK = r"(?P<between>T| |, ?)(?P<clock>\d{1,2}:\d\d)(?P<seconds>:\d\d)?(?P<fraction>\.\d+)?(?P<half> ?[AaPp][Mm])?"
DATES = {  # the shapes of a date; of two numbers before the year, the data tell which is the day
    "%Y{0}%m{0}%d": r"\d{4}(?P<between_dates>[./-])\d{1,2}(?P=between_dates)\d{1,2}",
    "%d{0}%m{0}%Y": r"(?P<one>\d{1,2})(?P<between_dates>[./-])(?P<two>\d{1,2})(?P=between_dates)\d{4}",
    "%d{0}%m{0}%y": r"(?P<one>\d{1,2})(?P<between_dates>[./-])(?P<two>\d{1,2})(?P=between_dates)\d{2}",
    "%d{0}%b{0}%Y": r"\d{1,2}(?P<between_dates>[ -])[A-Za-z]{3}(?P=between_dates)\d{4}",
    "%Y%m%d": r"\d{8}",
}
COMPACT = re.compile(r"\d{12}(\d{2})?")


@dataclass(frozen=True)
class Table:
    """A file split into cells, and how."""

    path: Path
    encoding: str
    why_encoding: str
    separator: str
    decimal: str
    head: list[list[str]]  # the lines above the heading
    headings: list[str]
    time: int  # position of the time column
    cells: pd.DataFrame  # text, (rows, columns), without blanks around it

    @property
    def form(self) -> tuple[Any, ...]:
        """What files that are one series must share."""
        return self.encoding, self.separator, self.decimal, self.headings

    def above(self, column: int) -> list[str]:
        """What stands over the heading of a column, in lines as wide as the table: units, long names."""
        return [row[column] for row in self.head if len(row) == len(self.headings)]


def unpacked(path: Path, folder: Path) -> Path:
    """``path``, or the member of a zip file that it names (``archive.zip/member.csv``), unpacked into ``folder``."""
    archive = archive_of(path)
    if archive is None:
        return path
    inside = members(archive)
    wanted = inside[0] if path == archive and len(inside) == 1 else path
    if wanted not in inside:
        what = f"holds {len(inside)} files" if path == archive else f"holds no file {path.relative_to(archive)}"
        raise InputError(f"{archive} {what}: name one of them, such as {', '.join(map(str, inside[:3]))}")
    goal = folder / wanted.name
    goal.write_bytes(content_of(wanted))
    return goal


def read_table(path: Path) -> Table:
    """The cells of ``path`` and how the file is written; :class:`InputError` if it is no table with a heading."""
    text, encoding, why = _decoded(path)
    lines = re.split(r"\r\n|\n|\r", text)
    separator, decimal, count = _separator(lines, path)
    rows = [next(csv.reader([line], delimiter=separator, skipinitialspace=True), []) for line in lines[:SAMPLE]]
    rows = [[cell.strip() for cell in row] for row in rows]
    middle = [row for line in _middle(lines) if len(row := _split(line, separator)) == count]
    time = _time_column(middle, rows, path)
    start = next((i for i, row in enumerate(rows) if len(row) == count and _is_stamp(row[time])), None)
    if start is None:
        raise InputError(
            f"{path}: no row with a time stamp in its first {SAMPLE} lines: remove the lines above the table"
        )
    at = _heading_line(rows, start, count)
    if at is None:
        names = ",".join("time" if i == time else f"column{i + 1}" for i in range(count)).replace(",", separator)
        raise InputError(
            f"{path} has no heading: its line {start + 1} is data; put a line with the columns' names above it, "
            f"such as {names}, with their units in brackets (Load [kW])"
        )
    cells = pd.read_csv(
        io.StringIO("\n".join(lines[start:])), sep=separator, header=None, names=range(count), dtype=str,
        keep_default_na=False, skipinitialspace=True, on_bad_lines="skip", index_col=False,
    )  # fmt: skip
    cells = cells.apply(lambda column: column.str.strip())
    cells = cells[(cells != "").any(axis=1)].reset_index(drop=True)
    return Table(path, encoding, why, separator, decimal, rows[:at], rows[at], time, cells)


def _decoded(path: Path) -> tuple[str, str, str]:
    """The text, its encoding and why that is thought; refused where the file holds no text."""
    if not path.is_file():
        raise InputError(f"{path} does not exist, or is no file: correct the path")
    with reading(path, "give the path of a CSV file"):
        content = read_plain(path)
    kinds = {b"PK": "a spreadsheet or an archive", b"PAR1": "a Parquet file", b"\x1f\x8b": "a packed file",
             b"\xd0\xcf\x11\xe0": "an old spreadsheet"}  # fmt: skip
    for mark, kind in kinds.items():
        if content.startswith(mark):
            raise InputError(f"{path} is {kind}: save it as CSV (or unpack it) and give that file")
    if not content.strip():
        raise InputError(f"{path} is empty: export it again")
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding, why = "utf-16", "the file begins with the mark of UTF-16"
    elif content.startswith(b"\xef\xbb\xbf"):
        encoding, why = "utf-8", "the file begins with the mark of UTF-8, as spreadsheets write it"
    else:
        encoding, why = "utf-8", "every byte is valid UTF-8"
    try:
        text = content.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError:
        encoding, why = "cp1252", "it is not UTF-8; this is what spreadsheets in western Europe write"
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            encoding, why = "latin-1", "it is neither UTF-8 nor cp1252; latin-1 reads any byte"
            text = content.decode(encoding)
    refuse_what_is_no_table(text, path)
    return text, encoding, why


def _split(line: str, separator: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])]


def _middle(lines: list[str]) -> list[str]:
    """Some lines of the second half, where no heading is."""
    half = lines[len(lines) // 2 : len(lines) // 2 + SAMPLE]
    return [line for line in half if line.strip()]


def number_pattern(decimal: str) -> re.Pattern[str]:
    point = re.escape(decimal)
    return re.compile(rf"[-+]?(\d+{point}?\d*|{point}\d+)([eE][-+]?\d+)?")


def _separator(lines: list[str], path: Path) -> tuple[str, str, int]:
    """Separator, decimal sign and number of columns: those by which the most cells are numbers or stamps."""
    best: tuple[float, int, str, str] | None = None
    for separator in SEPARATORS:
        rows = [_split(line, separator) for line in _middle(lines)]
        count = Counter(map(len, rows)).most_common(1)[0][0] if rows else 0
        if count < 2:
            continue
        alike = [row for row in rows if len(row) == count]
        cells = [cell for row in alike for cell in row if cell.lower() not in EMPTY]
        for decimal in (".", ","):
            if decimal == separator or not cells:
                continue
            number = number_pattern(decimal)
            read = sum(bool(number.fullmatch(cell)) or _is_stamp(cell) for cell in cells) / len(cells)
            score = round(read * len(alike) / len(rows), 2)
            if best is None or (score, count) > best[:2]:
                best = score, count, separator, decimal
    if best is None:
        raise InputError(
            f"{path} is no table: its lines are not split by comma, semicolon, tab or bar into two columns or more; "
            "export it as CSV"
        )
    return best[2], best[3], best[1]


def _time_column(middle: list[list[str]], rows: list[list[str]], path: Path) -> int:
    """Position of the column of time stamps; where there is none, the error says what to write."""
    width = len(middle[0])
    whole = [sum(_is_stamp(row[i]) and not is_date(row[i]) for row in middle) / len(middle) for i in range(width)]
    if max(whole) > 0.9:
        return int(np.argmax(whole))
    heading = next((row for row in rows if len(row) == width), [f"column {i + 1}" for i in range(width)])
    dates = [i for i in range(width) if sum(is_date(row[i]) for row in middle) > 0.9 * len(middle)]
    if dates:
        hours = [i for i in range(width) if i != dates[0] and all(_is_hour(row[i]) for row in middle)]
        if hours:
            raise InputError(
                f"{path}: the date stands in the column {heading[dates[0]]!r} and the hour in {heading[hours[0]]!r}, "
                "the reader takes one column with both (2020-01-31 13:00): join them in a spreadsheet, or by pandas "
                f"(t['time'] = t[{heading[dates[0]]!r}] + ' ' + t[{heading[hours[0]]!r}])"
            )
        raise InputError(
            f"{path}: the column {heading[dates[0]]!r} has dates without an hour: the study forecasts hours, so a file "
            "with a row an hour or more often is needed"
        )
    for i in range(width):
        if all(re.fullmatch(r"\d{9,10}(\.\d+)?|\d{12,13}", row[i]) for row in middle):
            unit = "s" if len(middle[0][i].split(".")[0]) <= 10 else "ms"
            raise InputError(
                f"{path}: the column {heading[i]!r} counts {'seconds' if unit == 's' else 'milliseconds'} since 1970, "
                "which the reader does not take: write time stamps (2020-01-31 13:00), such as by pandas "
                f"(t[{heading[i]!r}] = pandas.to_datetime(t[{heading[i]!r}], unit={unit!r}))"
            )
    raise InputError(
        f"{path} has no column of time stamps that is known here (the middle of the file reads {middle[0][:4]}): write "
        "them as 2020-01-31 13:00"
    )


def _heading_line(rows: list[list[str]], start: int, count: int) -> int | None:
    """The heading: of the lines as wide as the table right above the data, the fullest with names of their own."""
    at, most = None, 0
    for i in range(start - 1, -1, -1):
        names = [cell for cell in rows[i] if cell]
        if len(rows[i]) != count or all(number_pattern(".").fullmatch(cell) for cell in names):
            break
        if len(set(names)) > most and len(set(names)) >= count - 1:
            at, most = i, len(set(names))
    return at


def shape_of(cell: str) -> str | None:
    """``cell`` as a strptime format, day before month where two numbers stand before the year; ``None`` if no stamp."""
    if COMPACT.fullmatch(cell) and YEARS[0] <= int(cell[:4]) <= YEARS[1]:
        return "%Y%m%d%H%M" + ("%S" if len(cell) == 14 else "")
    for shape, pattern in DATES.items():
        found = re.fullmatch(rf"{pattern}({CLOCK}{OFFSET})?", cell)
        if not found:
            continue
        parts = found.groupdict()
        date = shape.format(parts.get("between_dates", ""))
        if parts["clock"] is None:
            return date
        half = parts["half"]
        clock = (
            ("%I:%M" if half else "%H:%M") + (":%S" if parts["seconds"] else "") + (".%f" if parts["fraction"] else "")
        )
        marker = half.replace(half.strip(), "%p") if half else ""
        offset = parts["offset"] or ""
        blank = " " if offset and cell[: -len(offset)].endswith(" ") else ""
        return f"{date}{parts['between']}{clock}{marker}{blank}{'%z' if offset else ''}"
    return None


def _is_stamp(cell: str) -> bool:
    return bool(cell) and shape_of(cell) is not None


def is_date(cell: str) -> bool:
    shape = shape_of(cell)
    return shape is not None and "%H" not in shape and "%I" not in shape


def _is_hour(cell: str) -> bool:
    found = re.fullmatch(r"(\d{1,2})(:\d\d(:\d\d)?)?", cell)
    return bool(found) and int(found[1]) <= 24  # type: ignore[index]
