"""What may be thawed (trained again) of a trained forecaster, and how each part is fitted.

What is linear in what it reads, the readout and the skip, is *solved*: ridge regression of the parent's errors on what
the last layer reads, reweighted for the absolute error. Its solution is added to the parent's weights, so the network
forecasts it. The rest is trained on the remembered states of the encoder.

Letters in shapes: m origins, K leads, P columns of a design, W width of the decoder, S lags, R recent loads.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from isotrain.adapt.memory import Draw, Equations, Remembered, isolate_encoder
from isotrain.forecast.encoders import Encoder
from isotrain.forecast.network import OUTPUT_GAIN, Forecaster
from isotrain.forecast.stretches import cover

Weights = dict[str, Tensor]  # by name, of a whole forecaster or of what changes in it
ROUNDS = 2  # of reweighting for the absolute error, the first by the parent's errors
SMALL = 0.1  # of the median error: errors below count alike in the reweighting
REACH = 6.0  # leads over which a correction of the skip that fades with the lead fades
MOST = 3000  # origins above which a design has every SPARSE-th alone
SPARSE = 5  # prime to 24, so that every hour of day occurs
STEPS, RATE, RISE = 60, 0.005, 0.15  # of training on a new series


@dataclass
class Ground:
    """A trained forecaster over a new series, its encoder isolated and remembered at the origins of the series.

    Attributes:
        net: the forecaster; its weights change as candidates are fitted.
        parent: its weights before.
        encoder: what was run for the states.
        memory: the states.
    """

    net: Forecaster
    parent: Weights
    encoder: Encoder
    memory: Remembered
    _designs: dict[tuple[int, int], "Design"] = field(default_factory=dict)

    @classmethod
    def of(cls, net: Forecaster, first: int, last: int) -> "Ground":
        """``net`` over the origins from ``first`` to ``last``, its encoder run once."""
        parent = {name: value.clone() for name, value in net.state_dict().items()}
        encoder = net.encoder
        return cls(net.eval(), parent, encoder, isolate_encoder(net, first, last))

    @property
    def device(self) -> torch.device:
        """Where the forecaster and its series are; origins are on the CPU, and so are forecasts and errors."""
        return self.net.series.inputs.device

    def use(self, weights: Weights) -> None:
        """Give the forecaster the parent's weights with ``weights`` in their place."""
        own = self.net.state_dict()
        self.net.load_state_dict({name: weights.get(name, self.parent[name]) for name in own})

    @contextmanager
    def thawed_encoder(self) -> Iterator[None]:
        """With the encoder itself in the place of its memory, in its parent's state again at the end."""
        self.net.encoder = self.encoder
        try:
            yield
        finally:
            self.use({})
            self.net.encoder = self.memory

    def forecast(self, weights: Weights, origins: Tensor, remembered: bool = True) -> Float[Tensor, "m K"]:
        """Forecasts (kW) at ``origins`` (m) with ``weights`` in the place of the parent's.

        Of origins that are not ``remembered``, and where ``weights`` are of the encoder too, the encoder itself is run.
        """
        if not remembered or any(name.startswith("encoder.") for name in weights):
            with self.thawed_encoder():
                self.use(weights)
                return self.net.forecast(origins)
        self.use(weights)
        answer = self.net.forecast(origins)
        self.use({})
        return answer

    def errors(self, weights: Weights, origins: Tensor) -> Float[Tensor, "m K"]:
        """Truth less forecast at ``origins`` (m), in the series' standard deviation, on the CPU; NaN where unknown."""
        there = origins.to(self.device)
        truth, scale = self.net.series.truth_at(there), self.net.series.scale_at(there)[..., None]
        return (truth.cpu() - self.forecast(weights, origins)) / scale.cpu()

    def design(self, first: int, last: int) -> "Design":
        """What the parent's last layer and skip read at the origins from ``first`` to ``last``; made once."""
        if (first, last) not in self._designs:
            step = 1 if last - first <= MOST else SPARSE
            self._designs[first, last] = design(self, torch.arange(first, last, step))
        return self._designs[first, last]

    def forget(self) -> None:
        """Let go of the designs."""
        self._designs.clear()


