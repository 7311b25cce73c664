"""The report's figures: every function takes a comparison and returns one figure, units on every axis."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isotrain.reporting.accuracy import Entry
from isotrain.reporting.error_figures import error_by_lead, error_by_month
from isotrain.reporting.forecast_figure import forecasts
from isotrain.reporting.labels import Label, label_ends, label_points
from isotrain.reporting.style import colours, seconds_axis, titled
from isotrain.style import GREY, STYLE, new_figure, save
from isotrain.tradeoff.comparison import Comparison, Method
from isotrain.tradeoff.pareto import pareto
from isotrain.tradeoff.results import PHASES, Run

PHASE_COLOURS = dict(zip(PHASES, ("#56B4E9", "#0072B2", "#E69F00", "#D55E00", "#BBBBBB"), strict=True))
MARKERS = {"streamed": "o", "windowed": "s"}


def draw_all(comparison: Comparison, accuracy: Sequence[Entry], folder: Path) -> list[str]:
    """Save every figure as ``<folder>/<name>.png`` and ``.svg``; the names of those drawn."""
    drawings: dict[str, Callable[[], Figure | None]] = {
        "tradeoff": lambda: tradeoff(comparison, accuracy),
        "learning_curves": lambda: learning_curves(comparison),
        "isolated_share": lambda: isolated_share(comparison),
        "forecasts": lambda: forecasts(comparison),
        "error_by_lead": lambda: error_by_lead(comparison, accuracy),
        "error_by_month": lambda: error_by_month(comparison, accuracy),
        "phases": lambda: phases(comparison),
    }
    return save_drawings(drawings, folder)


def save_drawings(drawings: Mapping[str, Callable[[], Figure | None]], folder: Path) -> list[str]:
    """Draw in the house's style and save what there is to draw; the names of those drawn."""
    drawn = []
    with mpl.rc_context(STYLE):
        for name, draw in drawings.items():
            if figure := draw():
                save_figure(figure, folder, name)
                drawn.append(name)
    return drawn


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """As a picture and as a drawing."""
    for kind in ("png", "svg"):
        save(figure, folder / f"{name}.{kind}")


def tradeoff(comparison: Comparison, accuracy: Sequence[Entry]) -> Figure:
    """Training seconds against test MAE: marks are methods, faint dots seeds, lines baselines.

    A baseline that took a second or more to fit is a diamond, at its seconds.
    """
    figure, grid = new_figure(8.4, 5.4, titled(comparison.runs[0], "Training time against accuracy"))
    axes, colour = grid[0, 0], colours(method.name for method in comparison.methods)
    points = []
    for method in _finished(comparison):
        x, y = comparison.figure(method, _train_seconds), comparison.figure(method, _test_mae)
        own, marker = colour[method.name], MARKERS.get(method.regime, "D")
        seeds = [(run.train_seconds, run.test_mae) for run in method.runs if not run.diverged]
        axes.scatter(*zip(*seeds, strict=True), s=14, color=own, alpha=0.35, marker=marker, linewidths=0)
        across, up = _arms(x.median, x.low, x.high), _arms(y.median, y.low, y.high)
        axes.errorbar(x.median, y.median, xerr=across, yerr=up, color=own, lw=1.2, capsize=2, alpha=0.8)
        fill = own if method.regime == "streamed" else "white"
        axes.plot(x.median, y.median, marker, ms=8, mfc=fill, mec=own, mew=1.6, zorder=4)
        points.append((x.median, y.median, method.name, own))
    baselines = [(e, e.seconds.median if e.seconds else 0.0) for e in accuracy if e.kind == "baseline"]
    for e, spent in baselines:
        if spent >= 1:
            axes.plot(spent, e.test_mae.median, "D", ms=5, color=GREY, zorder=3)
            points.append((spent, e.test_mae.median, e.name, GREY))
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.14)
    seconds_axis(axes)
    axes.set(xlabel="Training time (s, logarithmic)", ylabel="Test MAE (kW)")
    beyond = _draw_baselines(axes, [(e.name, e.test_mae.median) for e, spent in baselines if spent < 1])
    front = _draw_front(axes, [(x, y) for x, y, _, _ in points])
    regimes = {method.regime for method in comparison.methods}
    marks = {"streamed": "circle: streamed", "windowed": "open square: windowed"}
    shown = [text for regime, text in marks.items() if regime in regimes]
    shown += ["diamond: baseline"] if any(spent >= 1 for _, spent in baselines) else []
    note = "; ".join([*shown, "bars: intervals", "faint: seeds", "dashed: Pareto front"])
    axes.set_title(note + (f"\nbeyond the frame: {beyond}" if beyond else ""), **_SUBTITLE)
    label_points(axes, points, front)
    return figure


