"""States of an isolated part, run once over a long series and looked up."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from isotrain.lstm.layer import LSTM


# A long series as stretches side by side: a batch runs many times faster than one sequence as long as all of them.
#
# Each lane is warmed up, from a zero state, over the hours before it; what it forgets in them is what the lanes differ
# by from one continuous run. Before the series its first hour is repeated.


LANES = 64


def lanes(series: Tensor, warm: int) -> Tensor:
    """(n, I) to (warm + n / LANES rounded up, LANES, I)."""
    hours, width = len(series), -(-len(series) // LANES)
    first = torch.arange(LANES, device=series.device) * width - warm
    at = (first[:, None] + torch.arange(warm + width, device=series.device)).clamp(0, hours - 1)
    return series[at].transpose(0, 1)


def whole(states: Tensor, warm: int, hours: int) -> Tensor:
    """What was computed over the lanes, (T, LANES, W), to one row an hour, (hours, W)."""
    return states[warm:].transpose(0, 1).flatten(0, 1)[:hours]


# The states of an LSTM at every hour of a series, in one run: the older steps of a window then need not be run.
#
# Windows of one series overlap: each hour is run once for every window that holds it. A window may instead begin late,
# from the state that the LSTM was in there when it last ran over the whole series. Such a state is *stale*, by the
# optimiser steps since that run, and warmed up over other hours than the window's own: an approximation, to be judged
# by the error that the training reaches (docs/lstm-engine.md).


@torch.no_grad()
def carried_states(lstm: "LSTM", series: Tensor, warm: int) -> tuple[Tensor, Tensor]:
    """h and c, each (n + 1, layers, H): row t is the state before hour t of ``series`` (n, I).

    The series is run in lanes (:mod:`isotrain.lstm.memory`), each warmed up over ``warm`` hours.

    Raises :class:`InputError` where the native kernels, which alone tell the cell states, cannot be used.
    """
    kept = []
    for states in lstm.layer_states(lanes(series, warm)):
        kept.append(torch.stack([_after_zero(whole(state, warm, len(series))) for state in states]))
    h, c = torch.stack(kept, 2)
    return h, c


def _after_zero(states: Tensor) -> Tensor:
    return torch.cat([states.new_zeros(1, states.shape[1]), states])


def start_at(states: tuple[Tensor, Tensor], hours: Tensor) -> tuple[Tensor, Tensor]:
    """h and c, each (layers, B, H), before ``hours`` (B,)."""
    h, c = (state[hours].transpose(0, 1).contiguous() for state in states)
    return h, c
