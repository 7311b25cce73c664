"""How much a condition adds to the resident set of a process at most: batch, network, optimiser and their steps.

Each condition has a process of its own, forked from one that has imported torch and computed nothing. A tiny network
trains first, so that libraries and kernels that any network needs are not counted.
"""

import multiprocessing
import signal
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.lstm.conditions import Condition, Regime, Shape
from benchmarks.lstm.worker import settle

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")  # "5" sets the high-water mark to what is resident now
TINY = 16


class Meter:
    """Measures one condition at a time; to be closed."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,))
        self._process.start()
        theirs.close()

    def mebibytes(self, shape: Shape, condition: Condition, regime: Regime, threads: int) -> float | None:
        """The peak; ``None`` where it cannot be told."""
        self._pipe.send((shape, condition, regime, threads))
        peak_of_it: float | None = self._pipe.recv()
        return peak_of_it

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(10)


def _serve(pipe: Connection) -> None:
    import benchmarks.lstm.step  # noqa: F401 - once, for all the processes that are forked from here
    import torch

    # the first step of an optimiser imports half of torch; on one weight it starts no thread, which a fork would lose
    torch.optim.Adam([torch.zeros(1, requires_grad=True)]).step()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            pipe.send(_in_a_fork(*pipe.recv()))
        except (EOFError, BrokenPipeError):
            return


def _in_a_fork(*request: Any) -> float | None:
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe(duplex=False)
    child = context.Process(target=lambda: theirs.send(peak(*request)))
    child.start()
    theirs.close()
    try:
        found: float | None = mine.recv()
    except EOFError:  # it died; its traceback, if any, is on stderr
        found = None
    child.join()
    return found


def peak(shape: Shape, condition: Condition, regime: Regime, threads: int) -> float | None:
    """In MiB, of this process, which has done nothing else yet."""
    from benchmarks.lstm.step import Training

    if not STATUS.exists():
        return None
    settle(condition.worker == "prepared", threads)
    tiny = Training(Shape(TINY, shape.layers, min(shape.length, 2 * TINY), 2), condition, regime)
    tiny.step()
    with suppress(OSError):  # not permitted everywhere; the mark is then that of the tiny network, a little too high
        RESET.write_text("5")
    before = _kibibytes("VmRSS")
    training = Training(shape, condition, regime)
    for _ in range(2):
        training.step()
    return (_kibibytes("VmHWM") - before) / 1024


def _kibibytes(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1])
