"""Checkpoints that are whole or absent: written beside their goal, replaced whole, and read with a checksum.

Lightning itself writes to the folder of temporary files and moves from there; across file systems that is a copy, which
a full disk or a kill leaves cut.
"""

import logging
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.plugins.io import CheckpointIO

from isotrain.errors import InputError
from isotrain.forecast.bundle import load_state, save_state

log = logging.getLogger(__name__)
FIRST_SAVE_SECONDS = 1.0  # of training, before the first checkpoint to resume from
SAVE_EVERY_SECONDS = 30.0  # between two of them, at the most: until then each comes after as long again


class SealedCheckpoints(CheckpointIO):
    """How Lightning's trainer writes and reads its checkpoints."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        save_state(Path(path), checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return load_state(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


class Resume:
    """Where an interrupted fit goes on: its last checkpoint, and the one before in case the last is damaged.

    Of several processes that share a fit the first one ``writes``.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path, self.before = path, path.with_name(f"before-{path.name}")
        self._writes = writes
        self._last = 0.0

    def is_due(self, seconds: float) -> bool:
        """Whether to save after ``seconds`` of training: at 1, 2, 4, 8, 16, 32 s, then every 30 s.

        Of several processes the clock of the first decides: all must call :meth:`save`.
        """
        return seconds - self._last > min(SAVE_EVERY_SECONDS, max(FIRST_SAVE_SECONDS, self._last))

    def save(self, trainer: pl.Trainer, seconds: float) -> None:
        """Save the fit as it stands after ``seconds`` of training, and keep what was saved before."""
        if self._writes and self.path.exists():
            self.path.replace(self.before)
        trainer.save_checkpoint(self.path)
        self._last = seconds

    def newest(self) -> str | None:
        """The newest checkpoint that can be read, None if there is none; what cannot be read is set aside."""
        for path in (self.path, self.before):
            if not path.exists():
                continue
            try:
                load_state(path)
            except (InputError, OSError) as problem:
                aside = path.with_name(f"unreadable-{path.name}")
                if self._writes:
                    path.replace(aside)
                log.warning("%s; it is set aside as %s, and the fit goes on from before it", problem, aside.name)
            else:
                log.warning("resuming from %s", path)
                return str(path)
        return None

    def remove(self) -> None:
        """When the fit is finished; with the drafts of files that a killed process left in its folder."""
        for path in (self.path, self.before, *self.path.parent.glob(".*.part")):
            path.unlink(missing_ok=True)
