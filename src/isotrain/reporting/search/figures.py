"""The search's figures: the front with what fresh seeds make of it, how the search went, whether its figures hold."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isotrain.reporting.figures import save_drawings
from isotrain.reporting.labels import Label, label_points
from isotrain.reporting.search.parameters import importance, parallel
from isotrain.reporting.search.verdicts import Again
from isotrain.reporting.style import colours, seconds_axis, titled
from isotrain.style import GREY, PALETTE, new_figure
from isotrain.tradeoff.results import Run
from isotrain.tradeoff.searched import Searched
from isotrain.tradeoff.target import best_validation

POINT = PALETTE[0]
SEED: dict[str, Any] = {"s": 12, "alpha": 0.45, "linewidths": 0, "zorder": 3}
SUBTITLE: dict[str, Any] = {"fontsize": 8.5, "color": GREY, "fontweight": "normal"}


def draw_all(found: Searched, rows: Sequence[Again], folder: Path) -> list[str]:
    """Save every figure as ``<folder>/<name>.png`` and ``.svg``; the names of those drawn."""
    drawings = {
        "front": lambda: front(found, rows),
        "confirmed": lambda: confirmed(found, rows),
        "importance": lambda: importance(found),
        "parallel": lambda: parallel(found),
        "hypervolume": lambda: hypervolume(found),
    }
    return save_drawings(drawings, folder)


def front(found: Searched, rows: Sequence[Again]) -> Figure | None:
    """Training seconds against validation MAE: trials, the front, the points run again, the methods beside them."""
    whole = [point for point in found.points if point.counts]
    if not whole:
        return None
    figure, grid = new_figure(8.4, 5.6, titled(found, "What the search found, and what fresh seeds make of it"))
    axes = grid[0, 0]
    axes.scatter(*_plane(whole), s=16, color="#B5B5B5", linewidths=0, zorder=1)
    early = [point for point in found.points if point.early]
    axes.scatter(*_plane(early), s=14, marker="x", color="#B5B5B5", linewidths=0.8, zorder=1)
    stairs = _stairs([(point.seconds, point.val_mae) for point in found.front])
    axes.plot(*zip(*stairs, strict=True), color=GREY, lw=1, ls=(0, (5, 3)), zorder=2)
    axes.scatter(*_plane(found.front), s=26, facecolor="white", edgecolor=GREY, linewidths=1.2, zorder=3)
    labels = [label for row in rows for label in _moved(axes, row)]
    colour = colours(["search", *found.against])  # the points have the first
    for name in found.against:
        labels += _beside(axes, name, [run for run in found.runs_of(name) if not run.diverged], colour[name])
    axes.set_xscale("log")
    beyond = _frame(axes, found, [run for run in found.confirmed if not run.diverged])
    seconds_axis(axes)
    axes.set(xlabel="Training time (s, logarithmic)", ylabel="Validation MAE (kW)")
    axes.set_title(_legend(found, rows, bool(early), beyond), **SUBTITLE)
    label_points(axes, labels, stairs)
    return figure


def confirmed(found: Searched, rows: Sequence[Again]) -> Figure | None:
    """Of each point run again: what the search measured against what fresh seeds gave, both objectives."""
    if not rows:
        return None
    figure, grid = new_figure(8.4, 4.2, titled(found, "Do the search's figures hold on fresh seeds?"), columns=2)
    sides = (
        ("Validation MAE (kW)", [(row.point.val_mae, row.val_mae, row) for row in rows]),
        ("Training time (s)", [(row.point.seconds, row.seconds, row) for row in rows]),
    )
    for axes, (what, pairs) in zip(grid[0], sides, strict=True):
        for x, y, _ in pairs:
            axes.plot([x, x], [y.low, y.high], color=POINT, lw=1.4, alpha=0.6)
        axes.plot([x for x, _, _ in pairs], [y.median for _, y, _ in pairs], "o", ms=7, color=POINT)
        ends = [value for x, y, _ in pairs for value in (x, y.low, y.high)]
        room = 0.12 * (max(ends) - min(ends)) or 1.0
        limits = (min(ends) - room, max(ends) + room)
        axes.plot(limits, limits, color=GREY, lw=1, ls=(0, (4, 3)), zorder=1)
        axes.set(xlim=limits, ylim=limits, xlabel=f"{what}, as searched", ylabel="on fresh seeds", title=what)
        axes.set_aspect("equal")
        diagonal = [(value, value) for value in np.linspace(*limits, 12)]
        label_points(axes, [(x, y.median, str(row.point.number), POINT) for x, y, row in pairs], diagonal)
    return figure


def hypervolume(found: Searched) -> Figure | None:
    """How the area that the front dominates grew with the trials."""
    start = sum(volume == 0 for volume in found.hypervolumes)
    if not found.reference or start == len(found.hypervolumes):
        return None
    figure, grid = new_figure(8.4, 3.4, titled(found, "How the front grew"))
    axes, grown = grid[0, 0], found.hypervolumes
    axes.plot(range(start + 1, len(grown) + 1), grown[start:], color=POINT, lw=1.8, drawstyle="steps-post")
    axes.axvline(found.startup, color=GREY, lw=1, ls=(0, (4, 3)))
    corner = ", ".join(f"{name} {value:.4g}" for name, value in zip(found.objectives, found.reference, strict=False))
    note = f"the corner ({corner}) lies a tenth beyond the worst of the first {found.startup} trials (dashed line)"
    axes.set_title(note, **SUBTITLE)
    unit = "kW s" if len(found.objectives) == 2 else "s²"
    axes.set(xlabel="Finished trials", ylabel=f"Hypervolume ({unit})", ylim=(0, None), xlim=(0, None))
    return figure


def _moved(axes: Axes, row: Again) -> list[Label]:
    """A point from where the search saw it to where fresh seeds put it."""
    goal = (row.seconds.median, row.val_mae.median)
    start = (row.point.seconds, row.point.val_mae)
    seeds = [(run.train_seconds, best_validation(run.history)) for run in row.runs]
    axes.scatter(*np.transpose(seeds), color=POINT, **SEED)
    arrow = {"arrowstyle": "->", "color": POINT, "lw": 1.1, "shrinkA": 3, "shrinkB": 4}
    axes.annotate("", xy=goal, xytext=start, arrowprops=arrow, zorder=3)
    axes.plot(*goal, "o", ms=8, color=POINT, zorder=4)
    return [(*goal, str(row.point.number), POINT)]


def _beside(axes: Axes, name: str, runs: Sequence[Run], colour: str) -> list[Label]:
    """A method run beside the points: its seeds, and their median."""
    if not runs:
        return []
    seeds = [(run.train_seconds, best_validation(run.history)) for run in runs]
    x, y = (float(value) for value in np.median(seeds, axis=0))
    axes.scatter(*np.transpose(seeds), marker="D", color=colour, **SEED)
    axes.plot(x, y, "D", ms=7, color=colour, zorder=4)
    return [(x, y, name, colour)]


def _frame(axes: Axes, found: Searched, runs: Sequence[Run]) -> int:
    """Limits around the front and the fits; how many trials lie beyond them."""
    kept = [(p.seconds, p.val_mae) for p in found.front] + [(r.train_seconds, best_validation(r.history)) for r in runs]
    errors = [point.val_mae for point in found.points if point.counts]
    low, high = min(y for _, y in kept), max(*(y for _, y in kept), float(np.quantile(errors, 0.75)))
    room = max(high - low, 0.01 * high)
    axes.set_ylim(low - 0.12 * room, high + 0.08 * room)
    across = [x for x, _ in kept] + [point.seconds for point in found.points if low <= point.val_mae <= high]
    axes.set_xlim(min(across) / 1.15, max(across) * 1.25)
    return sum(value > high + 0.08 * room for value in errors)


def _legend(found: Searched, rows: Sequence[Again], early: bool, beyond: int) -> str:
    marks = ["grey: trials", "crosses: stopped early"] if early else ["grey: trials"]
    marks += ["dashed: the front as searched (biased: the best of many)"]
    marks += [f"{beyond} more above the frame"] if beyond else []
    text = "; ".join(marks)
    if rows:
        text += "\narrows: to the median over fresh seeds (faint: each seed); diamonds: methods on the same seeds"
    return text


def _stairs(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A staircase through ``points``."""
    ordered = sorted(points)
    stairs = ordered[:1]
    for (_, above), (x, y) in pairwise(ordered):
        stairs += [(x, above), (x, y)]
    return stairs


def _plane(points: Sequence[Any]) -> tuple[list[float], list[float]]:
    return [point.seconds for point in points], [point.val_mae for point in points]
