"""The forecaster's network: an encoder over the hours before an origin, and a decoder over the leads.

An encoder (:data:`ENCODERS`: the LSTM, a GRU, a temporal convolution, an attention, a state of zeros) reads the hours
before an origin. The decoder turns its state, with what is known of the origin and of each lead, into a change; a
learnt linear map from past loads is added to it. So before training the forecast is a mean of past loads.

Letters in shapes: B stretches, L hours of a stretch, M origins in a stretch, K leads (the horizon), H hidden units,
n hours of the series; columns: F of the inputs of an hour, A known ahead of a target hour, S lags of a target hour,
O statistics of an origin, R recent loads. D = A + S is what is known of a lead, E = H + O what is known at an origin.
"""

import math
import mmap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from isotrain.data.windows import ARRAYS, Windows
from isotrain.errors import InputError
from isotrain.forecast.stretches import Stretches, cover
from isotrain.lstm import LSTM
from isotrain.lstm.backends import BackendName
from isotrain.lstm.plan import Isolated

COPIED = 1 << 30  # bytes of all arrays above which they are read from their files as needed
KERNEL = 3  # hours that one convolution sees
HEADS = 4  # of an attention, or the largest number below that divides its units
OUTPUT_GAIN = 1.5  # the decoder's unit is 1.5 standard deviations of the trailing week


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

    def forward(self, series: "Series", at: Stretches) -> Float[Tensor, "B M H"]:
        """The state at each origin of ``at``; hours beyond the last series repeat its last."""
        return at_origins(self.states(_hours(series, at)), at)

    def before_step(self, step: int) -> None:
        """Called before training step ``step``."""

    def ready(self, series: "Series") -> None:
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

    def ready(self, series: "Series") -> None:
        """Make the states of the series anew if that is due."""
        if self._old and self._trajectory is not None:
            self._states(series)

    def states(self, x: Float[Tensor, "B L F"]) -> Float[Tensor, "B L H"]:
        answer: Tensor = self.lstm(x)[0]
        return answer

    def forward(self, series: "Series", at: Stretches) -> Float[Tensor, "B M H"]:
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

    def _states(self, series: "Series") -> tuple[Tensor, Tensor]:
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

    def _remembered(self, series: "Series") -> Tensor:
        """The states of the isolated units over the series, run again whenever other units are isolated."""
        if self._memory is None or self._memory[0] is not self.lstm.isolated:
            found = [self.lstm.remember(series.inputs_of(first, last), warm=self._warm) for first, last in self._spans]
            self._memory = (self.lstm.isolated, _in_their_rows(found, self._spans, 0))
        return self._memory[1]


class ZeroedEncoder(LSTMEncoder):
    """The control without recurrence: an LSTM with all its parameters that is never run, and a state of zeros."""

    def forward(self, series: "Series", at: Stretches) -> Float[Tensor, "B M H"]:
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


def rows(array: Float[Tensor, "n C"], hours: Int[Tensor, "*at"]) -> Float[Tensor, "*at C"]:
    """``array[hours]``, each row copied as one piece: several times as fast for narrow rows."""
    return array.index_select(0, hours.flatten()).view(*hours.shape, -1)


def at_origins(states: Float[Tensor, "B L H"], at: Stretches) -> Float[Tensor, "B M H"]:
    """Of the states after each hour those at the origins: one hour before them."""
    return states.gather(1, (at.offset - 1)[..., None].expand(-1, -1, states.shape[-1]))


def _hours(series: "Series", at: Stretches) -> Tensor:
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

    def forward(self, series: "Series", at: Stretches) -> Float[Tensor, "B M H"]:
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


class _Mapped:
    """The maps of arrays that are read from their files; a copy of them lies in memory, so it has none."""

    def __init__(self, arrays: Sequence[NDArray[Any]]) -> None:
        self._maps = [array._mmap for array in arrays if isinstance(array, np.memmap)]  # type: ignore[attr-defined]

    def release(self) -> None:
        for one in self._maps:
            one.madvise(mmap.MADV_DONTNEED)  # nobody writes to them: a page that is asked for again is the file's

    def __reduce__(self) -> tuple[Any, ...]:
        return _Mapped, ([],)


