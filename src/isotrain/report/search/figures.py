"""The figures of a search: its front, its points on fresh seeds, and which parameters matter."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from isotrain.compare.comparison import best_validation
from isotrain.compare.results import Run
from isotrain.compare.searched import Importance, Searched
from isotrain.report.drawing import GREY, PALETTE, Label, colours, label_points, new_figure, seconds_axis, titled
from isotrain.report.figures import save_drawings
from isotrain.report.search.words import Again

WORDS = {"val_mae": "validation MAE", "seconds": "training time"}
ABSENT = -0.16  # height on an axis of a trial that does not have the parameter
LOGARITHMIC = 20  # times the smallest value from which an axis is logarithmic


def importance(found: Searched) -> Figure | None:
    """A bar for each parameter and objective, with what chance reaches as a tick; ``None`` with too few trials."""
    if not found.importances:
        return None
    names = sorted(found.importances[0].share, key=lambda name: -sum(i.share[name] for i in found.importances))
    title = titled(found, "Which parameters decide, and for what")
    figure, grid = new_figure(8.4, 1.4 + 0.3 * len(names), title, columns=len(found.importances), sharey=True)
    for axes, one, colour in zip(grid[0], found.importances, PALETTE, strict=False):
        _bars(axes, one, names, colour)
    figure.supxlabel(
        f"Share of the importance over {found.importances[0].trials} trials (%). Black: the most that chance gave in "
        "20 draws; grey bars do not exceed it",
        fontsize=8.5,
        color=GREY,
    )
    return figure


def parallel(found: Searched) -> Figure | None:
    """A line for each trial across its parameters to its two values; the front is in colour."""
    trials = [point for point in found.points if point.counts]
    if len(trials) < 2:
        return None
    best = {point.number for point in found.front}
    rows: list[dict[str, Any]] = [
        {**p.settings, "training time (s)": p.seconds, "validation MAE (kW)": p.val_mae} for p in trials
    ]
    ends = ("training time (s)", "validation MAE (kW)")
    paths = [path for path in dict.fromkeys(key for row in rows for key in row) if path not in ends]
    scales = [_scale(path, [row[path] for row in rows if path in row]) for path in (*paths, *ends)]
    scales = [scale for scale in scales if len(scale.ticks) > 1]
    figure, grid = new_figure(max(8.4, 0.95 * len(scales)), 5.0, titled(found, "The settings of all trials"))
    axes = grid[0, 0]
    shades, palette = Normalize(0, max(len(best) - 1, 1)), mpl.colormaps["viridis"]
    order = {point.number: rank for rank, point in enumerate(found.front)}
    for point, row in sorted(zip(trials, rows, strict=True), key=lambda pair: pair[0].number in best):
        line = [scale.height(row.get(scale.name)) for scale in scales]
        on = point.number in best
        colour = palette(0.9 * shades(order[point.number])) if on else "#C9C9C9"
        axes.plot(range(len(scales)), line, color=colour, lw=1.6 if on else 0.6, alpha=0.9 if on else 0.5)
    _dress(axes, scales, any(len(row) < max(map(len, rows)) for row in rows))
    return figure


@dataclass(frozen=True)
class Scale:
    """One axis of the parallel coordinates: its ticks at heights in [0, 1], with numbers between them."""

    name: str
    ticks: tuple[tuple[float, str], ...]
    low: float = math.nan  # the limits of numbers; NaN if the values are words
    high: float = math.nan
    logarithmic: bool = False

    def height(self, value: Any) -> float:
        """The height of ``value`` on the axis, or below the axis if the trial has no value."""
        if value is None:
            return ABSENT
        if math.isnan(self.low):
            return next(height for height, word in self.ticks if word == str(value))
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (float(value) - self.low) / (self.high - self.low)


def _scale(name: str, values: Sequence[Any]) -> Scale:
    if any(isinstance(value, bool | str | list) or value is None for value in values):
        words = sorted({str(value) for value in values})
        return Scale(name, tuple((n / max(len(words) - 1, 1), word) for n, word in enumerate(words)))
    low, high = float(min(values)), float(max(values))
    if low == high:
        return Scale(name, ((0.0, f"{low:g}"),), low, high + 1)
    logarithmic = low > 0 and high > LOGARITHMIC * low
    middle = math.sqrt(low * high) if logarithmic else (low + high) / 2
    return Scale(
        name, tuple(zip((0.0, 0.5, 1.0), map(_number, (low, middle, high)), strict=True)), low, high, logarithmic
    )


def _number(value: float) -> str:
    return f"{value:.3g}"


def _dress(axes: Axes, scales: Sequence[Scale], absent: bool) -> None:
    for at, scale in enumerate(scales):
        axes.plot([at, at], [0, 1], color="#888888", lw=0.8, zorder=3)
        for height, text in scale.ticks:
            box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
            axes.text(at, height, text, fontsize=7, ha="center", va="center", bbox=box, zorder=4)
    names = [scale.name.removeprefix("isolation.").replace("schedule.", "") for scale in scales]
    axes.set_xticks(range(len(scales)), names, rotation=40, ha="right", fontsize=8)
    axes.tick_params(length=0)
    axes.set_yticks([ABSENT] if absent else [], ["absent"] if absent else [], fontsize=8)
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_xlim(-0.4, len(scales) - 0.6)
    note = "in colour: the front as searched, from dark (fastest) to light (slowest); grey: all other trials"
    axes.set_title(note, fontsize=8.5, color=GREY, fontweight="normal")


def _bars(axes: Axes, one: Importance, names: Sequence[str], colour: str) -> None:
    shares = np.array([100 * one.share[name] for name in names])
    chance = np.array([100 * one.chance[name] for name in names])
    axes.barh(
        range(len(names)), shares, color=[colour if s > c else "#CCCCCC" for s, c in zip(shares, chance, strict=True)]
    )
    axes.plot(chance, range(len(names)), "|", color="black", ms=11, mew=1.4)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_title(f"for {WORDS.get(one.objective, one.objective)}", fontsize=9.5, color=GREY)
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, None)
    if not axes.yaxis_inverted():
        axes.invert_yaxis()


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
    """Training seconds against validation MAE: trials, front, points on fresh seeds, and the methods beside them."""
    whole = [point for point in found.points if point.counts]
    if not whole:
        return None
    figure, grid = new_figure(8.4, 5.6, titled(found, "The front of the search, and its points on fresh seeds"))
    axes = grid[0, 0]
    axes.scatter(*_plane(whole), s=16, color="#B5B5B5", linewidths=0, zorder=1)
    early = [point for point in found.points if point.early]
    axes.scatter(*_plane(early), s=14, marker="x", color="#B5B5B5", linewidths=0.8, zorder=1)
    stairs = _stairs([(point.seconds, point.val_mae) for point in found.front])
    axes.plot(*zip(*stairs, strict=True), color=GREY, lw=1, ls=(0, (5, 3)), zorder=2)
    axes.scatter(*_plane(found.front), s=26, facecolor="white", edgecolor=GREY, linewidths=1.2, zorder=3)
    labels = [label for row in rows for label in _moved(axes, row)]
    roles = {run.method: run.role for run in found.confirmed}
    colour = colours({"search": "tested"} | {name: roles.get(name, "control") for name in found.against})
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
    """Each point that was trained again: value in the search against value on fresh seeds, for both objectives."""
    if not rows:
        return None
    figure, grid = new_figure(8.4, 4.2, titled(found, "Do the values of the search hold on fresh seeds?"), columns=2)
    sides = (
        ("Validation MAE (kW)", [(row.point.val_mae, row.val_mae, row) for row in rows]),
        ("Training time (s)", [(row.point.seconds, row.seconds, row) for row in rows]),
    )
    for axes, (what, pairs) in zip(grid[0], sides, strict=True):
        for x, y, _ in pairs:
            axes.plot([x, x], [y.low, y.high], color=POINT, lw=1.4, alpha=0.6)
        axes.plot([x for x, _, _ in pairs], [y.median for _, y, _ in pairs], "o", ms=7, color=POINT)
        ends = [value for x, y, _ in pairs for value in (x, y.low, y.high)]
        margin = 0.12 * (max(ends) - min(ends)) or 1.0
        limits = (min(ends) - margin, max(ends) + margin)
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
    """An arrow from a point as the search measured it to the same point on fresh seeds."""
    goal = (row.seconds.median, row.val_mae.median)
    start = (row.point.seconds, row.point.val_mae)
    seeds = [(run.train_seconds, best_validation(run.history)) for run in row.runs]
    axes.scatter(*np.transpose(seeds), color=POINT, **SEED)
    arrow = {"arrowstyle": "->", "color": POINT, "lw": 1.1, "shrinkA": 3, "shrinkB": 4}
    axes.annotate("", xy=goal, xytext=start, arrowprops=arrow, zorder=3)
    axes.plot(*goal, "o", ms=8, color=POINT, zorder=4)
    return [(*goal, str(row.point.number), POINT)]


def _beside(axes: Axes, name: str, runs: Sequence[Run], colour: str) -> list[Label]:
    """A method that was trained beside the points: its seeds, and their median."""
    if not runs:
        return []
    seeds = [(run.train_seconds, best_validation(run.history)) for run in runs]
    x, y = (float(value) for value in np.median(seeds, axis=0))
    axes.scatter(*np.transpose(seeds), marker="D", color=colour, **SEED)
    axes.plot(x, y, "D", ms=7, color=colour, zorder=4)
    return [(x, y, name, colour)]


def _frame(axes: Axes, found: Searched, runs: Sequence[Run]) -> int:
    """Set limits around the front and the fits; returns how many trials lie beyond them."""
    kept = [(p.seconds, p.val_mae) for p in found.front] + [(r.train_seconds, best_validation(r.history)) for r in runs]
    errors = [point.val_mae for point in found.points if point.counts]
    low, high = min(y for _, y in kept), max(*(y for _, y in kept), float(np.quantile(errors, 0.75)))
    margin = max(high - low, 0.01 * high)
    axes.set_ylim(low - 0.12 * margin, high + 0.08 * margin)
    across = [x for x, _ in kept] + [point.seconds for point in found.points if low <= point.val_mae <= high]
    axes.set_xlim(min(across) / 1.15, max(across) * 1.25)
    return sum(value > high + 0.08 * margin for value in errors)


def _legend(found: Searched, rows: Sequence[Again], early: bool, beyond: int) -> str:
    marks = ["grey: trials", "crosses: stopped early"] if early else ["grey: trials"]
    marks += ["dashed: the front as searched (biased, as the best of many trials)"]
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
