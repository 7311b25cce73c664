"""Pictures of isolation: what was active when, by what scores, how steady the choice was and what it left out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Int, Shaped
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, SymmetricalLogLocator

from isotrain.files import read_json
from isotrain.isolation.record import Record, load
from isotrain.report.drawing import GREY, PALETTE, STYLE, blank_figure, new_figure

ACTIVE, ISOLATED = PALETTE[4], PALETTE[0]
HEAT: dict[str, Any] = {
    "cmap": LinearSegmentedColormap.from_list("isolation", ("#08304F", "#5C8FB0", "#FDEBC8")),
    "vmin": 0,
    "vmax": 1,
}
LINES, COLUMNS = 512, 400  # drawn of one layer; of more the pixels would show some and drop others
GATES = {4: ("i", "f", "g", "o"), 3: ("r", "z", "n")}  # in torch's order
TIME, CREDIT = "time", "credit"  # the zone maps of time steps, and of layers in time
BEFORE_END = "Time steps before the window's end"


def over_time(entries: Sequence[Mapping[str, Any]]) -> dict[str, Float[np.ndarray, "_choices _gates _units"]]:
    """Layer -> the share of active weights at each choice, in [0, 1]. Before the first choice all are active."""
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
    elif layer == CREDIT:
        axes.set_yticks(np.arange(units) + 0.5, [str(k) for k in range(units)])
    axes.set_title(layer)
    words = {TIME: BEFORE_END, CREDIT: "Layers, from the input"}
    axes.set_ylabel(words.get(layer, f"Gates of {units} units" if gates in GATES else "Output row"))
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
    bar.set_label("Share of active weights")
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


WIDE = 30.0  # largest over smallest score from which a linear axis would hide the small ones
TINY = 1e-6  # of the median score: what is smaller is drawn near zero


def draw_scores(
    axes: Axes, quantiles: Float[np.ndarray, "choices 2 7"], edges: Float[np.ndarray, " choices+1"]
) -> None:
    """Bands of the scores by which each choice was made, of active and of isolated zones; NaN leaves a gap.

    Args:
        quantiles: of active and isolated zones, at :data:`.record.QUANTILES`.
        edges: optimiser steps at which the choices begin, and the one at which the last ends.
    """
    if not np.isfinite(quantiles).any():
        write_centred(axes, "no finite score")
        return
    held = np.concatenate([quantiles, quantiles[-1:]])
    for kind, (name, colour) in enumerate((("active", ACTIVE), ("isolated", ISOLATED))):
        least, low, lower, middle, upper, high, greatest = held[:, kind].T
        band = {"step": "post", "color": colour, "lw": 0}
        axes.fill_between(edges, low, high, alpha=0.22, **band)  # type: ignore[arg-type]
        axes.fill_between(edges, lower, upper, alpha=0.45, **band)  # type: ignore[arg-type]
        axes.step(edges, middle, where="post", color=colour, lw=1.8, label=name)
        for extreme in (least, greatest):
            axes.step(edges, extreme, where="post", color=colour, lw=0.8, ls=(0, (1, 1.5)))
    _scale(axes, quantiles[np.isfinite(quantiles)])
    axes.set_title("Scores")
    _legend(axes)


def draw_churn(axes: Axes, history: Sequence[Mapping[str, Any]], end: float) -> None:
    """A stem a choice: the share of the zones that changed state; a line: the isolated share of the weights."""
    steps = [entry["step"] for entry in history]
    stems: dict[str, Any] = {"color": PALETTE[1], "lw": 2.6 if len(steps) < 80 else 1.0, "zorder": 3}
    axes.vlines(steps, 0, [entry["churn"] for entry in history], label="changed state", **stems)
    shares = [0.0, *(entry["share"] for entry in history)]
    axes.step([0, *steps, end], [*shares, shares[-1]], where="post", color="#222222", lw=1.4, label="isolated share")
    axes.set_title("Zones that changed state, and isolated share")
    _percent(axes)
    _legend(axes)


def draw_neglected(axes: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    """The share of the norm of Adam's update that fell on isolated zones, where it was measured."""
    axes.set_title("Neglected share of the norm of Adam's update")
    seen = [(entry["step"], entry["neglected"]) for entry in history if "neglected" in entry]
    if not seen:
        write_centred(axes, "not measured: zones without weights, or an optimiser without moments")
        return
    axes.plot(
        *zip(*seen, strict=True), color=PALETTE[6], lw=1.2, marker="o", ms=3.5 if len(seen) < 80 else 0, clip_on=False
    )
    _percent(axes)


def write_centred(axes: Axes, text: str) -> None:
    """Words in the middle, where there is nothing to draw."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY)
    axes.set_yticks([])
    axes.grid(visible=False)


def _scale(axes: Axes, scores: Float[np.ndarray, " scores"]) -> None:
    """Logarithmic where a linear axis would hide the small scores; zero and less stay visible."""
    sizes = np.abs(scores[scores != 0])
    if not len(sizes):
        return
    largest = sizes.max()
    smallest = np.median(sizes) if scores.min() < 0 else sizes.min()
    if largest < WIDE * smallest:
        return
    floor = max(smallest, TINY * np.median(sizes))
    if scores.min() >= floor:
        axes.set_yscale("log")
        return
    room = max(0.5, 0.1 * np.log10(largest / floor))  # decades for what is below the floor: its labels need a line each
    axes.set_yscale("symlog", linthresh=floor, linscale=room)
    locator = SymmetricalLogLocator(base=10, linthresh=floor)
    locator.set_params(numticks=7)
    axes.yaxis.set_major_locator(locator)
    if scores.min() >= 0:
        axes.set_ylim(bottom=0)


def _percent(axes: Axes) -> None:
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g} %")


def _legend(axes: Axes) -> None:
    """To the right, above the axes, across from the title."""
    axes.legend(
        loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, ncols=2, frameon=False, fontsize=8.5,
        handlelength=1.4, columnspacing=1.2,
    )  # fmt: skip


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
            write_centred(grid[0, 0], f"nothing was isolated in {steps} optimiser steps")
            return figure
        return _overview(record.entries, history, steps, title)


def draw_run(folder: Path) -> Figure | None:
    """The figure of a fit from its folder (``result.json``, ``isolation.npz``); None if it isolated nothing."""
    if not (folder / "isolation.npz").exists():
        return None
    result = read_json(folder / "result.json")
    params = result["params"]
    title = f"{result['method']}, seed {result['seed']}: {params['isolation.zone']} by {params['isolation.criterion']}"
    record = load(folder / "isolation.npz")
    history = [
        {k: v for k, v in row.items() if not isinstance(v, dict)} for row in result["selections"]
    ]  # one number each
    return draw(record, history, params["training.steps"], title)


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
