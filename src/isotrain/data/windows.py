"""One series, or many, as arrays: what a forecaster reads, without pandas; and what the JSON files beside it hold.

An *origin* ``o`` is the index of the first hour forecast: its inputs are hours ``< o``, its targets the hours
``o ... o + horizon - 1``. A window is a pair of indices into the arrays here, never a copy, so memory does not
grow with the window's length. Many series lie one after the other in the same arrays, with ``horizon`` empty rows
between two of them, so that an index means the same wherever it is used and no window reaches from one into the next.
"""

import hashlib
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Literal, NotRequired, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from isotrain.errors import InputError
from isotrain.files import checksum, read_json, reading, replacing, sha256, sha256_text, write_json

Floats = NDArray[np.float32]
LEVEL_HOURS = 168  # the trailing week: a window's mean and spread do not depend on the weekday it ends on
DAY = 24
PARTS = ("train", "validation", "test")
AGAIN = "remove its folder and run `dvc repro`"
ARRAYS = ("inputs", "ahead", "lags", "origin", "recent")
AHEAD = ("ahead", "lags")  # arrays with a row for each of the hours that follow the last
CHECKED = 1 << 30  # bytes of arrays above which reading them all to check them takes too long
KNOWN_AHEAD = "known_ahead"  # the group of the columns of ``ahead`` that later hours of the series decide
PERFECT = "perfect weather forecast"


class Provenance(TypedDict):
    """Which series it is."""

    name: str  # of the series: its file's, without the ending
    about: dict[str, str | float | None]  # facts about the building that ingest.about asks for; None: not said
    source: str  # the file's name, or "simulated"
    simulated: bool
    rows: int  # hours
    sha256: str  # of the file, or of the simulated values
    ingest: dict[str, Any]  # the section of params.yaml: how a newer file of this series is to be read


class Stored(TypedDict):
    """A column of the tidy table."""

    unit: str
    kind: str  # load, temperature, solar or other; a zone behind the meter is a load too


class Limit(TypedDict):
    """One limit of a column, beyond which a value is a fault, and how it was found."""

    value: float | None  # in the column's unit, or hours; None: no check
    reason: str


class Facts(Provenance):
    """What ``series.json`` holds, which lies beside the tidy table ``series.parquet``."""

    first_hour: str  # UTC, ISO 8601
    target: str
    unit: str  # of the target
    time_zone: str
    country: str  # its public holidays count
    columns: dict[str, Stored]
    flags: dict[str, dict[str, int]]  # of each column: hours with each fault
    limits: dict[str, dict[str, Limit]]  # of each column
    flagged: dict[str, float]  # share of the target's hours that are no truth: whole, train, validation, test
    hours_before_start: int  # dropped, since the target measured nothing yet


class Weather(TypedDict):
    """A column of weather, or another regressor, and its mean and standard deviation over the training part."""

    name: str
    kind: str
    mean: float
    std: float
    ahead: NotRequired[Literal["known", "perfect"]]  # absent: its values at the hours forecast are not read


class Statistics(TypedDict):
    """Every number that scales a feature, from the training part alone."""

    scale: float  # standard deviation of the target, kW
    weather: list[Weather]
    climate: dict[str, list[float]]  # kind -> 366 standardised values, of the temperature if there is any


class Fitted(TypedDict):
    """What a trained forecaster and new data must have in common."""

    target: str
    unit: str
    time_zone: str
    country: str
    history: int  # hours
    horizon: int  # leads, hours
    stride: int  # hours from one origin of validation or test to the next
    statistics: Statistics
    mase_scale: float  # MAE of "same hour yesterday" over the training part, kW


class Column(TypedDict):
    """A column of one of the five arrays of features."""

    name: str
    group: str
    plain: bool  # whether it belongs to the plain inputs
    reach: int  # hours that it goes back over


class OfSeries(TypedDict):
    """What is known of one of the series, and where it lies in the arrays."""

    name: str
    number: int  # its place among those that were trained together; -1: it was not among them
    about: dict[str, str | float | None]  # facts that do not change, such as category and floor area
    source: str  # the file's name, or "simulated"
    sha256: str  # of the file, or of the simulated values
    ingest: dict[str, Any]  # the section of params.yaml: how a newer file of this series is to be read
    first: int  # its first row in the arrays
    rows: int  # hours
    time_zone: str
    country: str
    statistics: Statistics
    mase_scale: float  # MAE of "same hour yesterday" over the training part, kW
    origins: dict[str, list[int]]  # of each part: the first, and one past the last, as rows of the arrays


