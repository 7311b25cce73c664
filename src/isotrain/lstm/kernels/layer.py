"""One LSTM layer on the compiled kernels, as an autograd function: units packed, forward, backward, gradients unpacked.

The units lie in the kernels' memory with the active ones first, the active and the isolated each filling whole blocks
of :data:`LANES`, so that what is isolated is left out by a shorter loop.
"""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from isotrain.errors import InputError
from isotrain.lstm.kernels import build
from isotrain.lstm.plan import EVERYTHING, Plan

LANES = 16  # units in a block of the kernels
NOTHING, CELLS, ALL = range(3)  # what a forward keeps


@dataclass(frozen=True, eq=False)
class Layout:
    """Where each unit lies in the kernels' memory: active ones first, of each kind those of ``part`` first.

    Attributes:
        order: (P,) the unit in each place, or -1 in an empty one; P is a multiple of LANES.
        active: the first so many places hold the active units.
        place: (H,) the place of each unit.
        natural: the units lie in their own order without gaps.
        passing: (P,) bool, the places that get credit through the recurrent weights; None: all.
    """

    order: Tensor
    active: int
    place: Tensor
    natural: bool
    passing: Tensor | None = None


@functools.lru_cache(maxsize=256)  # plans are compared by identity, and live as long as what was isolated
def layout(plan: Plan, hidden: int) -> Layout:
    """The layout of ``hidden`` units under a plan."""
    everyone = torch.ones(hidden, dtype=torch.bool)
    first = everyone if plan.active is None else plan.active
    passing = plan.passing(hidden)
    part = everyone if passing is None else passing
    groups = [
        _padded(units.nonzero().flatten()) for units in (first & part, first & ~part, ~first & part, ~first & ~part)
    ]
    order = torch.cat(groups)
    filled = (order >= 0).nonzero().flatten()
    place = torch.empty(hidden, dtype=torch.long).index_copy_(0, order[filled], filled)
    if passing is not None:
        passing = (order >= 0) & passing[order]
    return Layout(order, len(groups[0]) + len(groups[1]), place, torch.equal(order, torch.arange(hidden)), passing)


def _padded(units: Tensor) -> Tensor:
    empty = -len(units) % LANES
    return torch.cat([units, torch.full((empty,), -1)])


_NAMES = ("x", "h0", "c0", "weight_ih", "weight_hh", "bias_ih", "bias_hh")


