"""The Lightning callbacks: isolation by zones, and the adaptive horizon."""

import logging
import time
from collections.abc import Iterable
from typing import Any

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
from isotrain.lstm.horizon import LADDER, Horizon, Measurement

log = logging.getLogger(__name__)


def callback_of(policy: Policy, *, window: int, seed: int) -> "Isolation | AdaptiveHorizon":
    """The callback that does what ``policy`` asks, for windows of ``window`` time steps."""
    return AdaptiveHorizon(policy, window=window) if policy.measured else Isolation(policy, window=window, seed=seed)


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

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._isolator.finish()

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


class AdaptiveHorizon(pl.Callback):
    """Isolates the time steps older than k, and measures every so often how small k may be.

    A step that measures runs the whole backward (:class:`isotrain.lstm.horizon.Measurement`) and trains with it; the
    steps after it run over the last k, the smallest rung that neglects at most ``tolerance`` of the gradient.

    Args:
        policy: of criterion ``"neglected"``. It gives the shortest horizon (``steps``), the ``tolerance`` (share of the
            norm of the LSTM's weight gradient that may be neglected), the optimiser steps from one measurement to
            the next (``every``) and the names of the LSTMs (``modules``; None: every one).
        window: time steps of a window.
        ladder: horizons to choose from; those below the shortest or beyond the window are left out.

    Attributes:
        history: one entry a measurement: ``step``, ``steps`` (the horizon chosen; None = all), ``neglected`` (rung,
            in digits -> share), ``share`` (of the time steps isolated), ``churn`` (of those that changed state),
            ``seconds`` (of the choice alone).
        record: the horizons chosen, as pictures.

    Raises :class:`InputError` for a bad ladder, tolerance or interval, and for LSTMs that cannot isolate.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        window: int,
        ladder: Iterable[int] = LADDER,
    ) -> None:
        if not policy.measured:
            raise InputError(f"criterion={policy.criterion!r} measures no horizon: use 'neglected', or Isolation")
        self.window, self.modules = window, policy.modules
        rungs = [k for k in ladder if policy.steps <= k < window]
        self.horizon = Horizon([*rungs, window], policy.tolerance, policy.every)
        self.history: list[dict[str, Any]] = []
        self.seconds = 0.0
        self.record = Record([])
        self._lstms: list[LSTM] = []
        self._measurement: Measurement | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        found: dict[str, nn.Module] = chosen_modules(pl_module, self.modules)
        for name, module in found.items():
            if not isinstance(module, LSTM):
                raise InputError(f"{name!r} is a {type(module).__name__}: an adaptive horizon needs isotrain.lstm.LSTM")
        self._lstms = [module for module in found.values() if isinstance(module, LSTM)]
        entries = self.record.entries  # of a checkpoint
        self.record = Record(zones(pl_module, "step", modules=self.modules, window=self.window))
        self.record.entries = entries
        self._isolate()

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if self._measurement is None and self.horizon.due(trainer.global_step):
            for lstm in self._lstms:
                lstm.isolate()
            self._measurement = Measurement(self._lstms, self.horizon.ladder)
            self._measurement.attach()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        if self._measurement is None:
            return
        start = time.perf_counter()
        before = self.horizon.steps
        measured = self._detach()
        self.horizon.observe(trainer.global_step, measured.neglected())
        self._isolate()
        seconds = time.perf_counter() - start
        self.seconds += seconds
        steps = self.horizon.steps
        share = 1 - (steps or self.window) / self.window
        entry = self.horizon.history[-1]
        neglected = {str(k): part for k, part in entry["neglected"].items()}  # as JSON will have it
        churn = abs(share - (1 - (before or self.window) / self.window))
        measured_now = {**entry, "neglected": neglected, "share": share, "churn": churn, "seconds": seconds}
        self.history.append(measured_now)
        age = torch.arange(self.window, 0, -1)
        self.record.add(trainer.global_step, {"time": age <= (steps or self.window)}, {"time": age.double() / 0})
        if steps != before:
            log.info("step %d: backward over the last %s of %d time steps", trainer.global_step, steps, self.window)

    def on_exception(self, *_: Any) -> None:
        if self._measurement is not None:
            self._detach()

    def on_fit_end(self, *_: Any) -> None:
        """Thaw: the model outlives this training."""
        for lstm in self._lstms:
            lstm.isolate()

    def _detach(self) -> Measurement:
        assert self._measurement is not None
        measured, self._measurement = self._measurement, None
        measured.detach()
        return measured

    def _isolate(self) -> None:
        for lstm in self._lstms:
            lstm.isolate(steps=self.horizon.steps)

    def state_dict(self) -> dict[str, Any]:
        return {
            "horizon": self.horizon.state_dict(),
            "history": list(self.history),
            "record": list(self.record.entries),
            "seconds": self.seconds,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.horizon.load_state_dict(state_dict["horizon"])
        self.history, self.seconds = list(state_dict["history"]), state_dict["seconds"]
        self.record.entries = list(state_dict["record"])
