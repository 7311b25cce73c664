"""A layer whose outputs are known, with a graph that passes no gradient through the recurrent weights.

Without that path nothing in the backward waits for the step after it: the sums of all gates are one product of the
inputs and one of the outputs a step earlier, both over all steps at once, and so are the gradients of the weights; on a
GPU the two are one. What remains in turn is element by element, c(t) = f(t) c(t-1) + i(t) g(t), and along it the
gradient of the cell: in plain torch on any device, and where Triton is, on a GPU, by the kernels of
:mod:`isotrain.lstm.kernels.scan_triton`. The equations: docs/lstm-gradient.md.
"""

from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, pad

from isotrain.lstm.precision import SCALE, enter, leave, on_gpu, product_type

_ALIGNED = 8  # columns of a product on tensor cores


@cache
def scan() -> ModuleType | None:
    """The kernels of :mod:`.kernels.scan_triton`; None where Triton is not installed."""
    if find_spec("triton") is None:
        return None
    from isotrain.lstm.kernels import scan_triton

    return scan_triton


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
    before = torch.cat([h0[None].to(outputs.dtype), outputs[:-1]]).detach()
    together = on_gpu(x)
    sums = gate_sums(x, before, weights, together=together)
    return from_sums(sums, c0, outputs.dtype, cell=cell, on_gpu=together)


def from_sums(
    sums: Tensor, c0: Tensor, dtype: torch.dtype, *, cell: bool, on_gpu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """What :func:`with_graph` returns, in ``dtype``, from the sums (T, B, 4H) of :func:`gate_sums`.

    On a GPU the outputs of float16 sums are in the type of c0: their gradient is not scaled, that of the sums is.
    """
    kernels = scan() if on_gpu and sums.dtype != torch.float64 else None
    if kernels is not None:
        y, last = _Gates.apply(sums, c0, cell, kernels)
        return y, y[-1], last.to(c0.dtype)
    if on_gpu and sums.dtype == torch.float16:
        sums, dtype = leave(sums, c0.dtype), c0.dtype
    i, f, g, o = sums.to(c0.dtype).chunk(4, -1)
    f, new = f.sigmoid(), i.sigmoid() * g.tanh()
    if cell:
        cells = _Cells.apply(f, new, c0)
    else:
        with torch.no_grad():
            passed = torch.cat([c0[None], _Cells.apply(f, new, c0)[:-1]])
        cells = f * passed + new
    y = (o.sigmoid() * cells.tanh()).to(dtype)
    return y, y[-1], cells[-1]


def cells_of(x: Tensor, h0: Tensor, c0: Tensor, weights: tuple[Tensor, ...], outputs: Tensor) -> Tensor:
    """The cells (T + 1, B, H) before the first step and after each, of a layer whose outputs are known; no graph.

    Arguments as of :func:`with_graph`.
    """
    with torch.no_grad():
        before = torch.cat([h0[None].to(outputs.dtype), outputs[:-1]])
        together = on_gpu(x)
        sums = gate_sums(x, before, weights, together=together)
        kernels = scan() if together and sums.dtype != torch.float64 else None
        if kernels is not None:
            return torch.cat([c0[None], kernels.forward(sums, c0)[1].to(c0.dtype)])
        i, f, g, _ = sums.to(c0.dtype).chunk(4, -1)
        return torch.cat([c0[None], _Cells.apply(f.sigmoid(), i.sigmoid() * g.tanh(), c0)])


def gate_sums(x: Tensor, before: Tensor, weights: tuple[Tensor, ...], *, together: bool) -> Tensor:
    """The sums (T, B, 4H) into the gates, of x (T, B, I) and the outputs a step earlier (T, B, H).

    ``together``: as one product, and one for the gradient of all weights, of a width that tensor cores take. In
    float16 their gradient is scaled (:mod:`isotrain.lstm.precision`).
    """
    w_ih, w_hh, *biases = weights
    if not together:
        b_ih, b_hh = biases or (None, None)
        return linear(x, w_ih, b_ih) + linear(before, w_hh, b_hh)
    dtype = product_type(x, w_ih)
    fill = -(x.shape[-1] + before.shape[-1]) % _ALIGNED
    both = pad(torch.cat([enter(x, dtype), before.to(dtype)], -1), (0, fill))
    weight = pad(torch.cat([enter(w_ih, dtype), enter(w_hh, dtype)], 1), (0, fill))
    bias = enter(biases[0] + biases[1], dtype) if biases else None
    with torch.autocast(x.device.type, enabled=False):
        return linear(both, weight, bias)


class _Gates(torch.autograd.Function):
    """Sums (T, B, 4H) and c0 (B, H) to outputs (T, B, H) and the last cells (B, H), by Triton's kernels.

    ``cell``: the gradient flows along the cell. In float16 the gradient of the sums is scaled.
    """

    @staticmethod
    def forward(ctx: Any, sums: Tensor, c0: Tensor, cell: bool, kernels: ModuleType) -> tuple[Tensor, Tensor]:
        y, cells = kernels.forward(sums, c0)
        ctx.save_for_backward(sums, c0, cells)
        ctx.cell, ctx.kernels = cell, kernels
        return y.to(c0.dtype) if y.dtype == torch.float16 else y, cells[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dlast: Tensor) -> tuple[Tensor | None, ...]:
        sums, c0, cells = ctx.saved_tensors
        scale = SCALE if sums.dtype == torch.float16 else 1.0
        dsums, dc0 = ctx.kernels.backward(sums, c0, cells, dy, dlast, cell=ctx.cell, scale=scale)
        return dsums, dc0.to(c0.dtype) if ctx.cell else None, None, None


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
