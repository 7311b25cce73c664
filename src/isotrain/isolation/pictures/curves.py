"""Panels along the optimiser steps: scores of active and of isolated zones, churn, the neglected update."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, SymmetricalLogLocator

from isotrain.isolation.pictures.heatmap import ACTIVE, ISOLATED
from isotrain.style import GREY, PALETTE

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
        say(axes, "no finite score")
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
    """A stem a choice: the share of the zones that changed state; a line: the isolated share of the arcs."""
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
        say(axes, "not measured: time steps as zones, or an optimiser without moments")
        return
    axes.plot(
        *zip(*seen, strict=True), color=PALETTE[6], lw=1.2, marker="o", ms=3.5 if len(seen) < 80 else 0, clip_on=False
    )
    _percent(axes)


def say(axes: Axes, text: str) -> None:
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
