"""What a condition could gain if matrix products were all that costs time.

Counted are the multiply-adds of the LSTM's matrix products for one time step of one sequence. A layer with D inputs
and H units, A of them active and Z isolated (H = A + Z, a = A / H), of T time steps with a gradient in the last
k (s = k / T):

=========  ===================  ==============  =================  ===================  =============
product    full                 exact           cut                autonomous           ... remembered
=========  ===================  ==============  =================  ===================  =============
forward    4H (D + H)           4H (D + H)      4H (D + H)         4A (D + H)           4A (D + H)
                                                                   + 4Z (D' + Z)
weights    4H (D + H)           4A (D + H)      4A (D + H)         4A (D + H)           4A (D + H)
states     4H H                 4H H            4A A               4A A                 4A A
inputs     4H D                 4H D            4A D''             4A D''               4A D''
=========  ===================  ==============  =================  ===================  =============

D' are the inputs that an autonomous zone sees: the network's own, or the isolated units below. D'' are the inputs
that need a gradient: the active units below. The gradient of the inputs is computed only where a layer below trains
(the network's own inputs need none). ``steps`` multiplies the three backward products by s. Without credit through
the recurrent weights (``credit`` cell or none) there is no product "states"; credit none leaves one step of a window
with a gradient, s = 1 / T. With ``at_origins`` the k steps before each of M origins (k = 1 without credit) are run once
more and alone have a backward: s = k M / T, and s more of the forward. An isolated layer has no product "weights"; with
no training layer below it has no backward at all; remembered, no forward either.

With one layer and D << H, in units of 4HH: full 3, exact 2 + a, cut 1 + a + a², autonomous
(1 - a)² + 2a + a² = 1 + 2a², remembered 2a + a², steps 1 + 2s, credit cell 2, none 1 + 1 / T. Two layers, the lower one
isolated: 9 units fall to 1 + (2 + 2 + 1) = 6, remembered to 5.

Not counted: elementwise work, the head, the optimiser, drawing the batch, packing. They do not shrink alike, so a
share of the limit below 1 is expected; above 1 is possible where smaller operands fit a cache.
"""

from benchmarks.lstm.conditions import INPUTS, Condition, Shape, origins


def products(shape: Shape, condition: Condition, inputs: int = INPUTS) -> float:
    """Multiply-adds of one time step of one sequence, averaged over the time steps."""
    return sum(_layer(shape, condition, inputs, layer) for layer in range(shape.layers))


def limit(shape: Shape, condition: Condition, inputs: int = INPUTS) -> float:
    """How many times faster than with nothing isolated the count of products allows a step to be."""
    return products(shape, Condition("full", "full"), inputs) / products(shape, condition, inputs)


def _layer(shape: Shape, condition: Condition, inputs: int, layer: int) -> float:
    hidden, isolated = shape.hidden, condition.isolated_units(shape.hidden)
    width = inputs if layer == 0 else hidden
    whole = 4 * hidden * (width + hidden)
    if condition.lower and layer < shape.layers - 1:
        return 0 if condition.memory else whole
    active = hidden - isolated
    forward: float = whole
    rows = 4 * active * (width + hidden)
    if isolated and condition.mode == "autonomous":
        seen = inputs if layer == 0 else isolated
        forward = rows + (0 if condition.memory else 4 * isolated * (seen + isolated))
    through = hidden if condition.mode == "exact" else active  # units that the gradient passes through
    needed = 0 if layer == 0 or condition.lower else through  # inputs that need a gradient
    with_gradient = 1.0 if condition.steps is None else min(condition.steps / shape.length, 1.0)
    earlier = through if condition.credit == "full" else 0  # states that need a gradient
    if condition.credit == "none" and not condition.at_origins:
        with_gradient = 1 / shape.length  # the loss reads the last state, and no earlier step gets a gradient
    if condition.at_origins:
        with_gradient = (condition.steps or 1) * len(origins(shape.length)) / shape.length
        forward += with_gradient * forward
    return forward + with_gradient * (rows + 4 * through * (earlier + needed))
