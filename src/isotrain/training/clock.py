"""Lightning callbacks that a fit needs whatever its method: the clock, the random state, the early exit."""

import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NotRequired, TypedDict

import pytorch_lightning as pl
import torch

from isotrain.training.machine import PHASES, Stopwatch

MANY = 10_000  # events in a GPU's queue that are kept before they are read


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
        self.watch = Stopwatch()
        self.rows: list[Row] = []
        self.step_seconds: list[float] = []
        self.isolated = 0.0  # sum over steps of the share isolated
        self.on_row, self.selection, self.share = on_row, selection, share
        self._booked = 0.0
        self._step_start = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._booked = self.selection()
        if pl_module.device.type == "cuda":
            seconds = self.watch.seconds  # of a checkpoint
            self.watch = GpuStopwatch()
            self.watch.seconds = seconds
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
        self._pause()

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
        self._pause()

    def _pause(self) -> None:
        self.watch.pause()
        if isinstance(self.watch, GpuStopwatch) and (took := self.watch.take_steps()):
            self.step_seconds[-len(took) :] = took  # until now they said how long the host took to ask for a step

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


class GpuStopwatch(Stopwatch):
    """Phases by events in a GPU's queue, read when the watch is paused: a step waits for nothing.

    ``synchronise`` and ``event`` are CUDA's; tests have others.
    """

    def __init__(
        self,
        synchronise: Callable[[], None] = lambda: torch.cuda.synchronize(),
        event: Callable[[], Any] = lambda: torch.cuda.Event(enable_timing=True),  # type: ignore[no-untyped-call]
    ) -> None:
        super().__init__(synchronise)
        self._event = event
        self._marks: list[tuple[str, Any]] = []  # a phase, and the event at which it began
        self._steps: list[float] = []

    def enter(self, phase: str) -> None:
        self._phase = phase
        if self._since is None:
            return
        if len(self._marks) > MANY and phase == "other":
            self._close()
            self._since = time.perf_counter()
        self._mark()

    def resume(self) -> None:
        super().resume()
        self._mark()

    def take_steps(self) -> list[float]:
        """Seconds from each entry of the phase ``forward`` to that of ``other``, since it was last asked for."""
        steps, self._steps = self._steps, []
        return steps

    def _mark(self) -> None:
        event = self._event()
        event.record()
        self._marks.append((self._phase, event))

    def _close(self) -> None:
        self._mark()
        self._synchronise()
        begun = None
        for (phase, first), (following, last) in pairwise(self._marks):
            self.seconds[phase] += first.elapsed_time(last) / 1e3
            begun = first if phase == "forward" else begun
            if following == "other" and phase != "other" and begun is not None:
                self._steps.append(begun.elapsed_time(last) / 1e3)
        self._marks.clear()
