"""The LSTM's gradient written out: one layer in plain PyTorch, its backward derived by hand, no autograd inside.

Slow and exact: faster implementations are held to this one. The mathematics follows two documents, here called *the
internship* (its equations 1 to 6 are the forward pass) and *the compte-rendu* (its 6.1 to 6.6 are the backward pass).
They name the gates differently. Rows of the weights, in PyTorch's order, with the nonlinearity that each prints:

    =======  ==============================  =================================  ==================================
    rows     role                            internship                         compte-rendu
    =======  ==============================  =================================  ==================================
    0 - H    input gate, here ``i``          i, sigma (2): Wxi, Whi, bi         g, sigma ("input gate"): W_g
    H - 2H   forget gate, here ``f``         f, sigma (1): Wxf, Whf, bf         none: f = 1, S only adds up
    2H - 3H  candidate, here ``g``           g, **sigma** (5): Wxc, Whc, bc     i, tanh: W_i
    3H - 4H  output gate, here ``o``         o, **tanh** (3): Wxo, Who, bo      o, sigma: W_o
    -        cell state, here ``c``          c (4)                              S
    -        its tanh, here ``l``            tanh(c) in (6)                     l
    -        output, here ``h``              h (6)                              H
    =======  ==============================  =================================  ==================================

So the compte-rendu is the standard LSTM (with i and g exchanged in name only, no forget gate and no biases), and the
internship as printed is another network: its o and g have each other's nonlinearity (bold). ``gates="standard"`` is
``torch.nn.LSTM``; ``gates="as_printed"`` is the internship to the letter. The softmax of (6) belongs to the loss and
the update (6.6) to the optimiser. docs/lstm-gradient.md sets the equations out.

Names below: T steps, B sequences, I inputs, H hidden units; ``dv`` is the gradient of the loss J with respect to v;
``sums`` (…, 4, H) are the arguments of the nonlinearities and ``values`` (…, 4, H) their results, gates i, f, g, o.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from isotrain.errors import InputError
from isotrain.lstm.plan import CREDITS, MODES, Plan

Gates = Literal["standard", "as_printed"]
_EVERYTHING = Plan()


def lstm_layer(
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    plan: Plan = _EVERYTHING,
    gates: Gates = "standard",
) -> tuple[Tensor, Tensor, Tensor]:
    """One LSTM layer whose backward leaves out what ``plan`` isolates.

    Args:
        x: (T, B, I) inputs, T at least 1.
        h0: (B, H) output before the first step; ``c0`` (B, H) the cell state there.
        weight_ih: (4H, I); ``weight_hh`` (4H, H); ``bias_ih`` and ``bias_hh`` (4H,). All seven tensors share one
            device and one floating dtype, in which everything is computed, under autocast too.
        plan: see :class:`isotrain.lstm.plan.Plan`. Rows of isolated units get a weight gradient of zero, not None.
        gates: which nonlinearities; see the top of this file.

    Returns:
        The outputs (T, B, H), the last output (B, H) and the last cell state (B, H).

    Raises :class:`InputError` for shapes, dtypes, a plan or gates that do not fit. Differentiable once.
    """
    tensors = (x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh)
    _check(tensors, plan, gates)
    with torch.autocast(x.device.type, enabled=False):
        y, h, c = _Layer.apply(*tensors, plan, gates)
    return y, h, c


# Forward: the internship's equations ------------------------------------------------------------------------------


def gate_values(sums: Tensor, gates: Gates) -> Tensor:
    """Nonlinearities of (1), (2), (3), (5): sums (…, 4, H) to values (…, 4, H)."""
    i, f, g, o = sums.unbind(-2)
    if gates == "standard":
        return torch.stack((i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()), -2)
    return torch.stack((i.sigmoid(), f.sigmoid(), g.sigmoid(), o.tanh()), -2)


def gate_slopes(values: Tensor, gates: Gates) -> Tensor:
    """Derivatives of the nonlinearities at values (…, 4, H): the F' of (6.2), sigma' = s (1 - s), tanh' = 1 - t^2."""
    i, f, g, o = values.unbind(-2)
    if gates == "standard":
        return torch.stack((i * (1 - i), f * (1 - f), 1 - g * g, o * (1 - o)), -2)
    return torch.stack((i * (1 - i), f * (1 - f), g * (1 - g), 1 - o * o), -2)


def step_forward(sums: Tensor, c_before: Tensor, gates: Gates) -> tuple[Tensor, Tensor, Tensor]:
    """One step: sums (B, 4, H) and c(t-1) (B, H) to values (B, 4, H), c(t) and h(t) (B, H)."""
    values = gate_values(sums, gates)
    i, f, g, o = values.unbind(-2)
    c = f * c_before + i * g  # (4)
    h = o * c.tanh()  # (6)
    return values, c, h


