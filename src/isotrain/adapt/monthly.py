"""Month after month: only new hours are run, and the readout is solved from sums that each month's rows are added to.

The decoder, where it is thawed, is trained on the remembered states of the last year.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from isotrain.adapt.candidates import (
    CANDIDATES,
    Candidate,
    Ground,
    Path,
    Weights,
    bias_and_scale,
    design,
    put_back,
    trained,
)
from isotrain.adapt.choose import Choice, choose, held_out
from isotrain.adapt.memory import Equations
from isotrain.forecast.network import Forecaster
from isotrain.forecast.stretches import WEEK

FORGET = 0.8  # how much all earlier rows count after a month
RECENT = 52 * WEEK  # hours before the last that the decoder is trained on
SOLVED = ("bias and scale", "readout")


@dataclass
class Sums:
    """Normal equations of the origins from ``until`` backward, to which later ones are added."""

    ground: Ground
    until: int
    forget: float
    known: Equations | None = None
    added: int = 0  # rows in all

    def grow(self, last: int, step: int) -> None:
        """Add the origins up to ``last``, every ``step``-th of them; what was there before counts ``forget`` times."""
        if last <= self.until:
            return
        new = design(self.ground, torch.arange(self.until, last, step))
        if self.known is None:
            self.known = Equations.empty(new.x.shape[1], new.x.device)
        self.known.add(new.x, new.y, new.weights(new.y), self.forget)
        self.known.rows += (new.step - 1) * len(new.y)  # each row stands for several
        self.added += len(new.y)
        self.until = last

    def path(self, narrow: bool) -> Path:
        """Of each strength of the ridge the weights; ``narrow``: bias and scale alone."""
        known = self.known
        assert known is not None, "grow comes first"
        if not narrow:
            return lambda strength: put_back(self.ground, known.solve(strength))
        basis = bias_and_scale(self.ground).double()
        few = Equations(basis.T @ known.gram @ basis, basis.T @ known.side, known.rows)
        return lambda strength: put_back(self.ground, basis @ few.solve(strength))


@dataclass
class Monthly:
    """A trained forecaster, adapted again whenever hours of its series are added.

    Attributes:
        ground: the forecaster over the series, its encoder's states remembered from the first origin on.
        first: the first origin.
        forget: how much all earlier rows count after each call.

    Example:
        >>> from isotrain.data.windows import Windows
        >>> from isotrain.forecast.network import Forecaster, Series
        >>> windows = Windows.load("data/windows")
        >>> net = Forecaster(Series(windows), hidden=8, layers=1, decoder=8, dropout=0.0)
        >>> first, last = windows.ranges("train")[0]
        >>> monthly = Monthly.of(net, first, last)
        >>> monthly.adapt(last).name in ("nothing", *CANDIDATES)
        True
    """

    ground: Ground
    first: int
    forget: float
    _sums: dict[str, Sums] = field(default_factory=dict)

    @classmethod
    def of(cls, net: Forecaster, first: int, last: int, forget: float = FORGET) -> "Monthly":
        """``net`` for the origins from ``first`` on, of which those up to ``last`` are run at once."""
        return cls(Ground.of(net, first, last), first, forget)

    def adapt(self, last: int) -> Choice:
        """What to thaw by all origins up to ``last``; later hours of the series are not known yet."""
        self.ground.memory.grow(self.ground.net.series, last)
        fitted = last - held_out(round((last - self.first) / WEEK)) * WEEK - self.ground.net.series.horizon + 1
        for name, end in (("fitted", fitted), ("whole", last)):
            sums = self._sums.setdefault(name, Sums(self.ground, self.first, self.forget))
            sums.grow(end, 1 if sums.known is not None else 5)  # 5 is prime to 24

        def fit(narrow: bool) -> Callable[[Ground, Sequence[tuple[int, int]], float | None], Path]:
            return lambda _, __, chosen: self._sums["fitted" if chosen is None else "whole"].path(narrow)

        def train(ground: Ground, parts: Sequence[tuple[int, int]], _: float | None) -> Path:
            return trained(ground, [(max(parts[0][0], parts[-1][1] - RECENT), parts[-1][1])], encoder=False)

        candidates: Mapping[str, Candidate] = {
            **{name: replace(CANDIDATES[name], fit=fit(name == "bias and scale")) for name in SOLVED},
            "decoder": replace(CANDIDATES["decoder"], fit=train),
        }
        return choose(self.ground, self.first, last, candidates)

    def forecast(self, weights: Weights, origins: Tensor) -> Tensor:
        """(m, K) kW at ``origins``, of the encoder itself with ``weights`` in the place of the parent's."""
        return self.ground.forecast(weights, origins, remembered=False)
