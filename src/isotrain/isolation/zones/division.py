"""Zones: the arcs that are isolated together, for every kind of zone and every type of layer.

What the axes of a layer's parameters mean is told in :mod:`.layers`; a kind of zone is a short function from that to
zone numbers, which are kept in a :class:`.zonemap.ZoneMap`.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor, nn

from isotrain.errors import InputError
from isotrain.isolation.zones.choosing import chosen_modules, refuse_shared, refuse_uninitialised
from isotrain.isolation.zones.layers import Layer, Part, layers_of, meaning_of, own_parts
from isotrain.isolation.zones.zonemap import Totals, ZoneMap

Numbers = dict[str, Int[Tensor, "..."]]  # parameter -> the zone of each arc
Size = tuple[int, int]  # rows and columns of a block


def zones(
    module: nn.Module,
    kind: str,
    *,
    modules: Sequence[str] | None = None,
    window: int | None = None,
    tile: Size = (16, 16),
    uses: Mapping[str, int] | None = None,
) -> list[ZoneMap]:
    """The zones of one kind in a network: a map a layer, from the input upwards; a single map for layer and step.

    Args:
        module: the network; parameters are named as in its ``named_parameters()``.
        kind: one of

            - ``"arc"``: one weight or bias. Every module.
            - ``"row"``: one row of one matrix, all that flows into one output, with the biases of that matrix. In an
              attention the rows of query, key and value; in an embedding one entry.
            - ``"column"``: one column of one matrix, all that one input feeds. Biases belong to no zone.
            - ``"tile"``: a block of one matrix (those at its edges may be smaller). Biases belong to no zone.
            - ``"gate"``: recurrent: one gate of one unit, its row of W_ih, W_hh and of the biases (i, f, g, o).
            - ``"unit"``: recurrent: a hidden unit, all its gates. Linear: an output neuron, as ``"row"``.
            - ``"channel"``: convolution: an output channel with its bias, as ``"row"``.
            - ``"kernel"``: convolution: one filter from one input to one output channel. Biases belong to no zone.
            - ``"layer"``: a layer: a direction of a recurrent layer, or all that another module owns. Every module.
            - ``"step"``: recurrent: a time step of the window, without parameters.
        modules: names or patterns of the modules to divide: :func:`.choosing.chosen_modules`.
        window: the number of time steps, for ``"step"``.
        tile: rows and columns of a tile; of a convolution output and input channels, with all their positions.
        uses: how many times a sample each module's matrices are used, as :func:`.count_uses` measures it; once
            where it does not say. It weighs the zones and changes none.

    Parameters with ``requires_grad=False`` belong to no zone.

    Raises:
        InputError: an unknown kind or module, nothing there that can be divided so or trains, a parameter that is
            shared or not initialised, a module whose weights are computed from others, a bad window, tile or use.
    """
    if kind not in KINDS:
        raise InputError(f"zone={kind!r} is unknown; choose one of {', '.join(KINDS)}")
    if min(tile) < 1:
        raise InputError(f"tile={tile}: give the rows and columns of a tile, 1 or more")
    refuse_uninitialised(module)
    network = _totals(module, uses)
    chosen = chosen_modules(module, modules, kind)
    layers = [layer for name, part in chosen.items() for layer in layers_of(name, part, (uses or {}).get(name, 1))]
    if kind == "step":
        return [_time(window, layers, network)]
    numbered = [(layer, _number(layer, kind, tile)) for layer in layers]
    for layer, numbers in numbered:
        if not numbers and layer.module in (modules or ()):
            raise InputError(
                f"{layer.name}: every parameter that zones of kind {kind!r} divide has requires_grad=False; "
                "let it train, or do not name it"
            )
    numbered = [(layer, numbers) for layer, numbers in numbered if numbers]
    if not numbered:
        raise InputError(f"{type(module).__name__}: nothing that zones of kind {kind!r} divide has requires_grad=True")
    layers = [layer for layer, _ in numbered]
    refuse_shared(module, layers)
    depths = _depths(layers)
    if kind == "layer":
        zone = {name: torch.tensor(i) for i, (_, numbers) in enumerate(numbered) for name in numbers}
        return [ZoneMap("layers", kind, len(layers), zone, torch.tensor(depths), tuple(layers), network)]
    return [
        _within(layer, kind, numbers, depth, network) for (layer, numbers), depth in zip(numbered, depths, strict=True)
    ]


def _arcs(layer: Layer, tile: Size) -> Numbers:
    first, numbers = 0, {}
    for name, part in layer.parts.items():
        size = torch.Size(part.shape)
        numbers[name] = torch.arange(first, first + size.numel()).reshape(size)
        first += size.numel()
    return numbers


def _rows(layer: Layer, tile: Size) -> Numbers:
    return {name: part.rows() for name, part in layer.parts.items() if part.axes}


def _gates(layer: Layer, tile: Size) -> Numbers:
    return {name: row % layer.height for name, row in _rows(layer, tile).items()}


def _units(layer: Layer, tile: Size) -> Numbers:
    return {name: row % layer.units for name, row in _rows(layer, tile).items()}


def _columns(layer: Layer, tile: Size) -> Numbers:
    return _blocks(layer, lambda part, rows: (rows // part.groups, 1))  # each group of a convolution has its own inputs


def _kernels(layer: Layer, tile: Size) -> Numbers:
    return _blocks(layer, lambda part, rows: (1, 1))


def _tiles(layer: Layer, tile: Size) -> Numbers:
    return _blocks(layer, lambda part, rows: tile)


def _blocks(layer: Layer, size: Callable[[Part, int], Size]) -> Numbers:
    """Each matrix cut into blocks of ``size(part, its rows)``, numbered from left to right, then downwards."""
    first, numbers = 0, {}
    for name, part in layer.parts.items():
        if part.axes is not None and part.axes.columns is not None:
            rows, columns = part.along(part.axes.rows), part.along(part.axes.columns)
            high, wide = size(part, rows.numel())
            across = -(-columns.numel() // wide)
            numbers[name] = first + rows // high * across + columns // wide
            first = int(numbers[name].max()) + 1
    return numbers


def _whole(layer: Layer, tile: Size) -> Numbers:
    return {name: torch.tensor(0) for name in layer.parts}


_NUMBERINGS: dict[str, Callable[[Layer, Size], Numbers]] = {
    "arc": _arcs,
    "row": _rows,
    "column": _columns,
    "tile": _tiles,
    "gate": _gates,
    "unit": _units,
    "channel": _rows,
    "kernel": _kernels,
    "layer": _whole,
}
KINDS = (*_NUMBERINGS, "step")


def _number(layer: Layer, kind: str, tile: Size) -> Numbers:
    """The zones of a layer, without gaps where parameters that do not train have left some."""
    numbers = _NUMBERINGS[kind](layer, tile)
    if not numbers:
        return {}
    present = torch.zeros(1 + max(int(number.max()) for number in numbers.values()), dtype=torch.long)
    for number in numbers.values():
        present[number] = 1
    dense = present.cumsum(0) - 1
    return {name: dense[number] for name, number in numbers.items()}


def _within(layer: Layer, kind: str, numbers: Numbers, depth: int, network: Totals) -> ZoneMap:
    count = 1 + max(int(number.max()) for number in numbers.values())
    return ZoneMap(layer.name, kind, count, numbers, torch.full((count,), depth), (layer,), network)


def _time(window: int | None, layers: Sequence[Layer], network: Totals) -> ZoneMap:
    if window is None or window < 1:
        raise InputError(f"zone='step' needs window=, the number of time steps of a window; got {window}")
    return ZoneMap("time", "step", window, {}, torch.arange(window), tuple(layers), network)


def _depths(layers: Sequence[Layer]) -> list[int]:
    """The position of each layer from the input upwards; two directions of one layer have the same."""
    places = {place: i for i, place in enumerate(dict.fromkeys((layer.module, layer.index) for layer in layers))}
    return [places[layer.module, layer.index] for layer in layers]


def _totals(module: nn.Module, uses: Mapping[str, int] | None) -> Totals:
    """Arcs and multiply-adds of the whole network, parameters that do not train included.

    Of the multiply-adds those of the matrices that :data:`.layers.MEANINGS` knows.
    """
    known = dict(module.named_modules())
    for name in uses or {}:
        if name not in known:
            raise InputError(f"uses: {type(module).__name__} has no submodule {name!r}; count them on this network")
    flops = sum(
        (uses or {}).get(name, 1) * p.numel()
        for name, part in known.items()
        if meaning_of(part).multiplies
        for p, described in own_parts(part).values()
        if described.is_matrix
    )
    return Totals(sum(p.numel() for p in module.parameters()), flops, uses is not None)