# Backward: the compte-rendu's equations, with the forget gate that it leaves out ----------------------------------


def step_backward(
    dh: Tensor, dc_after: Tensor, values: Tensor, c_before: Tensor, c: Tensor, gates: Gates
) -> tuple[Tensor, Tensor]:
    """One step back.

    Args:
        dh: (B, H) all that arrives at h(t): from the loss, and from the gates of t+1.
        dc_after: (B, H) what step t+1 sends along the cell state, the epsilon_S(t) of (6.1).
        values: (B, 4, H); ``c_before`` and ``c`` (B, H), the cell states before and after the step.

    Returns:
        dsums (B, 4, H), and what goes on along the cell state to step t-1 (B, H).
    """
    i, f, g, o = values.unbind(-2)
    l = c.tanh()  # noqa: E741 - the compte-rendu's name
    dc = dc_after + (1 - l * l) * o * dh  # (6.1)
    di, df, dg, do = g * dc, c_before * dc, i * dc, l * dh  # the brackets of (6.5), no counterpart, (6.4), (6.3)
    dsums = gate_slopes(values, gates) * torch.stack((di, df, dg, do), -2)
    return dsums, f * dc  # the epsilon_S(t-1) of (6.1), where f = 1


def weight_gradient(dsums: Tensor, inputs: Tensor, units: Tensor | None) -> Tensor:
    """(4H, N) gradient of a weight matrix: (6.3) to (6.5), transposed, summed over steps and sequences.

    Args:
        dsums: (S, B, 4, H) of S steps; ``inputs`` (S, B, N) what the matrix multiplied in them.
        units: indices of the units whose rows are computed, None: all; those of the others are 0.
    """
    if units is None:
        return torch.tensordot(dsums, inputs, ([0, 1], [0, 1])).flatten(0, 1)
    gradient = inputs.new_zeros(*dsums.shape[2:], inputs.shape[-1])
    if len(units):
        gradient[:, units] = torch.tensordot(dsums[:, :, :, units], inputs, ([0, 1], [0, 1]))
    return gradient.flatten(0, 1)


@dataclass(frozen=True)
class _Reach:
    """What a plan leaves of the backward of a layer."""

    first: int  # the first step, counted from 0, with a gate gradient
    gates: Tensor  # (H,) bool, the units whose gates get a gradient
    units: Tensor | None  # indices of the units whose rows of the weights get one; None: all
    passing: Tensor  # (H,) bool, the units whose output before a step gets a gradient from that step's gates

    @classmethod
    def of(cls, plan: Plan, steps: int, like: Tensor) -> "_Reach":
        """``like``: (…, H), for the number of units and the device."""
        plan = plan.on(like.device)
        first = 0 if plan.steps is None else max(steps - plan.steps, 0)
        everyone = torch.ones(like.shape[-1], dtype=torch.bool, device=like.device)
        passing = plan.passing(like.shape[-1], like.device)
        passing = everyone if passing is None else passing
        if plan.active is None or plan.mode == "masked":
            return cls(first, everyone, None, passing)
        return cls(first, everyone if plan.mode == "exact" else plan.active, plan.active_units, passing)


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        x, h, c, weight_ih, weight_hh, bias_ih, bias_hh, plan, gates = arguments
        ctx.plan, ctx.gates = plan, gates
        seen_ih, seen_hh = _forward_weights(weight_ih, weight_hh, plan)
        from_inputs = x @ seen_ih.T + bias_ih + bias_hh  # (T, B, 4H), the part of the sums known before any step
        values, cells, outputs = [], [c], [h]
        for inputs in from_inputs:
            sums = (inputs + h @ seen_hh.T).unflatten(-1, (4, -1))
            v, c, h = step_forward(sums, c, gates)
            values.append(v)
            cells.append(c)
            outputs.append(h)
        states = (torch.stack(values), torch.stack(cells), torch.stack(outputs))  # the last two begin before step 0
        ctx.save_for_backward(x, weight_ih, weight_hh, *states)
        return states[2][1:].clone(), h.clone(), c.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dh: Tensor, dc: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_ih, weight_hh, values, cells, outputs = ctx.saved_tensors
        plan: Plan = ctx.plan
        reach = _Reach.of(plan, len(x), dh)
        backwards = []
        for t in reversed(range(reach.first, len(x))):
            dh = dh + dy[t]
            dh, dc = dh.where(reach.gates, 0), dc.where(reach.gates, 0)  # where nothing arrives, gates send nothing on
            d, dc = step_backward(dh, dc, values[t], cells[t], cells[t + 1], ctx.gates)
            dh = (d.flatten(1) @ weight_hh).where(reach.passing, 0)  # (6.2), the components of H(t-1)
            dc = dc if plan.credit != "none" else torch.zeros_like(dc)
            backwards.append(d)
        dsums = torch.stack(backwards[::-1])  # (T - first, B, 4, H)
        if reach.first > 0:
            dh, dc = torch.zeros_like(dh), torch.zeros_like(dc)
        elif plan.active is not None and plan.mode == "autonomous":
            dh = dh.where(reach.gates, 0)  # isolated units are constants, before the first step too
        return _wanted(ctx, dsums, dh, dc, reach, x, weight_ih, outputs)


