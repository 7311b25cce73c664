"""Every forecast beside every other on the same origins: errors, paired differences, coverage; which is published."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isotrain.baselines import RESTORED, file_of
from isotrain.compare.comparison import Comparison, Method, seconds_to_target
from isotrain.compare.results import Baseline, Run
from isotrain.compare.statistics import Interval, mae_difference, week_of
from isotrain.data.windows import Windows
from isotrain.forecast.bundle import PUBLISHED, publish
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
AVERAGE = "average of "  # begins the name of one


@dataclass(frozen=True)
class Best:
    """What is published: the candidate of the least validation error (:func:`best_on_validation`).

    ``network``: the fit of the method's best seed. ``candidates``: validation MAE (kW) of everything that it was
    chosen from, the best first; of a method the mean over its seeds.
    """

    name: str
    network: Run | None
    baselines: tuple[Baseline, ...]
    candidates: Mapping[str, float]

    @property
    def val_mae(self) -> float:
        """kW, by which it was chosen."""
        return self.candidates[self.name]

    @property
    def members(self) -> list[Path]:
        """The folders whose forecasts it averages."""
        return [one.folder for one in ([self.network] if self.network else []) + list(self.baselines)]

    @property
    def description(self) -> str:
        """Its name, with the seed of its network."""
        fit = self.network
        return self.name if fit is None else self.name.replace(fit.method, f"{fit.method} (seed {fit.seed})", 1)

    @cached_property
    def mae(self) -> float:
        """Of the test part, kW: read when it is reported, after the choice."""
        return mae(self.forecasts("test"))

    def forecasts(self, part: str) -> Forecasts:
        """What it says of ``part``."""
        return mean_forecast([read_forecasts(folder, part) for folder in self.members])

    def publish(self, report: Path, windows: Windows) -> None:
        """Make a folder beside the report its bundle (:func:`isotrain.forecast.bundle.publish`)."""
        files = [baseline.folder / file_of(baseline.name) for baseline in self.baselines]
        network = self.network.folder if self.network else None
        seen = self.forecasts("validation")
        publish(report / PUBLISHED, self.description, network, files, seen, windows, self.candidates)


def best_on_validation(runs: Sequence[Run], baselines: Sequence[Baseline]) -> Best | None:
    """Which forecaster has the least MAE on the validation part; the test part is not read.

    The candidates: each method, by the mean over its seeds; each fitted baseline that can be published
    (:data:`isotrain.baselines.RESTORED`); and the averages, of two or of three, of the best method, the best ridge and
    the best LightGBM. Refits have seen the validation part and are none of them, nor is a method of which a seed
    diverged. A method is published with its best seed: one network, rather than all seeds at their cost. ``None``
    where there is no candidate.
    """
    seeds: dict[str, list[Run]] = {}
    for run in runs:
        seeds.setdefault(run.method, []).append(run)
    errors = {name: float(np.mean([run.val_mae for run in fits])) for name, fits in seeds.items()}
    rows = {row.name: row for row in baselines if row.name in RESTORED and row.val_mae is not None}
    errors |= {name: row.val_mae for name, row in rows.items() if row.val_mae is not None}
    errors = {name: error for name, error in errors.items() if math.isfinite(error)}
    kinds = [seeds, *({name for name in rows if name.startswith(kind)} for kind in ("ridge", "lightgbm"))]
    pool = [
        min(known, key=errors.__getitem__) for kind in kinds if (known := [name for name in errors if name in kind])
    ]
    made: dict[str, tuple[str, ...]] = {name: (name,) for name in errors}
    for count in (2, 3):
        for members in combinations(pool, count):
            name = f"{AVERAGE}{', '.join(members[:-1])} and {members[-1]}"
            errors[name], made[name] = _mean_error(members, seeds, rows), members
    if not errors:
        return None
    ranked = dict(sorted(errors.items(), key=lambda item: item[1]))
    first = next(iter(ranked))
    chosen = made[first]
    fits = [run for name in chosen if name in seeds for run in seeds[name]]
    return Best(
        first,
        min(fits, key=lambda run: (run.val_mae, run.seed), default=None),
        tuple(rows[name] for name in chosen if name in rows),
        ranked,
    )


def _mean_error(members: Sequence[str], seeds: Mapping[str, list[Run]], rows: Mapping[str, Baseline]) -> float:
    """Validation MAE (kW) of the average of ``members``, the mean over the seeds of the network among them."""
    fixed = [read_forecasts(rows[name].folder, "validation") for name in members if name in rows]
    nets = [read_forecasts(run.folder, "validation") for name in members if name in seeds for run in seeds[name]]
    together = [[net, *fixed] for net in nets] or [fixed]
    return float(np.mean([mae(mean_forecast(one)) for one in together]))


@dataclass(frozen=True)
class Entry:
    """One forecast: errors in kW, ``None`` where there is none or it would say nothing (a refit's on validation).

    ``seconds``: of training, for an ensemble that of all its seeds. ``to_reference``: seconds to the validation
    error of the baseline that all are compared with. ``difference``: test MAE less that baseline's.
    """

    name: str
    kind: str  # method | ensemble | baseline | published (an average)
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


def entries_of(comparison: Comparison, baselines: Sequence[Baseline], published: Best | None = None) -> list[Entry]:
    """Methods in their order, each with its ensemble below, the baselines, and what is published if an average."""
    reference = _reference(comparison, baselines)
    found = []
    for method in comparison.methods:
        found.append(_method(comparison, method, reference))
        if len(method.finished) >= MEMBERS:
            found.append(_ensemble(comparison, method, reference))
    found += [_baseline(comparison, baseline, reference) for baseline in baselines]
    return found + ([_average(comparison, published, reference)] if published and len(published.members) > 1 else [])


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


def _average(comparison: Comparison, best: Best, reference: Reference | None) -> Entry:
    fits, together = [best.network] if best.network else [], best.forecasts("test")
    return Entry(
        name=f"published: {best.name}",
        kind="published",
        seeds=len(fits) or None,
        parameters=sum(fit.parameters for fit in fits) + sum(row.parameters for row in best.baselines),
        seconds=_exactly(sum(fit.train_seconds for fit in fits) + sum(row.seconds for row in best.baselines)),
        to_reference=None,
        val_mae=_exactly(mae(best.forecasts("validation"))),
        test_mae=_exactly(mae(together)),
        test_rmse=_exactly(rmse(together)),
        difference=_difference(comparison, [together], reference),
        **_broken_down([together]),
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


def coverages(
    comparison: Comparison,
    baselines: Sequence[Baseline],
    windows: Windows,
    share: float,
    published: Best | None = None,
) -> list[Coverage]:
    """A row for each method (its first seed) and baseline with forecasts of validation, and for a published average."""
    folders = {m.name: m.finished[0].folder for m in comparison.methods if m.finished and not m.refit}
    folders |= {b.name: b.folder for b in baselines if not b.refit}
    members = {name: [folder] for name, folder in folders.items()}
    if published and len(published.members) > 1:
        members[f"published: {published.name}"] = published.members
    return [_coverage(name, of, windows, share) for name, of in members.items()]


def _coverage(name: str, folders: Sequence[Path], windows: Windows, share: float) -> Coverage:
    seen, test = (mean_forecast([read_forecasts(one, part) for one in folders]) for part in ("validation", "test"))
    residuals, working = _residuals(seen, windows)
    holds = cross_fitted(residuals, working, week_of(seen.time), share)
    limits = calibrate(residuals, working, share)
    later, later_working = _residuals(test, windows)
    low, high = limits.around(test.prediction, later_working)
    inside = coverage_of(limits.holds(later, later_working), later_working)
    return Coverage(name, coverage_of(holds, working), inside, float(np.mean(high - low)))


def _residuals(forecasts: Forecasts, windows: Windows) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    return forecasts.truth - forecasts.prediction, working_hours(windows, forecasts.origins)
