"""How every figure looks: colours that the colour-blind can tell apart, one frame, fixed bytes."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from isotrain.files import replacing
from isotrain.tradeoff.results import Run

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
FIXED = {"stock": "#7A7A7A", "tuned": "#111111"}
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


def base_name(method: str) -> str:
    """The method without its regime: ``stock-windowed`` and ``stock`` share a colour."""
    return method.removesuffix("-windowed").removesuffix("-streamed")


def colours(methods: Iterable[str]) -> dict[str, str]:
    """Method -> colour, the same in every figure; the references are black and grey."""
    names = list(methods)
    others = list(dict.fromkeys(base_name(name) for name in names if base_name(name) not in FIXED))
    table = FIXED | {name: PALETTE[index % len(PALETTE)] for index, name in enumerate(others)}
    return {name: table[base_name(name)] for name in names}


def new_figure(
    width: float, height: float, title: str, rows: int = 1, columns: int = 1, **grid: Any
) -> tuple[Figure, Any]:
    """A figure of ``width`` x ``height`` inches with a title, and its axes as an array (rows, columns).

    Drawn without pyplot: no global state, no display.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
    return figure, figure.subplots(rows, columns, squeeze=False, **grid)


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write ``<name>.png`` and ``<name>.svg``; equal content gives equal bytes."""
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        with mpl.rc_context({"svg.hashsalt": "isotrain"}), replacing(folder / f"{name}.{kind}") as draft:
            figure.savefig(draft, format=kind, dpi=150, metadata=metadata)


def titled(run: Run, title: str) -> str:
    """``title``, marked if the series that ``run`` learnt is not a measured one."""
    return f"SIMULATED series: {title}" if run.data["simulated"] else title


def seconds_axis(axes: Axes) -> None:
    """Plain numbers of seconds along a logarithmic x axis, more where it is short. Set its limits first."""
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(MaxNLocator(6) if high < 6 * low else LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
