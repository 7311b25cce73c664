"""What is run once over a new series and kept: states of the isolated encoder, sums from which a readout is solved.

Letters in shapes: m origins, K leads, H hidden units, P columns of a design.
"""

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from isotrain.forecast.encoders import Encoder
from isotrain.forecast.network import Forecaster
from isotrain.forecast.series import Series
from isotrain.forecast.stretches import WEEK, Stretches, cover


class Remembered(Encoder):
    """States of an encoder that no longer changes, at every origin from ``first`` on, in the place of that encoder.

    They are those of :func:`cover`: stretches of a week of origins, one after the other, each warmed up over the
    history. So :meth:`grow` runs the encoder over new hours alone, and gives what running it over all would give.

    Args:
        encoder: what is run, without dropout and without a graph.
        series: what it reads.
        first, last: the first origin, and one past the last.

    Example:
        >>> from isotrain.data.windows import Windows
        >>> from isotrain.forecast.network import Forecaster, Series
        >>> windows = Windows.load("data/windows")
        >>> net = Forecaster(Series(windows), hidden=8, layers=1, decoder=8, dropout=0.0)
        >>> first, last = windows.ranges("validation")[0]
        >>> before = net.forecast(torch.arange(first, last))
        >>> net.encoder = Remembered(net.encoder, net.series, first, last)
        >>> torch.allclose(net.forecast(torch.arange(first, last)), before, atol=1e-4)
        True
    """

    def __init__(self, encoder: Encoder, series: Series, first: int, last: int) -> None:
        super().__init__(0, 0, 0, 0, "torch")
        self._encoder = (encoder,)  # in a tuple, so that its weights do not count among those of the network
        self.first = first
        self.kept = torch.empty(0)
        self.ran = 0
        self.grow(series, last)

    @property
    def encoder(self) -> Encoder:
        """What was run."""
        return self._encoder[0]

    @property
    def last(self) -> int:
        """One past the last origin."""
        return self.first + len(self.kept)

    @torch.no_grad()
    def grow(self, series: Series, last: int) -> None:
        """Run the encoder for the origins up to ``last``, those of the last stretch that was not full included."""
        full = len(self.kept) // WEEK * WEEK
        new = torch.arange(self.first + full, last)
        if last <= self.last:
            return
        states = torch.empty(0)
        was = self.encoder.training
        self.encoder.eval()
        for at, position in cover(new, "streamed", series.history):
            found = self.encoder(series, at.to(series.inputs.device))
            if not len(states):
                states = found.new_empty(len(new), found.shape[-1])
            real = position >= 0
            states[position[real]] = found[real]
            self.ran += at.start.numel() * at.length
        self.encoder.train(was)
        self.kept = torch.cat([self.kept[:full], states]) if full else states

    def forward(self, series: Series, at: Stretches) -> Float[Tensor, "B M H"]:
        rows = (at.origins - self.first).clamp(max=len(self.kept) - 1)  # only padding is beyond
        if int(rows.min()) < 0:
            raise IndexError(f"no state is remembered before origin {self.first}")
        return self.kept[rows]


@dataclass(frozen=True)
class Draw:
    """The stretches of a training step on an adapted series: a function of (seed, step), on the grid of :func:`cover`.

    So the states at its origins are those that :class:`Remembered` keeps, and training with memory and without it is
    the same training.
    """

    first: int
    last: int  # one past the last origin
    history: int
    count: int  # stretches
    origins: int  # in each
    seed: int

    def __call__(self, step: int) -> Stretches:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        drawn = torch.randint(self.last - self.first, (self.count,), generator=generator)
        start = drawn // WEEK * WEEK  # a stretch is drawn as often as it has origins
        room = (self.last - self.first - start).clamp(max=WEEK)
        offset = (torch.rand(self.count, self.origins, generator=generator) * room[:, None]).long()
        return Stretches(self.first + start - self.history, self.history + offset, self.history + WEEK - 1)


@dataclass
class Equations:
    """Weighted normal equations in float64, to which rows may be added: ``gram`` X'WX (P, P) and ``side`` X'Wy (P,).

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> x = torch.randn(50, 3, generator=rng)
        >>> known = Equations.empty(3).add(x, x @ torch.tensor([1.0, 2.0, 3.0]), torch.ones(50))
        >>> [round(v, 3) for v in known.solve(0.0).tolist()]
        [1.0, 2.0, 3.0]
    """

    gram: Tensor
    side: Tensor
    rows: float = 0.0

    @classmethod
    def empty(cls, columns: int, device: torch.device | None = None) -> Self:
        """Without any row, on the device where rows will be."""
        gram = torch.zeros(columns, columns, dtype=torch.float64, device=device)
        return cls(gram, gram.new_zeros(columns))

    def add(
        self, x: Float[Tensor, "n P"], y: Float[Tensor, " n"], weight: Float[Tensor, " n"], forget: float = 1.0
    ) -> Self:
        """With the rows ``x`` and what they are to give, ``y``; all earlier ones count ``forget`` times as much."""
        self.gram *= forget
        self.side *= forget
        self.rows = self.rows * forget + len(x)
        for rows in torch.arange(len(x)).split(8192):  # a float32 product of so many rows is exact enough
            one = slice(int(rows[0]), int(rows[-1]) + 1)
            weighted = x[one] * weight[one, None]
            self.gram += (weighted.T @ x[one]).double()
            self.side += (weighted.T @ y[one]).double()
        return self

    def solve(self, penalty: float | Tensor) -> Float[Tensor, " P"]:
        """The solution with the least squares and ``penalty`` times the squared coefficients, of columns of unit size.

        A column's size is the root of its mean square, so that a penalty means the same of every column.
        """
        size = (self.gram.diagonal() / max(self.rows, 1.0)).sqrt().clamp(min=1e-6)
        scaled = self.gram / size[:, None] / size
        scaled.diagonal().add_(penalty)
        solution: Tensor = torch.linalg.solve(scaled, self.side / size) / size
        return solution


def isolate_encoder(net: Forecaster, first: int, last: int) -> Remembered:
    """Run the encoder of ``net`` once over the origins from ``first`` to ``last`` and put its states in its place."""
    memory = Remembered(net.encoder, net.series, first, last)
    net.encoder = memory
    return memory
