"""A series as arrays: what a forecaster reads, without pandas.

An *origin* ``o`` is the index of the first hour forecast: its inputs are hours ``< o``, its targets the hours
``o ... o + horizon - 1``. A window is a pair of indices into the arrays here, never a copy, so memory does not
grow with the window's length.
"""

import math
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


def daily_lags(horizon: int) -> list[int]:
    """Whole days back from a target hour, in hours: seven from the first known at every lead, then a fortnight."""
    first = math.ceil(horizon / DAY)
    return [DAY * day for day in sorted({*range(first, first + 7), first + 13})]


@dataclass(frozen=True)
class Windows:
    """A series ready for forecasting. ``n`` hours, ``F`` inputs, ``C`` calendar columns; kW unless said otherwise.

    ``level`` and ``spread`` are the trailing week's mean and standard deviation of the target, so known at the
    end of their hour; ``truth`` is the measured target, NaN where a measurement cannot be trusted.
    """

    inputs: Floats  # (n, F), what the encoder reads at an hour; no unit
    calendar: Floats  # (n + horizon, C), known in advance; no unit
    target: Floats  # (n,), repaired causally: never NaN
    truth: Floats  # (n,)
    level: Floats  # (n,)
    spread: Floats  # (n,)
    time: NDArray[np.int64]  # (n,), seconds since 1970 UTC
    meta: dict[str, Any]

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
