"""Half precision on a GPU: which type an LSTM's products have, and gradients that are not lost in it.

torch's autocast runs a cuDNN LSTM in float16 whatever type was asked for, and float16 has no numbers below 6e-8: the
gradient of a mean over many hours lies there. So on CUDA the type is chosen here, and the gradient inside a float16
LSTM is 1024 times the true one. A power of two changes no digit, and nothing has to ask the device whether it
overflowed, as a loss scaler does.
"""

from typing import Any

import torch
from torch import Tensor

SCALE = 1024.0


def on_gpu(x: Tensor) -> bool:
    """Whether ``x`` is where products are chosen by this module; tests say yes on a CPU."""
    return x.is_cuda


class _Scaled(torch.autograd.Function):
    """The same tensor; its gradient times a number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, arriving: Tensor) -> tuple[Tensor, None]:
        return arriving * ctx.factor, None


def enter(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x`` in ``dtype``, where gradients are scaled; the gradient that goes back to ``x`` is the true one."""
    if dtype == torch.float16 and x.requires_grad:
        x = _Scaled.apply(x, 1 / SCALE)
    return x.to(dtype)


def leave(y: Tensor, dtype: torch.dtype) -> Tensor:
    """``y``, computed of what :func:`enter` gave: in ``dtype`` if it was float16, so that no true gradient is lost."""
    if y.dtype != torch.float16 or not y.requires_grad:
        return y
    answer: Tensor = _Scaled.apply(y.to(dtype), SCALE)
    return answer


def product_type(x: Tensor, weight: Tensor) -> torch.dtype:
    """The type of the products with ``weight``: that of a surrounding autocast, else the weight's own."""
    kind = x.device.type
    within = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if within and weight.dtype == torch.float32 else weight.dtype
