"""What the axes of a module's parameters mean: the one table from which every kind of zone is derived.

A *row* of a matrix holds the weights into one output, a *column* those out of one input. The biases of a matrix have
its rows. Whatever else a parameter may be (the gain of a normalisation, a tensor of one's own), it has neither.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor, nn

from isotrain.errors import InputError


@dataclass(frozen=True)
class Axes:
    """Which axis of a parameter counts outputs (``rows``), and which inputs (``columns``; None: a bias).

    The matrices of a layer share one numbering of rows: they stand one below the other, this one at ``place``
    (counted in matrices of its height). A bias has the place of its matrix, and so the rows that it belongs to.
    """

    rows: int = 0
    columns: int | None = 1
    place: int = 0


@dataclass(frozen=True)
class Part:
    """One parameter of a layer: its shape, what its axes mean (None: nothing), and the groups of a convolution."""

    shape: tuple[int, ...]
    axes: Axes | None = None
    groups: int = 1

    @property
    def is_matrix(self) -> bool:
        return self.axes is not None and self.axes.columns is not None

    def along(self, axis: int) -> Int[Tensor, "..."]:
        """The index along one axis; broadcasts to the parameter's shape."""
        return torch.arange(self.shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(self.shape))])

    def rows(self) -> Int[Tensor, "..."]:
        """The row of each weight in the numbering of the whole layer; broadcasts to the parameter's shape."""
        assert self.axes is not None
        return self.axes.place * self.shape[self.axes.rows] + self.along(self.axes.rows)


@dataclass(frozen=True)
class Layer:
    """A layer: one direction of one layer of a recurrent module, or a module that owns its parameters directly.

    Attributes:
        module: dotted name of the module.
        index: of the layer within it.
        name: of the layer: "lstm.l0", "lstm.l0_reverse", "head".
        gates: names of the gates, in torch's order; ("row",) where there are none.
        height: rows of the layer: gates x units, the same rows of W_ih and W_hh being one; 1 where nothing has rows.
        parts: its parameters by dotted name, those alone that train.
        multiplies: False for a table that is looked up in: its weights cost no multiply-adds.
    """

    module: str
    index: int
    name: str
    gates: tuple[str, ...]
    height: int
    parts: Mapping[str, Part]
    multiplies: bool

    @property
    def units(self) -> int:
        return self.height // len(self.gates)

    def cells(self) -> dict[str, Int[Tensor, "..."]]:
        """The row, in 0..height-1, of each weight; parameters without rows are left out unless none has any."""
        numbers = {name: part.rows() % self.height for name, part in self.parts.items() if part.axes}
        return numbers or {name: torch.zeros([], dtype=torch.long) for name in self.parts}


@dataclass(frozen=True)
class Meaning:
    """Of one type of module: the axes of its parameters by name, its kinds of zone, its gates.

    ``multiplies`` is False for a matrix that is looked up in and not multiplied by.
    """

    axes: Mapping[str, Axes] = field(default_factory=dict)
    kinds: tuple[str, ...] = ("weight", "layer")
    gates: tuple[str, ...] = ()
    multiplies: bool = True


_BIAS = Axes(columns=None)
_WEIGHT = {"weight": Axes(), "bias": _BIAS}
_TRANSPOSED = {"weight": Axes(rows=1, columns=0), "bias": _BIAS}
_RECURRENT = {
    "weight_ih": Axes(),
    "weight_hh": Axes(place=1),
    "bias_ih": _BIAS,
    "bias_hh": Axes(columns=None, place=1),
    "weight_hr": Axes(place=2),  # of a projection: counted, but such a module is not divided
}
_ATTENTION = {
    "in_proj_weight": Axes(),  # query, key and value in one, or in three:
    "q_proj_weight": Axes(),
    "k_proj_weight": Axes(place=1),
    "v_proj_weight": Axes(place=2),
    "in_proj_bias": _BIAS,
}
_ANY_MATRIX = ("weight", "row", "column", "tile")
_GATED = (*_ANY_MATRIX, "gate", "unit", "layer", "step")
_CONVOLVED = (*_ANY_MATRIX, "channel", "kernel", "layer")

