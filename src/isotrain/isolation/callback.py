"""The Lightning callback: when to choose, whom to tell, what to save."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from isotrain.errors import InputError
from isotrain.isolation.criteria import CRITERIA, Criterion, view_of
from isotrain.isolation.schedules import Schedule
from isotrain.isolation.selection import SCOPES, select
from isotrain.isolation.zones import KINDS, ZoneMap, chosen_modules, zones

log = logging.getLogger(__name__)

MODES = {
    "masked": ("arc", "gate", "unit", "layer"),
    "exact": ("unit", "layer", "step"),
    "cut": ("unit",),
    "autonomous": ("unit", "step"),
}


_SAVES = {
    "masked": "saves nothing: masked",
    "exact": "their weight gradients are not computed",
    "cut": "no gradient passes through them",
    "autonomous": "fed by the input alone, no gradient passes through them",
}


class Isolation(pl.Callback):
    """Isolates zones while a model trains, on a schedule, by a criterion.

    It chooses just before an optimiser step, where gradients are complete, accumulated, but *not yet
    clipped* (Lightning runs the backward inside ``optimizer.step(closure)`` and clips after this hook).
    Between selections it does nothing: it reads no parameter and waits for no device.

    Args:
        zone: ``"arc"``, ``"gate"``, ``"unit"``, ``"layer"`` or ``"step"``; :func:`.zones.zones` defines them.
        criterion: a name of :data:`CRITERIA` or a function; zones of low score go first. ``"step"`` takes
            the oldest time steps first whatever the criterion.
        schedule: progress in [0, 1] to isolated fraction; progress is optimiser steps done over planned.
        mode: ``"masked"``: the gradient is computed and not used, which saves nothing and is the control.
            ``"exact"``: it is not computed. ``"cut"`` and ``"autonomous"``: nor does any gradient pass through
            the isolated units (:meth:`isotrain.lstm.LSTM.isolate`). For these three the modules must have
            ``isolate(layer=..., units=..., mode=..., steps=...)``. Units once autonomous stay so: they are chosen
            again only when the scheduled fraction changes. Older time steps that are ``"autonomous"`` are not run
            at all; the modules are told again every ``every`` steps, so that what they remember is renewed.
        scope: the fraction holds in each layer (``"local"``) or over all (``"global"``).
        every: optimiser steps from one look at the schedule to the next.
        reselect: choose again at each look; if False, only when the scheduled fraction has changed.
        seed: of the criteria that draw lots.
        modules: dotted names of the modules to isolate in; None: every LSTM.
        window: time steps of a window, for ``zone="step"``.

    Attributes:
        history: one entry a change: ``step``, ``fraction`` (asked), ``share`` (of the arcs, isolated),
            ``churn`` (share of the zones that changed state), ``seconds`` (that the selection took).
        seconds: that all selections took.

    Raises:
        InputError: on construction or when the fit starts, for settings that do not go together, an optimiser
            that cannot mask, a module that cannot isolate, or a schedule that would leave nothing to train.
    """

    def __init__(
        self,
        zone: str,
        criterion: str | Criterion,
        schedule: Schedule,
        *,
        mode: str = "masked",
        scope: str = "local",
        every: int = 20,
        reselect: bool = True,
        seed: int = 0,
        modules: Sequence[str] | None = None,
        window: int | None = None,
    ) -> None:
        _require("zone", zone, KINDS)
        _require("mode", mode, tuple(MODES))
        _require("scope", scope, SCOPES)
        if zone not in MODES[mode]:
            able = " or ".join(repr(name) for name, kinds in MODES.items() if zone in kinds)
            raise InputError(
                f"mode={mode!r} has no zone={zone!r}, only {', '.join(MODES[mode])}; use mode={able} for it"
            )
        if isinstance(criterion, str):
            _require("criterion", criterion, tuple(CRITERIA))
            criterion = CRITERIA[criterion]
        if mode == "autonomous" and zone == "unit" and scope != "local":
            raise InputError(
                "mode='autonomous' needs scope='local': each layer's zone is fed by that of the layer below"
            )
        if every < 1:
            raise InputError(f"every={every}: give a number of optimiser steps, 1 or more")
        self.zone, self.mode, self.scope, self.window = zone, mode, scope, window
        self.criterion, self.schedule = criterion, schedule
        self.every, self.reselect, self.modules = every, reselect and mode != "autonomous", modules
        self.history: list[dict[str, float | int]] = []
        self.seconds = 0.0
        self._fraction = 0.0
        self._active: dict[str, Tensor] = {}
        self._generator = torch.Generator().manual_seed(seed)
        self._maps: list[ZoneMap] = []
        self._parameters: dict[str, nn.Parameter] = {}
        self._told: dict[str, nn.Module] = {}
        self._planned: float = 0
        self._thawing = False

    @property
    def isolated_share(self) -> float:
        """The share of the arcs (of the time steps, for ``zone="step"``) isolated now."""
        isolated = sum(zone_map.isolated_arcs(self._active[zone_map.name]) for zone_map in self._maps)
        return isolated / max(1, sum(int(zone_map.sizes().sum()) for zone_map in self._maps))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._maps = zones(pl_module, self.zone, modules=self.modules, window=self.window)
        self._parameters = dict(pl_module.named_parameters())
        self._told = chosen_modules(pl_module, self.modules) if self.mode != "masked" else {}
        for name, module in self._told.items():
            if not hasattr(module, "isolate"):
                raise InputError(
                    f"mode={self.mode!r} cannot isolate in {name or 'the module'!r}: {type(module).__name__} has "
                    "no isolate(); use isotrain.lstm.LSTM, or mode='masked'"
                )
        for optimiser in trainer.optimizers:
            if self.zone != "step" and not hasattr(optimiser, "set_active"):
                raise InputError(
                    f"optimiser {type(optimiser).__name__} cannot leave weights out; use isotrain.isolation.MaskedAdam"
                )
        self._refuse_everything()
        counts = {zone_map.name: zone_map.count for zone_map in self._maps}
        if self._active and {name: len(active) for name, active in self._active.items()} != counts:
            raise InputError(f"the checkpoint isolates in other zones than {counts}; resume it with the same model")
        self._active = self._active or {name: torch.ones(n, dtype=torch.bool) for name, n in counts.items()}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._planned = trainer.estimated_stepping_batches
        if not 0 < self._planned < float("inf"):
            raise InputError("the schedule needs the length of training: give the Trainer max_steps or max_epochs")
        for optimiser in trainer.optimizers:  # after a resume; nothing is isolated in a fresh run
            self._tell_optimiser(optimiser, self._active)
        self._tell_modules()

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        carried = self.zone == "step" and self.mode == "autonomous" and self._fraction > 0
        if carried and trainer.global_step % self.every == 0:
            self._tell_modules()  # what they remember is stale

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        if self._thawing:  # the gradient of this step is the first to cover them
            self._thawing = False
            self._tell_optimiser(optimizer, self._active)
        if trainer.global_step % self.every:
            return
        start = time.perf_counter()
        fraction = self.schedule(min(1.0, trainer.global_step / self._planned))
        entry = None
        if fraction != self._fraction or (self.reselect and fraction > 0):
            entry = self._choose(trainer.global_step, fraction, optimizer)
        seconds = time.perf_counter() - start
        self.seconds += seconds
        if entry is not None:
            self.history.append({**entry, "seconds": seconds})

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Thaw the modules: the model outlives this training, and its next may know nothing of isolation."""
        for module in self._told.values():
            module.isolate()  # type: ignore[operator]

    def _choose(self, step: int, fraction: float, optimiser: Optimizer) -> dict[str, float | int] | None:
        before, asked_before = self._active, self._fraction
        chosen = select(self._scores(optimiser), fraction, self.scope)
        self._active = {name: active.cpu() for name, active in chosen.items()}
        self._fraction = fraction
        changed = sum(int((before[name] ^ active).sum()) for name, active in self._active.items())
        if changed:
            self._tell_modules()
            self._thawing = self.mode != "masked" and any(
                bool((~before[k] & now).any()) for k, now in self._active.items()
            )
            # a zone thawed now has no gradient yet where it was not computed: the optimiser leaves it for this step
            both = {name: before[name] & now for name, now in self._active.items()}
            self._tell_optimiser(optimiser, both if self._thawing else self._active)
        if fraction != asked_before:
            log.info("step %d: %s", step, self._describe())
        if not changed and fraction == asked_before:
            return None
        churn = changed / sum(len(active) for active in self._active.values())
        return {"step": step, "fraction": fraction, "share": self.isolated_share, "churn": churn}

    def _scores(self, optimiser: Optimizer) -> dict[str, Tensor]:
        if self.zone == "step":
            return {zone_map.name: zone_map.depth for zone_map in self._maps}
        return {
            zone_map.name: self.criterion(view_of(zone_map, self._parameters, optimiser, self._generator))
            for zone_map in self._maps
        }

    def _tell_optimiser(self, optimiser: Any, active: Mapping[str, Tensor]) -> None:
        for zone_map in self._maps:
            for name, mask in zone_map.expand(active[zone_map.name]).items():
                optimiser.set_active(self._parameters[name], mask)

    def _tell_modules(self) -> None:
        for name, module in self._told.items():
            module.isolate(**self._order(name))  # type: ignore[operator]

    def _order(self, module: str) -> Mapping[str, Any]:
        """What ``module.isolate`` is called with; nothing thaws it."""
        isolated = [
            (zone_map, self._active[zone_map.name]) for zone_map in self._maps if not self._active[zone_map.name].all()
        ]
        if not isolated:
            return {}
        if self.zone == "step":
            steps = {"steps": int(isolated[0][1].sum())}
            return steps | {"mode": self.mode} if self.mode == "autonomous" else steps
        if self.zone == "layer":
            (layers, active) = isolated[0]
            which = zip(layers.layers, active.tolist(), strict=True)
            return {"layer": tuple(index for (name, index), is_active in which if name == module and not is_active)}
        units = {
            index: (~active).nonzero().flatten()
            for zone_map, active in isolated
            for name, index in zone_map.layers
            if name == module
        }
        return {"units": units, "mode": self.mode}

    def _describe(self) -> str:
        count = sum(int((~active).sum()) for active in self._active.values())
        total = sum(len(active) for active in self._active.values())
        if self.zone == "step":
            before = ", from remembered states" if self.mode == "autonomous" else ""
            return f"backward over the last {total - count} of {total} time steps{before}"
        if self.zone == "layer" and self.mode == "exact":
            which = ", ".join(str(k) for k in (~self._active["layers"]).nonzero().flatten().tolist()) or "none"
            noun, whose = ("layers", "their") if count > 1 else ("layer", "its")
            return f"{noun} {which} of {total} isolated: {whose} weight gradients are not computed"
        share = f"{100 * self.isolated_share:.0f} % of the LSTM's arcs"
        return f"{count} of {total} {self.zone}s isolated ({share}): {_SAVES[self.mode]}"

    def _refuse_everything(self) -> None:
        """Refuse a schedule that would isolate every zone before the first step, not when it gets there."""
        peak = max(self.schedule(i / 100) for i in range(101))
        chosen = select({zone_map.name: zone_map.depth for zone_map in self._maps}, peak, self.scope)
        if not any(bool(active.any()) for active in chosen.values()):
            count = sum(zone_map.count for zone_map in self._maps)
            raise InputError(
                f"schedule: fraction={peak} would isolate all of the {count} zones of kind {self.zone!r}: "
                "nothing would train; lower the fraction"
            )

    @property
    def state_key(self) -> str:
        return f"Isolation(zone={self.zone!r}, modules={self.modules!r})"

    def state_dict(self) -> dict[str, Any]:
        return {
            "fraction": self._fraction,
            "active": dict(self._active),
            "generator": self._generator.get_state(),
            "history": list(self.history),
            "seconds": self.seconds,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._fraction = state_dict["fraction"]
        self._active = dict(state_dict["active"])
        self._generator.set_state(state_dict["generator"])
        self.history = list(state_dict["history"])
        self.seconds = state_dict["seconds"]


def _require(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InputError(f"{name}={value!r} is unknown; choose one of {', '.join(known)}")
