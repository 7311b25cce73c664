"""How a layer's units lie in the kernels' memory: active ones first, each kind filling whole blocks."""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from isotrain.lstm.plan import Plan

LANES = 16  # units in a block of the kernels


@dataclass(frozen=True, eq=False)
class Layout:
    """Attributes:
    order: (P,) the unit in each place, or -1 in an empty one; P is a multiple of LANES.
    active: the first so many places hold the active units.
    place: (H,) the place of each unit.
    natural: the units lie in their own order without gaps.
    """

    order: Tensor
    active: int
    place: Tensor
    natural: bool


@functools.lru_cache(maxsize=256)  # plans are compared by identity, and live as long as what was isolated
def layout(plan: Plan, hidden: int) -> Layout:
    """The layout of ``hidden`` units under a plan."""
    everyone = torch.ones(hidden, dtype=torch.bool)
    first = everyone if plan.active is None else plan.active
    active, isolated = _padded(first.nonzero().flatten()), _padded((~first).nonzero().flatten())
    order = torch.cat([active, isolated])
    filled = (order >= 0).nonzero().flatten()
    place = torch.empty(hidden, dtype=torch.long).index_copy_(0, order[filled], filled)
    return Layout(order, len(active), place, torch.equal(order, torch.arange(hidden)))


def _padded(units: Tensor) -> Tensor:
    empty = -len(units) % LANES
    return torch.cat([units, torch.full((empty,), -1)])
