"""A drop-in ``torch.nn.LSTM`` that can leave layers, units and early time steps out of the backward pass."""

import logging
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from isotrain.errors import InputError
from isotrain.lstm import backends as stock
from isotrain.lstm.backends import BACKENDS, Backend, Choice, choose
from isotrain.lstm.kernels import layer as native
from isotrain.lstm.memory import lanes, whole
from isotrain.lstm.plan import EVERYTHING, Isolated, Mode, Units, isolated
from isotrain.lstm.stack import Stack, remembered, splits

log = logging.getLogger(__name__)

Compute = Literal["fp32", "bf16"]
States = tuple[Tensor, Tensor]  # h and c, each (layers, batch, hidden)
_NOTHING = Isolated()


class LSTM(nn.LSTM):
    """``torch.nn.LSTM``: same parameters, names, state_dict, inputs and outputs, plus :meth:`isolate`.

    Args:
        backend: ``"native"``: our kernels for CPUs (float32 parameters). ``"torch"``: torch's; with nothing
            isolated the forward then *is* ``nn.LSTM``'s, bit for bit. ``"reference"``: plain torch, any device and
            precision, slow. ``"auto"``: the fastest that can do what is asked; it says in the log which and why.
        compute: ``"bf16"``: products in bfloat16, accumulated in float32, the outputs in the parameters' precision;
            ``"fp32"``: as the parameters are, or as a surrounding autocast says.

    Raises :class:`InputError` for an unknown backend or precision.
    """

    weight_hh_l0: Tensor  # made by nn.LSTM

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
        if backend not in BACKENDS:
            raise InputError(f"LSTM backend {backend!r} does not exist: use one of {', '.join(BACKENDS)}")
        if compute not in ("fp32", "bf16"):
            raise InputError(f"LSTM compute {compute!r} does not exist: use 'fp32' or 'bf16'")
        super().__init__(input_size, hidden_size, num_layers, batch_first=batch_first, dropout=dropout)
        self.backend: Backend = backend
        self.compute = compute
        self.chosen: Choice | None = None  # of the last forward
        self.severed: dict[str, Tensor] = {}  # the arcs that autonomous isolation has set to 0, as they were
        self._all_others = splits([()] * num_layers, hidden_size)
        self.isolate()

    def isolate(
        self,
        layer: int | Iterable[int] = (),
        units: Units | Mapping[int, Units] = (),
        mode: Mode = "exact",
        steps: int | None = None,
        recent: int = 0,
    ) -> None:
        """Replace what is isolated; with no argument everything is active again.

        Args:
            layer: layers (0 = nearest the input) whose weights get no gradient. Layers below the lowest active one
                run without a backward. An isolated layer above an active one passes the gradient on.
            units: hidden units whose weights (their four gate rows) get no gradient: indices for every layer, or
                a mapping from layer to indices.
            mode: of the units. ``"exact"``: all other gradients are what they were. ``"cut"``: no gradient passes
                through the units any more either. ``"autonomous"``: nor does an active unit feed them in the
                forward: these arcs are set to 0 (:meth:`mend` puts them back), so that the units are a function
                of the input alone and can be remembered. ``"masked"``: everything is computed (the control).
            steps: the backward runs over the last ``steps`` time steps only; earlier outputs, inputs and initial
                states get no gradient.
            recent: for ``"cut"``: in so many last time steps the units take part all the same.

        Raises :class:`InputError` for layers and units that do not exist, for everything at once, and for settings
        that do not go together.
        """
        asked = isolated(self.num_layers, self.hidden_size, layer, units, mode, steps, recent)
        self.isolated = asked
        self._plans = [asked.plan(k, self.hidden_size) for k in range(self.num_layers)]
        self._splits = splits(asked.constants(self.num_layers, self.hidden_size), self.hidden_size)
        if asked.autonomous:
            self._sever()

    def mend(self) -> None:
        """Put back the arcs that ``autonomous`` isolation has cut, on top of what has grown there since.

        Raises :class:`InputError` while units are isolated in that mode.
        """
        if self.isolated.autonomous:
            raise InputError("mend() while units are autonomous: thaw them first, by isolate()")
        with torch.no_grad():
            for name, arcs in self.severed.items():
                weight = getattr(self, name)
                weight.add_(arcs.to(weight))
        self.severed.clear()

    def remember(self, series: Tensor, warm: int | None = None) -> Tensor:
        """The isolated units that depend on the input alone, over ``series`` (n, I).

        ``warm=None``: in one continuous run. A number of steps: in stretches side by side, each warmed up over so
        many steps before it (:mod:`isotrain.lstm.memory`), much faster for a long series.

        Returns the memory (n + 1, W), row 0 before the first step: what ``forward(memory=...)`` takes rows of. It
        holds for as long as these units' weights do, which is until the next :meth:`isolate`.

        Raises :class:`InputError` if nothing of the kind is isolated: it takes units in mode ``"autonomous"``, or
        all layers up to some layer.
        """
        if not self.memory_width:
            raise InputError("nothing to remember: isolate units in mode 'autonomous', or the lowest layers")
        series = series.to(self.weight_hh_l0.dtype)
        x = series[:, None] if warm is None else lanes(series, warm)
        with self._precision(x):
            memory = self._stack(self._choose(x, _NOTHING).name, self.isolated, True).trajectory(x)
        return memory[:, 0] if warm is None else torch.cat([memory[:1, 0], whole(memory[1:], warm, len(series))])

    @torch.no_grad()
    def layer_states(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """h and c of each layer after every step, each (T, B, H), over x (T, B, I) from a zero state.

        Raises :class:`InputError` where the native kernels cannot be used: torch's keep their cell states.
        """
        bf16 = self._bf16(x)
        choose("native", x, self.weight_hh_l0.dtype, bf16, by_unit=False)
        answer = []
        for names in self._all_weights:
            weights = [getattr(self, name) for name in names]
            answer.append(native.layer_states(x, (*weights, *[None] * (4 - len(weights))), bf16))
            x = answer[-1][0]
        return answer

    @property
    def memory_width(self) -> int:
        """Columns of a memory: 0 if nothing can be remembered."""
        return max((c.stop for c in remembered(self._splits) if c is not None), default=0)

    def forward(self, input: Any, hx: States | None = None, memory: Tensor | None = None) -> Any:
        """As ``nn.LSTM.forward``; packed sequences only while nothing is isolated (else :class:`InputError`).

        ``memory`` (T + 1, B, W), (B, T + 1, W) if ``batch_first``, (T + 1, W) for one sequence without a batch: rows
        of :meth:`remember`'s answer, from the one before the first step on. The units in it are then not computed;
        their last cell state, which a memory does not hold, is returned as NaN.
        """
        if isinstance(input, PackedSequence):
            if not self.isolated.nothing or self.backend not in ("auto", "torch"):
                raise InputError("packed sequences are for torch's kernels with nothing isolated: pad them")
            with self._precision(input.data):
                packed, (h, c) = super().forward(input, hx)
            return self._finished(packed), (self._finished(h), self._finished(c))
        if input.dim() == 3:
            return self._batched(input, hx, memory)
        batch = 0 if self.batch_first else 1
        if hx is not None:
            hx = (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
        memory = None if memory is None else memory.unsqueeze(batch)
        y, (h, c) = self._batched(input.unsqueeze(batch), hx, memory)
        return y.squeeze(batch), (h.squeeze(1), c.squeeze(1))

    def _batched(self, x: Tensor, hx: States | None, memory: Tensor | None) -> tuple[Tensor, States]:
        asked = self.isolated if self.training else _NOTHING  # a trained network is the same whatever was isolated
        constants = memory is not None or asked.autonomous
        choice = self._choose(x, asked)
        if hx is None:
            zeros = self.weight_hh_l0.new_zeros(self.num_layers, x.size(0 if self.batch_first else 1), self.hidden_size)
            hx = (zeros, zeros)
        self.check_forward_args(x, hx, None)
        self._check_memory(x, memory)
        with self._precision(x):
            if choice.name == "torch" and not constants:
                y, (h, c) = stock.run(self, asked.layers, asked.steps, x, hx)
                return self._finished(y), (self._finished(h), self._finished(c))
            if self.batch_first:
                x, memory = x.transpose(0, 1), None if memory is None else memory.transpose(0, 1)
            fed_by_training = x.requires_grad or any(state.requires_grad for state in hx)
            stack = self._stack(choice.name, asked, constants or bool(asked.layers and not fed_by_training))
            h0, c0 = (state.to(self.weight_hh_l0.dtype) for state in hx)
            y, h, c = stack.run(x, h0, c0, memory)
        y = y.transpose(0, 1) if self.batch_first else y
        return self._finished(y), (self._finished(h), self._finished(c))

    def _stack(self, backend: str, asked: Isolated, constants: bool) -> Stack:
        weights: list[Any] = []
        for k, names in enumerate(self._all_weights):
            layer = [getattr(self, name).detach() if k in asked.layers else getattr(self, name) for name in names]
            weights.append((*layer, *[None] * (4 - len(layer))))
        return Stack(
            backend,
            self._bf16(self.weight_hh_l0),
            weights,
            self._plans if asked is self.isolated else [EVERYTHING] * self.num_layers,
            self._splits if constants else self._all_others,
            self.dropout if self.training else 0.0,
            self.batch_first,
        )

    def _choose(self, x: Tensor, asked: Isolated) -> Choice:
        choice = choose(self.backend, x, self.weight_hh_l0.dtype, self._bf16(x), asked.by_unit)
        if choice != self.chosen:
            log.info("LSTM(%d, %d, %d layers): %s", self.input_size, self.hidden_size, self.num_layers, choice)
            self.chosen = choice
        return choice

    def _bf16(self, x: Tensor) -> bool:
        kind = x.device.type
        surrounding = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        return self.compute == "bf16" or (surrounding and torch.get_autocast_dtype(kind) == torch.bfloat16)

    def _precision(self, x: Tensor) -> AbstractContextManager[Any]:
        if self.compute == "fp32":
            return nullcontext()
        return torch.autocast(x.device.type, dtype=torch.bfloat16)

    def _finished(self, output: Any) -> Any:
        return output.to(self.weight_hh_l0.dtype) if self.compute == "bf16" else output

    def _check_memory(self, x: Tensor, memory: Tensor | None) -> None:
        if memory is None:
            return
        if not self.memory_width:
            raise InputError("memory was given, but nothing isolated can be remembered: see remember()")
        time = 1 if self.batch_first else 0
        expected = [*x.shape[:2], self.memory_width]
        expected[time] += 1
        if list(memory.shape) != expected:
            raise InputError(f"memory has shape {tuple(memory.shape)}, expected {tuple(expected)}: one row more than x")

    @torch.no_grad()
    def _sever(self) -> None:
        """Set the arcs from active into autonomous units to 0, and keep what they were."""
        for k, split in enumerate(self._splits):
            rows = (torch.arange(4)[:, None] * self.hidden_size + split.constants).flatten()
            fed_by = [(f"weight_hh_l{k}", split.others)]
            if k > 0:
                fed_by.append((f"weight_ih_l{k}", self._splits[k - 1].others))
            for name, columns in fed_by:
                weight = getattr(self, name)
                arcs = torch.zeros_like(weight)
                where = (rows[:, None].to(weight.device), columns.to(weight.device))
                arcs[where] = weight[where]
                self.severed[name] = arcs + self.severed.get(name, arcs.new_zeros(())).to(arcs)
                weight[where] = 0.0
