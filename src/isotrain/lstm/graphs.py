"""A training step recorded once as a CUDA graph and replayed: hundreds of launches become one.

A small LSTM's step on a GPU takes as long as Python needs to ask for it. A graph repeats what was asked for, on the
same memory, so that everything that differs from step to step is written into tensors in place: the batch, the learning
rate, the numbers of the active weights. Where shapes change a step is recorded anew. Nothing here knows what a step is.
"""

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isotrain.errors import InputError

log = logging.getLogger(__name__)
WARM = 3  # ordinary steps before one is recorded: cuDNN, cuBLAS and the optimiser make what they keep


@dataclass(frozen=True)
class Recording:
    """A step to be replayed, and the tensor in which it leaves its answer."""

    replay: Callable[[], object]
    answer: Tensor


def on_cuda(step: Callable[[], Tensor]) -> Recording:
    """Record ``step`` as a CUDA graph, without running it; :class:`InputError` for one that waits for the host."""
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            answer = step()
    except RuntimeError as problem:
        raise InputError(
            f"a training step cannot be recorded as a CUDA graph ({problem}): set runtime.graphs to false"
        ) from problem
    return Recording(graph.replay, answer)


def without_graph(step: Callable[[], Tensor]) -> Recording:
    """The same on any device, by calling ``step`` at each replay: what tests compare."""
    held = torch.zeros(())
    return Recording(lambda: held.copy_(step()), held)


class GraphedStep:
    """A training step, run as it is at first and replayed from then on.

    Args:
        step: takes tensors whose shapes never change, trains once, and returns the loss, a scalar without a graph. It
            may not wait for the device, and clears gradients by ``set_to_none=True``.
        key: of what decides which operations a step consists of and which memory it uses: what is isolated, for one.
            When it changes, the step is recorded anew.
        record: :func:`on_cuda`, or :func:`without_graph`.
        warm: ordinary steps before each recording. They train too.

    Attributes:
        recorded: how often the step was recorded.
        replayed: how often it was replayed.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(()))
        >>> optimiser = torch.optim.SGD([weight], lr=0.5)
        >>> def step(x):
        ...     optimiser.zero_grad()
        ...     loss = (weight - x).square()
        ...     loss.backward()
        ...     optimiser.step()
        ...     return loss.detach()
        >>> graphed = GraphedStep(step, record=without_graph, warm=1)
        >>> [float(graphed(torch.tensor(value))) for value in (1.0, 2.0, 4.0)]
        [1.0, 1.0, 4.0]
        >>> graphed.recorded, graphed.replayed
        (1, 2)
    """

    def __init__(
        self,
        step: Callable[..., Tensor],
        key: Callable[[], Hashable] = lambda: None,
        record: Callable[[Callable[[], Tensor]], Recording] = on_cuda,
        warm: int = WARM,
    ) -> None:
        self._step, self._key, self._record, self._warm = step, key, record, warm
        self._known: Any = None
        self._ordinary = 0
        self._recording: Recording | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._stream: Any = None
        self.recorded = self.replayed = 0

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Train once on ``inputs``; returns the loss, a tensor of the caller's own."""
        key = (self._key(), tuple((tuple(x.shape), x.dtype, x.device) for x in inputs))
        if key != self._known:
            self._known, self._recording, self._ordinary = key, None, 0
        if self._recording is None:
            if self._ordinary < self._warm:
                self._ordinary += 1
                return self._aside(inputs)
            self._inputs = tuple(x.clone() for x in inputs)
            self._recording = self._record(lambda: self._step(*self._inputs))
            self.recorded += 1
            log.info("a training step was recorded, the %d. time in this training", self.recorded)
        else:
            for held, new in zip(self._inputs, inputs, strict=True):
                held.copy_(new)
        self._recording.replay()
        self.replayed += 1
        return self._recording.answer.clone()

    def _aside(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """An ordinary step; on CUDA on a stream of its own, as recording asks of the steps before it."""
        if not inputs[0].is_cuda:
            return self._step(*inputs)
        self._stream = self._stream or torch.cuda.Stream()
        here = torch.cuda.current_stream()
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            answer = self._step(*inputs)
        here.wait_stream(self._stream)
        return answer
