"""How much each parameter matters for each objective, beside what chance alone would reach."""

import warnings
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial

from isotrain.tradeoff.searched import Importance

FEWEST = 20  # trials below which nothing is said
BEST = 0.25  # share of the trials that are told apart from all: with Optuna's own tenth too few of some forty
SHUFFLES = 20
SEED = 20260


def importances(study: optuna.Study, trials: Sequence[FrozenTrial], names: Sequence[str]) -> tuple[Importance, ...]:
    """One for each objective in ``names``, of the ``trials`` that count; none with fewer than 20 of them.

    Conditional PED-ANOVA (Watanabe, Bansal and Hutter, IJCAI 2023; its conditional form is what Optuna computes):
    how unlike the distribution of a parameter is among the best quarter of the trials to that among all of them.
    Shares of all parameters sum to 1. ``chance``, in the same unit, is the largest of 20 draws in which the values
    were dealt out anew: a parameter that does not exceed it may as well not matter.
    """
    if len(trials) < FEWEST:
        return ()
    return tuple(_importance(study, trials, name, at) for at, name in enumerate(names))


def _importance(study: optuna.Study, trials: Sequence[FrozenTrial], name: str, at: int) -> Importance:
    values = np.array([trial.values[at] for trial in trials])
    numbers, random = [trial.number for trial in trials], np.random.default_rng(SEED)
    found = _divergences(study, dict(zip(numbers, values, strict=True)))
    draws = [_divergences(study, dict(zip(numbers, random.permutation(values), strict=True))) for _ in range(SHUFFLES)]
    whole = sum(found.values()) or 1.0
    share = {path: value / whole for path, value in found.items()}
    return Importance(name, len(trials), share, {path: max(draw[path] for draw in draws) / whole for path in share})


def _divergences(study: optuna.Study, values: dict[int, float]) -> dict[str, float]:
    """Parameter -> how far apart its two distributions are; a trial without one of ``values`` is left out."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*to achieve low `target`")  # low is good here
        warnings.simplefilter("ignore", ExperimentalWarning)  # of normalize
        return get_param_importances(
            study,
            evaluator=PedAnovaImportanceEvaluator(target_quantile=BEST),
            target=lambda trial: values.get(trial.number, float("nan")),
            normalize=False,
        )
