"""How far back a backward pass has to reach, measured: the adaptive horizon of training with one loss a window.

A backward over the last k of T time steps (``LSTM.isolate(steps=k)``) leaves out what older steps add to the weight
gradient. How much that is changes as the network learns to remember, so k is chosen again and again from one exact
measurement: the gradient of the weights is a sum over the time steps at which they are used,

    g = sum_t g_t,      g_t = (dL/d gates_t)^T [x_t, h_(t-1), 1],

and a weight used at step t reaches the loss through steps >= t alone, whatever the layer and wherever the loss is.
The backward over the last k steps therefore gives exactly sum_(t >= T-k) g_t, and neglects sum_(t < T-k) g_t. One
*whole* forward and backward, run stretch by stretch, yields these sums for every k of a ladder at once, and its own
gradient is the whole one: a step that measures also trains.

Legend: T time steps, R rungs of the ladder. The *age* of a step is T - 1 - t: horizon k covers the ages below k.

Choosing the truncation by a bound on the relative bias of the gradient: Aicher, Foti and Fox, "Adaptively Truncating
Backpropagation Through Time to Control Gradient Bias", UAI 2019 (arXiv 1905.07473). They extrapolate a geometric decay
of the hidden states' gradients; here the windows are short enough to measure the weight gradients themselves.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import PackedSequence

from isotrain.errors import InputError
from isotrain.lstm.lstm import LSTM
from isotrain.lstm.plan import Credit, Units

LADDER = (12, 24, 48, 96, 168)  # time steps; hours, in the study


class Measurement:
    """While attached, each forward of some LSTMs is whole and its backward tells the stretches of time apart.

    It works from outside, through the module's ``forward``: with any backend and precision, several layers, batch
    first or not. Several forwards and backwards add up, as gradients do (accumulation); forwards without a graph
    are left alone. Between stretches the states pass through ``forward``'s own interface, so the outputs equal the
    undivided ones up to rounding, and a dropout between layers draws its noise stretch by stretch, with the same
    distribution. Layers and whole units may be isolated meanwhile: what does not train is not counted.

    Args:
        lstms: one LSTM or several, measured as one vector of weights.
        ladder: horizons of interest in time steps, in any order; those beyond a sequence neglect nothing.

    Attributes:
        ladder: sorted, each rung once.
        parts: parameter -> (R + 1, \\*shape): row r is what the ages from ``ladder[r - 1]`` (0 for the first row) to
            below ``ladder[r]`` (no end for the last) add to its gradient.

    Raises:
        InputError: for a ladder without rungs or with one below 1, an LSTM that runs in both directions, one whose
            backward is cut in time already, and packed sequences.

    Example:
        >>> import torch
        >>> from isotrain.lstm import LSTM
        >>> lstm, x = LSTM(3, 8, batch_first=True), torch.randn(4, 48, 3)
        >>> with Measurement(lstm, ladder=(12, 24, 48)) as measurement:
        ...     lstm(x)[0][:, -1].sum().backward()      # p.grad: the whole gradient
        >>> shares = measurement.neglected()            # by a backward over the last 12, 24 and 48 steps
        >>> shares[12] > shares[24] > shares[48] == 0
        True
    """

    def __init__(self, lstms: nn.LSTM | Iterable[nn.LSTM], ladder: Iterable[int] = LADDER) -> None:
        self.ladder = checked_ladder(ladder)
        self._lstms = [lstms] if isinstance(lstms, nn.LSTM) else list(lstms)
        self._replaced: list[tuple[nn.LSTM, Any]] = []
        for lstm in self._lstms:
            if lstm.bidirectional:
                raise InputError("a bidirectional LSTM has no oldest steps: the horizon of its backward is undefined")
        trained = {p: None for lstm in self._lstms for p in lstm.parameters() if p.requires_grad}  # a shared one: once
        self.parts: dict[nn.Parameter, Tensor] = {p: p.new_zeros(len(self.ladder) + 1, *p.shape) for p in trained}

    def attach(self) -> None:
        """Measure the forwards from now on; :meth:`detach` must follow, also when something fails in between."""
        if self._replaced:
            raise InputError("this measurement is attached already")
        for lstm in self._lstms:
            _require_whole(lstm)
        for lstm in self._lstms:
            self._replaced.append((lstm, vars(lstm).get("forward")))
            lstm.forward = self._measured(lstm, lstm.forward)  # type: ignore[method-assign]

    def detach(self) -> None:
        """Give every LSTM its own forward back; what was measured stays. Harmless if not attached."""
        while self._replaced:
            lstm, own = self._replaced.pop()
            if own is None:
                del lstm.forward  # the class's is found again
            else:
                lstm.forward = own  # type: ignore[method-assign]

    def __enter__(self) -> Self:
        self.attach()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.detach()

    def neglected(self, mean: Callable[[Tensor], Tensor] = lambda gradient: gradient) -> dict[int, float]:
        """Rung k -> ||g - g_k|| / ||g||, the relative L2 norm of the weight gradient that horizon k neglects.

        ``mean`` is that of a gradient over all processes, where several share a batch.

        g is the whole gradient of all the LSTMs' weights and biases, g_k that of the last k time steps. Summed from
        the neglected steps themselves, so a small share has full relative accuracy. NaN for all if g is zero or is
        no number: such a backward says nothing.
        """
        squares = torch.zeros(len(self.ladder) + 1, dtype=torch.float64)
        for part in self.parts.values():
            older = mean(part).double().flatten(1).flip(0).cumsum(0).flip(0)  # row r: all ages from ladder[r - 1] on
            squares += older.square().sum(1).cpu()
        says_something = 0 < squares[0] < torch.inf
        shares = (squares[1:] / squares[0]).sqrt() if says_something else torch.full_like(squares[1:], torch.nan)
        return dict(zip(self.ladder, shares.tolist(), strict=True))

    def _measured(self, lstm: nn.LSTM, whole: Callable[..., Any]) -> Callable[..., Any]:
        run = _Forward(lstm, whole)

        def forward(input: Any, hx: Any = None, **others: Any) -> Any:
            if not torch.is_grad_enabled():
                return whole(input, hx, **others)
            if isinstance(input, PackedSequence):
                raise InputError("packed sequences have no common last step: pad them to measure a horizon")
            if any(value is not None for value in others.values()):
                raise InputError(f"a measured forward takes an input and states only, not {', '.join(others)}")
            time_dim = 1 if lstm.batch_first and input.dim() == 3 else 0
            outputs = []
            for row, stretch in self._stretches(input, time_dim):
                y, hx = functional_call(run, self._watched(lstm, row), (stretch, hx))
                outputs.append(y)
            return torch.cat(outputs, time_dim), hx

        return forward

    def _stretches(self, x: Tensor, time_dim: int) -> list[tuple[int, Tensor]]:
        """(row of ``parts``, that stretch of ``x``), oldest first, empty ones left out."""
        steps = x.size(time_dim)
        ages = [0, *(min(k, steps) for k in self.ladder), steps]
        lengths = [old - young for young, old in pairwise(ages)]
        pieces = zip(reversed(range(len(lengths))), x.split(lengths[::-1], time_dim), strict=True)
        return [(row, piece) for row, piece in pieces if piece.size(time_dim)]

    def _watched(self, lstm: nn.LSTM, row: int) -> dict[str, Tensor]:
        """The weights under another name: views, so that a kernel finds the same memory, whose gradient is noted."""
        views = {}
        for name, p in lstm.named_parameters():
            if p.requires_grad:
                view = p.view_as(p)
                view.register_hook(lambda gradient, p=p: self._note(p, row, gradient))
                views[f"lstm.{name}"] = view
        return views

    def _note(self, p: nn.Parameter, row: int, gradient: Tensor) -> None:
        self.parts[p][row] += gradient.detach()  # a sum of its own: autograd may reuse the memory of `gradient`


class _Forward(nn.Module):
    """An LSTM's own forward, reached past the one that stands in for it."""

    def __init__(self, lstm: nn.LSTM, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.lstm = lstm
        self._run = forward

    def forward(self, x: Tensor, hx: Any) -> Any:
        return self._run(x, hx)


class CreditMeasurement:
    """While attached, each forward of some LSTMs is whole, and tells what leaving credit out would have neglected.

    Beside the whole forward, which the backward goes through, the LSTM runs once more from the same input with its
    credit left out; the gradient that arrives at its outputs is sent back through that graph too. The difference of
    the two weight gradients is what is neglected, exactly. Counted in multiplications, with F those of a forward, a
    whole step costs 3 F, one with credit ``"cell"`` 2 F, and a measured step 5 F; it trains with the whole gradient.

    Args:
        lstms: one LSTM or several, each with all of its layers, measured as one vector of weights.
        credit, part: what :meth:`isotrain.lstm.LSTM.isolate` would be called with.

    Raises:
        InputError: where the LSTM cannot leave credit out, or has something isolated when this is attached.

    Example:
        >>> import torch
        >>> from isotrain.lstm import LSTM
        >>> lstm, x = LSTM(3, 8), torch.randn(48, 4, 3)
        >>> with CreditMeasurement(lstm, "cell") as measurement:
        ...     lstm(x)[0].square().sum().backward()        # p.grad: the whole gradient
        >>> 0 < measurement.neglected() < 1
        True
    """

    def __init__(self, lstms: LSTM | Iterable[LSTM], credit: Credit = "cell", part: int | Units = ()) -> None:
        self._lstms = [lstms] if isinstance(lstms, LSTM) else list(lstms)
        self._asked: dict[str, Any] = {"credit": credit, "part": part}
        self._noted: list[_Noted] = []
        self._attached = False

    def attach(self) -> None:
        """Measure the forwards from now on; :meth:`detach` must follow, also when something fails in between."""
        if self._attached:
            raise InputError("this measurement is attached already")
        for lstm in self._lstms:
            if not lstm.isolated.nothing:
                raise InputError(
                    "something is isolated in the LSTM: a measured step is a whole one, call isolate() first"
                )
        for lstm in self._lstms:
            lstm.forward = self._measured(lstm, lstm.forward)  # type: ignore[method-assign]
        self._attached = True

    def detach(self) -> None:
        """Give every LSTM its own forward back; what was measured stays. Harmless if not attached."""
        if self._attached:
            for lstm in self._lstms:
                del lstm.forward  # the class's is found again
        self._attached = False

    def __enter__(self) -> Self:
        self.attach()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.detach()

    def neglected(self, mean: Callable[[Tensor], Tensor] = lambda gradient: gradient) -> float:
        """||g - g'|| / ||g||, with g the whole gradient of all weights and g' the one without credit.

        ``mean`` is that of a gradient over all processes, where several share a batch.

        Forwards add up, as gradients do. NaN if g is zero, is no number, or no backward has been. To be asked before
        the optimiser changes the weights.
        """
        whole, left_out = 0.0, 0.0
        for lstm in self._lstms:
            notes = [note for note in self._noted if note.lstm is lstm and note.arrived]
            found = [note.gradients for note in notes]
            for full, without in (mean(torch.stack(pair).sum(0)) for pair in zip(*found, strict=True)):
                whole += float(full.double().square().sum())
                left_out += float((full - without).double().square().sum())
        return (left_out / whole) ** 0.5 if 0 < whole < torch.inf else torch.nan

    def _measured(self, lstm: LSTM, run: Callable[..., Any]) -> Callable[..., Any]:
        def forward(input: Any, hx: Any = None, **others: Any) -> Any:
            if not torch.is_grad_enabled():
                return run(input, hx, **others)
            note = _Noted(lstm)
            own = None if hx is None else tuple(state.detach() for state in hx)
            lstm.isolate(**self._asked)
            try:
                without = functional_call(_Forward(lstm, run), note.named(0), (input.detach(), own))
            finally:
                lstm.isolate()
            answer = functional_call(_Forward(lstm, run), note.named(1), (input, hx))
            note.watch(answer, without)
            self._noted.append(note)
            return answer

        return forward


class _Noted:
    """One forward, whole and without credit, and the gradients that arrive at its outputs."""

    def __init__(self, lstm: LSTM) -> None:
        self.lstm = lstm
        self.arrived: dict[int, Tensor] = {}
        self._weights = {name: p for name, p in lstm.named_parameters() if p.requires_grad}
        self._copies = {name: p.detach().requires_grad_() for name, p in self._weights.items()}
        self._views = {name: p.view_as(p) for name, p in self._weights.items()}
        self._full = {name: torch.zeros_like(p) for name, p in self._weights.items()}
        self._outputs: list[Tensor] = []

    def named(self, which: int) -> dict[str, Tensor]:
        return {f"lstm.{name}": value for name, value in (self._copies, self._views)[which].items()}

    def watch(self, answer: Any, without: Any) -> None:
        """Note what arrives at the outputs of ``answer``, and at its weights."""
        self._outputs = [without[0], *without[1]]
        for k, output in enumerate((answer[0], *answer[1])):
            output.register_hook(lambda gradient, k=k: self.arrived.update({k: gradient.detach()}))
        for name, view in self._views.items():
            view.register_hook(lambda gradient, name=name: self._full[name].add_(gradient.detach()))

    @cached_property
    def gradients(self) -> list[Tensor]:
        """Of each weight both gradients, stacked: the whole one, and the one without credit."""
        outputs, arrived = zip(*((self._outputs[k], gradient) for k, gradient in self.arrived.items()), strict=True)
        without = torch.autograd.grad(outputs, list(self._copies.values()), arrived, allow_unused=True)
        return [
            torch.stack([full, torch.zeros_like(full) if own is None else own])
            for full, own in zip(self._full.values(), without, strict=True)
        ]


def next_horizon(neglected: Mapping[int, float], tolerance: float) -> int | None:
    """The smallest rung that, like every longer one, neglects at most ``tolerance``; None (all steps) if none does.

    ``neglected``: rung -> share, as :meth:`Measurement.neglected`. Contributions of different ages can cancel, so
    that one rung does well by accident while a longer one does not: it is then passed over. NaN is not within any
    tolerance.
    """
    chosen = None
    for k in sorted(neglected, reverse=True):
        if not neglected[k] <= tolerance:
            break
        chosen = k
    return chosen


class Horizon:
    """When to measure, and the horizon in force since.

    The caller owns the loop, as in the example; for Lightning :class:`isotrain.isolation.AdaptiveHorizon` does it.

    What holds: a measured step trains with the whole gradient g, and the k it chooses has ||g_k - g|| <= tolerance
    ||g|| at those weights on that batch, LSTM weights counted; there g_k makes an angle of at most arcsin(tolerance)
    with g. Until the next measurement nothing is promised. And the share is of the gradient as the network is *now*:
    what a longer memory would be worth, if the network had one, it does not say (docs/adaptive-horizon.md).

    What it costs: with C(k) the cost of a step of horizon k, (C(T) - C(k)) / every a step more than k held fixed.

    Args:
        ladder: the horizons to choose from, in time steps, in any order.
        tolerance: the largest share of the gradient's norm to neglect, in [0, 1); 0 asks for the whole window.
        every: optimiser steps from one measurement to the next.

    Attributes:
        steps: the horizon in force; None = the whole window, as before the first measurement.
        history: one entry a measurement: ``step``, ``steps`` (chosen) and ``neglected`` (rung -> share; empty if the
            measurement said nothing).

    Raises:
        InputError: for a bad ladder, a tolerance outside [0, 1), or ``every`` below 1.

    Example:
        >>> import torch
        >>> from isotrain.lstm import LSTM
        >>> lstm, x = LSTM(3, 8, batch_first=True), torch.randn(4, 48, 3)
        >>> horizon = Horizon(ladder=(12, 24, 48), tolerance=0.1, every=20)
        >>> for step in range(40):
        ...     loss = lambda: lstm(x)[0][:, -1].square().sum()
        ...     if horizon.due(step):
        ...         lstm.isolate()                              # a measured step is a whole one
        ...         with Measurement(lstm, horizon.ladder) as measurement:
        ...             loss().backward()
        ...         horizon.observe(step, measurement.neglected())
        ...         lstm.isolate(steps=horizon.steps)
        ...     else:
        ...         loss().backward()
        >>> [entry["step"] for entry in horizon.history], horizon.steps
        ([0, 20], 12)
    """

    def __init__(self, ladder: Iterable[int] = LADDER, tolerance: float = 0.1, every: int = 20) -> None:
        self.ladder = checked_ladder(ladder)
        if not 0.0 <= tolerance < 1.0:  # written so that NaN is refused too
            raise InputError(f"tolerance={tolerance}: give a share of the gradient's norm, from 0 to below 1")
        if every < 1:
            raise InputError(f"every={every}: give a number of optimiser steps, 1 or more")
        self.tolerance, self.every = tolerance, every
        self.steps: int | None = None
        self.history: list[dict[str, Any]] = []
        self._next = 0

    def due(self, step: int) -> bool:
        """Whether optimiser step ``step`` (from 0) is to be measured."""
        return step >= self._next

    def observe(self, step: int, neglected: Mapping[int, float]) -> None:
        """Choose the horizon for the steps after ``step`` from what that step measured.

        A measurement that says nothing (NaN: the gradient was zero, as it is while the layer above starts from zero
        weights, or was no number) leaves the horizon as it is and is repeated at the next step.

        Raises :class:`InputError` if the measurement was made with other rungs.
        """
        if set(neglected) != set(self.ladder):
            raise InputError(f"measured at {sorted(neglected)} time steps, but the ladder is {list(self.ladder)}")
        said = {k: share for k, share in sorted(neglected.items()) if share == share}
        if said:
            self.steps = next_horizon(neglected, self.tolerance)
        self._next = step + (self.every if said else 1)
        self.history.append({"step": step, "steps": self.steps, "neglected": said})

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on as if it had not stopped."""
        return {"steps": self.steps, "next": self._next, "history": list(self.history)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The opposite of :meth:`state_dict`."""
        self.steps, self._next, self.history = state["steps"], state["next"], list(state["history"])


def checked_ladder(ladder: Iterable[int]) -> tuple[int, ...]:
    """Sorted, each rung once; :class:`InputError` without rungs or with one below 1."""
    rungs = tuple(sorted(set(ladder)))
    if not rungs:
        raise InputError("ladder: give at least one number of time steps")
    if rungs[0] < 1:
        raise InputError(f"ladder: {rungs[0]} time steps: a backward needs at least 1")
    return rungs


def _require_whole(lstm: nn.LSTM) -> None:
    """Refuse an LSTM whose backward is cut in time: the cut would fall into every stretch."""
    steps = lstm.isolated.steps if isinstance(lstm, LSTM) else None
    credit = lstm.isolated.credit if isinstance(lstm, LSTM) else ()
    if steps is not None or credit:
        cut = f"steps={steps}" if steps is not None else f"credit {', '.join(credit)}"
        raise InputError(f"the LSTM is isolated with {cut}: a measured step is a whole one, call isolate() before it")