class Series(nn.Module):
    """The arrays of one input set, moved with the forecaster between devices and left out of its state_dict.

    ``inputs`` and ``leave_out`` choose the columns (:meth:`Windows.columns`); :class:`InputError` for a group that
    does not exist, or if nothing is left for the encoder to read. Arrays of more than :data:`COPIED` bytes in all are
    not copied: they stay where they are, mapped from their files, and columns are chosen of each row that is read.
    """

    def __init__(self, windows: Windows, inputs: str = "plain", leave_out: Sequence[str] = ()) -> None:
        super().__init__()
        self.chosen: dict[str, Tensor] = {}
        self._mapped = _Mapped([])
        self.width: dict[str, int] = {}
        copied = sum(getattr(windows, name).nbytes for name in ARRAYS) <= COPIED
        for name in ARRAYS:
            columns, array = windows.columns(name, inputs, leave_out), getattr(windows, name)
            self.width[name] = len(columns)
            if copied:
                array = np.ascontiguousarray(array[:, columns])  # hours are copied whole: let them lie so
            elif len(columns) < array.shape[1]:
                self.chosen[name] = torch.from_numpy(columns)
            self.register_buffer(name, torch.from_numpy(array), persistent=False)
        for name in ("truth", "level", "spread"):
            self.register_buffer(name, torch.from_numpy(getattr(windows, name)), persistent=False)
        if not copied:
            self._mapped = _Mapped([getattr(windows, name) for name in windows.array_names()])
        if not self.width["inputs"]:
            raise InputError(f"model.leave_out = {list(leave_out)} leaves the encoder nothing to read: leave out less")
        scales = [one["statistics"]["scale"] for one in windows.series]
        firsts = [one["first"] for one in windows.series[1:]]  # a row at or beyond k of them belongs to series k
        self.register_buffer("scales", torch.tensor(scales), persistent=False)
        self.register_buffer("firsts", torch.tensor(firsts, dtype=torch.int64), persistent=False)
        lags = windows.meta["columns"]["lags"]
        self.first_guess = [bool(lags[c]["plain"]) for c in windows.columns("lags", inputs, leave_out)]
        self.history: int = windows.meta["history"]
        self.horizon: int = windows.meta["horizon"]
        self.ends: dict[str, list[tuple[int, int]]] = {
            part: [(one["first"], one["origins"][part][1]) for one in windows.series]
            for part in windows.series[0]["origins"]
        }

    inputs: Float[Tensor, "n F"]
    ahead: Float[Tensor, "n+K A"]
    lags: Float[Tensor, "n+K S"]  # kW
    origin: Float[Tensor, "n O"]
    recent: Float[Tensor, "n R"]  # kW
    truth: Float[Tensor, " n"]  # kW, NaN where unknown
    level: Float[Tensor, " n"]  # kW
    spread: Float[Tensor, " n"]  # kW
    scales: Float[Tensor, " series"]  # kW, standard deviation of each over its training part
    firsts: Int[Tensor, " series-1"]  # the first row of each series but the first
    ends: dict[str, list[tuple[int, int]]]  # of each part: each series' first row, and one past its last origin there
    first_guess: list[bool]  # of each lag: whether its mean with the others marked is the forecast before training

    def series_at(self, origins: Int[Tensor, "*at"]) -> Int[Tensor, "*at"]:
        """Which series each origin belongs to."""
        return torch.bucketize(origins - 1, self.firsts, right=True)

    def scale_at(self, origins: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The standard deviation (kW) of each origin's series; without dimensions where there is one series."""
        if not len(self.firsts):
            return self.scales[0]
        return self.scales[self.series_at(origins)]

    def release(self) -> None:
        """Let the system have the pages that were read of mapped arrays: else they grow to the size of the files."""
        self._mapped.release()

    def rows(self, name: str, hours: Int[Tensor, "*at"]) -> Float[Tensor, "*at C"]:
        """The rows ``hours`` of an array, the chosen columns of it."""
        found = rows(getattr(self, name), hours)
        return self._columns(name, found)

    def _columns(self, name: str, found: Tensor) -> Tensor:
        """The chosen columns; their numbers are kept on the device, so that a step copies nothing there."""
        if name not in self.chosen:
            return found
        self.chosen[name] = self.chosen[name].to(found.device)
        return found.index_select(-1, self.chosen[name])

    def inputs_of(self, first: int, last: int) -> Float[Tensor, "hours F"]:
        """What the encoder reads in the rows ``first`` to ``last``, that one left out."""
        return self.rows("inputs", torch.arange(first, last, device=self.inputs.device))

    def of_leads(self, name: str, origins: Int[Tensor, "*at"]) -> Float[Tensor, "*at leads C"]:
        """The rows of an array for every lead: the hours from each origin on, copied as one piece."""
        array: Tensor = getattr(self, name)
        wide = 1 if array.dim() == 1 else array.shape[1]
        overlapping = array.as_strided((len(array) - self.horizon + 1, self.horizon * wide), (wide, 1))
        found = overlapping.index_select(0, origins.flatten()).view(*origins.shape, self.horizon, wide)
        return self._columns(name, found)

    def truth_at(self, origins: Int[Tensor, "*at"]) -> Float[Tensor, "*at leads"]:
        """True load of every lead, kW."""
        return self.of_leads("truth", origins)[..., 0]


class Decoder(nn.Module):
    """What is known at an origin and of each lead to each lead: two hidden layers, a bias a lead and a bias a series.

    The bias of each of ``series`` (:attr:`of_series`) is what one network for many series knows of each by itself;
    where there is one series, there is none.
    """

    def __init__(self, at_origin: int, of_lead: int, width: int, horizon: int, dropout: float, series: int = 1) -> None:
        super().__init__()
        self.of_state = nn.Linear(at_origin, width)
        self.of_known = nn.Linear(of_lead, width, bias=False)
        self.of_lead = nn.Parameter(torch.zeros(horizon, width))
        self.of_series = nn.Parameter(torch.zeros(series, width)) if series > 1 else None
        self.middle = nn.Linear(width, width)
        self.out = nn.Linear(width, 1)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.out.weight)  # the untrained forecast is the skip alone
        nn.init.zeros_(self.out.bias)

    def features(
        self, state: Float[Tensor, "B M E"], known: Float[Tensor, "B M K D"], series: Int[Tensor, "B M"] | None = None
    ) -> Float[Tensor, "B M K width"]:
        """What the last layer, ``out``, reads of each lead; ``series`` is which of many each origin belongs to."""
        z = self.of_state(state)
        if self.of_series is not None and series is not None:
            z = z + rows(self.of_series.to(z.dtype), series)
        z = z[..., None, :] + self.of_known(known)
        z = nn.functional.gelu(z + self.of_lead.to(z.dtype))  # under autocast all that is as large is bfloat16
        kept = self.dropout(z.new_ones(*z.shape[:-2], 1, z.shape[-1]))  # for all leads the same: drawing takes time
        return nn.functional.gelu(self.middle(z * kept))

    def forward(
        self, state: Float[Tensor, "B M E"], known: Float[Tensor, "B M K D"], series: Int[Tensor, "B M"] | None = None
    ) -> Float[Tensor, "B M K"]:
        return self.out(self.features(state, known, series))[..., 0].float()


