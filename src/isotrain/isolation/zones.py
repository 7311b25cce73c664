"""Zones: the weights that are isolated together, for every kind of zone, in any network.

What the axes of a layer's parameters mean stands in :mod:`.layers`; a kind of zone is a short function from that to
zone numbers, which are kept in a :class:`.zonemap.ZoneMap`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from isotrain.errors import InputError
from isotrain.isolation.layers import Layer, Part, layers_of, meaning_of
from isotrain.isolation.settings import Policy, check
from isotrain.isolation.zonemap import ZoneMap

_NAMES_SHOWN = 10


def chosen_modules(module: nn.Module, modules: Sequence[str] | None, kind: str = "layer") -> dict[str, nn.Module]:
    """The submodules to divide into zones of one kind, by their dotted names, from the input upwards.

    Args:
        module: the network.
        modules: dotted names, or patterns ("encoder.*", as :mod:`fnmatch` reads them, ``*`` matching dots too). A
            name must have zones of that kind; a pattern takes those that have from among all that it matches. None:
            every recurrent module, or, in a network without any, every module that has zones of that kind.
        kind: by default "layer", which every module that owns parameters has.

    Raises:
        InputError: a name or a pattern that matches nothing, nothing that can be divided so, a module whose weights
            are computed from other parameters.
    """
    known = dict(module.named_modules())
    if isinstance(modules, str) or (modules is not None and not modules):
        raise InputError(f"modules={modules!r}: give a list of names or patterns, or None")
    if modules is None:
        recurrent = [name for name, part in known.items() if isinstance(part, nn.RNNBase)]
        chosen = recurrent or [name for name, part in known.items() if kind in kinds_of(part)]
        if not chosen:
            raise InputError(
                f"{type(module).__name__} has no recurrent module and no other with zones of kind {kind!r}; "
                f"its modules have {_kinds(known.values())}"
            )
    else:
        asked = {name for word in modules for name in _matches(module, known, word, kind)}
        chosen = [name for name in known if name in asked]
    for name in chosen:
        _refuse(name, known[name], kind)
    return {name: known[name] for name in chosen}


def kinds_of(module: nn.Module) -> tuple[str, ...]:
    """The kinds of zone of a module; none if it owns no parameters."""
    owns = computes_weights(module) or any(True for _ in module.parameters(recurse=False))
    return meaning_of(module).kinds if owns else ()


def computes_weights(module: nn.Module) -> bool:
    """Whether a parametrisation, a weight or spectral norm or a pruning makes its weights from other parameters."""
    hooks = module._forward_pre_hooks.values()
    return (
        is_parametrized(module)
        or isinstance(module, ParametrizationList)
        or any(isinstance(hook, (WeightNorm, SpectralNorm, BasePruningMethod)) for hook in hooks)
    )


def refuse_uninitialised(module: nn.Module) -> None:
    for name, p in module.named_parameters():
        if is_lazy(p):
            raise InputError(f"{name} is not initialised yet: run the network once on a batch, then ask for its zones")


def refuse_shared(module: nn.Module, layers: Iterable[Layer]) -> None:
    """Refuse a parameter that several modules own: isolated for one, it would be isolated for the others too."""
    owned = {name for layer in layers for name in layer.parts}
    first: dict[int, str] = {}
    places: list[tuple[str, str]] = []
    for prefix, part in module.named_modules():
        for key, p in part.named_parameters(prefix, recurse=False, remove_duplicate=False):
            if id(p) in first:
                places.append((key, first[id(p)]))
            first.setdefault(id(p), key)
    for again, before in places:
        if again in owned or before in owned:
            raise InputError(
                f"{again} is {before}, one tensor at two places of the network: isolate neither (name other modules), "
                "or untie them"
            )


def _matches(module: nn.Module, known: Mapping[str, nn.Module], word: str, kind: str) -> list[str]:
    if word in known:
        return [word]
    matching = [name for name in known if fnmatchcase(name, word)]
    if not matching:
        names = [name for name, part in known.items() if name and kinds_of(part)]
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        raise InputError(
            f"modules: {type(module).__name__} has no submodule {word!r}; "
            f"it has {', '.join(names[:_NAMES_SHOWN]) or 'none with parameters'}{more}"
        )
    able = [name for name in matching if kind in kinds_of(known[name])]
    if not able:
        raise InputError(
            f"modules: nothing that {word!r} matches has zones of kind {kind!r}; "
            f"there is {_kinds(known[name] for name in matching)}"
        )
    return able


def _refuse(name: str, part: nn.Module, kind: str) -> None:
    label = f"{name or 'the module'} ({type(part).__name__})"
    if computes_weights(part):
        raise InputError(
            f"{label} computes its weights from other parameters (a parametrisation, a norm or a pruning): an isolated "
            "part of those would not keep the weights; remove it, or name other modules"
        )
    kinds = kinds_of(part)
    if not kinds:
        inside = f"{name}.*" if name else "*"
        raise InputError(f"{label} owns no parameters itself; name what is in it, for instance {inside!r}")
    if kind not in kinds:
        raise InputError(f"{label} has no zones of kind {kind!r}; it has {', '.join(kinds)}")


def _kinds(parts: Iterable[nn.Module]) -> str:
    found = {kind: None for part in parts for kind in kinds_of(part)}
    return ", ".join(found) or "none: they own no parameters"


Numbers = dict[str, Int[Tensor, "..."]]  # parameter -> the zone of each weight
Size = tuple[int, int]  # rows and columns of a block


def zones(
    module: nn.Module,
    kind: str,
    *,
    modules: Sequence[str] | None = None,
    window: int | None = None,
    tile: Size = (16, 16),
) -> list[ZoneMap]:
    """The zones of one kind in a network: a map a layer, from the input upwards; a single map for layer, step, credit.

    Args:
        module: the network; parameters are named as in its ``named_parameters()``.
        kind: one of

            - ``"weight"``: one weight or bias. Every module.
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
            - ``"credit"``: LSTM: the gradient that a step of a layer sends to the step before, without parameters.
        modules: names or patterns of the modules to divide: :func:`chosen_modules`.
        window: the number of time steps, for ``"step"``.
        tile: rows and columns of a tile; of a convolution output and input channels, with all their positions.

    Parameters with ``requires_grad=False`` belong to no zone.

    Raises:
        InputError: an unknown kind or module, nothing there that can be divided so or trains, a parameter that is
            shared or not initialised, a module whose weights are computed from others, a bad window or tile.
    """
    check(Policy, "zone", kind)
    check(Policy, "tile", tile)
    refuse_uninitialised(module)
    chosen = chosen_modules(module, modules, kind)
    layers = [layer for name, part in chosen.items() for layer in layers_of(name, part)]
    if kind == "step":
        return [_time(window, layers)]
    if kind == "credit":
        return [ZoneMap("credit", kind, len(layers), {}, torch.tensor(_depths(layers)), tuple(layers))]
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
        return [ZoneMap("layers", kind, len(layers), zone, torch.tensor(depths), tuple(layers))]
    return [_within(layer, kind, numbers, depth) for (layer, numbers), depth in zip(numbered, depths, strict=True)]


def _weights(layer: Layer, tile: Size) -> Numbers:
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
    "weight": _weights,
    "row": _rows,
    "column": _columns,
    "tile": _tiles,
    "gate": _gates,
    "unit": _units,
    "channel": _rows,
    "kernel": _kernels,
    "layer": _whole,
}


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


def _within(layer: Layer, kind: str, numbers: Numbers, depth: int) -> ZoneMap:
    count = 1 + max(int(number.max()) for number in numbers.values())
    return ZoneMap(layer.name, kind, count, numbers, torch.full((count,), depth), (layer,))


def _time(window: int | None, layers: Sequence[Layer]) -> ZoneMap:
    if window is None or window < 1:
        raise InputError(f"zone='step' needs window=, the number of time steps of a window; got {window}")
    return ZoneMap("time", "step", window, {}, torch.arange(window), tuple(layers))


def _depths(layers: Sequence[Layer]) -> list[int]:
    """The position of each layer from the input upwards; two directions of one layer have the same."""
    places = {place: i for i, place in enumerate(dict.fromkeys((layer.module, layer.index) for layer in layers))}
    return [places[layer.module, layer.index] for layer in layers]