def learning_curves(comparison: Comparison) -> Figure:
    """Validation MAE against training seconds, a thin line a seed, with the target of each regime."""
    figure, panels = _panels(comparison, "Validation error while training", 4.2)
    colour = colours(method.name for method in comparison.methods)
    for regime, axes in panels.items():
        ends: list[Label] = []
        curves: list[list[tuple[float, float]]] = []
        for method in _of(comparison, regime):
            end = None
            for run in method.runs:
                if seen := [(v.train_seconds, v.val_mae) for v in run.history if math.isfinite(v.val_mae)]:
                    axes.plot(*zip(*seen, strict=True), color=colour[method.name], lw=1.1, alpha=0.8)
                    curves.append(seen)
                    end = (*seen[-1], method.name, colour[method.name])
            ends += [end] if end else []
        axes.set_xscale("log")
        _frame_the_ends(axes, curves)
        if target := comparison.targets[regime]:
            axes.axhline(target, color=GREY, lw=1, ls=(0, (4, 3)))
            axes.text(0.01, target, f"target {target:.2f} kW", transform=axes.get_yaxis_transform(), **_NOTE)
        seconds_axis(axes)
        axes.set(xlabel="Training time (s, logarithmic)", ylabel="Validation MAE (kW)")
        label_ends(axes, ends)
    return figure


def isolated_share(comparison: Comparison) -> Figure | None:
    """Share of the zones left out against training progress; ``None`` if no fit isolated anything."""
    isolating = [m for m in comparison.methods if any(v.isolated_fraction > 0 for r in m.runs for v in r.history)]
    if not isolating:
        return None
    figure, grid = new_figure(8.4, 3.6, titled(comparison.runs[0], "Isolated share while training"))
    axes, colour, ends = grid[0, 0], colours(method.name for method in comparison.methods), []
    for method in isolating:
        for run in method.runs:
            seen = [(100 * v.step / run.steps, 100 * v.isolated_fraction) for v in run.history]
            seen = [(0.0, seen[0][1]), *seen] if seen else [(0.0, 100 * run.isolated_fraction)]
            axes.plot(*zip(*seen, strict=True), color=colour[method.name], lw=1.6, alpha=0.8, drawstyle="steps-pre")
        ends.append((*seen[-1], method.name, colour[method.name]))
    axes.set(ylim=(-3, 103), xlim=(-1, 101))
    axes.set(
        xlabel="Training progress (% of the fit's own steps)", ylabel="Isolated share (% of arcs or of time steps)"
    )
    label_ends(axes, ends)
    rest = [method.name for method in comparison.methods if method not in isolating]
    if rest:
        axes.set_title(f"0 % throughout: {', '.join(rest)}", **_SUBTITLE)
    return figure


def phases(comparison: Comparison) -> Figure:
    """Where the training seconds went: a stacked bar a method, medians over the seeds."""
    figure, panels = _panels(comparison, "Where the training time goes", 0.35, per_method=True)
    for regime, axes in panels.items():
        methods = _of(comparison, regime)
        left = np.zeros(len(methods))
        for phase in PHASES:
            width = np.array([median(run.phase_seconds[phase] for run in m.runs) for m in methods])
            label = "optimiser" if phase == "optimizer" else phase
            axes.barh(range(len(methods)), width, left=left, color=PHASE_COLOURS[phase], label=label, height=0.68)
            left += width
        for row, total in enumerate(left):
            axes.text(total, row, f" {total:.3g} s", va="center", fontsize=8.5, color="#333333")
        axes.set(yticks=range(len(methods)), yticklabels=[m.name for m in methods], xlabel="Training time (s)")
        axes.invert_yaxis()
        axes.margins(x=0.14)
        axes.grid(axis="y", visible=False)
    handles, labels = next(iter(panels.values())).get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=5, frameon=False, fontsize=8.5)
    return figure


