"""Gradient-boosted trees (Ke et al., LightGBM, NeurIPS 2017) on what the network reads: one model a group of leads."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
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
    blocks,
    fitting_origins,
    known_at_origin,
    known_of_lead,
    last_hours,
    relative,
)
from isotrain.data.windows import Windows, stride_for
from isotrain.errors import InputError

HOURS = 48  # that the plain trees see one by one
PATIENCE = 30  # rounds without a better validation error
SETTINGS: dict[str, Any] = {
    "objective": "l1",
    "num_leaves": 31,  # these were chosen by validation error and time
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


@dataclass(frozen=True)
class Effort:
    """How much is grown, and from how many examples. Strides are prime to 24, so that every hour of day occurs.

    Of many series no more than ``origins`` of the training part are taken, and a fifth as many of the validation part.
    """

    groups: int  # of neighbouring leads, a model each; the lead is a feature, so one may do for all
    stride: int  # hours between two origins of the training part
    checked: int  # and between two of the validation part that stop the boosting
    origins: int  # of the training part, at most
    rounds: int  # trees of a model, at most
    learning_rate: float


EFFORTS = {
    "full": Effort(groups=5, stride=1, checked=7, origins=150_000, rounds=1000, learning_rate=0.06),  # minutes
    "quick": Effort(groups=1, stride=7, checked=35, origins=30_000, rounds=300, learning_rate=0.1),  # seconds
}


def boosting(inputs: Inputs, refit: bool = False, effort: str = "full") -> Baseline:
    """Trees on the inputs now, what is known of the lead, and the lead; ``plain`` reads the last two days besides.

    The number of trees is where the validation error is least; with ``refit`` as many are then grown on the
    training and validation parts together.
    """

    def fit(windows: Windows) -> Fitted:
        chosen = EFFORTS[effort]
        groups = np.array_split(np.arange(windows.meta["horizon"]), min(chosen.groups, windows.meta["horizon"]))
        models = [_grow(windows, leads, inputs, refit, chosen) for leads in groups]
        text = "".join(model.model_to_string() for model in models)
        return _fitted(windows, models, inputs, sum(_leaves(model) for model in models), refit, text.encode())

    return fit


def restored_trees(windows: Windows, content: bytes, inputs: Inputs) -> Fitted:
    """What was fitted, from LightGBM's own text: the models of all groups, one after the other.

    Raises :class:`InputError` where LightGBM is not installed.
    """
    try:
        import lightgbm
    except ImportError:
        raise InputError("the forecaster holds a LightGBM model: install it (pip install lightgbm)") from None
    texts = re.split(r"(?m)^(?=tree$)", content.decode())[1:]  # each begins with this line
    models = [lightgbm.Booster(model_str=text) for text in texts]
    return _fitted(windows, models, inputs)


def _fitted(windows: Windows, models: Sequence[Any], inputs: Inputs, *about: Any) -> Fitted:
    groups = np.array_split(np.arange(windows.meta["horizon"]), len(models))

    def answer(origins: Origins) -> Forecast:
        parts = []
        for block in blocks(origins):
            change = np.empty((len(block), windows.meta["horizon"]))
            for leads, model in zip(groups, models, strict=True):
                table = _table(windows, block, leads, inputs)
                if model.num_feature() > table.shape[1]:  # of many series trained together
                    table = _numbered(windows, block, table)
                change[:, leads] = model.predict(table).reshape(len(leads), -1).T
            parts.append(absolute(windows, change, block))
        return np.concatenate(parts)

    return Fitted(answer, *about)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _grow(windows: Windows, leads: Values, inputs: Inputs, refit: bool, effort: Effort) -> Any:
    import lightgbm  # here, since only these baselines need it

    settings = {"learning_rate": effort.learning_rate, "num_threads": cores(), **SETTINGS}
    seen = fitting_origins(windows, refit=False)
    seen = seen[:: stride_for(len(seen), effort.origins, least=effort.stride)]
    many: dict[str, Any] = {"categorical_feature": [0]} if len(windows.series) > 1 else {}
    train = lightgbm.Dataset(*examples(windows, seen, leads, inputs), **many)
    checked = np.concatenate([np.arange(first, last) for first, last in windows.ranges("validation")])
    checked = checked[:: stride_for(len(checked), effort.origins // 5, least=effort.checked)]
    validation = train.create_valid(*examples(windows, checked, leads, inputs))
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    model = lightgbm.train(settings, train, effort.rounds, valid_sets=[validation], callbacks=[stop])
    if not refit:
        return model
    both = fitting_origins(windows, refit=True)
    both = both[:: stride_for(len(both), effort.origins)]
    everything = lightgbm.Dataset(*examples(windows, both, leads, inputs), **many)
    return lightgbm.train(settings, everything, model.best_iteration)


def examples(windows: Windows, origins: Origins, leads: Values, inputs: Inputs) -> tuple[Values, Values]:
    """Rows (lead by lead) and relative targets, where the truth is known; of many series with the number of each."""
    truth = relative(windows, windows.targets(origins)[:, leads], origins).T.ravel()
    known = ~np.isnan(truth)
    table = _table(windows, origins, leads, inputs)
    if len(windows.series) > 1:
        table = _numbered(windows, origins, table)
    return table[known], truth[known]


def _numbered(windows: Windows, origins: Origins, table: Values) -> Values:
    """``table`` with the number of each row's series as its first column."""
    numbers = np.tile(windows.number_at(origins), len(table) // len(origins))
    return np.hstack([numbers[:, None].astype(np.float32), table])


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
