"""What to isolate, chosen how and when: one value, checked when it is made."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass

from torch import Tensor
from torch.optim import Optimizer

from isotrain.errors import InputError
from isotrain.isolation.criteria import CRITERIA, Criterion
from isotrain.isolation.schedules import Schedule
from isotrain.isolation.selection import SCOPES
from isotrain.isolation.zonemap import COUNTS
from isotrain.isolation.zones import KINDS
from isotrain.lstm.plan import MODES
from isotrain.vocabulary import MODES_OF_ZONE

PERIODS = ("step", "epoch")


@dataclass(frozen=True)
class Policy:
    """Everything that decides which zones are isolated.

    Attributes:
        zone: the kind of zone, one of :data:`KINDS`; :func:`.zones.zones` defines them.
        criterion: a name of :data:`CRITERIA`, or a function of a :class:`.criteria.ZoneView`; zones of low score
            are isolated first. Zone ``"step"`` takes the oldest time steps first whatever the criterion.
        schedule: progress in [0, 1] to isolated fraction; progress is optimiser steps done over planned.
        mode: ``"masked"``: the gradient is computed and not used, which saves nothing and is the control.
            ``"exact"``: it is not computed. ``"cut"`` and ``"autonomous"``: nor does any gradient pass through the
            isolated units (:meth:`isotrain.lstm.LSTM.isolate`). Units once autonomous stay so: they are chosen
            again only when the scheduled fraction changes. Older time steps that are ``"autonomous"`` are not run at
            all; the modules are told again at every look, so that what they remember is renewed. ``"masked"`` and
            whole layers work on any module, the rest on those with ``isolate(layer=, units=, mode=, steps=)``.
        scope: the fraction holds in each layer (``"local"``) or over all (``"global"``).
        count: the fraction is of the ``"zones"``, of their ``"arcs"``, or of their ``"flops"`` (multiply-adds).
        every: steps, or epochs, from one look at the schedule to the next.
        per: ``"step"`` or ``"epoch"``: what ``every`` counts. In an epoch the look is before its first step.
        reselect: choose again at each look; if False, only when the scheduled fraction has changed.
        thaw: if False, what is isolated stays isolated.
        churn: the largest share of the zones that may change place at a look, beyond what the fraction asks for.
        seed: of the criteria that draw lots.
        modules: dotted names, or patterns, of the modules to isolate in; None as in :func:`.zones.zones`.
        window: time steps of a window, for zone ``"step"``.
        tile: rows and columns of a tile, for zone ``"tile"``.
        uses: how often each module's matrices are applied (:func:`.zones.count_uses`), for ``count="flops"`` and
            the printed shares; None: once each.

    Raises:
        InputError: a setting is unknown, out of its range, or does not go with another.
    """

    zone: str
    criterion: str | Criterion
    schedule: Schedule
    _: KW_ONLY
    mode: str = "masked"
    scope: str = "local"
    count: str = "zones"
    every: int = 20
    per: str = "step"
    reselect: bool = True
    thaw: bool = True
    churn: float = 1.0
    seed: int = 0
    modules: Sequence[str] | None = None
    window: int | None = None
    tile: tuple[int, int] = (16, 16)
    uses: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        for name, known in (("zone", KINDS), ("mode", MODES), ("scope", SCOPES), ("count", COUNTS), ("per", PERIODS)):
            _require(name, getattr(self, name), known)
        if isinstance(self.criterion, str):
            _require("criterion", self.criterion, tuple(CRITERIA))
        if self.mode not in MODES_OF_ZONE[self.zone]:
            kinds = ", ".join(zone for zone, modes in MODES_OF_ZONE.items() if self.mode in modes)
            able = " or ".join(repr(mode) for mode in MODES_OF_ZONE[self.zone])
            raise InputError(f"mode={self.mode!r} has no zone={self.zone!r}, only {kinds}; use mode={able} for it")
        if self.autonomous_units and self.scope != "local":
            raise InputError(
                "mode='autonomous' needs scope='local': each layer's zone is fed by that of the layer below"
            )
        if self.every < 1:
            raise InputError(f"every={self.every}: give a number of optimiser steps or epochs, 1 or more")
        if not 0 <= self.churn <= 1:
            raise InputError(f"churn={self.churn} is outside [0, 1]; give the share of zones that may change place")

    @property
    def score(self) -> Criterion:
        """The criterion as a function."""
        return CRITERIA[self.criterion] if isinstance(self.criterion, str) else self.criterion

    @property
    def autonomous_units(self) -> bool:
        return self.mode == "autonomous" and self.zone == "unit"

    @property
    def carried(self) -> bool:
        """Whether older time steps are remembered, not run."""
        return self.mode == "autonomous" and self.zone == "step"

    @property
    def reselects(self) -> bool:
        """Whether each look chooses anew: not autonomous units, whose trajectories are remembered."""
        return self.reselect and not self.autonomous_units

    @property
    def schedule_waits(self) -> bool:
        """Whether the schedule begins when the loss stops improving."""
        return hasattr(self.schedule, "triggered")


def require_masking(optimiser: Optimizer, parameters: Mapping[str, Tensor], policy: Policy) -> None:
    """Raises InputError for an optimiser that cannot do what ``policy`` asks with these parameters, by name."""
    if policy.zone == "step":
        return
    name = type(optimiser).__name__
    if not hasattr(optimiser, "set_active"):
        raise InputError(
            f"optimiser {name} cannot leave weights out; use isotrain.isolation.MaskedAdam, or masked({name})"
        )
    held = {id(p) for group in optimiser.param_groups for p in group["params"]}
    missing = [known for known, p in parameters.items() if id(p) not in held]
    if missing:
        raise InputError(f"optimiser {name} does not hold {', '.join(missing)}: it cannot isolate zones there")
    if getattr(policy.score, "moments", False) and "betas" not in optimiser.defaults:
        raise InputError(
            f"criterion={policy.criterion!r} reads Adam's moments, and {name} keeps none; use MaskedAdam, or a "
            "criterion of weights and gradients, such as 'snip'"
        )


def _require(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InputError(f"{name}={value!r} is unknown; choose one of {', '.join(known)}")
