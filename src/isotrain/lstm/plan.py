"""What is isolated in an LSTM: one checked value for the whole module, and from it one plan for each layer."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from isotrain.errors import InputError

Mode = Literal["masked", "exact", "cut", "autonomous"]
MODES: tuple[Mode, ...] = get_args(Mode)
Units = Sequence[int] | Tensor  # indices of hidden units
Credit = Literal["full", "cell", "none"]
CREDITS: tuple[Credit, ...] = get_args(Credit)


@dataclass(frozen=True, eq=False)
class Plan:
    """What is left out of one layer's backward pass.

    With T time steps and H hidden units, Z the isolated and A the active units:

    - ``exact``: weight gradients of the rows of Z are not computed; everything else is exact.
    - ``cut``: the gate gradients of Z are dropped: they reach neither the recurrence nor the inputs, and the rows of
      Z get no weight gradient.
    - ``autonomous``: the weights from A into Z are left out of the forward pass too, and Z is a constant: no gradient
      passes through it, to the inputs neither.
    - ``masked``: everything is computed (the control).

    *Credit* is the gradient that step t sends to step t-1: through the recurrent weights to h(t-1), and along the cell,
    through the forget gate, to c(t-1). All weights learn whatever becomes of it: at each step from what arrives there.

    - ``full``: both.
    - ``cell``: along the cell; through the recurrent weights to the units of ``part`` alone (Hochreiter and
      Schmidhuber 1997, whose truncated gradient this is, with a forget gate and with all gates alike).
    - ``none``: neither.

    Attributes:
        active: (H,) bool, True = updated; None = all.
        mode: as above; says nothing while ``active`` is None.
        steps: gate gradients exist in the last ``steps`` steps only; None = in all. Earlier outputs, inputs and
            the initial states then get no gradient.
        weights: False = the layer is isolated: it gets no weight gradient and passes the gradient on.
        credit: as above.
        part: (H,) bool, of credit ``cell``: True = the unit's h(t-1) gets credit through the recurrent weights all the
            same; None = no unit does.
        autonomous_inputs: (I,) bool, True = the input is a constant, computed without active units: the only
            inputs that Z may see when ``autonomous``. None = all of them (the lowest layer).
    """

    active: Tensor | None = None
    mode: Mode = "exact"
    steps: int | None = None
    weights: bool = True
    autonomous_inputs: Tensor | None = None
    credit: Credit = "full"
    part: Tensor | None = None
    _elsewhere: dict[torch.device, "Plan"] = field(default_factory=dict, init=False, repr=False)

    def passing(self, hidden: int, device: torch.device | None = None) -> Tensor | None:
        """(hidden,) bool, True = h(t-1) of the unit gets a gradient through the recurrent weights; None = all do."""
        if self.credit == "full":
            return None
        if self.part is None or self.credit == "none":
            return torch.zeros(hidden, dtype=torch.bool, device=device)
        return self.part

    @cached_property
    def active_units(self) -> Tensor | None:
        """Indices of the active units, worked out once: on a GPU the host has to wait for their number."""
        return None if self.active is None else self.active.nonzero().flatten()

    def on(self, device: torch.device) -> "Plan":
        """The same on a device; it is kept, so that a step copies nothing there."""
        if device in self._elsewhere:
            return self._elsewhere[device]
        flags = {"active": self.active, "autonomous_inputs": self.autonomous_inputs, "part": self.part}
        moved: dict[str, Any] = {
            name: flag.to(device) for name, flag in flags.items() if flag is not None and flag.device != device
        }
        if not moved:
            return self
        self._elsewhere[device] = replace(self, **moved)
        return self._elsewhere[device]


EVERYTHING = Plan()  # nothing is left out


@dataclass(frozen=True, eq=False)
class Isolated:
    """What is isolated in a whole LSTM; see :meth:`isotrain.lstm.LSTM.isolate` for the arguments."""

    layers: frozenset[int] = frozenset()
    units: tuple[tuple[int, ...], ...] = ()  # a layer; () = none anywhere
    mode: Mode = "exact"
    steps: int | None = None
    credit: tuple[Credit, ...] = ()  # a layer; () = full in all
    part: tuple[int, ...] = ()  # units that get credit through the recurrent weights where it is cell

    @property
    def nothing(self) -> bool:
        """Whether the whole backward is asked for."""
        return not (self.layers or self.steps is not None or self.by_unit or self.autonomous or self.credit)

    @property
    def reach(self) -> int | None:
        """How many time steps the backward covers that starts at a step where a loss reads; None = all before it.

        Where no layer passes credit on, it is that step alone.
        """
        return 1 if self.credit and set(self.credit) == {"none"} else self.steps

    @property
    def by_unit(self) -> bool:
        """Whether the kernels have to leave units out of the backward."""
        return any(self.units) and self.mode in ("exact", "cut")

    @property
    def autonomous(self) -> bool:
        """Whether there are units that are a function of the input alone."""
        return any(self.units) and self.mode == "autonomous"

    def plan(self, layer: int, hidden: int) -> Plan:
        """The plan of one layer; autonomous units are no part of it, they are inputs to the others."""
        active = None
        if self.by_unit and self.units[layer]:
            active = torch.ones(hidden, dtype=torch.bool)
            active[list(self.units[layer])] = False
        mode: Mode = "exact" if self.mode == "autonomous" else self.mode
        credit: Credit = self.credit[layer] if self.credit else "full"
        part = None
        if self.part and credit == "cell":
            part = torch.zeros(hidden, dtype=torch.bool)
            part[list(self.part)] = True
        return Plan(active, mode, self.steps, weights=layer not in self.layers, credit=credit, part=part)

    def constants(self, num_layers: int, hidden: int) -> list[tuple[int, ...]]:
        """The units of each layer that depend on nothing that trains."""
        everyone, units = tuple(range(hidden)), self.units if self.autonomous else ((),) * num_layers
        below = [self.layers.issuperset(range(k + 1)) for k in range(num_layers)]
        return [everyone if below[k] else units[k] for k in range(num_layers)]


def isolated(
    num_layers: int,
    hidden: int,
    layer: int | Iterable[int] = (),
    units: Units | Mapping[int, Units] = (),
    mode: Mode = "exact",
    steps: int | None = None,
    credit: Credit | Mapping[int, Credit] = "full",
    part: int | Units = (),
) -> Isolated:
    """The checked form of what :meth:`isotrain.lstm.LSTM.isolate` was asked for; raises :class:`InputError`."""
    layers = frozenset([layer] if isinstance(layer, int) else layer)
    if not layers <= set(range(num_layers)):
        raise InputError(f"cannot isolate layers {sorted(layers)}: the LSTM has layers 0 to {num_layers - 1}")
    if len(layers) == num_layers:
        raise InputError(f"all {num_layers} layers isolated: nothing of the LSTM would train")
    if mode not in MODES:
        raise InputError(f"mode {mode!r} is unknown: use one of {', '.join(MODES)}")
    if steps is not None and steps < 1:
        raise InputError(f"steps = {steps}: the backward needs at least 1 time step")
    if steps is not None and mode == "autonomous" and not _any(units):
        raise InputError(
            "mode 'autonomous' is a mode of units: earlier time steps are left out of the backward (steps=...) with "
            "mode 'exact'"
        )
    by_layer = units if isinstance(units, Mapping) else dict.fromkeys(range(num_layers), units)
    if not set(by_layer) <= set(range(num_layers)):
        raise InputError(
            f"cannot isolate units of layers {sorted(by_layer)}: the LSTM has layers 0 to {num_layers - 1}"
        )
    chosen = tuple(_checked(by_layer.get(k, ()), k, hidden) for k in range(num_layers))
    trains = [k for k in range(num_layers) if k not in layers and len(chosen[k]) < hidden]
    if not trains and mode != "masked":
        raise InputError("every unit of every layer isolated: nothing of the LSTM would train")
    passed = _credit(credit, num_layers)
    units_in_part = _part(part, passed, mode, hidden)
    asked = Isolated(layers, chosen if any(chosen) else (), mode, steps, passed, units_in_part)
    if asked.autonomous:
        _require_inputs(asked.constants(num_layers, hidden))
    return asked


def _credit(credit: Credit | Mapping[int, Credit], num_layers: int) -> tuple[Credit, ...]:
    """The credit of each layer; () if it is full in all."""
    by_layer = credit if isinstance(credit, Mapping) else dict.fromkeys(range(num_layers), credit)
    if not set(by_layer) <= set(range(num_layers)):
        raise InputError(f"credit of layers {sorted(by_layer)}: the LSTM has layers 0 to {num_layers - 1}")
    for word in by_layer.values():
        if word not in CREDITS:
            raise InputError(f"credit {word!r} is unknown: use one of {', '.join(CREDITS)}")
    passed: tuple[Credit, ...] = tuple(by_layer.get(k, "full") for k in range(num_layers))
    return passed if any(word != "full" for word in passed) else ()


def _part(part: int | Units, credit: tuple[Credit, ...], mode: Mode, hidden: int) -> tuple[int, ...]:
    """The units that pass credit through the recurrent weights, in ascending order."""
    if isinstance(part, int) and not 0 <= part <= hidden:
        raise InputError(f"part = {part}: give a number of units from 0 to {hidden}, or their indices")
    units = tuple(range(part)) if isinstance(part, int) else _checked(part, 0, hidden, "part")
    if units and "cell" not in credit:
        raise InputError(
            "part are the units that get credit through the recurrent weights all the same: it goes with credit "
            "'cell'; with 'full' all units do, and with 'none' none"
        )
    if units and mode == "autonomous":
        raise InputError("part does not go with mode 'autonomous', which leaves fewer units to pass credit: use 'cut'")
    return units


def _any(units: Units | Mapping[int, Units]) -> bool:
    return any(len(some) for some in units.values()) if isinstance(units, Mapping) else len(units) > 0


def _checked(units: Units, layer: int, hidden: int, name: str = "units") -> tuple[int, ...]:
    if isinstance(units, Tensor):
        if units.dtype == torch.bool:
            raise InputError(f"{name} takes the indices of units, not booleans: use mask.nonzero().flatten()")
        units = units.tolist()
    wrong = [u for u in units if not 0 <= u < hidden]
    if wrong:
        raise InputError(f"layer {layer} has no unit {wrong[0]}: its units are 0 to {hidden - 1}")
    return tuple(sorted(set(units)))


def _require_inputs(constants: Sequence[Sequence[int]]) -> None:
    """An autonomous zone needs inputs that no active unit has touched: the network's own, or a zone below."""
    for k in range(1, len(constants)):
        if constants[k] and not constants[k - 1]:
            raise InputError(
                f"mode 'autonomous': layer {k} has isolated units but layer {k - 1} below has none, so they would "
                "see no input at all; isolate units there too, or all layers below"
            )
