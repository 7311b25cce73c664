"""The Lightning callbacks: isolation by zones, and two that measure: the adaptive horizon, the adaptive credit."""

import logging
import math
import time
from collections.abc import Callable, Iterable
from typing import Any, Union

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from isotrain.errors import InputError
from isotrain.isolation.isolator import Isolator
from isotrain.isolation.record import Record
from isotrain.isolation.settings import Policy
from isotrain.isolation.zones import chosen_modules, zones
from isotrain.lstm import LSTM
from isotrain.lstm.horizon import LADDER, CreditMeasurement, Horizon, Measurement

log = logging.getLogger(__name__)


Chooser = Union["Isolation", "AdaptiveHorizon", "AdaptiveCredit"]


def callback_of(policy: Policy, *, window: int, seed: int) -> Chooser:
    """The callback that does what ``policy`` asks, for windows of ``window`` time steps."""
    if not policy.measured:
        return Isolation(policy, window=window, seed=seed)
    return (AdaptiveHorizon if policy.zone == "step" else AdaptiveCredit)(policy, window=window)


def _say_if_never(chooser: "Isolation | _Measured", trainer: pl.Trainer) -> None:
    """Warn if a training ended, perhaps early, without anything isolated."""
    schedule = chooser.policy.schedule
    if schedule.fraction and not chooser.history:
        log.warning(
            "the training ended after step %d and nothing was isolated: schedule %s begins at %.0f %% of it",
            trainer.global_step, schedule.shape, 100 * schedule.start,
        )  # fmt: skip


class Isolation(pl.Callback):
    """Isolates zones while a model trains.

    It chooses just before an optimiser step, where gradients are complete, accumulated, but *not yet
    clipped* (Lightning runs the backward inside ``optimizer.step(closure)`` and clips after this hook). With several
    processes all follow the choice of the first.

    Args:
        policy: what, how and when.
        window: time steps of a window, for zone ``"step"``.
        seed: of the criteria that draw at random.

    Attributes:
        isolator: does the work; None until a fit starts. Its ``history``, ``record``, ``seconds`` and
            ``isolated_share`` can be read here.

    Raises:
        InputError: when the fit starts, as :class:`Isolator` does; for a trainer
            without a planned end, several optimisers, or layers left without gradient where processes wait for it.

    Example:
        >>> from isotrain.isolation import MaskedAdam, Schedule
        >>> class Line(pl.LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layer = torch.nn.Linear(2, 8)
        ...     def training_step(self, batch, index):
        ...         return self.layer(batch).square().mean()
        ...     def configure_optimizers(self):
        ...         return MaskedAdam(self.parameters())
        >>> policy = Policy("unit", "masked", "random", Schedule(fraction=0.5, start=0.0), every=1)
        >>> isolation = Isolation(policy)
        >>> trainer = pl.Trainer(max_steps=3, callbacks=[isolation], accelerator="cpu", barebones=True)
        >>> trainer.fit(Line(), torch.utils.data.DataLoader(torch.randn(12, 2), batch_size=4))
        >>> isolation.isolator.isolated_share
        0.5
    """

    def __init__(self, policy: Policy, *, window: int | None = None, seed: int = 0) -> None:
        self.policy, self.window, self.seed = policy, window, seed
        self.isolator: Isolator | None = None
        self._saved: dict[str, Any] | None = None
        self._loss: Tensor | None = None
        self._planned: float = 0

    @property
    def history(self) -> list[dict[str, Any]]:
        return self.isolator.history if self.isolator else []

    @property
    def record(self) -> Record:
        return self._isolator.record

    @property
    def isolated_share(self) -> float:
        return self.isolator.isolated_share if self.isolator else 0.0

    @property
    def seconds(self) -> float:
        return self.isolator.seconds if self.isolator else 0.0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if len(trainer.optimizers) != 1:
            raise InputError(
                f"isolation needs one optimiser, there are {len(trainer.optimizers)}: give each its own fit"
            )
        self._refuse_waiting(trainer)
        together = {"agree": trainer.strategy.broadcast} if trainer.world_size > 1 else {}
        self.isolator = Isolator(
            pl_module, trainer.optimizers[0], self.policy, window=self.window, seed=self.seed, **together
        )
        if self._saved is not None:
            self.isolator.load_state_dict(self._saved)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._planned = trainer.estimated_stepping_batches
        if not 0 < self._planned < float("inf"):
            raise InputError("the schedule needs the length of training: give the Trainer max_steps or max_epochs")
        self._isolator.start()

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        if self.policy.schedule.waits:  # all processes must see it stop improving at the same step
            several = trainer.world_size > 1
            self._loss = trainer.strategy.reduce(loss.detach().clone(), reduce_op="mean") if several else loss.detach()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        self._isolator.before_step(trainer.global_step, int(self._planned), loss=self._loss)

    def reads(self, step: int) -> bool:
        """Whether this step must be run as it is written: :meth:`Isolator.reads`."""
        return self._isolator.reads(step)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._isolator.finish()
        _say_if_never(self, trainer)

    def on_exception(self, *_: Any) -> None:
        if self.isolator is not None:
            self.isolator.finish()

    @property
    def _isolator(self) -> Isolator:
        assert self.isolator is not None, "on_fit_start comes first"
        return self.isolator

    def _refuse_waiting(self, trainer: pl.Trainer) -> None:
        """DistributedDataParallel waits for the gradient of every parameter, those of isolated layers too."""
        strategy = trainer.strategy
        leaves_out = self.policy.mode != "masked" and self.policy.zone == "layer"
        waits = isinstance(strategy, DDPStrategy) and not strategy._ddp_kwargs.get("find_unused_parameters", False)
        if leaves_out and waits:
            raise InputError(
                "isolated layers get no gradient, and the other processes would wait for it: use "
                "strategy='ddp_find_unused_parameters_true', or mode='masked'"
            )

    @property
    def state_key(self) -> str:
        return f"Isolation(zone={self.policy.zone!r}, modules={self.policy.modules!r})"

    def state_dict(self) -> dict[str, Any]:
        return self.isolator.state_dict() if self.isolator else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved = state_dict or None


