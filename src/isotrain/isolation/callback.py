"""The Lightning callback: when the isolator is asked, and what is saved. The choices are :class:`.Isolator`'s."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor
from torch.optim import Optimizer

from isotrain.errors import InputError
from isotrain.isolation.criteria import Criterion
from isotrain.isolation.isolator import Isolator
from isotrain.isolation.pictures.record import Record
from isotrain.isolation.policy import Policy
from isotrain.isolation.schedules import Schedule


class Isolation(pl.Callback):
    """Isolates zones while a model trains.

    It chooses just before an optimiser step, where gradients are complete, accumulated, but *not yet
    clipped* (Lightning runs the backward inside ``optimizer.step(closure)`` and clips after this hook). With several
    processes all follow the choice of the first.

    Args:
        zone, criterion, schedule, settings: those of :class:`Policy`.

    Attributes:
        policy: the settings as one value.
        isolator: does the work; None until a fit starts. Its ``history``, ``record``, ``seconds`` and
            ``isolated_share`` can be read here.

    Raises:
        InputError: on construction or when the fit starts, as :class:`Policy` and :class:`Isolator` do; for a trainer
            without a planned end, several optimisers, or layers left without gradient where processes wait for it.
    """

    def __init__(self, zone: str, criterion: str | Criterion, schedule: Schedule, **settings: Any) -> None:
        self.policy = Policy(zone, criterion, schedule, **settings)
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
        self.isolator = Isolator(pl_module, trainer.optimizers[0], self.policy, **together)
        if self._saved is not None:
            self.isolator.load_state_dict(self._saved)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._planned = trainer.estimated_stepping_batches
        if not 0 < self._planned < float("inf"):
            raise InputError("the schedule needs the length of training: give the Trainer max_steps or max_epochs")
        self._isolator.start()

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._isolator.before_batch(trainer.global_step)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        if self.policy.schedule_waits:  # all processes must see it stop improving at the same step
            several = trainer.world_size > 1
            self._loss = trainer.strategy.reduce(loss.detach().clone(), reduce_op="mean") if several else loss.detach()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        self._isolator.before_step(
            trainer.global_step, int(self._planned), epoch=trainer.current_epoch, loss=self._loss
        )

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
