"""What a training second is: wall-clock inside the fit, without validation and logging, alone on the machine."""

import fcntl
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

log = logging.getLogger(__name__)

PHASES = ("forward", "backward", "optimizer", "selection", "other")


class Stopwatch:
    """Running seconds, split into phases; pausable.

    ``synchronise`` is called before every reading, so that queued accelerator work is counted where it was asked
    for. Time between phases counts as ``other``.
    """

    def __init__(self, synchronise: Callable[[], None] = lambda: None) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._synchronise = synchronise
        self._phase = "other"
        self._since: float | None = None

    @property
    def total(self) -> float:
        """Seconds so far, the running phase included."""
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        return sum(self.seconds.values()) + running

    def enter(self, phase: str) -> None:
        """What follows belongs to ``phase``; a no-op while paused."""
        if self._since is not None:
            self._close()
            self._since = time.perf_counter()
        self._phase = phase

    def resume(self) -> None:
        """Count from now on."""
        self._synchronise()
        self._since = time.perf_counter()

    def pause(self) -> None:
        """Count no more until :meth:`resume`."""
        if self._since is not None:
            self._close()
            self._since = None

    def move(self, seconds: float, source: str, goal: str) -> None:
        """Book ``seconds`` of the phase ``source`` under ``goal``: for a part that timed itself."""
        self.seconds[source] -= seconds
        self.seconds[goal] += seconds

    def _close(self) -> None:
        self._synchronise()
        assert self._since is not None
        self.seconds[self._phase] += time.perf_counter() - self._since


@contextmanager
def alone(name: str = "isotrain-timing.lock") -> Iterator[None]:
    """Hold this machine's timing lock: fits that share cores would measure each other. Says so when it waits."""
    with (Path(tempfile.gettempdir()) / name).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("another fit is being timed on this machine: waiting for it to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def machine_seconds(repeats: int = 15) -> float:
    """Median seconds of a fixed computation on one core (sorting, arithmetic): drifts as the machine's speed does."""
    numbers = np.random.default_rng(0).standard_normal(100_000, dtype=np.float32)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        np.tanh(np.sort(numbers)).sum()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))