class _Measured(pl.Callback):
    """What decides by measurements of whole steps: when to attach one, and that all LSTMs follow.

    A subclass says when a measurement is due, makes it, and turns it into what is isolated until the next.
    """

    zone: str

    def __init__(self, policy: Policy, window: int) -> None:
        self.policy, self.window = policy, window
        self.history: list[dict[str, Any]] = []
        self.seconds = 0.0
        self.record = Record([])
        self._lstms: list[LSTM] = []
        self._measurement: Measurement | CreditMeasurement | None = None
        self._mean: Callable[[Tensor], Tensor] = lambda gradient: gradient  # over all processes

    def _due(self, step: int) -> bool:
        raise NotImplementedError

    def _measurement_of(self, lstms: list[LSTM]) -> Measurement | CreditMeasurement:
        raise NotImplementedError

    def _observe(self, step: int, measured: Any) -> dict[str, Any]:
        """Decide; returns the entry of the history."""
        raise NotImplementedError

    def _isolate(self) -> None:
        raise NotImplementedError

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        found: dict[str, nn.Module] = chosen_modules(pl_module, self.policy.modules)
        for name, module in found.items():
            if not isinstance(module, LSTM):
                raise InputError(
                    f"{name!r} is a {type(module).__name__}: criterion 'neglected' needs isotrain.lstm.LSTM"
                )
        self._lstms = [module for module in found.values() if isinstance(module, LSTM)]
        if trainer.world_size > 1:
            self._mean = lambda gradient: trainer.strategy.reduce(gradient.clone(), reduce_op="mean")
        entries = self.record.entries  # of a checkpoint
        self.record = Record(zones(pl_module, self.zone, modules=self.policy.modules, window=self.window))
        self.record.entries = entries
        self._isolate()

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if self._measurement is None and self._due(trainer.global_step):
            for lstm in self._lstms:
                lstm.isolate()
            self._measurement = self._measurement_of(self._lstms)
            self._measurement.attach()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        if self._measurement is None:
            return
        start = time.perf_counter()
        entry = self._observe(trainer.global_step, self._detach())
        self._isolate()
        seconds = time.perf_counter() - start
        self.seconds += seconds
        self.history.append({**entry, "seconds": seconds})

    def reads(self, step: int) -> bool:
        """Whether this step is measured, and must be run as it is written."""
        return self._measurement is not None

    def on_exception(self, *_: Any) -> None:
        if self._measurement is not None:
            self._detach()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Thaw: the model outlives this training."""
        for lstm in self._lstms:
            lstm.isolate()
        _say_if_never(self, trainer)

    def _detach(self) -> Any:
        assert self._measurement is not None
        measured, self._measurement = self._measurement, None
        measured.detach()
        return measured

    def state_dict(self) -> dict[str, Any]:
        return {"history": list(self.history), "record": list(self.record.entries), "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history, self.seconds = list(state_dict["history"]), state_dict["seconds"]
        self.record.entries = list(state_dict["record"])


class AdaptiveHorizon(_Measured):
    """Isolates the time steps older than k, and measures every so often how small k may be.

    A step that measures runs the whole backward (:class:`isotrain.lstm.horizon.Measurement`) and trains with it; the
    steps after it run over the last k, the smallest rung that neglects at most ``tolerance`` of the gradient.

    Args:
        policy: of zone ``"step"`` and criterion ``"neglected"``. It gives the shortest horizon (``steps``), the
            ``tolerance`` (share of the norm of the LSTM's weight gradient that may be neglected), the optimiser steps
            from one measurement to the next (``every``) and the names of the LSTMs (``modules``; None: every one).
        window: time steps of a window.
        ladder: horizons to choose from; those below the shortest or beyond the window are left out.

    Attributes:
        history: one entry a measurement: ``step``, ``steps`` (the horizon chosen; None = all), ``neglected`` (rung,
            in digits -> share), ``share`` (of the time steps isolated), ``churn`` (of those that changed state),
            ``seconds`` (of the choice alone).
        record: the horizons chosen, as pictures.

    Raises :class:`InputError` for a bad ladder, tolerance or interval, and for LSTMs that cannot isolate.

    Example:
        >>> policy = Policy("step", "exact", "neglected", steps=12, tolerance=0.1, every=20)
        >>> horizon = AdaptiveHorizon(policy, window=168, ladder=(12, 24, 48))
        >>> horizon.history  # one entry a measurement, once a trainer has it among its callbacks
        []
    """

    zone = "step"

    def __init__(
        self,
        policy: Policy,
        *,
        window: int,
        ladder: Iterable[int] = LADDER,
    ) -> None:
        super().__init__(policy, window)
        if not policy.measured:
            raise InputError(f"criterion={policy.criterion!r} measures no horizon: use 'neglected', or Isolation")
        rungs = [k for k in ladder if policy.steps <= k < window]
        self.horizon = Horizon([*rungs, window], policy.tolerance, policy.every)

    def _due(self, step: int) -> bool:
        return self.horizon.due(step)

    def _measurement_of(self, lstms: list[LSTM]) -> Measurement:
        return Measurement(lstms, self.horizon.ladder)

    def _observe(self, step: int, measured: Measurement) -> dict[str, Any]:
        before = self.horizon.steps
        self.horizon.observe(step, measured.neglected(self._mean))
        steps = self.horizon.steps
        share = 1 - (steps or self.window) / self.window
        entry = self.horizon.history[-1]
        neglected = {str(k): part for k, part in entry["neglected"].items()}  # as JSON will have it
        churn = abs(share - (1 - (before or self.window) / self.window))
        age = torch.arange(self.window, 0, -1)
        self.record.add(step, {"time": age <= (steps or self.window)}, {"time": age.double() / 0})
        if steps != before:
            log.info("step %d: backward over the last %s of %d time steps", step, steps, self.window)
        return {**entry, "neglected": neglected, "share": share, "churn": churn}

    def _isolate(self) -> None:
        for lstm in self._lstms:
            lstm.isolate(steps=self.horizon.steps)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"horizon": self.horizon.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.horizon.load_state_dict(state_dict["horizon"])


class AdaptiveCredit(_Measured):
    """Leaves credit out until that neglects too much of the gradient, and then gives it back for good.

    As a network learns to remember, the share of its gradient that passes from step to step grows. Every so often a
    step runs whole, measures the share that is neglected (:class:`isotrain.lstm.horizon.CreditMeasurement`) and trains
    with all of it. Once the mean of the last three measurements is above ``tolerance``, and at the latest at the
    schedule's ``stop``, everything trains.

    Args:
        policy: of zone ``"credit"`` and criterion ``"neglected"``. It gives the ``mode`` (``"cell"``, ``"none"``), the
            ``tolerance`` (share of the norm of the LSTM's weight gradient that may be neglected), the optimiser steps
            from one measurement to the next (``every``), the schedule's ``start`` and ``stop`` (before and after them
            everything trains) and the names of the LSTMs (``modules``; None: every one).
        window: of no use here.

    Attributes:
        history: one entry a measurement: ``step``, ``neglected`` (the share), ``share`` (of the layers whose credit is
            left out, 1 or 0), ``churn``, ``seconds`` (of the choice alone).
        record: the same as pictures.

    Raises :class:`InputError` for LSTMs that cannot leave credit out.
    """

    zone = "credit"

    def __init__(self, policy: Policy, *, window: int = 1) -> None:
        super().__init__(policy, window)
        self._isolated = False
        self._thawed = False
        self._planned = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._planned = trainer.estimated_stepping_batches

    def on_train_batch_start(self, trainer: pl.Trainer, *others: Any) -> None:
        progress, schedule = trainer.global_step / self._planned, self.policy.schedule
        if self._thawed or self._measurement is not None:
            return
        if progress >= schedule.stop and schedule.stop < 1:
            self._thaw(trainer.global_step, "the schedule stops")
            self._isolate()
        elif progress >= schedule.start:
            super().on_train_batch_start(trainer, *others)

    def _due(self, step: int) -> bool:
        return not self.history or step >= self.history[-1]["step"] + self.policy.every

    def _measurement_of(self, lstms: list[LSTM]) -> CreditMeasurement:
        return CreditMeasurement(lstms, credit=self.policy.mode)  # type: ignore[arg-type]

    def _observe(self, step: int, measured: CreditMeasurement) -> dict[str, Any]:
        before, share = self._isolated, measured.neglected(self._mean)
        known = [entry["neglected"] for entry in self.history if entry["neglected"] is not None]
        recent = [*known, share][-3:]
        self._isolated = True
        if len(recent) == 3 and sum(recent) / 3 > self.policy.tolerance:
            self._thaw(step, f"{sum(recent) / 3:.0%} of the gradient is neglected")
        layers = sum(lstm.num_layers for lstm in self._lstms)
        active = torch.full((layers,), not self._isolated)
        self.record.add(step, {"credit": active}, {"credit": active.double() / 0})
        said = share if math.isfinite(share) else None  # the gradient was zero, as it is before the layer above moves
        return {
            "step": step,
            "neglected": said,
            "share": float(self._isolated),
            "churn": float(before != self._isolated),
        }

    def _thaw(self, step: int, why: str) -> None:
        self._thawed, self._isolated = True, False
        log.info("step %d: credit through time is given back: %s", step, why)

    def _isolate(self) -> None:
        for lstm in self._lstms:
            lstm.isolate(credit=self.policy.mode if self._isolated else "full")  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"isolated": self._isolated, "thawed": self._thawed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._isolated, self._thawed = state_dict["isolated"], state_dict["thawed"]
