"""Every forecast beside every other on the same origins: errors, paired differences, coverage; which is published."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from isotrain.baselines import RESTORED, file_of
from isotrain.compare.comparison import Comparison, Method, seconds_to_target
from isotrain.compare.results import Baseline, Run
from isotrain.compare.statistics import Interval, mae_difference, week_of
from isotrain.data.locate import named
from isotrain.data.windows import Windows
from isotrain.errors import InputError
from isotrain.forecast.bundle import PUBLISHED, publish
from isotrain.forecast.forecasts import (
    Errors,
    Forecasts,
    mae,
    mae_by_lead,
    mae_by_month,
    mean_forecast,
    of_series,
    read_forecasts,
    rmse,
    scores,
)
from isotrain.forecast.intervals import calibrate, coverage_of, cross_fitted, working_hours

log = logging.getLogger(__name__)
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
    error of the baseline that all are compared with. ``difference``: test MAE less that baseline's. Where there are
    several series: ``relative``, the test MAE with each series in its own standard deviation, its difference, and the
    test errors of each series by name.
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
    relative: Interval | None = None
    relative_difference: Interval | None = None
    by_series: Mapping[str, Errors] = field(default_factory=dict)
    by_category: Mapping[str, Errors] = field(default_factory=dict)  # means over the series of each category

    def as_json(self) -> dict[str, Any]:
        """All of it; infinite and absent values are null."""
        names = ["seconds", "to_reference", "val_mae", "test_mae", "test_rmse", "difference"]
        names += ["relative", "relative_difference"]
        values: dict[str, Interval | None] = {name: getattr(self, name) for name in names}
        plain = {name: getattr(self, name) for name in ("name", "kind", "seeds", "parameters")}
        figures = {name: value.as_json() if value else None for name, value in values.items()}
        parts = {"mae_by_lead": list(self.by_lead), "mae_by_month": dict(self.by_month)}
        return plain | figures | parts | {"by_series": dict(self.by_series), "by_category": dict(self.by_category)}


def entries_of(
    comparison: Comparison,
    baselines: Sequence[Baseline],
    published: Best | None = None,
    windows: Windows | None = None,
) -> list[Entry]:
    """Methods in their order, each with its ensemble below, the baselines, and what is published if an average.

    ``windows``: what they forecast; without them nothing is said of single series.
    """
    row = next((b for b in baselines if b.name == comparison.settings.against), None)
    reference = Reference(row.name, row.val_mae, read_forecasts(row.folder)) if row else None
    pool = windows if windows and len(windows.series) > 1 else None
    common = _Common(comparison, reference, pool)
    found = []
    for method in comparison.methods:
        found.append(_method(common, method))
        if len(method.finished) >= MEMBERS:
            found.append(_ensemble(common, method))
    found += [_baseline(common, baseline) for baseline in baselines]
    return found + ([_average(common, published)] if published and len(published.members) > 1 else [])


def categories(windows: Windows) -> dict[str, list[str]]:
    """Category -> the names of its series; empty unless the series name more than one."""
    found: dict[str, list[str]] = {}
    for one in windows.series:
        found.setdefault(str(one["about"].get("category") or "not said"), []).append(one["name"])
    return dict(sorted(found.items())) if len(found) > 1 else {}


def telling(accuracy: Sequence[Entry], against: str | None) -> list[Entry]:
    """What single series are shown for: the method of least validation error, a published average, the baseline
    ``against``; those of them that there are."""
    methods = [e for e in accuracy if e.kind == "method" and e.by_series and e.val_mae]
    best = sorted(methods, key=lambda e: e.val_mae.median if e.val_mae else math.inf)[:1]
    others = [e for e in accuracy if e.by_series and (e.kind == "published" or e.name == against)]
    return best + sorted(others, key=lambda e: e.kind != "published")


def middle_and_worst(by_series: Mapping[str, Errors]) -> tuple[str, str]:
    """The series of median relative error, and the one of the largest."""
    ranked = sorted(by_series, key=lambda name: by_series[name]["relative"])
    return ranked[(len(ranked) - 1) // 2], ranked[-1]


@dataclass(frozen=True)
class Reference:
    """The baseline that all are compared with."""

    name: str
    val_mae: float | None
    forecasts: Forecasts


@dataclass(frozen=True)
class _Common:
    """What every entry is computed with; ``pool``: the windows, where they hold several series."""

    comparison: Comparison
    reference: Reference | None
    pool: Windows | None

    def detail(self, own: Sequence[Forecasts], diverged: int = 0) -> dict[str, Any]:
        """What an entry says of the forecasts of its seeds, ``diverged`` of which have none: the mean of the seeds."""
        found = _broken_down(own)
        settings = self.comparison.settings
        other = (
            [self.reference.forecasts] if self.reference and not any(f is self.reference.forecasts for f in own) else []
        )
        if own and other:
            found["difference"] = mae_difference(own, other, settings.confidence, settings.bootstrap)
        if self.pool is None or not own:
            return found
        if other:
            found["relative_difference"] = mae_difference(
                own, other, settings.confidence, settings.bootstrap, self.pool.scale_at
            )
        scored = [scores(self.pool, one.origins, one.prediction) for one in own]
        found["relative"] = self.comparison.interval([s["relative"] for s in scored] + [math.inf] * diverged)
        found["by_series"] = {name: _mean([s["by_series"][name] for s in scored]) for name in scored[0]["by_series"]}
        found["by_category"] = {
            category: _mean([found["by_series"][name] for name in names if name in found["by_series"]])
            for category, names in categories(self.pool).items()
            if any(name in found["by_series"] for name in names)
        }
        return found


def _method(common: _Common, method: Method) -> Entry:
    comparison, reference = common.comparison, common.reference
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
        **common.detail(
            [read_forecasts(run.folder) for run in method.finished], len(method.runs) - len(method.finished)
        ),
    )


def _ensemble(common: _Common, method: Method) -> Entry:
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
        **common.detail([together]),
    )


def _baseline(common: _Common, row: Baseline) -> Entry:
    reference = common.reference if common.reference and common.reference.name == row.name else None
    forecasts = reference.forecasts if reference else read_forecasts(row.folder)
    return Entry(
        name=row.name,
        kind="baseline",
        seeds=None,
        parameters=row.parameters or None,
        seconds=_exactly(row.seconds) if row.parameters else None,
        to_reference=_exactly(row.seconds) if reference else None,
        val_mae=None if row.val_mae is None else _exactly(row.val_mae),
        test_mae=_exactly(row.test_mae),
        test_rmse=_exactly(row.test_rmse),
        **common.detail([forecasts]) | {"by_lead": row.mae_by_lead},
    )


def _average(common: _Common, best: Best) -> Entry:
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
        **common.detail([together]),
    )


def _broken_down(forecasts: Sequence[Forecasts]) -> dict[str, Any]:
    """Errors by lead and by month, averaged over the seeds; no difference yet."""
    if not forecasts:
        return {"by_lead": (), "by_month": {}, "difference": None}
    leads = np.mean([mae_by_lead(one) for one in forecasts], axis=0)
    months = [mae_by_month(one) for one in forecasts]
    common = [month for month in months[0] if all(month in other for other in months)]
    return {
        "by_lead": tuple(float(value) for value in leads),
        "by_month": {month: float(np.mean([other[month] for other in months])) for month in common},
        "difference": None,
    }


def _mean(errors: Sequence[Errors]) -> Errors:
    """Each of the errors, averaged."""
    return cast(Errors, {key: float(np.mean([one[key] for one in errors])) for key in errors[0]})  # type: ignore[literal-required]


def _exactly(value: float) -> Interval:
    return Interval(value, value, value)


@dataclass(frozen=True)
class Coverage:
    """Shares of hours inside, in [0, 1]: cross-fitted on validation and on test; mean width on test, kW.

    Of several series each is calibrated by itself: ``by_series`` has the share of each on validation and on test, None
    where it has too few validation errors to be calibrated. Such a series counts nowhere.
    """

    name: str
    validation: Mapping[str, Any]
    test: Mapping[str, Any]
    width: float
    by_series: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        plain = {"name": self.name, "validation": self.validation, "test": self.test, "mean_width": self.width}
        return {**plain, "by_series": {name: dict(shares) for name, shares in self.by_series.items()}}


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
    several = len(windows.series) > 1
    found, by_series = [], dict[str, dict[str, float | None]]()
    for index, one in enumerate(windows.series):
        try:
            held = _held(of_series(seen, windows, index), of_series(test, windows, index), windows, share)
        except InputError:  # too few validation errors
            if not several:
                raise
            by_series[one["name"]] = {"validation": None, "test": None}
            continue
        found.append(held)
        by_series[one["name"]] = {part: coverage_of(*held[part])["all"] for part in ("validation", "test")}
    if without := [one for one, shares in by_series.items() if shares["validation"] is None]:
        few = "too few validation errors for intervals"
        log.warning("%s: %d of %d series have %s: %s", name, len(without), len(by_series), few, named(without))
    if not found:
        raise InputError(f"no series has enough validation errors for intervals of coverage {share:g}")
    parts = {
        part: [np.concatenate(both) for both in zip(*(one[part] for one in found), strict=True)] for part in found[0]
    }
    widths = parts.pop("widths")
    return Coverage(
        name,
        coverage_of(*parts["validation"]),
        coverage_of(*parts["test"]),
        float(np.mean(widths[0])),
        by_series if several else {},
    )


def _held(seen: Forecasts, test: Forecasts, windows: Windows, share: float) -> dict[str, tuple[NDArray[Any], ...]]:
    """Of one series: of each part what was inside and which hours are of working days; the widths on test."""
    residuals, working = _residuals(seen, windows)
    holds = cross_fitted(residuals, working, week_of(seen.time), share)
    limits = calibrate(residuals, working, share)
    later, later_working = _residuals(test, windows)
    low, high = limits.around(test.prediction, later_working)
    return {
        "validation": (holds, working),
        "test": (limits.holds(later, later_working), later_working),
        "widths": (high - low,),
    }


def _residuals(forecasts: Forecasts, windows: Windows) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    return forecasts.truth - forecasts.prediction, working_hours(windows, forecasts.origins)
