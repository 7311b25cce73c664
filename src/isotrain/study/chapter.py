"""What the study's pages are made of: a chapter, an effect with its judgement, and numbers as words."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from isotrain.compare.statistics import Interval, median_interval
from isotrain.report.tables import three_digits
from isotrain.study.race import CONFIDENCE, MARGIN, RESAMPLES

DEAREST = 2.0  # times the rival's seconds that a surely lower error may cost
LEAST = 3  # seeds without which nothing is decided
Part = Literal["credit", "units", "trained"]  # credit through time; units or layers; most of a trained network
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Effect:
    """A row of the first figure: what isolating does beside the strongest rival that isolates nothing.

    ``part``: what is isolated, of :data:`Part`. ``times``: how many times fewer seconds. ``error``: its error over
    the rival's. None: not measured. ``to_target``: the seconds are those to one error, so that they are compared at
    equal error already.
    """

    label: str
    label_fr: str
    chapter: str
    part: Part
    rival: str
    times: Interval | None
    error: Interval | None
    seeds: int = 5
    to_target: bool = False

    @property
    def pays(self) -> str:
        """``yes``, ``no``, ``trade`` or ``not separated``, by rule 13 of docs/protocol.md."""
        if self.seeds < LEAST:
            return "not separated"
        sooner = self.times is not None and self.times.low > 1
        affordable = self.times is None or self.times.median >= 1 / DEAREST
        equal = self.to_target or self.error is None or self.error.high <= 1 + MARGIN
        truer = self.error is not None and self.error.high < 1
        if (sooner and equal) or (truer and affordable):
            return "yes"
        later = self.times is not None and self.times.high < 1
        worse = self.error is not None and self.error.low > 1
        if sooner and worse:
            return "trade"
        return "no" if later or worse else "not separated"


@dataclass(frozen=True)
class Chapter:
    """What a page shows of one question. ``tables``: heading -> Markdown; ``record``: commit, date, hardware."""

    letter: str
    title: str
    question: str
    verdict: str
    command: str
    record: str
    tables: Mapping[str, str]
    effects: Sequence[Effect] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def interval(values: Sequence[float]) -> Interval:
    """Median with the protocol's interval."""
    return median_interval(values, CONFIDENCE, RESAMPLES)


def said(seconds: float | None) -> str:
    """Seconds, or that the target was missed."""
    return "never" if seconds is None or not math.isfinite(seconds) else f"{three_digits(seconds)} s"


def in_times(ratio: Interval) -> str:
    """A ratio with its interval, if it has one."""
    if not math.isfinite(ratio.median):
        return "missed"
    if ratio.low == ratio.high:
        return f"{ratio.median:.2f} times"
    ends = (f"{one:.2f}" if math.isfinite(one) else "missed" if one < 0 else "∞" for one in (ratio.low, ratio.high))
    return f"{ratio.median:.2f} times [{', '.join(ends)}]"


def bracketed(ratio: Interval) -> str:
    return f"{ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"


def spread(value: Json, say: Callable[[float], str], absent: str = "–") -> str:
    """Median and interval of a row."""
    middle, low, high = value["median"], value["low"], value["high"]
    if middle is None:
        return absent
    ends = [say(one) if one is not None else "missed" for one in (low, high)]
    return say(middle) if low == high else f"{say(middle)} ({ends[0]}–{ends[1]})"
