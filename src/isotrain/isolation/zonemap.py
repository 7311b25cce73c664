"""The zone map: which weight of which parameter belongs to which zone, and what each zone weighs.

A zone map numbers its zones from 0 and keeps, for each parameter, the zone number of each weight in a tensor
that broadcasts to the parameter's shape. That one representation serves every kind: expanding a choice of
zones over a parameter is an index, and reducing over a zone is a sum by number, of equal size or not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from isotrain.isolation.layers import Layer


@dataclass(frozen=True, eq=False)
class ZoneMap:
    """``count`` zones of one ``kind``: a value, which knows names, shapes and numbers but holds no weights.

    Attributes:
        name: the layer that is divided ("lstm.l0"), "layers", "time" or "credit".
        zone: for each parameter, by its dotted name, the zone number of each weight; broadcasts to its shape. A
            parameter that is not here belongs to no zone and stays active.
        depth: for each zone the position in order of depth; 0 is nearest the input, or oldest.
        covered: the layers covered, from the input upwards, with what the axes of their parameters mean.
    """

    name: str
    kind: str
    count: int
    zone: Mapping[str, Int[Tensor, "..."]]
    depth: Int[Tensor, " zones"]
    covered: tuple[Layer, ...]

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """The shape of each parameter that has zones."""
        parts = {name: part for layer in self.covered for name, part in layer.parts.items()}
        return {name: torch.Size(parts[name].shape) for name in self.zone}

    @property
    def layers(self) -> tuple[tuple[str, int], ...]:
        """The layers covered, as (module's dotted name, index within it)."""
        return tuple((layer.module, layer.index) for layer in self.covered)

    def numbers(self) -> Int[Tensor, " weights"]:
        """The zone of every weight, in the order of :meth:`gather`."""
        return self.gather(self.zone)

    def gather(self, tensors: Mapping[str, Shaped[Tensor, "..."]]) -> Shaped[Tensor, " weights"]:
        """One vector of what belongs to each weight (weights, gradients, moments), parameter after parameter."""
        return torch.cat([tensors[name].broadcast_to(shape).reshape(-1) for name, shape in self.shapes.items()])

    def expand(self, active: Bool[Tensor, " zones"]) -> dict[str, Bool[Tensor, "..."]]:
        """A choice of zones as a boolean tensor a parameter, which broadcasts to the parameter's shape."""
        return {name: active[number] for name, number in self.zone.items()}

    def sizes(self) -> Int[Tensor, " zones"]:
        """Weights a zone. A time step, and a layer's credit, count as one: each stands for a whole mesh."""
        return self._sizes

    @cached_property
    def _sizes(self) -> Int[Tensor, " zones"]:
        if not self.zone:
            return torch.ones_like(self.depth)
        return torch.bincount(self.numbers(), minlength=self.count)

    def cost(self, count: str) -> Float[Tensor, " zones"]:
        """What each zone weighs, in double precision: 1 (``"zones"``), its weights, or its multiply-adds (``"flops"``).

        The multiply-adds are those of one use of each matrix: a bias adds and an embedding looks up, so both count 0.
        The forward pass, the gradient of the input and the gradient of the weights each multiply every weight once, so
        a zone's share is the same in all three. A time step has the same part of its layers' multiply-adds as every
        other.
        """
        if count == "zones":
            return torch.ones(self.count, dtype=torch.double)
        if count == "weights":
            return self.sizes().double()
        flops = torch.zeros(self.count, dtype=torch.double)
        for layer in self.covered:
            for name, part in layer.parts.items():
                if not (layer.multiplies and part.is_matrix):
                    continue
                if not self.zone:
                    flops += torch.Size(part.shape).numel() / self.count
                elif name in self.zone:
                    numbers = self.zone[name].broadcast_to(part.shape).reshape(-1)
                    flops += torch.bincount(numbers, minlength=self.count)
        return flops

    def isolated_weights(self, active: Bool[Tensor, " zones"]) -> int:
        return int(self.sizes()[~active].sum())


class ActiveShares:
    """Of a choice of zones: the share of the weights of each gate of each unit that trains.

    What does not depend on the choice is counted once, when the object is made.

    Args:
        zone_map: of any kind.

    Example:
        >>> from torch import nn
        >>> from isotrain.isolation.zones import zones
        >>> (units,) = zones(nn.LSTM(3, 2), "unit")
        >>> ActiveShares(units)(torch.tensor([False, True]))["l0"].tolist()
        [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]
    """

    def __init__(self, zone_map: ZoneMap) -> None:
        self._map = zone_map
        self._layers = {layer.name: self._count(layer) for layer in zone_map.covered} if zone_map.zone else {}

    def __call__(self, active: Bool[Tensor, " zones"]) -> dict[str, Float[Tensor, "_gates _units"]]:
        """One matrix a layer, in [0, 1].

        A layer without gates is one line of output rows, or of a single cell where nothing has rows. Weights of no
        zone train. Of parameters that do not train themselves (``requires_grad=False``) nothing is counted; a cell
        that has no other is 0. Time steps: one line, the oldest first.
        """
        if not self._map.zone:
            return {self._map.name: active.double()[None]}
        shares = {}
        for layer in self._map.covered:
            cells, zones, weights, always, whole = self._layers[layer.name]
            trained = always.index_add(0, cells, weights * active[zones])
            shares[layer.name] = (trained / whole).reshape(len(layer.gates), layer.units)
        return shares

    def _count(self, layer: Layer) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Cell, zone and weights of every pair that has any; then of each cell the weights of no zone, and all."""
        always = torch.zeros(layer.height, dtype=torch.double)
        pairs = [torch.zeros(0, dtype=torch.long)]
        for name, cells in layer.cells().items():
            shape = layer.parts[name].shape
            cell = cells.broadcast_to(shape).reshape(-1)
            if name in self._map.zone:
                pairs.append(cell * self._map.count + self._map.zone[name].broadcast_to(shape).reshape(-1))
            else:
                always += torch.bincount(cell, minlength=layer.height)
        pair, weights = torch.unique(torch.cat(pairs), return_counts=True)
        cells, zones, weights = pair // self._map.count, pair % self._map.count, weights.double()
        return cells, zones, weights, always, always.index_add(0, cells, weights).clamp(min=1)
