"""A drop-in ``torch.nn.LSTM`` whose layers and early time steps can be left out of the backward pass."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from isotrain.errors import InputError

Backend = Literal["auto", "torch"]
Compute = Literal["fp32", "bf16"]
States = tuple[Tensor, Tensor]  # h and c, each (layers, batch, hidden)


class LSTM(nn.LSTM):
    """``torch.nn.LSTM``: same parameters, names, state_dict, inputs and outputs, plus :meth:`isolate`.

    With nothing isolated the forward *is* ``nn.LSTM``'s, bit for bit. ``compute="bf16"`` runs the kernels under
    bfloat16 autocast; ``"fp32"`` leaves the surrounding precision as it is.

    Raises :class:`InputError` for an unknown backend or precision.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        batch_first: bool = False,
        dropout: float = 0.0,
        backend: Backend = "auto",
        compute: Compute = "fp32",
    ) -> None:
        if backend not in ("auto", "torch"):
            raise InputError(f"LSTM backend {backend!r} does not exist: use 'auto' or 'torch'")
        if compute not in ("fp32", "bf16"):
            raise InputError(f"LSTM compute {compute!r} does not exist: use 'fp32' or 'bf16'")
        super().__init__(input_size, hidden_size, num_layers, batch_first=batch_first, dropout=dropout)
        self.compute = compute
        self.isolated_layers: frozenset[int] = frozenset()
        self.steps: int | None = None

    def isolate(self, layer: int | Sequence[int] = (), steps: int | None = None) -> None:
        """Replace what is isolated; with no argument everything is active again.

        ``layer``: layers (0 = nearest the input) whose weights get no gradient. Layers below the lowest active
        one run without a graph, so their backward is not computed; an isolated layer above an active one still
        has to pass the gradient on, and the stock kernels then compute its weight gradients and drop them.

        ``steps``: the backward runs over the last ``steps`` time steps only; earlier outputs, inputs and initial
        states get no gradient.

        Raises :class:`InputError` for a layer that does not exist, for all layers, and for ``steps < 1``.
        """
        layers = frozenset([layer] if isinstance(layer, int) else layer)
        if not layers <= set(range(self.num_layers)):
            raise InputError(f"cannot isolate layers {sorted(layers)}: the LSTM has layers 0 to {self.num_layers - 1}")
        if len(layers) == self.num_layers:
            raise InputError(f"all {self.num_layers} layers isolated: nothing of the LSTM would train")
        if steps is not None and steps < 1:
            raise InputError(f"steps = {steps}: the backward needs at least 1 time step")
        self.isolated_layers, self.steps = layers, steps

    def forward(self, input: Any, hx: States | None = None) -> Any:
        """As ``nn.LSTM.forward``; packed sequences only while nothing is isolated (else :class:`InputError`)."""
        with self._precision():
            if not self.training or (not self.isolated_layers and self.steps is None):
                return super().forward(input, hx)
            if isinstance(input, PackedSequence):
                raise InputError("packed sequences cannot be isolated: pad them, or call isolate() with no argument")
            return self._isolated_forward(input, hx)

    def _precision(self) -> AbstractContextManager[Any]:
        if self.compute == "fp32":
            return nullcontext()
        return torch.autocast(next(self.parameters()).device.type, dtype=torch.bfloat16)

    def _isolated_forward(self, x: Tensor, hx: States | None) -> tuple[Tensor, States]:
        batched = x.dim() == 3
        batch_dim, time_dim = (0, 1) if self.batch_first else (1, 0)
        if not batched:
            x = x.unsqueeze(batch_dim)
            hx = None if hx is None else (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
        if hx is None:
            zeros = x.new_zeros(self.num_layers, x.size(batch_dim), self.hidden_size)
            hx = (zeros, zeros)
        early = 0 if self.steps is None else max(x.size(time_dim) - self.steps, 0)
        y, hx = self._truncated(x, hx, early, time_dim)
        if not batched:
            return y.squeeze(batch_dim), (hx[0].squeeze(1), hx[1].squeeze(1))
        return y, hx

    def _truncated(self, x: Tensor, hx: States, early: int, time_dim: int) -> tuple[Tensor, States]:
        """Run the first ``early`` steps without a graph, the rest with one."""
        if early == 0:
            return self._stack(x, hx)
        past, recent = x.split([early, x.size(time_dim) - early], time_dim)
        with torch.no_grad():
            y_past, hx = self._stack(past, hx)
        y_recent, hx = self._stack(recent, hx)
        return torch.cat([y_past, y_recent], time_dim), hx

    def _stack(self, x: Tensor, hx: States) -> tuple[Tensor, States]:
        """Every layer in turn, neighbours of the same standing in one kernel call."""
        last_h, last_c = [], []
        for isolated, group in groupby(range(self.num_layers), key=self.isolated_layers.__contains__):
            layers = list(group)
            if layers[0] > 0:
                x = nn.functional.dropout(x, self.dropout, self.training)
            x, h, c = self._layers(x, hx, layers, isolated)
            last_h.append(h)
            last_c.append(c)
        return x, (torch.cat(last_h), torch.cat(last_c))

    def _layers(self, x: Tensor, hx: States, layers: list[int], isolated: bool) -> tuple[Tensor, Tensor, Tensor]:
        rows = slice(layers[0], layers[-1] + 1)
        names = [name for k in layers for name in self._all_weights[k]]
        weights = [getattr(self, name) for name in names]
        if isolated:
            weights = [weight.detach() for weight in weights]
        states = [hx[0][rows].contiguous(), hx[1][rows].contiguous()]
        return torch._VF.lstm(
            x, states, weights, self.bias, len(layers), self.dropout, self.training, False, self.batch_first
        )
