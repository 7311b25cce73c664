"""What is timed: shapes, and for each shape the methods that take turns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from isotrain.errors import InputError

INPUTS = 7
LEADS = 24  # outputs of the linear head
EVERY = 7  # streamed: hours between two origins, from the middle of a stretch on
SHARES = (0.25, 0.5, 0.75, 0.875)  # of the units, isolated in every layer
STEPS = (12, 24, 48, 96)
LENGTHS = (24, 48, 96, 168, 336, 672)
BATCHES = (8, 16, 32, 64, 128, 256)
HIDDEN = (64, 128, 256, 512)
REFERENCES = ("stock", "tuned", "native-bf16")  # timed at every shape; the growth panels are theirs

Regime = Literal["windowed", "streamed"]


@dataclass(frozen=True)
class Shape:
    """An LSTM and the batch that it is given; written ``hidden x layers x length x batch``."""

    hidden: int
    layers: int = 1
    length: int = 168
    batch: int = 64

    def __str__(self) -> str:
        return "x".join(map(str, (self.hidden, self.layers, self.length, self.batch)))

    @property
    def label(self) -> str:
        """In words, for tables and figures."""
        layers = "1 layer" if self.layers == 1 else f"{self.layers} layers"
        return f"{layers} x {self.hidden} units, T={self.length}, B={self.batch}"


HEADLINE = Shape(256)
SHAPES = (
    *(Shape(hidden, layers) for hidden in HIDDEN for layers in (1, 2)),
    Shape(150, 5, 24, 500),
    Shape(150, 5, 96, 500),
)
QUICK = (HEADLINE, Shape(64, 2))
GROWTH = (*(Shape(256, 1, length) for length in LENGTHS), *(Shape(256, 1, 168, batch) for batch in BATCHES))


@dataclass(frozen=True)
class Condition:
    """One way to train, and what it leaves out.

    Attributes:
        name: the key everywhere.
        label: in words.
        backend: ``stock`` (nn.LSTM, nothing set), ``tuned`` (nn.LSTM), or one of isotrain's LSTM (``torch``,
            ``native``; ``reference`` is for tests).
        compute: of native and reference; tuned and torch run under bf16 autocast.
        full: the condition with nothing isolated that the FLOP limit refers to; "" = it is one itself.
        share: isolated share of the units of every layer.
        mode: how those units are isolated.
        steps: the backward runs over this many last time steps; with ``at_origins`` before each origin.
        credit: what a step sends to the step before in the backward: ``full``, ``cell`` or ``none``.
        lower: all layers but the top one are isolated.
        memory: what is isolated is remembered, not computed.
        at_origins: the states of all hours are computed without a graph, and the last ``steps`` before each origin,
            1 without credit, once more with one (``LSTM.outputs_at``).
    """

    name: str
    label: str
    backend: Literal["stock", "tuned", "torch", "reference", "native"] = "native"
    compute: Literal["fp32", "bf16"] = "bf16"
    full: str = ""
    share: float = 0.0
    mode: Literal["exact", "cut", "autonomous"] = "exact"
    steps: int | None = None
    credit: Literal["full", "cell", "none"] = "full"
    lower: bool = False
    memory: bool = False
    at_origins: bool = False

    @property
    def worker(self) -> str:
        """The process that times it: process-wide settings must not reach stock."""
        return "stock" if self.backend == "stock" else "prepared"

    def isolated_units(self, hidden: int) -> int:
        """How many units of each layer are isolated."""
        return round(self.share * hidden)


@dataclass(frozen=True)
class Group:
    """Conditions of one shape: they take turns."""

    shape: Shape
    conditions: tuple[Condition, ...]

    def __getitem__(self, name: str) -> Condition:
        return next(condition for condition in self.conditions if condition.name == name)


def conditions(shape: Shape, regime: Regime = "windowed") -> tuple[Condition, ...]:
    """Every method that makes sense at ``shape``.

    A horizon no shorter than the sequence is no isolation; and where the loss is taken at many hours a horizon of the
    whole sequence drops some of the losses, which is another training: both are left out.
    """
    windowed = regime == "windowed"
    horizons = [k for k in STEPS if k < shape.length] if windowed else []
    stacked = shape.layers > 1
    found = [
        Condition("stock", "stock", "stock"),
        Condition("tuned", "tuned", "tuned"),
        Condition("native-fp32", "native, fp32", compute="fp32"),
        Condition("native-bf16", "native, bf16"),
        *_of_units(),
        *(Condition(f"steps-{k}", f"last {k} steps", full="native-bf16", steps=k) for k in horizons),
        Condition("credit-cell", "credit along the cell alone", full="native-bf16", credit="cell"),
        Condition("credit-none", "no credit through time", full="native-bf16", credit="none", at_origins=not windowed),
    ]
    if not windowed:
        found.append(
            Condition("steps-4", "last 4 steps before each origin", full="native-bf16", steps=4, at_origins=True)
        )
    if stacked:
        found += [
            Condition("lower", "lower layers isolated", full="native-bf16", lower=True),
            Condition("lower-memory", "lower layers isolated, remembered", full="native-bf16", lower=True, memory=True),
        ]
    if 24 in horizons:
        found.append(Condition("tuned-steps-24", "tuned, last 24 steps", "torch", full="tuned", steps=24))
    if stacked:
        found.append(Condition("tuned-lower", "tuned, lower layers isolated", "torch", full="tuned", lower=True))
    return tuple(found)


def origins(length: int) -> range:
    """Streamed: the hours of a sequence whose states are read."""
    return range(length // 2, length, EVERY)


def _of_units() -> list[Condition]:
    found = []
    for mode in ("exact", "cut", "autonomous"):
        for memory in (False, True) if mode == "autonomous" else (False,):
            for share in SHARES:
                name = f"{mode}-{100 * share:g}" + ("-memory" if memory else "")
                label = f"{mode}, {100 * share:g} %" + (", remembered" if memory else "")
                found.append(Condition(name, label, full="native-bf16", share=share, mode=mode, memory=memory))
    return found


def groups(
    shapes: Sequence[Shape], growth: bool, only: Sequence[str] = (), regime: Regime = "windowed"
) -> tuple[Group, ...]:
    """What a run times, in order: every condition at ``shapes``, then the references at the growth shapes.

    ``only``: beginnings of names; the references are always there. Raises :class:`InputError` for a beginning
    that no condition has.
    """
    timed = {shape: conditions(shape, regime) for shape in shapes}
    known = [condition.name for found in timed.values() for condition in found]
    for start in only:
        if not any(name.startswith(start) for name in known):
            raise InputError(f"no condition begins with {start!r}: {', '.join(dict.fromkeys(known))}")
    wanted = [
        Group(shape, tuple(c for c in found if not only or c.name in REFERENCES or c.name.startswith(tuple(only))))
        for shape, found in timed.items()
    ]
    for shape in dict.fromkeys(GROWTH if growth else ()):
        if shape not in timed:
            wanted.append(Group(shape, tuple(c for c in conditions(shape, regime) if c.name in REFERENCES)))
    return tuple(wanted)


def parse_shape(text: str) -> Shape:
    """``256x1`` or ``150x5x96x500``: hidden x layers, x length x batch (168 and 64 if not said)."""
    words = text.lower().split("x")
    if len(words) not in (2, 4) or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise InputError(
            f"shape {text!r}: write hidden x layers, or hidden x layers x length x batch, as in 150x5x96x500"
        )
    return Shape(*map(int, words))
