"""Linear forecasts in closed form: one set of normal equations a lead, the penalty chosen on validation.

Legend: m origins, K leads, P columns known at an origin, Q columns of one lead.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from isotrain.data.windows import LEVEL_HOURS, Windows
from isotrain.forecast.baselines.fitted import (
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
    last_week,
    relative,
)
from isotrain.forecast.baselines.naive import hour_of_week

PENALTIES = (1.0, 10.0, 100.0, 1000.0)


@dataclass(frozen=True)
class Design:
    """What a linear forecast reads: (m, P) columns that all leads share, and (m, Q) columns of one lead."""

    shared: Callable[[Origins], Values]
    of_lead: Callable[[Origins, int], Values]


def ridge(inputs: Inputs, refit: bool = False) -> Baseline:
    """Ridge regression of every lead on the last week, the local hour of the week and the columns of ``inputs``."""

    def fit(windows: Windows) -> Fitted:
        hour = hour_of_week(windows)
        week = np.eye(LEVEL_HOURS, dtype=np.float32)
        return linear(
            windows,
            Design(
                lambda o: np.hstack([last_week(windows, o), week[hour[o]], known_at_origin(windows, o, inputs)]),
                lambda o, lead: known_of_lead(windows, o, lead, inputs),
            ),
            refit,
        )

    return fit


def linear(windows: Windows, design: Design, refit: bool) -> Fitted:
    """The ridge regression on ``design`` whose penalty, one of :data:`PENALTIES`, has the least validation MAE.

    With ``refit`` that penalty is then used on the training and validation parts together.
    """
    validation = windows.origins("validation")
    truth = windows.targets(validation)
    equations = normal_equations(windows, design, fitting_origins(windows, refit=False))

    def error(penalty: float) -> float:
        answer = forecast(windows, design, solve(equations, penalty), validation)
        return float(np.nanmean(np.abs(answer - truth)))

    penalty = min(PENALTIES, key=error)
    if refit:
        equations = normal_equations(windows, design, fitting_origins(windows, refit=True))
    weights = solve(equations, penalty)
    return Fitted(lambda origins: forecast(windows, design, weights, origins), weights.size, refit)


def normal_equations(windows: Windows, design: Design, origins: Origins) -> tuple[Values, Values]:
    """X'X (K, P + Q, P + Q) and X'y (K, P + Q) over the ``origins`` whose targets are all known, float64."""
    known = origins[~np.isnan(windows.targets(origins)).any(1)]
    leads = range(windows.meta["horizon"])
    gram, cross = np.zeros(()), np.zeros(())
    for block in blocks(known):
        y = relative(windows, windows.targets(block), block).astype(np.float64)
        shared = design.shared(block).astype(np.float64)
        lead = [design.of_lead(block, k).astype(np.float64) for k in leads]
        corner = shared.T @ shared  # the same for every lead: computed once
        sides = [shared.T @ x for x in lead]
        gram = gram + np.stack([np.block([[corner, s], [s.T, x.T @ x]]) for s, x in zip(sides, lead, strict=True)])
        cross = cross + np.stack([np.concatenate([shared.T @ y[:, k], lead[k].T @ y[:, k]]) for k in leads])
    return gram, cross


def solve(equations: tuple[Values, Values], penalty: float) -> Values:
    """Weights (K, P + Q)."""
    gram, cross = equations
    weights: Values = np.linalg.solve(gram + penalty * np.eye(gram.shape[-1]), cross[..., None])[..., 0]
    return weights


def forecast(windows: Windows, design: Design, weights: Values, origins: Origins) -> Forecast:
    """(m, K) kW."""
    parts = []
    for block in blocks(origins):
        shared = design.shared(block)
        change = shared @ weights[:, : shared.shape[1]].T
        for k, own in enumerate(weights[:, shared.shape[1] :]):
            change[:, k] += design.of_lead(block, k) @ own
        parts.append(absolute(windows, change, block))
    return np.concatenate(parts)
