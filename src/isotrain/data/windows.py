"""A series as arrays: what a forecaster reads, without pandas; and what the JSON files beside it hold.

An *origin* ``o`` is the index of the first hour forecast: its inputs are hours ``< o``, its targets the hours
``o ... o + horizon - 1``. A window is a pair of indices into the arrays here, never a copy, so memory does not
grow with the window's length.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from isotrain.errors import InputError
from isotrain.files import checksum, read_json, reading, replacing, sha256, write_json

Floats = NDArray[np.float32]
LEVEL_HOURS = 168  # the trailing week: a window's mean and spread do not depend on the weekday it ends on
DAY = 24
PARTS = ("train", "validation", "test")
AGAIN = "remove its folder and run `dvc repro`"
ARRAYS = ("inputs", "ahead", "lags", "origin", "recent")
KNOWN_AHEAD = "known_ahead"  # the group of the columns of ``ahead`` that later hours of the series decide
PERFECT = "perfect weather forecast"


class Provenance(TypedDict):
    """Which series it is."""

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


class Meta(Fitted, Provenance):
    """What ``windows.json`` holds, and a bundle of a trained forecaster under ``windows``."""

    columns: dict[str, list[Column]]  # of each array
    groups: list[str]  # of features
    left_out: dict[str, list[str]]  # kind of weather that is missing -> groups that lack columns for it
    scale: float  # of the statistics, kW
    origins: dict[str, list[int]]  # of each part: the first, and one past the last


@dataclass(frozen=True)
class Windows:
    """A series ready for forecasting. ``n`` hours, ``K`` leads (the horizon); docs/features.md lists the columns.

    Row t of ``inputs``, ``origin``, ``recent``, ``level`` and ``spread`` is known at the end of hour t, so an
    origin o reads row o - 1. Row f of ``ahead`` and ``lags`` is known at *every* origin that has f among its
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

    def origins(self, part: str) -> NDArray[np.int64]:
        """The origins of ``part``: every one of the training part, every ``stride``-th of the others."""
        first, last = self.meta["origins"][part]
        return np.arange(first, last, 1 if part == "train" else self.meta["stride"])

    def flagged(self) -> dict[str, float]:
        """Share of the target's hours that are no truth, since they were missing or faulty: whole, and by part."""
        first = {part: origins[0] for part, origins in self.meta["origins"].items()}
        ends = [first["validation"], first["test"], len(self.truth)]
        return shares_of(np.isnan(self.truth), ends)

    def targets(self, origins: NDArray[np.int64]) -> Floats:
        """True load of every lead: (origins, horizon), kW, NaN where unknown."""
        truth: Floats = self.truth[origins[:, None] + np.arange(self.meta["horizon"])]
        return truth

    def save(self, folder: str | Path) -> None:
        """Write ``windows.npz`` and ``windows.json`` into ``folder``, each with a checksum, which the latter holds."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "meta"}
        path = Path(folder) / "windows.npz"
        with replacing(path) as draft, draft.open("wb") as stream:
            np.savez(stream, **arrays)
        write_meta(Path(folder) / "windows.json", self.meta, sha256(path))

    @classmethod
    def load(cls, folder: str | Path) -> "Windows":
        """Read what :meth:`save` wrote; :class:`InputError` when it is not there or incomplete."""
        path = Path(folder) / "windows.npz"
        try:
            meta, of_arrays = _read_meta(Path(folder) / "windows.json")
            if sha256(path) != of_arrays:  # such as one that a kill left between the two
                raise InputError(f"{path} is not the file that windows.json beside it was written for: {AGAIN}")
            with reading(path, AGAIN), np.load(path) as arrays:
                windows = cls(**arrays, meta=meta)
                windows._check_lengths()
                return windows
        except FileNotFoundError as problem:
            raise InputError(f"{problem.filename} is missing: run `dvc repro window` first") from None

    def _check_lengths(self) -> None:
        """ValueError for arrays that are not of one series, such as one that was cut."""
        hours, horizon = self.meta["rows"], self.meta["horizon"]
        for field in fields(self):
            wanted = hours + (horizon if field.name in ("ahead", "lags") else 0)
            if field.name != "meta" and len(getattr(self, field.name)) != wanted:
                raise ValueError(f"{field.name} holds {len(getattr(self, field.name))} hours instead of {wanted}")


def ends_of_parts(rows: int, train: float, validation: float) -> list[int]:
    """One past the last of ``rows`` hours in each of :data:`PARTS`, from the shares of the first two."""
    return [int(rows * train), int(rows * (train + validation)), rows]


def shares_of(marked: NDArray[np.bool_], ends: Sequence[int]) -> dict[str, float]:
    """The share of the hours ``marked`` (hours,) in the whole series and in the parts that end at ``ends``."""
    bounds = {"whole": (0, len(marked)), **dict(zip(PARTS, zip([0, *ends], ends, strict=False), strict=True))}
    return {part: float(marked[first:last].mean()) if last > first else 0.0 for part, (first, last) in bounds.items()}


def flagged_line(shares: dict[str, float]) -> str:
    """Shares of the hours, as :func:`shares_of` gives them, in words: ``0.09% of the hours (train 0.09%, ...)``."""
    whole, *parts = shares.items()
    return f"{whole[1]:.2%} of the hours ({', '.join(f'{part} {share:.2%}' for part, share in parts)})"


def write_meta(path: Path, meta: Meta, of_arrays: str) -> None:
    """Write ``windows.json`` with the checksum ``of_arrays`` of the file beside it, and with its own."""
    held = {**meta, "of_arrays": of_arrays}
    write_json(path, {**held, "checksum": checksum(held)})


def read_meta(path: Path) -> Meta:
    """``windows.json``; FileNotFoundError if it is absent, :class:`InputError` if it is damaged or lacks something."""
    return _read_meta(path)[0]


def _read_meta(path: Path) -> tuple[Meta, str]:
    """What :func:`write_meta` wrote."""
    with reading(path, AGAIN):
        held = dict(read_json(path, AGAIN))
    own = held.pop("checksum", None)
    if own is None:
        raise InputError(f"{path} has no checksum: another version wrote it; make it again with `dvc repro`")
    if own != checksum(held):
        raise InputError(f"{path} is damaged, its checksum does not agree: {AGAIN}")
    of_arrays = str(held.pop("of_arrays"))
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


def known_ahead(meta: Fitted, leave_out: Sequence[str] = ()) -> list[str]:
    """The columns of the series whose values at the hours forecast are read."""
    weather = [] if KNOWN_AHEAD in leave_out else meta["statistics"]["weather"]
    return [about["name"] for about in weather if about.get("ahead")]


def ahead_words(series: Provenance) -> str:
    """What of ``series`` is taken for known at the hours forecast, to be said wherever an error or a forecast is shown.

    Such as ``perfect weather forecast (AirTemp, Global_Solar_Flux); known ahead: Price``; empty if nothing is.
    """
    columns = series["ingest"].get("columns", {})
    perfect, known = (
        ", ".join(name for name, column in columns.items() if column.get("ahead") == how)
        for how in ("perfect", "known")
    )
    return "; ".join([f"{PERFECT} ({perfect})"] * bool(perfect) + [f"known ahead: {known}"] * bool(known))


def data_key(meta: Meta) -> str:
    """What a result on these windows is known by: the series, how it was read and split, its scales and its columns."""
    return checksum(dict(meta))


def needed_hours(meta: Meta, inputs: str = "rich", leave_out: Sequence[str] = ()) -> int:
    """Hours of the series before an origin without which some column in use lacks part of its past."""
    reach: dict[str, int] = {
        array: max((column["reach"] for _, column in chosen(meta, array, inputs, leave_out)), default=0)
        for array in ARRAYS
    }
    reach["inputs"] += meta["history"] - 1  # the encoder starts `history` hours before the origin
    return max(LEVEL_HOURS, meta["history"], *reach.values())