MEANINGS: dict[type[nn.Module], Meaning] = {
    nn.LSTM: Meaning(_RECURRENT, (*_GATED, "credit"), gates=("i", "f", "g", "o")),
    nn.GRU: Meaning(_RECURRENT, _GATED, gates=("r", "z", "n")),
    nn.RNN: Meaning(_RECURRENT, _GATED, gates=("h",)),
    nn.Linear: Meaning(_WEIGHT, (*_ANY_MATRIX, "unit", "layer")),
    nn.Conv1d: Meaning(_WEIGHT, _CONVOLVED),
    nn.Conv2d: Meaning(_WEIGHT, _CONVOLVED),
    nn.Conv3d: Meaning(_WEIGHT, _CONVOLVED),
    nn.ConvTranspose1d: Meaning(_TRANSPOSED, _CONVOLVED),
    nn.ConvTranspose2d: Meaning(_TRANSPOSED, _CONVOLVED),
    nn.ConvTranspose3d: Meaning(_TRANSPOSED, _CONVOLVED),
    nn.MultiheadAttention: Meaning(_ATTENTION, (*_ANY_MATRIX, "layer")),
    nn.Embedding: Meaning(_WEIGHT, (*_ANY_MATRIX, "layer"), multiplies=False),
    nn.EmbeddingBag: Meaning(_WEIGHT, (*_ANY_MATRIX, "layer"), multiplies=False),
    nn.Module: Meaning(),  # any other that owns parameters
}
_LAYER_SUFFIX = re.compile(r"_l\d+(_reverse)?$")


def meaning_of(module: nn.Module) -> Meaning:
    """The entry of the nearest type that the module derives from."""
    meaning = next(MEANINGS[base] for base in type(module).__mro__ if base in MEANINGS)
    grouped = getattr(module, "groups", 1) != 1
    return MEANINGS[nn.Module] if grouped and meaning.axes is _TRANSPOSED else meaning  # its rows lie on two axes


def own_parts(module: nn.Module) -> dict[str, tuple[nn.Parameter, Part]]:
    """The parameters that a module owns directly, by their names within it, each with its description."""
    axes = meaning_of(module).axes
    groups = getattr(module, "groups", 1) if axes is _WEIGHT else 1
    own = module.named_parameters(recurse=False, remove_duplicate=False)
    return {key: (p, Part(tuple(p.shape), axes.get(_LAYER_SUFFIX.sub("", key)), groups)) for key, p in own}


def layers_of(name: str, module: nn.Module) -> list[Layer]:
    """The layers of one module, from the input upwards, with the parameters that train.

    Raises:
        InputError: a recurrent module with projections (``proj_size``).
    """
    meaning, prefix = meaning_of(module), f"{name}." if name else ""
    own = own_parts(module)
    if not isinstance(module, nn.RNNBase):
        parts = {prefix + key: part for key, (p, part) in own.items() if p.requires_grad}
        height = max([int(part.rows().max()) + 1 for part in parts.values() if part.axes], default=1)
        return [Layer(name, 0, name or type(module).__name__, ("row",), height, parts, meaning.multiplies)]
    if module.proj_size:
        raise InputError(
            f"{name or 'the module'} ({type(module).__name__}) has proj_size={module.proj_size}: what it hands on is "
            "not one value a unit, so there are no zones in it; build it with proj_size=0, or isolate elsewhere"
        )
    layers, height = [], len(meaning.gates) * module.hidden_size
    for index in range(module.num_layers):
        for direction in ("", "_reverse")[: 1 + module.bidirectional]:
            own_name = f"l{index}{direction}"
            parts = {
                prefix + key: part for key, (p, part) in own.items() if key.endswith(f"_{own_name}") and p.requires_grad
            }
            layers.append(Layer(name, index, prefix + own_name, meaning.gates, height, parts, True))
    return layers