@dataclass(frozen=True)
class Design:
    """Rows of a linear correction: one of each origin and lead whose truth is known."""

    x: Float[Tensor, "n P"]
    y: Float[Tensor, " n"]  # the parent's errors, in the series' standard deviation
    step: int  # each row stands for so many origins

    def weights(self, error: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Of each row, such that least squares become least absolute errors; their mean is ``step``."""
        size = error.abs()
        weight = 1.0 / (size + SMALL * size.median() + 1e-6)
        return weight * (self.step / weight.mean())


@torch.no_grad()
def design(ground: Ground, origins: Tensor) -> Design:
    """The design at ``origins``: W + 1 columns of the readout, 2 S of the lags, 2 R of the recent loads.

    A correction of the skip is the same of all leads, or fades with the lead: two columns of each of its inputs.
    """
    net = ground.net.eval()
    s = net.series
    fade = fading(s.horizon).to(ground.device)
    columns, errors = [], []
    for at, position in cover(origins, "streamed", s.history):
        real, at = position >= 0, at.to(ground.device)
        r = net.read(at)
        z = net.decoder.features(r.at_origin, r.of_lead, r.series)
        gain = OUTPUT_GAIN * r.spread / r.scale[..., 0]
        of_readout = torch.cat([z, torch.ones_like(z[..., :1])], -1) * gain[..., None, None]
        recent = r.recent[:, :, None, :].expand(*z.shape[:-1], -1)
        shared = torch.cat([r.lags, recent], -1)
        x = torch.cat([of_readout, shared, shared * fade[:, None]], -1)
        change = net.decoder.out(z)[..., 0] * gain[..., None] + net.skip(r.lags, r.recent)
        truth = (s.truth_at(at.origins.clamp(max=len(s.truth) - s.horizon)) - r.level[..., None]) / r.scale
        columns.append(x[real])
        errors.append((truth - change)[real])
    x, y = torch.cat(columns).flatten(0, 1), torch.cat(errors).flatten()
    known = ~y.isnan()
    step = int(origins[1] - origins[0]) if len(origins) > 1 else 1
    return Design(x[known], y[known], step)


def fading(horizon: int) -> Float[Tensor, " K"]:
    """1 at the first lead, and less at each later one."""
    return torch.exp(-torch.arange(horizon) / REACH)


def put_back(ground: Ground, b: Float[Tensor, " P"]) -> Weights:
    """The parent's weights with the correction ``b`` of :func:`design` in them: the network then forecasts it."""
    parent = ground.parent
    width = parent["decoder.out.weight"].shape[1]
    lags, recent = parent["skip.of_lags"], parent["skip.of_recent"]
    of_readout, bias, shared, faded = b.split([width, 1, *[lags.shape[1] + recent.shape[1]] * 2])
    skip = shared + fading(len(lags)).to(b)[:, None] * faded
    return {
        "decoder.out.weight": (parent["decoder.out.weight"].double() + of_readout).float(),
        "decoder.out.bias": (parent["decoder.out.bias"].double() + bias).float(),
        "skip.of_lags": (lags.double() + skip[:, : lags.shape[1]]).float(),
        "skip.of_recent": (recent.double() + skip[:, lags.shape[1] :]).float(),
    }


def bias_and_scale(ground: Ground) -> Float[Tensor, "P 3"]:
    """Of the columns of a design three: the decoder's output, a constant, and the skip in so far as leads share it."""
    parent = ground.parent
    out, lags, recent = parent["decoder.out.weight"][0], parent["skip.of_lags"], parent["skip.of_recent"]
    width, skip = len(out), torch.cat([lags, recent], 1)
    basis = torch.stack([torch.ones(len(lags)), fading(len(lags))], 1).to(out.device)
    of_basis = torch.linalg.lstsq(basis, skip).solution  # (2, S + R): the skip as nearly as two columns of each can say
    answer = out.new_zeros(width + 1 + of_basis.numel(), 3)
    answer[:width, 0], answer[width, 0] = out, parent["decoder.out.bias"][0]
    answer[width, 1] = 1.0
    answer[width + 1 :, 2] = of_basis.flatten()
    return answer


Path = Callable[[float], Weights]


def solved(ground: Ground, parts: Sequence[tuple[int, int]], narrow: bool, refit: float | None = None) -> Path:
    """The readout and the skip solved over the origins of ``parts``: of each strength of the ridge the weights.

    ``narrow``: their bias and scale alone. ``refit``: the strength that was chosen, for which all rounds are made.
    """
    basis = bias_and_scale(ground) if narrow else None
    designs = [ground.design(*part) for part in parts]
    rows = [d.x if basis is None else d.x @ basis for d in designs]
    known = Equations.empty(rows[0].shape[1], ground.device)
    for d, x in zip(designs, rows, strict=True):
        known.add(x, d.y, d.weights(d.y))
    known.rows = sum(d.step * len(d.y) for d in designs)

    def at(strength: float) -> Weights:
        b = known.solve(strength)
        for _ in range(ROUNDS - 1 if refit is not None else 0):
            again = Equations.empty(len(b), ground.device)
            for d, x in zip(designs, rows, strict=True):
                again.add(x, d.y, d.weights(d.y - x @ b.float()))
            again.rows = known.rows
            b = again.solve(strength)
        return put_back(ground, b if basis is None else basis.double() @ b)

    return at


def trained(ground: Ground, parts: Sequence[tuple[int, int]], encoder: bool, seed: int = 0, steps: int = STEPS) -> Path:
    """Decoder and skip, with ``encoder`` all, trained over the origins of ``parts``, which follow one another.

    The strength says how much of the way from the parent's weights is gone: 1 is what training gave.
    """
    first, last = parts[0][0], parts[-1][1]
    history = ground.net.series.history
    count, origins = (16, 16) if encoder else (192, 1)  # remembered, origins need not share a stretch
    draw = Draw(first, last, history, count, origins, seed)
    if encoder:
        with ground.thawed_encoder():
            found = train(ground.net, draw, steps)
    else:
        found = train(ground.net, draw, steps)
        ground.use({})

    def at(strength: float) -> Weights:
        return {name: torch.lerp(ground.parent[name], value, strength) for name, value in found.items()}

    return at


def train(net: Forecaster, draw: Draw, steps: int, rate: float = RATE, bf16: bool = True) -> Weights:
    """Train all parameters of ``net`` for ``steps`` of Adam on the absolute error; returns what they became."""
    parameters, device = list(net.parameters()), net.series.inputs.device
    optimiser = torch.optim.Adam(parameters, lr=rate, fused=True)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(draw.seed)  # of the dropout
        net.train()
        for step in range(steps):
            at = draw(step).to(device)
            truth = net.series.truth_at(at.origins)
            known = ~truth.isnan()
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                forecast = net(at)
            error = (forecast.float() - truth.nan_to_num()) * known
            loss = (error.abs() / net.series.scale_at(at.origins)[..., None]).sum() / known.sum().clamp(min=1)
            for group in optimiser.param_groups:
                group["lr"] = rate * one_cycle((step + 0.5) / steps)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
    net.eval()
    return {name: value.clone() for name, value in net.state_dict().items()}


def one_cycle(progress: float) -> float:
    """Share of the highest rate: a rise over RISE of the steps, then a cosine to zero."""
    if progress < RISE:
        return 0.04 + 0.96 * (0.5 - 0.5 * math.cos(math.pi * progress / RISE))
    return 0.5 + 0.5 * math.cos(math.pi * (progress - RISE) / (1 - RISE))


@dataclass(frozen=True)
class Candidate:
    """A part that may be thawed.

    Attributes:
        about: in words.
        strengths: how far its fit may go from the parent, from least to most, and of each the weeks of data below which
            it is not tried: few weeks are all alike, so what fits them closely gains on the one held out and not later.
        fit: from the ground and ranges of origins to the weights of each strength; a strength once it is chosen.
    """

    about: str
    strengths: Mapping[float, int]
    fit: Callable[[Ground, Sequence[tuple[int, int]], float | None], Path]

    def tried(self, weeks: int) -> list[float]:
        """The strengths that are tried with so many weeks of data."""
        return [strength for strength, least in self.strengths.items() if least <= weeks]


CANDIDATES: Mapping[str, Candidate] = {
    "bias and scale": Candidate(
        "bias and scale of its output, solved",
        {3e4: 2, 3e3: 8, 3e2: 26},
        lambda ground, parts, chosen: solved(ground, parts, True, chosen),
    ),
    "readout": Candidate(
        "readout and skip, solved",
        {1e6: 2, 3e5: 2, 1e5: 2, 3e4: 2, 1e4: 4, 3e3: 13, 1e3: 52},
        lambda ground, parts, chosen: solved(ground, parts, False, chosen),
    ),
    "decoder": Candidate(
        "decoder and skip, trained on remembered states",
        {0.5: 13, 1.0: 26},
        lambda ground, parts, chosen: trained(ground, parts, False),
    ),
}
"""From what changes least to what changes most. The encoder stays isolated: to train it too takes three times as long
and is no more accurate (experiments/adapt)."""
