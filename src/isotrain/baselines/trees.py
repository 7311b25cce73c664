"""Gradient-boosted trees (Ke et al., LightGBM, NeurIPS 2017) on what the network reads: one model a group of leads."""

import os
from typing import Any

import numpy as np

from isotrain.baselines.fitted import (
    Baseline,
    Fitted,
    Forecast,
    Inputs,
    Origins,
    Values,
    absolute,
    fitting_origins,
    known_at_origin,
    known_of_lead,
    last_hours,
    relative,
)
from isotrain.data.windows import Windows

HOURS = 48  # that the plain trees see one by one
GROUPS = 5  # of neighbouring leads
ROUNDS = 1000  # at most
PATIENCE = 30  # rounds without a better validation error
STRIDE = 7  # hours between the validation origins that stop the boosting: prime to 24, so every hour of day occurs
SETTINGS: dict[str, Any] = {
    "objective": "l1",
    "learning_rate": 0.06,  # these were chosen by validation error and time
    "num_leaves": 31,
    "max_bin": 63,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.4,
    "bagging_fraction": 0.5,
    "bagging_freq": 1,
    "seed": 0,
    "deterministic": True,
    "force_row_wise": True,  # else timed and chosen anew in each run
    "verbosity": -1,
}


def boosting(inputs: Inputs, refit: bool = False) -> Baseline:
    """Trees on the inputs now, what is known of the lead, and the lead; ``plain`` reads the last two days besides.

    The number of trees is where the validation error is least; with ``refit`` as many are then grown on the
    training and validation parts together.
    """

    def fit(windows: Windows) -> Fitted:
        groups = np.array_split(np.arange(windows.meta["horizon"]), min(GROUPS, windows.meta["horizon"]))
        models = [_grow(windows, leads, inputs, refit) for leads in groups]

        def answer(origins: Origins) -> Forecast:
            change = np.empty((len(origins), windows.meta["horizon"]))
            for leads, model in zip(groups, models, strict=True):
                change[:, leads] = model.predict(_table(windows, origins, leads, inputs)).reshape(len(leads), -1).T
            return absolute(windows, change, origins)

        return Fitted(answer, sum(_leaves(model) for model in models), refit)

    return fit


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _grow(windows: Windows, leads: Values, inputs: Inputs, refit: bool) -> Any:
    import lightgbm  # here, since only these baselines need it

    settings = SETTINGS | {"num_threads": cores()}
    train = lightgbm.Dataset(*_examples(windows, fitting_origins(windows, refit=False), leads, inputs))
    first, last = windows.meta["origins"]["validation"]
    validation = train.create_valid(*_examples(windows, np.arange(first, last, STRIDE), leads, inputs))
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    model = lightgbm.train(settings, train, ROUNDS, valid_sets=[validation], callbacks=[stop])
    if not refit:
        return model
    everything = lightgbm.Dataset(*_examples(windows, fitting_origins(windows, refit=True), leads, inputs))
    return lightgbm.train(settings, everything, model.best_iteration)


def _examples(windows: Windows, origins: Origins, leads: Values, inputs: Inputs) -> tuple[Values, Values]:
    """Rows (lead by lead) and relative targets, where the truth is known."""
    truth = relative(windows, windows.targets(origins)[:, leads], origins).T.ravel()
    known = ~np.isnan(truth)
    return _table(windows, origins, leads, inputs)[known], truth[known]


def _table(windows: Windows, origins: Origins, leads: Values, inputs: Inputs) -> Values:
    """(leads * m, columns): all origins of the first lead, then of the next."""
    now = known_at_origin(windows, origins, inputs)
    if inputs == "plain":
        now = np.hstack([last_hours(windows, origins, HOURS), now])
    rows = [np.hstack([now, known_of_lead(windows, origins, int(k), inputs), np.full((len(now), 1), k)]) for k in leads]
    return np.vstack(rows, dtype=np.float32)


def _leaves(model: Any) -> int:
    """Leaf values and split points of all trees: what was fitted."""
    trees = model.dump_model()["tree_info"][: model.best_iteration or None]
    return sum(2 * tree["num_leaves"] - 1 for tree in trees)