def _wanted(
    ctx: Any, dsums: Tensor, dh0: Tensor, dc0: Tensor, reach: _Reach, x: Tensor, weight_ih: Tensor, outputs: Tensor
) -> tuple[Tensor | None, ...]:
    """The gradients that were asked for, in the order of the arguments of ``forward``; None for the others."""
    wants = ctx.needs_input_grad
    weights = [ctx.plan.weights and want for want in wants[3:7]]

    def rows(inputs: Tensor) -> Tensor:
        return weight_gradient(dsums, inputs, reach.units)

    dx = None
    if wants[0]:
        dx = torch.zeros_like(x)
        dx[reach.first :] = dsums.flatten(2) @ weight_ih  # (6.2), the components of x(t)
    return (
        dx,
        dh0 if wants[1] else None,
        dc0 if wants[2] else None,
        rows(x[reach.first :]) if weights[0] else None,
        rows(outputs[reach.first : -1]) if weights[1] else None,
        *(rows(torch.ones_like(x[reach.first :, :, :1])).squeeze(1) if want else None for want in weights[2:]),
        None,
        None,
    )


def _forward_weights(weight_ih: Tensor, weight_hh: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    """(4H, I) and (4H, H): both weights, less those by which an autonomous zone would see active units."""
    if plan.active is None or plan.mode != "autonomous":
        return weight_ih, weight_hh
    plan = plan.on(weight_hh.device)
    active = plan.active
    assert active is not None
    row = active.repeat(4)[:, None]
    if plan.autonomous_inputs is not None:
        weight_ih = weight_ih.where(row | plan.autonomous_inputs, 0)
    return weight_ih, weight_hh.where(row | ~active, 0)


def _check(tensors: tuple[Tensor, ...], plan: Plan, gates: str) -> None:
    x, h0 = tensors[:2]
    if x.dim() != 3 or h0.dim() != 2 or not len(x):
        raise InputError(f"x is {tuple(x.shape)}, h0 {tuple(h0.shape)}: use (steps, batch, inputs) and (batch, hidden)")
    (_, batch, inputs), hidden = x.shape, h0.shape[-1]
    state, bias = (batch, hidden), (4 * hidden,)
    shapes = (tuple(x.shape), state, state, (4 * hidden, inputs), (4 * hidden, hidden), bias, bias)
    names = ("x", "h0", "c0", "weight_ih", "weight_hh", "bias_ih", "bias_hh")
    for name, tensor, shape in zip(names, tensors, shapes, strict=True):
        if tuple(tensor.shape) != shape:
            raise InputError(f"{name} is {tuple(tensor.shape)}: with x {shapes[0]} and {hidden} units use {shape}")
        if tensor.dtype != x.dtype or tensor.device != x.device or not x.is_floating_point():
            raise InputError(f"{name} is {tensor.dtype} on {tensor.device}, x {x.dtype} on {x.device}: use one for all")
    if gates not in get_args(Gates):
        raise InputError(f"gates {gates!r} do not exist: use one of {', '.join(get_args(Gates))}")
    if plan.mode not in MODES:
        raise InputError(f"mode {plan.mode!r} is unknown: use one of {', '.join(MODES)}")
    if plan.steps is not None and plan.steps < 1:
        raise InputError(f"steps = {plan.steps}: the backward needs at least 1 time step")
    if plan.credit not in CREDITS:
        raise InputError(f"credit {plan.credit!r} is unknown: use one of {', '.join(CREDITS)}")
    sizes = (
        ("active", plan.active, hidden),
        ("autonomous_inputs", plan.autonomous_inputs, inputs),
        ("part", plan.part, hidden),
    )
    for name, flags, size in sizes:
        if flags is not None and (flags.dtype != torch.bool or tuple(flags.shape) != (size,)):
            raise InputError(f"{name} is {flags.dtype} of shape {tuple(flags.shape)}: use booleans of shape ({size},)")
