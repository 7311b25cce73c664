"""What a network reads of the windows, as tensors that move with it between devices.

Letters in shapes: n hours of the series, K leads (the horizon); columns: F of the inputs of an hour, A known ahead of a
target hour, S lags of a target hour, O statistics of an origin, R recent loads, C any of these.
"""

import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from isotrain.data.windows import ARRAYS, Windows
from isotrain.errors import InputError

COPIED = 1 << 30  # bytes of all arrays above which they are read from their files as needed


class _Mapped:
    """The maps of arrays that are read from their files; a copy of them lies in memory, so it has none."""

    def __init__(self, arrays: Sequence[NDArray[Any]]) -> None:
        self._maps = [array._mmap for array in arrays if isinstance(array, np.memmap)]  # type: ignore[attr-defined]

    def release(self) -> None:
        for one in self._maps:
            one.madvise(mmap.MADV_DONTNEED)  # nobody writes to them: a page that is asked for again is the file's

    def __reduce__(self) -> tuple[Any, ...]:
        return _Mapped, ([],)


class Series(nn.Module):
    """The arrays of one input set, moved with the forecaster between devices and left out of its state_dict.

    ``inputs`` and ``leave_out`` choose the columns (:meth:`Windows.columns`); :class:`InputError` for a group that
    does not exist, or if nothing is left for the encoder to read. Arrays of more than :data:`COPIED` bytes in all are
    not copied: they stay where they are, mapped from their files, and columns are chosen of each row that is read.
    """

    def __init__(self, windows: Windows, inputs: str = "plain", leave_out: Sequence[str] = ()) -> None:
        super().__init__()
        self.chosen: dict[str, Tensor] = {}
        self._mapped = _Mapped([])
        self.width: dict[str, int] = {}
        copied = sum(getattr(windows, name).nbytes for name in ARRAYS) <= COPIED
        for name in ARRAYS:
            columns, array = windows.columns(name, inputs, leave_out), getattr(windows, name)
            self.width[name] = len(columns)
            if copied:
                array = np.ascontiguousarray(array[:, columns])  # hours are copied whole: let them lie so
            elif len(columns) < array.shape[1]:
                self.chosen[name] = torch.from_numpy(columns)
            self.register_buffer(name, torch.from_numpy(array), persistent=False)
        for name in ("truth", "level", "spread"):
            self.register_buffer(name, torch.from_numpy(getattr(windows, name)), persistent=False)
        if not copied:
            self._mapped = _Mapped([getattr(windows, name) for name in windows.array_names()])
        if not self.width["inputs"]:
            raise InputError(f"model.leave_out = {list(leave_out)} leaves the encoder nothing to read: leave out less")
        scales = [one["statistics"]["scale"] for one in windows.series]
        firsts = [one["first"] for one in windows.series[1:]]  # a row at or beyond k of them belongs to series k
        self.register_buffer("scales", torch.tensor(scales), persistent=False)
        self.register_buffer("firsts", torch.tensor(firsts, dtype=torch.int64), persistent=False)
        lags = windows.meta["columns"]["lags"]
        self.first_guess = [bool(lags[c]["plain"]) for c in windows.columns("lags", inputs, leave_out)]
        self.history: int = windows.meta["history"]
        self.horizon: int = windows.meta["horizon"]
        self.ends: dict[str, list[tuple[int, int]]] = {
            part: [(one["first"], one["origins"][part][1]) for one in windows.series]
            for part in windows.series[0]["origins"]
        }

    inputs: Float[Tensor, "n F"]
    ahead: Float[Tensor, "n+K A"]
    lags: Float[Tensor, "n+K S"]  # kW
    origin: Float[Tensor, "n O"]
    recent: Float[Tensor, "n R"]  # kW
    truth: Float[Tensor, " n"]  # kW, NaN where unknown
    level: Float[Tensor, " n"]  # kW
    spread: Float[Tensor, " n"]  # kW
    scales: Float[Tensor, " series"]  # kW, standard deviation of each over its training part
    firsts: Int[Tensor, " series-1"]  # the first row of each series but the first
    ends: dict[str, list[tuple[int, int]]]  # of each part: each series' first row, and one past its last origin there
    first_guess: list[bool]  # of each lag: whether its mean with the others marked is the forecast before training

    def series_at(self, origins: Int[Tensor, "*at"]) -> Int[Tensor, "*at"]:
        """Which series each origin belongs to."""
        return torch.bucketize(origins - 1, self.firsts, right=True)

    def scale_at(self, origins: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The standard deviation (kW) of each origin's series; without dimensions where there is one series."""
        if not len(self.firsts):
            return self.scales[0]
        return self.scales[self.series_at(origins)]

    def release(self) -> None:
        """Let the system have the pages that were read of mapped arrays: else they grow to the size of the files."""
        self._mapped.release()

    def rows(self, name: str, hours: Int[Tensor, "*at"]) -> Float[Tensor, "*at C"]:
        """The rows ``hours`` of an array, the chosen columns of it."""
        found = rows(getattr(self, name), hours)
        return self._columns(name, found)

    def _columns(self, name: str, found: Tensor) -> Tensor:
        """The chosen columns; their numbers are kept on the device, so that a step copies nothing there."""
        if name not in self.chosen:
            return found
        self.chosen[name] = self.chosen[name].to(found.device)
        return found.index_select(-1, self.chosen[name])

    def inputs_of(self, first: int, last: int) -> Float[Tensor, "hours F"]:
        """What the encoder reads in the rows ``first`` to ``last``, that one left out."""
        return self.rows("inputs", torch.arange(first, last, device=self.inputs.device))

    def of_leads(self, name: str, origins: Int[Tensor, "*at"]) -> Float[Tensor, "*at leads C"]:
        """The rows of an array for every lead: the hours from each origin on, copied as one piece."""
        array: Tensor = getattr(self, name)
        wide = 1 if array.dim() == 1 else array.shape[1]
        overlapping = array.as_strided((len(array) - self.horizon + 1, self.horizon * wide), (wide, 1))
        found = overlapping.index_select(0, origins.flatten()).view(*origins.shape, self.horizon, wide)
        return self._columns(name, found)

    def truth_at(self, origins: Int[Tensor, "*at"]) -> Float[Tensor, "*at leads"]:
        """True load of every lead, kW."""
        return self.of_leads("truth", origins)[..., 0]


def rows(array: Float[Tensor, "n C"], hours: Int[Tensor, "*at"]) -> Float[Tensor, "*at C"]:
    """``array[hours]``, each row copied as one piece: several times as fast for narrow rows."""
    return array.index_select(0, hours.flatten()).view(*hours.shape, -1)
