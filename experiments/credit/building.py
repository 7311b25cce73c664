"""Credit left out on the building: seconds to the same validation error, at several widths, streamed and windowed.

    python -m experiments.credit.building WINDOWS [--params params.yaml] [--seeds 5] [--only streamed,256]
        [--out experiments/credit/results]

Every method of every width with its own highest learning rate, chosen on validation by ``--rates`` (the mean of two
seeds apart from the others, four rates each). Fits run one at a time, every method of one seed before the next seed; a
fit that is there already is not run again, so that the command can be stopped and called again. ``--rates`` first, then
the command without it, then ``--table`` for the page.
"""

import argparse
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

from isotrain.compare.statistics import Interval, median_interval
from isotrain.config import MethodsView, Settings, load
from isotrain.data.windows import Windows, data_key
from isotrain.files import read_json, write_json, write_text
from isotrain.report.drawing import PALETTE, STYLE, new_figure, save
from isotrain.training.fits import fit_in_child, fit_key, import_everything
from isotrain.training.machine import commit, hardware

RATES = (0.01, 0.02, 0.04, 0.08)
RATE_SEEDS = (1000, 1001)  # none of those that are compared
TOLERANCE = 0.005  # the target lies so far above the tuned reference's median best validation error
LEAST = 3  # seeds without which equality is not judged
MARGIN = 0.005  # two errors are equal if the interval of their ratio lies within it


@dataclass(frozen=True)
class Shape:
    """A network and how it is trained: a row of the comparison."""

    name: str
    changes: Mapping[str, Any]
    methods: tuple[str, ...]

    def settings(self, view: MethodsView, method: str, rate: float | None = None) -> Settings:
        """The method's settings in this shape."""
        changes = dict(self.changes) | ({"training.learning_rate": rate} if rate else {})
        found = view.settings(method, changes)
        return found.model_copy(update={"method": f"{method}-{self.name}"})


REFERENCES = ("stock", "tuned", "native")
STREAMED = (*REFERENCES, "credit-cell", "credit-thawed", "credit-measured", "credit-none", "hours-4", "hours-4-thawed")
WINDOWED = (*REFERENCES, "credit-cell", "credit-thawed", "credit-none", "steps-24")


SMALLER = ("tuned", "native", "credit-cell", "credit-thawed", "credit-none", "hours-4")


