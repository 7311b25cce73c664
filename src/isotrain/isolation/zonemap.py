"""The zone map: which arc of which parameter belongs to which zone, and what each zone weighs.

A zone map numbers its zones from 0 and keeps, for each parameter, the zone number of each arc in a tensor
that broadcasts to the parameter's shape. That one representation serves every kind: expanding a choice of
zones over a parameter is an index, and reducing over a zone is a sum by number, of equal size or not.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from isotrain.errors import InputError
from isotrain.isolation.layers import Layer

COUNTS = ("zones", "arcs", "flops")


@dataclass(frozen=True)
class Totals:
    """Of the whole network: its arcs, its multiply-adds a sample, and whether the uses of each matrix are measured."""

    arcs: int
    flops: int
    measured: bool


@dataclass(frozen=True, eq=False)
class ZoneMap:
    """``count`` zones of one ``kind``: a value, which knows names, shapes and numbers but holds no weights.

    Attributes:
        name: the layer that is divided ("lstm.l0"), "layers", or "time".
        zone: for each parameter, by its dotted name, the zone number of each arc; broadcasts to its shape. A
            parameter that is not here belongs to no zone and stays active.
        depth: for each zone the position in order of depth; 0 is nearest the input, or oldest.
        covered: the layers covered, from the input upwards, with what the axes of their parameters mean.
        network: totals of the network that these layers are part of.
    """

    name: str
    kind: str
    count: int
    zone: Mapping[str, Int[Tensor, "..."]]
    depth: Int[Tensor, " zones"]
    covered: tuple[Layer, ...]
    network: Totals

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """The shape of each parameter that has zones."""
        parts = {name: part for layer in self.covered for name, part in layer.parts.items()}
        return {name: torch.Size(parts[name].shape) for name in self.zone}

    @property
    def layers(self) -> tuple[tuple[str, int], ...]:
        """The layers covered, as (module's dotted name, index within it)."""
        return tuple((layer.module, layer.index) for layer in self.covered)

    @property
    def gates(self) -> dict[str, tuple[str, ...]]:
        """The names of the rows of each picture of :meth:`heat`."""
        return {layer.name: layer.gates for layer in self.covered} if self.zone else {self.name: ("step",)}

    def numbers(self) -> Int[Tensor, " arcs"]:
        """The zone of every arc, in the order of :meth:`gather`."""
        return self.gather(self.zone)

    def gather(self, tensors: Mapping[str, Shaped[Tensor, "..."]]) -> Shaped[Tensor, " arcs"]:
        """One vector of what belongs to each arc (weights, gradients, moments), parameter after parameter."""
        return torch.cat([tensors[name].broadcast_to(shape).reshape(-1) for name, shape in self.shapes.items()])

    def scatter(self, arcs: Shaped[Tensor, " arcs"]) -> dict[str, Shaped[Tensor, "..."]]:
        """The inverse of :meth:`gather`: one tensor a parameter, in its shape."""
        shapes = self.shapes
        parts = torch.split(arcs, [shape.numel() for shape in shapes.values()])
        return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}

    def expand(self, active: Bool[Tensor, " zones"]) -> dict[str, Bool[Tensor, "..."]]:
        """A choice of zones as a boolean tensor a parameter, which broadcasts to the parameter's shape."""
        return {name: active[number] for name, number in self.zone.items()}

    def sizes(self) -> Int[Tensor, " zones"]:
        """Arcs a zone. A time step counts as one: each stands for the whole mesh, unfolded once."""
        return self._sizes

    @cached_property
    def _sizes(self) -> Int[Tensor, " zones"]:
        if not self.zone:
            return torch.ones_like(self.depth)
        return torch.bincount(self.numbers(), minlength=self.count)

    def cost(self, count: str) -> Float[Tensor, " zones"]:
        """What each zone weighs, in double precision: 1 (``"zones"``), its arcs, or its multiply-adds (``"flops"``).

        The multiply-adds are those of a sample: arcs in matrices times the uses of the matrix; a bias adds and an
        embedding looks up, so both count 0. The forward pass, the gradient of the input and the gradient of the
        weights each multiply every arc once, so a zone's share is the same in all three. A time step has the same
        part of its layers' multiply-adds as every other.

        Raises:
            InputError: ``count`` is none of the three.
        """
        if count not in COUNTS:
            raise InputError(f"count={count!r} is unknown; choose one of {', '.join(COUNTS)}")
        if count == "zones":
            return torch.ones(self.count, dtype=torch.double)
        if count == "arcs":
            return self.sizes().double()
        flops = torch.zeros(self.count, dtype=torch.double)
        for layer in self.covered:
            for name, part in layer.parts.items():
                if part.is_matrix and not self.zone:
                    flops += layer.uses * torch.Size(part.shape).numel() / self.count
                elif part.is_matrix and name in self.zone:
                    numbers = self.zone[name].broadcast_to(part.shape).reshape(-1)
                    flops += layer.uses * torch.bincount(numbers, minlength=self.count)
        return flops

    def isolated_arcs(self, active: Bool[Tensor, " zones"]) -> int:
        return int(self.sizes()[~active].sum())

    def share(self, active: Bool[Tensor, " zones"]) -> float:
        """The share of the arcs of these zones that ``active`` leaves out."""
        return self.isolated_arcs(active) / int(self.sizes().sum())

    def heat(self, active: Bool[Tensor, " zones"]) -> dict[str, Float[Tensor, "_gates _units"]]:
        """A picture a layer: the share of the arcs of each gate of each unit that trains, in [0, 1].

        A layer without gates is one line of output rows, or of a single cell where nothing has rows. Arcs of no zone
        train. Of parameters that do not train themselves (``requires_grad=False``) nothing is counted; a cell that
        has no other is 0. Time steps: one line, the oldest first.
        """
        return self.camera()(active)

    def camera(self) -> "Camera":
        """:meth:`heat` for many choices: what does not depend on the choice is worked out once."""
        return Camera(self)

    def describe(self, active: Bool[Tensor, " zones"]) -> str:
        """In words: how much ``active`` isolates."""
        gone = ~active
        return f"{self.name}: {int(gone.sum())} of {self._zones} isolated: {self._shares(gone)}"

    def __str__(self) -> str:
        low, high = (int(size) for size in self.sizes().aminmax())
        arcs = f"{low} to {high} arcs" if low < high else "1 arc" if low == 1 else f"{low} arcs"
        each = f", {arcs} each" if self.zone else ""
        return f"{self.name}: {self._zones}{each}: {self._shares(torch.ones_like(self.depth, dtype=torch.bool))}"

    @property
    def _zones(self) -> str:
        return f"{self.count} {'zone' if self.count == 1 else 'zones'} of kind {self.kind}"

    def _shares(self, which: Bool[Tensor, " zones"]) -> str:
        flops = float(self.cost("flops")[which].sum()) / max(1, self.network.flops)
        text = f"{100 * flops:.1f} % of the multiply-adds"
        if self.zone:
            arcs = float(self.cost("arcs")[which].sum()) / self.network.arcs
            text = f"{100 * arcs:.1f} % of the arcs, {text}"
        text += " of the network"
        return text if self.network.measured else f"{text} (every matrix counted as used once)"

    def state(self) -> dict[str, Any]:
        """The map in plain types and tensors, which ``torch.load(..., weights_only=True)`` accepts."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        covered = [asdict(layer) for layer in self.covered]
        return {**own, "zone": dict(self.zone), "covered": covered, "network": asdict(self.network)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "ZoneMap":
        """The map that ``state()`` came from."""
        covered = tuple(Layer.from_state(layer) for layer in state["covered"])
        return cls(**{**state, "covered": covered, "network": Totals(**state["network"])})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ZoneMap) and _same(self.state(), other.state())

    __hash__ = None  # type: ignore[assignment]  # equal by content, and tensors have no hash by content


class Camera:
    """Takes the pictures of :meth:`ZoneMap.heat`: how many arcs of each zone lie in each cell is counted once."""

    def __init__(self, zone_map: ZoneMap) -> None:
        self._map = zone_map
        self._layers = {layer.name: self._count(layer) for layer in zone_map.covered} if zone_map.zone else {}

    def __call__(self, active: Bool[Tensor, " zones"]) -> dict[str, Float[Tensor, "_gates _units"]]:
        """The picture of a choice, a layer; see :meth:`ZoneMap.heat`."""
        if not self._map.zone:
            return {self._map.name: active.double()[None]}
        pictures = {}
        for layer in self._map.covered:
            cells, zones, arcs, always, whole = self._layers[layer.name]
            lit = always.index_add(0, cells, arcs * active[zones])
            pictures[layer.name] = (lit / whole).reshape(len(layer.gates), layer.units)
        return pictures

    def _count(self, layer: Layer) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Cell, zone and arcs of every pair that has any; then of each cell the arcs of no zone, and all its arcs."""
        always = torch.zeros(layer.height, dtype=torch.double)
        pairs = [torch.zeros(0, dtype=torch.long)]
        for name, cells in layer.cells().items():
            shape = layer.parts[name].shape
            cell = cells.broadcast_to(shape).reshape(-1)
            if name in self._map.zone:
                pairs.append(cell * self._map.count + self._map.zone[name].broadcast_to(shape).reshape(-1))
            else:
                always += torch.bincount(cell, minlength=layer.height)
        pair, arcs = torch.unique(torch.cat(pairs), return_counts=True)
        cells, zones, arcs = pair // self._map.count, pair % self._map.count, arcs.double()
        return cells, zones, arcs, always, always.index_add(0, cells, arcs).clamp(min=1)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(_same(a[key], b[key]) for key in a)
    return bool(a == b)
