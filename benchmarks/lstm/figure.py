"""The one figure of a run: one shape in full, the speed-up at every shape, and how time grows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from benchmarks.lstm.conditions import HEADLINE, Shape
from benchmarks.lstm.results import Outcome, Row, short, times
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, StrMethodFormatter
from matplotlib.transforms import blended_transform_factory

from isotrain.files import replacing
from isotrain.report.drawing import GREY, PALETTE, REFERENCES, STYLE

PHASE_COLOURS = {"forward": "#56B4E9", "backward": "#0072B2", "optimiser": "#E69F00"}
GROWING = {"stock": REFERENCES[1], "tuned": REFERENCES[0], "native-bf16": PALETTE[0]}
# what the panel of shapes shows: colour and mark
SHOWN = {
    "stock": (REFERENCES[1], "x"),
    "native-fp32": (PALETTE[5], "o"),
    "native-bf16": (PALETTE[0], "o"),
    "exact-75": (PALETTE[4], "s"),
    "cut-75": (PALETTE[1], "s"),
    "autonomous-75-memory": (PALETTE[2], "D"),
    "steps-24": (PALETTE[3], "^"),
    "lower-memory": (PALETTE[6], "v"),
}
Rows = dict[str, Row]


def draw(outcome: Outcome, path: Path) -> None:
    """Write the figure of a run as PNG."""
    facts, machine = outcome.facts, outcome.facts["hardware"]
    words = [machine["cpu"], f"{outcome.crew.threads} threads", f"torch {machine['torch']}"]
    words += [f"loss {facts['settings']['regime']}", facts["date"]]
    with mpl.rc_context(STYLE):
        figure = _figure(outcome.table(), ", ".join(words))
        with replacing(path) as draft:
            figure.savefig(draft, format="png", dpi=130, metadata={"Software": None})


def _figure(table: Sequence[Rows], machine: str) -> Figure:
    headline = next((rows for rows in table if _shape(rows) == HEADLINE), table[0])
    compared = [rows for rows in table if len(rows) > len(GROWING)] or list(table)
    panels = {"length": "Sequence length T", "batch": "Batch B", "hidden": "Units H"}
    growing = {name: found for name in panels if len(found := _varying(table, name)) > 1}
    bars = 0.235 * sum(row.ms is not None for row in headline.values())
    upper, lower = max(bars, 3.2) + 0.9, 3.0 if growing else 0.0
    figure = Figure(figsize=(14.5, upper + lower + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"One training step of an LSTM\n{machine}", x=0.01, ha="left", fontsize=12.5, fontweight="bold")
    # parts of their own: the margins of the upper panels' names must not push the lower panels
    parts = figure.subfigures(
        2 if growing else 1, 1, height_ratios=[upper, lower][: 2 if growing else 1], squeeze=False
    )
    left, right = parts[0, 0].subplots(1, 2, width_ratios=[1.45, 1])
    _bars(left, headline)
    _by_shape(right, compared)
    if growing:
        across = parts[1, 0].subplots(1, len(growing), squeeze=False)[0]
        for axes, (name, found) in zip(across, growing.items(), strict=True):
            _growth(axes, found, name, panels[name])
    return figure


def _shape(rows: Rows) -> Shape:
    return next(iter(rows.values())).shape


def _varying(table: Sequence[Rows], name: str) -> list[Rows]:
    """The shapes that differ from the headline's in one dimension only, in its order."""

    def rest(shape: Shape) -> dict[str, int]:
        return {key: value for key, value in vars(shape).items() if key != name}

    found = [rows for rows in table if rest(_shape(rows)) == rest(HEADLINE)]
    return sorted(found, key=lambda rows: getattr(_shape(rows), name))


def _bars(axes: Axes, rows: Rows) -> None:
    """A bar a method, split by phase; a bar that would squeeze the others is cut off."""
    shown = sorted((row for row in rows.values() if row.ms is not None), key=_place)
    values = [row.ms or 0.0 for row in shown]
    end = max((value for value in values if value < max(values)), default=max(values, default=1.0))
    end = 1.12 * (end if max(values, default=1.0) > 1.6 * end else max(values, default=1.0))
    limit_label: str | None = "limit by FLOP count"
    for y, row in enumerate(shown):
        left = 0.0
        for phase, colour in PHASE_COLOURS.items():
            width = 1e3 * row.summary.phases[phase]
            axes.barh(y, width, left=left, height=0.68, color=colour, label=phase if y == 0 else None, lw=0)
            left += width
        if row.limit is not None and (whole := rows.get(row.condition.full)) and whole.ms is not None:
            at = whole.ms / row.limit
            axes.plot([at, at], [y - 0.42, y + 0.42], color="#D55E00", lw=1.8, zorder=4, label=limit_label)
            limit_label = None
        _label_bar(axes, y, row, end)
    axes.set(xlim=(0, 1.62 * end), ylim=(len(shown) - 0.4, -0.6), xlabel="Time of a step (ms, median of blocks)")
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= end])
    axes.set_yticks(range(len(shown)), [row.condition.label for row in shown], fontsize=8.8)
    axes.grid(axis="y", visible=False)
    missing = len(rows) - len(shown)
    axes.set_title(
        f"{_shape(rows).label} (%: of the units isolated)"
        + (f"\nno figure for {missing} more methods: the table says why" if missing else "")
    )
    if shown:
        axes.legend(loc="lower right", frameon=True, edgecolor="#DDDDDD", fontsize=8.5)


