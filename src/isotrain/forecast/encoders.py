"""Encoders: the hours before an origin to a state. :data:`ENCODERS` names them, as ``model.encoder`` does.

Letters in shapes: B stretches, L hours of a stretch, M origins in a stretch, H hidden units, F inputs of an hour.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from isotrain.forecast.series import Series, rows
from isotrain.forecast.stretches import Stretches
from isotrain.lstm import LSTM
from isotrain.lstm.backends import BackendName
from isotrain.lstm.plan import Isolated

KERNEL = 3  # hours that one convolution sees
HEADS = 4  # of an attention, or the largest number below that divides its units


class Encoder(nn.Module):
    """Inputs of each hour to a state of each hour, which depends on no later input.

    A subclass defines :meth:`states`.

    Args:
        inputs: the number of inputs of an hour (F).
        hidden, layers: units of a layer (H), and layers.
        history: the hours that a state must be able to depend on.
        backend: what computes an LSTM; other encoders ignore it.
    """

    def __init__(self, inputs: int, hidden: int, layers: int, history: int, backend: BackendName) -> None:
        super().__init__()

    def states(self, x: Float[Tensor, "B L F"]) -> Float[Tensor, "B L H"]:
        """The state after each hour of ``x``, from nothing known before it."""
        raise NotImplementedError

    def forward(self, series: Series, at: Stretches) -> Float[Tensor, "B M H"]:
        """The state at each origin of ``at``; hours beyond the last series repeat its last."""
        return at_origins(self.states(_hours(series, at)), at)

    def before_step(self, step: int) -> None:
        """Called before training step ``step``."""

    def ready(self, series: Series) -> None:
        """Called before a step that is replayed (:mod:`isotrain.lstm.graphs`): compute what it only reads, in place."""

    @property
    def backend(self) -> str:
        """What computes the encoder, for the record of a fit."""
        return "torch"


class LSTMEncoder(Encoder):
    """The LSTM. What is isolated need not be run in every stretch.

    After :meth:`remember_over` isolated units that depend on the input alone are run once over the series, and their
    states are read from memory while training (:mod:`isotrain.lstm.memory`). Where the backward covers the last hours
    before each origin only (``LSTM.isolate(steps=k)``, ``credit="none"``), the hours before them are run without a
    graph, or, with ``renew``, not at all: their states are those of a run over the series, made anew every ``renew``
    training steps (:meth:`before_step`).
    """

    def __init__(self, inputs: int, hidden: int, layers: int, history: int, backend: BackendName = "auto") -> None:
        super().__init__(inputs, hidden, layers, history, backend)
        self.lstm = LSTM(inputs, hidden, layers, batch_first=True, backend=backend)
        self.renew = 0
        self.made_with: list[Tensor] | None = None  # the weights of the states of the series; a checkpoint keeps them
        self._spans: Sequence[tuple[int, int]] = ()
        self._warm = 0
        self._memory: tuple[Isolated, Tensor] | None = None
        self._trajectory: tuple[Tensor, Tensor] | None = None
        self._old = True  # the trajectory is to be made anew

    @property
    def backend(self) -> str:
        return str(self.lstm.chosen)

    def remember_over(self, spans: Sequence[tuple[int, int]], warm: int, renew: int = 0) -> None:
        """Remember over the rows (first, one past the last) of each series, each part warmed up over ``warm`` hours."""
        self._spans, self._warm, self.renew = spans, warm, renew

    def before_step(self, step: int) -> None:
        """Let go of the states of the series if they are to be made anew at training step ``step``."""
        if self.renew and step % self.renew == 0:
            self.made_with, self._old = None, True

    def ready(self, series: Series) -> None:
        """Make the states of the series anew if that is due."""
        if self._old and self._trajectory is not None:
            self._states(series)

    def states(self, x: Float[Tensor, "B L F"]) -> Float[Tensor, "B L H"]:
        answer: Tensor = self.lstm(x)[0]
        return answer

    def forward(self, series: Series, at: Stretches) -> Float[Tensor, "B M H"]:
        if self.training and self._spans and self.lstm.memory_width:
            hours = at.hours.clamp(max=len(series.inputs) - 1)
            before_and_after = torch.cat([hours[:, :1], hours + 1], 1)
            memory = rows(self._remembered(series), before_and_after)
            return at_origins(self.lstm(series.rows("inputs", hours), memory=memory)[0], at)
        reach = self.lstm.isolated.reach if self.training else None
        if reach is None or at.windowed:  # there the last hours of a stretch are the last before its origin
            return super().forward(series, at)
        if not self.renew:
            return self.lstm.outputs_at(_hours(series, at), at.offset - 1)
        first = (at.origins - reach).flatten()
        h, c = (states[:, first] for states in self._states(series))
        recent = series.rows("inputs", first[:, None] + torch.arange(reach, device=first.device))
        y: Tensor = self.lstm(recent, (h, c))[0][:, -1]
        return y.view(*at.offset.shape, -1)

    def _states(self, series: Series) -> tuple[Tensor, Tensor]:
        """h and c over the series, as they were when they were last made anew."""
        if self._trajectory is None or self._old:
            assert self._spans, "remember_over comes first"
            now = [p.detach().clone() for p in self.lstm.parameters()]
            self.made_with = self.made_with or now
            self._set(self.made_with)  # a resumed training goes on with the states that it had
            found = [self.lstm.trajectory(series.inputs_of(first, last), self._warm) for first, last in self._spans]
            h, c = (_in_their_rows([pair[i] for pair in found], self._spans, 1) for i in range(2))
            if self._trajectory is None:
                self._trajectory = h, c
            for held, new in zip(self._trajectory, (h, c), strict=True):
                held.copy_(new)  # a step that is replayed reads them where they lie
            self._set(now)
            self._old = False
        return self._trajectory

    @torch.no_grad()
    def _set(self, weights: Sequence[Tensor]) -> None:
        for p, value in zip(self.lstm.parameters(), weights, strict=True):
            p.copy_(value)

    def _remembered(self, series: Series) -> Tensor:
        """The states of the isolated units over the series, run again whenever other units are isolated."""
        if self._memory is None or self._memory[0] is not self.lstm.isolated:
            found = [self.lstm.remember(series.inputs_of(first, last), warm=self._warm) for first, last in self._spans]
            self._memory = (self.lstm.isolated, _in_their_rows(found, self._spans, 0))
        return self._memory[1]


class ZeroedEncoder(LSTMEncoder):
    """The control without recurrence: an LSTM with all its parameters that is never run, and a state of zeros."""

    def forward(self, series: Series, at: Stretches) -> Float[Tensor, "B M H"]:
        return series.inputs.new_zeros(*at.offset.shape, self.lstm.hidden_size)


def _in_their_rows(states: Sequence[Tensor], spans: Sequence[tuple[int, int]], dim: int) -> Tensor:
    """States before each hour of each span, one after the other along ``dim``, as rows of the arrays of all series."""
    if spans[0][0] == 0 and len(spans) == 1:
        return states[0]
    shape = list(states[0].shape)
    shape[dim] = spans[-1][1] + 1
    answer = states[0].new_zeros(shape)
    for found, (first, _) in zip(states, spans, strict=True):
        answer.narrow(dim, first, found.shape[dim]).copy_(found)
    return answer


def at_origins(states: Float[Tensor, "B L H"], at: Stretches) -> Float[Tensor, "B M H"]:
    """Of the states after each hour those at the origins: one hour before them."""
    return states.gather(1, (at.offset - 1)[..., None].expand(-1, -1, states.shape[-1]))


def _hours(series: Series, at: Stretches) -> Tensor:
    """The inputs of the hours of each stretch; hours beyond the last series repeat its last."""
    return series.rows("inputs", at.hours.clamp(max=len(series.inputs) - 1))


class GRUEncoder(Encoder):
    """``torch.nn.GRU``, one a layer: cuDNN runs the backward of a stack as one, whatever of it is isolated."""

    def __init__(self, inputs: int, hidden: int, layers: int, history: int, backend: BackendName = "auto") -> None:
        super().__init__(inputs, hidden, layers, history, backend)
        widths = [inputs, *[hidden] * (layers - 1)]
        self.gru = nn.ModuleList(nn.GRU(width, hidden, batch_first=True) for width in widths)

    def states(self, x: Float[Tensor, "B L F"]) -> Float[Tensor, "B L H"]:
        for layer in self.gru:
            x, _ = layer(x)
        return x


class TCNEncoder(Encoder):
    """A temporal convolution: residual causal convolutions whose steps double until they span the history.

    Bai, Kolter and Koltun, "An empirical evaluation of generic convolutional and recurrent networks for sequence
    modeling" (2018), with one convolution a block. ``layers`` is the number of convolutions at each dilation.
    """

    def __init__(self, inputs: int, hidden: int, layers: int, history: int, backend: BackendName = "auto") -> None:
        super().__init__(inputs, hidden, layers, history, backend)
        self.widen = nn.Linear(inputs, hidden)
        dilations = [1]
        while 1 + layers * (KERNEL - 1) * sum(dilations) < history:
            dilations.append(2 * dilations[-1])
        self.dilations = dilations * layers
        self.blocks = nn.ModuleList(nn.Conv1d(hidden, hidden, KERNEL, dilation=d) for d in self.dilations)

    def states(self, x: Float[Tensor, "B L F"]) -> Float[Tensor, "B L H"]:
        z = self.widen(x).transpose(1, 2)
        for block, dilation in zip(self.blocks, self.dilations, strict=True):
            past = nn.functional.pad(z, ((KERNEL - 1) * dilation, 0))  # zeros before the first hour
            z = z + nn.functional.gelu(block(past))
        return z.transpose(1, 2)


class AttentionBlock(nn.Module):
    """Attention, then a feed-forward as wide as the state; each is added to what it read, and the sum normalised.

    Its modules stand in the order in which they run, which is that of their depth as layers.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.heads = math.gcd(hidden, HEADS)
        self.query = nn.Linear(hidden, hidden)
        self.key_value = nn.Linear(hidden, 2 * hidden)
        self.mix = nn.Linear(hidden, hidden)
        self.mixed = nn.LayerNorm(hidden)
        self.widen = nn.Linear(hidden, hidden)
        self.narrow = nn.Linear(hidden, hidden)
        self.fed = nn.LayerNorm(hidden)

    def forward(
        self, z: Float[Tensor, "B M H"], past: Float[Tensor, "B L H"], bias: Float[Tensor, "_B heads M L"]
    ) -> Float[Tensor, "B M H"]:
        """What M hours, whose states are ``z``, read of ``past``, their scores raised by ``bias``."""
        query, key, value = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x in (self.query(z), *self.key_value(past).chunk(2, -1))
        )
        read = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        z = self.mixed(z + self.mix(read.transpose(1, 2).flatten(2)))
        answer: Tensor = self.fed(z + self.narrow(nn.functional.gelu(self.widen(z))))
        return answer


