"""The Lightning module: loss, validation, optimiser. Which zones are isolated is decided by the callback."""

from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from isotrain.data.windows import stride_for
from isotrain.forecast.encoders import LSTMEncoder
from isotrain.forecast.network import Forecaster
from isotrain.forecast.stretches import Sampler, Stretches, cover
from isotrain.isolation.optimisers import MaskedAdam

VALIDATION_STRIDE, VALIDATED = 7, 10_000


class ForecastModule(pl.LightningModule):
    """Trains a :class:`Forecaster` with the L1 loss, in units of the training part's standard deviation.

    Args:
        net: the network, with the series that it reads.
        sampler: draws the stretches of each training step.
        validation: origins of the validation part, of which a fit uses one in :data:`VALIDATION_STRIDE` and at most
            about :data:`VALIDATED`.
        learning_rate, rise: the highest rate of the one-cycle schedule, and the share of the steps until it is reached.
        weight_decay: of matrices; biases have none.
        fused: whether the optimiser is PyTorch's fused one.
        masked: arguments of :class:`MaskedAdam`, which then takes the place of ``torch.optim.Adam``.
        share: the number of this process, and of all that train together (:mod:`isotrain.training.processes`).
    """

    def __init__(
        self,
        net: Forecaster,
        sampler: Sampler,
        validation: Tensor,
        *,
        learning_rate: float,
        rise: float,
        weight_decay: float,
        fused: bool,
        masked: dict[str, Any] | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        super().__init__()
        self.rank, self.processes = share
        self.net = net
        self.sampler = sampler
        self.validation = validation[:: stride_for(len(validation), VALIDATED, least=VALIDATION_STRIDE)]
        self.learning_rate = learning_rate
        self.fused = fused
        self.rise = rise
        self.weight_decay = weight_decay
        self.masked = masked
        self._errors: list[Tensor] = []
        self._last_loss = torch.tensor(torch.nan)

    def training_step(self, _: Any, batch_idx: int) -> Tensor:
        """The batch is a function of its number, so a resumed fit draws what it would have drawn."""
        self.net.encoder.before_step(batch_idx)
        at = self.sampler(batch_idx).to(self.device)
        loss = self.loss(at)
        self._last_loss = loss.detach()
        self.net.series.release()
        return loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What a resumed fit needs besides the weights: those that the states of the series were made with."""
        if isinstance(self.net.encoder, LSTMEncoder) and self.net.encoder.made_with:
            checkpoint["states_made_with"] = self.net.encoder.made_with

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The opposite of :meth:`on_save_checkpoint`."""
        if isinstance(self.net.encoder, LSTMEncoder):
            self.net.encoder.made_with = checkpoint.get("states_made_with")

    def loss(self, at: Stretches) -> Tensor:
        """Mean absolute error over the known target hours, each in its series' training standard deviation.

        Of several processes each runs its share of ``at`` and divides by what is known in all of it, so that the mean
        of their gradients, which DDP makes, is the gradient of one process.
        """
        truth = self.net.series.truth_at(at.origins)
        known_in_all = (~truth.isnan()).sum().clamp(min=1)
        at, truth = at.share(self.rank, self.processes), truth[self.rank :: self.processes]
        error = (self.net(at) - truth.nan_to_num()) * ~truth.isnan()
        scale = self.net.series.scale_at(at.origins)
        return self.processes * (error.abs() / scale[..., None]).sum() / known_in_all

    def validation_step(self, batch: tuple[Stretches, Tensor], _: int) -> None:
        at, position = batch
        real = (position >= 0).to(self.device)
        forecast = self.net(at.to(self.device))[real]
        truth = self.net.series.truth_at(at.to(self.device).origins[real])
        self._errors.append((forecast - truth).abs()[~truth.isnan()])  # unknown hours go, a diverged forecast stays
        self.net.series.release()

    def on_validation_epoch_end(self) -> None:
        errors = torch.cat(self._errors)
        self._errors.clear()
        error, loss = errors.mean(), self._last_loss
        if self.processes > 1:
            sums = torch.stack([errors.sum(dtype=torch.float64), errors.new_tensor(len(errors), dtype=torch.float64)])
            total, known = self.trainer.strategy.reduce(sums, reduce_op="sum")
            error, loss = (total / known).float(), self.trainer.strategy.reduce(loss.clone(), reduce_op="mean")
        self.log("val_mae", error, batch_size=1)
        self.log("train_loss", loss, batch_size=1)

    def forecast(self, origins: Tensor) -> Tensor:
        """:meth:`Forecaster.forecast` in the regime of the training."""
        return self.net.forecast(origins, self.sampler.regime)

    def train_dataloader(self) -> Iterable[int]:
        """As many numbers as there are steps: training_step draws its own batch."""
        return range(int(self.trainer.max_steps) * self.trainer.accumulate_grad_batches)

    def val_dataloader(self) -> Iterable[tuple[Stretches, Tensor]]:
        batches = list(cover(self.validation, self.sampler.regime, self.net.series.history))
        if len(batches) >= self.processes:  # else each takes all: their mean is the same
            batches = batches[self.rank :: self.processes]
        return DataLoader(batches, batch_size=None, collate_fn=_as_it_is)  # type: ignore[arg-type]  # Lightning takes a bare list for several loaders

    def configure_optimizers(self) -> Any:
        matrices = [p for p in self.parameters() if p.dim() > 1]
        others = [p for p in self.parameters() if p.dim() <= 1]
        groups = [
            {"params": matrices, "weight_decay": self.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        common: dict[str, Any] = {
            "lr": self.learning_rate,
            "fused": self.fused or None,
            "decoupled_weight_decay": True,
        }
        optimizer = (
            torch.optim.Adam(groups, **common) if self.masked is None else MaskedAdam(groups, **common, **self.masked)
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            self.learning_rate,
            total_steps=int(self.trainer.max_steps),
            pct_start=self.rise,
            cycle_momentum=False,
            final_div_factor=100,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm. Lightning refuses this for a fused optimiser, since a loss scaler might be in use: none is."""
        if gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Nothing: indices are moved to the device where they are used."""
        return batch


def _as_it_is(batch: Any) -> Any:
    return batch
