"""Which hours the encoder runs over, and at which of them it forecasts: one form for both regimes of training.

``windowed`` is the case of one origin at the end of a stretch as long as the history; ``streamed`` has many
origins in a longer stretch, all after a warm-up of ``history`` hours. Everything is an index into the series.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise

import torch
from torch import Tensor

WEEK = 168  # hours of origins in one evaluation stretch (streamed)


@dataclass(frozen=True)
class Stretches:
    """``B`` stretches of ``length`` hours with ``M`` origins each.

    ``start`` (B,) first hour of each stretch; ``offset`` (B, M) hours from ``start`` to each origin, in
    ``[history, length]``: the state at an origin is the encoder's output one hour before it. ``windowed``: every origin
    is at the end of its stretch.
    """

    start: Tensor
    offset: Tensor
    length: int
    windowed: bool = False

    @property
    def hours(self) -> Tensor:
        """(B, length) indices of the encoder's hours."""
        return self.start[:, None] + torch.arange(self.length, device=self.start.device)

    @property
    def origins(self) -> Tensor:
        """(B, M) indices of the first hours forecast."""
        return self.start[:, None] + self.offset

    def share(self, rank: int, of: int) -> "Stretches":
        """Every ``of``-th stretch from number ``rank`` on: what one of several processes takes."""
        return replace(self, start=self.start[rank::of], offset=self.offset[rank::of])

    def to(self, device: torch.device) -> "Stretches":
        """The same on another device; to a GPU from pinned memory, so that the host does not wait for the copy."""
        if device.type != "cuda" or self.start.is_cuda:
            return Stretches(self.start.to(device), self.offset.to(device), self.length, self.windowed)
        start, offset = (x.contiguous().pin_memory().to(device, non_blocking=True) for x in (self.start, self.offset))
        return Stretches(start, offset, self.length, self.windowed)


@dataclass(frozen=True)
class Sampler:
    """Draws the stretches of a training step, as a pure function of (seed, step): resuming needs no state.

    Attributes:
        regime: ``"windowed"`` or ``"streamed"``.
        ranges: of each series the first origin to train on, and one past the last.
        history: hours that the encoder runs before the first origin of a stretch.
        stretch: hours of a stretch (streamed; a window is as long as ``history``).
        count: stretches a step.
        origins: origins drawn in each stretch (streamed).
        seed: of the draw.

    Example:
        >>> draw = Sampler("streamed", [(48, 2000)], history=48, stretch=100, count=2, origins=3, seed=0)
        >>> at = draw(step=0)
        >>> tuple(at.hours.shape), tuple(at.origins.shape)
        ((2, 100), (2, 3))
        >>> torch.equal(at.origins, draw(step=0).origins)
        True
    """

    regime: str
    ranges: Sequence[tuple[int, int]]
    history: int
    stretch: int
    count: int
    origins: int
    seed: int

    def __call__(self, step: int) -> Stretches:
        # one generator a step; the multiplier keeps neighbouring (seed, step) pairs apart
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        length = self.stretch if self.regime == "streamed" else self.history
        start = self._starts(torch.randint(int(self._before[-1]), (self.count,), generator=generator))
        if self.regime == "windowed":
            return Stretches(start, torch.full((self.count, 1), self.history), length, windowed=True)
        offset = torch.randint(self.history, length + 1, (self.count, self.origins), generator=generator)
        return Stretches(start, offset, length)

    @cached_property
    def _before(self) -> Tensor:
        """How many stretches fit into the series before each, and into all of them."""
        length = self.stretch if self.regime == "streamed" else self.history
        fit = (max(last - first + self.history - length, 0) for first, last in self.ranges)
        return torch.tensor([0, *accumulate(fit)])

    @cached_property
    def _firsts(self) -> Tensor:
        """The first hour of the first stretch of each series."""
        return torch.tensor([first - self.history for first, _ in self.ranges])

    def _starts(self, drawn: Tensor) -> Tensor:
        """The first hours of the stretches ``drawn``, all of which are numbered series by series."""
        of = torch.bucketize(drawn, self._before, right=True) - 1
        return drawn - self._before[of] + self._firsts[of]


def cover(origins: Tensor, regime: str, history: int, batch_hours: int = 12_000) -> Iterator[tuple[Stretches, Tensor]]:
    """Evaluate at every origin, in batches of about ``batch_hours`` encoder hours (memory does not grow with n).

    ``origins``: (n,) increasing; neighbours with the stride of the first two share a stretch, so series that lie one
    after the other do not. Yields stretches and the positions (B, M) in ``origins`` that they answer; a position of
    -1 is padding.
    """
    n = len(origins)
    stride = int(origins[1] - origins[0]) if n > 1 else 1
    many = min(max(WEEK // stride, 1), n) if regime == "streamed" else 1
    length = history + (many - 1) * stride
    breaks = (origins[1:] - origins[:-1] != stride).nonzero().flatten() + 1
    bounds = [0, *breaks.tolist(), n]
    first = torch.cat([torch.arange(begin, end, many) for begin, end in pairwise(bounds)])
    last = torch.cat([torch.arange(begin + many, end + many, many).clamp(max=end) for begin, end in pairwise(bounds)])
    position = first[:, None] + torch.arange(many)
    position[position >= last[:, None]] = -1
    start = origins[first] - history
    offset = history + torch.arange(many) * stride
    size = max(batch_hours // length, 1)
    for rows in torch.arange(len(start)).split(size):
        yield Stretches(start[rows], offset.expand(len(rows), -1), length, many == 1), position[rows]
