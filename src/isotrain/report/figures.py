"""The report's figures: every function takes a comparison and returns one figure, units on every axis."""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.dates import DateFormatter, DayLocator
from matplotlib.figure import Figure

from isotrain.compare.accuracy import Entry, middle_and_worst, telling
from isotrain.compare.comparison import Comparison, Method
from isotrain.compare.results import PHASES, Run
from isotrain.compare.statistics import pareto, week_of
from isotrain.data.windows import Windows
from isotrain.forecast.forecasts import Errors, Forecasts, of_series, read_forecasts, scores
from isotrain.forecast.intervals import calibrate, working_hours
from isotrain.report.drawing import (
    GREY,
    PALETTE,
    STYLE,
    Label,
    colours,
    label_ends,
    label_points,
    new_figure,
    save,
    seconds_axis,
    titled,
)
from isotrain.report.fans import FAN, Fans, fan_figure
from isotrain.report.tables import kilowatts

PHASE_COLOURS = dict(zip(PHASES, ("#56B4E9", "#0072B2", "#E69F00", "#D55E00", "#BBBBBB"), strict=True))
MARKERS = {"streamed": "o", "windowed": "s"}


def draw_all(
    comparison: Comparison, accuracy: Sequence[Entry], folder: Path, windows: Windows | None = None
) -> list[str]:
    """Save every figure as ``<folder>/<name>.png`` and ``.svg``; the names of those drawn."""
    drawings: dict[str, Callable[[], Figure | None]] = {
        "tradeoff": lambda: tradeoff(comparison, accuracy),
        "learning_curves": lambda: learning_curves(comparison),
        "isolated_share": lambda: isolated_share(comparison),
        "forecasts": lambda: forecasts(comparison, windows),
        "error_by_lead": lambda: error_by_lead(comparison, accuracy),
        "error_by_month": lambda: error_by_month(comparison, accuracy),
        "error_by_series": lambda: error_by_series(comparison, telling(accuracy, comparison.settings.against)),
        "phases": lambda: phases(comparison),
    }
    return save_drawings(drawings, folder)


def save_drawings(drawings: Mapping[str, Callable[[], Figure | None]], folder: Path) -> list[str]:
    """Draw in the style of every figure and save what there is to draw; the names of those drawn."""
    drawn = []
    with mpl.rc_context(STYLE):
        for name, draw in drawings.items():
            if figure := draw():
                save_figure(figure, folder, name)
                drawn.append(name)
    return drawn


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """As a picture and as a drawing, laid out once."""
    save(figure, folder / f"{name}.png")
    figure.set_layout_engine("none")
    save(figure, folder / f"{name}.svg")


def _colours(comparison: Comparison) -> dict[str, str]:
    """Method -> colour, the same in every figure."""
    return colours({method.name: method.role for method in comparison.methods})


def tradeoff(comparison: Comparison, accuracy: Sequence[Entry]) -> Figure:
    """Training seconds against test MAE: marks are methods, faint dots seeds, lines baselines.

    A baseline that took a second or more to fit is a diamond, at its seconds.
    """
    figure, grid = new_figure(8.4, 5.4, titled(comparison.runs[0], "Training time against accuracy"))
    axes, colour = grid[0, 0], _colours(comparison)
    points = []
    for method in _finished(comparison):
        x, y = comparison.figure(method, _train_seconds), comparison.figure(method, _test_mae)
        own, marker = colour[method.name], MARKERS.get(method.regime, "D")
        seeds = [(run.train_seconds, run.test_mae) for run in method.runs if not run.diverged]
        axes.scatter(*zip(*seeds, strict=True), s=14, color=own, alpha=0.35, marker=marker, linewidths=0)
        across, up = _arms(x.median, x.low, x.high), _arms(y.median, y.low, y.high)
        axes.errorbar(x.median, y.median, xerr=across, yerr=up, color=own, lw=1.2, capsize=2, alpha=0.8)
        fill = own if method.regime == "streamed" else "white"
        axes.plot(x.median, y.median, marker, ms=8, mfc=fill, mec=own, mew=1.6, zorder=4)
        points.append((x.median, y.median, method.name, own))
    baselines = [(e, e.seconds.median if e.seconds else 0.0) for e in accuracy if e.kind == "baseline"]
    for e, spent in baselines:
        if spent >= 1:
            axes.plot(spent, e.test_mae.median, "D", ms=5, color=GREY, zorder=3)
            points.append((spent, e.test_mae.median, e.name, GREY))
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.14)
    seconds_axis(axes)
    axes.set(xlabel="Training time (s, logarithmic)", ylabel="Test MAE (kW)")
    beyond = _draw_baselines(axes, [(e.name, e.test_mae.median) for e, spent in baselines if spent < 1])
    front = _draw_front(axes, [(x, y) for x, y, _, _ in points])
    regimes = {method.regime for method in comparison.methods}
    marks = {"streamed": "circle: streamed", "windowed": "open square: windowed"}
    shown = [text for regime, text in marks.items() if regime in regimes]
    shown += ["diamond: baseline"] if any(spent >= 1 for _, spent in baselines) else []
    note = "; ".join([*shown, "bars: intervals", "faint: seeds", "dashed: Pareto front"])
    axes.set_title(note + (f"\nbeyond the frame: {beyond}" if beyond else ""), **_SUBTITLE)
    label_points(axes, points, front)
    return figure


