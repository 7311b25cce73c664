"""Linear forecasts in closed form: ridge regression, and an echo-state network with a linear readout.

One set of normal equations a lead; the penalty is chosen on validation. Shapes: m origins, K leads, P columns known at
an origin, Q columns of one lead.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, fields

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
    each,
    fitting_origins,
    known_at_origin,
    known_of_lead,
    last_hours,
    relative,
)
from isotrain.baselines.naive import hour_of_week
from isotrain.data.windows import LEVEL_HOURS, Windows

PENALTIES = (1.0, 10.0, 100.0, 1000.0)


@dataclass(frozen=True)
class Design:
    """What a linear forecast reads: (m, P) columns that all leads share, and (m, Q) columns of one lead."""

    shared: Callable[[Origins], Values]
    of_lead: Callable[[Origins, int], Values]


@dataclass(frozen=True)
class Equations:
    """The normal equations of all leads, X'X and X'y, in blocks: S the shared columns, L those of a lead."""

    corner: Values  # (P, P), S'S
    sides: Values  # (P, K, Q), S'L
    own: Values  # (K, Q, Q), L'L
    shared_y: Values  # (P, K), S'y
    own_y: Values  # (K, Q), L'y

    def __add__(self, other: "Equations") -> "Equations":
        return Equations(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Equations)))


def ridge(inputs: Inputs, refit: bool = False) -> Baseline:
    """Ridge regression of every lead on the last week, the local hour of the week and the columns of ``inputs``.

    Each series by itself.
    """

    def fit(windows: Windows) -> Fitted:
        return linear(windows, _ridge_design(windows, inputs), refit)

    return each(fit)


def restored_ridge(windows: Windows, content: bytes, inputs: Inputs) -> Fitted:
    """What was fitted on the one series of ``windows``, from its coefficients.

    They are an array ``weights`` (K, P + Q) in the form of ``np.savez``, or ``NAME/weights`` for each of many series.
    """
    with np.load(io.BytesIO(content)) as arrays:
        weights = arrays["weights" if "weights" in arrays else f"{windows.series[0]['name']}/weights"]
    design = _ridge_design(windows, inputs)
    return Fitted(lambda origins: forecast(windows, design, weights, origins), weights.size)


def _ridge_design(windows: Windows, inputs: Inputs) -> Design:
    hour = hour_of_week(windows)
    week = np.eye(LEVEL_HOURS, dtype=np.float32)
    return Design(
        lambda o: np.hstack([last_hours(windows, o, LEVEL_HOURS), week[hour[o]], known_at_origin(windows, o, inputs)]),
        lambda o, lead: known_of_lead(windows, o, lead, inputs),
    )


def linear(windows: Windows, design: Design, refit: bool) -> Fitted:
    """The ridge regression on ``design`` whose penalty, one of :data:`PENALTIES`, has the least validation MAE;
    the strongest where no hour of the validation part is known.

    With ``refit`` that penalty is then used on the training and validation parts together.
    """
    validation = windows.origins("validation")
    truth = windows.targets(validation)
    equations = normal_equations(windows, design, fitting_origins(windows, refit=False))

    def error(penalty: float) -> float:
        answer = forecast(windows, design, solve(equations, penalty), validation)
        return float(np.nanmean(np.abs(answer - truth)))

    penalty = min(PENALTIES, key=error) if np.isfinite(truth).any() else PENALTIES[-1]
    if refit:
        equations = normal_equations(windows, design, fitting_origins(windows, refit=True))
    weights = solve(equations, penalty)
    np.savez(content := io.BytesIO(), weights=weights)
    return Fitted(lambda origins: forecast(windows, design, weights, origins), weights.size, refit, content.getvalue())


def normal_equations(windows: Windows, design: Design, origins: Origins) -> Equations:
    """Sums over the ``origins`` whose targets are all known, float64."""
    known = origins[~np.isnan(windows.targets(origins)).any(1)]
    leads = range(windows.meta["horizon"])
    sums = Equations(*(np.zeros(()) for _ in fields(Equations)))
    for block in blocks(known):
        y = relative(windows, windows.targets(block), block).astype(np.float64)
        shared = design.shared(block).astype(np.float64)
        own = np.stack([design.of_lead(block, k) for k in leads], axis=1).astype(np.float64)
        sums = sums + Equations(
            corner=shared.T @ shared,
            sides=(shared.T @ own.reshape(len(block), -1)).reshape(-1, *own.shape[1:]),
            own=np.stack([own[:, k].T @ own[:, k] for k in leads]),
            shared_y=shared.T @ y,
            own_y=np.stack([own[:, k].T @ y[:, k] for k in leads]),
        )
    return sums


def solve(equations: Equations, penalty: float) -> Values:
    """Weights (K, P + Q): the shared columns are eliminated once for all leads, then each lead's own are solved for."""
    e = equations
    p, leads, q = e.sides.shape
    z = np.linalg.solve(e.corner + penalty * np.eye(p), np.hstack([e.shared_y, e.sides.reshape(p, -1)]))
    of_y, of_sides = z[:, :leads], z[:, leads:].reshape(e.sides.shape)
    weights = np.empty((leads, p + q))
    for k in range(leads):
        left = e.own[k] + penalty * np.eye(q) - e.sides[:, k].T @ of_sides[:, k]
        own = np.linalg.solve(left, e.own_y[k] - e.sides[:, k].T @ of_y[:, k])
        weights[k] = np.concatenate([of_y[:, k] - of_sides[:, k] @ own, own])
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


UNITS = 300
RADIUS = 0.9  # of the recurrent matrix' spectrum: below 1, so that the past fades
LEAK = 0.3  # share of a state that an hour renews
GAIN = 0.3  # size of the input weights
SEED = 2001


def echo_state(refit: bool = False) -> Baseline:
    """A fixed random recurrent network over the plain inputs, of which the linear readout alone is fitted.

    The readout sees what is known of each lead besides. Jaeger, "The 'echo state' approach to analysing and training
    recurrent neural networks" (GMD report 148, 2001); leaky units as in Jaeger et al., Neural Networks 20 (2007).
    """

    def fit(windows: Windows) -> Fitted:
        states = reservoir(windows.inputs[:, windows.columns("inputs", "plain")])
        design = Design(
            lambda origins: np.insert(states[origins - 1], 0, 1.0, axis=1),  # and a constant
            lambda origins, lead: known_of_lead(windows, origins, lead, "plain"),
        )
        return linear(windows, design, refit)

    return each(fit)


def reservoir(inputs: Values, units: int = UNITS) -> Values:
    """States (n, units) after each hour of ``inputs`` (n, F), from a zero state: row t has seen hours <= t."""
    rng = np.random.default_rng(SEED)
    recurrent = rng.standard_normal((units, units))
    recurrent *= RADIUS / np.abs(np.linalg.eigvals(recurrent)).max()
    drive = inputs.astype(np.float64) @ rng.uniform(-GAIN, GAIN, (inputs.shape[1], units))
    states, state = np.empty((len(inputs), units), np.float32), np.zeros(units)
    for hour, pushed in enumerate(drive):
        state = (1 - LEAK) * state + LEAK * np.tanh(pushed + recurrent @ state)
        states[hour] = state
    return states
