"""Forecasts that need no network, on the same origins: what a trained network must beat.

In: :class:`~isotrain.data.windows.Windows`. Out: a forecast function (origins to kW), its score and its forecasts.
A baseline is a function of the windows that returns its forecast function; :data:`BASELINES` names them. A name that
ends in ``-refit`` is fitted on the training and the validation part together, once everything is chosen. Open
``fitted.py`` first, then ``naive.py``, ``linear.py`` (ridge, echo state) and ``trees.py`` (LightGBM).
"""

from collections.abc import Callable
from functools import partial

from isotrain.baselines.fitted import Baseline, Fitted, Score, score
from isotrain.baselines.linear import echo_state, restored_ridge, ridge
from isotrain.baselines.naive import same_day_type, same_hour
from isotrain.baselines.trees import boosting, restored_trees
from isotrain.data.windows import Windows

BASELINES: dict[str, Baseline] = {
    "same-hour-yesterday": same_hour(1),
    "same-hour-last-week": same_hour(7),
    "same-day-type": same_day_type,
    "ridge": ridge("plain"),
    "ridge-refit": ridge("plain", refit=True),
    "ridge-rich": ridge("rich"),
    "ridge-rich-refit": ridge("rich", refit=True),
    "echo-state": echo_state(),
    "echo-state-refit": echo_state(refit=True),
    "lightgbm": boosting("plain"),
    "lightgbm-refit": boosting("plain", refit=True),
    "lightgbm-rich": boosting("rich"),
    "lightgbm-rich-refit": boosting("rich", refit=True),
    "lightgbm-quick": boosting("rich", effort="quick"),
}

RESTORED: dict[str, Callable[[Windows, bytes], Fitted]] = {
    "ridge": partial(restored_ridge, inputs="plain"),
    "ridge-rich": partial(restored_ridge, inputs="rich"),
    "lightgbm": partial(restored_trees, inputs="plain"),
    "lightgbm-rich": partial(restored_trees, inputs="rich"),
    "lightgbm-quick": partial(restored_trees, inputs="rich"),
}
"""Those that can be published: the forecast function from the windows of new data and :attr:`Fitted.file`."""


def file_of(name: str) -> str:
    """The file that keeps what was fitted of ``name``, one of :data:`RESTORED`: LightGBM's text, or numpy's arrays."""
    return f"{name}.txt" if name.startswith("lightgbm") else f"{name}.npz"


__all__ = ["BASELINES", "RESTORED", "Baseline", "Fitted", "Score", "file_of", "score"]
