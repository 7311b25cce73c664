"""Rolling re-training: how accuracy holds as the building drifts, and whether isolation pays when a network is adapted.

    python -m experiments.walk_forward.run WINDOWS [--method plain-128] [--seeds 2]
        [--out experiments/walk_forward/results]

Month after month of the test part: a network trained on everything before the month forecasts the month. Ways of
coming to that network: never trained again; trained from scratch each month; trained on from last month's network for
a fifth of the steps (warm), whole or with 7 units in 8 isolated; never trained again, but adapted each month as
isotrain.adapt.monthly does: with the decoder trained on remembered states, for a few steps on the last year or for
longer on all of the past, or the readout solved alone. Training seconds are those of the adaptation alone.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import torch

from isotrain.adapt.candidates import CANDIDATES, STEPS
from isotrain.adapt.monthly import SOLVED, Monthly
from isotrain.config import MethodsView, Settings, load
from isotrain.data.windows import Windows
from isotrain.files import write_json
from isotrain.forecast.network import Forecaster
from isotrain.forecast.series import Series
from isotrain.report.drawing import PALETTE, STYLE, new_figure, save
from isotrain.training.fit import Fit, Loop, prepare_process
from isotrain.training.machine import commit, hardware

SHARE = 0.2  # of a whole training's steps
RATE = 0.3  # of its learning rate
ISOLATED = 0.875
Origins = npt.NDArray[np.int64]
First = tuple[dict[str, torch.Tensor], float]  # weights, and the seconds that they took


@dataclass(frozen=True)
class Way:
    """How a month's network comes about. ``warm``: from last month's; ``isolate``: the backward mode, or nothing.

    ``thaw``: what isotrain.adapt.monthly may thaw of the first network by all hours before the month. ``longer``: its
    decoder is trained for as many steps as the first time, on all of the past.
    """

    retrain: bool
    warm: bool = False
    isolate: str | None = None
    criterion: str = "snip"
    thaw: Sequence[str] = ()
    longer: bool = False


WAYS: Mapping[str, Way] = {
    "never again": Way(retrain=False),
    "never again, adapted": Way(retrain=False, thaw=(*CANDIDATES,)),
    "never again, adapted longer": Way(retrain=False, thaw=(*CANDIDATES,), longer=True),
    "never again, solved": Way(retrain=False, thaw=SOLVED),
    "from scratch": Way(retrain=True),
    "warm": Way(retrain=True, warm=True),
    "warm, exact, snip": Way(retrain=True, warm=True, isolate="exact"),
    "warm, exact, random": Way(retrain=True, warm=True, isolate="exact", criterion="random"),
    "warm, cut, snip": Way(retrain=True, warm=True, isolate="cut"),
}


def settings_of(params: str, method: str, way: Way) -> Settings:
    """The method's settings, with fewer steps, a lower rate and isolation where the way asks for them."""
    view = load(params, view=MethodsView)
    s = view.settings(method)
    if way.warm:
        steps = max(1, round(SHARE * s.training.steps))
        training = s.training.model_copy(
            update={"steps": steps, "learning_rate": RATE * s.training.learning_rate, "validate_every": steps}
        )
        s = s.model_copy(update={"training": training})
    if way.isolate is None:
        return s.model_copy(update={"isolation": None})
    schedule = replace(view.isolation.schedule, shape="constant", fraction=ISOLATED, start=0.0)
    chosen = {"zone": "unit", "mode": way.isolate, "criterion": way.criterion, "every": 10**6, "schedule": schedule}
    return s.model_copy(update={"isolation": replace(view.isolation, **chosen)})


def months(windows: Windows) -> list[tuple[str, Origins]]:
    """The test part's origins by month of UTC."""
    origins = windows.origins("test")
    month = windows.time[origins].astype("datetime64[s]").astype("datetime64[M]")
    return [(str(name), origins[month == name]) for name in np.unique(month)]


def until(windows: Windows, first: int) -> Windows:
    """The same series, to be trained on every origin whose target hours lie before ``first``."""
    one = windows.series[0]
    start = one["origins"]["train"][0]
    train = [start, first - windows.meta["horizon"] + 1]
    validation = [first - windows.meta["horizon"], first - windows.meta["horizon"] + 1]  # one origin: nothing is chosen
    origins = {**one["origins"], "train": train, "validation": validation}
    return replace(windows, meta={**windows.meta, "series": [{**one, "origins": origins}]})


