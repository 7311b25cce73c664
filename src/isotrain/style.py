"""How every figure looks: colours that the colour-blind can tell apart, one frame, fixed bytes."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from isotrain.files import replacing

# Okabe and Ito's palette without its yellow (invisible on white), then Tol's muted colours.
PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#882255",
    "#999933",
    "#332288",
    "#44AA99",
)
GREY = "#666666"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": "#333333",
    "axes.edgecolor": "#999999",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E8E8E8",
    "grid.linewidth": 0.8,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "svg.hashsalt": "isotrain",
    "svg.fonttype": "path",
}
METADATA: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


def blank_figure(width: float, height: float, title: str) -> Figure:
    """A figure of ``width`` x ``height`` inches with nothing but a title.

    Drawn without pyplot: no global state, no display.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
    return figure


def new_figure(
    width: float, height: float, title: str, rows: int = 1, columns: int = 1, **grid: Any
) -> tuple[Figure, Any]:
    """A :func:`blank_figure`, and its axes as an array (rows, columns)."""
    figure = blank_figure(width, height, title)
    return figure, figure.subplots(rows, columns, squeeze=False, **grid)


def save(figure: Figure, path: Path) -> None:
    """Write ``path``, a ``.png`` or an ``.svg``; equal content gives equal bytes."""
    kind = path.suffix.removeprefix(".")
    with mpl.rc_context(STYLE), replacing(path) as draft:
        figure.savefig(draft, format=kind, dpi=150, metadata=METADATA[kind])
