"""A drop-in ``torch.nn.LSTM`` that can leave layers, units, early time steps and credit out of the backward."""

import logging
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from isotrain.errors import InputError
from isotrain.lstm.backends import BACKENDS, Backend, BackendName, States, choose, require_torch, torch_stack
from isotrain.lstm.memory import columns, joined, stretches
from isotrain.lstm.plan import EVERYTHING, Credit, Isolated, Mode, Plan, Units, isolated
from isotrain.lstm.precision import on_gpu
from isotrain.lstm.stack import Stack, splits

log = logging.getLogger(__name__)

Compute = Literal["fp32", "bf16", "fp16"]
_TYPES: dict[Compute, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
_NOTHING = Isolated()


class LSTM(nn.LSTM):
    """``torch.nn.LSTM``: same arguments, parameters, state_dict, inputs and outputs, plus :meth:`isolate`.

    The arguments of ``nn.LSTM`` come first, in its order, then those of our own, by keyword only. Two directions and
    projections are computed by torch's kernels, where whole layers can be isolated but no units; packed sequences
    too, while nothing is isolated.

    Args:
        backend: ``"native"``: our kernels for CPUs (float32 parameters). ``"torch"``: torch's; with nothing
            isolated the forward then *is* ``nn.LSTM``'s, bit for bit. ``"reference"``: plain torch, any device and
            precision, slow. ``"auto"``: the fastest that can do what is asked; :meth:`backend_for` says which and why.
        compute: ``"bf16"``: products in bfloat16, accumulated in float32, the outputs in the parameters' precision;
            ``"fp16"``: in float16 on a GPU, where cuDNN's fastest kernels need it (:mod:`isotrain.lstm.precision`), and
            as ``"fp32"`` on a CPU;
            ``"fp32"``: as the parameters are, or as a surrounding autocast says.

    Attributes:
        isolated: what is isolated now.
        chosen: the backend of the last forward; None before the first.

    Raises :class:`InputError` for an unknown backend or precision, and for ``backend="native"`` or ``"reference"``
    with ``bidirectional`` or ``proj_size``.

    Example:
        >>> import torch
        >>> from isotrain.lstm import LSTM
        >>> lstm = LSTM(3, 8, num_layers=2, batch_first=True)
        >>> x = torch.randn(4, 24, 3)                        # windows, hours, inputs
        >>> lstm.isolate(layer=0, steps=6)                   # layer 0 rests; the backward covers the last 6 hours
        >>> y, (h, c) = lstm(x)
        >>> y[:, -1].sum().backward()
        >>> [name for name, p in lstm.named_parameters() if p.grad is not None]
        ['weight_ih_l1', 'weight_hh_l1', 'bias_ih_l1', 'bias_hh_l1']
        >>> lstm.isolate(credit="cell")                      # the backward goes along the cell state alone
        >>> lstm.isolate()                                   # everything is active again
    """

    weight_hh_l0: Tensor  # made by nn.LSTM

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        backend: BackendName = "auto",
        compute: Compute = "fp32",
    ) -> None:
        if backend not in BACKENDS:
            raise InputError(f"LSTM backend {backend!r} does not exist: use one of {', '.join(BACKENDS)}")
        if compute not in get_args(Compute):
            raise InputError(f"LSTM compute {compute!r} does not exist: use one of {', '.join(get_args(Compute))}")
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, device, dtype
        )
        require_torch(backend, self._torch_only)
        self.backend: BackendName = backend
        self.compute = compute
        self.chosen: Backend | None = None
        self._all_others = splits([()] * num_layers, hidden_size)
        self.isolate()

    def isolate(
        self,
        layer: int | Iterable[int] = (),
        units: Units | Mapping[int, Units] = (),
        mode: Mode = "exact",
        steps: int | None = None,
        credit: Credit | Mapping[int, Credit] = "full",
        part: int | Units = (),
    ) -> None:
        """Replace what is isolated; with no argument everything is active again.

        Args:
            layer: layers (0 = nearest the input) whose weights get no gradient. Layers below the lowest active one
                run without a backward. An isolated layer above an active one passes the gradient on.
            units: hidden units whose weights (their four gate rows) get no gradient: indices for every layer, or
                a mapping from layer to indices.
            mode: of the units. ``"exact"``: all other gradients are what they were. ``"cut"``: no gradient passes
                through the units any more either. ``"autonomous"``: nor does an active unit feed them in the
                forward: the weights by which it would are set to 0, for good, so that the units are a function of
                the input alone and can be remembered. ``"masked"``: everything is computed (the control).
            steps: the backward runs over the last ``steps`` time steps only; earlier outputs, inputs and initial
                states get no gradient. In :meth:`outputs_at`: over the last ``steps`` before each step that is read.
            credit: the gradient that a step sends to the step before, in every layer, or a mapping from layer to it
                (layers not named: full). ``"full"``: through the recurrent weights and along the cell. ``"cell"``:
                along the cell only (the truncated gradient of Hochreiter and Schmidhuber 1997). ``"none"``: neither.
                All weights learn in each of them, and what goes down to the layer below at the same step is exact for
                the gradient that is left.
            part: with ``credit="cell"``, units that get credit through the recurrent weights all the same: indices, or
                a number n for units 0 to n-1 (any are as good as others before training).

        Raises :class:`InputError` for layers and units that do not exist, for everything at once, and for settings
        that do not go together: units and credit with two directions or projections, steps with two directions,
        autonomous units with parametrised weights or ``part``, ``part`` with another credit than cell.
        """
        asked = isolated(self.num_layers, self.hidden_size, layer, units, mode, steps, credit, part)
        if self._torch_only and (asked.by_unit or asked.autonomous):
            raise InputError(f"units cannot be isolated in {self._torch_only}: isolate whole layers, or mode 'masked'")
        if self._torch_only and asked.credit:
            raise InputError(f"credit cannot be left out in {self._torch_only}: use one direction and no projection")
        if self.bidirectional and steps is not None:
            raise InputError(f"steps = {steps}: {self._torch_only} also reads from the last step to the first")
        if asked.autonomous and not set(self._flat_weights_names) <= set(self._parameters):
            raise InputError("mode 'autonomous' sets weights to 0: remove their parametrisation first")
        self.isolated = asked
        self._plans = [asked.plan(k, self.hidden_size) for k in range(self.num_layers)]
        within: dict[str, Any] = {"credit": "none"} if asked.reach == 1 else {}  # one step has none before it
        self._recent_plans = [replace(plan, steps=None, **within) for plan in self._plans]
        constants = asked.constants(self.num_layers, self.hidden_size)
        self._splits = self._all_others if self._torch_only else splits(constants, self.hidden_size)
        if asked.autonomous:
            self._sever()

    def remember(self, series: Tensor, warm: int | None = None) -> Tensor:
        """The isolated units that depend on the input alone, over ``series`` (n, I).

        ``warm=None``: in one continuous run. A number of steps: in stretches side by side, each warmed up over so
        many steps before it (:mod:`isotrain.lstm.memory`), much faster for a long series.

        Returns the memory (n + 1, W), row 0 before the first step: what ``forward(memory=...)`` takes rows of. It
        holds for as long as these units' weights do, which is until the next :meth:`isolate`.

        Raises :class:`InputError` if no such units are isolated: it takes units in mode ``"autonomous"``, or all
        layers up to some layer (of an LSTM with one direction and no projections).

        Example:
            >>> lstm = LSTM(3, 8)
            >>> lstm.isolate(units=range(6), mode="autonomous")
            >>> series = torch.randn(100, 3)
            >>> memory = lstm.remember(series)               # once
            >>> memory.shape
            torch.Size([101, 6])
            >>> y, _ = lstm(series[40:60, None], memory=memory[40:61, None])   # at each step of training
            >>> y.shape
            torch.Size([20, 1, 8])
        """
        if not self.memory_width:
            raise InputError("nothing to remember: isolate units in mode 'autonomous', or the lowest layers")
        series = series.to(self.weight_hh_l0.dtype)
        x = series[:, None] if warm is None else stretches(series, warm)
        with self._precision(x):
            memory = self._stack(self._choose(x, _NOTHING), self.isolated, True).trajectory(x)
        return memory[:, 0] if warm is None else torch.cat([memory[:1, 0], joined(memory[1:], warm, len(series))])

    @property
    def memory_width(self) -> int:
        """Columns of a memory: 0 if nothing can be remembered."""
        return max((at.stop for at in columns(self._splits) if at is not None), default=0)

    def outputs_at(self, input: Tensor, at: Tensor, hx: States | None = None) -> Tensor:
        """The outputs at some time steps of each sequence, for a loss that reads no others: the streamed training.

        Args:
            input: (T, B, I), or (B, T, I) if ``batch_first``.
            at: (B, M), the steps that are read, counted from 0; the same step may be read more than once.
            hx: as of :meth:`forward`.

        Returns (B, M, H). These are the values of :meth:`forward`, up to rounding, and their gradient is the same
        unless training with ``isolate(steps=k)``, or with ``credit="none"`` in all layers, which is ``k = 1``. Then
        the states of all steps are computed without a graph, which keeps no gates and costs a forward; the last k
        steps up to each step of ``at`` are run once more from there, as one batch of B·M short sequences, with a graph.
        The rest of the T steps, which is nearly all of them, gets no backward at all. A dropout between layers draws
        its noise in both.

        Raises :class:`InputError` for steps of ``at`` with fewer than k - 1 before them, for autonomous units with
        ``steps``, and for two directions or projections with either of these.

        Example:
            >>> lstm, x = LSTM(3, 8, batch_first=True), torch.randn(4, 336, 3)
            >>> lstm.isolate(credit="none")
            >>> at = torch.randint(168, 336, (4, 16))            # 16 hours of each stretch are read
            >>> lstm.outputs_at(x, at).sum().backward()          # a backward of 64 single steps, not of 336
            >>> lstm.outputs_at(x, at).shape
            torch.Size([4, 16, 8])
        """
        asked = self._asked
        reach = asked.reach if torch.is_grad_enabled() else None
        if reach is None or (asked.autonomous and asked.steps is None):
            y, _ = self(input, hx)
            y = y if self.batch_first else y.transpose(0, 1)
            return y.gather(1, at[..., None].expand(-1, -1, y.shape[-1]))
        if asked.autonomous or self._torch_only:
            raise InputError(
                f"steps before each step that is read do not go with {self._torch_only or 'autonomous units'}"
            )
        if not on_gpu(at) and int(at.min()) < reach - 1:
            raise InputError(f"step {int(at.min())} is read, but steps = {reach}: only {int(at.min())} come before it")
        x = input.transpose(0, 1) if self.batch_first else input
        backend = self._choose(input, asked)
        self._note(backend)
        with self._precision(x):
            h, c = self._states_before(backend, x, at - reach + 1, hx)
            rows = (at - reach + 1).flatten() + torch.arange(reach, device=at.device)[:, None]
            recent = x[rows, torch.arange(x.shape[1], device=at.device)[:, None].expand_as(at).flatten()]
            y = self._stack(backend, asked, constants=False, plans=self._recent_plans).run(recent, h, c)[0][-1]
        return self._finished(y.view(*at.shape, -1))

    @torch.no_grad()
    def _states_before(self, backend: Backend, x: Tensor, at: Tensor, hx: States | None) -> States:
        """h and c of every layer, (L, B·M, H) each, before the steps ``at`` (B, M) of x (T, B, I)."""
        sample = torch.arange(x.shape[1], device=at.device)[:, None].expand_as(at)
        first = self.weight_hh_l0.new_zeros(x.shape[1], self.hidden_size)
        found_h, found_c = [], []
        for k, weights in enumerate(self._layer_weights()):
            h0, c0 = (hx[0][k].to(first.dtype), hx[1][k].to(first.dtype)) if hx is not None else (first, first)
            x, cells = backend.run_states(x, h0, c0, weights)
            came_before = x[(at - 1).clamp(min=0), sample].to(first.dtype)
            found_h.append(torch.where((at > 0)[..., None], came_before, h0[:, None]).flatten(0, 1))
            found_c.append(cells[at, sample].to(first.dtype).flatten(0, 1))
            x = nn.functional.dropout(x, self.dropout) if self.dropout and k + 1 < self.num_layers else x
        return torch.stack(found_h), torch.stack(found_c)

    @torch.no_grad()
    def trajectory(self, series: Tensor, warm: int) -> States:
        """h and c of every layer over ``series`` (n, I), run in stretches side by side, each warmed up over ``warm``
        steps before it (:mod:`isotrain.lstm.memory`): (L, n + 1, H) each, row 0 before the first step.

        Rows of it are states to start short sequences from, ``lstm(x, (h[:, rows], c[:, rows]))``: exact as long as
        the weights stay what they are, and less and less so while they train.

        Raises :class:`InputError` for two directions or projections.

        Example:
            >>> lstm, series = LSTM(3, 8, batch_first=True), torch.randn(1000, 3)
            >>> h, c = lstm.trajectory(series, warm=168)
            >>> rows = torch.tensor([500, 700])                  # the states before these steps
            >>> y, _ = lstm(torch.stack([series[500:504], series[700:704]]), (h[:, rows], c[:, rows]))
            >>> y.shape
            torch.Size([2, 4, 8])
        """
        if self._torch_only:
            raise InputError(f"{self._torch_only} has no states that go on from step to step in one direction")
        x = stretches(series.to(self.weight_hh_l0.dtype), warm)
        zero, kept = x.new_zeros(x.shape[1], self.hidden_size), []
        with self._precision(x):
            backend = self._choose(x, _NOTHING)
            for weights in self._layer_weights():
                x, cells = backend.run_states(x, zero, zero, weights)
                kept.append(
                    [torch.cat([zero[:1], joined(z.to(zero.dtype), warm, len(series))]) for z in (x, cells[1:])]
                )
        return torch.stack([h for h, _ in kept]), torch.stack([c for _, c in kept])

    def backend_for(self, input: Tensor | PackedSequence) -> Backend:
        """Which code computes a forward of ``input`` as things stand (training or not, what is isolated), and why.

        Raises :class:`InputError` where the backend that was asked for cannot.

        Example:
            >>> str(LSTM(3, 8, bidirectional=True).backend_for(torch.randn(4, 24, 3)))
            "torch (only torch's kernels compute a bidirectional LSTM)"
        """
        return self._choose(input, self._asked)

    def forward(self, input: Any, hx: States | None = None, memory: Tensor | None = None) -> Any:
        """As ``nn.LSTM.forward``; packed sequences only while nothing is isolated (else :class:`InputError`).

        ``memory`` (T + 1, B, W), (B, T + 1, W) if ``batch_first``, (T + 1, W) for one sequence without a batch: rows
        of :meth:`remember`'s answer, from the one before the first step on. The units in it are then not computed;
        their last cell state, which a memory does not hold, is returned as NaN.
        """
        if isinstance(input, PackedSequence):
            return self._packed(input, hx)
        if input.dim() == 3:
            return self._batched(input, hx, memory)
        if input.dim() != 2:
            raise ValueError(f"LSTM: Expected input to be 2D or 3D, got {input.dim()}D instead")  # as nn.LSTM says
        batch = 0 if self.batch_first else 1
        if hx is not None:
            hx = (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
        memory = None if memory is None else memory.unsqueeze(batch)
        y, (h, c) = self._batched(input.unsqueeze(batch), hx, memory)
        return y.squeeze(batch), (h.squeeze(1), c.squeeze(1))

    def __prepare_scriptable__(self) -> "LSTM":  # torch.jit.script asks for it first
        raise InputError(
            "torch.jit.script cannot compile isotrain.lstm.LSTM: load its state_dict into a torch.nn.LSTM of the same "
            "arguments, and compile that"
        )

    def _packed(self, input: PackedSequence, hx: States | None) -> tuple[PackedSequence, States]:
        if not self._asked.nothing:
            raise InputError("packed sequences are for torch's kernels with nothing isolated: pad them")
        self._note(self._choose(input, self._asked))
        with self._precision(input.data):
            y, (h, c) = super().forward(input, hx)
        return self._finished(y), (self._finished(h), self._finished(c))

    def _batched(self, x: Tensor, hx: States | None, memory: Tensor | None) -> tuple[Tensor, States]:
        asked = self._asked
        constants = memory is not None or asked.autonomous
        backend = self._choose(x, asked)
        self._note(backend)
        if hx is None:
            layers, batch = self.num_layers * (1 + self.bidirectional), x.size(0 if self.batch_first else 1)
            h0 = self.weight_hh_l0.new_zeros(layers, batch, self.proj_size or self.hidden_size)
            hx = (h0, self.weight_hh_l0.new_zeros(layers, batch, self.hidden_size))
        self.check_forward_args(x, hx, None)
        self._check_memory(x, memory)
        with self._precision(x):
            if backend.name == "torch" and not constants and not asked.credit:
                y, (h, c) = torch_stack(self, asked, x, hx)
                return self._finished(y), (self._finished(h), self._finished(c))
            if self.batch_first:
                x, memory = x.transpose(0, 1), None if memory is None else memory.transpose(0, 1)
            fed_by_training = x.requires_grad or any(state.requires_grad for state in hx)
            stack = self._stack(backend, asked, constants or bool(asked.layers and not fed_by_training))
            h0, c0 = (state.to(self.weight_hh_l0.dtype) for state in hx)
            y, h, c = stack.run(x, h0, c0, memory)
        y = y.transpose(0, 1) if self.batch_first else y
        return self._finished(y), (self._finished(h), self._finished(c))

    def _layer_weights(self) -> list[tuple[Tensor, ...]]:
        return [tuple(getattr(self, name) for name in names) for names in self._all_weights]

    def _stack(self, backend: Backend, asked: Isolated, constants: bool, plans: list[Plan] | None = None) -> Stack:
        weights = [
            tuple(weight.detach() if k in asked.layers else weight for weight in layer)
            for k, layer in enumerate(self._layer_weights())
        ]
        device = self.weight_hh_l0.device
        plans = plans or (self._plans if asked is self.isolated else [EVERYTHING] * self.num_layers)
        return Stack(
            backend,
            weights,
            [plan.on(device) for plan in plans],
            [split.on(device) for split in (self._splits if constants else self._all_others)],
            self.dropout if self.training else 0.0,
            self.batch_first,
        )

    @property
    def _asked(self) -> Isolated:
        """What is isolated in a forward: a trained network is the same whatever was isolated."""
        return self.isolated if self.training else _NOTHING

    @property
    def _torch_only(self) -> str:
        """What this LSTM is that only torch's kernels know; empty: nothing."""
        if self.bidirectional:
            return "a bidirectional LSTM"
        return "an LSTM with projections (proj_size)" if self.proj_size else ""

    def _choose(self, input: Tensor | PackedSequence, asked: Isolated) -> Backend:
        packed = isinstance(input, PackedSequence)
        x = input.data if isinstance(input, PackedSequence) else input
        torch_only = self._torch_only or ("packed sequences" if packed else "")
        dtype, bf16 = self.weight_hh_l0.dtype, self._bf16(x)
        own = "isolated units" if asked.by_unit else "units that alone pass credit" if asked.part else ""
        return choose(self.backend, x, dtype, bf16, own_backward=own, torch_only=torch_only)

    def _note(self, backend: Backend) -> None:
        if backend != self.chosen:
            log.info("LSTM(%d, %d, %d layers): %s", self.input_size, self.hidden_size, self.num_layers, backend)
            self.chosen = backend

    def _bf16(self, x: Tensor) -> bool:
        kind = x.device.type
        surrounding = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        return self.compute == "bf16" or (surrounding and torch.get_autocast_dtype(kind) == torch.bfloat16)

    def _precision(self, x: Tensor) -> AbstractContextManager[Any]:
        if self.compute == "fp32" or (self.compute == "fp16" and not on_gpu(x)):  # CPUs gain nothing from float16
            return nullcontext()
        return torch.autocast(x.device.type, dtype=_TYPES[self.compute])

    def _finished(self, output: Any) -> Any:
        return output if self.compute == "fp32" else output.to(self.weight_hh_l0.dtype)

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
        """Set the weights from active into autonomous units to 0."""
        for k, split in enumerate(self._splits):
            rows = (torch.arange(4)[:, None] * self.hidden_size + split.constants).flatten()
            fed_by = [(f"weight_hh_l{k}", split.others)]
            if k > 0:
                fed_by.append((f"weight_ih_l{k}", self._splits[k - 1].others))
            for name, units in fed_by:
                weight = getattr(self, name)
                weight[rows[:, None].to(weight.device), units.to(weight.device)] = 0.0