def lstm_layer(
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    plan: Plan = EVERYTHING,
    *,
    constants: tuple[Tensor, ...] = (),
    bf16: bool = False,
    batch_first: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer on the CPU, all tensors fp32; ``bf16`` rounds weights, gates and h, and accumulates in fp32.

    Args:
        x: (T, B, I), any strides. ``constants``: more inputs (T, B, I_n) beside it, which get no gradient; the
            columns of ``weight_ih`` are those of x, then theirs.
        h0, c0: (B, H). weight_ih: (4H, I + ...), weight_hh: (4H, H), rows i, f, g, o. The biases: (4H,).
        plan: what is left out of the backward: exact and cut units, steps, weights, credit. Mode ``autonomous`` is
            refused here: :mod:`isotrain.lstm.stack` turns it into a smaller layer.
        batch_first: how y lies in memory; its shape is (T, B, H) either way.

    Returns y (T, B, H), the last h and c (B, H). The backward may run once more after ``retain_graph=True`` (it then
    computes the forward again); it is not itself differentiable.

    Raises :class:`InputError` for shapes, precisions and plans that do not fit, and where the kernels are not built.
    """
    _check((x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh), constants, plan)
    build.load()
    tensors = (h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, x, *constants)
    keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    y, h, c = _Layer.apply(plan, bf16, batch_first, keep, *tensors)
    return y, h, c


@torch.no_grad()
def lstm_states(
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    *,
    bf16: bool = False,
) -> tuple[Tensor, Tensor]:
    """The outputs (T, B, H), and the cells (T + 1, B, H) before the first step and after each, without a graph.

    Arguments and errors are those of :func:`lstm_layer`. No gate is kept, so this costs what a forward costs.
    """
    _check((x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh), (), EVERYTHING)
    build.load()
    y, _, _, _, _, cells = _run((h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, x), EVERYTHING, bf16, False, CELLS)
    return y, cells[..., : h0.shape[1]]  # where nothing is isolated the units lie in their own order


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, plan: Plan, bf16: bool, batch_first: bool, keep: bool, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        ctx.plan, ctx.bf16, ctx.batch_first = plan, bf16, batch_first
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        y, h, c, *ctx.kept = _run(tensors, plan, bf16, batch_first, ALL if keep else NOTHING)
        return y, h, c

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, dh: Tensor | None, dc: Tensor | None) -> tuple[Tensor | None, ...]:
        kept = ctx.kept or _run(ctx.saved_tensors, ctx.plan, ctx.bf16, ctx.batch_first, ALL)[3:]
        ctx.kept = []  # the kernel overwrites the gates
        return None, None, None, None, *_gradients(ctx, kept, dy, dh, dc)


def _check(tensors: tuple[Tensor | None, ...], constants: tuple[Tensor, ...], plan: Plan) -> None:
    x, h0 = tensors[:2]
    assert x is not None and h0 is not None
    if x.dim() != 3 or h0.dim() != 2 or not len(x):
        raise InputError(
            f"x is {tuple(x.shape)}, h0 {tuple(h0.shape)}: use (steps, batch, inputs), at least one step, and "
            "(batch, hidden)"
        )
    (steps, batch, inputs), hidden = x.shape, h0.shape[1]
    seen = inputs + sum(z.shape[-1] for z in constants)
    state, bias = (batch, hidden), (4 * hidden,)
    shapes = ((steps, batch, inputs), state, state, (4 * hidden, seen), (4 * hidden, hidden), bias, bias)
    for name, tensor, shape in zip(_NAMES, tensors, shapes, strict=True):
        if tensor is not None and tuple(tensor.shape) != shape:
            raise InputError(f"{name} is {tuple(tensor.shape)}: with {seen} inputs and {hidden} units use {shape}")
        if tensor is not None and (tensor.device.type != "cpu" or (tensor.dtype != torch.float32 and name != "x")):
            raise InputError(f"{name} is {tensor.dtype} on {tensor.device}: the kernels take torch.float32 on the CPU")
    if any(tuple(z.shape[:2]) != (steps, batch) or z.device.type != "cpu" for z in constants):
        raise InputError(f"constants are {[tuple(z.shape) for z in constants]}: use ({steps}, {batch}, ...) on the CPU")
    if plan.part is not None and (plan.part.dtype != torch.bool or tuple(plan.part.shape) != (hidden,)):
        raise InputError(f"part is {plan.part.dtype} {tuple(plan.part.shape)}: use booleans of shape ({hidden},)")
    if plan.active is None:
        return
    if plan.mode == "autonomous":
        raise InputError("the kernels do not know mode 'autonomous': isotrain.lstm.stack makes it a smaller layer")
    if plan.active.dtype != torch.bool or tuple(plan.active.shape) != (hidden,):
        raise InputError(f"active is {plan.active.dtype} {tuple(plan.active.shape)}: use booleans of shape ({hidden},)")


def _run(tensors: Any, plan: Plan, bf16: bool, batch_first: bool, kept: int) -> Any:
    h0, c0, w_ih, w_hh, b_ih, b_hh, *inputs = tensors
    order = layout(plan, h0.shape[1]).order
    columns = len(order) + w_ih.shape[1] + 1
    panels = torch.ops.isotrain.pack_forward(
        w_ih.contiguous(), w_hh.contiguous(), b_ih, b_hh, order, -(-columns // 8) * 8, bf16
    )
    inputs = [x.float() if x.stride(-1) == 1 else x.float().contiguous() for x in inputs]
    return torch.ops.isotrain.forward(
        inputs, h0.contiguous(), c0.contiguous(), panels, order, kept, batch_first, build.has_brgemm(bf16)
    )


def _gradients(
    ctx: Any, kept: list[Tensor], dy: Tensor | None, dh: Tensor | None, dc: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Of h0, c0, the four parameters, x, and the constants (none)."""
    h0, _, w_ih, w_hh, b_ih, _, x, *constants = ctx.saved_tensors
    need_h0, need_c0, need_x = (ctx.needs_input_grad[k] for k in (4, 5, 10))
    plan, units, hidden, steps = ctx.plan, layout(ctx.plan, h0.shape[1]), h0.shape[1], x.shape[0]
    rows, gates, cells = kept
    first = 0 if plan.steps is None else max(steps - plan.steps, 0)
    if plan.credit == "none":
        first = max(first, _first_arrival(dy, steps))
    cut = plan.active is not None and plan.mode == "cut"
    places = units.active if cut else len(units.order)  # that take part in the backward
    wanted = len(units.order) if need_h0 else places  # whose dh is read
    if units.passing is not None:
        wanted = int(units.passing.nonzero().max()) + 1 if units.passing.any() else 0
    inputs = x.shape[2] if need_x else 0
    panels = torch.ops.isotrain.pack_backward(
        w_ih.contiguous(), w_hh.contiguous(), units.order, wanted, inputs, ctx.bf16
    )
    dx, dh0, dc0 = torch.ops.isotrain.backward(
        gates, cells, panels, units.order, _unit_stride(dy), _unit_stride(dh), _unit_stride(dc), hidden, inputs,
        ctx.batch_first, first, places, units.passing, plan.credit != "none", build.has_brgemm(ctx.bf16),
    )  # fmt: skip
    weights: tuple[Tensor | None, ...] = (None, None, None, None)
    if plan.weights and any(ctx.needs_input_grad[6:10]):
        everyone = plan.active is None or plan.mode == "masked"
        packed = _product(rows, gates, len(units.order) if everyone else units.active, first)
        weights = _unpack(packed, units, hidden, w_ih.shape[1])
        if b_ih is None:
            weights = (*weights[:2], None, None)
    return (
        dh0 if need_h0 else None,
        dc0 if need_c0 else None,
        *weights,
        dx.to(x.dtype) if need_x else None,
        *(None for _ in constants),
    )


def _first_arrival(dy: Tensor | None, steps: int) -> int:
    """The first step that the loss reads. Where no step passes credit on, those before it have no gradient at all."""
    if dy is None:
        return steps - 1
    read = dy.ne(0).flatten(1).any(1).nonzero()
    return int(read[0]) if len(read) else steps - 1


def _unit_stride(gradient: Tensor | None) -> Tensor | None:
    if gradient is None or (gradient.dim() == 3 and gradient.stride(-1) == 1):
        return gradient
    return gradient.contiguous()


def _product(rows: Tensor, gates: Tensor, places: int, first: int) -> Tensor:
    """(4 places, K): gradients of the weights of the first ``places``, summed from step ``first`` on."""
    dg = gates[first:].flatten(0, 1)[:, : 4 * places]
    return torch.mm(dg.t(), rows[first : len(gates)].flatten(0, 1)).float()


def _unpack(packed: Tensor, units: Layout, hidden: int, inputs: int) -> tuple[Tensor, ...]:
    """(4P', K) in the kernels' order to weight_ih, weight_hh, bias_ih, bias_hh in PyTorch's; rows not there are 0."""
    places, columns, total = packed.shape[0] // 4, packed.shape[1], len(units.order)
    by_gate = packed.view(places // LANES, 4, LANES, columns).transpose(0, 1).reshape(4, places, columns)
    d_hh, d_ih, d_bias = by_gate[..., :total], by_gate[..., total : total + inputs], by_gate[..., total + inputs]
    if not units.natural or places < total:
        filled = (units.order[:places] >= 0).nonzero().flatten()
        rows = units.order[filled]
        d_hh, d_ih, d_bias = (
            torch.zeros(4, hidden, *d.shape[2:]).index_copy_(1, rows, d[:, filled])
            for d in (d_hh[..., units.place], d_ih, d_bias)
        )
    bias = d_bias.reshape(-1)
    return d_ih.reshape(4 * hidden, -1), d_hh.reshape(4 * hidden, -1), bias, bias.clone()
