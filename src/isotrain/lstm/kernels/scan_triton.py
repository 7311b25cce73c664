"""The gates and the scan of the cell as two Triton kernels: what a layer without credit does step by step on a GPU.

In plain torch each step is a kernel of a few microseconds, and each gate a pass over memory; here a step is a turn of a
loop, and sums are read once. Open :mod:`isotrain.lstm.credit` first, which says what is computed and when this file is
used. It needs Triton, which the CUDA builds of torch bring along. Shapes: T steps, B sequences, H units, N = B H.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, no-any-return"

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 128  # cells a program
WARPS = 4
CHUNK = 8  # steps a program of the backward, where no step waits for another


@triton.jit
def _sigmoid(x):  # not Triton's own, which only one of its interpreter and its compiler knows in a process
    return 1 / (1 + tl.exp(-x))


@triton.jit
def _tanh(x):
    return 2 / (1 + tl.exp(-2 * x)) - 1


@triton.jit
def _gates(sums, at, H, ok):
    i = _sigmoid(tl.load(sums + at, ok, 0.0).to(tl.float32))
    f = _sigmoid(tl.load(sums + at + H, ok, 0.0).to(tl.float32))
    g = _tanh(tl.load(sums + at + 2 * H, ok, 0.0).to(tl.float32))
    o = _sigmoid(tl.load(sums + at + 3 * H, ok, 0.0).to(tl.float32))
    return i, f, g, o


@triton.jit
def forward_kernel(sums, c0, y, cells, T, N, H, BLOCK: tl.constexpr):
    """sums (T, B, 4H), c0 (B, H) to y and cells (T, B, H)."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    ok = n < N
    gate = n // H * 4 * H + n % H
    c = tl.load(c0 + n, ok, 0.0).to(tl.float32)
    for _ in range(T):
        i, f, g, o = _gates(sums, gate, H, ok)
        c = f * c + i * g
        tl.store(cells + n, c, ok)
        tl.store(y + n, (o * _tanh(c)).to(y.dtype.element_ty), ok)
        sums += 4 * N
        cells += N
        y += N


@triton.jit
def backward_kernel(
    sums, c0, cells, dy, dc_last, dsums, dc0, scale, T, N, H,
    CELL: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """dy (T, B, H) and dc_last (B, H) to ``scale`` times dsums (T, B, 4H), and dc0 (B, H).

    CELL: the gradient goes along the cell, and a program does all steps; else ``STEPS`` of them.
    """
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    ok = n < N
    gate = n // H * 4 * H + n % H
    last = T if CELL else tl.minimum((tl.program_id(1) + 1) * STEPS, T)
    first = 0 if CELL else tl.program_id(1) * STEPS
    dc = tl.load(dc_last + n, n < tl.where(last == T, N, 0), 0.0).to(tl.float32)
    for done in range(last - first):
        t = (last - 1 - done).to(tl.int64)
        i, f, g, o = _gates(sums, t * 4 * N + gate, H, ok)
        before = tl.load(cells + (t - 1) * N + n, n < tl.where(t > 0, N, 0), 0.0)
        before += tl.load(c0 + n, n < tl.where(t > 0, 0, N), 0.0).to(tl.float32)
        tanh = _tanh(tl.load(cells + t * N + n, ok, 0.0))
        dh = tl.load(dy + t * N + n, ok, 0.0).to(tl.float32)
        dc += dh * o * (1 - tanh * tanh)
        at = dsums + t * 4 * N + gate
        kind = dsums.dtype.element_ty
        tl.store(at, (scale * dc * g * i * (1 - i)).to(kind), ok)
        tl.store(at + H, (scale * dc * before * f * (1 - f)).to(kind), ok)
        tl.store(at + 2 * H, (scale * dc * i * (1 - g * g)).to(kind), ok)
        tl.store(at + 3 * H, (scale * dh * tanh * o * (1 - o)).to(kind), ok)
        dc = dc * f if CELL else dc * 0.0
    if CELL:
        tl.store(dc0 + n, dc, ok)


def forward(sums: Tensor, c0: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs (T, B, H) in the type of ``sums`` (T, B, 4H), and the cells (T, B, H) in float32; c0 (B, H)."""
    steps, batch, hidden = len(sums), *c0.shape
    sums, c0 = sums.contiguous(), c0.contiguous()
    cells = torch.empty(steps, batch, hidden, dtype=torch.float32, device=sums.device)
    y = torch.empty_like(cells, dtype=sums.dtype)
    grid = (triton.cdiv(c0.numel(), BLOCK),)
    forward_kernel[grid](sums, c0, y, cells, steps, c0.numel(), hidden, BLOCK=BLOCK, num_warps=WARPS)
    return y, cells


def backward(
    sums: Tensor, c0: Tensor, cells: Tensor, dy: Tensor, dc_last: Tensor, *, cell: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """``scale`` times the gradient of the sums, in their type, and that of c0; ``cell``: it flows along the cell."""
    steps, hidden = len(sums), c0.shape[-1]
    sums, c0 = sums.contiguous(), c0.contiguous()
    dsums, dc0 = torch.empty_like(sums), torch.zeros_like(c0, dtype=torch.float32)
    grid = (triton.cdiv(c0.numel(), BLOCK), 1 if cell else triton.cdiv(steps, CHUNK))
    backward_kernel[grid](
        sums, c0, cells, dy.contiguous(), dc_last.contiguous(), dsums, dc0, scale, steps, c0.numel(), hidden,
        CELL=cell, STEPS=CHUNK, BLOCK=BLOCK, num_warps=WARPS,
    )  # fmt: skip
    return dsums, dc0