def learning_curves(comparison: Comparison) -> Figure:
    """Validation MAE against training seconds, a thin line a seed, with the target of each regime."""
    figure, panels = _panels(comparison, "Validation error while training", 4.2)
    colour = _colours(comparison)
    for regime, axes in panels.items():
        ends: list[Label] = []
        curves: list[list[tuple[float, float]]] = []
        for method in _of(comparison, regime):
            end = None
            for run in method.runs:
                if seen := [(v.train_seconds, v.val_mae) for v in run.history if math.isfinite(v.val_mae)]:
                    axes.plot(*zip(*seen, strict=True), color=colour[method.name], lw=1.1, alpha=0.8)
                    curves.append(seen)
                    end = (*seen[-1], method.name, colour[method.name])
            ends += [end] if end else []
        axes.set_xscale("log")
        _frame_the_ends(axes, curves)
        if target := comparison.targets[regime]:
            axes.axhline(target, color=GREY, lw=1, ls=(0, (4, 3)))
            axes.text(0.01, target, f"target {kilowatts(target)} kW", transform=axes.get_yaxis_transform(), **_NOTE)
        seconds_axis(axes)
        axes.set(xlabel="Training time (s, logarithmic)", ylabel="Validation MAE (kW)")
        label_ends(axes, ends)
    return figure


def isolated_share(comparison: Comparison) -> Figure | None:
    """Share of the zones left out against training progress; ``None`` if no fit isolated anything."""
    isolating = [m for m in comparison.methods if any(v.isolated_fraction > 0 for r in m.runs for v in r.history)]
    if not isolating:
        return None
    figure, grid = new_figure(8.4, 4.2, titled(comparison.runs[0], "Isolated share while training"))
    axes, colour, ends = grid[0, 0], _colours(comparison), []
    for method in isolating:
        for run in method.runs:
            seen = [(100 * v.step / run.steps, 100 * v.isolated_fraction) for v in run.history]
            seen = [(0.0, seen[0][1]), *seen] if seen else [(0.0, 100 * run.isolated_fraction)]
            axes.plot(*zip(*seen, strict=True), color=colour[method.name], lw=1.6, alpha=0.8, drawstyle="steps-pre")
        ends.append((*seen[-1], method.name, colour[method.name]))
    axes.set(ylim=(-3, 103), xlim=(-1, 101))
    axes.set(xlabel="Training progress (% of the fit's own steps)", ylabel="Isolated (% of weights, steps or credit)")
    label_ends(axes, ends)
    rest = [method.name for method in comparison.methods if method not in isolating]
    if rest:
        axes.set_title(textwrap.fill(f"0 % throughout: {', '.join(rest)}", 96, break_on_hyphens=False), **_SUBTITLE)
    return figure


def phases(comparison: Comparison) -> Figure:
    """Where the training seconds went: a stacked bar a method, medians over the seeds."""
    figure, panels = _panels(comparison, "Where the training time goes", 0.35, per_method=True)
    for regime, axes in panels.items():
        methods = _of(comparison, regime)
        left = np.zeros(len(methods))
        for phase in PHASES:
            width = np.array([median(run.phase_seconds[phase] for run in m.runs) for m in methods])
            label = "optimiser" if phase == "optimizer" else phase
            axes.barh(range(len(methods)), width, left=left, color=PHASE_COLOURS[phase], label=label, height=0.68)
            left += width
        for row, total in enumerate(left):
            axes.text(total, row, f" {total:.3g} s", va="center", fontsize=8.5, color="#333333")
        axes.set(yticks=range(len(methods)), yticklabels=[m.name for m in methods], xlabel="Training time (s)")
        axes.invert_yaxis()
        axes.margins(x=0.14)
        axes.grid(axis="y", visible=False)
    handles, labels = next(iter(panels.values())).get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=5, frameon=False, fontsize=8.5)
    return figure