def for_one_series(weights: Mapping[str, Tensor], index: int | None) -> dict[str, Tensor]:
    """The weights of a :class:`Forecaster` of many series as those of one: the same forecasts of series ``index``.

    Its bias is added to that of all. None: of a series that it was not trained on, which gets the mean of them.
    """
    alone = dict(weights)
    if (biases := alone.pop("decoder.of_series", None)) is not None:
        own = biases.mean(0) if index is None else biases[index]
        alone["decoder.of_state.bias"] = alone["decoder.of_state.bias"] + own
    return alone


class Skip(nn.Module):
    """A linear map from lags and recent loads to each lead: the part that needs no network.

    It starts as the mean of the lags marked in ``first_guess``: yesterday and last week, or as near as is known.
    """

    def __init__(self, first_guess: Sequence[bool], recent: int, horizon: int) -> None:
        super().__init__()
        marked = torch.tensor(first_guess, dtype=torch.float32)
        self.of_lags = nn.Parameter((marked / marked.sum().clamp(min=1)).repeat(horizon, 1))
        self.of_recent = nn.Parameter(torch.zeros(horizon, recent))

    def forward(self, lags: Float[Tensor, "B M K S"], recent: Float[Tensor, "B M R"]) -> Float[Tensor, "B M K"]:
        return (lags * self.of_lags).sum(-1) + recent @ self.of_recent.T


