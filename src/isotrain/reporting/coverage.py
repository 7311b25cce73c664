"""How often the truth lies inside the forecast intervals, and two weeks of them as fans."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from isotrain.data.windows import Windows
from isotrain.forecast.intervals import DAY_TYPES, calibrate, coverage_of, cross_fitted, working_hours
from isotrain.reporting.accuracy import Baselines
from isotrain.reporting.forecast_figure import chosen_weeks, daily_rows
from isotrain.reporting.style import titled
from isotrain.reporting.tables import cell, table
from isotrain.serving.figure import FAN, Fans, fan_figure
from isotrain.tradeoff.comparison import Comparison
from isotrain.tradeoff.forecasts import Forecasts, read_forecasts
from isotrain.tradeoff.statistics import week_of


@dataclass(frozen=True)
class Coverage:
    """Shares of hours inside, in [0, 1]: cross-fitted on validation and on test; mean width on test, kW."""

    name: str
    validation: Mapping[str, Any]
    test: Mapping[str, Any]
    width: float

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {"name": self.name, "validation": self.validation, "test": self.test, "mean_width": self.width}


def coverages(comparison: Comparison, baselines: Baselines, windows: Windows, share: float) -> list[Coverage]:
    """One row for each method (its first seed) and baseline that has forecasts of the validation part."""
    folders = {m.name: m.finished[0].folder for m in comparison.methods if m.finished and not m.refit}
    folders |= {b["name"]: Path(b["folder"]) for b in baselines if "folder" in b and not b["refit"]}
    return [_coverage(name, folder, windows, share) for name, folder in folders.items()]


def coverage_table(rows: Sequence[Coverage]) -> str:
    """Percent inside, by day type of the target hour on test."""
    head = ["inside, %", "validation", "test", *(f"test, {kind} days" for kind in DAY_TYPES), "mean width on test, kW"]
    lines = [
        [
            cell(r.name),
            _percent(r.validation["all"]),
            *(_percent(r.test[key]) for key in ("all", *DAY_TYPES)),
            f"{r.width:.1f}",
        ]
        for r in rows
    ]
    return table(head, lines)


def fans(comparison: Comparison, windows: Windows) -> Figure | None:
    """The method of least validation error (its first seed) in up to two weeks of the test part, 24-hour pieces."""
    candidates = [m for m in comparison.methods if m.finished and not m.refit]
    if not candidates:
        return None
    best = min(candidates, key=lambda m: comparison.figure(m, lambda run: run.val_mae).median)
    folder = best.finished[0].folder
    test, seen = read_forecasts(folder), read_forecasts(folder, "validation")
    limits = {
        share: calibrate(seen.truth - seen.prediction, working_hours(windows, seen.origins), share) for share in FAN
    }
    panels = []
    for title, week in chosen_weeks(test)[:2]:
        rows = daily_rows(test, week)
        forecast, working = test.prediction[rows], working_hours(windows, test.origins[rows])
        bands = {share: limit.around(forecast, working) for share, limit in limits.items()}
        panels.append(Fans(title, test.time[rows], forecast, test.truth[rows], bands))
    title = titled(comparison.runs[0], f"Forecasts of {best.name} with their intervals")
    return fan_figure(title, panels, windows.meta["time_zone"]) if panels else None


def _coverage(name: str, folder: Path, windows: Windows, share: float) -> Coverage:
    seen, test = read_forecasts(folder, "validation"), read_forecasts(folder)
    residuals, working = _residuals(seen, windows)
    holds = cross_fitted(residuals, working, week_of(seen.time), share)
    limits = calibrate(residuals, working, share)
    later, later_working = _residuals(test, windows)
    low, high = limits.around(test.prediction, later_working)
    inside = coverage_of(limits.holds(later, later_working), later_working)
    return Coverage(name, coverage_of(holds, working), inside, float(np.mean(high - low)))


def _residuals(forecasts: Forecasts, windows: Windows) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    return forecasts.truth - forecasts.prediction, working_hours(windows, forecasts.origins)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