def walk(
    windows: Windows, params: str, method: str, way: Way, seed: int, first_of: dict[tuple[str, int], First]
) -> list[dict[str, Any]]:
    """A row a month: MAE (kW) over its known target hours, and the seconds of training for it.

    All ways begin with the same network, which is kept in ``first_of``.
    """
    rows: list[dict[str, Any]] = []
    weights: dict[str, torch.Tensor] | None = None
    monthly: Monthly | None = None
    for number, (name, origins) in enumerate(months(windows)):
        begins = number == 0
        known = until(windows, int(origins[0]))
        s = settings_of(params, method, Way(retrain=True) if begins else way)
        loop = Loop(Fit(s, seed + 1000 * number, known, Path("unused")))
        module = loop.module
        seconds = 0.0
        if weights is not None and (way.warm or not way.retrain):
            module.load_state_dict(weights)
        if begins and (method, seed) in first_of:
            state, seconds = first_of[method, seed]
            module.load_state_dict(state)
        elif begins or way.retrain:
            loop.run()
            seconds = loop.clock.watch.total
        if begins:
            first_of[method, seed] = {key: value.clone() for key, value in module.state_dict().items()}, seconds
        weights = {key: value.clone() for key, value in module.state_dict().items()}
        truth = windows.targets(origins)
        drift: dict[str, Any] = {}
        if way.thaw:
            begin = time.process_time()
            first, last = known.ranges("train")[0]
            if monthly is None:  # its series goes on to the end; each month it is told how far it may know it
                net = whole_network(loop.settings, windows, module.net).to(loop.device)
                length = {"steps": STEPS, "recent": len(windows.time)} if way.longer else {}
                monthly = Monthly.of(net, first, last, names=way.thaw, **length)
            choice = monthly.adapt(last)
            seconds += time.process_time() - begin
            answer = monthly.forecast(choice.weights, torch.from_numpy(origins)).numpy()
            drift = {"thawed": choice.name, "strength": choice.strength, "gain": choice.gain}
        else:
            answer = module.forecast(torch.from_numpy(origins)).numpy()
        row = {"month": name, "mae": float(np.nanmean(np.abs(answer - truth))), "hours": int((~np.isnan(truth)).sum())}
        rows.append({**row, "seconds": seconds, **drift})
        print(f"{method} {seed} {name}: {row['mae']:.2f} kW, {seconds:.2f} s {drift.get('thawed', '')}", flush=True)
    return rows


def whole_network(s: Settings, windows: Windows, net: Forecaster) -> Forecaster:
    """A network with the weights of ``net`` over all of ``windows``, computed by torch."""
    shape = s.model.model_dump(exclude={"inputs", "leave_out"})
    series = Series(windows, s.model.inputs, s.model.leave_out)
    made = Forecaster(series, **shape, backend="torch", remember=None)
    made.load_state_dict(net.state_dict())
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("windows")
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--method", default="plain-128")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--out", type=Path, default=Path("experiments/walk_forward/results"))
    words = parser.parse_args()
    s = settings_of(words.params, words.method, WAYS["never again"])
    prepare_process(s)
    windows = Windows.load(words.windows)
    first_of: dict[tuple[str, int], First] = {}
    runs = [
        {"way": name, "seed": seed, "months": walk(windows, words.params, words.method, WAYS[name], seed, first_of)}
        for seed in range(words.seeds)
        for name in words.ways
    ]
    results = {
        "date": date.today().isoformat(),
        "commit": commit(),
        "hardware": hardware(),
        "method": words.method,
        "simulated": windows.meta["simulated"],
        "target": windows.meta["target"],
        "runs": runs,
    }
    write_json(words.out / "results.json", results)
    write_page(results, words.out)


def summary(results: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a way: MAE over all months, and after the first (a value a seed); seconds a month after the first."""
    rows = []
    for name in dict.fromkeys(run["way"] for run in results["runs"]):
        own = [run["months"] for run in results["runs"] if run["way"] == name]
        later = [months[1:] for months in own]
        rows.append(
            {
                "way": name,
                "mae": _mean([np.average([m["mae"] for m in x], weights=[m["hours"] for m in x]) for x in own]),
                "later": [float(np.average([m["mae"] for m in x], weights=[m["hours"] for m in x])) for x in later],
                "seconds": _mean([np.mean([m["seconds"] for m in x]) for x in later]),
            }
        )
    return rows


def _mean(values: list[Any]) -> float:
    return float(np.mean(values))


def write_page(results: dict[str, Any], out: Path) -> None:
    """walk-forward.md and its figure, from results.json alone."""
    source = "a **simulated** series" if results["simulated"] else "the Drahi-X series"
    rows = summary(results)
    lines = [
        "# Rolling re-training, a month at a time\n",
        f"{results['method']} on {source} ({results['target']}), {results['hardware']['cpu']}, {results['date']}. "
        "`python -m experiments.walk_forward.run`.\n",
        "| way | MAE, all months, kW | after the first month, kW, a value a seed | training, s a month |",
        "| --- | --- | --- | --- |",
    ]
    for row in rows:
        seeds = ", ".join(f"{value:.3f}" for value in row["later"])
        lines.append(f"| {row['way']} | {row['mae']:.3f} | {seeds} | {row['seconds']:.2f} |")
    lines.append("\n![Error by month](months.png)\n")
    (out / "walk-forward.md").write_text("\n".join(lines), encoding="utf-8")
    with mpl.rc_context(STYLE):
        figure, grid = new_figure(9.5, 4.2, "Error by month: trained on everything before it")
        axes = grid[0, 0]
        for colour, row in zip(PALETTE, rows, strict=False):
            own = [run["months"] for run in results["runs"] if run["way"] == row["way"]]
            names = [m["month"] for m in own[0]]
            axes.plot(
                names, np.mean([[m["mae"] for m in x] for x in own], axis=0), "o-", color=colour, ms=4, label=row["way"]
            )
        axes.set_ylabel("MAE, kW")
        axes.tick_params(axis="x", rotation=45)
        axes.legend(frameon=False, ncols=3, fontsize=8)
        axes.set_ylim(bottom=0)
        save(figure, out / "months.png")


if __name__ == "__main__":
    main()
