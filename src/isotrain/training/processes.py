"""One fit by several processes, which srun started and Lightning's DDP joins: which of them this one is.

Every process draws the same batch and takes its share of the stretches (:meth:`.module.ForecastModule.loss`); the first
one alone is timed and writes files.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.plugins.environments import LightningEnvironment, SLURMEnvironment
from pytorch_lightning.strategies import DDPStrategy

from isotrain.config import Settings
from isotrain.errors import InputError
from isotrain.files import sha256_text

LOST = re.compile("gloo|nccl|connection (closed|reset)", re.IGNORECASE)  # how torch's engines say that one is gone


@dataclass(frozen=True)
class Place:
    """Which process of how many, on how many nodes."""

    rank: int = 0
    count: int = 1
    nodes: int = 1

    def arguments(self, key: str, unused: bool) -> dict[str, Any]:
        """What Lightning's trainer must be told for the fit ``key``; ``unused``: a parameter may get no gradient."""
        if self.count == 1:  # a plugin of our own: inside a SLURM job Lightning would else take over its signals
            return {"devices": 1, "plugins": [LightningEnvironment()]}
        # the buffers are the series, which are the same everywhere and may be as large as the memory
        strategy = DDPStrategy(find_unused_parameters=unused, broadcast_buffers=False)
        return {
            "devices": self.count // self.nodes,
            "num_nodes": self.nodes,
            "strategy": strategy,
            "use_distributed_sampler": False,
            "plugins": [_Step(key)],
        }

    @contextmanager
    def together(self) -> Iterator[None]:
        """Say in one line that another process is gone: ConnectionError, where torch's engine has its own words."""
        try:
            yield
        except RuntimeError as problem:
            if self.count == 1 or not LOST.search(str(problem)):
                raise
            raise ConnectionError(
                errno.ECONNRESET,
                f"process {self.rank} of {self.count} has lost another one, whose log says why; the same command goes "
                f"on from the last checkpoint ({str(problem).splitlines()[0]})",
            ) from problem


def place(settings: Settings) -> Place:
    """The place of this process among ``runtime.processes``.

    Raises :class:`InputError` if srun did not start as many, or not as many on each node.
    """
    wanted = settings.runtime.processes
    if wanted == 1:
        return Place()
    step = {
        name: int(os.environ.get(f"SLURM_{name}", "0"))
        for name in ("STEP_NUM_TASKS", "STEP_NUM_NODES", "NTASKS_PER_NODE", "PROCID")
    }
    if step["STEP_NUM_TASKS"] != wanted or step["STEP_NUM_NODES"] * step["NTASKS_PER_NODE"] != wanted:
        started = step["STEP_NUM_TASKS"]
        raise InputError(
            f"runtime.processes = {wanted}, and "
            + (f"srun started {started}" if started else "srun did not start this one")
            + (", as many on each node as --ntasks-per-node says" if started == wanted else "")
            + f": start it with srun --nodes=N --ntasks-per-node=M, N times M being {wanted}, or set runtime.processes "
            "to 1 (docs/cluster.md)"
        )
    return Place(step["PROCID"], wanted, step["STEP_NUM_NODES"])


class SameFit(pl.Callback):
    """Refuses processes that would train different things: ``key`` is what a fit is known by."""

    def __init__(self, key: str) -> None:
        self.key = key

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.world_size > 1 and trainer.strategy.broadcast(self.key) != self.key:
            raise InputError(
                f"process {trainer.global_rank} has other settings, data, code or another kind of processor than "
                "process 0: give all of them the same folder, and nodes of one kind"
            )


class _Step(SLURMEnvironment):
    """A step of a SLURM job as Lightning knows it, with a port for each fit: the one before may hold its own still."""

    def __init__(self, key: str) -> None:
        super().__init__(auto_requeue=False)
        job = f"{os.environ['SLURM_JOB_ID']} {os.environ['SLURM_STEP_ID']} {key}"
        self._port = 15_000 + int(sha256_text(job)[:8], 16) % 17_000  # below those that the system gives away

    @property
    def main_port(self) -> int:
        return self._port