class Read(NamedTuple):
    """What is known at some origins."""

    at_origin: Float[Tensor, "B M E"]
    of_lead: Float[Tensor, "B M K D"]
    series: Int[Tensor, "B M"] | None  # which each belongs to, if the decoder has a bias of each
    lags: Float[Tensor, "B M K S"]  # above the level, in standard deviations, as are the recent loads
    recent: Float[Tensor, "B M R"]
    level: Float[Tensor, "B M"]  # kW
    spread: Float[Tensor, "B M"]  # kW
    scale: Float[Tensor, "B M 1"] | Float[Tensor, "1"]  # kW


class Forecaster(nn.Module):
    """Forecasts of every lead at every origin of some stretches, kW.

    Args:
        series: the arrays that it reads.
        hidden, layers, encoder, backend: of the encoder, one of :data:`ENCODERS`.
        decoder, dropout: the decoder's width, and the share of it dropped while training.
        state_dropout: share of the encoder's state at an origin that is dropped while training.
        remember: the part of the series that training reaches up to, over which an isolated and unchanging share of
            the LSTM is run once; None: everything is run in every stretch.
        renew: training steps between two runs over that part for the states before the last hours of each origin,
            where the backward covers those alone; 0: they are run in every stretch.

    Example:
        >>> windows = Windows.load("data/windows")
        >>> net = Forecaster(Series(windows), hidden=8, layers=1, decoder=8, dropout=0.0)
        >>> origins = torch.from_numpy(windows.origins("test"))
        >>> net.forecast(origins).shape == (len(origins), 24)
        True
    """

    def __init__(
        self,
        series: Series,
        *,
        hidden: int,
        layers: int,
        decoder: int,
        dropout: float,
        state_dropout: float = 0.0,
        encoder: str = "lstm",
        backend: BackendName = "auto",
        remember: str | None = "train",
        renew: int = 0,
    ) -> None:
        super().__init__()
        self.series = series
        width = series.width
        self.encoder = ENCODERS[encoder](width["inputs"], hidden, layers, series.history, backend)
        if remember and isinstance(self.encoder, LSTMEncoder):
            self.encoder.remember_over(series.ends[remember], warm=series.history, renew=renew)
        known = width["ahead"] + width["lags"]
        self.decoder = Decoder(hidden + width["origin"], known, decoder, series.horizon, dropout, len(series.scales))
        self.dropout = nn.Dropout(state_dropout)
        self.skip = Skip(series.first_guess, width["recent"], series.horizon)

    def read(self, at: Stretches) -> "Read":
        """All that the decoder and the skip read at the origins of ``at``."""
        s = self.series
        state = self.dropout(self.encoder(s, at))
        origins = at.origins.clamp(max=len(s.inputs))  # only padding is beyond
        level, spread, scale = s.level[origins - 1], s.spread[origins - 1], s.scale_at(origins)[..., None]
        lags = (s.of_leads("lags", origins) - level[..., None, None]) / scale[..., None]
        recent = (s.rows("recent", origins - 1) - level[..., None]) / scale
        at_origin = torch.cat([state, s.rows("origin", origins - 1)], -1)
        of = s.series_at(origins) if self.decoder.of_series is not None else None
        of_lead = torch.cat([s.of_leads("ahead", origins), lags], -1)
        return Read(at_origin, of_lead, of, lags, recent, level, spread, scale)

    def forward(self, at: Stretches) -> Float[Tensor, "B M K"]:
        r = self.read(at)
        z = self.decoder(r.at_origin, r.of_lead, r.series)
        change = z * OUTPUT_GAIN * r.spread[..., None] + self.skip(r.lags, r.recent) * r.scale
        return r.level[..., None] + change

    @torch.no_grad()
    def forecast(self, origins: Int[Tensor, " m"], regime: str = "streamed") -> Float[Tensor, "m K"]:
        """Forecasts at increasing, evenly spaced ``origins``, on the CPU; leaves the network in evaluation mode."""
        self.eval()
        answer = torch.full((len(origins), self.series.horizon), torch.nan)
        for at, position in cover(origins, regime, self.series.history):
            real: Bool[Tensor, "B M"] = position >= 0
            answer[position[real]] = self(at.to(self.series.inputs.device)).float().cpu()[real]
            self.series.release()
        return answer
