"""The forecaster's network: an encoder over the hours before an origin, and a decoder over the leads.

An encoder (:data:`ENCODERS`: the LSTM, a GRU, a temporal convolution, an attention, a state of zeros) reads the hours
before an origin. The decoder turns its state, with what is known of the origin and of each lead, into a change; a
learnt linear map from past loads is added to it. So before training the forecast is a mean of past loads.

Letters in shapes: B stretches, M origins in a stretch, K leads (the horizon), H hidden units; columns: A known ahead of
a target hour, S lags of a target hour, O statistics of an origin, R recent loads. D = A + S is what is known of a lead,
E = H + O what is known at an origin.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from isotrain.forecast.encoders import ENCODERS, LSTMEncoder
from isotrain.forecast.series import Series, rows
from isotrain.forecast.stretches import Stretches, cover
from isotrain.lstm.backends import BackendName

OUTPUT_GAIN = 1.5  # the decoder's unit is 1.5 standard deviations of the trailing week


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
        >>> from isotrain.data.windows import Windows
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
