"""The isolator: what is isolated now, chosen by a policy, and the optimiser and the modules that must know it."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from isotrain.errors import InputError
from isotrain.isolation.criteria import CRITERIA, Criterion, ZoneView, neglected_update, view_of
from isotrain.isolation.record import Record
from isotrain.isolation.saving import describe, isolated_share
from isotrain.isolation.selection import select
from isotrain.isolation.settings import Policy
from isotrain.isolation.zonemap import ZoneMap
from isotrain.isolation.zones import zones
from isotrain.lstm import LSTM

log = logging.getLogger(__name__)
Active = Mapping[str, Tensor]  # zone map -> bool a zone, True = updated


def isolate(
    lstm: LSTM,
    optimizer: Optimizer,
    *,
    units: Iterable[int] = (),
    layer: int | Iterable[int] = (),
    steps: int | None = None,
    mode: str = "exact",
    credit: str | Mapping[int, str] = "full",
) -> None:
    """Isolate parts of one LSTM, in its backward and in its optimiser at once; with no part named all is active again.

    For a training loop of one's own that chooses by itself; :class:`Isolator` chooses by a policy. Call it between an
    optimiser's step and the next forward: what has just been thawed has no gradient yet.

    Args:
        lstm: the network, or a part of it.
        optimizer: trains the LSTM and can leave weights out (:class:`.optimisers.MaskedAdam`). Isolated weights and
            their moments stay as they are, bit for bit.
        units: hidden units to isolate, in every layer.
        layer: layers to isolate, 0 being nearest the input.
        steps: the backward covers the last ``steps`` time steps only. No weight is isolated by that.
        mode: of the units: ``"exact"``, ``"cut"`` or ``"autonomous"`` (:meth:`isotrain.lstm.LSTM.isolate`).
        credit: what a step sends to the step before: ``"full"``, ``"cell"`` or ``"none"``, or a mapping from layer to
            it. No weight is isolated by that either.

    Raises:
        InputError: an optimiser that cannot leave weights out or does not train the LSTM, units or layers that do not
            exist, or settings that do not go together. Nothing is changed then.

    Example:
        >>> from isotrain.isolation import MaskedAdam
        >>> lstm = LSTM(3, 4)
        >>> optimizer = MaskedAdam(lstm.parameters())
        >>> isolate(lstm, optimizer, units=[0, 1], mode="cut")
        >>> optimizer.active(lstm.bias_ih_l0)[:4].tolist()
        [False, False, True, True]
        >>> isolate(lstm, optimizer)
        >>> bool(optimizer.active(lstm.bias_ih_l0).all())
        True
    """
    parameters = dict(lstm.named_parameters())
    _require_masking(optimizer, parameters)
    units = list(units)
    names: Any = {"mode": mode, "credit": credit}  # it checks them itself
    lstm.isolate(layer=layer, units=units, steps=steps, **names)
    active = {name: torch.ones(len(p), dtype=torch.bool) for name, p in parameters.items()}
    layers = {layer} if isinstance(layer, int) else set(layer)
    for name, rows in active.items():
        rows.reshape(4, -1)[:, units] = False
        if int(name.rsplit("_l", 1)[1]) in layers:
            rows.fill_(False)
        masked: Any = optimizer
        masked.set_active(parameters[name], rows.reshape(-1, *[1] * (parameters[name].dim() - 1)))


class IsolatingModules:
    """The modules that leave gradients uncomputed. In mode ``"masked"`` there are none.

    A module is instructed by its ``isolate(layer=, units=, mode=, steps=, credit=)``. One without it can have whole
    layers isolated all the same: their parameters require no gradient meanwhile, so that autograd computes none, and
    stops above what is isolated from the input upwards. Only cuDNN computes the gradients of a stack of recurrent
    layers together: on a GPU that saves nothing within one ``nn.GRU`` of several layers, and all of it between several.

    Raises:
        InputError: units, steps or credit of a module without ``isolate``.
    """

    def __init__(self, model: nn.Module, policy: Policy, maps: Sequence[ZoneMap]) -> None:
        self._policy, self._maps = policy, maps
        names = dict.fromkeys(name for zone_map in maps for name, _ in zone_map.layers)
        modules = dict(model.named_modules())
        self._modules = {name: modules[name] for name in names} if policy.mode != "masked" else {}
        for name, module in self._modules.items():
            if not hasattr(module, "isolate") and policy.zone != "layer":
                instead = "" if policy.unfolded else ", or mode='masked'"
                raise InputError(
                    f"mode={policy.mode!r} cannot isolate in {name or 'the module'!r}: {type(module).__name__} has "
                    f"no isolate(); use isotrain.lstm.LSTM{instead}"
                )
        without = {name for name, module in self._modules.items() if not hasattr(module, "isolate")}
        owned = {key for m in maps for layer in m.covered if layer.module in without for key in layer.parts}
        self._switched = {key: p for key, p in model.named_parameters() if key in owned}

    def apply(self, active: Active) -> None:
        """Isolate this from now on, and nothing else."""
        for name, module in self._modules.items():
            if hasattr(module, "isolate"):
                module.isolate(**self._arguments(name, active))
        for zone_map in self._maps if self._switched else ():
            for key, trains in zone_map.expand(active[zone_map.name]).items():
                if key in self._switched:
                    self._switched[key].requires_grad_(bool(trains))

    def _arguments(self, module: str, active: Active) -> dict[str, Any]:
        """What ``module.isolate`` is called with; nothing thaws it."""
        isolated = [(m, active[m.name]) for m in self._maps if not active[m.name].all()]
        if not isolated:
            return {}
        if self._policy.zone == "step":
            return {"steps": int(isolated[0][1].sum())}
        if self._policy.zone == "credit":
            return {"credit": dict.fromkeys(self._isolated_layers(active).get(module, ()), self._policy.mode)}
        if self._policy.zone == "layer":
            return {"layer": tuple(self._isolated_layers(active).get(module, ()))}
        units = {
            index: (~choice).nonzero().flatten()
            for zone_map, choice in isolated
            for name, index in zone_map.layers
            if name == module
        }
        return {"units": units, "mode": self._policy.mode}

    def _isolated_layers(self, active: Active) -> dict[str, list[int]]:
        """Module -> its isolated layers."""
        found: dict[str, list[int]] = {}
        for zone_map in self._maps:
            for (name, index), trains in zip(zone_map.layers, active[zone_map.name].tolist(), strict=True):
                if not trains:
                    found.setdefault(name, []).append(index)
        return found


class Isolator:
    """Isolates zones of ``model`` as ``policy`` says. Call :meth:`before_step` before each optimiser step.

    Between selections it does nothing: it reads no parameter and waits for no device.

    Args:
        model: parameters are named as in its ``named_parameters()``.
        optimiser: holds them, and has ``set_active`` (:class:`MaskedAdam`, :data:`MASKED`). Zones ``"step"`` and
            ``"credit"`` take any.
        policy: what, how and when.
        window: time steps of a window, for zone ``"step"``.
        seed: of the criteria that draw at random.
        agree: given the choice of this process (zone map -> bool tensor), returns the one to follow; for several
            processes that must isolate alike.

    Attributes:
        active: zone map -> bool a zone, True = updated.
        history: one entry a change: ``step``, ``fraction`` (asked), ``share`` (of the weights, isolated), ``churn``
            (share of the zones that changed state), ``neglected`` (share of the norm of the coming Adam update that
            falls on isolated zones; by their moments alone where their gradient is not computed; absent for zones
            without weights and for optimisers without moments), ``seconds`` (that the selection took).
        record: the same changes as pictures and distributions.
        seconds: that all selections took.

    Raises:
        InputError: an optimiser that cannot mask or lacks a parameter, a criterion that needs moments it does not
            keep, a module that cannot isolate, or a schedule that would leave nothing to train.

    Example:
        >>> from isotrain.isolation import MaskedAdam, Schedule
        >>> model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> optimiser = MaskedAdam(model.parameters())
        >>> policy = Policy("layer", "exact", schedule=Schedule(fraction=0.5, start=0.0))
        >>> isolator = Isolator(model, optimiser, policy)
        >>> for step in range(3):
        ...     optimiser.zero_grad()
        ...     model(torch.randn(4, 2)).square().mean().backward()
        ...     isolator.before_step(step, steps=3)
        ...     optimiser.step()
        >>> isolator.active["layers"].tolist()
        [False, True]
    """

    def __init__(
        self,
        model: nn.Module,
        optimiser: Optimizer,
        policy: Policy,
        *,
        window: int | None = None,
        seed: int = 0,
        agree: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda choice: choice,
    ) -> None:
        if policy.measured:
            raise InputError("criterion='neglected' is measured: use isotrain.isolation.callback_of(policy)")
        self.policy, self.optimiser = policy, optimiser
        self.maps = zones(model, policy.zone, modules=policy.modules, window=window, tile=policy.tile)
        self.active = _all_active(self.maps)
        self.history: list[dict[str, Any]] = []
        self.record = Record(self.maps)
        self.seconds = 0.0
        self._agree = agree
        self._window = window
        self._modules = IsolatingModules(model, policy, self.maps)
        self._score = criterion_of(policy)
        self._parameters = {name: p for name, p in model.named_parameters() if any(name in m.zone for m in self.maps)}
        self._cost = {zone_map.name: zone_map.cost(policy.count) for zone_map in self.maps}
        self._fraction = 0.0
        self._thawing = False
        self._last_check: int | None = None
        self._losses: list[Tensor] = []
        self._monitored: list[float] = []
        self._triggered: float | None = None
        self._generator = torch.Generator().manual_seed(seed)
        self._memory: dict[str, dict[str, Tensor]] = {zone_map.name: {} for zone_map in self.maps}
        if not policy.unfolded:
            _require_masking(optimiser, self._parameters)
            _require_moments(optimiser, policy)
        self._refuse_everything()

    @property
    def isolated_share(self) -> float:
        """The share isolated now of the weights, the time steps or the layers: :func:`isolated_share`."""
        return isolated_share(self.maps, self.active)

    def start(self) -> None:
        """Instruct the optimiser and the modules again: after :meth:`load_state_dict`."""
        self._update_optimiser(self.active)
        self._modules.apply(self.active)

    def before_step(self, step: int, steps: int, *, loss: Tensor | None = None) -> None:
        """Choose what is isolated, if a selection is due; gradients must be complete, and not yet clipped.

        Args:
            step: optimiser steps done.
            steps: optimiser steps planned.
            loss: of this step, for a schedule that waits for a plateau. It is read at the selections only.

        Raises:
            InputError: a score is not a number; a schedule that waits for a plateau was given no loss.
        """
        if self._thawing:  # the gradient of this step is the first to cover them
            self._thawing = False
            self._update_optimiser(self.active)
        if loss is not None and self.policy.schedule.waits:
            self._losses.append(loss.detach())
        if step % self.policy.every or step == self._last_check:
            return
        self._last_check = step
        start = time.perf_counter()
        entry = self._choose(step, self._scheduled(min(1.0, step / steps)))
        seconds = time.perf_counter() - start
        self.seconds += seconds
        if entry is not None:
            self.history.append({**entry, "seconds": seconds})

    def reads(self, step: int) -> bool:
        """Whether :meth:`before_step` will read gradients or the loss of this step, or change what is isolated.

        Between such steps a training step is the same each time, and can be a CUDA graph
        (:mod:`isotrain.lstm.graphs`).
        """
        waits = self.policy.schedule.waits and self._triggered is None
        return waits or self._thawing or (step % self.policy.every == 0 and step != self._last_check)

    def finish(self) -> None:
        """Thaw the modules: the model outlives this training, and its next may know nothing of isolation."""
        self._modules.apply(_all_active(self.maps))

    def _scheduled(self, progress: float) -> float:
        """The fraction for now; 0 as long as the schedule waits for the loss to stop improving."""
        schedule = self.policy.schedule
        if not schedule.waits:
            return self.policy.fraction(schedule, progress, self._window)
        if self._triggered is None:
            if not self._losses:
                raise InputError(
                    "this schedule waits for a plateau of the loss: hand it in, before_step(..., loss=loss)"
                )
            self._monitored.append(float(torch.stack(self._losses).mean()))
            self._losses.clear()
            if progress < schedule.start or not schedule.triggered(self._monitored):
                return 0.0
            self._triggered = progress
            log.info("the loss has stopped improving at %.0f %% of the training: isolation begins", 100 * progress)
        return self.policy.fraction(schedule.since(self._triggered), progress, self._window)

    def _choose(self, step: int, fraction: float) -> dict[str, Any] | None:
        policy, before, asked_before = self.policy, self.active, self._fraction
        chooses = fraction != asked_before or (
            fraction > 0 and not policy.autonomous
        )  # whose trajectories are remembered
        if not chooses and not getattr(self._score, "remembers", False):
            return None
        views = {} if policy.unfolded else {zone_map.name: self._view(zone_map) for zone_map in self.maps}
        scores = {m.name: self._score(views[m.name]) if views else m.depth for m in self.maps}
        if not chooses:
            return None
        self.active = self._agree(self._select(scores, fraction))
        self._fraction = fraction
        changed = sum(int((before[name] ^ active).sum()) for name, active in self.active.items())
        if changed:
            self._apply(before)
        if fraction != asked_before:
            log.info("step %d: %s", step, describe(policy, self.maps, self.active))
        if not changed and fraction == asked_before:
            return None
        self.record.add(step, self.active, scores)
        entry = {"step": step, "fraction": fraction, "share": self.isolated_share}
        entry["churn"] = changed / sum(len(active) for active in self.active.values())
        return entry | self._neglected(views)

    def _view(self, zone_map: ZoneMap) -> ZoneView:
        known = None if self.policy.mode == "masked" else self.active[zone_map.name]
        memory = self._memory[zone_map.name]
        return view_of(zone_map, self._parameters, self.optimiser, self._generator, known=known, memory=memory)

    def _select(self, scores: dict[str, Tensor], fraction: float) -> dict[str, Tensor]:
        policy = self.policy
        chosen = select(
            {name: score.cpu() for name, score in scores.items()},
            fraction,
            policy.scope,
            cost=None if policy.count == "zones" else self._cost,
            before=self.active,
            thaw=policy.thaw,
            churn=policy.churn,
        )
        return {name: active.cpu() for name, active in chosen.items()}

    def _apply(self, before: dict[str, Tensor]) -> None:
        self._modules.apply(self.active)
        both = {name: before[name] & now for name, now in self.active.items()}
        # A zone thawed now has no gradient yet where it was not computed: the optimiser leaves it for this step.
        self._thawing = self.policy.mode != "masked" and any(
            not torch.equal(both[name], now) for name, now in self.active.items()
        )
        self._update_optimiser(both if self._thawing else self.active)

    def _update_optimiser(self, active: dict[str, Tensor]) -> None:
        optimiser: Any = self.optimiser
        for zone_map in self.maps:
            for name, mask in zone_map.expand(active[zone_map.name]).items():
                optimiser.set_active(self._parameters[name], mask)

    def _neglected(self, views: dict[str, ZoneView]) -> dict[str, float]:
        if not views or "betas" not in self.optimiser.defaults:
            return {}
        parts = [neglected_update(view, self.active[name]) for name, view in views.items()]
        whole = sum(every for _, every in parts)
        return {"neglected": (sum(isolated for isolated, _ in parts) / whole) ** 0.5 if whole else 0.0}

    def _refuse_everything(self) -> None:
        """Refuse a schedule that would isolate every zone before the first step, not when it gets there."""
        policy = self.policy
        if policy.zone == "credit":  # all weights train without it too
            return
        peak = max(policy.fraction(policy.schedule, i / 100, self._window) for i in range(101))
        chosen = self._select({zone_map.name: zone_map.depth for zone_map in self.maps}, peak)
        if not any(bool(active.any()) for active in chosen.values()):
            count = sum(zone_map.count for zone_map in self.maps)
            raise InputError(
                f"schedule: fraction={peak} would isolate all of the {count} zones of kind {self.policy.zone!r}: "
                "nothing would train; lower the fraction"
            )

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next selections depend on; plain types and tensors."""
        return {
            "criterion": _name_of(self.policy.criterion),
            "active": dict(self.active),
            "fraction": self._fraction,
            "thawing": self._thawing,
            "last_check": self._last_check,
            "losses": [float(loss) for loss in self._losses],
            "monitored": list(self._monitored),
            "triggered": self._triggered,
            "generator": self._generator.get_state(),
            "memory": {name: dict(memory) for name, memory in self._memory.items()},
            "history": list(self.history),
            "record": list(self.record.entries),
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state of :meth:`state_dict`, of the same model and policy; InputError if its zones differ."""
        counts = {zone_map.name: zone_map.count for zone_map in self.maps}
        if {name: len(active) for name, active in state["active"].items()} != counts:
            raise InputError(f"the checkpoint isolates in other zones than {counts}; resume it with the same model")
        if (before := state.get("criterion")) not in (None, now := _name_of(self.policy.criterion)):
            log.warning("the checkpoint was made with criterion %s; this training goes on with %s", before, now)
        self.active, self._fraction, self._thawing = dict(state["active"]), state["fraction"], state["thawing"]
        self._last_check, self._triggered = state["last_check"], state["triggered"]
        self._losses = [torch.tensor(loss) for loss in state["losses"]]
        self._monitored, self.history = list(state["monitored"]), list(state["history"])
        self._generator.set_state(state["generator"])
        self._memory = {name: dict(memory) for name, memory in state["memory"].items()}
        self.record.entries, self.seconds = list(state["record"]), state["seconds"]


def _all_active(maps: Sequence[ZoneMap]) -> dict[str, Tensor]:
    """The choice that isolates nothing."""
    return {zone_map.name: torch.ones(zone_map.count, dtype=torch.bool) for zone_map in maps}


def _name_of(criterion: Any) -> str:
    return criterion if isinstance(criterion, str) else getattr(criterion, "__name__", type(criterion).__name__)


def criterion_of(policy: Policy) -> Criterion:
    """The criterion of a policy, as a function."""
    return policy.criterion if callable(policy.criterion) else CRITERIA[policy.criterion]


def _require_masking(optimiser: Optimizer, parameters: Mapping[str, Tensor]) -> None:
    """InputError for an optimiser that cannot leave weights out of these parameters, by name."""
    name = type(optimiser).__name__
    if not hasattr(optimiser, "set_active"):
        raise InputError(
            f"optimiser {name} cannot leave weights out; use isotrain.isolation.MaskedAdam, or masked({name})"
        )
    held = {id(p) for group in optimiser.param_groups for p in group["params"]}
    missing = [known for known, p in parameters.items() if id(p) not in held]
    if missing:
        raise InputError(f"optimiser {name} does not hold {', '.join(missing)}: it cannot isolate zones there")


def _require_moments(optimiser: Optimizer, policy: Policy) -> None:
    if getattr(criterion_of(policy), "moments", False) and "betas" not in optimiser.defaults:
        raise InputError(
            f"criterion={policy.criterion!r} reads Adam's moments, and {type(optimiser).__name__} keeps none; use "
            "MaskedAdam, or a criterion of weights and gradients, such as 'snip'"
        )
