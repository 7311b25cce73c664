"""Which code computes an LSTM, and why: the compiled kernels for CPUs, torch's kernels, or the reference.

:func:`choose` decides, once for a call; the :class:`Backend` that it answers says why and runs a layer. All calls of
torch's kernels are in :func:`torch_lstm`.
"""

from dataclasses import dataclass
from itertools import groupby
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from isotrain.errors import InputError
from isotrain.lstm import credit, cudnn, reference
from isotrain.lstm.kernels import build
from isotrain.lstm.kernels import layer as native
from isotrain.lstm.plan import EVERYTHING, Isolated, Plan
from isotrain.lstm.precision import on_gpu, product_type

States = tuple[Tensor, Tensor]  # h and c, each (layers, batch, hidden)
Weights = tuple[Tensor, ...]  # of a layer: weight_ih (4H, I), weight_hh (4H, H), and bias_ih, bias_hh (4H) if any
BackendName = Literal["auto", "native", "torch", "reference"]
BACKENDS: tuple[BackendName, ...] = get_args(BackendName)
SMALL = 64  # below so many cells (steps x samples) a call packs weights for longer than it computes


@dataclass(frozen=True)
class Backend:
    """The code that computes, and why it was taken.

    Attributes:
        name: ``native``, ``torch`` or ``reference``.
        why: the reason, for people.
        bf16: whether the products are in bfloat16.
    """

    name: str
    why: str
    bf16: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.why})"

    def run_layer(
        self,
        x: Tensor,
        h0: Tensor,
        c0: Tensor,
        weights: Weights,
        plan: Plan = EVERYTHING,
        *,
        constants: tuple[Tensor, ...] = (),
        batch_first: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One layer, time first: x (T, B, I) and ``constants`` (T, B, I_n) beside it, which get no gradient.

        Returns y (T, B, H), and the last h and c (B, H). ``batch_first`` says only how y had better lie in memory.
        The torch backend knows of a plan its ``steps`` and its ``credit``.
        """
        w_ih, w_hh, *biases = weights
        if self.name == "native":
            b_ih, b_hh = biases or (None, None)
            return native.lstm_layer(
                x, h0, c0, w_ih, w_hh, b_ih, b_hh, plan, constants=constants, bf16=self.bf16, batch_first=batch_first
            )
        x = torch.cat([x, *constants], -1) if constants else x
        if self.name == "reference":
            b_ih, b_hh = biases or (w_hh.new_zeros(len(w_hh)),) * 2
            return reference.lstm_layer(x.to(w_hh.dtype), h0, c0, w_ih, w_hh, b_ih, b_hh, plan)
        if plan.credit != "full" and torch.is_grad_enabled():
            return _torch_credit(x, (h0, c0), weights, plan)
        y, (h, c) = torch_lstm(x, (h0[None], c0[None]), list(weights), bias=bool(biases), steps=plan.steps)
        return y, h[0], c[0]

    def run_states(self, x: Tensor, h0: Tensor, c0: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
        """The outputs (T, B, H) of one layer, and its cells (T + 1, B, H) before the first step and after each.

        Without a graph, and without what a backward would need. Arguments as of :meth:`run_layer`.
        """
        w_ih, w_hh, *biases = weights
        if self.name == "native":
            b_ih, b_hh = biases or (None, None)
            return native.lstm_states(x, h0, c0, w_ih, w_hh, b_ih, b_hh, bf16=self.bf16)
        with torch.no_grad():
            y, *_ = self.run_layer(x, h0, c0, weights)
        return y, credit.cells_of(x.to(y.dtype), h0, c0, weights, y)


def choose(
    wanted: BackendName, x: Tensor, dtype: torch.dtype, bf16: bool, *, own_backward: str = "", torch_only: str = ""
) -> Backend:
    """The backend for input ``x`` and weights of ``dtype``.

    Args:
        own_backward: what torch's kernels cannot leave out of their backward ("isolated units"); empty: nothing.
        torch_only: what the LSTM or its input is that only torch's kernels know ("bidirectional"); empty: nothing.

    Raises :class:`InputError` where the wanted backend cannot do what is asked.
    """
    if wanted == "torch" and own_backward:
        raise InputError(
            f"LSTM backend 'torch' always computes every unit's gradient: {own_backward} need backend 'native' or "
            "'reference' (units also mode 'autonomous' or 'masked')"
        )
    require_torch(wanted, torch_only)
    if wanted in ("torch", "reference"):
        return Backend(wanted, "asked for", bf16)
    missing = f"only torch's kernels compute {torch_only}" if torch_only else _native_lacks(x, dtype, bf16)
    if wanted == "native":
        if missing:
            raise InputError(f"LSTM backend 'native': {missing}")
        return Backend(wanted, "asked for", bf16)
    if not missing and x.shape[0] * x.shape[1] >= SMALL:
        return Backend("native", f"a float32 CPU network, {'bf16' if bf16 else 'fp32'} products", bf16)
    if own_backward:
        why = f"{own_backward} need our own backward, and for the kernels {missing or 'it is small'}"
        return Backend("reference", why, bf16)
    return Backend("torch", missing or "too small for our kernels to pay", bf16)


def require_torch(wanted: BackendName, torch_only: str) -> None:
    """Raise :class:`InputError` if a backend was asked for that does not know what only torch's kernels know."""
    if torch_only and wanted not in ("auto", "torch"):
        raise InputError(f"LSTM backend {wanted!r} cannot compute {torch_only}: use backend 'torch' or 'auto'")


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


def torch_stack(lstm: nn.LSTM, asked: Isolated, x: Tensor, hx: States) -> tuple[Tensor, States]:
    """All layers of ``lstm`` on torch's kernels, neighbours that are isolated alike in one call.

    Layers below the lowest active one keep nothing for a backward. An isolated layer above an active one passes the
    gradient on: the kernels then compute its weight gradients, which are dropped. On a GPU layers are called one by one
    where that is what cuDNN's persistent kernels ask for.
    """
    directions = 2 if lstm.bidirectional else 1
    one_way = not lstm.bidirectional and not lstm.proj_size
    weight: Tensor = getattr(lstm, lstm._all_weights[0][1])
    apart = one_way and on_gpu(x) and cudnn.widens(lstm.hidden_size, product_type(x, weight))
    batch_first = lstm.batch_first and not apart
    if apart and lstm.batch_first:
        x = x.transpose(0, 1)
    last_h, last_c = [], []
    for _, group in groupby(range(lstm.num_layers), key=lambda k: (k in asked.layers, apart and k)):
        members = list(group)
        isolated = members[0] in asked.layers
        if members[0] > 0:
            x = nn.functional.dropout(x, lstm.dropout, lstm.training)
        rows = slice(members[0] * directions, (members[-1] + 1) * directions)
        weights = [getattr(lstm, name) for names in lstm._all_weights[rows] for name in names]
        if isolated:
            weights = [weight.detach() for weight in weights]
        x, (h, c) = torch_lstm(
            x, (hx[0][rows], hx[1][rows]), weights, bias=lstm.bias, layers=len(members), steps=asked.steps,
            dropout=lstm.dropout if len(members) > 1 else 0.0, training=lstm.training,
            bidirectional=lstm.bidirectional, batch_first=batch_first,
        )  # fmt: skip
        last_h.append(h)
        last_c.append(c)
    x = x.transpose(0, 1) if apart and lstm.batch_first else x
    return x, (torch.cat(last_h), torch.cat(last_c))


def torch_lstm(
    x: Tensor,
    hx: States,
    weights: list[Tensor],
    *,
    bias: bool,
    layers: int = 1,
    steps: int | None = None,
    dropout: float = 0.0,
    training: bool = True,
    bidirectional: bool = False,
    batch_first: bool = False,
) -> tuple[Tensor, States]:
    """Torch's kernels over ``layers`` at once; all but the last ``steps`` time steps run without a graph.

    ``training``: dropout acts, and cuDNN keeps what its backward needs. On a GPU as :func:`isotrain.lstm.cudnn.tuned`.
    """
    time = 1 if batch_first else 0
    early = 0 if steps is None else max(x.size(time) - steps, 0)

    def plain(x: Tensor, hx: States, weights: list[Tensor]) -> tuple[Tensor, States]:
        states = [state.contiguous() for state in hx]
        y, h, c = torch._VF.lstm(x, states, weights, bias, layers, dropout, training, bidirectional, batch_first)
        return y, (h, c)

    def run(x: Tensor, hx: States) -> tuple[Tensor, States]:
        if not on_gpu(x):
            return plain(x, hx, weights)
        alone = layers == 1 and not (bidirectional or batch_first) and hx[0].shape == hx[1].shape
        return cudnn.tuned(plain, x, hx, weights, alone=alone)

    if early == 0:
        return run(x, hx)
    past, recent = x.split([early, x.size(time) - early], time)
    with torch.no_grad():
        y_past, hx = run(past, hx)
    y_recent, hx = run(recent, hx)
    return torch.cat([y_past, y_recent], time), hx


def _torch_credit(x: Tensor, states: States, weights: Weights, plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
    """One layer on torch's kernels without a graph; its graph is made afterwards, of what needs no step in turn."""
    kept = 0 if plan.steps is None else max(len(x) - plan.steps, 0)
    bias, hx = len(weights) == 4, (states[0][None], states[1][None])
    outputs: list[Tensor] = []
    with torch.no_grad():
        for stretch in x.split([kept, len(x) - kept]) if kept else (x,):
            before = (hx[0][0].to(states[0].dtype), hx[1][0].to(states[1].dtype)) if outputs else states
            y, hx = torch_lstm(stretch, hx, list(weights), bias=bias)
            outputs.append(y)
    y, h, c = credit.with_graph(x[kept:], *before, weights, outputs[-1], cell=plan.credit == "cell")
    return torch.cat([*outputs[:-1], y]), h, c
