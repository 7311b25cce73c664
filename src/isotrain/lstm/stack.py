"""Layers of which some units are constants: isolated and fed by nothing that trains, so known beforehand.

Such units are those of ``autonomous`` zones, and of whole layers isolated below the lowest active one. What is left
is a smaller LSTM with more inputs: with Z the constants and A the other units of a layer, the sums into A's gates are

    W_ih[A] x(t) + W_hh[A, A] h_A(t-1) + W_hh[A, Z] h_Z(t-1) + b[A]

so that h_Z(t-1) is one more input, and the recurrence is |A| wide. Nothing here depends on the kernels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from isotrain.lstm.backends import Backend, Weights
from isotrain.lstm.memory import columns, recall
from isotrain.lstm.plan import Plan

LayerStates = tuple[Tensor, Tensor]  # h and c of one layer, (B, H)


@dataclass(frozen=True, eq=False)
class Split:
    """The units of a layer: ``constants`` Z and ``others`` A, indices, in ascending order."""

    constants: Tensor
    others: Tensor
    _elsewhere: dict[torch.device, "Split"] = field(default_factory=dict, init=False, repr=False)

    def on(self, device: torch.device) -> "Split":
        """The same on a device; it is kept, so that a step copies nothing there."""
        if self.constants.device == device:
            return self
        if device not in self._elsewhere:
            self._elsewhere[device] = Split(self.constants.to(device), self.others.to(device))
        return self._elsewhere[device]

    def merge(self, z: Tensor, a: Tensor) -> Tensor:
        """(..., |Z|) and (..., |A|) to (..., H) in the units' own order."""
        if not len(self.constants):
            return a
        if not len(self.others):
            return z
        return torch.cat([z.to(a.dtype), a], -1).index_select(-1, self._order)

    @cached_property
    def _order(self) -> Tensor:
        return torch.cat([self.constants, self.others]).argsort()


def splits(constants: Sequence[Sequence[int]], hidden: int) -> list[Split]:
    """One split a layer, from the constants of each."""
    return [_split(set(chosen), hidden) for chosen in constants]


def _split(constants: set[int], hidden: int) -> Split:
    is_constant = torch.tensor([unit in constants for unit in range(hidden)])
    return Split(is_constant.nonzero().flatten(), (~is_constant).nonzero().flatten())


@dataclass(frozen=True, eq=False)
class Stack:
    """The layers of an LSTM and how to run them; time comes first everywhere."""

    backend: Backend
    weights: Sequence[Weights]
    plans: Sequence[Plan]
    splits: Sequence[Split]
    dropout: float  # on what the layers above the lowest see; constants are computed without
    batch_first: bool  # how y had better lie in memory; between layers time comes first, as dropout draws its noise

    def run(self, x: Tensor, h0: Tensor, c0: Tensor, memory: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """x (T, B, I), h0 and c0 (L, B, H); ``memory`` (T + 1, B, W): the constants from before the first step on.

        Returns y (T, B, H), and the last h and c (L, B, H). What is remembered is not computed: the last c of such
        units, and both states of a layer that is not needed, are NaN.
        """
        where = columns(self.splits)
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
                z, before, h_z, c_z = recall(memory, where[k], x, len(split.constants))
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
        for k, (split, at) in enumerate(zip(self.splits, columns(self.splits), strict=True)):
            hidden = len(split.constants) + len(split.others)
            zero = x.new_zeros(x.shape[1], hidden)
            x, *_ = self._constants(k, x, (zero, zero))
            if at is not None:
                kept.append(torch.cat([x.new_zeros(1, *x.shape[1:]), x]))
        return torch.cat(kept, -1)

    @torch.no_grad()
    def _constants(self, k: int, x: Tensor, states: LayerStates) -> tuple[Tensor, Tensor, Tensor]:
        """Z of layer k over x: the network's input, or Z of the layer below."""
        units = self.splits[k].constants
        if not len(units):
            nothing = x.new_empty(x.shape[1], 0)
            return nothing.expand(len(x), -1, 0), nothing, nothing
        w_ih, w_hh, *biases = self._rows(k, units)
        if k > 0:
            w_ih = w_ih[:, self.splits[k - 1].constants]
        weights = (w_ih, w_hh[:, units], *biases)
        return self.backend.run_layer(x, states[0][:, units], states[1][:, units], weights)

    def _others(
        self, k: int, active: Tensor, constants: Tensor, before: Tensor, states: LayerStates
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A of layer k. ``active``, ``constants``: from below; ``before``: Z of this layer, one step earlier."""
        units = self.splits[k].others
        if not len(units):
            nothing = states[0].new_empty(len(states[0]), 0)
            return nothing.expand(len(before), -1, 0), nothing, nothing
        weights, h0, c0 = self.weights[k], *states
        if len(units) < h0.shape[1] or constants.shape[-1]:
            w_ih, w_hh, *biases = self._rows(k, units)
            if k > 0:
                below = self.splits[k - 1]
                w_ih = w_ih[:, torch.cat([below.others, below.constants])]
            weights = (torch.cat([w_ih, w_hh[:, self.splits[k].constants]], 1), w_hh[:, units], *biases)
            h0, c0 = h0[:, units], c0[:, units]
        inputs = [part for part in (active, constants, before) if part.shape[-1]]
        return self.backend.run_layer(
            inputs[0], h0, c0, weights, self.plans[k],
            constants=tuple(inputs[1:]), batch_first=self.batch_first and k == len(self.splits) - 1,
        )  # fmt: skip

    def _rows(self, k: int, units: Tensor) -> Weights:
        """The rows of the four gates of ``units``, in all weights of layer k."""
        hidden = len(self.splits[k].constants) + len(self.splits[k].others)
        rows = (torch.arange(4, device=units.device)[:, None] * hidden + units).flatten()
        return tuple(w[rows] for w in self.weights[k])

    def _drop(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, self.dropout) if self.dropout else x
