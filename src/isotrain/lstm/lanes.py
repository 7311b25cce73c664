"""A long series as stretches side by side: a batch runs many times faster than one sequence as long as all of them.

Each lane is warmed up, from a zero state, over the hours before it; what it forgets in them is what the lanes differ
by from one continuous run. Before the series its first hour is repeated.
"""

import torch
from torch import Tensor

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
