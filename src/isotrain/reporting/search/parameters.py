"""Figures about the parameters: which matter for which objective, and what the trials tried."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from isotrain.reporting.style import titled
from isotrain.style import GREY, PALETTE, new_figure
from isotrain.tradeoff.searched import Importance, Searched

WORDS = {"val_mae": "validation MAE", "seconds": "training time"}
ABSENT = -0.16  # height on an axis of a trial that does not have the parameter
LOGARITHMIC = 20  # times the smallest value from which an axis is logarithmic


def importance(found: Searched) -> Figure | None:
    """A bar a parameter and objective, with what chance reaches as a tick; ``None`` with too few trials."""
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
    """A line a trial across its parameters to its two results; the front is in colour."""
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
    figure, grid = new_figure(max(8.4, 0.95 * len(scales)), 5.0, titled(found, "What the trials tried"))
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
    """One axis of the parallel coordinates: its ticks at heights in [0, 1]; numbers between them."""

    name: str
    ticks: tuple[tuple[float, str], ...]
    low: float = math.nan  # a number's limits; NaN: the values are words
    high: float = math.nan
    logarithmic: bool = False

    def height(self, value: Any) -> float:
        """Where ``value`` lies; below the axis if it is absent."""
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
    axes.set_yticks([ABSENT] if absent else [], ["not there"] if absent else [], fontsize=8)
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
