"""The forecaster: an LSTM over the past, a decoder over the leads that knows their calendar, a learnt skip.

Legend: B stretches, L hours of a stretch, M origins in a stretch, K leads (the horizon), H hidden units,
F inputs of an hour, C calendar columns, S daily lags, R recent hours, D = C + S what is known of a lead.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from isotrain.data.windows import Windows, daily_lags
from isotrain.forecast.encoder import Encoder
from isotrain.forecast.stretches import Stretches
from isotrain.lstm.backends import Backend

OUTPUT_GAIN = 1.5  # the decoder's unit is 1.5 standard deviations of the trailing week
RECENT = (0, 1, 2, 23, 24, 167)  # hours before the last known one that the linear skip sees


class Series(nn.Module):
    """The arrays that the forecaster indexes, moved with it between devices and left out of its state_dict."""

    def __init__(self, windows: Windows) -> None:
        super().__init__()
        for name in ("inputs", "calendar", "target", "truth", "level", "spread"):
            self.register_buffer(name, torch.from_numpy(getattr(windows, name)), persistent=False)
        self.scale: float = windows.meta["scale"]
        self.history: int = windows.meta["history"]
        self.horizon: int = windows.meta["horizon"]
        self.trained_hours: int = windows.meta["origins"]["train"][1]  # no training stretch reaches beyond

    inputs: Tensor  # (n, F)
    calendar: Tensor  # (n + K, C)
    target: Tensor  # (n,), kW
    truth: Tensor  # (n,), kW, NaN where unknown
    level: Tensor  # (n,), kW
    spread: Tensor  # (n,), kW

    def truth_at(self, origins: Int[Tensor, "*at"]) -> Float[Tensor, "*at leads"]:
        """True load of every lead, kW."""
        return self.truth[origins[..., None] + torch.arange(self.horizon, device=origins.device)]


class Decoder(nn.Module):
    """The state at an origin and what is known of each lead to each lead: two hidden layers, a bias a lead."""

    def __init__(self, hidden: int, known: int, width: int, horizon: int, dropout: float) -> None:
        super().__init__()
        self.of_state = nn.Linear(hidden, width)
        self.of_known = nn.Linear(known, width, bias=False)
        self.of_lead = nn.Parameter(torch.zeros(horizon, width))
        self.middle = nn.Linear(width, width)
        self.out = nn.Linear(width, 1)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.out.weight)  # the untrained forecast is the skip alone
        nn.init.zeros_(self.out.bias)

    def forward(self, state: Float[Tensor, "B M H"], known: Float[Tensor, "B M K D"]) -> Float[Tensor, "B M K"]:
        z = nn.functional.gelu(self.of_state(state)[..., None, :] + self.of_known(known) + self.of_lead)
        z = nn.functional.gelu(self.middle(self.dropout(z)))
        return self.out(z)[..., 0].float()


class Skip(nn.Module):
    """A linear map from daily lags and recent hours to each lead: the part that needs no network.

    Starts as the mean of yesterday and last week (or their first known equivalents beyond a day's horizon).
    """

    def __init__(self, lags: Sequence[int], recent: int, horizon: int) -> None:
        super().__init__()
        self.of_lags = nn.Parameter(torch.zeros(horizon, len(lags)))
        self.of_recent = nn.Parameter(torch.zeros(horizon, recent))
        with torch.no_grad():
            self.of_lags[:, 0] = 0.5
            self.of_lags[:, 6] = 0.5

    def forward(self, lags: Float[Tensor, "B M K S"], recent: Float[Tensor, "B M R"]) -> Float[Tensor, "B M K"]:
        return (lags * self.of_lags).sum(-1) + recent @ self.of_recent.T


class Forecaster(nn.Module):
    """Forecasts of every lead at every origin of some stretches, kW."""

    def __init__(
        self,
        series: Series,
        *,
        hidden: int,
        layers: int,
        decoder: int,
        dropout: float,
        encoder: str = "lstm",
        backend: Backend = "auto",
        remember: bool = True,
    ) -> None:
        super().__init__()
        self.series = series
        lags = daily_lags(series.horizon)
        self.encoder = Encoder(series.inputs.shape[1], hidden, layers, backend=backend)
        self.encoder.zeroed = encoder == "zeroed"
        if remember:
            self.encoder.remember_over(series.trained_hours, warm=series.history)
        known = series.calendar.shape[1] + len(lags)
        self.decoder = Decoder(hidden, known, decoder, series.horizon, dropout)
        self.dropout = nn.Dropout(dropout)
        self.skip = Skip(lags, len(RECENT), series.horizon)
        self.register_buffer("lags", torch.tensor(lags), persistent=False)
        self.register_buffer("recent", torch.tensor(RECENT), persistent=False)

    lags: Tensor
    recent: Tensor

    def forward(self, at: Stretches) -> Float[Tensor, "B M K"]:
        s = self.series
        last_hour = len(s.inputs) - 1
        states = self.encoder(s.inputs, at.start, at.length)
        origins = at.origins.clamp(max=last_hour)  # only padding is beyond
        before = (at.offset - 1)[..., None].expand(-1, -1, states.shape[-1])
        state = self.dropout(states.gather(1, before))
        level, spread = s.level[origins - 1], s.spread[origins - 1]
        targets = origins[..., None] + torch.arange(s.horizon, device=origins.device)
        lags = self._relative(targets[..., None] - self.lags, level[..., None, None])
        recent = self._relative(origins[..., None] - 1 - self.recent, level[..., None])
        z = self.decoder(state, torch.cat([s.calendar[targets], lags], -1))
        change = z * OUTPUT_GAIN * spread[..., None] + self.skip(lags, recent) * s.scale
        return level[..., None] + change

    def _relative(self, hours: Int[Tensor, "*at"], level: Float[Tensor, "*#at"]) -> Float[Tensor, "*at"]:
        """Load at ``hours`` above the origin's level, in training standard deviations."""
        s = self.series
        return (s.target[hours.clamp(max=len(s.target) - 1)] - level) / s.scale
