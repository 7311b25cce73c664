"""The memory of an LSTM: what its isolated units did over a long series, run once and looked up while the rest trains.

:meth:`isotrain.lstm.LSTM.remember` makes a memory, ``LSTM.forward(memory=...)`` reads rows of it. Here is where things
lie in one: which columns hold which units (:func:`columns`), and how a long series becomes a batch of shorter ones
(:func:`stretches`), which runs many times faster than one sequence as long as all of them.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from isotrain.lstm.stack import Split

STRETCHES = 64


def columns(layers: Sequence["Split"]) -> list[slice | None]:
    """The columns of a memory that hold the constants of each layer; None where nothing reads them.

    A layer of constants only, below another such layer, need not be remembered.
    """
    found: list[slice | None] = []
    first = 0
    for k, split in enumerate(layers):
        idle = not len(split.others) and k + 1 < len(layers) and not len(layers[k + 1].others)
        found.append(None if idle else slice(first, first + len(split.constants)))
        first += 0 if idle else len(split.constants)
    return found


def recall(memory: Tensor, at: slice | None, x: Tensor, units: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The constants of a layer at every step, those one step earlier, and their last h and c; NaN where not known.

    Args:
        memory: (T + 1, B, W), from before the first step on; ``at``: the layer's columns in it.
        x: (T, B, ...), for the sizes; ``units``: how many constants the layer has.
    """
    unknown = x.new_full((x.shape[1], units), torch.nan)
    if at is None:
        nothing = x.new_empty(*x.shape[:2], 0)
        return nothing, nothing, unknown, unknown
    part = memory[..., at]
    return part[1:], part[:-1], part[-1], unknown


def stretches(series: Tensor, warm: int) -> Tensor:
    """A series (n, I) as stretches side by side, (warm + n / STRETCHES rounded up, STRETCHES, I).

    Each begins ``warm`` steps early, to be run from a zero state: what it forgets in those steps is what the stretches
    differ by from one continuous run. Before the series its first step is repeated.
    """
    steps, width = len(series), -(-len(series) // STRETCHES)
    first = torch.arange(STRETCHES, device=series.device) * width - warm
    at = (first[:, None] + torch.arange(warm + width, device=series.device)).clamp(0, steps - 1)
    return series[at].transpose(0, 1)


def joined(states: Tensor, warm: int, steps: int) -> Tensor:
    """What was computed over the stretches, (T, STRETCHES, W), to one row a step of the series, (steps, W)."""
    return states[warm:].transpose(0, 1).flatten(0, 1)[:steps]
