"""One training step of each condition, as a user of that method would write it."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from benchmarks.lstm.conditions import INPUTS, LEADS, Condition, Regime, Shape, origins
from torch import Tensor, nn

from isotrain.lstm import LSTM

SPARE = 1000  # hours of the series beyond one sequence


class Training:
    """A network, its batch and its optimiser. Legend: T length, B batch, I inputs, H hidden, M origins.

    Raises ``InputError`` where the LSTM does not offer the condition.
    """

    def __init__(self, shape: Shape, condition: Condition, regime: Regime = "windowed") -> None:
        torch.manual_seed(0)
        self.condition, self.streamed = condition, regime == "streamed"
        self.lstm = _lstm(shape, condition)
        self.head = nn.Linear(shape.hidden, LEADS)
        parameters = [*self.lstm.parameters(), *self.head.parameters()]
        self.optimiser = torch.optim.Adam(parameters, fused=None if condition.backend == "stock" else True)
        series = torch.randn(shape.length + SPARE, INPUTS)
        starts = torch.randint(SPARE, (shape.batch,))  # hours of the series at which the rows of the batch begin
        self.x = series[torch.arange(shape.length)[:, None] + starts]  # (T, B, I)
        self.extra: dict[str, Tensor] = {}
        if condition.memory:
            self.extra = {"memory": self._memory(series, shape.length, starts)}
        self.origins = torch.tensor(origins(shape.length))
        self.at = self.origins.expand(shape.batch, -1)
        rows = (len(self.origins), shape.batch) if self.streamed else (shape.batch,)
        self.target = torch.randn(*rows, LEADS)

    def step(self) -> tuple[float, float, float]:
        """Train one step; seconds of forward with loss, backward, optimiser."""
        start = time.perf_counter()
        self.optimiser.zero_grad()
        cleared = time.perf_counter()
        loss = self._loss()
        forward = time.perf_counter()
        loss.backward()
        backward = time.perf_counter()
        self.optimiser.step()
        end = time.perf_counter()
        return forward - cleared, backward - forward, end - backward + cleared - start

    def _memory(self, series: Tensor, length: int, starts: Tensor) -> Tensor:
        """The batch's rows of the memory of the whole series, drawn once: drawing is no part of a step, as for x."""
        with torch.no_grad():
            memory = self.lstm.remember(series)
        return memory[torch.arange(length + 1)[:, None] + starts]  # (T + 1, B, W): from the row before the first hour

    def _loss(self) -> Tensor:
        with self._precision():
            if self.condition.at_origins:
                answer = self.head(self.lstm.outputs_at(self.x, self.at).transpose(0, 1))
            else:
                states, (last, _) = self.lstm(self.x, **self.extra)
                answer = self.head(states[self.origins] if self.streamed else last[-1])
        return nn.functional.mse_loss(answer.float(), self.target)

    def _precision(self) -> AbstractContextManager[Any]:
        if self.condition.backend in ("tuned", "torch"):
            return torch.autocast("cpu", dtype=torch.bfloat16)
        return nullcontext()


def _lstm(shape: Shape, condition: Condition) -> Any:
    size = (INPUTS, shape.hidden, shape.layers)
    if condition.backend in ("stock", "tuned"):
        return nn.LSTM(*size)
    # under autocast as tuned is, so that both run at one precision
    compute = "fp32" if condition.backend == "torch" else condition.compute
    lstm = LSTM(*size, backend=condition.backend, compute=compute)
    if zones := _zones(shape, condition):
        lstm.isolate(**zones)
    return lstm


def _zones(shape: Shape, condition: Condition) -> dict[str, Any]:
    """The arguments of ``isolate``; only those that are not at their default."""
    zones: dict[str, Any] = {}
    if isolated := condition.isolated_units(shape.hidden):
        # one contiguous block, the active units first
        zones |= {"units": range(shape.hidden - isolated, shape.hidden), "mode": condition.mode}
    if condition.steps is not None:
        zones["steps"] = condition.steps
    if condition.credit != "full":
        zones["credit"] = condition.credit
    if condition.lower:
        zones["layer"] = range(shape.layers - 1)
    return zones


def seconds_of(step: Callable[[], tuple[float, float, float]], warm: int = 2, timed: int = 2) -> float:
    """About how long one step takes, once it has run a few times."""
    for _ in range(warm):
        step()
    return min(sum(step()) for _ in range(timed))
