"""Our networks at the peers' origins, timed as the peers are.

python -m experiments.peers.ours DATA
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments.peers.data import drahix_windows
from experiments.peers.models import HORIZON, SPARSE

from isotrain.config import MethodsView, load
from isotrain.data.windows import Windows
from isotrain.files import write_json
from isotrain.training.baselines import on_cores
from isotrain.training.fit import Fit, Loop, prepare_process
from isotrain.training.machine import commit

SETTINGS = "experiments/forecaster/params.yaml"
METHODS = {  # and what is changed; a refit trains on everything before the test part, as the peers do
    "plain-128": ("plain-128", {}),
    "plain-128-refit": ("plain-128", {"methods.plain-128.training.refit": True}),
    "rich": ("rich", {}),
    "rich-refit": ("rich-refit", {}),
}
SEEDS = range(2)


def measured(windows: Windows, method: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Mean errors of the seeds by the hours from origin to origin, kW, and mean processor seconds."""
    settings = load(SETTINGS, view=MethodsView, overrides=changes).settings(method)
    prepare_process(settings)
    errors: dict[str, list[tuple[float, float]]] = {}
    seconds: dict[str, list[float]] = {"fit": [], "forecast": []}
    for seed in SEEDS:
        since = time.process_time()
        loop = Loop(Fit(settings, seed, windows, Path("unused")))
        loop.run(validate=False)
        seconds["fit"].append(time.process_time() - since)
        since = time.process_time()
        origins = windows.origins("test")
        wrong = np.abs(loop.module.forecast(torch.from_numpy(origins)).numpy() - windows.targets(origins))
        seconds["forecast"].append(time.process_time() - since)
        for step in (1, SPARSE, 7 * SPARSE):
            each = wrong[::step]
            errors.setdefault(str(step), []).append((np.nanmean(each), np.nanmean(each[:, HORIZON - 1])))
    return {
        "errors": {
            step: {"mae": float(np.mean(found, 0)[0]), "mae_last_lead": float(np.mean(found, 0)[1])}
            for step, found in errors.items()
        },
        **{what: float(np.mean(each)) for what, each in seconds.items()},
        "seeds": len(SEEDS),
        "commit": commit(),
    }


def main(data: str) -> None:
    windows = drahix_windows(Path(data))
    with on_cores(1):
        found = {name: measured(windows, *method) for name, method in METHODS.items()}
    write_json(Path(__file__).parent / "results" / "drahix-ours.json", found)


if __name__ == "__main__":
    main(*sys.argv[1:])
