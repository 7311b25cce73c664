"""Lightning callbacks that a fit needs whatever its method: the clock, the random state, the early exit."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NotRequired, TypedDict

import pytorch_lightning as pl
import torch

from isotrain.training.machine import PHASES, Stopwatch


class Row(TypedDict):
    """What is known at a validation: training seconds so far, errors in kW, the share isolated now."""

    step: int
    train_seconds: float
    val_mae: float
    train_loss: float
    isolated_fraction: float
    seconds: NotRequired[float]  # of a trial of the search, measured in quiet moments


class Clock(pl.Callback):
    """Times a fit's phases and keeps one row a validation.

    Must be the last callback, so that what the others do in a hook is counted. ``on_row`` gets each row while
    the clock stands still. ``selection()`` and ``share()`` read the isolation callback: its cumulative seconds,
    and the share isolated now; others may read them here.
    """

    def __init__(
        self,
        on_row: Callable[[Row], None] = lambda row: None,
        selection: Callable[[], float] = lambda: 0.0,
        share: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.watch = Stopwatch(_synchronise)
        self.rows: list[Row] = []
        self.step_seconds: list[float] = []
        self.isolated = 0.0  # sum over steps of the share isolated
        self.on_row, self.selection, self.share = on_row, selection, share
        self._booked = 0.0
        self._step_start = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._booked = self.selection()
        self.watch.resume()

    def on_train_batch_start(self, *_: Any) -> None:
        self._step_start = time.perf_counter()
        self.watch.enter("forward")

    def on_before_backward(self, *_: Any) -> None:
        self.watch.enter("backward")

    def on_after_backward(self, *_: Any) -> None:
        self.watch.enter("optimizer")

    def on_train_batch_end(self, *_: Any) -> None:
        self.watch.enter("other")
        self.watch.move(self.selection() - self._booked, "optimizer", "selection")
        self._booked = self.selection()
        self.step_seconds.append(time.perf_counter() - self._step_start)
        self.isolated += self.share()

    def on_validation_start(self, *_: Any) -> None:
        self.watch.pause()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        row: Row = {
            "step": trainer.global_step,
            "train_seconds": self.watch.total,
            "val_mae": float(trainer.callback_metrics["val_mae"]),
            "train_loss": float(trainer.callback_metrics["train_loss"]),
            "isolated_fraction": self.share(),
        }
        self.rows.append(row)
        self.on_row(row)
        self.watch.resume()

    def on_train_end(self, *_: Any) -> None:
        self.watch.pause()

    @property
    def step_ms_median(self) -> float:
        """Median milliseconds of a training step."""
        return 1e3 * statistics.median(self.step_seconds)

    @property
    def isolated_fraction(self) -> float:
        """Mean over the steps of the share isolated."""
        return self.isolated / len(self.step_seconds)

    def state_dict(self) -> dict[str, Any]:
        # only the phases: a checkpoint is written while the clock stands still
        return {
            "seconds": dict(self.watch.seconds),
            "rows": self.rows,
            "step_seconds": self.step_seconds,
            "isolated": self.isolated,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.watch.seconds = {phase: state_dict["seconds"][phase] for phase in PHASES}
        self.rows, self.step_seconds = list(state_dict["rows"]), list(state_dict["step_seconds"])
        self.isolated = state_dict["isolated"]


class RandomState(pl.Callback):
    """Saves and restores torch's random state, which Lightning leaves out: dropout goes on where it stopped."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {"cpu": torch.get_rng_state(), "cuda": cuda}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._loaded is not None:
            torch.set_rng_state(self._loaded["cpu"].cpu())
            if self._loaded["cuda"] and torch.cuda.is_available():
                torch.cuda.set_rng_state_all([state.cpu() for state in self._loaded["cuda"]])
        if trainer.world_size > 1:  # each process drops other units; after a resume others than it would have
            torch.manual_seed(int(torch.randint(2**40, ())) + trainer.global_rank)


class StopWhenDiverged(pl.Callback):
    """Ends a fit whose validation error is no number: nothing after it can be trusted, and its seconds are wasted."""

    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if not torch.isfinite(trainer.callback_metrics["val_mae"]):
            trainer.should_stop = True


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
