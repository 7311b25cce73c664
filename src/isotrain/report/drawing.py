"""How every figure looks: colours, frame, axes, and labels that do not overlap."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, cast

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from matplotlib.text import Annotation, Text
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
from matplotlib.transforms import Bbox

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


REFERENCES = ("#111111", "#7A7A7A", "#A5A5A5")


class Learnt(Protocol):
    """A fit or a search, which learnt one series."""

    @property
    def data(self) -> Mapping[str, Any]: ...


def colours(roles: Mapping[str, str]) -> dict[str, str]:
    """Method -> colour, by its role and its place in ``roles``: references are black and grey, all others in colour."""
    found, used = {}, {"reference": 0, "other": 0}
    for name, role in roles.items():
        kind, palette = ("reference", REFERENCES) if role == "reference" else ("other", PALETTE)
        found[name] = palette[used[kind] % len(palette)]
        used[kind] += 1
    return found


def titled(run: Learnt, title: str) -> str:
    """``title``, marked if the series that ``run`` learnt is not a measured one, with how many there are if there are
    several, and with what was known ahead."""
    marked = f"SIMULATED series: {title}" if run.data["simulated"] else title
    marked += f", {run.data['series']} series" if run.data.get("series", 1) > 1 else ""
    return with_words(marked, run.data.get("ahead", ""))


def with_words(title: str, ahead: str) -> str:
    """``title``, in lines that fit, and below it what :func:`isotrain.data.windows.ahead_words` says, if anything."""
    return "\n".join([*textwrap.wrap(title, 68), *textwrap.wrap(ahead, 90)])


def seconds_axis(axes: Axes) -> None:
    """Plain numbers of seconds along a logarithmic x axis, more where it is short. Set its limits first."""
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(MaxNLocator(6) if high < 6 * low else LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


Label = tuple[float, float, str, str]  # x and y in the units of the axes, text, colour
Values = npt.NDArray[np.float64]
Place = tuple[float, float, str]  # offset in points, side that the text is aligned at
FAR = 15.0  # points; a name further from its point than this gets a leader


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Positions near ``wanted``, in their order, no two closer than ``gap``.

    Neighbours that are too close are merged into a block centred on its members' mean, until no two blocks
    touch (pool adjacent violators).
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    blocks: list[list[int]] = []
    for index in order:
        blocks.append([index])
        while len(blocks) > 1 and _first(blocks[-1], wanted, gap) - _last(blocks[-2], wanted, gap) < gap:
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    placed = [0.0] * len(wanted)
    for block in blocks:
        for rank, index in enumerate(block):
            placed[index] = _first(block, wanted, gap) + rank * gap
    return placed


def label_ends(axes: Axes, ends: Sequence[Label], size: float = 8.5) -> None:
    """Name lines beside the right edge, with a thin leader from each line's end to its name."""
    low, high = axes.get_ylim()
    height = axes.get_position().height * _figure(axes).get_figheight()
    gap = 1.25 * size / 72 / height * (high - low)
    inside = [min(max(y, low), high) for _, y, _, _ in ends]
    for (x, y, text, colour), at in zip(ends, spread(inside, gap), strict=True):
        axes.annotate(
            text,
            xy=(x, y),
            xytext=(1.03, (at - low) / (high - low)),
            textcoords="axes fraction",
            fontsize=size,
            color=colour,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "lw": 0.6,
                "alpha": 0.6,
                "relpos": (0, 0.5),
            },
        )


def label_points(
    axes: Axes, points: Sequence[Label], line: Sequence[tuple[float, float]] = (), size: float = 9
) -> None:
    """Give every point's name the free place nearest to it, off the ``line`` through these vertices too.

    Tried are places around the point, then further out; the first that covers no point and no earlier name
    and stays in the frame wins, else the one that offends least. Call it after the limits are final.
    """
    figure = _figure(axes)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    reach = 6 * figure.dpi / 72
    frame = axes.get_window_extent()
    marks = [axes.transData.transform((x, y)) for x, y, _, _ in points]
    taken = [Bbox.from_extents(x - reach, y - reach, x + reach, y + reach) for x, y in marks]
    taken += _dots([axes.transData.transform(vertex) for vertex in line])
    names: list[Bbox] = []
    for (x, y, text, colour), mark in zip(points, marks, strict=True):
        tried: list[tuple[float, int, Place, Bbox]] = []
        for place in _places():
            name = _name(axes, (x, y), text, colour, size, place)
            name.update_positions(renderer)
            box = Text.get_window_extent(name, renderer)  # the text alone, without its leader
            name.remove()
            outside = box.width * box.height - _overlap(box, frame)
            leader = _dots([mark, np.array([(box.x0 + box.x1) / 2, box.y0 if place[1] > 0 else box.y1])])
            crossed = sum(_overlap(dot, other) for dot in leader for other in names) if abs(place[1]) > FAR else 0
            tried.append((sum((_overlap(box, other) for other in taken), outside + crossed), len(tried), place, box))
        _, _, place, box = min(tried, key=lambda trial: trial[:2])
        _name(axes, (x, y), text, colour, size, place)
        taken.append(box)
        names.append(box)


def _name(
    axes: Axes,
    point: tuple[float, float],
    text: str,
    colour: str,
    size: float,
    place: tuple[float, float, str],
) -> Annotation:
    dx, dy, side = place
    name = axes.annotate(
        text,
        point,
        (dx, dy),
        textcoords="offset points",
        fontsize=size,
        color=colour,
        ha=side,
        va="center",
        fontweight="bold",
        path_effects=[Stroke(linewidth=3, foreground="white"), Normal()],
        arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.6} if abs(dy) > FAR else None,
    )
    name.set_in_layout(False)  # a name must not move the axes that its place was found in
    return name


def _dots(vertices: Sequence[Values]) -> list[Bbox]:
    """Small boxes along the line through ``vertices`` (pixels)."""
    dots = []
    for start, stop in pairwise(vertices):
        for x, y in np.linspace(start, stop, 2 + int(np.hypot(*(stop - start)) / 5)):
            dots.append(Bbox.from_extents(x - 1.5, y - 1.5, x + 1.5, y + 1.5))
    return dots


def _figure(axes: Axes) -> Figure:
    return cast(Figure, axes.get_figure(root=True))


def _places() -> list[Place]:
    near = [(9, 0, "left"), (-9, 0, "right"), (0, 13, "center"), (0, -13, "center")]
    near += [(7, 10, "left"), (7, -10, "left"), (-7, 10, "right"), (-7, -10, "right")]
    far = [(dx, dy, ha) for d in (24, 36, 50) for dx, ha in ((6, "left"), (-6, "right")) for dy in (d, -d)]
    return [(float(dx), float(dy), ha) for dx, dy, ha in near + far]


def _overlap(a: Bbox, b: Bbox) -> float:
    (left, low, right, high), (x0, y0, x1, y1) = np.asarray(a.extents).tolist(), np.asarray(b.extents).tolist()
    return float(max(0.0, min(right, x1) - max(left, x0)) * max(0.0, min(high, y1) - max(low, y0)))


def _first(block: Sequence[int], wanted: Sequence[float], gap: float) -> float:
    centre = sum(wanted[index] for index in block) / len(block)
    return centre - gap * (len(block) - 1) / 2


def _last(block: Sequence[int], wanted: Sequence[float], gap: float) -> float:
    return _first(block, wanted, gap) + gap * (len(block) - 1)
