"""A series as arrays: what a forecaster reads, without pandas.

An *origin* ``o`` is the index of the first hour forecast: its inputs are hours ``< o``, its targets the hours
``o ... o + horizon - 1``. A window is a pair of indices into the arrays here, never a copy, so memory does not
grow with the window's length.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isotrain.errors import InputError
from isotrain.files import read_json, replacing, write_json

Floats = NDArray[np.float32]
LEVEL_HOURS = 168  # the trailing week: a window's mean and spread do not depend on the weekday it ends on
DAY = 24
PARTS = ("train", "validation", "test")
ARRAYS = ("inputs", "ahead", "lags", "origin", "recent")


@dataclass(frozen=True)
class Windows:
    """A series ready for forecasting. ``n`` hours, ``K`` leads (the horizon); docs/features.md lists the columns.

    Row t of ``inputs``, ``origin``, ``recent``, ``level`` and ``spread`` is known at the end of hour t, so an
    origin o reads row o - 1. Row f of ``ahead`` and ``lags`` is known at *every* origin that has f among its
    targets. ``meta["columns"][array]`` describes the columns of an array: name, group, whether they belong to the
    plain inputs, and ``reach``, how many hours before their origin or target (inputs: up to their own) they see.
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
    meta: dict[str, Any]

    @property
    def calendar(self) -> Floats:
        """(n + K, C): the columns of ``ahead`` that any almanac knows."""
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

    def targets(self, origins: NDArray[np.int64]) -> Floats:
        """True load of every lead: (origins, horizon), kW, NaN where unknown."""
        return self.truth[origins[:, None] + np.arange(self.meta["horizon"])]

    def save(self, folder: str | Path) -> None:
        """Write ``windows.npz`` and ``windows.json`` into ``folder``."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "meta"}
        with replacing(Path(folder) / "windows.npz") as draft, draft.open("wb") as stream:
            np.savez(stream, **arrays)
        write_json(Path(folder) / "windows.json", self.meta)

    @classmethod
    def load(cls, folder: str | Path) -> "Windows":
        """Read what :meth:`save` wrote; :class:`InputError` when it is not there."""
        try:
            with np.load(Path(folder) / "windows.npz") as arrays:
                return cls(**arrays, meta=read_json(Path(folder) / "windows.json"))
        except FileNotFoundError as problem:
            raise InputError(f"{problem.filename} is missing: run `dvc repro window` first") from None


def chosen(
    meta: dict[str, Any], array: str, inputs: str = "rich", leave_out: Sequence[str] = ()
) -> list[tuple[int, dict[str, Any]]]:
    """Index and description of each column of ``array`` that is meant; see :meth:`Windows.columns`."""
    for group in leave_out:
        if group not in meta["groups"]:
            raise InputError(f"there is no group of features {group!r} to leave out: use {', '.join(meta['groups'])}")
    return [
        (index, column)
        for index, column in enumerate(meta["columns"][array])
        if (column["plain"] or inputs == "rich") and column["group"] not in leave_out
    ]


def needed_hours(meta: dict[str, Any], inputs: str = "rich", leave_out: Sequence[str] = ()) -> int:
    """Hours of the series before an origin without which some column in use lacks part of its past."""
    reach: dict[str, int] = {
        array: max((column["reach"] for _, column in chosen(meta, array, inputs, leave_out)), default=0)
        for array in ARRAYS
    }
    history: int = meta["history"]
    reach["inputs"] += history - 1  # the encoder starts `history` hours before the origin
    return max(LEVEL_HOURS, history, *reach.values())
