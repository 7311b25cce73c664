"""Which forecaster is the best on series that nobody tuned anything on: ridge, trees, the network, or their mean?

    python -m experiments.foreign.run DATA [--series NAME ...] [--seeds 2] [--trial NAME] [--out FILE.json]

DATA is a folder with the files that :data:`SERIES` names. Each is read, checked, split and made into features as any
series is, and forecast by everything in turn. ``on-ridge`` is the residual form: the network's skip is replaced by the
forecast of ridge-rich, so that it learns what ridge leaves.
``--trial`` changes the network's settings by one of :data:`TRIALS`.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments.published_series import ONE_BUILDING, drammen, located
from numpy.typing import NDArray
from torch import Tensor, nn

from isotrain.baselines import BASELINES
from isotrain.config import MethodsView, Window, load
from isotrain.data.ingest import ingest
from isotrain.data.windowing import make_windows
from isotrain.data.windows import Windows
from isotrain.files import write_json
from isotrain.forecast.network import Forecaster
from isotrain.forecast.stretches import Stretches
from isotrain.training.fit import Fit, Loop, prepare_process

Forecasts = dict[str, NDArray[Any]]  # of each part
PARTS = ("validation", "test")
BASE = "ridge-rich"  # whose forecast the residual form starts from


SERIES: Mapping[str, dict[str, Any]] = {
    **ONE_BUILDING,
    "school": drammen(6397),
    "office": drammen(6411),
    "kindergarten": drammen(6415),
}
TRIALS: Mapping[str, dict[str, Any]] = {
    "steps-150": {"training.steps": 150},
    "rate-0.02": {"training.learning_rate": 0.02},
    "rate-0.01": {"training.learning_rate": 0.01},
    "units-16": {"model.hidden": 16},
    "units-128": {"model.hidden": 128},
    "two-layers": {"model.layers": 2},
    "dropout-0.3": {"model.dropout": 0.3, "model.state_dropout": 0.3},
    "all-features": {"model.leave_out": []},
    "no-climate": {"model.leave_out": ["climate"]},
    "history-48": {"window.history": 48},
    "origins-48": {"training.origins": 48},
}


def windows_of(name: str, data: Path, history: int = 168) -> Windows:
    """The series ``name`` of the folder ``data``, ready for forecasting."""
    window = Window(history=history)
    with tempfile.TemporaryDirectory() as folder:
        settings = located(SERIES[name], data, Path(folder))
        tidy = ingest(settings, Path(settings.source).parent, window)
    return make_windows(tidy.frame, tidy.facts, window)


class OnTop(nn.Module):
    """In the place of the network's skip: what another forecaster says, at the origins that are asked for."""

    def __init__(self, net: Forecaster, base: Tensor) -> None:
        super().__init__()
        self.register_buffer("base", base, persistent=False)
        self.series, self.at = [net.series], torch.zeros(0)  # in a list: not a part of this module
        net.register_forward_pre_hook(self._note)

    def _note(self, _: nn.Module, words: tuple[Stretches]) -> None:
        self.at = words[0].origins

    def forward(self, lags: Tensor, recent: Tensor) -> Tensor:
        series = self.series[0]
        origins = self.at.clamp(max=len(series.inputs))
        base: Tensor = self.base  # type: ignore[assignment]
        return (base[origins] - series.level[origins - 1][..., None]) / series.scale_at(origins)[..., None]


def network(windows: Windows, method: str, seed: int, changes: dict[str, Any], base: Tensor | None) -> Forecasts:
    """Forecasts of a fit of ``method``; with ``base`` (n + 1, K), kW, on top of what is forecast there."""
    settings = load("params.yaml", view=MethodsView, overrides=changes).settings(method)
    prepare_process(settings)
    loop = Loop(Fit(settings, seed, windows, Path("unused")))
    if base is not None:
        loop.module.net.skip = OnTop(loop.module.net, base)  # type: ignore[assignment]
    loop.run()
    return {part: loop.module.forecast(torch.from_numpy(windows.origins(part))).numpy() for part in PARTS}


