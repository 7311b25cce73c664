"""The states of an LSTM at every hour of a series, in one run: the older steps of a window then need not be run.

Windows of one series overlap: each hour is run once for every window that holds it. A window may instead begin late,
from the state that the LSTM was in there when it last ran over the whole series. Such a state is *stale*, by the
optimiser steps since that run, and warmed up over other hours than the window's own: an approximation, to be judged
by the error that the training reaches (docs/lstm-engine.md).
"""

import torch
from torch import Tensor

from isotrain.lstm.layer import LSTM

LANES = 64  # stretches run side by side


@torch.no_grad()
def carried_states(lstm: LSTM, series: Tensor, warm: int) -> tuple[Tensor, Tensor]:
    """h and c, each (n + 1, layers, H): row t is the state before hour t of ``series`` (n, I).

    The series is run in ``LANES`` stretches side by side, each warmed up from a zero state over the ``warm`` hours
    before it; before the series its first hour is repeated.

    Raises :class:`InputError` where the native kernels, which alone tell the cell states, cannot be used.
    """
    hours, width = len(series), -(-len(series) // LANES)
    first = torch.arange(LANES, device=series.device) * width - warm
    at = (first[:, None] + torch.arange(warm + width, device=series.device)).clamp(0, hours - 1)
    kept = []
    for h, c in lstm.layer_states(series[at].transpose(0, 1)):
        own = torch.stack([h[warm:], c[warm:]]).transpose(1, 2).flatten(1, 2)[:, :hours]  # 2, n, H
        kept.append(torch.cat([own.new_zeros(2, 1, own.shape[-1]), own], 1))
    h, c = torch.stack(kept, 2)
    return h, c


def start_at(states: tuple[Tensor, Tensor], hours: Tensor) -> tuple[Tensor, Tensor]:
    """h and c, each (layers, B, H), before ``hours`` (B,)."""
    h, c = (state[hours].transpose(0, 1).contiguous() for state in states)
    return h, c
