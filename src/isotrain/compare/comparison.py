"""The accuracy that every method is asked to reach, and the training seconds until it does."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median_high
from typing import Any, Literal

from isotrain.compare.results import Budget, Isolated, Role, Run, Validation
from isotrain.compare.statistics import Interval, median_interval, speedup
from isotrain.errors import InputError


def best_validation(history: Sequence[Validation]) -> float:
    """Smallest validation MAE (kW) of a fit; infinite if it was never validated."""
    return min((validation.val_mae for validation in history), default=math.inf)


def reference_target(runs: Sequence[Run]) -> float | None:
    """Median over ``runs`` of the best validation MAE (kW): the target that the reference sets.

    For an even number the higher of the two middle values is taken: a value that occurred, so that at least
    half of the reference's own seeds reach the target. Diverged fits set no target: their early errors would
    make it trivial; nor do refits, which were trained on the validation part. ``None`` if no run is left.
    """
    best = [best_validation(run.history) for run in runs if run.history and not run.diverged and not run.refit]
    return median_high(best) if best else None


def seconds_to_target(run: Run, target: float) -> float:
    """Training seconds at the first validation at or below ``target``; infinite without one, if diverged or refit.

    Nothing is interpolated: a method is credited only with an error that was measured. The rule is
    AlgoPerf's (mlcommons/algorithmic-efficiency, docs/DOCUMENTATION.md, "Scoring").
    """
    reached = (v.train_seconds for v in run.history if v.val_mae <= target and not run.diverged)
    return min(reached, default=math.inf)


Rival = Literal["kernels", "smaller", "shorter"]


@dataclass(frozen=True)
class Settings:
    """What is compared with what: method names by regime, and how the intervals are made.

    ``against``: the baseline that every forecast is compared with week by week, if it was scored.
    ``coverage``: nominal, of the forecast intervals.
    ``tolerance``: how far above the tuned reference's median best validation error the target lies, as a share of it.
    ``about`` gives each method's sentence for the legend; its order is the order of the tables.
    """

    reference_stock: Mapping[str, str]
    reference_tuned: Mapping[str, str]
    confidence: float = 0.9
    bootstrap: int = 2000
    tolerance: float = 0.0
    against: str | None = None
    coverage: float = 0.8
    about: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """All the seeds of one method."""

    name: str
    regime: str
    runs: tuple[Run, ...]
    to_target: Mapping[int, float]  # seed -> training seconds, infinite where missed

    @property
    def role(self) -> Role:
        """Reference, control or tested, as its fits recorded it."""
        return self.runs[0].role

    @property
    def isolation(self) -> Isolated | None:
        """What its settings isolate."""
        return self.runs[0].isolation

    @property
    def budget(self) -> Budget | None:
        """What limited it, if it is a control that may cost no more than another method."""
        return self.runs[0].budget

    @property
    def task(self) -> dict[str, Any]:
        """Its settings of the network and of its training: what a change of the runtime alone leaves as it is."""
        return {k: v for k, v in self.runs[0].params.items() if k.startswith(("model.", "training."))}

    @property
    def seeds(self) -> list[int]:
        """The seeds, ascending."""
        return [run.seed for run in self.runs]

    @property
    def refit(self) -> bool:
        """Whether it was trained on the validation part too: then it has no validation error, no time to a target."""
        return any(run.refit for run in self.runs)

    @property
    def finished(self) -> list[Run]:
        """The fits that did not diverge."""
        return [run for run in self.runs if not run.diverged]

    @property
    def isolates(self) -> bool:
        """Whether anything was left out of its training."""
        return any(run.isolated_fraction > 0 for run in self.runs)


@dataclass(frozen=True)
class Comparison:
    """Every method beside every other, in the order of ``settings.about``, then by name."""

    runs: Sequence[Run]
    settings: Settings

    @cached_property
    def methods(self) -> list[Method]:
        """One entry a method."""
        order = list(self.settings.about)
        names = {run.method for run in self.runs}
        ranked = sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name))
        return [self._method(name) for name in ranked]

    @cached_property
    def targets(self) -> dict[str, float | None]:
        """Regime -> validation MAE (kW) to be reached; ``None`` where the tuned reference sets none."""
        regimes = sorted({run.regime for run in self.runs})
        return {regime: self._target(regime) for regime in regimes}

    def find(self, name: str | None) -> Method | None:
        """The method called ``name``, if it was run."""
        return next((method for method in self.methods if method.name == name), None)

    def stock(self, regime: str) -> Method | None:
        """The stock reference of ``regime``, if it was run."""
        return self.find(self.settings.reference_stock.get(regime))

    def tuned(self, regime: str) -> Method | None:
        """The tuned reference of ``regime``, if it was run."""
        return self.find(self.settings.reference_tuned.get(regime))

    def isolated(self) -> list[Method]:
        """The methods under test that isolate something; a method that times are compared with is none of them."""
        references = {*self.settings.reference_stock.values(), *self.settings.reference_tuned.values()}
        return [m for m in self.methods if m.role == "tested" and m.isolates and m.name not in references]

    def masked(self) -> list[Method]:
        """The controls that compute every gradient and then drop some."""
        controls = [m for m in self.methods if m.role == "control"]
        return [m for m in controls if m.isolation is not None and m.isolation.mode == "masked"]

    def rivals(self, regime: str) -> list[tuple[Rival, Method]]:
        """The controls of ``regime`` that isolate nothing and could be as fast as a method that isolates.

        ``smaller`` and ``shorter``: limited by a budget for a step, or for the whole training. ``kernels``: the
        network and the training of the tuned reference, computed by our kernels.
        """
        tuned, found = self.tuned(regime), list[tuple[Rival, Method]]()
        for method in self.methods:
            if method.regime != regime or method.role != "control" or method.isolation is not None:
                continue
            if method.budget is not None:
                found.append(("smaller" if method.budget.kind == "step" else "shorter", method))
            elif tuned is not None and method.task == tuned.task:
                found.append(("kernels", method))
        return found

    def figure(self, method: Method, value: Callable[[Run], float]) -> Interval:
        """Median and interval over ``method``'s seeds of ``value`` of a run."""
        return self.interval([value(run) for run in method.runs])

    def seconds_to_target(self, method: Method) -> Interval | None:
        """Training seconds until the target of the regime; ``None`` without a target, or for a refit."""
        if method.refit or not self.targets[method.regime]:
            return None
        return self.interval(list(method.to_target.values()))

    def speedup(self, method: Method, reference: Method | None) -> Interval | None:
        """How many times sooner than ``reference`` the target is reached, paired by seed; -inf: never.

        ``None`` without another method as reference, one of the same regime, a target or a common seed, and for a
        refit: no method is compared with itself.
        """
        if reference is None or reference.name == method.name or reference.regime != method.regime:
            return None
        if method.refit or reference.refit or self.targets[method.regime] is None:
            return None
        common = [seed for seed in method.seeds if seed in reference.to_target]
        ratios = [speedup(reference.to_target[seed], method.to_target[seed]) for seed in common]
        return self.interval(ratios) if ratios else None

    def interval(self, values: Sequence[float]) -> Interval:
        """Median of ``values``, one a seed, with the interval that the settings ask for."""
        return median_interval(values, self.settings.confidence, self.settings.bootstrap)

    def _target(self, regime: str) -> float | None:
        name = self.settings.reference_tuned.get(regime)
        best = reference_target([run for run in self.runs if run.method == name and run.regime == regime])
        return None if best is None else best * (1 + self.settings.tolerance)

    def _method(self, name: str) -> Method:
        runs = tuple(sorted((run for run in self.runs if run.method == name), key=lambda run: run.seed))
        regimes = {run.regime for run in runs}
        if len(regimes) > 1:
            raise InputError(f"{name} was fitted in two regimes: give each its own name and run `dvc repro train`")
        target = self.targets[runs[0].regime]
        goal = float("-inf") if target is None else target
        return Method(name, runs[0].regime, runs, {run.seed: seconds_to_target(run, goal) for run in runs})
