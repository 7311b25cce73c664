"""The machine that a figure comes from: its hardware, its speed, the commit of the code, and its timing lock.

Torch is imported where it is asked, so that a stage without a network starts without it.
"""

import fcntl
import logging
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from isotrain.files import machine_lock, sha256_text

log = logging.getLogger(__name__)
DECIDES = ("src", "pipelines", "params.yaml", "dvc.yaml")  # what makes a result another one, when it differs


def hardware() -> dict[str, Any]:
    """The machine, as far as it decides how fast a fit is."""
    import torch

    from isotrain.lstm.runtime import usable_cores

    return {
        "cpu": f"{_cpu_name()}, {torch.backends.cpu.get_cpu_capability()}",
        "cores": usable_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "os": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


@cache
def machine_key() -> str:
    """16 digits that change with whatever makes times incomparable: processor, cores, versions."""
    return sha256_text(repr((_cpu_name(), os.cpu_count(), platform.python_version(), version("torch"))))[:16]


@cache
def code_key() -> str:
    """16 digits of the code that decides a fit: they change with every edit of it, committed or not."""
    package = Path(__file__).parents[1]
    folders = [package / name for name in ("lstm", "isolation", "forecast", "training")]
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".cpp")]
    return sha256_text("".join(path.read_text(encoding="utf-8") for path in sorted(files)))[:16]


@cache
def commit() -> str | None:
    """The git commit of the code, with ``+`` when files of :data:`DECIDES` differ from it; None outside git."""
    head = _git("rev-parse", "--short=12", "HEAD")
    if head is None:
        return None
    changed = _git("status", "--porcelain", "--untracked-files=all", "--", *DECIDES)
    return f"{head}+" if changed else head


def _git(*words: str) -> str | None:
    done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


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


class Room:
    """This machine's timing room, for fits that share its cores' memory, cache and clock rate.

    Readers work in it beside each other; a writer has it to itself. Two files, locked with flock(2), which the kernel
    lets go of at a process's death: a writer closes the ``turnstile``, so that no reader starves it, and waits until
    the ``room`` is empty. A reader looks at the turnstile at its gates only, and stands still there while it is closed.
    A process stopped between its gates (SIGSTOP) keeps the others waiting until it goes on.
    """

    def __init__(self) -> None:
        self._turnstile, self._room = machine_lock("isotrain-turnstile.lock"), machine_lock("isotrain-timing.lock")
        self._quiet = False

    def gate(self) -> None:
        """Let whoever waits for quiet have it, and go on afterwards; microseconds where nobody does."""
        if not self._quiet and not _try(self._turnstile, fcntl.LOCK_SH):
            fcntl.flock(self._room, fcntl.LOCK_UN)
            self._enter()
        elif not self._quiet:
            fcntl.flock(self._turnstile, fcntl.LOCK_UN)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """From a reader to the only one in the room, and back; RuntimeError if it is quiet already."""
        if self._quiet:
            raise RuntimeError("it is quiet already: quiet moments do not nest")
        fcntl.flock(self._room, fcntl.LOCK_UN)  # two readers who want quiet would else wait for each other
        self._clear(lambda: None)
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False
            fcntl.flock(self._room, fcntl.LOCK_SH)
            fcntl.flock(self._turnstile, fcntl.LOCK_UN)

    def _enter(self) -> None:
        fcntl.flock(self._turnstile, fcntl.LOCK_SH)
        fcntl.flock(self._room, fcntl.LOCK_SH)
        fcntl.flock(self._turnstile, fcntl.LOCK_UN)

    def _clear(self, says: Callable[[], None]) -> None:
        for lock in (self._turnstile, self._room):
            if not _try(lock, fcntl.LOCK_EX):
                says()
                fcntl.flock(lock, fcntl.LOCK_EX)

    def _leave(self) -> None:
        for lock in (self._room, self._turnstile):
            os.close(lock)


@contextmanager
def beside() -> Iterator[Room]:
    """Work beside others who pass their gates, and stand still at one's own while somebody times.

    RuntimeError if this process is in the room already: it would wait for itself.
    """
    with _in_the_room() as room:
        room._enter()
        yield room


@contextmanager
def alone() -> Iterator[None]:
    """Hold this machine's timing lock: fits that share cores would measure each other. Says so when it waits.

    RuntimeError if this process is in the room already: it would wait for itself.
    """
    with _in_the_room() as room:
        room._clear(lambda: log.warning("others are being timed or at work on this machine: waiting for them"))
        yield


_present = False  # of this process


@contextmanager
def _in_the_room() -> Iterator[Room]:
    global _present
    if _present:
        raise RuntimeError("this process is in the timing room already: alone() and beside() do not nest")
    room = Room()
    _present = True
    try:
        yield room
    finally:
        _present = False
        room._leave()


def _try(lock: int, how: int) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def machine_seconds(repeats: int = 15) -> float:
    """Median seconds of a fixed computation on one core (sorting, arithmetic): drifts as the machine's speed does."""
    numbers = np.random.default_rng(0).standard_normal(100_000, dtype=np.float32)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        np.tanh(np.sort(numbers)).sum()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))