_SUBTITLE: dict[str, Any] = {"fontsize": 8.5, "color": GREY, "fontweight": "normal"}
_NOTE: dict[str, Any] = {"fontsize": 8.5, "color": GREY, "va": "bottom"}


def _panels(
    comparison: Comparison, title: str, height: float, per_method: bool = False
) -> tuple[Figure, dict[str, Axes]]:
    """A figure with one panel a regime, below each other; ``height`` in inches a panel, or a method in it."""
    regimes = sorted({method.regime for method in comparison.methods})
    heights = [0.75 + height * len(_of(comparison, regime)) if per_method else height for regime in regimes]
    figure, grid = new_figure(
        8.4, sum(heights) + 0.6, titled(comparison.runs[0], title), rows=len(regimes), height_ratios=heights
    )
    for regime, axes in zip(regimes, grid[:, 0], strict=True):
        axes.set_title(f"{regime} training", fontsize=9.5, color=GREY)
    return figure, dict(zip(regimes, grid[:, 0], strict=True))


def _frame_the_ends(axes: Axes, curves: Sequence[Sequence[tuple[float, float]]]) -> None:
    """The first validations are far above what matters: show where the curves end, and some way there."""
    if curves:
        best, worst = min(y for curve in curves for _, y in curve), max(curve[-1][1] for curve in curves)
        room = max(worst - best, 0.05 * best)
        axes.set_ylim(best - 0.25 * room, worst + 0.6 * room)
        axes.set_xlim(left=0.7 * min(x for curve in curves for x, y in curve if y <= worst + 0.6 * room))


def _draw_baselines(axes: Axes, levels: Sequence[tuple[str, float]]) -> str:
    """Horizontal lines, named at the right; returns the names of those that would squeeze the methods."""
    low, high = axes.get_ylim()
    near = [(name, y) for name, y in levels if 0.75 * low <= y <= max(1.35 * low, high + 0.3 * (high - low))]
    far = [(name, y) for name, y in levels if (name, y) not in near]
    low, high = min([low, *(y for _, y in near)]), max([high, *(y for _, y in near)])
    axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    right = axes.get_xlim()[1]
    for _, y in near:
        axes.axhline(y, color=GREY, lw=1, ls=(0, (1, 2)), zorder=1)
    label_ends(axes, [(right, y, f"{name} {y:.2f}", GREY) for name, y in near])
    return ", ".join(f"{name} {y:.2f} kW" for name, y in far)


def _draw_front(axes: Axes, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A staircase through the points that none dominates; its vertices."""
    front = sorted({points[index] for index in pareto(points)}) if points else []
    stairs = front[:1]
    for (_, above), (x, y) in pairwise(front):
        stairs += [(x, above), (x, y)]
    axes.plot([x for x, _ in stairs], [y for _, y in stairs], color=GREY, lw=1, ls=(0, (5, 3)), zorder=2)
    return stairs


def _finished(comparison: Comparison) -> list[Method]:
    return [m for m in comparison.methods if math.isfinite(comparison.figure(m, _test_mae).median)]


def _of(comparison: Comparison, regime: str) -> list[Method]:
    return [method for method in comparison.methods if method.regime == regime]


def _arms(middle: float, low: float, high: float) -> list[list[float]]:
    """Lengths of an error bar's arms; an endless arm is left out."""
    return [[middle - low], [high - middle if math.isfinite(high) else 0.0]]


def _train_seconds(run: Run) -> float:
    return run.train_seconds


def _test_mae(run: Run) -> float:
    return run.test_mae
