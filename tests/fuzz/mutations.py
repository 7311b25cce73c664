"""Inputs made wrong on purpose, each from a number: what was done, the bytes, and whether it must be refused.

``WRONG`` inputs are known to be wrong and must be refused. ``RIGHT`` ones say the same as the original in other words
and must be read as it is. Of ``ANY`` nothing is known but that no traceback, no hang and no half of a file may come of
it.
"""

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

RIGHT, WRONG, ANY = "right", "wrong", "any"
ODD = [
    b"\0", b'"', b"\xff", b"\xef\xbb\xbf", b"\n", b"\r", b"nan", b"inf", b"1e999", b"-", b",", b";", b"\t", b"''", b"{",
]  # fmt: skip


@dataclass(frozen=True)
class Input:
    """One input: ``files`` by name where it is a folder, else its only one under ``""``."""

    what: str
    label: str
    files: dict[str, bytes]

    @property
    def content(self) -> bytes:
        return self.files[""]


def flip(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def insert(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + rng.choice(ODD) + content[at:]


def drop(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + content[at + rng.randrange(1, 200) :]


def double(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + content[max(0, at - rng.randrange(1, 400)) :]


def noise(content: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(1, 2000))


ANYTHING: tuple[Callable[[bytes, random.Random], bytes], ...] = (flip, cut, insert, drop, double, noise)


# CSVs: comma, ISO stamps with offset, columns time, TGBT, T1, AirTemp ---------------------------------------------

Rows = list[list[str]]


def table(content: bytes) -> Rows:
    return [line.split(",") for line in content.decode().splitlines()]


def written(rows: Rows, end: str = "\n") -> bytes:
    return ("".join(",".join(row) + end for row in rows)).encode()


def cell(rows: Rows, rng: random.Random, column: int | None = None) -> tuple[int, int]:
    return rng.randrange(1, len(rows)), rng.randrange(1, len(rows[0])) if column is None else column


def quoted_heading(rows: Rows) -> Rows:
    """One pair of quotes, which once switched the count of fields off."""
    return [[rows[0][0], f'"{rows[0][1]}"', *rows[0][2:]], *rows[1:]]


def _quote_all(rows: Rows, rng: random.Random) -> bytes:
    return written([[f'"{field}"' for field in row] for row in rows])


def _mark(rows: Rows, rng: random.Random) -> bytes:
    return b"\xef\xbb\xbf" + written(rows)


def _returns(rows: Rows, rng: random.Random) -> bytes:
    return written(rows, "\r\n")


def _blank_end(rows: Rows, rng: random.Random) -> bytes:
    return written(rows) + b"\n" * rng.randrange(1, 5)


def _other_order(rows: Rows, rng: random.Random) -> bytes:
    order = list(range(len(rows[0])))
    rng.shuffle(order)
    return written([[row[i] for i in order] for row in rows])


def _more_columns(rows: Rows, rng: random.Random) -> bytes:
    return written([[*rows[0], "Remark"], *([*row, rng.choice(["", "n/a", "x y", '"a, b"'])] for row in rows[1:])])


def _jitter(rows: Rows, rng: random.Random) -> bytes:
    seconds = [f"{rng.randrange(0, 6):02d}" for _ in rows]
    for row, second in zip(rows[1:], seconds, strict=False):
        row[0] = row[0].replace(":00+", f":{second}+")
    return written(rows)


RIGHT_CSV = (_quote_all, _mark, _returns, _blank_end, _other_order, _more_columns, _jitter)


def _comma_in_a_number(rows: Rows, rng: random.Random) -> Rows:
    line, column = cell(rows, rng)
    value = rows[line][column]
    rows[line][column] = value.replace(".", ",") if "." in value else f"{value},5"
    return rows


def _field_more(rows: Rows, rng: random.Random) -> Rows:
    line, column = cell(rows, rng)
    return [*rows[:line], *([*row[:column], "1.5", *row[column:]] for row in rows[line:])]


def _field_less(rows: Rows, rng: random.Random) -> Rows:
    line, column = cell(rows, rng)
    del rows[line][column]
    return rows


def _open_quote(rows: Rows, rng: random.Random) -> Rows:
    line, column = cell(rows, rng)
    rows[line][column] = '"' + rows[line][column]
    return rows


def _word(rows: Rows, rng: random.Random) -> Rows:
    line, column = cell(rows, rng)
    rows[line][column] = rng.choice(["n/d", "twelve", "1.2.3", "inf", "-inf", "1e999", "0x1f", "12 kW", "--", "1 234"])
    return rows


def _swapped(rows: Rows, rng: random.Random) -> Rows:
    line = rng.randrange(1, len(rows) - 1)
    rows[line], rows[line + 1] = rows[line + 1], rows[line]
    return rows


def _twice(rows: Rows, rng: random.Random) -> Rows:
    line = rng.randrange(1, len(rows))
    return [*rows[: line + 1], list(rows[line]), *rows[line + 1 :]]


def _stamp(rows: Rows, rng: random.Random) -> Rows:
    line, _ = cell(rows, rng)
    stamp = rows[line][0]
    rows[line][0] = rng.choice(
        [
            "", "yesterday", "1160" + stamp[4:], "9016" + stamp[4:], stamp.replace(":00:00+", ":30:00+"),
            stamp[:10] + "T99", stamp.replace("+00:00", "+05:00"), stamp.replace("+00:00", ""),
            "2019-02-30" + stamp[10:], stamp + "Z", "1e9", "T", "٢٠١٩-٠٦-٠٣ 00:00:00+00:00",
        ]
    )  # fmt: skip
    return rows


def _steps(rows: Rows, rng: random.Random) -> Rows:
    """Every second row, or all of them half an hour apart."""
    if rng.random() < 0.5:
        return [rows[0], *rows[1::2]]
    days = [f"2019-06-{1 + n // 48:02d} {n // 2 % 24:02d}:{30 * (n % 2):02d}:00+00:00" for n in range(len(rows) - 1)]
    return [rows[0], *([day, *row[1:]] for day, row in zip(days, rows[1:], strict=True))]


def _heading(rows: Rows, rng: random.Random) -> Rows:
    column = rng.randrange(len(rows[0]))
    rows[0][column] = rng.choice(["", "x", rows[0][column - 1], rows[0][column].lower(), rows[0][column] + "2"])
    return rows


def _no_heading(rows: Rows, rng: random.Random) -> Rows:
    return rows[1:]


def _semicolons(rows: Rows, rng: random.Random) -> Rows:
    return [[";".join(row)] for row in rows]


WRONG_ROWS = (
    _comma_in_a_number, _field_more, _field_less, _open_quote, _word, _swapped, _twice, _stamp, _steps, _heading,
    _no_heading, _semicolons,
)  # fmt: skip


def _cut_in_a_line(content: bytes, rng: random.Random) -> bytes:
    while True:
        short = cut(content, rng)
        if not short.endswith(b"\n"):
            return short


def _nul(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + b"\0" * rng.choice([1, 7, 512]) + content[at:]


def _other_kind(content: bytes, rng: random.Random) -> bytes:
    kinds = [b"", b"\n\n", b"\xef\xbb\xbf", b"<!DOCTYPE html><html>", b'{"a": [1, 2]}', b"[[1,2],[3,4]]\n"]
    others = [b"PK\x03\x04" + content, b"\x1f\x8b" + content, content.decode().encode("utf-16")]
    return rng.choice([*kinds, *others, content.splitlines()[0] + b"\n"])


def csv_input(content: bytes, number: int) -> Input:
    """The ``number``-th mutation of ``content``."""
    rng = random.Random(f"csv {number}")
    kind = number % 10
    if kind < 2:
        change = rng.choice(RIGHT_CSV)
        return Input(change.__name__, RIGHT, {"": change(table(content), rng)})
    if kind < 6:
        spoil = rng.choice(WRONG_ROWS)
        rows = spoil(table(content), rng)
        quotes = rng.random() < 0.5 and len(rows[0]) > 1 and not rows[0][1].startswith('"')
        return Input(spoil.__name__, WRONG, {"": written(quoted_heading(rows) if quotes else rows)})
    if kind < 8:
        damage = rng.choice([_cut_in_a_line, _cut_in_a_line, _nul, _other_kind])
        start = written(quoted_heading(table(content))) if rng.random() < 0.5 else content
        return Input(damage.__name__, WRONG, {"": damage(start, rng)})
    for _ in range(rng.randrange(1, 4)):
        content = rng.choice(ANYTHING)(content, rng) or b"x"
    return Input("random bytes", ANY, {"": content})


# params.yaml ------------------------------------------------------------------------------------------------------

ODD_VALUES = [
    "", "~", "-1", "0", "1e400", "'x'", "[]", "{}", "[1, [2]]", "2019-01-01", "0x1F", "1_000", "1:30", "9" * 30, "-0.0",
    "!", "%", "\u202e", "@", "`ls`", "$HOME", "- 1", "|", ">", "?",
]  # fmt: skip
NUMBERS = re.compile(r"(?m)(?<=: )(\d+(?:\.\d+)?)(?=$|[,} ])")


def yaml_input(text: str, number: int) -> Input:
    """The ``number``-th mutation of ``text``."""
    rng = random.Random(f"yaml {number}")
    lines = text.splitlines(keepends=True)
    top = [n for n, line in enumerate(lines) if re.match(r"\w+:", line)]
    kind = number % 8
    if kind == 0:
        starts = [*top, len(lines)]
        blocks = ["".join(lines[a:b]) for a, b in pairwise(starts)]
        rng.shuffle(blocks)
        return Input("sections in another order", RIGHT, {"": "# a remark\n\n".join(["", *blocks]).encode()})
    if kind < 4:
        what, content = rng.choice(WRONG_YAML)(text, rng)
        return Input(what, WRONG, {"": content})
    content = text.encode()
    if kind < 6:
        found = list(NUMBERS.finditer(text))
        for one in sorted(rng.sample(found, rng.randrange(1, 4)), key=lambda m: -m.start()):
            text = text[: one.start()] + rng.choice(ODD_VALUES) + text[one.end() :]
        return Input("odd values", ANY, {"": text.encode()})
    for _ in range(rng.randrange(1, 5)):
        content = rng.choice(ANYTHING[:-1])(content, rng) or b"x"
    return Input("random bytes", ANY, {"": content})


def _at_a_number(text: str, rng: random.Random, value: str) -> bytes:
    settings = text.index("\nmodel:")  # where every number has a type and limits; a limit of a check may be any
    one = rng.choice([m for m in NUMBERS.finditer(text, settings) if m.start() < text.index("\nmethods:")])
    return (text[: one.start()] + value + text[one.end() :]).encode()


def _value(value: str) -> Callable[[str, random.Random], tuple[str, bytes]]:
    return lambda text, rng: (f"{value[:12]} for a number", _at_a_number(text, rng, value))


def _duplicate(text: str, rng: random.Random) -> tuple[str, bytes]:
    lines = text.splitlines(keepends=True)
    plain = [n for n, line in enumerate(lines) if re.match(r" *\w+: [^{\[&*|>]*\n", line)]
    line = rng.choice(plain)
    return "a key twice", "".join([*lines[: line + 1], lines[line], *lines[line + 1 :]]).encode()


def _unknown(text: str, rng: random.Random) -> tuple[str, bytes]:
    lines = text.splitlines(keepends=True)
    plain = [n for n, line in enumerate(lines) if re.match(r"  \w+: [^{\[&*|>]*\n", line) and n > 3]
    line = rng.choice(plain)
    return "an unknown key", "".join([*lines[:line], "  nosuchkey: 1\n", *lines[line:]]).encode()


def _whole(what: str, content: bytes) -> Callable[[str, random.Random], tuple[str, bytes]]:
    return lambda text, rng: (what, text.encode() + content)


def _instead(what: str, old: str, new: str) -> Callable[[str, random.Random], tuple[str, bytes]]:
    return lambda text, rng: (what, text.replace(old, new, 1).encode())


LAUGHS = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in pairwise("abcdefghijklmnopqrstuvwxyz"))
WRONG_YAML: tuple[Callable[[str, random.Random], tuple[str, bytes]], ...] = (
    *map(_value, (".inf", "-.inf", ".nan", "true", "off", "'7'", "many", "[1]", "{a: 1}", "1e999", "-5", "9" * 5000)),
    _duplicate,
    _duplicate,
    _unknown,
    _whole("aliases that explode", LAUGHS.encode()),
    _whole("deep nesting", b"a: " + b"[" * 5000),
    _whole("deep blocks", b"".join(b" " * n + b"a:\n" for n in range(500))),
    _whole("a tag", b"a: !!python/object/apply:os.system [true]\n"),
    _whole("a broken tag", b"a: !!timestamp never\n"),
    _whole("a wrong date", b"a: 2019-99-99\n"),
    _whole("not UTF-8", b"a: \xe9\n"),
    _whole("a second document", b"---\na: 1\n"),
    _whole("a section too many", b"extra: {}\n"),
    _instead("a method outside its folder", "\nmethods:\n", "\nmethods:\n  ../../x: {role: control, about: x}\n"),
    _instead("a password", "url: null", "url: postgresql://me:pw@host/db"),
    *(_instead("no section", f"\n{name}:", "\nx:") for name in ("model", "training", "window", "compare")),
)


# Folders: a bundle, windows, a study's journal ----------------------------------------------------------------------


def folder_input(files: dict[str, bytes], number: int, kind: str) -> Input:
    """The ``number``-th damage of one of ``files``; WRONG where what it says has changed."""
    rng = random.Random(f"{kind} {number}")
    name = rng.choice(sorted(files))
    content = files[name]
    damage = rng.choice([flip, flip, *ANYTHING])
    damaged = damage(content, rng)
    label = ANY if _same(content, damaged) else WRONG
    return Input(f"{name}: {damage.__name__}", label, {**files, name: damaged})


def _same(content: bytes, damaged: bytes) -> bool:
    """Whether both say the same: other blanks in JSON do."""
    try:
        return content == damaged or json.loads(content) == json.loads(damaged)
    except ValueError:
        return False


def journal_input(content: bytes, number: int) -> Input:
    """The ``number``-th mutation of a journal of JSON lines; a last line without its end is cut, and that is right."""
    rng = random.Random(f"journal {number}")
    lines = content.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    odd = rng.choice([b"garbage", b"42", b"[]", b"{}", b'{"op_code": 99}', b"\xff\xfe", b'{"op_code": "x"}', b"null"])
    kind = number % 4
    if kind == 0:
        return Input("an odd line", ANY, {"": b"".join([*lines[:at], odd + b"\n", *lines[at:]])})
    if kind == 1:
        return Input("a line less", ANY, {"": b"".join([*lines[:at], *lines[at + 1 :]])})
    if kind == 2:
        line: dict[str, Any] = json.loads(lines[at])
        key = rng.choice(sorted(line))
        line[key] = rng.choice([None, -1, "x", [], {}, 10**9, True])
        lines[at] = json.dumps(line).encode() + b"\n"
        return Input("an odd value", ANY, {"": b"".join(lines)})
    return Input("random bytes", ANY, {"": rng.choice(ANYTHING[:-1])(content, rng)})


def values(content: bytes) -> np.ndarray:
    """The numbers of a plain CSV, for comparison: what every ``RIGHT`` mutation of it must be read as."""
    return np.array([[float(field) for field in row[1:]] for row in table(content)[1:]])
