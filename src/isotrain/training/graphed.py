"""The forecaster's training with its steps replayed as CUDA graphs, inside Lightning's own loop.

Lightning asks for a loss, calls the backward, clips and steps the optimiser; a replayed step has done all of that when
it returns the loss, so those calls do nothing then. Steps in which a callback reads gradients or changes what is
isolated are run as they are without graphs.
"""

import logging
from collections.abc import Callable, Hashable
from dataclasses import fields, replace
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from isotrain.forecast.module import ForecastModule
from isotrain.forecast.stretches import Stretches
from isotrain.lstm import LSTM
from isotrain.lstm.graphs import GraphedStep, Recording, on_cuda
from isotrain.training.clock import Clock

log = logging.getLogger(__name__)


class GraphedModule(ForecastModule):
    """:class:`ForecastModule`, whose steps between two selections are recorded and replayed.

    Attributes:
        record: what records a step: :func:`isotrain.lstm.graphs.on_cuda`.
        graphed: the step, with how often it was recorded and replayed; None before the training.
    """

    record: Callable[[Callable[[], Tensor]], Recording] = staticmethod(on_cuda)
    graphed: GraphedStep | None = None
    _replays = False

    def configure_optimizers(self) -> Any:
        """As without graphs, with rates and counts as tensors on the device."""
        found = super().configure_optimizers()
        optimizer = found["optimizer"]
        for group in optimizer.param_groups:
            group["capturable"] = True
        optimizer.defaults["capturable"] = True
        optimizer._warned_capturable_if_run_uncaptured = True  # torch would warn of the steps before a recording
        return found

    def on_fit_start(self) -> None:
        """Refuse nothing: a callback of which it is not known when it reads gradients gets steps without graphs."""
        reading = [c for c in self._callbacks if _overrides(c, "on_before_optimizer_step", "on_after_backward")]
        self._unknown = [type(c).__name__ for c in reading if not hasattr(c, "reads") and not isinstance(c, Clock)]
        if self._unknown:
            log.info("no CUDA graphs: %s may read the gradients of every step", ", ".join(self._unknown))

    def on_train_start(self) -> None:
        kind = torch.float32 if self.device.type == "cuda" else torch.float64  # what the kernels of a fused Adam read
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = torch.as_tensor(group["lr"], dtype=kind, device=self.device)
        self.graphed = GraphedStep(self._step, self._key, self.record)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        step = self.trainer.global_step
        self._replays = not self._unknown and not any(c.reads(step) for c in self._callbacks if hasattr(c, "reads"))

    def training_step(self, _: Any, batch_idx: int) -> Tensor:
        if not self._replays:
            return super().training_step(_, batch_idx)
        assert self.graphed is not None
        self.net.encoder.before_step(batch_idx)
        self.net.encoder.ready(self.net.series)
        at = self.sampler(batch_idx).to(self.device)
        self._like = at
        self._last_loss = self.graphed(*(getattr(at, name) for name in _tensors(at)))
        return self._last_loss

    def backward(self, loss: Tensor, *others: Any, **more: Any) -> None:
        if not self._replays:
            super().backward(loss, *others, **more)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        if not self._replays:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        if self._replays:
            optimizer_closure()
        else:
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    def _step(self, *tensors: Tensor) -> Tensor:
        """Train once on the stretches that ``tensors`` hold; what is recorded."""
        kind = self.device.type
        dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        given: dict[str, Any] = dict(zip(_tensors(self._like), tensors, strict=True))
        at = replace(self._like, **given)
        optimizer = self.trainer.optimizers[0]
        with torch.autocast(kind, enabled=False):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(
                kind, dtype, enabled, cache_enabled=False
            ):  # what is cached would outlive the recording
                loss = self.loss(at)
            torch.autograd.backward(loss)
            self.configure_gradient_clipping(optimizer, self.trainer.gradient_clip_val)
            optimizer.step()
        return loss.detach()

    def _key(self) -> Hashable:
        """What is isolated: other operations, or others in memory, ask for another recording."""
        lstms = [module for module in self.net.modules() if isinstance(module, LSTM)]
        isolated = tuple(
            (*vars(lstm.isolated).values(), id(lstm.isolated) if lstm.memory_width else 0) for lstm in lstms
        )
        active = tuple(p.requires_grad for p in self.parameters())
        return isolated, active, getattr(self.trainer.optimizers[0], "changes", 0)

    @property
    def _callbacks(self) -> list[Any]:
        return list(self.trainer.callbacks)  # type: ignore[attr-defined]


def _tensors(at: Stretches) -> list[str]:
    return [field.name for field in fields(at) if isinstance(getattr(at, field.name), Tensor)]


def _overrides(callback: pl.Callback, *hooks: str) -> bool:
    return any(getattr(type(callback), hook) is not getattr(pl.Callback, hook) for hook in hooks)
