"""Which code computes an LSTM (our CPU kernels, torch's kernels or the reference), why, and the call."""

from dataclasses import dataclass
from itertools import groupby
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from isotrain.errors import InputError
from isotrain.lstm import reference
from isotrain.lstm.kernels import build
from isotrain.lstm.kernels import layer as native
from isotrain.lstm.plan import EVERYTHING, Plan

# Layer and step isolation on torch's own LSTM kernels, whole stacks in one call: the fastest there is on a GPU.
#
# What they can leave out: layers below the lowest active one, and early steps, run without a graph. An isolated layer
# above an active one has to pass the gradient on, and the kernels then compute its weight gradients and drop them.


States = tuple[Tensor, Tensor]  # h and c, each (layers, batch, hidden)


def run(lstm: nn.LSTM, layers: frozenset[int], steps: int | None, x: Tensor, hx: States) -> tuple[Tensor, States]:
    """``lstm`` over a batch x with ``layers``, and all but the last ``steps`` time steps, isolated."""
    time = 1 if lstm.batch_first else 0
    early = 0 if steps is None else max(x.size(time) - steps, 0)
    if early == 0:
        return _stack(lstm, layers, x, hx)
    past, recent = x.split([early, x.size(time) - early], time)
    with torch.no_grad():
        y_past, hx = _stack(lstm, layers, past, hx)
    y_recent, hx = _stack(lstm, layers, recent, hx)
    return torch.cat([y_past, y_recent], time), hx


def _stack(lstm: nn.LSTM, layers: frozenset[int], x: Tensor, hx: States) -> tuple[Tensor, States]:
    """Every layer in turn, neighbours of the same standing in one kernel call."""
    last_h, last_c = [], []
    for isolated, group in groupby(range(lstm.num_layers), key=layers.__contains__):
        members = list(group)
        if members[0] > 0:
            x = nn.functional.dropout(x, lstm.dropout, lstm.training)
        x, h, c = _stack_kernel(lstm, x, hx, members, isolated)
        last_h.append(h)
        last_c.append(c)
    return x, (torch.cat(last_h), torch.cat(last_c))


def _stack_kernel(
    lstm: nn.LSTM, x: Tensor, hx: States, layers: list[int], isolated: bool
) -> tuple[Tensor, Tensor, Tensor]:
    rows = slice(layers[0], layers[-1] + 1)
    weights = [getattr(lstm, name) for k in layers for name in lstm._all_weights[k]]
    if isolated:
        weights = [weight.detach() for weight in weights]
    states = [hx[0][rows].contiguous(), hx[1][rows].contiguous()]
    return torch._VF.lstm(
        x, states, weights, lstm.bias, len(layers), lstm.dropout, lstm.training, False, lstm.batch_first
    )


Backend = Literal["auto", "native", "torch", "reference"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
SMALL = 64  # below so many cells (steps x samples) a call packs weights for longer than it computes


@dataclass(frozen=True)
class Choice:
    """A backend, and why it was taken."""

    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.name} ({self.why})"


def choose(wanted: Backend, x: Tensor, dtype: torch.dtype, bf16: bool, by_unit: bool) -> Choice:
    """The backend for input ``x`` and weights of ``dtype``; ``by_unit``: units are left out of the backward.

    Raises :class:`InputError` where the wanted backend cannot do what is asked.
    """
    if wanted == "torch" and by_unit:
        raise InputError(
            "LSTM backend 'torch' always computes every unit's gradient: isolate units with backend 'native' or "
            "'reference', or with mode 'autonomous' or 'masked'"
        )
    if wanted in ("torch", "reference"):
        return Choice(wanted, "asked for")
    missing = _native_lacks(x, dtype, bf16)
    if wanted == "native":
        if missing:
            raise InputError(f"LSTM backend 'native': {missing}")
        return Choice(wanted, "asked for")
    if not missing and x.shape[0] * x.shape[1] >= SMALL:
        return Choice("native", f"a float32 CPU network, {'bf16' if bf16 else 'fp32'} products")
    if by_unit:
        return Choice(
            "reference", f"isolated units need our own backward, and for the kernels {missing or 'it is small'}"
        )
    return Choice("torch", missing or "too small for our kernels to pay")


def _native_lacks(x: Tensor, dtype: torch.dtype, bf16: bool) -> str:
    """Why the native kernels cannot be used; empty if they can."""
    if x.device.type != "cpu":
        return f"the kernels are for CPUs, not {x.device.type}"
    if dtype != torch.float32:
        return f"the kernels keep their weights in float32, not {str(dtype).removeprefix('torch.')}"
    try:
        build.load()
    except InputError as problem:
        return str(problem)
    if bf16 and not build.has_brgemm(True):
        return "this processor has no bf16 products"
    return ""


def run_layer(
    backend: str,
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    weights: tuple[Tensor | None, ...],
    plan: Plan = EVERYTHING,
    *,
    constants: tuple[Tensor, ...] = (),
    bf16: bool = False,
    batch_first: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer, time first: x (T, B, I) and ``constants`` (T, B, I_n) beside it, which get no gradient; h0, c0 (B, H).

    ``weights``: weight_ih, weight_hh, bias_ih, bias_hh (or None). Returns y (T, B, H), and the last h and c.
    ``batch_first`` says only how y had better lie in memory.
    """
    w_ih, w_hh, b_ih, b_hh = weights
    assert w_ih is not None and w_hh is not None
    if backend == "native":
        return native.lstm_layer(
            x, h0, c0, w_ih, w_hh, b_ih, b_hh, plan, constants=constants, bf16=bf16, batch_first=batch_first
        )
    x = torch.cat([x, *constants], -1) if constants else x
    if backend == "reference":
        zeros = w_hh.new_zeros(len(w_hh))
        biases = (zeros, zeros) if b_ih is None or b_hh is None else (b_ih, b_hh)
        return reference.lstm_layer(x.to(w_hh.dtype), h0, c0, w_ih, w_hh, *biases, plan)
    return _torch_layer(x, h0, c0, [w for w in weights if w is not None], plan)


def _torch_layer(x: Tensor, h0: Tensor, c0: Tensor, weights: list[Tensor], plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
    early = 0 if plan.steps is None else max(len(x) - plan.steps, 0)
    states = [h0[None].contiguous(), c0[None].contiguous()]
    with torch.no_grad():
        past, *states = _kernel(x[:early], states, weights) if early else (x[:0], *states)
    y, h, c = _kernel(x[early:], states, weights)
    return (torch.cat([past, y]) if early else y), h[0], c[0]


def _kernel(x: Tensor, states: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    return torch._VF.lstm(x, states, weights, len(weights) == 4, 1, 0.0, False, False, False)
