"""What a criterion sees of one zone map: its arcs laid out as vectors, and a memory of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from isotrain.errors import InputError
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
        known: the zones whose gradient was really computed; elsewhere its zeros are no observation. None: all.
        memory: belongs to this zone map alone; a criterion may keep tensors in it from one look to the next,
            and they are saved with the run.
        max_exp_avg_sq: the largest v so far of each arc, if Adam divides by that (``amsgrad``).
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
    known: Bool[Tensor, " zones"] | None = None
    memory: dict[str, Tensor] = field(default_factory=dict)
    max_exp_avg_sq: Float[Tensor, " arcs"] | None = None

    def sum(self, arcs: Float[Tensor, " arcs"]) -> Float[Tensor, " zones"]:
        """The sum over each zone, in double precision."""
        return self.zeros().index_add_(0, self.zone, arcs.double())

    def mean(self, arcs: Float[Tensor, " arcs"]) -> Float[Tensor, " zones"]:
        """The mean over each zone: comparable between zones of unequal size. Summed in double precision."""
        return self.sum(arcs) / torch.bincount(self.zone, minlength=len(self.depth))

    def zeros(self) -> Float[Tensor, " zones"]:
        """A zero for each zone, in double precision and on the device of the weights."""
        return torch.zeros(len(self.depth), dtype=torch.double, device=self.weight.device)


Criterion = Callable[[ZoneView], Float[Tensor, " zones"]]


def needs(*, moments: bool = False, remembers: bool = False) -> Callable[[Criterion], Criterion]:
    """Write on a criterion what its caller must provide.

    Args:
        moments: an optimiser that keeps Adam's moments.
        remembers: a call at every look, also while nothing is isolated, and the same ``memory`` each time.
    """

    def mark(criterion: Criterion) -> Criterion:
        criterion.__dict__.update(moments=moments, remembers=remembers)
        return criterion

    return mark


def view_of(
    zone_map: ZoneMap,
    parameters: Mapping[str, Tensor],
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
    known: Bool[Tensor, " zones"] | None = None,
    memory: dict[str, Tensor] | None = None,
) -> ZoneView:
    """The view of a zone map, given the parameters by name and the optimiser that trains them.

    Args:
        zone_map: of any kind that has arcs.
        parameters: all that ``zone_map`` names, perhaps more.
        optimiser: any; moments that it does not keep are zero.
        generator, known, memory: as in :class:`ZoneView`. What is in ``memory`` is moved to the device of the weights.

    Raises:
        InputError: the optimiser does not train these parameters.
    """
    chosen = {name: parameters[name] for name in zone_map.shapes}
    states: dict[str, dict[str, Any]] = {name: optimiser.state.get(p, {}) for name, p in chosen.items()}
    device = next(iter(chosen.values())).device
    memory = {} if memory is None else memory
    memory.update({name: kept.to(device) for name, kept in memory.items()})

    def gather(key: str) -> Tensor:
        return zone_map.gather({name: state.get(key, torch.zeros_like(chosen[name])) for name, state in states.items()})

    def updates(name: str) -> Tensor:  # single precision whatever the weights': bfloat16 cannot count to 257
        count = states[name].get("updates", states[name].get("step", 0))
        return torch.as_tensor(count, device=device).float()

    settings = _settings(zone_map, next(iter(chosen.values())), optimiser)
    return ZoneView(
        zone=zone_map.numbers().to(device),
        depth=zone_map.depth.to(device),
        weight=zone_map.gather({name: p.detach() for name, p in chosen.items()}),
        grad=zone_map.gather({name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in chosen.items()}),
        exp_avg=gather("exp_avg"),
        exp_avg_sq=gather("exp_avg_sq"),
        updates=zone_map.gather({name: updates(name) for name in chosen}),
        betas=settings.get("betas", (0.0, 0.0)),
        eps=settings.get("eps", 0.0),
        generator=generator,
        known=None if known is None else known.to(device),
        memory=memory,
        max_exp_avg_sq=gather("max_exp_avg_sq") if settings.get("amsgrad", False) else None,
    )


def _settings(zone_map: ZoneMap, parameter: Tensor, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    for group in optimiser.param_groups:
        if any(p is parameter for p in group["params"]):
            return group
    raise InputError(
        f"zones {zone_map.name!r}: {type(optimiser).__name__} does not train them; give it their parameters, "
        "or name other modules"
    )
