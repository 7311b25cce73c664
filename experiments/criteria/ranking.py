"""How alike criteria rank the zones of one network: nothing isolated, every criterion asked at every look."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytorch_lightning as pl
import torch
from experiments.criteria.fits import CRITERIA, DRAWN_ONCE, Job, settings
from torch import Tensor

from isotrain.data.windows import Windows
from isotrain.isolation import CRITERIA as FUNCTIONS
from isotrain.isolation import SCHEDULES, Isolation
from isotrain.isolation.criteria import ZoneView
from isotrain.training.fit import Fit, prepare, trainer_of

NAMES = tuple(name for name in CRITERIA if name != DRAWN_ONCE)


class All:
    """Asks every criterion; the scores of the last look are kept, a list of one tensor a layer each."""

    remembers, moments = True, True

    def __init__(self) -> None:
        self.memories: dict[tuple[str, int], dict[str, Tensor]] = {}
        self.scores: dict[str, dict[int, Tensor]] = {name: {} for name in NAMES}
        self._layer = 0

    def __call__(self, view: ZoneView) -> Tensor:
        layer = int(view.depth[0])
        for name in NAMES:
            own = replace(view, memory=self.memories.setdefault((name, layer), {}))
            self.scores[name][layer] = FUNCTIONS[name](own)
        return view.depth.double()


def agreement(job: Job) -> tuple[npt.NDArray[np.float64], dict[str, Any]]:
    """Spearman's rank correlation between criteria, mean over layers, after training; and the share of +inf."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    s, windows = settings(job), Windows.load(job.windows)
    everyone = All()
    watch = Isolation(job.zone, everyone, SCHEDULES["constant"](fraction=0.5, start=1.0), every=5)
    with tempfile.TemporaryDirectory() as folder:
        module, callbacks = prepare(Fit(s, job.seed, windows, Path(folder)))
        module.masked = {}
        kept: list[pl.Callback] = [c for c in callbacks if not isinstance(c, Isolation)]
        trainer_of(s, [*kept, watch]).fit(module)
    layers = sorted(everyone.scores["random"])
    tables = [pd.DataFrame({name: everyone.scores[name][k].numpy() for name in NAMES}) for k in layers]
    matrices = [table.rank().corr() for table in tables]  # ranks, ties at their mean: Spearman
    undecided = {name: float(np.mean([np.isinf(table[name]).mean() for table in tables])) for name in NAMES}
    return np.mean([matrix.to_numpy() for matrix in matrices], axis=0), {"undecided": undecided}
