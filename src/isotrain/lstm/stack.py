"""A stack of LSTM layers in which some units are constants: isolated, fed by nothing that trains, and so known
before the pass through the units that do.

Such units are those of ``autonomous`` zones, and of whole layers isolated below the lowest active one. What is left
is a smaller LSTM with more inputs: with Z the constants and A the other units of a layer, the sums into A's gates are

    W_ih[A] x(t) + W_hh[A, A] h_A(t-1) + W_hh[A, Z] h_Z(t-1) + b[A]

so that h_Z(t-1) is one more input, and the recurrence is |A| wide. Nothing here depends on the kernels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from isotrain.lstm.backends import run_layer
from isotrain.lstm.plan import Plan

Weights = tuple[Tensor | None, ...]  # weight_ih (4H, I), weight_hh (4H, H), bias_ih and bias_hh (4H) or None
States = tuple[Tensor, Tensor]  # h and c, (B, H)


@dataclass(frozen=True, eq=False)
class Split:
    """The units of a layer: ``constants`` Z and ``others`` A, indices, in ascending order."""

    constants: Tensor
    others: Tensor

    def merge(self, z: Tensor, a: Tensor) -> Tensor:
        """(..., |Z|) and (..., |A|) to (..., H) in the units' own order."""
        if not len(self.constants):
            return a
        if not len(self.others):
            return z
        return torch.cat([z.to(a.dtype), a], -1).index_select(-1, self._order.to(a.device))

    @cached_property
    def _order(self) -> Tensor:
        return torch.cat([self.constants, self.others]).argsort()


def splits(constants: Sequence[Sequence[int]], hidden: int) -> list[Split]:
    """One split a layer, from the constants of each."""
    return [_split(set(chosen), hidden) for chosen in constants]


def _split(constants: set[int], hidden: int) -> Split:
    is_constant = torch.tensor([unit in constants for unit in range(hidden)])
    return Split(is_constant.nonzero().flatten(), (~is_constant).nonzero().flatten())


def remembered(layers: Sequence[Split]) -> list[slice | None]:
    """The columns of the memory that hold the constants of each layer; None where nobody needs them.

    A layer of constants only, below another such layer, need not be remembered.
    """
    columns: list[slice | None] = []
    first = 0
    for k, split in enumerate(layers):
        idle = not len(split.others) and k + 1 < len(layers) and not len(layers[k + 1].others)
        columns.append(None if idle else slice(first, first + len(split.constants)))
        first += 0 if idle else len(split.constants)
    return columns


