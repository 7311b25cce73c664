"""Layer and step isolation on torch's own LSTM kernels, whole stacks in one call: the fastest there is on a GPU.

What they can leave out: layers below the lowest active one, and early steps, run without a graph. An isolated layer
above an active one has to pass the gradient on, and the kernels then compute its weight gradients and drop them.
"""

from itertools import groupby

import torch
from torch import Tensor, nn

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
        x, h, c = _kernel(lstm, x, hx, members, isolated)
        last_h.append(h)
        last_c.append(c)
    return x, (torch.cat(last_h), torch.cat(last_c))


def _kernel(lstm: nn.LSTM, x: Tensor, hx: States, layers: list[int], isolated: bool) -> tuple[Tensor, Tensor, Tensor]:
    rows = slice(layers[0], layers[-1] + 1)
    weights = [getattr(lstm, name) for k in layers for name in lstm._all_weights[k]]
    if isolated:
        weights = [weight.detach() for weight in weights]
    states = [hx[0][rows].contiguous(), hx[1][rows].contiguous()]
    return torch._VF.lstm(
        x, states, weights, lstm.bias, len(layers), lstm.dropout, lstm.training, False, lstm.batch_first
    )