_SUBTITLE: dict[str, Any] = {"fontsize": 8.5, "color": GREY, "fontweight": "normal"}
_NOTE: dict[str, Any] = {"fontsize": 8.5, "color": GREY, "va": "bottom"}


def _panels(
    comparison: Comparison, title: str, height: float, per_method: bool = False
) -> tuple[Figure, dict[str, Axes]]:
    """A figure with one panel a regime, below each other; ``height`` in inches a panel, or a method in it."""
    regimes = sorted({method.regime for method in comparison.methods})
    heights = [0.75 + height * len(_of(comparison, regime)) if per_method else height for regime in regimes]
    figure, grid = new_figure(
        8.4, sum(heights) + 0.6, titled(comparison.runs[0], title), rows=len(regimes), height_ratios=heights
    )
    for regime, axes in zip(regimes, grid[:, 0], strict=True):
        axes.set_title(f"{regime} training", fontsize=9.5, color=GREY)
    return figure, dict(zip(regimes, grid[:, 0], strict=True))


def _frame_the_ends(axes: Axes, curves: Sequence[Sequence[tuple[float, float]]]) -> None:
    """The first validations are far above what matters: show where the curves end, and some way there."""
    if curves:
        best, worst = min(y for curve in curves for _, y in curve), max(curve[-1][1] for curve in curves)
        span = max(worst - best, 0.05 * best)
        axes.set_ylim(best - 0.25 * span, worst + 0.6 * span)
        axes.set_xlim(left=0.7 * min(x for curve in curves for x, y in curve if y <= worst + 0.6 * span))


def _draw_baselines(axes: Axes, levels: Sequence[tuple[str, float]]) -> str:
    """Horizontal lines, named at the right; returns the names of those that would squeeze the methods."""
    low, high = axes.get_ylim()
    near = [(name, y) for name, y in levels if 0.75 * low <= y <= max(1.35 * low, high + 0.3 * (high - low))]
    far = [(name, y) for name, y in levels if (name, y) not in near]
    low, high = min([low, *(y for _, y in near)]), max([high, *(y for _, y in near)])
    axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    right = axes.get_xlim()[1]
    for _, y in near:
        axes.axhline(y, color=GREY, lw=1, ls=(0, (1, 2)), zorder=1)
    label_ends(axes, [(right, y, f"{name} {kilowatts(y)}", GREY) for name, y in near])
    return ", ".join(f"{name} {kilowatts(y)} kW" for name, y in far)


