"""Pictures of isolation: what trained when, by what scores, how steady the choice was and what it left out.

Drawn without pyplot: write one with :func:`isotrain.style.save`; a notebook shows it after ``%matplotlib inline``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from isotrain.errors import InputError
from isotrain.isolation.pictures.curves import draw_churn, draw_neglected, draw_scores, say
from isotrain.isolation.pictures.heatmap import (
    BEFORE_END,
    COLUMNS,
    GATES,
    HEAT,
    TIME,
    add_colour_bar,
    draw_bands,
    draw_layer,
    over_time,
)
from isotrain.isolation.pictures.record import Record
from isotrain.style import GREY, STYLE, blank_figure, new_figure

Rows = list[list[str]]
WIDTH = 11.0  # inches
ACROSS, PANELS, BANDS = 3, 6, 40  # layers side by side; layers in a figure; layers in it if each is one band
BLANK = " "
READING = (
    "A choice holds until the next. Scores when choosing: line: median; dark band: 25 to 75 %; light band: "
    "5 to 95 %; dotted: least and greatest."
)


def draw(record: Record, history: Sequence[Mapping[str, Any]], steps: int, title: str) -> Figure:
    """One figure a run: active zones over time, scores, churn with the isolated share, and the neglected update.

    Layers stand side by side, each above its scores; where layers are the zones, they are bands of one heat map.
    The first :data:`PANELS` layers (:data:`BANDS` bands) are drawn, the rest named below. Of a run that isolated
    nothing the figure says so.

    Args:
        record: of the run, :attr:`.isolator.Isolator.record`.
        history: of the run, :attr:`.isolator.Isolator.history`; ``neglected`` may be absent.
        steps: optimiser steps planned. A run that went on beyond them is drawn to its last choice.
        title: of the figure: method, zone, criterion.
    """
    with mpl.rc_context(STYLE):
        if not record.entries:
            figure, grid = new_figure(WIDTH, 1.5, title)
            grid[0, 0].set_axis_off()
            say(grid[0, 0], f"nothing was isolated in {steps} optimiser steps")
            return figure
        return _overview(record.entries, history, steps, title)


def picture(heat: Mapping[str, Float[Tensor, "_gates _units"]]) -> Figure:
    """One choice as it stands: for each layer the share of active arcs, gates down and units across.

    Args:
        heat: layer -> share in [0, 1], as :meth:`.zonemap.ZoneMap.heat` gives it. The first :data:`BANDS` are drawn,
            the rest named below.

    Raises:
        InputError: there is no layer.
    """
    if not heat:
        raise InputError("there is no layer to draw: hand in what ZoneMap.heat gives, layer -> (gates, units)")
    shown = list(heat)[:BANDS]
    heights = [0.4 + 0.22 * max(2, len(heat[layer])) for layer in shown]
    with mpl.rc_context(STYLE):
        figure, grid = new_figure(WIDTH, 0.9 + sum(heights), "Active zones", len(shown), height_ratios=heights)
        for layer, axes in zip(shown, grid[:, 0], strict=True):
            gates, units = heat[layer].shape
            across = (units, 0) if layer == TIME else (0, units)
            axes.imshow(heat[layer].detach().cpu().numpy(), aspect="auto", extent=(*across, gates, 0), **HEAT)
            axes.set_yticks(np.arange(gates) + 0.5, GATES.get(gates, [""] * gates), fontweight="bold")
            axes.tick_params(axis="y", length=0)
            axes.grid(visible=False)
            axes.set_title(layer)
        grid[-1, 0].set_xlabel(BEFORE_END if shown[-1] == TIME else "Unit")
        add_colour_bar(list(grid[:, 0]), aspect=12)
        _note(figure, _left_out(list(heat), BANDS))
    return figure


def _overview(
    entries: Sequence[Mapping[str, Any]], history: Sequence[Mapping[str, Any]], steps: int, title: str
) -> Figure:
    shares = over_time(entries)
    maps = list(entries[0]["scores"])
    banded = set(maps) != set(shares)
    shown = (maps if banded else list(shares))[:PANELS]
    rows, heights = _rows_of_bands(shown, len(shares)) if banded else _rows(shown)
    figure = blank_figure(WIDTH, sum(heights) + 1.2, title)
    figure.set_layout_engine("constrained", h_pad=0.08)
    panels = figure.subplot_mosaic([[*row] for row in rows], height_ratios=heights, empty_sentinel=BLANK)

    starts = np.array([entry["step"] for entry in entries], dtype=float)
    end = max(float(steps), starts[-1] + 1)
    edges = np.array([*([0.0] if starts[0] > 0 else []), *starts, end])
    merged = {}
    if banded:
        draw_bands(panels["heat"], dict(list(shares.items())[:BANDS]), edges)
    else:
        merged = {layer: draw_layer(panels[f"heat {layer}"], layer, shares[layer], edges) for layer in shown}
    for name in shown:
        quantiles = np.stack([entry["scores"][name].numpy() for entry in entries])
        draw_scores(panels[f"scores {name}"], quantiles, np.append(starts, end))
    draw_churn(panels["churn"], history, end)
    draw_neglected(panels["neglected"], history)

    _share_steps(panels, rows, end)
    add_colour_bar([panels[name] for name in rows[0] if name != BLANK], aspect=30)
    _note(figure, [READING, *_means(merged, len(edges) - 1), *_left_out(list(shares), BANDS if banded else PANELS)])
    return figure


def _rows(layers: Sequence[str]) -> tuple[Rows, list[float]]:
    """Rows of panels by name, and their heights in inches: each layer above its scores."""
    rows: Rows = []
    across = min(len(layers), ACROSS)
    for first in range(0, len(layers), across):
        group = layers[first : first + across]
        blanks = [BLANK] * (across - len(group))
        rows += [[f"heat {layer}" for layer in group] + blanks, [f"scores {layer}" for layer in group] + blanks]
    heights = [4.4, 2.2] if len(rows) == 2 else [3.2, 1.8] * (len(rows) // 2)
    return [*rows, ["churn"] * across, ["neglected"] * across], [*heights, 1.7, 1.7]


def _rows_of_bands(maps: Sequence[str], layers: int) -> tuple[Rows, list[float]]:
    """The same where layers are the zones: one heat map for all."""
    across = len(maps)
    rows = [["heat"] * across, [f"scores {name}" for name in maps], ["churn"] * across, ["neglected"] * across]
    return rows, [0.6 + 0.22 * min(max(4, layers), BANDS), 2.2, 1.7, 1.7]


def _share_steps(panels: Mapping[str, Axes], rows: Rows, end: float) -> None:
    """The same optimiser steps along every panel; numbers below scores and the last panel only."""
    for name, axes in panels.items():
        axes.set_xlim(0, end)
        numbered = name.startswith("scores") or name == "neglected"
        axes.tick_params(axis="x", labelbottom=numbered)
    panels["neglected"].set_xlabel("Optimiser step")
    for left, *others in rows:
        for axes in [panels[name] for name in others if name not in (left, BLANK)]:
            if axes.get_ylabel() == panels[left].get_ylabel():
                axes.set_ylabel("")


def _means(merged: Mapping[str, int], choices: int) -> list[str]:
    """What was averaged to fit the pixels; ``merged``: layer -> units a line."""
    lines = []
    for units in sorted({*merged.values()} - {1}):
        layers = ", ".join(layer for layer, number in merged.items() if number == units)
        lines.append(f"Each line of {layers} is the mean of {units} units.")
    if choices > COLUMNS:
        lines.append(f"Each column of a heat map is the mean of up to {-(-choices // COLUMNS)} choices.")
    return lines


def _left_out(layers: Sequence[str], most: int) -> list[str]:
    rest = layers[most:]
    names = ", ".join(rest[:8]) + (f" and {len(rest) - 8} more" if len(rest) > 8 else "")
    return [f"The first {most} of {len(layers)} layers; left out: {names}."] if rest else []


def _note(figure: Figure, lines: Sequence[str]) -> None:
    if lines:
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8.5, color=GREY)
