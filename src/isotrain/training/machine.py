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
from typing import TypedDict

import numpy as np
import psutil

from isotrain.files import machine_lock, sha256_text, try_lock, wait_for_lock

log = logging.getLogger(__name__)
DECIDES = ("src", "pipelines", "dvc.yaml")  # the code of a result; its settings stand in the result itself


class Hardware(TypedDict):
    """The machine that fits are timed on."""

    cpu: str  # its name, and the instructions that torch uses
    cores: int
    memory_gb: float
    accelerator: str | None
    os: str
    python: str
    torch: str
    threads: int  # of torch


def hardware() -> Hardware:
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

    Example:
        >>> watch = Stopwatch()
        >>> watch.resume()
        >>> watch.enter("forward")
        >>> watch.pause()
        >>> watch.seconds["forward"] > 0 and watch.seconds["backward"] == 0
        True
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


class TimingLock:
    """The lock of this machine on being timed, for fits that share its cores' memory, cache and clock rate.

    Several processes hold it together as readers, or one alone as writer. It is made of two files locked with flock(2),
    whose locks the kernel drops when a process dies. A writer first locks the ``entry``, so that new readers do not
    keep it waiting for ever, then waits until no reader holds ``inside``. A reader asks for the entry at its gates
    only, and stands still there while it is locked. A process stopped between its gates (SIGSTOP) keeps the others
    waiting.
    """

    def __init__(self) -> None:
        self._entry, self._inside = machine_lock("isotrain-turnstile.lock"), machine_lock("isotrain-timing.lock")
        self._quiet = False

    def gate(self) -> None:
        """Let a process that waits for quiet have it, and go on afterwards; microseconds where none waits."""
        if not self._quiet and not try_lock(self._entry, fcntl.LOCK_SH):
            fcntl.flock(self._inside, fcntl.LOCK_UN)
            self._join()
        elif not self._quiet:
            fcntl.flock(self._entry, fcntl.LOCK_UN)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """From a reader to the only holder, and back; RuntimeError if it is quiet already."""
        if self._quiet:
            raise RuntimeError("it is quiet already: quiet moments do not nest")
        fcntl.flock(self._inside, fcntl.LOCK_UN)  # two readers who want quiet would else wait for each other
        self._take_alone(lambda: None)
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False
            fcntl.flock(self._inside, fcntl.LOCK_SH)
            fcntl.flock(self._entry, fcntl.LOCK_UN)

    def _join(self) -> None:
        wait_for_lock(self._entry, fcntl.LOCK_SH)
        wait_for_lock(self._inside, fcntl.LOCK_SH)
        fcntl.flock(self._entry, fcntl.LOCK_UN)

    def _take_alone(self, on_wait: Callable[[], None]) -> None:
        for lock in (self._entry, self._inside):
            wait_for_lock(lock, fcntl.LOCK_EX, on_wait=on_wait)

    def _release(self) -> None:
        for lock in (self._inside, self._entry):
            os.close(lock)


@contextmanager
def shared() -> Iterator[TimingLock]:
    """Work beside other processes that pass their gates, and stand still at one's own while one of them is timed.

    RuntimeError if this process holds the lock already: it would wait for itself.
    """
    with _held_once() as lock:
        lock._join()
        yield lock


@contextmanager
def alone() -> Iterator[None]:
    """Hold this machine's timing lock alone: fits that share cores would measure each other. Says so when it waits.

    RuntimeError if this process holds the lock already: it would wait for itself.
    """
    with _held_once() as lock:
        lock._take_alone(lambda: log.warning("others are being timed or at work on this machine: waiting for them"))
        yield


_holds = False  # of this process


@contextmanager
def _held_once() -> Iterator[TimingLock]:
    global _holds
    if _holds:
        raise RuntimeError("this process holds the timing lock already: alone() and shared() do not nest")
    lock = TimingLock()
    _holds = True
    try:
        yield lock
    finally:
        _holds = False
        lock._release()


def machine_seconds(repeats: int = 15) -> float:
    """Median seconds of a fixed computation on one core (sorting, arithmetic): drifts as the machine's speed does."""
    numbers = np.random.default_rng(0).standard_normal(100_000, dtype=np.float32)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        np.tanh(np.sort(numbers)).sum()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))