@dataclass(frozen=True, eq=False)
class Stack:
    """The layers of an LSTM and how to run them; time comes first everywhere."""

    backend: str
    bf16: bool
    weights: Sequence[Weights]
    plans: Sequence[Plan]
    splits: Sequence[Split]
    dropout: float  # on what the layers above the lowest see; constants are computed without
    batch_first: bool  # how y had better lie in memory; between layers time comes first, as dropout draws its noise

    def run(self, x: Tensor, h0: Tensor, c0: Tensor, memory: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """x (T, B, I), h0 and c0 (L, B, H); ``memory`` (T + 1, B, W): the constants from before the first step on.

        Returns y (T, B, H), and the last h and c (L, B, H). What is remembered is not computed: the last c of such
        units, and both states of a layer that nobody needs, are NaN.
        """
        columns = remembered(self.splits)
        from_active, from_constants = x, x[..., :0]
        undropped = x.detach()
        last_h, last_c = [], []
        y = x
        for k, split in enumerate(self.splits):
            states = (h0[k], c0[k])
            if memory is None:
                z, h_z, c_z = self._constants(k, undropped, states)
                before = torch.cat([states[0][None, :, split.constants].to(z.dtype), z])[:-1]
            else:
                z, before, h_z, c_z = _recalled(memory, columns[k], x, len(split.constants))
            a, h_a, c_a = self._others(k, from_active, from_constants, before, states)
            last_h.append(split.merge(h_z, h_a))
            last_c.append(split.merge(c_z, c_a))
            if k == len(self.splits) - 1:
                y = split.merge(z, a)
            else:
                undropped, from_active, from_constants = z, self._drop(a), self._drop(z)
        return y, torch.stack(last_h), torch.stack(last_c)

    @torch.no_grad()
    def trajectory(self, x: Tensor) -> Tensor:
        """(T + 1, B, W): the memory of one continuous run over x (T, B, I) from a zero state."""
        kept = []
        for k, (split, columns) in enumerate(zip(self.splits, remembered(self.splits), strict=True)):
            hidden = len(split.constants) + len(split.others)
            zero = x.new_zeros(x.shape[1], hidden)
            x, *_ = self._constants(k, x, (zero, zero))
            if columns is not None:
                kept.append(torch.cat([x.new_zeros(1, *x.shape[1:]), x]))
        return torch.cat(kept, -1)

    @torch.no_grad()
    def _constants(self, k: int, x: Tensor, states: States) -> tuple[Tensor, Tensor, Tensor]:
        """Z of layer k over x: the network's input, or Z of the layer below."""
        units = self.splits[k].constants
        if not len(units):
            nothing = x.new_empty(x.shape[1], 0)
            return nothing.expand(len(x), -1, 0), nothing, nothing
        w_ih, w_hh, *biases = self._rows(k, units)
        assert w_ih is not None and w_hh is not None
        if k > 0:
            w_ih = w_ih[:, self.splits[k - 1].constants]
        weights = (w_ih, w_hh[:, units], *biases)
        return run_layer(self.backend, x, states[0][:, units], states[1][:, units], weights, bf16=self.bf16)

    def _others(
        self, k: int, active: Tensor, constants: Tensor, before: Tensor, states: States
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A of layer k. ``active``, ``constants``: from below; ``before``: Z of this layer, one step earlier."""
        units = self.splits[k].others
        if not len(units):
            nothing = states[0].new_empty(len(states[0]), 0)
            return nothing.expand(len(before), -1, 0), nothing, nothing
        weights, h0, c0 = self.weights[k], *states
        if len(units) < h0.shape[1] or constants.shape[-1]:
            w_ih, w_hh, *biases = self._rows(k, units)
            assert w_ih is not None and w_hh is not None
            if k > 0:
                below = self.splits[k - 1]
                w_ih = w_ih[:, torch.cat([below.others, below.constants])]
            weights = (torch.cat([w_ih, w_hh[:, self.splits[k].constants]], 1), w_hh[:, units], *biases)
            h0, c0 = h0[:, units], c0[:, units]
        inputs = [part for part in (active, constants, before) if part.shape[-1]]
        return run_layer(
            self.backend, inputs[0], h0, c0, weights, self.plans[k],
            constants=tuple(inputs[1:]), bf16=self.bf16, batch_first=self.batch_first and k == len(self.splits) - 1,
        )  # fmt: skip

    def _rows(self, k: int, units: Tensor) -> Weights:
        """The rows of the four gates of ``units``, in all weights of layer k."""
        hidden = len(self.splits[k].constants) + len(self.splits[k].others)
        rows = (torch.arange(4)[:, None] * hidden + units).flatten()
        return tuple(None if w is None else w[rows.to(w.device)] for w in self.weights[k])

    def _drop(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, self.dropout) if self.dropout else x


def _recalled(memory: Tensor, columns: slice | None, x: Tensor, units: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Z at every step, Z one step earlier, and the last h and c of Z; NaN where not known."""
    unknown = x.new_full((x.shape[1], units), torch.nan)
    if columns is None:
        nothing = x.new_empty(*x.shape[:2], 0)
        return nothing, nothing, unknown, unknown
    part = memory[..., columns]
    return part[1:], part[:-1], part[-1], unknown