def error(windows: Windows, answer: Forecasts) -> dict[str, float]:
    """MAE of each part, kW."""
    return {part: float(np.nanmean(np.abs(answer[part] - windows.targets(windows.origins(part))))) for part in PARTS}


def mean(*answers: Forecasts) -> Forecasts:
    """The average of forecasts."""
    return {part: np.mean([answer[part] for answer in answers], axis=0) for part in PARTS}


def study(windows: Windows, seeds: int) -> dict[str, dict[str, float]]:
    """Processor seconds and errors of everything, the networks' averaged over the seeds."""
    answers: dict[str, list[Forecasts]] = {}
    seconds: dict[str, float] = {}

    def note(name: str, answer: Forecasts, since: float) -> None:
        answers.setdefault(name, []).append(answer)
        seconds[name] = round(seconds.get(name, 0.0) + time.process_time() - since, 2)

    fitted = {}
    for name in ("ridge", BASE, "lightgbm-quick"):
        since = time.process_time()
        fitted[name] = BASELINES[name](windows)
        note(name, {part: fitted[name](windows.origins(part)) for part in PARTS}, since)
    base = torch.full((len(windows.target) + 1, windows.meta["horizon"]), torch.nan)
    origins = np.arange(windows.ranges("train")[0][0], len(windows.target) + 1 - windows.meta["horizon"])
    base[origins] = torch.from_numpy(fitted[BASE](origins))
    for method, form, below in (("native", "", None), ("native", "-on-ridge", base), ("rich", "", None)):
        for seed in range(seeds):
            since = time.process_time()
            note(method + form, network(windows, method, seed, {}, below), since)
    single = {
        name: np.mean([[*error(windows, one).values()] for one in found], axis=0) for name, found in answers.items()
    }

    def best(*names: str) -> str:
        return min(names, key=lambda name: single[name][0])

    net, line, trees = best("native", "rich"), best("ridge", BASE), "lightgbm-quick"
    together = {
        "native + ridge": ("native", line),
        "native + lightgbm": ("native", trees),
        "native + ridge + lightgbm": ("native", line, trees),
        "network + ridge": (net, line),
        "network + lightgbm": (net, trees),
        "ridge + lightgbm": (line, trees),
        "network + ridge + lightgbm": (net, line, trees),
    }
    for name, members in together.items():
        each = [mean(*(answers[m][seed % len(answers[m])] for m in members)) for seed in range(seeds)]
        single[name] = np.mean([[*error(windows, one).values()] for one in each], axis=0)
        seconds[name] = round(sum(seconds[m] / len(answers[m]) for m in members), 2)
    for method in ("native", "rich") if seeds > 1 else ():
        single[f"{method}, mean of {seeds} seeds"] = np.array([*error(windows, mean(*answers[method])).values()])
    return {
        name: {"validation": float(errors[0]), "test": float(errors[1]), "seconds": seconds.get(name, 0.0)}
        for name, errors in single.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--series", nargs="+", default=list(SERIES), choices=list(SERIES))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--trial", nargs="+", default=[], choices=["none", *TRIALS])
    parser.add_argument("--out", type=Path)
    words = parser.parse_args()
    found: dict[str, Any] = {}
    for name in words.series:
        windows = windows_of(name, words.data)
        if not words.trial:
            found[name] = study(windows, words.seeds)
        for trial in words.trial:
            changes = TRIALS.get(trial, {})
            own = windows_of(name, words.data, changes["window.history"]) if "window.history" in changes else windows
            since = time.process_time()
            each = [error(own, network(own, "native", seed, changes, None)) for seed in range(words.seeds)]
            row = {part: float(np.mean([one[part] for one in each])) for part in PARTS}
            found.setdefault(name, {})[trial] = row | {"seconds": (time.process_time() - since) / words.seeds}
        for what, row in found[name].items():
            print(f"{name:13} {what:28} " + "  ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
        if words.out:
            write_json(words.out, found)


if __name__ == "__main__":
    main()
