"""Schedules: training progress in [0, 1] to the fraction that is isolated.

A schedule is a value: frozen, printable, comparable, and called like the function that it is. All of them
take the same keywords, so that one can replace another in a configuration; each says which it reads.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from isotrain.errors import InputError

Schedule = Callable[[float], float]


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """What every schedule is told.

    Args:
        fraction: the largest fraction, in [0, 1].
        start, stop: between them the fraction changes; progress in [0, 1], start <= stop.
        levels: rises of ``step``, 1 or more.
        cycles: periods of ``cyclic``, 1 or more.
        patience: looks without improvement that ``plateau`` waits for, 1 or more.
        least: improvement that ``plateau`` takes for one, relative to the best value before; 0 or more.

    Raises:
        InputError: a value outside these bounds.
    """

    fraction: float = 0.5
    start: float = 0.25
    stop: float = 1.0
    levels: int = 4
    cycles: int = 4
    patience: int = 3
    least: float = 0.01

    def __post_init__(self) -> None:
        for name, value in (("fraction", self.fraction), ("start", self.start), ("stop", self.stop)):
            if not 0.0 <= value <= 1.0:  # written so that NaN is refused too
                raise InputError(f"schedule: {name}={value} is outside [0, 1]; give a share between 0 and 1")
        if self.start > self.stop:
            raise InputError(
                f"schedule: start={self.start} comes after stop={self.stop}; "
                "give start <= stop, both as progress in [0, 1]"
            )
        for name, count in (("levels", self.levels), ("cycles", self.cycles), ("patience", self.patience)):
            if count < 1:
                raise InputError(f"schedule: {name}={count} is too few; give a whole number, 1 or more")
        if not 0.0 <= self.least < math.inf:
            raise InputError(f"schedule: least={self.least} is no improvement; give 0 or more, such as 0.01")

    def __call__(self, progress: float) -> float:
        return self.fraction * self._share(self._between(progress))

    def _between(self, progress: float) -> float:
        """Where ``progress`` stands between start (0) and stop (1); 0 before, 1 from stop on."""
        if progress >= self.stop:
            return 1.0
        return max(0.0, progress - self.start) / (self.stop - self.start) if progress > self.start else 0.0

    def _share(self, x: float) -> float:
        """The share of ``fraction`` at ``x`` between start and stop."""
        raise NotImplementedError


class Constant(_Settings):
    """Nothing before ``start``, then ``fraction``; ``stop`` plays no part."""

    def __call__(self, progress: float) -> float:
        return self.fraction if progress >= self.start else 0.0


class Step(_Settings):
    """A staircase of ``levels`` equal rises, the last at ``stop``: ``linear`` rounded down to a level."""

    def _share(self, x: float) -> float:
        return math.floor(self.levels * x) / self.levels


class Linear(_Settings):
    """A straight line from 0 at ``start`` to ``fraction`` at ``stop``, flat on both sides."""

    def _share(self, x: float) -> float:
        return x


class Cubic(_Settings):
    """Fast first and slow at the end: fraction (1 - (1 - x)³), flat outside start and stop.

    Zhu and Gupta, arXiv 1710.01878, eq. 1, from an initial sparsity of 0; there what is removed is gone.
    """

    def _share(self, x: float) -> float:
        return 1.0 - (1.0 - x) ** 3


class Cosine(_Settings):
    """Half a period of a cosine, slow at both ends: fraction (1 - cos(pi x)) / 2."""

    def _share(self, x: float) -> float:
        return (1.0 - math.cos(math.pi * x)) / 2


class Cyclic(_Settings):
    """Out and back ``cycles`` times: fraction (1 - cos(2 pi cycles x)) / 2; 0 outside start and stop.

    A period must hold several looks, or the looks see another shape.
    """

    def _share(self, x: float) -> float:
        return (1.0 - math.cos(2 * math.pi * self.cycles * x)) / 2


class Warmup(_Settings):
    """Everything trains until ``start``, ``fraction`` is isolated until ``stop``, then everything trains again.

    The order of dense-sparse-dense training (Han et al., arXiv 1607.04381): the last phase lets the weights that
    moved and those that did not adapt to each other. With ``stop`` = 1 there is none, and it is ``constant``.
    """

    def __call__(self, progress: float) -> float:
        return self.fraction if self.start <= progress < self.stop else 0.0


class Plateau(_Settings):
    """Nothing until a loss stops improving, and never before ``start``; then ``fraction`` at once.

    Called alone it is ``constant``: only its caller knows the loss. A schedule that has ``triggered`` waits for it: the
    caller isolates nothing until ``triggered`` says yes for the first time, and from then on follows ``since``.
    """

    def __call__(self, progress: float) -> float:
        return self.fraction if progress >= self.start else 0.0

    def triggered(self, values: Sequence[float]) -> bool:
        """Whether the losses so far, one a look, have stopped improving.

        True if the best of the last ``patience`` values is not below the best before them by more than ``least``
        times its size; False as long as there are no values before them.

        Raises:
            InputError: a value that is not finite.
        """
        for value in values:
            if not math.isfinite(value):
                raise InputError(
                    f"schedule plateau: the monitored loss is {value}, not a finite number (a diverged training: "
                    "lower the learning rate or clip the gradient)"
                )
        if len(values) <= self.patience:
            return False
        before, recent = min(values[: -self.patience]), min(values[-self.patience :])
        return before - recent <= self.least * abs(before)

    def since(self, progress: float) -> "Plateau":
        """The same schedule, starting when the loss stopped improving, at ``progress``, or at ``start`` if later."""
        start = max(self.start, progress)
        return replace(self, start=start, stop=max(self.stop, start))


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": Constant,
    "step": Step,
    "linear": Linear,
    "cubic": Cubic,
    "cosine": Cosine,
    "cyclic": Cyclic,
    "warmup": Warmup,
    "plateau": Plateau,
}
