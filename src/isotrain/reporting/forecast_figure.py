"""Forecasts beside the truth, on weeks that a rule picks and nobody's eye."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
from matplotlib.dates import DateFormatter, DayLocator
from matplotlib.figure import Figure

from isotrain.reporting.style import colours, titled
from isotrain.style import new_figure
from isotrain.tradeoff.comparison import Comparison, Method
from isotrain.tradeoff.forecasts import Forecasts, read_forecasts
from isotrain.tradeoff.results import Run
from isotrain.tradeoff.statistics import week_of

HOUR = 3600
DAY = 24 * HOUR
Rows = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


def forecasts(comparison: Comparison) -> Figure | None:
    """Tuned and the best isolated method against the truth, 24-hour pieces end to end, in up to three weeks.

    ``None`` if no finished method has a full week of the test part.
    """
    shown = _shown(comparison)
    if not shown:
        return None
    series = {method.name: read_forecasts(_first_run(method).folder) for method in shown}
    weeks = chosen_weeks(next(iter(series.values())))
    if not weeks:
        return None
    title = titled(comparison.runs[0], "24-hour forecasts, one a day, and the truth")
    figure, grid = new_figure(8.4, 0.8 + 2.2 * len(weeks), title, len(weeks))
    colour = colours(method.name for method in comparison.methods)
    for (title, week), axes in zip(weeks, grid[:, 0], strict=True):
        for number, (name, one) in enumerate(series.items()):
            rows = daily_rows(one, week)
            if number == 0:
                axes.plot(*_tiles(one, rows, one.truth), color="#B5B5B5", lw=3.2, label="truth")
            dashes = "-" if number else (0, (4, 1.5))
            axes.plot(*_tiles(one, rows, one.prediction), color=colour[name], lw=1.3, ls=dashes, label=name)
        axes.xaxis.set_major_locator(DayLocator(tz=UTC))  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_formatter(DateFormatter("%a %d %b", tz=UTC))  # type: ignore[no-untyped-call]
        maes = ", ".join(f"{name} {_mae(one, daily_rows(one, week)):.2f} kW" for name, one in series.items())
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
    rules = {"first full week": min(errors), "week of median error": middle, "worst week": ranked[-1]}
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
