"""Zones: the arcs that are isolated together, and which arc of which parameter belongs to which zone.

A zone map numbers its zones from 0 and keeps, for each parameter, the zone number of each arc in a tensor
that broadcasts to the parameter's shape. That one representation serves every kind: expanding a choice of
zones over a parameter is an index, and reducing over a zone is a sum by number, of equal size or not.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor, nn

from isotrain.errors import InputError


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer: one RNN layer (``index`` within its module), or a module that owns its parameters directly."""

    module: str
    index: int
    parameters: Mapping[str, Tensor]

    def __str__(self) -> str:
        return f"{self.module}.l{self.index}".lstrip(".")


@dataclass(frozen=True, eq=False)
class ZoneMap:
    """``count`` zones of one ``kind``: a value, which knows names, shapes and numbers but holds no weights.

    Attributes:
        name: the layer that is divided ("lstm.l0"), "layers", or "time".
        zone: for each parameter, by its dotted name, the zone number of each arc; broadcasts to its shape.
        shapes: the shape of each of these parameters.
        layers: the layers covered, from the input upwards, as (module's dotted name, index within it).
        depth: for each zone the position in order of depth; 0 is nearest the input, or oldest.
    """

    name: str
    kind: str
    count: int
    zone: Mapping[str, Int[Tensor, "..."]]
    shapes: Mapping[str, torch.Size]
    layers: tuple[tuple[str, int], ...]
    depth: Int[Tensor, " zones"]

    def numbers(self) -> Int[Tensor, " arcs"]:
        """The zone of every arc, in the order of :meth:`gather`."""
        return self.gather(self.zone)

    def gather(self, tensors: Mapping[str, Shaped[Tensor, "..."]]) -> Shaped[Tensor, " arcs"]:
        """One vector of what belongs to each arc (weights, gradients, moments), parameter after parameter."""
        return torch.cat([tensors[name].broadcast_to(shape).reshape(-1) for name, shape in self.shapes.items()])

    def scatter(self, arcs: Shaped[Tensor, " arcs"]) -> dict[str, Shaped[Tensor, "..."]]:
        """The inverse of :meth:`gather`: one tensor a parameter, in its shape."""
        parts = torch.split(arcs, [shape.numel() for shape in self.shapes.values()])
        return {name: part.reshape(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def expand(self, active: Bool[Tensor, " zones"]) -> dict[str, Bool[Tensor, "..."]]:
        """A choice of zones as a boolean tensor a parameter, which broadcasts to the parameter's shape."""
        return {name: active[number] for name, number in self.zone.items()}

    def sizes(self) -> Int[Tensor, " zones"]:
        """Arcs a zone. A time step counts as one: each stands for the whole mesh, unfolded once."""
        if not self.zone:
            return torch.ones_like(self.depth)
        return torch.bincount(self.numbers(), minlength=self.count)

    def isolated_arcs(self, active: Bool[Tensor, " zones"]) -> int:
        return int(self.sizes()[~active].sum())

    def share(self, active: Bool[Tensor, " zones"]) -> float:
        """The share of the arcs that ``active`` leaves out."""
        return self.isolated_arcs(active) / int(self.sizes().sum())

    def __str__(self) -> str:
        low, high = self.sizes().aminmax()
        each = f"{int(low)}" if low == high else f"{int(low)} to {int(high)}"
        return f"{self.name}: {self.count} zones of kind {self.kind}, {each} arcs each"


def zones(
    module: nn.Module, kind: str, *, modules: Sequence[str] | None = None, window: int | None = None
) -> list[ZoneMap]:
    """The zones of one kind in a module tree: a map a layer for arc, gate and unit, a single map otherwise.

    Args:
        module: where to look; parameters are named as in its ``named_parameters()``.
        kind: ``"arc"``: one weight. ``"gate"``: one gate of one hidden unit, a row of ``weight_ih``,
            ``weight_hh`` and the biases (4H zones a layer). ``"unit"``: a hidden unit, its four gate rows (H
            zones a layer). ``"layer"``: a layer. ``"step"``: a time step of the window, without parameters.
        modules: dotted names of the submodules to divide; None: every ``nn.LSTM``. For ``"layer"`` any module
            that owns parameters may be named.
        window: the number of time steps, for ``"step"``.

    Raises:
        InputError: an unknown kind or module, or nothing there that can be divided so.
    """
    if kind not in KINDS:
        raise InputError(f"zone={kind!r} is unknown; choose one of {', '.join(KINDS)}")
    layers = [layer for name, part in chosen_modules(module, modules).items() for layer in _layers(name, part, kind)]
    if kind == "step":
        return [_time(window, layers)]
    if kind == "layer":
        return [_whole_layers(layers)]
    return [_within(layer, kind, depth) for depth, layer in enumerate(layers)]


def chosen_modules(module: nn.Module, modules: Sequence[str] | None) -> dict[str, nn.Module]:
    """The submodules named, or every LSTM. Raises InputError where there is none."""
    if modules is None:
        found: dict[str, nn.Module] = {name: part for name, part in module.named_modules() if isinstance(part, nn.LSTM)}
        if not found:
            raise InputError(f"{type(module).__name__} has no nn.LSTM; name the modules to isolate in")
        return found
    known = dict(module.named_modules())
    for name in modules:
        if name not in known:
            raise InputError(f"modules: {type(module).__name__} has no submodule {name!r}; it has {', '.join(known)}")
    return {name: known[name] for name in modules}


def _layers(name: str, part: nn.Module, kind: str) -> Iterable[Layer]:
    prefix = f"{name}." if name else ""
    own = dict(part.named_parameters(recurse=False))
    if isinstance(part, nn.LSTM):
        if part.bidirectional or part.proj_size:
            raise InputError(f"{name or 'the module'}: bidirectional and projected LSTMs have no zones yet")
        for k in range(part.num_layers):
            yield Layer(name, k, {prefix + key: p for key, p in own.items() if key.endswith(f"_l{k}")})
    elif kind == "layer" and own:
        yield Layer(name, 0, {prefix + key: p for key, p in own.items()})
    else:
        raise InputError(
            f"{name or 'the module'} ({type(part).__name__}) has no zones of kind {kind!r}; name an nn.LSTM"
        )


def _rows(layer: Layer, zone_of_row: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """The same zone for a whole row, across matrices (4H, inputs) and biases (4H,)."""
    numbers = {}
    for name, p in layer.parameters.items():
        row = torch.arange(p.shape[0])
        numbers[name] = zone_of_row(row).reshape(-1, *[1] * (p.dim() - 1))
    return numbers


def _arc(layer: Layer) -> dict[str, Tensor]:
    first, numbers = 0, {}
    for name, p in layer.parameters.items():
        numbers[name] = torch.arange(first, first + p.numel()).reshape(p.shape)
        first += p.numel()
    return numbers


def _gate(layer: Layer) -> dict[str, Tensor]:
    return _rows(layer, lambda row: row)


def _unit(layer: Layer) -> dict[str, Tensor]:
    hidden = next(iter(layer.parameters.values())).shape[0] // 4  # rows stand as i, f, g, o, each of H units
    return _rows(layer, lambda row: row % hidden)


_WITHIN: dict[str, Callable[[Layer], dict[str, Tensor]]] = {"arc": _arc, "gate": _gate, "unit": _unit}
KINDS = (*_WITHIN, "layer", "step")


def _within(layer: Layer, kind: str, depth: int) -> ZoneMap:
    zone = _WITHIN[kind](layer)
    count = 1 + max(int(numbers.max()) for numbers in zone.values())
    shapes = {name: p.shape for name, p in layer.parameters.items()}
    return ZoneMap(str(layer), kind, count, zone, shapes, _names([layer]), torch.full((count,), depth))


def _whole_layers(layers: Sequence[Layer]) -> ZoneMap:
    zone = {name: torch.tensor(depth) for depth, layer in enumerate(layers) for name, p in layer.parameters.items()}
    shapes = {name: p.shape for layer in layers for name, p in layer.parameters.items()}
    return ZoneMap("layers", "layer", len(layers), zone, shapes, _names(layers), torch.arange(len(layers)))


def _time(window: int | None, layers: Sequence[Layer]) -> ZoneMap:
    if window is None or window < 1:
        raise InputError(f"zone='step' needs window=, the number of time steps of a window; got {window}")
    return ZoneMap("time", "step", window, {}, {}, _names(layers), torch.arange(window))


def _names(layers: Iterable[Layer]) -> tuple[tuple[str, int], ...]:
    return tuple((layer.module, layer.index) for layer in layers)
