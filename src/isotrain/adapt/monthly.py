"""Month after month: only new hours are run, and what is thawed goes on from the month before.

The readout is solved from sums that each month's rows are added to. The decoder is trained on remembered states: at
first on all of them, then on those of the last year, a few steps a month from last month's weights. Its trial on the
weeks held out takes no training of its own: what was trained before those weeks is there from an earlier month.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from isotrain.adapt.candidates import (
    CANDIDATES,
    SPARSE,
    Candidate,
    Ground,
    Path,
    Weights,
    bias_and_scale,
    design,
    put_back,
    trained,
)
from isotrain.adapt.candidates import STEPS as TRAINED
from isotrain.adapt.choose import Choice, choose, held_out
from isotrain.adapt.memory import Equations
from isotrain.forecast.network import Forecaster
from isotrain.forecast.stretches import WEEK

FORGET = 0.8  # how much all earlier rows count after a month
RECENT = 52 * WEEK  # hours before the last that it is then trained on
STEPS = 20  # of training on from what was trained before
SOLVED = ("bias and scale", "readout")
OLD = 5 * WEEK  # hours before the weeks held out from which on what was trained then stands for a trial


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
        names: of :data:`CANDIDATES` what may be thawed.
        steps, recent: steps of the decoder's training after the first time, and the hours before the last that it then
            sees.

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
    forget: float = FORGET
    names: Sequence[str] = (*CANDIDATES,)
    steps: int = STEPS
    recent: int = RECENT
    _sums: dict[str, Sums] = field(default_factory=dict)
    _ends: dict[str, list[int]] = field(default_factory=lambda: {"fitted": [], "whole": []})  # of each call
    _trained: list[tuple[int, Path]] = field(default_factory=list)  # one past the last origin of each, and its weights

    @classmethod
    def of(cls, net: Forecaster, first: int, last: int, **settings: Any) -> "Monthly":
        """``net`` for the origins from ``first`` on, of which those up to ``last`` are run at once.

        ``settings``: the attributes after ``first``.
        """
        return cls(Ground.of(net, first, last), first, **settings)

    def adapt(self, last: int) -> Choice:
        """What to thaw by all origins up to ``last``; later hours of the series are not known yet."""
        self.ground.memory.grow(self.ground.net.series, last)
        fitted = last - held_out(round((last - self.first) / WEEK)) * WEEK - self.ground.net.series.horizon + 1
        self._ends["fitted"].append(fitted)
        self._ends["whole"].append(last)

        def fit(narrow: bool) -> Callable[[Ground, Sequence[tuple[int, int]], float | None], Path]:
            return lambda _, __, chosen: self.sums("fitted" if chosen is None else "whole").path(narrow)

        def train(ground: Ground, parts: Sequence[tuple[int, int]], chosen: float | None) -> Path:
            end = parts[-1][1]
            if chosen is None:
                for at, path in reversed(self._trained):
                    if end - OLD <= at <= end:
                        return path
            follows = chosen is not None and bool(self._trained)
            if follows:
                ground.use(self._trained[-1][1](1.0))
            steps = self.steps if follows else TRAINED
            begin = max(parts[0][0], end - self.recent) if follows else parts[0][0]
            path = trained(ground, [(begin, end)], encoder=False, seed=end, steps=steps)
            self._trained = [*(one for one in self._trained if one[0] >= fitted - OLD), (end, path)]
            return path

        candidates: Mapping[str, Candidate] = {
            **{name: replace(CANDIDATES[name], fit=fit(name == "bias and scale")) for name in SOLVED},
            "decoder": replace(CANDIDATES["decoder"], fit=train),
        }
        return choose(self.ground, self.first, last, {name: candidates[name] for name in self.names})

    def sums(self, name: str) -> Sums:
        """Those of the origins ``fitted`` in the trial, or of the ``whole``, with the rows of each month added."""
        sums = self._sums.setdefault(name, Sums(self.ground, self.first, self.forget))
        for end in self._ends[name]:
            sums.grow(end, 1 if sums.known is not None else SPARSE)
        return sums

    def forecast(self, weights: Weights, origins: Tensor) -> Tensor:
        """(m, K) kW at ``origins``, of the encoder itself with ``weights`` in the place of the parent's."""
        return self.ground.forecast(weights, origins, remembered=False)
