"""Fans: forecasts with their intervals, and the truth beside them where it is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from numpy.typing import NDArray

from isotrain.data.schema import TIME
from isotrain.data.windows import ahead_words
from isotrain.forecast.bundle import Bundle
from isotrain.report.drawing import PALETTE, STYLE, new_figure, with_words
from isotrain.serve.predict import next_hours, past_and_future

FAN = (0.95, 0.8, 0.5)  # coverages drawn, widest first
WEEK = 168  # hours of history shown before a forecast
Values = NDArray[Any]


@dataclass(frozen=True)
class Fans:
    """Forecasts to be drawn end to end in one panel; r forecasts of K leads, kW."""

    title: str
    start: NDArray[np.int64]  # (r,), the first hour forecast, seconds since 1970 UTC
    forecast: Values  # (r, K)
    truth: Values  # (r, K), NaN where unknown
    bands: Mapping[float, tuple[Values, Values]]  # coverage -> lower and upper ends, (r, K) each


def fan_figure(title: str, panels: Sequence[Fans], time_zone: str) -> Figure:
    """One panel each of ``panels``, such as two weeks with a forecast a day; times on the building's clock."""
    zone = ZoneInfo(time_zone)
    with mpl.rc_context(STYLE):
        figure, grid = new_figure(8.4, 0.9 + 2.4 * len(panels), title, len(panels))
        for panel, axes in zip(panels, grid[:, 0], strict=True):
            for row, start in enumerate(panel.start):
                hours = _hours(int(start), panel.forecast.shape[1], zone)
                bands = {coverage: (low[row], high[row]) for coverage, (low, high) in panel.bands.items()}
                _fan(axes, hours, panel.forecast[row], bands)
                axes.plot(hours, panel.truth[row], color="black", lw=1.0, label="truth")
            _finish(axes, panel.title, zone)
        grid[-1, 0].set_xlabel(f"Time ({zone.key})")
        _legend(figure, grid[0, 0])
    return figure


def forecast_figure(bundle: Bundle, table: pd.DataFrame) -> Figure:
    """The last known week of ``table`` (tidy) and the forecast of the hours after it."""
    zone = ZoneInfo(bundle.series["time_zone"])
    answer, target = next_hours(bundle, table), bundle.meta["target"]
    week = past_and_future(table, target)[0].tail(WEEK)
    hours = list(answer.time.tz_convert(zone).to_pydatetime())
    with mpl.rc_context(STYLE):
        title = f"{target}: forecast from {hours[0]:%A %d %B %Y, %H:%M} on"
        figure, grid = new_figure(
            8.4, 3.4, with_words(title, f"learnt with {ahead_words(bundle.meta)}" if bundle.ahead else "")
        )
        axes = grid[0, 0]
        axes.plot(list(week[TIME].dt.tz_convert(zone)), week[target], color="black", lw=1.0, label="measured")
        _fan(axes, hours, answer.forecast, {coverage: answer.interval(bundle, coverage) for coverage in FAN})
        _finish(axes, "", zone)
        axes.set_xlabel(f"Time ({zone.key})")
        _legend(figure, axes)
    return figure


def _fan(axes: Axes, hours: list[datetime], forecast: Values, bands: Mapping[float, tuple[Values, Values]]) -> None:
    """A line and a band each coverage, the narrower the darker; bands of NaN are left out."""
    x: Any = hours  # matplotlib's annotations know no datetimes
    for coverage, (low, high) in sorted(bands.items(), reverse=True):
        if not np.isnan(low).all():
            axes.fill_between(x, low, high, color=_tint(coverage), lw=0, label=f"{coverage:.0%}")
    axes.plot(x, forecast, color=PALETTE[1], lw=1.3, label="forecast")


def _tint(coverage: float) -> tuple[float, ...]:
    """The fan's colour, mixed with the more white the wider the interval."""
    share = 0.85 - 0.72 * coverage
    return tuple(1 - share * (1 - part) for part in to_rgb(PALETTE[0]))


def _legend(figure: Figure, axes: Axes) -> None:
    """Each label once, below everything."""
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    figure.legend(list(once.values()), list(once), loc="outside lower left", ncols=6, frameon=False)


def _finish(axes: Axes, title: str, zone: ZoneInfo) -> None:
    locator = AutoDateLocator(tz=zone, minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=zone))  # type: ignore[no-untyped-call]
    axes.set_title(title, fontsize=9.5)
    axes.set_ylabel("Load (kW)")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)


def _hours(start: int, leads: int, zone: ZoneInfo) -> list[datetime]:
    first = datetime.fromtimestamp(start, ZoneInfo("UTC"))
    return [(first + timedelta(hours=lead)).astimezone(zone) for lead in range(leads)]
