"""Fans: forecasts with their intervals, and the truth beside them where it is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from numpy.typing import NDArray

from isotrain.data.schema import TIME
from isotrain.serving.bundle import Bundle
from isotrain.serving.predict import predict
from isotrain.style import PALETTE, new_figure

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
    figure, grid = new_figure(8.4, 0.9 + 2.4 * len(panels), title, len(panels))
    for panel, axes in zip(panels, grid[:, 0], strict=True):
        for row, start in enumerate(panel.start):
            hours = _hours(int(start), panel.forecast.shape[1], zone)
            bands = {coverage: (low[row], high[row]) for coverage, (low, high) in panel.bands.items()}
            _fan(axes, hours, panel.forecast[row], bands, labelled=row == 0)
            axes.plot(hours, panel.truth[row], color="black", lw=1.0, label="truth" if row == 0 else None)
        _finish(axes, panel.title, zone)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=6, frameon=False)
    return figure


def forecast_figure(bundle: Bundle, table: pd.DataFrame) -> Figure:
    """The last week of ``table`` (tidy) and the forecast of the hours after it."""
    zone = ZoneInfo(bundle.meta["time_zone"])
    answers = {coverage: predict(bundle, table, coverage) for coverage in FAN}
    shown = table.tail(WEEK)
    past = [stamp.to_pydatetime() for stamp in shown[TIME].dt.tz_convert(zone)]
    first = answers[FAN[0]]
    hours = [datetime.fromisoformat(stamp).astimezone(zone) for stamp in first["time_utc"]]
    bands = {c: (a["low_kw"].to_numpy(), a["high_kw"].to_numpy()) for c, a in answers.items()}
    target = bundle.meta["target"]
    figure, grid = new_figure(8.4, 3.4, f"{target}: forecast of {hours[0]:%A %d %B %Y, %H:%M} and after")
    axes = grid[0, 0]
    axes.plot(past, shown[target], color="black", lw=1.0, label="measured")
    _fan(axes, hours, first["forecast_kw"].to_numpy(), bands, labelled=True)
    _finish(axes, "", zone)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=6, frameon=False)
    return figure


def _fan(
    axes: Axes,
    hours: list[datetime],
    forecast: Values,
    bands: Mapping[float, tuple[Values, Values]],
    *,
    labelled: bool,
) -> None:
    """A line and a band each coverage, the narrower the darker; bands of NaN are left out."""
    for number, coverage in enumerate(sorted(bands, reverse=True)):
        low, high = bands[coverage]
        if np.isnan(low).all():
            continue
        label = f"{coverage:.0%}" if labelled else None
        axes.fill_between(hours, low, high, color=PALETTE[0], alpha=0.16 + 0.08 * number, lw=0, label=label)  # type: ignore[arg-type]  # the stub knows no datetimes
    axes.plot(hours, forecast, color=PALETTE[1], lw=1.3, label="forecast" if labelled else None)  # type: ignore[arg-type]


def _finish(axes: Axes, title: str, zone: ZoneInfo) -> None:
    locator = AutoDateLocator(tz=zone, minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=zone))  # type: ignore[no-untyped-call]
    axes.set_title(title, fontsize=9.5)
    axes.set_ylabel("Load (kW)")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"Time ({zone.key})")
    axes.margins(x=0.01)


def _hours(start: int, leads: int, zone: ZoneInfo) -> list[datetime]:
    first = datetime.fromtimestamp(start, ZoneInfo("UTC"))
    return [(first + timedelta(hours=lead)).astimezone(zone) for lead in range(leads)]
