"""Schedules: training progress in [0, 1] to the fraction of zones that is isolated.

A schedule is a value: frozen, printable, comparable, and called like the function that it is. All of them
take the same keywords, so that one can replace another in a configuration.
"""

from collections.abc import Callable
from dataclasses import dataclass

from isotrain.errors import InputError

Schedule = Callable[[float], float]


@dataclass(frozen=True, kw_only=True)
class _Bounds:
    """What every schedule is told: the largest ``fraction``, and progress from ``start`` to ``stop``."""

    fraction: float = 0.5
    start: float = 0.25
    stop: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("fraction", self.fraction), ("start", self.start), ("stop", self.stop)):
            if not 0.0 <= value <= 1.0:  # written so that NaN is refused too
                raise InputError(f"schedule: {name}={value} is outside [0, 1]; give a share between 0 and 1")
        if self.start > self.stop:
            raise InputError(
                f"schedule: start={self.start} comes after stop={self.stop}; "
                "give start <= stop, both as progress in [0, 1]"
            )


class Constant(_Bounds):
    """Nothing before ``start``, then ``fraction``; ``stop`` plays no part."""

    def __call__(self, progress: float) -> float:
        return self.fraction if progress >= self.start else 0.0


class Ramp(_Bounds):
    """A straight line from 0 at ``start`` to ``fraction`` at ``stop``, flat on both sides."""

    def __call__(self, progress: float) -> float:
        if progress >= self.stop:
            return self.fraction
        if progress <= self.start:
            return 0.0
        return self.fraction * (progress - self.start) / (self.stop - self.start)


SCHEDULES: dict[str, Callable[..., Schedule]] = {"constant": Constant, "ramp": Ramp}
