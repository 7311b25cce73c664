"""What each group of features is worth: the method `rich` without one group at a time, or with one it does without.

    python -m experiments.ablation.run WINDOWS [--seeds 1] [--out experiments/ablation/ablation.md]

Errors only; nothing here is timed.
"""

import argparse
from datetime import date
from pathlib import Path

import numpy as np
import torch

from isotrain.config import MethodsView, load
from isotrain.data.windows import Windows
from isotrain.files import write_text
from isotrain.training.fit import Fit, Loop, prepare_process


def errors(windows: Windows, params: str, left_out: list[str], seed: int) -> tuple[float, float]:
    """MAE (kW) on validation and test without these groups."""
    settings = load(params, view=MethodsView, overrides={"methods.rich.model.leave_out": left_out}).settings("rich")
    prepare_process(settings)
    loop = Loop(Fit(settings, seed, windows, Path("unused")))
    loop.run()
    module = loop.module
    found = []
    for part in ("validation", "test"):
        origins = windows.origins(part)
        forecast = module.forecast(torch.from_numpy(origins)).numpy()
        found.append(float(np.nanmean(np.abs(forecast - windows.targets(origins)))))
    return found[0], found[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("windows")
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("experiments/ablation/ablation.md"))
    words = parser.parse_args()
    windows = Windows.load(words.windows)
    source = "a **simulated** series" if windows.meta["simulated"] else "the Drahi-X series"
    lines = [
        "# What each group of features is worth\n",
        f"`rich` without one group at a time, or with one that it does without, on {source} "
        f"({windows.meta['target']}), {words.seeds} seed(s), "
        f"{date.today().isoformat()}. `python -m experiments.ablation.run`. MAE, kW (difference to `rich`).\n",
        "| | validation | test |",
        "| --- | --- | --- |",
    ]
    usual = load(words.params, view=MethodsView).settings("rich").model.leave_out
    whole: tuple[float, float] | None = None
    for group in (None, *(g for g in windows.meta["groups"] if g != "load")):
        left_out = sorted({*usual} ^ {group}) if group else usual
        runs = [errors(windows, words.params, left_out, seed) for seed in range(words.seeds)]
        mean = (float(np.mean([v for v, _ in runs])), float(np.mean([t for _, t in runs])))
        whole = whole or mean
        cells = [f"{value:.3f} ({value - base:+.3f})" for value, base in zip(mean, whole, strict=True)]
        name = f"{'with' if group in usual else 'without'} {group}" if group else "`rich`"
        lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
        print(lines[-1], flush=True)
    write_text(words.out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
