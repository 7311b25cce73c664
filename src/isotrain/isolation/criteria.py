"""Criteria: one score a zone. The zones of LOWEST score are isolated first.

A criterion is a function of a :class:`ZoneView`, which lays out the arcs of one zone map as vectors, so that
the arithmetic is written a weight at a time and then reduced by zone: ``view.mean(view.weight.abs())``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from isotrain.isolation.zones import ZoneMap


@dataclass(frozen=True, eq=False)
class ZoneView:
    """What a criterion sees of one zone map.

    Attributes:
        zone: the zone number of each arc.
        depth: the position of each zone in order of depth, 0 nearest the input.
        weight, grad, exp_avg, exp_avg_sq: of each arc. The gradient is that of the coming step, *before* any
            clipping; the moments m and v are those after the last step. Zero where there is none yet.
        updates: the t of Adam's bias correction of each arc.
        betas, eps: Adam's settings for these arcs.
        generator: for criteria that draw lots; saved with the run.
    """

    zone: Int[Tensor, " arcs"]
    depth: Int[Tensor, " zones"]
    weight: Float[Tensor, " arcs"]
    grad: Float[Tensor, " arcs"]
    exp_avg: Float[Tensor, " arcs"]
    exp_avg_sq: Float[Tensor, " arcs"]
    updates: Float[Tensor, " arcs"]
    betas: tuple[float, float]
    eps: float
    generator: torch.Generator

    def mean(self, arcs: Float[Tensor, " arcs"]) -> Float[Tensor, " zones"]:
        """The mean over each zone: comparable between zones of unequal size. Summed in double precision."""
        total = torch.zeros(len(self.depth), dtype=torch.double, device=arcs.device)
        total.index_add_(0, self.zone, arcs.double())
        return total / torch.bincount(self.zone, minlength=len(self.depth))


Criterion = Callable[[ZoneView], Float[Tensor, " zones"]]


def view_of(
    zone_map: ZoneMap,
    parameters: Mapping[str, Tensor],
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
) -> ZoneView:
    """The view of a zone map, given the parameters by name and the Adam that trains them."""
    chosen = {name: parameters[name] for name in zone_map.shapes}
    states: dict[str, dict[str, Any]] = {name: optimiser.state.get(p, {}) for name, p in chosen.items()}

    def gather(key: str) -> Tensor:
        return zone_map.gather({name: state.get(key, torch.zeros_like(chosen[name])) for name, state in states.items()})

    def updates(name: str) -> Tensor:
        count = states[name].get("updates", states[name].get("step", 0))
        return torch.as_tensor(count, device=chosen[name].device).to(chosen[name].dtype)

    first = next(iter(chosen.values()))
    settings = next(group for group in optimiser.param_groups if any(p is first for p in group["params"]))
    return ZoneView(
        zone=zone_map.numbers().to(first.device),
        depth=zone_map.depth.to(first.device),
        weight=zone_map.gather({name: p.detach() for name, p in chosen.items()}),
        grad=zone_map.gather({name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in chosen.items()}),
        exp_avg=gather("exp_avg"),
        exp_avg_sq=gather("exp_avg_sq"),
        updates=zone_map.gather({name: updates(name) for name in chosen}),
        betas=settings.get("betas", (0.0, 0.0)),
        eps=settings.get("eps", 0.0),
        generator=generator,
    )


def random(view: ZoneView) -> Float[Tensor, " zones"]:
    """Lots, drawn anew at each selection: the control that every other criterion has to beat."""
    return torch.rand(len(view.depth), generator=view.generator).to(view.depth.device)


def update_norm(view: ZoneView) -> Float[Tensor, " zones"]:
    """Root mean square of Adam's own update m_hat / (sqrt(v_hat) + eps), learning rate left out.

    Kingma and Ba, arXiv 1412.6980, last line of algorithm 1: how far the last step moved the weights. A
    weight that was never updated has m = 0 and scores 0.
    """
    beta1, beta2 = view.betas
    t = view.updates.clamp(min=1).double()
    m_hat = view.exp_avg / (1 - beta1**t)
    v_hat = view.exp_avg_sq / (1 - beta2**t)
    return view.mean((m_hat / (v_hat.sqrt() + view.eps)).square()).sqrt()


def depth(view: ZoneView) -> Float[Tensor, " zones"]:
    """FreezeOut's order (Brock et al., arXiv 1706.04983, section 2): the layers nearest the input go first.

    With ``scope="local"`` and zones smaller than a layer all the zones of a map tie: it is meant for layers,
    or for ``scope="global"``.
    """
    return view.depth.double()


CRITERIA: dict[str, Criterion] = {"random": random, "update_norm": update_norm, "depth": depth}
