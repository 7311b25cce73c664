"""The encoder: what reads the hours before an origin, and the LSTM among them.

Legend: n hours of the series, B stretches, L hours of a stretch, H hidden units, F inputs of an hour.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from isotrain.lstm import LSTM
from isotrain.lstm.backends import Backend
from isotrain.lstm.carried import carried_states, start_at
from isotrain.lstm.plan import Isolated

T = TypeVar("T")


class Encoder(nn.Module):
    """Inputs of each hour to a state of each hour, which depends on no later input.

    An encoder is made from the number of inputs, ``hidden`` units (H), ``layers``, ``history`` (the hours that a
    state must be able to see) and ``backend`` (what computes an LSTM), and says what its :meth:`states` are.
    """

    def __init__(self, inputs: int, hidden: int, layers: int, history: int, backend: Backend) -> None:
        super().__init__()

    def states(self, x: Float[Tensor, "B L F"]) -> Float[Tensor, "B L H"]:
        """The state after each hour of ``x``, from nothing known before it."""
        raise NotImplementedError

    def forward(self, inputs: Float[Tensor, "n F"], start: Int[Tensor, " B"], length: int) -> Float[Tensor, "B L H"]:
        """The states of ``length`` hours from each ``start`` on; hours beyond the series repeat its last."""
        return self.states(inputs[_hours(inputs, start, length)])

    @property
    def backend(self) -> str:
        """What computes it, for the record."""
        return "torch"


class LSTMEncoder(Encoder):
    """The LSTM. What is isolated and can be known beforehand need not be run in every stretch.

    After :meth:`remember_over` it is run once over the series and looked up while training: units that see the
    input alone, and the older steps of windows that start late (:mod:`isotrain.lstm.carried`).
    """

    def __init__(self, inputs: int, hidden: int, layers: int, history: int, backend: Backend = "auto") -> None:
        super().__init__(inputs, hidden, layers, history, backend)
        self.lstm = LSTM(inputs, hidden, layers, batch_first=True, backend=backend)
        self._span: tuple[int, int] | None = None
        self._memory: tuple[Isolated, Any] | None = None

    @property
    def backend(self) -> str:
        return str(self.lstm.chosen)

    def remember_over(self, hours: int, warm: int) -> None:
        """Remember over the first ``hours`` of the series, each lane warmed up over ``warm``."""
        self._span = hours, warm

    def states(self, x: Float[Tensor, "B L F"]) -> Float[Tensor, "B L H"]:
        answer: Tensor = self.lstm(x)[0]
        return answer

    def forward(self, inputs: Float[Tensor, "n F"], start: Int[Tensor, " B"], length: int) -> Float[Tensor, "B L H"]:
        if not (self.training and self._span):
            return super().forward(inputs, start, length)
        if self.lstm.isolated.carried:
            return self._started_late(inputs, _hours(inputs, start, length))
        if self.lstm.memory_width:
            hours = _hours(inputs, start, length)
            rows = torch.cat([hours[:, :1], hours + 1], 1)  # one more: the state before the first hour
            answer: Tensor = self.lstm(inputs[hours], memory=self._remembered(inputs)[rows])[0]
            return answer
        return super().forward(inputs, start, length)

    def _started_late(self, inputs: Tensor, hours: Tensor) -> Tensor:
        """The last hours alone, from the states before them; zeros for the hours that are not run."""
        length = hours.shape[1]
        steps = min(self.lstm.isolated.steps or length, length)
        recent = hours[:, length - steps :]
        states: Tensor = self.lstm(inputs[recent], start_at(self._carried(inputs), recent[:, 0]))[0]
        return torch.cat([states.new_zeros(len(states), length - steps, states.shape[2]), states], 1)

    def _carried(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The states of the whole LSTM, before each hour."""
        assert self._span is not None
        hours, warm = self._span
        return self._kept(lambda: carried_states(self.lstm, inputs[:hours], warm))

    def _remembered(self, inputs: Tensor) -> Tensor:
        """The isolated units, whose weights do not move."""
        assert self._span is not None
        hours, warm = self._span
        return self._kept(lambda: self.lstm.remember(inputs[:hours], warm=warm))

    def _kept(self, run: Callable[[], T]) -> T:
        """What ``run`` answers, asked again whenever the LSTM has been told anew what to isolate."""
        if self._memory is None or self._memory[0] is not self.lstm.isolated:
            self._memory = (self.lstm.isolated, run())
        return self._memory[1]


class ZeroedEncoder(LSTMEncoder):
    """An LSTM with all its parameters that is never run: the state is zero. The control without recurrence."""

    def forward(self, inputs: Float[Tensor, "n F"], start: Int[Tensor, " B"], length: int) -> Float[Tensor, "B L H"]:
        return inputs.new_zeros(len(start), length, self.lstm.hidden_size)


def _hours(inputs: Tensor, start: Tensor, length: int) -> Tensor:
    return (start[:, None] + torch.arange(length, device=start.device)).clamp(max=len(inputs) - 1)
