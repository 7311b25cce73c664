"""The accuracy that every method is asked to reach, and the training seconds until it does."""

import math
from collections.abc import Sequence
from statistics import median_high

from isotrain.tradeoff.results import Run, Validation


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
