"""A layer whose outputs are known, with a graph that passes no gradient through the recurrent weights.

Without that path nothing in the backward waits for the step after it: the sums of all gates are one product of the
inputs and one of the outputs a step earlier, both over all steps at once, and so are the gradients of the weights. What
remains in turn is element by element, c(t) = f(t) c(t-1) + i(t) g(t), and along it the gradient of the cell. Any device
and precision; autograd does the rest. The equations: docs/lstm-gradient.md.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear


def with_graph(
    x: Tensor, h0: Tensor, c0: Tensor, weights: tuple[Tensor, ...], outputs: Tensor, *, cell: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The layer once more, from outputs that were computed without a graph.

    Args:
        x: (T, B, I). h0, c0: (B, H), before the first step. h0 gets no gradient, c0 along the cell alone.
        weights: weight_ih (4H, I), weight_hh (4H, H), and bias_ih, bias_hh (4H,) if any.
        outputs: (T, B, H), what the layer answers.
        cell: whether a gradient flows along the cell state, from each step to the step before.

    Returns the outputs (T, B, H), the last output and the last cell state (B, H); up to rounding what the layer
    answers.
    """
    w_ih, w_hh, *biases = weights
    b_ih, b_hh = biases or (None, None)
    before = torch.cat([h0[None].to(outputs.dtype), outputs[:-1]]).detach()
    sums = (linear(x, w_ih, b_ih) + linear(before, w_hh, b_hh)).to(c0.dtype)
    i, f, g, o = sums.chunk(4, -1)
    f, new = f.sigmoid(), i.sigmoid() * g.tanh()
    if cell:
        cells = _Cells.apply(f, new, c0)
    else:
        with torch.no_grad():
            passed = torch.cat([c0[None], _Cells.apply(f, new, c0)[:-1]])
        cells = f * passed + new
    y = o.sigmoid() * cells.tanh()
    return y.to(outputs.dtype), y[-1].to(outputs.dtype), cells[-1]


def cells_of(x: Tensor, h0: Tensor, c0: Tensor, weights: tuple[Tensor, ...], outputs: Tensor) -> Tensor:
    """The cells (T + 1, B, H) before the first step and after each, of a layer whose outputs are known; no graph.

    Arguments as of :func:`with_graph`.
    """
    w_ih, w_hh, *biases = weights
    b_ih, b_hh = biases or (None, None)
    with torch.no_grad():
        before = torch.cat([h0[None].to(outputs.dtype), outputs[:-1]])
        sums = (linear(x, w_ih, b_ih) + linear(before, w_hh, b_hh)).to(c0.dtype)
        i, f, g, _ = sums.chunk(4, -1)
        return torch.cat([c0[None], _Cells.apply(f.sigmoid(), i.sigmoid() * g.tanh(), c0)])


class _Cells(torch.autograd.Function):
    """c(t) = f(t) c(t-1) + new(t), (T, B, H), from c0 (B, H)."""

    @staticmethod
    def forward(ctx: Any, f: Tensor, new: Tensor, c0: Tensor) -> Tensor:
        cells = torch.empty_like(new)
        for t in range(len(new)):
            torch.addcmul(new[t], f[t], cells[t - 1] if t else c0, out=cells[t])
        ctx.save_for_backward(f, c0, cells)
        return cells

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, arriving: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        f, c0, cells = ctx.saved_tensors
        whole = arriving.clone(memory_format=torch.contiguous_format)
        for t in range(len(f) - 2, -1, -1):
            whole[t].addcmul_(f[t + 1], whole[t + 1])
        df = whole * torch.cat([c0[None], cells[:-1]])
        return df, whole, f[0] * whole[0]