def _draw_front(axes: Axes, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A staircase through the points that none dominates; its vertices."""
    front = sorted({points[index] for index in pareto(points)}) if points else []
    stairs = front[:1]
    for (_, above), (x, y) in pairwise(front):
        stairs += [(x, above), (x, y)]
    axes.plot([x for x, _ in stairs], [y for _, y in stairs], color=GREY, lw=1, ls=(0, (5, 3)), zorder=2)
    return stairs


def _finished(comparison: Comparison) -> list[Method]:
    return [m for m in comparison.methods if math.isfinite(comparison.figure(m, _test_mae).median)]


def _of(comparison: Comparison, regime: str) -> list[Method]:
    return [method for method in comparison.methods if method.regime == regime]


def _arms(middle: float, low: float, high: float) -> list[list[float]]:
    """Lengths of an error bar's arms; an endless arm is left out."""
    return [[middle - low], [high - middle if math.isfinite(high) else 0.0]]


def _train_seconds(run: Run) -> float:
    return run.train_seconds


def _test_mae(run: Run) -> float:
    return run.test_mae


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


NAMED = 45  # series that there is room to name


def error_by_series(comparison: Comparison, shown: Sequence[Entry]) -> Figure | None:
    """The relative test error of each series, the largest of the first of ``shown`` on top; ``None`` for one series."""
    if not shown:
        return None
    names = sorted(shown[0].by_series, key=lambda name: shown[0].by_series[name]["relative"])
    height = 1.4 + 0.18 * len(names) if len(names) <= NAMED else 6.0
    figure, grid = new_figure(8.4, max(height, 2.4), titled(comparison.runs[0], "Test error by series"))
    axes = grid[0, 0]
    for number, entry in reversed([*enumerate(shown)]):
        points = [(entry.by_series[name]["relative"], row) for row, name in enumerate(names) if name in entry.by_series]
        baseline = {"color": GREY, "marker": "d"}
        style = baseline if entry.kind == "baseline" else {"color": PALETTE[number], "marker": "ox"[number]}
        axes.scatter(*zip(*points, strict=True), s=26, label=entry.name, **style)
    if len(names) <= NAMED:
        axes.set_yticks(range(len(names)), names)
    else:
        axes.set_ylabel(f"Series, by the error of {shown[0].name}")
    axes.set(
        xlabel="Test MAE (standard deviations of the series over the training part)", ylim=(-0.7, len(names) - 0.3)
    )
    axes.set_xlim(left=0)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower left", ncols=3, frameon=False)
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
    colour = _colours(comparison)
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


MEDIAN = "week of median error"
HOUR = 3600
DAY = 24 * HOUR
Rows = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


def forecasts(comparison: Comparison, windows: Windows | None = None) -> Figure | None:
    """Tuned and the best isolated method against the truth, 24-hour pieces end to end, in up to three weeks.

    Of several series that of median relative error. ``None`` if no finished method has a full week of the test part.
    """
    shown = _shown(comparison)
    if not shown:
        return None
    series = {method.name: read_forecasts(_first_run(method).folder) for method in shown}
    of = ""
    if windows and len(windows.series) > 1:
        (index, of), _ = _middle_and_worst(next(iter(series.values())), windows)
        series = {name: of_series(one, windows, index) for name, one in series.items()}
    weeks = chosen_weeks(next(iter(series.values())))
    if not weeks:
        return None
    title = titled(comparison.runs[0], f"24-hour forecasts, one a day, and the truth{of and ': '}{of}")
    figure, grid = new_figure(8.4, 0.8 + 2.2 * len(weeks), title, len(weeks))
    colour = _colours(comparison)
    for (title, week), axes in zip(weeks, grid[:, 0], strict=True):
        for number, (name, one) in enumerate(series.items()):
            rows = daily_rows(one, week)
            if number == 0:
                axes.plot(*_tiles(one, rows, one.truth), color="#B5B5B5", lw=3.2, label="truth")
            dashes = "-" if number else (0, (4, 1.5))
            axes.plot(*_tiles(one, rows, one.prediction), color=colour[name], lw=1.3, ls=dashes, label=name)
        axes.xaxis.set_major_locator(DayLocator(tz=UTC))  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_formatter(DateFormatter("%a %d %b", tz=UTC))  # type: ignore[no-untyped-call]
        maes = ", ".join(f"{name} {kilowatts(_mae(one, daily_rows(one, week)))} kW" for name, one in series.items())
        axes.set_title(f"{title} (MAE: {maes})", fontsize=9.5)
        axes.set_ylabel("Load (kW)")
        axes.margins(x=0.01)
    grid[-1, 0].set_xlabel(f"Time (UTC, {datetime.fromtimestamp(_start(series, weeks[0][1]), UTC):%Y})")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=4, frameon=False)
    return figure


def daily_rows(forecasts: Forecasts, week: int) -> Rows:
    """Rows of ``week`` whose 24 hours do not overlap: each starts a day or more after the last."""
    rows, free = [], -np.inf
    for row in np.flatnonzero(week_of(forecasts.time) == week):
        if forecasts.time[row] >= free:
            rows.append(int(row))
            free = forecasts.time[row] + DAY
    return np.array(rows, dtype=np.int64)