class AttentionEncoder(Encoder):
    """Causal self-attention: each hour reads the hours before it, each as far as their contents fit.

    Vaswani et al., "Attention is all you need" (2017), with ``layers`` blocks. In place of a code of the position a
    score falls with the age of what is read, in each head at another rate (Press, Smith and Lewis, "Train short, test
    long", 2021); nothing of that is learnt. The blocks share the hours that they reach back, so that a state depends on
    ``history`` hours, its own the last: it is the same in a stretch as at the end of a window. The last block is run at
    the origins alone.
    """

    def __init__(self, inputs: int, hidden: int, layers: int, history: int, backend: BackendName = "auto") -> None:
        super().__init__(inputs, hidden, layers, history, backend)
        self.widen = nn.Linear(inputs, hidden)
        self.blocks = nn.ModuleList(AttentionBlock(hidden) for _ in range(layers))
        self.back = [(history - 1 + i) // layers for i in range(layers)]  # hours; their sum is history - 1
        heads = math.gcd(hidden, HEADS)
        self.register_buffer("slopes", 2.0 ** (-8 / heads * torch.arange(1, heads + 1)), persistent=False)

    slopes: Float[Tensor, " heads"]

    def states(self, x: Float[Tensor, "B L F"]) -> Float[Tensor, "B L H"]:
        return self._states(x, torch.arange(x.shape[1], device=x.device).expand(x.shape[:2]))

    def forward(self, series: Series, at: Stretches) -> Float[Tensor, "B M H"]:
        return self._states(_hours(series, at), at.offset - 1)

    def _states(self, x: Float[Tensor, "B L F"], at: Int[Tensor, "B M"]) -> Float[Tensor, "B M H"]:
        """The states after the hours ``at`` of each stretch."""
        z, every = self.widen(x), torch.arange(x.shape[1], device=x.device)
        for block, back in zip(self.blocks[:-1], self.back, strict=False):
            z = block(z, z, self._bias(every[None], every, back))
        asking = z.gather(1, at[..., None].expand(-1, -1, z.shape[-1]))
        answer: Tensor = self.blocks[-1](asking, z, self._bias(at, every, self.back[-1]))
        return answer

    def _bias(self, at: Int[Tensor, "B M"], hours: Int[Tensor, " L"], back: int) -> Float[Tensor, "B heads M L"]:
        """What the score of each of ``hours`` is raised by for the hours ``at``, which read ``back`` hours back."""
        age = (at[..., None] - hours)[:, None]
        return (-self.slopes[:, None, None] * age).masked_fill((age < 0) | (age > back), -torch.inf)


ENCODERS: dict[str, type[Encoder]] = {
    "lstm": LSTMEncoder,
    "gru": GRUEncoder,
    "tcn": TCNEncoder,
    "attention": AttentionEncoder,
    "zeroed": ZeroedEncoder,
}
