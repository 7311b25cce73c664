"""Where the test error lies: at which lead, in which month."""

from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isotrain.reporting.accuracy import Entry
from isotrain.reporting.labels import label_ends
from isotrain.reporting.style import colours, titled
from isotrain.style import GREY, new_figure
from isotrain.tradeoff.comparison import Comparison

TICKS = 4  # on the axis of leads, beside the first
INCHES = 0.17  # of height a name at the right edge


def error_by_lead(comparison: Comparison, accuracy: Sequence[Entry]) -> Figure:
    """Test MAE at each lead, the mean of the seeds; baselines dashed."""
    figure = _figure(comparison, accuracy, "Test error by lead", lambda e: dict(enumerate(e.by_lead, start=1)))
    for axes in figure.axes:
        last = max((len(e.by_lead) for e in accuracy), default=1)
        step = max(2, last // TICKS)
        axes.set(xlabel="Lead (h)", xticks=[1, *range(step, last + 1, step)])
    return figure


def error_by_month(comparison: Comparison, accuracy: Sequence[Entry]) -> Figure | None:
    """Test MAE in each month (UTC), the mean of the seeds; baselines dashed. ``None`` with fewer than two months."""
    months = sorted({month for e in accuracy for month in e.by_month})
    if len(months) < 2:
        return None
    at = {month: number for number, month in enumerate(months)}
    title = "Test error by month"
    figure = _figure(comparison, accuracy, title, lambda e: {at[m]: value for m, value in e.by_month.items()})
    for axes in figure.axes:
        axes.set_xticks(range(len(months)), months, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_xlabel("Month (UTC)")
    return figure


def _figure(
    comparison: Comparison, accuracy: Sequence[Entry], title: str, line: Callable[[Entry], Mapping[int, float]]
) -> Figure:
    """A panel a regime, a line an entry; ensembles are left to the tables."""
    regime_of = {method.name: method.regime for method in comparison.methods}
    regimes = sorted(set(regime_of.values()))
    shown = {
        regime: [e for e in accuracy if e.kind == "baseline" or regime_of.get(e.name) == regime] for regime in regimes
    }
    heights = [max(4.2, 0.6 + INCHES * len(shown[regime])) for regime in regimes]
    figure, grid = new_figure(
        8.4, sum(heights) + 0.6, titled(comparison.runs[0], title), rows=len(regimes), height_ratios=heights
    )
    colour = colours(regime_of)
    for regime, axes in zip(regimes, grid[:, 0], strict=True):
        axes.set_title(f"{regime} training", fontsize=9.5, color=GREY)
        axes.set_ylabel("Test MAE (kW)")
        _draw(axes, [(e, line(e), colour.get(e.name, GREY)) for e in shown[regime]])
    return figure


def _draw(axes: Axes, lines: Sequence[tuple[Entry, Mapping[int, float], str]]) -> None:
    ends = []
    for entry, points, colour in lines:
        if points:
            dashed = entry.kind == "baseline"
            style = {"lw": 1.1, "ls": (0, (4, 3))} if dashed else {"lw": 1.6}
            axes.plot(list(points), list(points.values()), color=colour, **style)
            ends.append((*list(points.items())[-1], entry.name, colour))
    label_ends(axes, ends)