def chosen_weeks(forecasts: Forecasts) -> list[tuple[str, int]]:
    """(title, week): the first full week, the one of median error and the worst, each once, by date.

    A week is full with at least six daily forecasts and the truth known at 90 % of their hours. Errors are
    the MAE (kW) of ``forecasts`` over these daily pieces.
    """
    errors: dict[int, float] = {}
    for week in np.unique(week_of(forecasts.time)):
        rows = daily_rows(forecasts, int(week))
        if len(rows) >= 6 and np.isfinite(forecasts.truth[rows]).mean() >= 0.9:
            errors[int(week)] = _mae(forecasts, rows)
    if not errors:
        return []
    ranked = sorted(errors, key=lambda week: errors[week])
    middle = ranked[(len(ranked) - 1) // 2]
    rules = {"first full week": min(errors), MEDIAN: middle, "worst week": ranked[-1]}
    titles: dict[int, list[str]] = {}
    for rule, week in rules.items():
        titles.setdefault(week, []).append(rule)
    return [(f"{' and '.join(titles[week]).capitalize()}", week) for week in sorted(titles)]


def _shown(comparison: Comparison) -> list[Method]:
    """The tuned reference and the isolated method of lowest median test MAE of the first regime with any."""
    for regime in sorted(comparison.targets):
        tuned = comparison.tuned(regime)
        isolated = [m for m in comparison.isolated() if m.regime == regime and not all(r.diverged for r in m.runs)]
        best = min(isolated, key=lambda m: comparison.figure(m, lambda run: run.test_mae).median, default=None)
        shown = [m for m in (tuned, best) if m is not None and not all(run.diverged for run in m.runs)]
        if shown:
            return shown
    return []


def _first_run(method: Method) -> Run:
    return next(run for run in method.runs if not run.diverged)


def _mae(one: Forecasts, rows: Rows) -> float:
    return float(np.nanmean(np.abs(one.prediction[rows] - one.truth[rows])))


def _tiles(one: Forecasts, rows: Rows, values: Values) -> tuple[Sequence[datetime], Values]:
    """Times and values of the pieces end to end; a gap between two pieces stays a gap."""
    leads = values.shape[1]
    seconds = one.time[rows][:, None] + HOUR * np.arange(leads + 1)
    ends = np.concatenate([values[rows], np.full((len(rows), 1), np.nan)], axis=1)
    return [datetime.fromtimestamp(int(t), UTC) for t in seconds.ravel()], ends.ravel()


def _start(series: dict[str, Forecasts], week: int) -> float:
    one = next(iter(series.values()))
    return float(one.time[daily_rows(one, week)[0]])


def fans(comparison: Comparison, windows: Windows) -> Figure | None:
    """The method of least validation error (its first seed) in up to two weeks of the test part, 24-hour pieces.

    Of several series that of median relative error and the worst, each in its week of median error.
    """
    candidates = [m for m in comparison.methods if m.finished and not m.refit]
    if not candidates:
        return None
    best = min(candidates, key=lambda m: comparison.figure(m, lambda run: run.val_mae).median)
    folder = best.finished[0].folder
    test, seen = read_forecasts(folder), read_forecasts(folder, "validation")
    shown = _middle_and_worst(test, windows) if len(windows.series) > 1 else [(0, "")]
    panels = []
    for index, of in shown:
        own_test, own_seen = of_series(test, windows, index), of_series(seen, windows, index)
        weeks = chosen_weeks(own_test)
        for title, week in [one for one in weeks if MEDIAN in one[0].lower()] if of else weeks[:2]:
            panels.append(_fans(f"{of}: {title.lower()}" if of else title, own_test, own_seen, windows, week))
    title = titled(comparison.runs[0], f"Forecasts of {best.name} with their intervals")
    return fan_figure(title, panels, windows.series[shown[0][0]]["time_zone"]) if panels else None


def _fans(title: str, test: Forecasts, seen: Forecasts, windows: Windows, week: int) -> Fans:
    """The forecasts of one series in a ``week``, with the intervals that its validation errors ``seen`` give."""
    residuals, working = seen.truth - seen.prediction, working_hours(windows, seen.origins)
    rows = daily_rows(test, week)
    forecast, own = test.prediction[rows], working_hours(windows, test.origins[rows])
    bands = {share: calibrate(residuals, working, share).around(forecast, own) for share in FAN}
    return Fans(title, test.time[rows], forecast, test.truth[rows], bands)


def _middle_and_worst(test: Forecasts, windows: Windows) -> list[tuple[int, str]]:
    """Index and name of the series of median relative error and of the worst, and which it is."""
    by_series: Mapping[str, Errors] = scores(windows, test.origins, test.prediction)["by_series"]
    names = [one["name"] for one in windows.series]
    which = ("the series of median relative error", "the worst series")
    return [
        (names.index(name), f"{name}, {what}") for name, what in zip(middle_and_worst(by_series), which, strict=True)
    ]