class Meta(TypedDict):
    """What ``windows.json`` holds, and a bundle of a trained forecaster under ``windows``."""

    source: str  # the file's name, "simulated", or how many series there are
    simulated: bool
    rows: int  # hours of all series
    sha256: str  # of the one series; of the checksums of many
    target: str
    unit: str  # of the target
    history: int  # hours
    horizon: int  # leads, hours
    stride: int  # hours from one origin of validation or test to the next
    columns: dict[str, list[Column]]  # of each array
    groups: list[str]  # of features
    left_out: dict[str, list[str]]  # kind of weather that is missing -> groups that lack columns for it
    series: list[OfSeries]  # in the order of the arrays


@dataclass(frozen=True)
class Windows:
    """One series or many, ready for forecasting; docs/features.md lists the columns.

    ``n`` rows: the hours of all series and the K empty rows between two of them, with K leads (the horizon). Row t of
    ``inputs``, ``origin``, ``recent``, ``level`` and ``spread`` is known at the end of hour t, so an origin o reads row
    o - 1. Row f of ``ahead`` and ``lags`` is known at *every* origin that has f among its
    targets. After the series' end the columns of group ``known_ahead`` repeat its last value, unless the future was
    given (:func:`.windowing.apply_statistics`): no origin of any part reaches those rows.
    ``meta["columns"][array]`` describes the columns of an array; the ``reach`` of one is the number of hours before
    its origin or target (inputs: up to its own hour) that it depends on.
    """

    inputs: Floats  # (n, F), what the encoder reads at an hour; no unit
    ahead: Floats  # (n + K, A), known in advance of a target hour; no unit
    lags: Floats  # (n + K, S), load on days before a target hour, kW
    origin: Floats  # (n, O), statistics of the past; no unit
    recent: Floats  # (n, R), loads of the last hours, kW
    target: Floats  # (n,), repaired causally: never NaN; kW
    truth: Floats  # (n,), measured, NaN where a measurement cannot be trusted; kW
    level: Floats  # (n,), the trailing week's mean, kW
    spread: Floats  # (n,), and its standard deviation, kW
    time: NDArray[np.int64]  # (n,), seconds since 1970 UTC
    meta: Meta

    @property
    def calendar(self) -> Floats:
        """(n + K, C): the columns of ``ahead`` that come from the calendar alone."""
        return self.ahead[:, [c["group"] == "calendar" for c in self.meta["columns"]["ahead"]]]

    def columns(self, array: str, inputs: str = "rich", leave_out: Sequence[str] = ()) -> NDArray[np.int64]:
        """Indices of the columns of ``array`` in the input set ``inputs`` (plain or rich), without some groups.

        Raises :class:`InputError` for a group that does not exist; one that this series lacks may be left out.
        """
        return np.array([i for i, _ in chosen(self.meta, array, inputs, leave_out)], dtype=np.int64)

    def names(self, array: str) -> list[str]:
        """The names of the columns of ``array``."""
        return [column["name"] for column in self.meta["columns"][array]]

    @property
    def series(self) -> list[OfSeries]:
        """What is known of each series, in the order in which they lie in the arrays."""
        return self.meta["series"]

    def series_at(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which of :attr:`series` each of ``rows`` belongs to; the empty rows after a series belong to it."""
        firsts = [one["first"] for one in self.series]
        return np.searchsorted(firsts, rows, side="right") - 1

    def scale_at(self, origins: NDArray[np.int64]) -> Floats:
        """(m,): the standard deviation (kW) of each origin's series over its training part."""
        scales = np.array([one["statistics"]["scale"] for one in self.series], np.float32)
        found: Floats = scales[self.series_at(origins - 1)]
        return found

    def number_at(self, origins: NDArray[np.int64]) -> NDArray[np.int64]:
        """(m,): the number of each origin's series among those that were trained together."""
        numbers = np.array([one["number"] for one in self.series])
        found: NDArray[np.int64] = numbers[self.series_at(origins - 1)]
        return found

    def mase_scale_at(self, origins: NDArray[np.int64]) -> NDArray[np.float64]:
        """(m,): the MAE (kW) of "same hour yesterday" of each origin's series over its training part."""
        scales = np.array([one["mase_scale"] for one in self.series])
        found: NDArray[np.float64] = scales[self.series_at(origins - 1)]
        return found

    def ranges(self, part: str, until: str | None = None) -> list[tuple[int, int]]:
        """Of each series the first origin of ``part``, and one past the last of it, or of the later part ``until``."""
        return [(one["origins"][part][0], one["origins"][until or part][1]) for one in self.series]

    def origins(self, part: str) -> NDArray[np.int64]:
        """The origins of ``part``: every one of the training part, every ``stride``-th of the others."""
        step = 1 if part == "train" else self.meta["stride"]
        return np.concatenate([np.arange(first, last, step) for first, last in self.ranges(part)])

    def flagged(self) -> dict[str, float]:
        """Share of the target's hours that are no truth, since they were missing or faulty: whole, and by part."""
        marked: dict[str, list[NDArray[np.bool_]]] = {part: [] for part in ("whole", *PARTS)}
        for one in self.series:
            truth = np.isnan(self.truth[one["first"] : one["first"] + one["rows"]])
            starts = [0, *(one["origins"][part][0] - one["first"] for part in PARTS[1:]), one["rows"]]
            marked["whole"].append(truth)
            for part, start, end in zip(PARTS, starts, starts[1:], strict=False):
                marked[part].append(truth[start:end])
        return {part: float(np.concatenate(found).mean()) for part, found in marked.items()}

    def targets(self, origins: NDArray[np.int64]) -> Floats:
        """True load of every lead: (origins, horizon), kW, NaN where unknown."""
        truth: Floats = self.truth[origins[:, None] + np.arange(self.meta["horizon"])]
        return truth

    def only(self, index: int) -> "Windows":
        """The series ``index`` alone: the same memory, rows counted from its first hour."""
        first, rows, horizon = self.series[index]["first"], self.series[index]["rows"], self.meta["horizon"]
        arrays = {
            name: getattr(self, name)[first : first + rows + (horizon if name in AHEAD else 0)]
            for name in self.array_names()
        }
        return Windows(**arrays, meta=of_one(self.meta, index))

    @classmethod
    def array_names(cls) -> list[str]:
        """Of the arrays, each of which is a file in the folder."""
        return [field.name for field in fields(cls) if field.name != "meta"]

    def save(self, folder: str | Path) -> None:
        """Write each array as ``NAME.npy`` and ``windows.json``, which holds their checksums, into ``folder``."""
        save_all([self], folder)

    @classmethod
    def load(cls, folder: str | Path) -> "Windows":
        """Read what :meth:`save` or :func:`save_all` wrote; :class:`InputError` when it is not there or incomplete.

        The arrays are mapped from their files: what is not used is not read. The checksums of arrays beyond
        :data:`CHECKED` bytes in all are therefore not checked, their lengths are.
        """
        folder = Path(folder)
        try:
            meta, of_arrays = _read_meta(folder / "windows.json")
            paths = {name: folder / f"{name}.npy" for name in cls.array_names()}
            checked = sum(path.stat().st_size for path in paths.values()) <= CHECKED
            for name, path in paths.items():
                if checked and sha256(path) != of_arrays.get(name):  # such as one that a kill left between two files
                    raise InputError(f"{path} is not the file that windows.json beside it was written for: {AGAIN}")
            arrays = {}
            for name, path in paths.items():
                with reading(path, AGAIN):  # c: a write would change a page of this process, never the file
                    arrays[name] = np.load(path, mmap_mode="c")
            with reading(folder, AGAIN):
                windows = cls(**arrays, meta=meta)
                windows._check_lengths()
                return windows
        except FileNotFoundError as problem:
            raise InputError(f"{problem.filename} is missing: run `dvc repro window` first") from None

    def _check_lengths(self) -> None:
        """ValueError for arrays that are not of one series, such as one that was cut."""
        horizon = self.meta["horizon"]
        hours = rows_of_all([one["rows"] for one in self.series], horizon)
        for name in self.array_names():
            wanted = hours + (horizon if name in AHEAD else 0)
            if len(getattr(self, name)) != wanted:
                raise ValueError(f"{name} holds {len(getattr(self, name))} hours instead of {wanted}")


def of_one(meta: Meta, index: int) -> Meta:
    """``meta`` of the series ``index`` alone, its rows counted from its first hour."""
    one = meta["series"][index]
    origins = {part: [bound - one["first"] for bound in bounds] for part, bounds in one["origins"].items()}
    return {
        **meta,
        "source": one["source"],
        "rows": one["rows"],
        "sha256": one["sha256"],
        "series": [{**one, "first": 0, "origins": origins}],
    }


def rows_of_all(rows: Sequence[int], horizon: int) -> int:
    """Rows that series of so many ``rows`` take one after the other, with ``horizon`` empty ones between two."""
    return sum(rows) + horizon * (len(rows) - 1)


def save_all(made: Iterable[Windows], folder: str | Path, rows: Sequence[int] | None = None) -> Meta:
    """Write series made one at a time as the :class:`Windows` of all, in memory for one of them.

    ``rows`` are the hours of each, which must be known beforehand for more than one. Returns what ``windows.json``
    holds. Raises :class:`InputError` for series whose columns differ.
    """
    folder = Path(folder)
    drafts: dict[str, _Draft] = {}
    meta: Meta | None = None
    first, lengths = 0, list(rows or ())
    with ExitStack() as stack:
        paths = {name: stack.enter_context(replacing(folder / f"{name}.npy")) for name in Windows.array_names()}
        for windows in made:
            assert len(windows.series) == 1 or rows is None, "series come one at a time"
            horizon = windows.meta["horizon"]
            if meta is None:
                meta = {**windows.meta, "series": []}
                lengths = lengths or [one["rows"] for one in windows.series]
                for name, path in paths.items():
                    array, total = getattr(windows, name), rows_of_all(lengths, horizon)
                    shape = (total + (horizon if name in AHEAD else 0), *array.shape[1:])
                    drafts[name] = _Draft(stack.enter_context(path.open("wb")), array.dtype, shape)
            _check_alike(meta, windows.meta)
            for name, draft in drafts.items():
                array = getattr(windows, name)
                if first and name not in AHEAD:  # the rows between two series are read where a window is padded
                    draft.add(np.repeat(np.full_like(array[:1], np.nan) if name == "truth" else draft.last, horizon, 0))
                draft.add(array)
            for one in windows.series:
                origins = {part: [bound + first for bound in bounds] for part, bounds in one["origins"].items()}
                number = len(meta["series"])
                meta["series"].append({**one, "number": number, "first": one["first"] + first, "origins": origins})
            first += rows_of_all([one["rows"] for one in windows.series], horizon) + horizon
        assert meta is not None, "there is no series"
        assert [one["rows"] for one in meta["series"]] == lengths, "a series has other hours than was said"
        if len(meta["series"]) > 1 and rows is not None:
            meta |= {
                "source": f"{len(meta['series'])} series",
                "rows": sum(one["rows"] for one in meta["series"]),
                "sha256": sha256_text(" ".join(one["sha256"] for one in meta["series"])),
            }
        of_arrays = {name: draft.hash.hexdigest() for name, draft in drafts.items()}
    write_meta(folder / "windows.json", meta, of_arrays)
    return meta


class _Draft:
    """An array on its way into a ``.npy`` file, rows after rows: written, not mapped, so it takes no memory."""

    def __init__(self, stream: BinaryIO, kind: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self.hash = hashlib.sha256()
        self.last: NDArray[Any]
        self._stream = stream
        head = io.BytesIO()
        about = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(head, about)
        self._write(head.getbuffer())

    def add(self, rows: NDArray[Any]) -> None:
        """The next rows, in the order of C."""
        self.last = rows[-1:].copy()
        self._write(np.ascontiguousarray(rows).data.cast("B"))

    def _write(self, data: memoryview) -> None:
        self._stream.write(data)
        self.hash.update(data)


def _check_alike(meta: Meta, other: Meta) -> None:
    """:class:`InputError` unless both have the same columns, the same target and unit."""
    if meta["columns"] == other["columns"] and (meta["target"], meta["unit"]) == (other["target"], other["unit"]):
        return
    first, one = meta["series"][0]["name"], other["series"][0]["name"]
    mine, theirs = (
        {f"{array}: {column['name']}" for array, columns in m["columns"].items() for column in columns}
        for m in (meta, other)
    )
    differing = ", ".join(sorted(mine ^ theirs)[:5]) or "the target"
    raise InputError(
        f"the series {first} and {one} differ in what can be computed of them ({differing}): all series of a pool need "
        "the same kinds of columns; take a column out of ingest.columns, or leave that series out"
    )


def shares_of(marked: NDArray[np.bool_], ends: Sequence[int]) -> dict[str, float]:
    """The share of the hours ``marked`` (hours,) in the whole series and in the parts that end at ``ends``."""
    bounds = {"whole": (0, len(marked)), **dict(zip(PARTS, zip([0, *ends], ends, strict=False), strict=True))}
    return {part: float(marked[first:last].mean()) if last > first else 0.0 for part, (first, last) in bounds.items()}


def flagged_line(shares: dict[str, float]) -> str:
    """Shares of the hours, as :func:`shares_of` gives them, in words: ``0.09% of the hours (train 0.09%, ...)``."""
    whole, *parts = shares.items()
    return f"{whole[1]:.2%} of the hours ({', '.join(f'{part} {share:.2%}' for part, share in parts)})"


def write_meta(path: Path, meta: Meta, of_arrays: dict[str, str]) -> None:
    """Write ``windows.json`` with the checksums ``of_arrays`` of the files beside it, and with its own."""
    held = {**meta, "of_arrays": of_arrays}
    write_json(path, {**held, "checksum": checksum(held)})


def read_meta(path: Path) -> Meta:
    """``windows.json``; FileNotFoundError if it is absent, :class:`InputError` if it is damaged or lacks something."""
    return _read_meta(path)[0]


def _read_meta(path: Path) -> tuple[Meta, dict[str, str]]:
    """What :func:`write_meta` wrote."""
    with reading(path, AGAIN):
        held = dict(read_json(path, AGAIN))
    own = held.pop("checksum", None)
    if own is None:
        raise InputError(f"{path} has no checksum: another version wrote it; make it again with `dvc repro`")
    if own != checksum(held):
        raise InputError(f"{path} is damaged, its checksum does not agree: {AGAIN}")
    of_arrays = held.pop("of_arrays")
    if not isinstance(of_arrays, dict):
        raise InputError(f"{path} was written by another version: {AGAIN}")
    return complete(held, path), of_arrays


def complete(value: dict[str, Any], path: Path) -> Meta:
    """``value``, read from ``path``, with everything that :class:`Meta` promises; else :class:`InputError`."""
    if missing := sorted(Meta.__required_keys__ - value.keys()):
        raise InputError(f"{path} lacks {', '.join(missing)}: another version wrote it; make it again with `dvc repro`")
    return cast(Meta, value)


def chosen(meta: Meta, array: str, inputs: str = "rich", leave_out: Sequence[str] = ()) -> list[tuple[int, Column]]:
    """Index and description of each column of ``array`` that is meant; see :meth:`Windows.columns`."""
    for group in leave_out:
        if group not in meta["groups"]:
            raise InputError(f"there is no group of features {group!r} to leave out: use {', '.join(meta['groups'])}")
    return [
        (index, column)
        for index, column in enumerate(meta["columns"][array])
        if (column["plain"] or inputs == "rich") and column["group"] not in leave_out
    ]


def known_ahead(meta: Meta, leave_out: Sequence[str] = ()) -> list[str]:
    """The columns of the series whose values at the hours forecast are read: the same of each."""
    weather = [] if KNOWN_AHEAD in leave_out else meta["series"][0]["statistics"]["weather"]
    return [about["name"] for about in weather if about.get("ahead")]


def ahead_words(of: Mapping[str, Any]) -> str:
    """What of a series or of many (:class:`Facts` or :class:`Meta`) is taken for known at the hours forecast.

    To be said wherever an error or a forecast is shown, such as ``perfect weather forecast (AirTemp,
    Global_Solar_Flux); known ahead: Price``; empty if nothing is.
    """
    columns = (of["series"][0] if "series" in of else of)["ingest"].get("columns", {})
    perfect, known = (
        ", ".join(name for name, column in columns.items() if column.get("ahead") == how)
        for how in ("perfect", "known")
    )
    return "; ".join([f"{PERFECT} ({perfect})"] * bool(perfect) + [f"known ahead: {known}"] * bool(known))


def data_key(meta: Meta) -> str:
    """What a result on these windows is known by: the series, how it was read and split, its scales and its columns."""
    return checksum(dict(meta))


def stride_for(origins: int, most: int, least: int = 1) -> int:
    """One of how many origins to take, so that about ``most`` remain: prime to 24, so that every hour of day occurs.

    Example:
        >>> stride_for(4_000, most=10_000, least=7), stride_for(126_000, most=10_000, least=7)
        (7, 13)
    """
    stride = max(least, -(-origins // most))
    while math.gcd(stride, DAY) > 1:
        stride += 1
    return stride


def needed_hours(meta: Meta, inputs: str = "rich", leave_out: Sequence[str] = ()) -> int:
    """Hours of the series before an origin without which some column in use lacks part of its past."""
    reach: dict[str, int] = {
        array: max((column["reach"] for _, column in chosen(meta, array, inputs, leave_out)), default=0)
        for array in ARRAYS
    }
    reach["inputs"] += meta["history"] - 1  # the encoder starts `history` hours before the origin
    return max(LEVEL_HOURS, meta["history"], *reach.values())
