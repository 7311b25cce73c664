"""A race: every method has the same budget to find its settings, then all are timed to one error on fresh seeds.

The rules are docs/protocol.md. What they are for: a method that isolates is compared with what a careful user would
run instead, tuned by the same search, and no seed that helped to choose settings is used to judge them.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from isotrain.compare.comparison import best_validation, seconds_to_target
from isotrain.compare.results import Role, Run, read_run
from isotrain.compare.statistics import median_interval, speedup
from isotrain.config import CompareView
from isotrain.config.sections import Method
from isotrain.training.fits import run_fits

PROTOCOL = 1  # results of one version are comparable: raise it with every change of docs/protocol.md's rules
SEARCH_SEEDS = (1000, 1001, 1002)  # none of those that are judged; the first for every point, the others for finalists
TOLERANCE = 0.005  # the target lies so far above the median error of the reference's most accurate settings
MARGIN = 0.01  # two errors are equal if the interval of their ratio lies within it
CONFIDENCE, RESAMPLES = 0.9, 2000
ACCURATE = "most-accurate"  # the reference at the settings of its least error, which set the target
JUDGED = "judged"  # the folder of the fits that are judged
CHOSEN = ".chosen"  # ends the name of a fit that is judged; one of the search ends with the number of its point
Point = Mapping[str, Any]  # dotted path of a setting -> its value


@dataclass(frozen=True)
class Budget:
    """How much a race may spend on each method: points of the search, those tried again, seeds that are judged."""

    points: int
    finalists: int
    seeds: int


@dataclass(frozen=True)
class Racer:
    """A method of params.yaml that takes part.

    ``fixed``: settings that its point may not change. ``isolation``: what differs from the method's. ``follows``: it
    takes the point of that racer, whose mathematics it shares. ``given``: its point, found elsewhere.
    """

    name: str
    method: str
    role: Role
    about: str
    fixed: Point = field(default_factory=dict)
    isolation: Mapping[str, Any] = field(default_factory=dict)
    follows: str = ""
    given: Point | None = None

    def at(self, point: Point) -> Method:
        """The method with its settings at ``point``."""
        model, training = (
            {path.removeprefix(section): v for path, v in {**point, **self.fixed}.items() if path.startswith(section)}
            for section in ("model.", "training.")
        )
        isolation = dict(self.isolation) or None
        return Method(
            extends=self.method, role=self.role, about=self.about, model=model, training=training, isolation=isolation
        )


@dataclass(frozen=True)
class Race:
    """Methods on one series. ``space``: the values that each free setting is chosen from, the same for every racer."""

    name: str
    title: str
    reference: str
    racers: tuple[Racer, ...]
    space: Mapping[str, Sequence[Any]]


def points_of(space: Mapping[str, Sequence[Any]], count: int) -> list[Point]:
    """The first ``count`` different points of a scrambled Sobol sequence over ``space``: the same for every racer.

    Fewer if the space has fewer. Sobol's points fill every margin evenly, so that a small budget meets each value.

    Example:
        >>> points_of({"training.steps": [100, 200]}, 5)
        [{'training.steps': 100}, {'training.steps': 200}]
    """
    engine = torch.quasirandom.SobolEngine(len(space), scramble=True, seed=0)  # type: ignore[no-untyped-call]
    found: list[Point] = []
    most = math.prod(len(set(values)) for values in space.values())
    while len(found) < min(count, most):
        (draw,) = engine.draw(1).tolist()
        chosen = zip(space.items(), draw, strict=True)
        point = {path: values[min(int(u * len(values)), len(values) - 1)] for (path, values), u in chosen}
        if point not in found:
            found.append(point)
    return found


@dataclass(frozen=True)
class Tried:
    """A point of the search with its fits, a seed each."""

    point: Point
    runs: Sequence[Run]

    @property
    def error(self) -> float:
        """Median over the seeds of the least validation error, kW; the higher of two middle values."""
        return statistics.median_high(_error(run) for run in self.runs)

    def seconds(self, target: float) -> float:
        """Median over the seeds of the seconds to ``target``; infinite if half of them miss it."""
        return statistics.median_high(seconds_to_target(run, target) for run in self.runs)


class Search:
    """The fits by which every racer finds its settings."""

    def __init__(self, race: Race, view: CompareView, windows: Path, folder: Path, budget: Budget) -> None:
        self._race, self._view, self._windows, self._budget = race, view, windows, budget
        self._folder = folder / "search"
        self._points = points_of(race.space, budget.points)

    def points(self) -> dict[str, Any]:
        """Of every racer the point to be judged and all that was tried; of the reference its most accurate one too."""
        searched = [racer for racer in self._race.racers if racer.given is None and not racer.follows]
        everything = [(racer, k) for racer in searched for k in range(len(self._points))]
        self._fit(everything, SEARCH_SEEDS[:1])
        reference = next(racer for racer in searched if racer.name == self._race.reference)
        accurate = self._again(reference, lambda tried: tried.error)
        target = (1 + TOLERANCE) * accurate.error
        chosen: dict[str, Any] = {ACCURATE: accurate.point}
        log: dict[str, Any] = {}
        for racer in searched:
            chosen[racer.name] = self._again(racer, lambda tried: (tried.seconds(target), tried.error)).point
            log[racer.name] = [
                {"point": dict(one.point), "val_mae": one.error, "seconds": one.runs[0].train_seconds}
                for one in (self._tried(racer, k, SEARCH_SEEDS[:1]) for k in range(len(self._points)))
            ]
        for racer in self._race.racers:
            if racer.given is not None:
                chosen[racer.name] = racer.given
            elif racer.follows:
                chosen[racer.name] = chosen[racer.follows]
        return {"chosen": chosen, "log": log}

    def _again(self, racer: Racer, rank: Any) -> Tried:
        """The best of the finalists of ``racer`` by ``rank``, which is read with one seed, then with all."""
        first = sorted(range(len(self._points)), key=lambda k: rank(self._tried(racer, k, SEARCH_SEEDS[:1])))
        finalists = first[: self._budget.finalists]
        if len(finalists) > 1:
            self._fit([(racer, k) for k in finalists], SEARCH_SEEDS[1:])
        seeds = SEARCH_SEEDS if len(finalists) > 1 else SEARCH_SEEDS[:1]
        return min((self._tried(racer, k, seeds) for k in finalists), key=rank)

    def _fit(self, fits: Sequence[tuple[Racer, int]], seeds: Sequence[int]) -> None:
        methods = {self._name(racer, k): racer.at(self._points[k]) for racer, k in fits}
        run_fits(with_methods(self._view, methods), self._windows, self._folder, seeds=seeds, repeats=0)

    def _tried(self, racer: Racer, k: int, seeds: Sequence[int]) -> Tried:
        name = self._name(racer, k)
        return Tried(self._points[k], [read_run(self._folder / f"{name}-{seed}") for seed in seeds])

    @staticmethod
    def _name(racer: Racer, k: int) -> str:
        return f"{racer.name}.{k:02d}"


def run_race(race: Race, view: CompareView, windows: Path, folder: Path, budget: Budget) -> dict[str, Any]:
    """Search, then judge on fresh seeds; what is there already is not run again. What a page needs, as JSON."""
    tracking = view.tracking.model_copy(update={"study": race.name})
    view = view.model_copy(update={"tracking": tracking})
    found = Search(race, view, windows, folder, budget).points()
    reference = next(racer for racer in race.racers if racer.name == race.reference)
    accurate = Racer(ACCURATE, reference.method, "reference", f"{reference.name} at the settings of its least error",
                     reference.fixed, reference.isolation)  # fmt: skip
    racers = [accurate, *race.racers]
    methods = {f"{racer.name}{CHOSEN}": racer.at(found["chosen"][racer.name]) for racer in racers}
    seeds = range(budget.seeds)
    run_fits(with_methods(view, methods), windows, folder / JUDGED, seeds=list(seeds))
    runs = {r.name: [read_run(folder / JUDGED / f"{r.name}{CHOSEN}-{seed}") for seed in seeds] for r in racers}
    return judged(race, racers, runs, found)


def with_methods(view: CompareView, methods: Mapping[str, Method]) -> CompareView:
    """``view`` whose study consists of ``methods``, which extend those that it knows."""
    compare = view.compare.model_copy(update={"methods": list(methods)})
    return view.model_copy(update={"methods": {**view.methods, **methods}, "compare": compare})


def judged(
    race: Race, racers: Sequence[Racer], runs: Mapping[str, Sequence[Run]], found: Mapping[str, Any]
) -> dict[str, Any]:
    """The race as JSON: a row a racer, with every seed, and its intervals against the reference and its best rival.

    The rival of a tested method is what isolates nothing, or saves nothing by it, and reaches the target first.
    """
    errors = {name: [_error(run) for run in fits] for name, fits in runs.items()}
    target = (1 + TOLERANCE) * statistics.median_high(errors[ACCURATE])
    times = {name: [seconds_to_target(run, target) for run in fits] for name, fits in runs.items()}
    rivals = [racer.name for racer in racers if racer.role != "tested"]
    rival = min(rivals, key=lambda name: (statistics.median_high(times[name]), statistics.median(errors[name])))
    first = runs[ACCURATE][0]
    rows = []
    for racer in racers:
        own, fits = times[racer.name], runs[racer.name]
        row: dict[str, Any] = {
            "name": racer.name,
            "role": racer.role,
            "about": racer.about,
            "point": {**found["chosen"][racer.name], **racer.fixed},
            "to_target": _json(own),
            "reached": sum(math.isfinite(one) for one in own),
            "train_seconds": _json([run.train_seconds for run in fits]),
            "step_ms": _json([1e3 * run.train_seconds / run.steps for run in fits]),
            "val_mae": _json(errors[racer.name]),
            "test_mae": _json([run.test_mae for run in fits]),
            "isolated": _json([run.isolated_fraction for run in fits]),
            "seeds": [
                {"to_target": _finite(t), "val_mae": _finite(e), "train_seconds": run.train_seconds}
                for t, e, run in zip(own, errors[racer.name], fits, strict=True)
            ],
            "error_ratio": _json([a / b for a, b in zip(errors[racer.name], errors[ACCURATE], strict=True)]),
        }
        if racer.name != rival:
            row["speedup"] = _json([speedup(b, a) for a, b in zip(own, times[rival], strict=True)])
            row["better"] = better(own, times[rival])
        rows.append(row)
    drift = [run.machine_seconds for fits in runs.values() for run in fits]
    return {
        "protocol": PROTOCOL,
        "name": race.name,
        "title": race.title,
        "reference": race.reference,
        "rival": rival,
        "target": target,
        "tolerance": TOLERANCE,
        "margin": MARGIN,
        "space": {path: list(dict.fromkeys(values)) for path, values in race.space.items()},
        "points": max((len(log) for log in found["log"].values()), default=0),
        "data": dict(first.data),
        "hardware": dict(first.hardware),
        "commits": sorted({str(run.commit) for fits in runs.values() for run in fits}),
        "date": max(run.finished_at for fits in runs.values() for run in fits)[:10],
        "machine_drift": max(drift) / min(drift),
        "racers": rows,
        "search": found["log"],
    }


def better(own: Sequence[float], rival: Sequence[float]) -> float:
    """Probability that a seed of ``own`` takes fewer seconds than one of ``rival``, over all pairs; ties count half.

    Two that both missed are a tie. Mann and Whitney, Annals of Mathematical Statistics 18 (1947) 50.

    Example:
        >>> better([1.0, 2.0], [2.0, math.inf])
        0.875
    """
    pairs = [(a, b) for a in own for b in rival]
    return sum(1.0 if a < b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)


def profile(times: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Of every racer and seed how many times longer it took than the quickest racer with that seed; infinite: missed.

    Sorted, these are the steps of a performance profile. Dolan and Moré, Mathematical Programming 91 (2002) 201.

    Example:
        >>> profile({"a": [1.0, 4.0], "b": [2.0, 2.0]})
        {'a': [1.0, 2.0], 'b': [1.0, 2.0]}
    """
    quickest = [min(one) for one in zip(*times.values(), strict=True)]
    return {
        name: sorted(t / q if math.isfinite(t) else math.inf for t, q in zip(own, quickest, strict=True))
        for name, own in times.items()
    }


def _error(run: Run) -> float:
    return math.inf if run.diverged else best_validation(run.history)


def _json(values: Sequence[float]) -> dict[str, float | None]:
    return median_interval(values, CONFIDENCE, RESAMPLES).as_json()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
