"""Heat maps of zones: light is active, dark is isolated."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator

from isotrain.style import PALETTE

ACTIVE, ISOLATED = PALETTE[4], PALETTE[0]
HEAT: dict[str, Any] = {
    "cmap": LinearSegmentedColormap.from_list("isolation", ("#08304F", "#5C8FB0", "#FDEBC8")),
    "vmin": 0,
    "vmax": 1,
}
LINES, COLUMNS = 512, 400  # drawn of one layer; of more the pixels would show some and drop others
GATES = {4: ("i", "f", "g", "o"), 3: ("r", "z", "n")}  # in torch's order
TIME = "time"  # the zone map of time steps
BEFORE_END = "Time steps before the window's end"


def over_time(entries: Sequence[Mapping[str, Any]]) -> dict[str, Float[np.ndarray, "_choices _gates _units"]]:
    """Layer -> the share of active arcs at each choice, in [0, 1]. Before the first choice all are active."""
    shares = {}
    for layer in entries[0]["active"]:
        chosen = np.stack([entry["active"][layer].numpy() for entry in entries]).astype(np.float32) / 255
        everything = np.ones_like(chosen[:1])
        shares[layer] = np.concatenate([everything, chosen]) if entries[0]["step"] > 0 else chosen
    return shares


def draw_layer(
    axes: Axes, layer: str, shares: Float[np.ndarray, "choices gates units"], edges: Float[np.ndarray, " choices+1"]
) -> int:
    """Draw one layer, the units of each gate from the top down; how many units a line is the mean of.

    Args:
        edges: optimiser steps at which the choices begin, and the one at which the last ends.
    """
    _, gates, units = shares.shape
    by_unit, starts = folded(shares.transpose(2, 1, 0), np.ones(units), LINES // gates)
    lines = by_unit.transpose(1, 0, 2).reshape(gates * len(starts), -1)
    tops = (units * np.arange(gates)[:, None] + starts).reshape(-1)
    _paint(axes, lines, np.append(tops, gates * units), edges)
    if layer == TIME:
        ticks = [tick for tick in MaxNLocator(8, integer=True).tick_values(0, units) if 0 <= tick <= units]
        axes.set_yticks([units - tick for tick in ticks], [f"{tick:g}" for tick in ticks])
    elif gates in GATES:
        axes.set_yticks(units * (np.arange(gates) + 0.5), GATES[gates], fontweight="bold")
        axes.tick_params(axis="y", length=0)
        axes.hlines(units * np.arange(1, gates), edges[0], edges[-1], color="white", lw=1.5)
    axes.set_title(layer)
    axes.set_ylabel(BEFORE_END if layer == TIME else f"Gates of {units} units" if gates in GATES else "Output row")
    return int(starts[1]) if len(starts) > 1 else 1


def draw_bands(
    axes: Axes,
    shares: Mapping[str, Float[np.ndarray, "_choices _gates _units"]],
    edges: Float[np.ndarray, " choices_and_end"],
) -> None:
    """Draw one band a layer, the input's at the top."""
    lines = np.stack([share.mean(axis=(1, 2)) for share in shares.values()])
    _paint(axes, lines, np.arange(len(lines) + 1), edges)
    axes.set_yticks(np.arange(len(lines)) + 0.5, list(shares))
    axes.tick_params(axis="y", length=0)
    axes.hlines(np.arange(1, len(lines)), edges[0], edges[-1], color="white", lw=1.5)
    axes.set_title("Layers")


def add_colour_bar(axes: Sequence[Axes], **place: Any) -> Colorbar:
    """Say beside ``axes`` what the colours mean."""
    image: ScalarMappable = axes[0].images[0]
    figure = axes[0].get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(image, ax=list(axes), pad=0.01, **place)
    bar.set_ticks([0, 0.5, 1], labels=["0 %\nisolated", "50 %", "100 %\nactive"])
    bar.set_label("Share of active arcs")
    bar.outline.set_visible(False)
    return bar


def folded(
    values: Float[np.ndarray, "lines ..."], weights: Shaped[np.ndarray, " lines"], most: int
) -> tuple[Float[np.ndarray, "fewer ..."], Int[np.ndarray, " fewer"]]:
    """Neighbours, equally many, averaged with ``weights`` into ``most`` lines or fewer; and where each group starts."""
    starts = np.arange(0, len(values), -(-len(values) // most))
    weight = weights.reshape(-1, *[1] * (values.ndim - 1)).astype(values.dtype)
    return np.add.reduceat(values * weight, starts) / np.add.reduceat(weight, starts), starts


def _paint(
    axes: Axes,
    lines: Float[np.ndarray, "lines choices"],
    tops: Shaped[np.ndarray, " lines+1"],
    edges: Float[np.ndarray, " choices+1"],
) -> None:
    """The first line at the top; choices beyond what the pixels hold are averaged over their steps."""
    columns, starts = folded(lines.T, np.diff(edges), COLUMNS)
    image = axes.pcolorfast(np.append(edges[starts], edges[-1]), tops, columns.T, **HEAT)
    image.set_in_layout(False)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(tops[-1], tops[0]))
    axes.grid(visible=False)