def _place(row: Row) -> int:
    """Stock first, then everything on stock kernels, then native."""
    return {"stock": 0, "tuned": 1, "torch": 2, "native": 3}[row.condition.backend]


def _label_bar(axes: Axes, y: int, row: Row, end: float) -> None:
    assert row.ms is not None
    cut = row.ms > end
    ratios = [f"{times(x)}x {name}" for name, x in (("stock", row.x_stock), ("tuned", row.x_tuned)) if x is not None]
    text = ",  ".join([f"{short(row.ms)} ms", *(ratio for ratio in ratios if row.condition.name not in ratio)])
    if cut:  # the bar goes on behind the label
        axes.barh(y, row.ms, left=end, height=0.8, color="white", lw=0, zorder=3)
        axes.text(end, y, "»", fontsize=11, color=GREY, va="center", ha="left", zorder=5)
    at = 1.03 * end if cut else row.ms
    axes.annotate(
        text, (at, y), xytext=(7, 0), textcoords="offset points", va="center", fontsize=8.2, color="#333333", zorder=5
    )


def _by_shape(axes: Axes, table: Sequence[Rows]) -> None:
    """A line a shape, a mark a method: how many times faster than tuned."""
    named: set[str] = set()
    for y, rows in enumerate(table):
        points = {name: rows[name].x_tuned for name in SHOWN if name in rows}
        found = [x for x in points.values() if x is not None]
        if not found:
            axes.text(1.0, y, "no figure", va="center", fontsize=8.2, color=GREY)
            continue
        axes.plot([min(found), max(found)], [y, y], color="#DDDDDD", lw=1.2, zorder=1)
        for name, x in points.items():
            if x is None:
                continue
            colour, mark = SHOWN[name]
            label = None if name in named else rows[name].condition.label
            axes.plot(
                x, y, mark, color=colour, ms=6.5, mew=1.6 if mark == "x" else 0.6, ls="none", label=label, zorder=3
            )
            named.add(name)
        best = max(found)
        if best > 1:
            axes.annotate(
                f"{times(best)}x", (best, y), xytext=(8, 0), textcoords="offset points", va="center", fontsize=8.2
            )
    axes.set_xscale("log")
    _plain(axes.xaxis)
    axes.margins(x=0.14)
    axes.axvline(1, color=REFERENCES[0], lw=1)
    over = blended_transform_factory(axes.transData, axes.transAxes)
    axes.text(1, 1.0, "tuned", transform=over, fontsize=8.5, ha="center", va="bottom")
    room = 0.6 + 0.25 * len(table)  # below, for the legend
    axes.set(ylim=(len(table) - 1 + room, -0.6), xlabel="Times as fast as tuned (logarithmic)")
    axes.set_yticks(
        range(len(table)), [_shape(rows).label.replace(", T=168, B=64", "") for rows in table], fontsize=8.8
    )
    axes.grid(axis="y", visible=False)
    axes.set_title("Speed-up over tuned, by shape", pad=16)
    if named:
        axes.legend(loc="lower center", ncols=2, frameon=True, framealpha=1, edgecolor="#DDDDDD", fontsize=8.2)


def _growth(axes: Axes, table: Sequence[Rows], name: str, label: str) -> None:
    """A line a reference, least to greatest as bars."""
    sizes = [getattr(_shape(rows), name) for rows in table]
    for method, colour in GROWING.items():
        points = [
            (size, 1e3 * s.median, 1e3 * s.low, 1e3 * s.high)
            for size, rows in zip(sizes, table, strict=True)
            if method in rows and (s := rows[method].summary.seconds)
        ]
        if points:
            x, y, low, high = zip(*points, strict=True)
            reach = [[m - lo for m, lo in zip(y, low, strict=True)], [hi - m for m, hi in zip(y, high, strict=True)]]
            text = table[0][method].condition.label
            axes.errorbar(x, y, yerr=reach, fmt="o-", color=colour, ms=4.5, lw=1.6, capsize=2, label=text)
    axes.set(xscale="log", yscale="log", xlabel=f"{label} (logarithmic)", ylabel="Step (ms, logarithmic)")
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    _plain(axes.yaxis)
    fixed = {"length": "T", "batch": "B", "hidden": "H"}
    rest = ", ".join(f"{short_name}={getattr(HEADLINE, key)}" for key, short_name in fixed.items() if key != name)
    axes.set_title(f"Growth with {fixed[name]} ({rest}, 1 layer)")
    axes.legend(frameon=False, fontsize=8.5)


def _plain(axis: Any) -> None:
    """Plain numbers along a logarithmic axis, more of them where it is short."""
    low, high = axis.get_view_interval()
    subs: Sequence[float] = (1, 2, 5) if high > 8 * low else (1, 1.5, 2, 3, 4, 5, 6, 8)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())
