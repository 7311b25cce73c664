"""The settings of isolation: every name once, every value checked once, and no torch.

:class:`Policy` and the :class:`Schedule` in it are at the same time the settings of this library and the section
``isolation`` of params.yaml, so a name that is added here can be written there at once. A field that may hold only some
values carries its check (``one_of``, ``between``, ``at_least``); the checks run when the object is made, and
:func:`check` runs one of them alone.
"""

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, TypeVar

from isotrain.errors import InputError

Check = Callable[[str, Any], None]
T = TypeVar("T")


class Registry(dict[str, T]):
    """What a name stands for. An unknown name is a KeyError that gives the nearest name and all there are.

    Example:
        >>> Registry({"unit": 1, "layer": 2})["units"]
        Traceback (most recent call last):
        KeyError: "'units' is unknown: did you mean 'unit'? The choices are unit, layer"
    """

    def __missing__(self, name: str) -> T:
        raise KeyError(f"{name!r} is unknown: {_hint(name, self)}")


def _hint(name: object, known: Iterable[str]) -> str:
    known = tuple(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    return (f"did you mean {near[0]!r}? The choices are " if near else "choose one of ") + ", ".join(known)


# zone -> its modes. The zones are defined in zones.py, the modes in isotrain.lstm.
ZONES: Registry[tuple[str, ...]] = Registry(
    {
        "weight": ("masked",),
        "row": ("masked",),
        "column": ("masked",),
        "tile": ("masked",),
        "gate": ("masked",),
        "unit": ("masked", "exact", "cut", "autonomous"),
        "channel": ("masked",),
        "kernel": ("masked",),
        "layer": ("masked", "exact"),
        "step": ("exact",),
        "credit": ("cell", "none"),
    }
)
MODES = tuple(dict.fromkeys(mode for modes in ZONES.values() for mode in modes))
# Functions in criteria.py, but for `neglected`: of the zones step and credit, and measured (callback.py).
CRITERIA = ("random", "magnitude", "update_norm", "snip", "fisher", "plateau", "depth", "neglected")
SCOPES = ("local", "global")
COUNTS = ("zones", "weights", "flops")
# What optimisers.py does with Adam's state: of isolated weights, its bias correction, its form.
MOMENTS = ("hold", "decay", "reset", "mean")
CORRECTIONS = ("global", "per_weight")
VARIANTS = ("torch", "tf15", "lazy")


def one_of(choices: Iterable[str]) -> Check:
    """The check of a name; the error gives the choices and the nearest of them."""
    known = tuple(choices)

    def check(name: str, value: Any) -> None:
        if value not in known:
            raise InputError(f"{name}={value!r} is unknown: {_hint(value, known)}")

    return check


def between(low: float, high: float) -> Check:
    """The check of a number with two limits, which are allowed themselves."""

    def check(name: str, value: Any) -> None:
        if not low <= value <= high:  # written so that NaN is refused too
            raise InputError(f"{name}={value} is outside [{low:g}, {high:g}]")

    return check


def at_least(low: int) -> Check:
    """The check of a number, or of several numbers, with a lower limit; None passes."""

    def check(name: str, value: Any) -> None:
        numbers = value if isinstance(value, Sequence) else [value]
        if any(number is not None and not low <= number < math.inf for number in numbers):
            raise InputError(f"{name}={value} is too small: give {low} or more")

    return check


def check(owner: type, name: str, value: Any) -> None:
    """Refuse a value that the setting ``name`` of ``owner`` (:class:`Policy`, :class:`Schedule`) never has.

    Whether the value goes with the other settings is checked when the object is made.

    Raises:
        InputError: naming the setting, the value, what is allowed and the nearest right name.
    """
    rule: Check | None = next(known for known in fields(owner) if known.name == name).metadata.get("check")
    if rule is not None and not callable(value):
        rule(name, value)


def _setting(default: T, rule: Check) -> T:
    """A field with its check."""
    return field(default=default, metadata={"check": rule})


def _constant(schedule: "Schedule", progress: float) -> float:
    return float(progress >= schedule.start)


def _linear(schedule: "Schedule", progress: float) -> float:
    return schedule.position(progress)


def _cubic(schedule: "Schedule", progress: float) -> float:
    return 1.0 - (1.0 - schedule.position(progress)) ** 3


def _cosine(schedule: "Schedule", progress: float) -> float:
    return (1.0 - math.cos(math.pi * schedule.position(progress))) / 2


def _cyclic(schedule: "Schedule", progress: float) -> float:
    return (1.0 - math.cos(2 * math.pi * schedule.cycles * schedule.position(progress))) / 2


def _thaw(schedule: "Schedule", progress: float) -> float:
    return float(schedule.start <= progress < schedule.stop)


SCHEDULES: Registry[Callable[["Schedule", float], float]] = Registry(
    {
        "constant": _constant,
        "linear": _linear,
        "cubic": _cubic,
        "cosine": _cosine,
        "cyclic": _cyclic,
        "thaw": _thaw,
        "plateau": _constant,  # from the moment that Schedule.since is given
    }
)


@dataclass(frozen=True)
class Schedule:
    """Training progress in [0, 1] to the fraction that is isolated: a value, called like the function that it is.

    Args:
        shape: with x the position of the progress between ``start`` (0) and ``stop`` (1), the share of ``fraction``:

            - ``"constant"``: 0 before ``start``, then 1; ``stop`` plays no part.
            - ``"linear"``: x.
            - ``"cubic"``: 1 - (1 - x)³, fast first and slow at the end (Zhu and Gupta, arXiv 1710.01878, eq. 1, from
              an initial sparsity of 0; there what is removed is gone).
            - ``"cosine"``: (1 - cos πx) / 2, slow at both ends.
            - ``"cyclic"``: (1 - cos 2π ``cycles`` x) / 2, out and back ``cycles`` times. A period must hold several
              selections, or they see another shape.
            - ``"thaw"``: 1 from ``start`` to ``stop``, then 0: everything trains again at the end (the order of
              dense-sparse-dense training, Han et al., arXiv 1607.04381). With ``stop`` = 1 it is ``constant``.
            - ``"plateau"``: 0 until the training loss stops improving, and never before ``start``; then 1. Only the
              caller knows the loss: it asks :meth:`triggered` and goes on with :meth:`since`.
        fraction: the largest fraction, in [0, 1]; 0 isolates nothing.
        start, stop: progress in [0, 1], start <= stop.
        cycles: periods of ``cyclic``, 1 or more.
        patience: selections without improvement that ``plateau`` waits for, 1 or more.
        least: the improvement that ``plateau`` takes for one, relative to the best loss before; in [0, 1].

    Raises:
        InputError: a value outside these bounds.

    Example:
        >>> schedule = Schedule("linear", fraction=0.5, start=0.0)
        >>> [schedule(progress) for progress in (0.0, 0.5, 1.0)]
        [0.0, 0.25, 0.5]
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # params.yaml: a key that is none is refused

    shape: str = _setting("constant", one_of(SCHEDULES))
    fraction: float = _setting(0.5, between(0.0, 1.0))
    start: float = _setting(0.25, between(0.0, 1.0))
    stop: float = _setting(1.0, between(0.0, 1.0))
    cycles: int = _setting(4, at_least(1))
    patience: int = _setting(3, at_least(1))
    least: float = _setting(0.01, between(0.0, 1.0))

    def __post_init__(self) -> None:
        _check_all(self)
        if self.start > self.stop:
            raise InputError(f"start={self.start} comes after stop={self.stop}: give start <= stop")

    def __call__(self, progress: float) -> float:
        return self.fraction * self.share(progress)

    def share(self, progress: float) -> float:
        """The share of ``fraction`` that is isolated at ``progress``, in [0, 1]."""
        return SCHEDULES[self.shape](self, progress)

    def position(self, progress: float) -> float:
        """Where ``progress`` stands between start (0) and stop (1); 0 before, 1 from stop on."""
        if progress >= self.stop:
            return 1.0
        return max(0.0, progress - self.start) / (self.stop - self.start) if progress > self.start else 0.0

    @property
    def waits(self) -> bool:
        """Whether the schedule begins when the loss stops improving: the caller isolates nothing until it does."""
        return self.shape == "plateau"

    def triggered(self, losses: Sequence[float]) -> bool:
        """Whether the losses so far, one a selection, have stopped improving.

        True if the best of the last ``patience`` losses is not below the best before them by more than ``least``
        times its size; False as long as there are none before them.

        Raises:
            InputError: a loss that is not finite.
        """
        for loss in losses:
            if not math.isfinite(loss):
                raise InputError(
                    f"schedule plateau: the training loss is {loss}, not a finite number (a diverged training: lower "
                    "the learning rate or clip the gradient)"
                )
        if len(losses) <= self.patience:
            return False
        before, recent = min(losses[: -self.patience]), min(losses[-self.patience :])
        return before - recent <= self.least * abs(before)

    def since(self, progress: float) -> "Schedule":
        """The same schedule, starting when the loss stopped improving, at ``progress``, or at ``start`` if later."""
        start = max(self.start, progress)
        return replace(self, start=start, stop=max(self.stop, start))


@dataclass(frozen=True)
class Policy:
    """Which zones are isolated, chosen how and when, and what Adam does with their state.

    Attributes:
        zone: the kind of zone, a key of :data:`ZONES`; :func:`.zones.zones` defines them.
        mode: ``"masked"``: the gradient is computed and not used, which saves nothing and is the control.
            ``"exact"``: it is not computed. ``"cut"`` and ``"autonomous"``: nor does any gradient pass through the
            isolated units (:meth:`isotrain.lstm.LSTM.isolate`). Units once autonomous stay so: they are chosen again
            only when the scheduled fraction changes. ``"masked"`` and whole layers work on any module, the rest on
            those with ``isolate(layer=, units=, mode=, steps=, credit=)``. Zone ``"credit"``, the gradient that a step
            sends to the step before: ``"cell"``: only that along the cell state is left; ``"none"``: nor is that.
        criterion: a name of :data:`CRITERIA`, or a function of a :class:`.criteria.ZoneView`; zones of low score are
            isolated first. Of the zones ``"step"`` and ``"credit"`` the oldest time steps and the layers nearest the
            input are isolated first whatever the criterion; with ``"neglected"`` the horizon is measured
            (:class:`.callback.AdaptiveHorizon`), or when credit must come back (:class:`.callback.AdaptiveCredit`).
        schedule: progress (optimiser steps done over planned) to isolated fraction.
        steps: zone ``"step"``: when the schedule is at its highest the backward covers the last ``steps`` time steps,
            in streamed training the last ``steps`` before each origin; the schedule's fraction plays no part. With
            ``"neglected"`` the shortest horizon allowed.
        tolerance: criterion ``"neglected"``: the share of the norm of the gradient that may be left out.
        tile: zone ``"tile"``: its rows and columns.
        modules: dotted names, or patterns, of the modules to isolate in; None as in :func:`.zones.zones`.
        scope: the fraction holds in each layer (``"local"``) or over all (``"global"``).
        count: the fraction is of the ``"zones"``, of their ``"weights"``, or of their ``"flops"`` (multiply-adds).
        every: optimiser steps from one selection to the next.
        thaw: if False, what is isolated stays isolated.
        churn: the largest share of the zones that may change place at a selection, beyond what the fraction asks for.
        remember: the forecaster runs what is isolated and sees the input alone once over the series, and looks it up.
        renew: zone ``"step"``, and ``"credit"`` with mode ``"none"``, in streamed training: the forecaster takes the
            states before the last steps from a run over the series that is made anew every so many optimiser steps;
            0: it runs them in each stretch. Elsewhere it plays no part.
        moments, correction, variant: of :class:`.optimisers.MaskedAdam`.

    Raises:
        InputError: a setting is unknown, out of its range, or does not go with another.

    Example:
        >>> policy = Policy("unit", "cut", "update_norm", Schedule(fraction=0.75))
        >>> policy.every
        20
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    zone: str = _setting("layer", one_of(ZONES))
    mode: str = _setting("exact", one_of(MODES))
    criterion: str | Callable[[Any], Any] = field(default="depth", metadata={"check": one_of(CRITERIA)})
    schedule: Schedule = field(default_factory=Schedule)
    steps: int = _setting(24, at_least(1))
    tolerance: float = _setting(0.1, between(0.0, 1.0))
    tile: tuple[int, int] = _setting((16, 16), at_least(1))
    modules: Sequence[str] | None = None
    scope: str = _setting("local", one_of(SCOPES))
    count: str = _setting("zones", one_of(COUNTS))
    every: int = _setting(20, at_least(1))
    thaw: bool = True
    churn: float = _setting(1.0, between(0.0, 1.0))
    remember: bool = True
    renew: int = _setting(0, at_least(0))
    moments: str = _setting("hold", one_of(MOMENTS))
    correction: str = _setting("global", one_of(CORRECTIONS))
    variant: str = _setting("torch", one_of(VARIANTS))

    @property
    def renewed(self) -> int:
        """``renew`` where there are states before the last steps, else 0."""
        given = self.zone == "step" and not self.measured
        return self.renew if given or (self.zone, self.mode) == ("credit", "none") else 0

    def __post_init__(self) -> None:
        _check_all(self)
        if self.mode not in ZONES[self.zone]:
            zones = ", ".join(zone for zone, modes in ZONES.items() if self.mode in modes)
            raise InputError(
                f"mode={self.mode!r} does not exist for zone={self.zone!r}, only for {zones}: "
                f"use mode {' or '.join(ZONES[self.zone])}"
            )
        if self.measured and not self.unfolded:
            raise InputError(f"criterion='neglected' does not exist for zone={self.zone!r}: use zone step or credit")
        if self.autonomous and self.scope != "local":
            raise InputError(
                "mode='autonomous' needs scope='local': each layer's units are fed by those of the layer below"
            )

    @property
    def measured(self) -> bool:
        """Whether the horizon of the backward, or when credit comes back, is measured, not given."""
        return self.criterion == "neglected"

    @property
    def unfolded(self) -> bool:
        """Whether the zones are parts of the network unfolded in time: no weight belongs to them, and all train."""
        return self.zone in ("step", "credit")

    @property
    def autonomous(self) -> bool:
        """Whether isolated units are a function of the input alone, whose trajectories can be remembered."""
        return self.mode == "autonomous"

    @property
    def adam(self) -> dict[str, str]:
        """The arguments of :class:`.optimisers.MaskedAdam` that torch's Adam does not have."""
        return {"moments": self.moments, "correction": self.correction, "variant": self.variant}

    def fraction(self, schedule: Schedule, progress: float, window: int | None) -> float:
        """The fraction of the zones to isolate; ``window`` is the number of time steps, for zone ``"step"``."""
        if self.zone != "step" or window is None:
            return schedule(progress)
        return schedule.share(progress) * max(0.0, 1 - self.steps / window)


def _check_all(settings: Any) -> None:
    for known in fields(settings):
        check(type(settings), known.name, getattr(settings, known.name))
