"""Every forecast beside every other on the same origins: errors, paired differences, coverage of intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isotrain.compare.comparison import Comparison, Method, seconds_to_target
from isotrain.compare.results import Baseline
from isotrain.compare.statistics import Interval, mae_difference, week_of
from isotrain.data.windows import Windows
from isotrain.forecast.forecasts import (
    Forecasts,
    mae,
    mae_by_lead,
    mae_by_month,
    mean_forecast,
    read_forecasts,
    rmse,
)
from isotrain.forecast.intervals import calibrate, coverage_of, cross_fitted, working_hours

MEMBERS = 3  # seeds that make an ensemble


@dataclass(frozen=True)
class Entry:
    """One forecast: errors in kW, ``None`` where there is none or it would say nothing (a refit's on validation).

    ``seconds``: of training, for an ensemble that of all its seeds. ``to_reference``: seconds to the validation
    error of the baseline that all are compared with. ``difference``: test MAE less that baseline's.
    """

    name: str
    kind: str  # method | ensemble | baseline
    seeds: int | None
    parameters: int | None
    seconds: Interval | None
    to_reference: Interval | None
    val_mae: Interval | None
    test_mae: Interval
    test_rmse: Interval
    difference: Interval | None
    by_lead: tuple[float, ...]
    by_month: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        """All of it; infinite and absent values are null."""
        names = ("seconds", "to_reference", "val_mae", "test_mae", "test_rmse", "difference")
        values: dict[str, Interval | None] = {name: getattr(self, name) for name in names}
        plain = {name: getattr(self, name) for name in ("name", "kind", "seeds", "parameters")}
        figures = {name: value.as_json() if value else None for name, value in values.items()}
        return plain | figures | {"mae_by_lead": list(self.by_lead), "mae_by_month": dict(self.by_month)}


def entries_of(comparison: Comparison, baselines: Sequence[Baseline]) -> list[Entry]:
    """Methods in their order, each with its ensemble below, then the baselines."""
    reference = _reference(comparison, baselines)
    found = []
    for method in comparison.methods:
        found.append(_method(comparison, method, reference))
        if len(method.finished) >= MEMBERS:
            found.append(_ensemble(comparison, method, reference))
    return found + [_baseline(comparison, baseline, reference) for baseline in baselines]


@dataclass(frozen=True)
class Reference:
    """The baseline that all are compared with."""

    name: str
    val_mae: float | None
    forecasts: Forecasts


def _reference(comparison: Comparison, baselines: Sequence[Baseline]) -> Reference | None:
    row = next((b for b in baselines if b.name == comparison.settings.against), None)
    return Reference(row.name, row.val_mae, read_forecasts(row.folder)) if row else None


def _method(comparison: Comparison, method: Method, reference: Reference | None) -> Entry:
    forecasts = [read_forecasts(run.folder) for run in method.finished]
    goal = reference.val_mae if reference and not method.refit else None
    soon = None if goal is None else comparison.interval([seconds_to_target(run, goal) for run in method.runs])
    return Entry(
        name=method.name,
        kind="method",
        seeds=len(method.runs),
        parameters=method.runs[0].parameters,
        seconds=comparison.figure(method, lambda run: run.train_seconds),
        to_reference=soon,
        val_mae=None if method.refit else comparison.figure(method, lambda run: run.val_mae),
        test_mae=comparison.figure(method, lambda run: run.test_mae),
        test_rmse=comparison.figure(method, lambda run: run.test_rmse),
        difference=_difference(comparison, forecasts, reference),
        **_broken_down(forecasts),
    )


def _ensemble(comparison: Comparison, method: Method, reference: Reference | None) -> Entry:
    together = mean_forecast([read_forecasts(run.folder) for run in method.finished])
    seen = [] if method.refit else [read_forecasts(run.folder, "validation") for run in method.finished]
    return Entry(
        name=f"{method.name}, ensemble of {len(method.finished)} seeds",
        kind="ensemble",
        seeds=len(method.finished),
        parameters=sum(run.parameters for run in method.finished),
        seconds=_exactly(sum(run.train_seconds for run in method.finished)),
        to_reference=None,
        val_mae=_exactly(mae(mean_forecast(seen))) if seen else None,
        test_mae=_exactly(mae(together)),
        test_rmse=_exactly(rmse(together)),
        difference=_difference(comparison, [together], reference),
        **_broken_down([together]),
    )


def _baseline(comparison: Comparison, row: Baseline, reference: Reference | None) -> Entry:
    itself = reference is not None and reference.name == row.name
    forecasts = [read_forecasts(row.folder)]
    return Entry(
        name=row.name,
        kind="baseline",
        seeds=None,
        parameters=row.parameters or None,
        seconds=_exactly(row.seconds) if row.parameters else None,
        to_reference=_exactly(row.seconds) if itself else None,
        val_mae=None if row.val_mae is None else _exactly(row.val_mae),
        test_mae=_exactly(row.test_mae),
        test_rmse=_exactly(row.test_rmse),
        difference=None if itself else _difference(comparison, forecasts, reference),
        **_broken_down(forecasts) | {"by_lead": row.mae_by_lead},
    )


def _difference(comparison: Comparison, own: Sequence[Forecasts], reference: Reference | None) -> Interval | None:
    if reference is None or not own:
        return None
    settings = comparison.settings
    return mae_difference(own, [reference.forecasts], settings.confidence, settings.bootstrap)


def _broken_down(forecasts: Sequence[Forecasts]) -> dict[str, Any]:
    """Errors by lead and by month, averaged over the seeds."""
    if not forecasts:
        return {"by_lead": (), "by_month": {}}
    leads = np.mean([mae_by_lead(one) for one in forecasts], axis=0)
    months = [mae_by_month(one) for one in forecasts]
    common = [month for month in months[0] if all(month in other for other in months)]
    return {
        "by_lead": tuple(float(value) for value in leads),
        "by_month": {month: float(np.mean([other[month] for other in months])) for month in common},
    }


def _exactly(value: float) -> Interval:
    return Interval(value, value, value)


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


def coverages(comparison: Comparison, baselines: Sequence[Baseline], windows: Windows, share: float) -> list[Coverage]:
    """One row for each method (its first seed) and baseline that has forecasts of the validation part."""
    folders = {m.name: m.finished[0].folder for m in comparison.methods if m.finished and not m.refit}
    folders |= {b.name: b.folder for b in baselines if not b.refit}
    return [_coverage(name, folder, windows, share) for name, folder in folders.items()]


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