def shapes() -> Iterator[Shape]:
    """One layer of 16 to 256 units, and the laboratory's five of 150."""
    for width in (16, 24, 32, 48, 64, 256):
        size = {"model.hidden": width, "model.layers": 1, "training.steps": 300}
        yield Shape(f"streamed-{width}", size, SMALLER if width in (24, 32, 48) else STREAMED)
    for width in (64, 256):
        windowed: dict[str, Any] = {"model.hidden": width, "model.layers": 1, "training.steps": 300}
        yield Shape(f"windowed-{width}", windowed | {"training.regime": "windowed"}, WINDOWED)
    laboratory = {"model.hidden": 150, "model.layers": 5, "training.steps": 160}
    yield Shape("laboratory", laboratory, ("stock", "tuned", "native", "credit-cell", "credit-none", "hours-4"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("windows")
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default="", help="words that the name of a shape must hold, separated by commas")
    parser.add_argument("--out", default="experiments/credit/results", type=Path)
    parser.add_argument("--runs", default="results/credit", type=Path)
    parser.add_argument("--rates", action="store_true", help="choose the rates")
    parser.add_argument("--table", action="store_true", help="write the page of what is there")
    asked = parser.parse_args()
    view = load(asked.params, view=MethodsView)
    chosen = [s for s in shapes() if all(word in s.name for word in asked.only.split(",") if word)]
    rates_file = asked.out / "rates.json"
    rates: dict[str, float] = read_json(rates_file) if rates_file.exists() else {}
    if asked.table:
        write_page(asked.out, asked.runs, chosen)
        return
    windows = Windows.load(asked.windows)
    import_everything()
    if asked.rates:
        for shape in chosen:
            choose_rates(view, windows, asked.runs, shape, rates)
            write_json(rates_file, rates)
        return
    missing = [s.name for s in chosen for method in s.methods if f"{method}-{s.name}" not in rates]
    if missing:
        parser.error(f"no rate is chosen yet for {', '.join(dict.fromkeys(missing))}: call with --rates first")
    for seed in range(asked.seeds):
        for shape in chosen:
            for method in shape.methods:
                s = shape.settings(view, method, rates[f"{method}-{shape.name}"])
                result = fitted(s, seed, windows, asked.runs)
                print(f"{s.method} seed {seed}: {best(result):.3f} kW in {result['train_seconds']:.2f} s", flush=True)


def choose_rates(view: MethodsView, windows: Windows, runs: Path, shape: Shape, rates: dict[str, float]) -> None:
    """The rate of least validation error, of every method that trains differently; stock and tuned take native's."""
    for method in shape.methods:
        if method in ("stock", "tuned"):
            continue
        errors = {
            rate: statistics.mean(
                best(fitted(shape.settings(view, method, rate), seed, windows, runs / f"rate-{rate:g}"))
                for seed in RATE_SEEDS
            )
            for rate in RATES
        }
        rates[f"{method}-{shape.name}"] = min(errors, key=lambda rate: errors[rate])
        print(
            f"{method}-{shape.name}: " + ", ".join(f"{rate:g} {mae:.3f} kW" for rate, mae in errors.items()), flush=True
        )
    for method in ("stock", "tuned"):  # the same mathematics
        rates[f"{method}-{shape.name}"] = rates[f"native-{shape.name}"]


def fitted(s: Settings, seed: int, windows: Windows, runs: Path) -> dict[str, Any]:
    """The result of this fit, which is run if it is not there."""
    folder = runs / f"{s.method}-{seed}"
    path = folder / "result.json"
    if not path.exists() or read_json(path)["key"] != fit_key(s, seed, data_key(windows.meta)):
        fit_in_child(s, seed, windows, folder)
    found: dict[str, Any] = read_json(path)
    return found


def best(result: Mapping[str, Any]) -> float:
    """Least validation MAE, kW."""
    return min((row["val_mae"] for row in result["history"]), default=math.inf)


def to_target(result: Mapping[str, Any], target: float) -> float:
    """Training seconds until the validation error is at or below ``target``; infinite if it never is."""
    return min((row["train_seconds"] for row in result["history"] if row["val_mae"] <= target), default=math.inf)


def results_of(runs: Path, shape: Shape, method: str) -> dict[int, dict[str, Any]]:
    """Seed -> result."""
    found = runs.glob(f"{method}-{shape.name}-[0-9]*/result.json")
    return {result["seed"]: result for result in map(read_json, sorted(found))}


def write_page(out: Path, runs: Path, chosen: Sequence[Shape]) -> None:
    """``building.md`` and ``building.json``: a table a shape."""
    everything = {(s.name, m): results_of(runs, s, m) for s in chosen for m in s.methods}
    first = next(result for results in everything.values() for result in results.values())
    commits = sorted({result["commit"] for results in everything.values() for result in results.values()})
    data = first["data"]
    source = "simulated series" if data["simulated"] else data["source"]
    blocks = [
        "# Credit left out: the building",
        f"{source}, commit {', '.join(commits)}, {first['hardware']['cpu']}, one core; written by "
        "`python -m experiments.credit.building WINDOWS --table`. Medians over the seeds, in brackets their 90 % "
        f"interval (the range, up to three seeds). The target of a shape is {1 + TOLERANCE:g} times the median of "
        "tuned's least validation error. *Equal*: the 90 % interval of the paired ratio to native's validation error "
        f"lies within {MARGIN:.1%} of 1; *lower*, if not: it lies below 1; – with fewer than {LEAST} seeds.",
    ]
    kept: list[dict[str, Any]] = []
    for shape in chosen:
        known = {m: everything[shape.name, m] for m in shape.methods if everything[shape.name, m]}
        if "tuned" not in known or "native" not in known:
            continue
        target = (1 + TOLERANCE) * statistics.median_high(best(r) for r in known["tuned"].values())
        rows = [_row(shape, m, known, target) for m in known]
        kept += rows
        blocks += [f"## {shape.name} (target {target:.3f} kW)", _table(rows)]
    draw(out, kept)
    blocks += ["![Milliseconds a step and validation error](building.png)"]
    blocks += ["## Every width against one target", _across(chosen, everything)]
    write_text(out / "building.md", "\n\n".join(blocks) + "\n")
    write_json(out / "building.json", {"commit": commits, "hardware": hardware(), "written_at": commit(), "rows": kept})
    print(out / "building.md")


def draw(out: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """``building.png``: seconds of the whole training against the validation error, a panel a shape."""
    names = list(dict.fromkeys(r["shape"] for r in rows))
    methods = list(dict.fromkeys(r["method"] for r in rows))
    colours = dict(zip(methods, ("#000000", "#777777", "#BBBBBB", *PALETTE), strict=False))
    with mpl.rc_context(STYLE):
        columns = min(3, len(names))
        lines = -(-len(names) // columns)
        title = "Training time against validation error"
        figure, grid = new_figure(4.2 * columns, 3.6 * lines, title, lines, columns)
        for axes, name in zip(grid.flat, names, strict=False):
            for r in (r for r in rows if r["shape"] == name):
                x, y = r["training_s"], r["val_mae"]
                axes.plot(x["median"], y["median"], "o", color=colours[r["method"]], label=r["method"])
                axes.plot([x["low"], x["high"]], [y["median"]] * 2, color=colours[r["method"]], lw=1)
                axes.plot([x["median"]] * 2, [y["low"], y["high"]], color=colours[r["method"]], lw=1)
            axes.set(title=name, xlabel="training, s", ylabel="validation MAE, kW")
            axes.set_xlim(left=0)
        for axes in list(grid.flat)[len(names) :]:
            axes.set_axis_off()
        handles = {label: h for a in grid.flat for h, label in zip(*a.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=6, frameon=False)
        save(figure, out / "building.png")


def _row(shape: Shape, method: str, known: Mapping[str, Mapping[int, Any]], target: float) -> dict[str, Any]:
    own, native = known[method], known["native"]
    paired = [best(own[seed]) / best(native[seed]) for seed in own if seed in native]
    step = {m: _median([1e3 * r["train_seconds"] / r["steps"] for r in known[m].values()]) for m in known}
    seconds = _interval([to_target(r, target) for r in own.values()])
    ratio = _interval(paired)
    return {
        "shape": shape.name,
        "method": method,
        "seeds": len(own),
        "rate": next(iter(own.values()))["params"]["training.learning_rate"],
        "step_ms": step[method],
        "times": {m: step[m] / step[method] for m in REFERENCES if m in step},
        "training_s": _interval([r["train_seconds"] for r in own.values()]).as_json(),
        "to_target_s": seconds.as_json(),
        "reached": sum(math.isfinite(to_target(r, target)) for r in own.values()),
        "val_mae": _interval([best(r) for r in own.values()]).as_json(),
        "test_mae": _interval([r["test_mae"] for r in own.values()]).as_json(),
        "error_to_native": ratio.as_json(),
        "equal": _judged(ratio) if len(paired) >= LEAST else "–",
    }


def _judged(ratio: Interval) -> str:
    if ratio.low >= 1 - MARGIN and ratio.high <= 1 + MARGIN:
        return "yes"
    return "lower" if ratio.high < 1 else "no"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ["method", "seeds", "rate", "ms a step", "× native", "× tuned", "× stock", "training, s", "to target, s"]
    head += ["reached", "val. MAE, kW", "error ÷ native's", "equal", "test MAE, kW"]
    lines = ["| " + " | ".join(head) + " |", "| :-- |" + " --: |" * (len(head) - 1)]
    for r in rows:
        cells = [f"`{r['method']}`", str(r["seeds"]), f"{r['rate']:g}", f"{r['step_ms']:.2f}"]
        cells += [f"{r['times'][m]:.2f}" if m in r["times"] else "–" for m in ("native", "tuned", "stock")]
        cells += [_said(r["training_s"], ".2f"), _said(r["to_target_s"], ".2f"), f"{r['reached']} of {r['seeds']}"]
        cells += [
            _said(r["val_mae"], ".3f"),
            _said(r["error_to_native"], ".4f"),
            r["equal"],
        ]
        lines.append("| " + " | ".join([*cells, _said(r["test_mae"], ".3f")]) + " |")
    return "\n".join(lines)


def _across(chosen: Sequence[Shape], everything: Mapping[tuple[str, str], Mapping[int, Any]]) -> str:
    """Seconds of every streamed width and method to the error that tuned reaches at each width."""
    streamed = [s for s in chosen if s.name.startswith("streamed") and everything.get((s.name, "tuned"))]
    targets = {
        s.name: (1 + TOLERANCE) * statistics.median_high(best(r) for r in everything[s.name, "tuned"].values())
        for s in streamed
    }
    lines = ["Seconds to target, medians (missed: more than half of the seeds do not reach it).", ""]
    lines = ["| network and method | " + " | ".join(f"{n}'s: {t:.3f} kW" for n, t in targets.items()) + " |"]
    lines.append("| :-- |" + " --: |" * len(targets))
    for s in streamed:
        for method in s.methods:
            results = everything[s.name, method]
            cells = [_median([to_target(r, t) for r in results.values()]) for t in targets.values()] if results else []
            said = " | ".join(f"{c:.2f}" if math.isfinite(c) else "missed" for c in cells)
            lines.append(f"| `{method}` of {s.name} | {said} |")
    return "\n".join(lines)


def _median(values: Sequence[float]) -> float:
    return statistics.median_high(values)


def _interval(values: Sequence[float]) -> Interval:
    return median_interval(values, 0.9, 2000)


def _said(interval: Mapping[str, float | None], form: str) -> str:
    median, low, high = (interval[key] for key in ("median", "low", "high"))
    if median is None:
        return "missed"
    ends = "missed" if high is None else format(high, form)
    return f"{median:{form}}" + ("" if low == high else f" ({low:{form}}–{ends})")


if __name__ == "__main__":
    main()
