"""An echo-state network: a fixed random recurrent network that only its linear readout is fitted for.

Jaeger, "The 'echo state' approach to analysing and training recurrent neural networks" (GMD report 148, 2001);
leaky units as in Jaeger et al., Neural Networks 20 (2007).
"""

import numpy as np

from isotrain.data.windows import Windows
from isotrain.forecast.baselines.fitted import Baseline, Fitted, Values, known_of_lead
from isotrain.forecast.baselines.linear import Design, linear

UNITS = 300
RADIUS = 0.9  # of the recurrent matrix' spectrum: below 1, so that the past fades
LEAK = 0.3  # share of a state that an hour renews
GAIN = 0.3  # size of the input weights
SEED = 2001


def echo_state(refit: bool = False) -> Baseline:
    """A reservoir over the plain inputs, read out linearly beside what is known of each lead."""

    def fit(windows: Windows) -> Fitted:
        states = reservoir(windows.inputs[:, windows.columns("inputs", "plain")])
        design = Design(
            lambda origins: np.insert(states[origins - 1], 0, 1.0, axis=1),  # and a constant
            lambda origins, lead: known_of_lead(windows, origins, lead, "plain"),
        )
        return linear(windows, design, refit)

    return fit


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
