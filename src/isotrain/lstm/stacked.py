"""Many LSTMs of one shape, each on a batch of its own, in the time of one: the seeds of a study on a GPU.

A small network leaves most of a GPU idle. Here the weights of N networks are stacked, and each product is a batch of N
products. Without credit through time (:mod:`isotrain.lstm.credit`) the backward is two of them a layer; with it, each
step of the backward is one, and so is each step of any forward, which cuDNN does better for one network.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from isotrain.errors import InputError
from isotrain.lstm.credit import from_sums
from isotrain.lstm.plan import CREDITS, Credit
from isotrain.lstm.precision import on_gpu


class StackedLSTM(nn.Module):
    """N LSTMs of one shape, one direction, time first, nothing dropped between layers.

    Args:
        lstms: whose weights it starts from; they are copied.
        credit: the gradient that a step sends to the step before, in all of them: ``"full"``, ``"cell"`` or ``"none"``
            (:meth:`isotrain.lstm.LSTM.isolate`).

    Raises :class:`InputError` for LSTMs of several shapes or kinds, for two directions, projections, dropout between
    layers, and for an unknown credit.

    Example:
        >>> from isotrain.lstm import LSTM
        >>> seeds = [LSTM(3, 8) for _ in range(16)]
        >>> stacked = StackedLSTM(seeds, credit="none")
        >>> y, (h, c) = stacked(torch.randn(24, 16, 4, 3))     # hours, networks, windows of each, inputs
        >>> y.shape
        torch.Size([24, 16, 4, 8])
        >>> y.sum().backward()
        >>> stacked.copy_to(seeds)
    """

    def __init__(self, lstms: Sequence[nn.LSTM], credit: Credit = "full") -> None:
        super().__init__()
        kinds = {(m.input_size, m.hidden_size, m.num_layers, m.bias, m.bidirectional, m.proj_size) for m in lstms}
        if len(kinds) != 1:
            raise InputError(f"{len(lstms)} LSTMs of {len(kinds)} shapes cannot be stacked: give some of one shape")
        first = lstms[0]
        if first.bidirectional or first.proj_size or (first.dropout and first.num_layers > 1):
            raise InputError("LSTMs with two directions, projections or dropout cannot be stacked")
        if credit not in CREDITS:
            raise InputError(f"credit {credit!r} is unknown: use one of {', '.join(CREDITS)}")
        self.credit: Credit = credit
        self.names: list[list[str]] = first._all_weights
        with torch.no_grad():
            for name in (name for names in self.names for name in names):
                self.register_parameter(name, nn.Parameter(torch.stack([m.get_parameter(name) for m in lstms])))

    @torch.no_grad()
    def copy_to(self, lstms: Sequence[nn.LSTM]) -> None:
        """Write the weights of each network into an LSTM of its own."""
        for name, whole in self.named_parameters():
            for lstm, own in zip(lstms, whole, strict=True):
                lstm.get_parameter(name).copy_(own)

    def forward(self, x: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x (T, N, B, I) to the outputs (T, N, B, H), and the last h and c (L, N, B, H), in which form ``hx`` is."""
        last_h, last_c = [], []
        for k, names in enumerate(self.names):
            weights: list[Tensor] = [self.get_parameter(name) for name in names]
            zero = weights[1].new_zeros(*x.shape[1:3], weights[1].shape[-1])
            h, c = (hx[0][k], hx[1][k]) if hx is not None else (zero, zero)
            x, h, c = _layer(x, h, c, weights, self.credit)
            last_h.append(h)
            last_c.append(c)
        return x, (torch.stack(last_h), torch.stack(last_c))


def _layer(x: Tensor, h: Tensor, c: Tensor, weights: list[Tensor], credit: Credit) -> tuple[Tensor, Tensor, Tensor]:
    if credit == "full" or not torch.is_grad_enabled():
        return _run(x, h, c, weights)
    with torch.no_grad():
        y, *_ = _run(x, h, c, weights)
        before = torch.cat([h[None].to(y.dtype), y[:-1]])
    sums = _product(x, weights[0]) + _product(before, weights[1])
    if len(weights) == 4:
        sums = sums + (weights[2] + weights[3])[:, None]
    one = sums.flatten(1, 2)  # of N networks with B sequences one with N B: from here on nothing tells them apart
    found = from_sums(one, c.flatten(0, 1), y.dtype, cell=credit == "cell", on_gpu=on_gpu(x))
    y, h, c = (part.unflatten(-2, x.shape[1:3]) for part in found)
    return y, h, c


def _run(x: Tensor, h: Tensor, c: Tensor, weights: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """One layer step by step."""
    w_hh = weights[1].transpose(1, 2)
    bias = (weights[2] + weights[3])[:, None] if len(weights) == 4 else 0
    outputs = []
    for known in (_product(x, weights[0]) + bias).unbind(0):
        i, f, g, o = torch.baddbmm(known, h, w_hh).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs), h, c


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """(T, N, B, I) and (N, O, I) to (T, N, B, O): for each network one product of all steps and sequences."""
    steps = x.shape[0]
    by_network = x.transpose(0, 1).flatten(1, 2)
    return torch.bmm(by_network, weight.transpose(1, 2)).unflatten(1, (steps, -1)).transpose(0, 1)
