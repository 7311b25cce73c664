"""Process-wide settings that decide how fast a stock LSTM trains on a CPU; each can be left out, each is logged.

Call :func:`prepare` before the first tensor operation: the threads of torch's pool inherit the denormal setting
when the pool is made.
"""

import ctypes
import logging
import os
from pathlib import Path

import torch

log = logging.getLogger(__name__)

# glibc, malloc.h
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
KEEP_BYTES = 2**30


# as the process was given them: pinning narrows what the kernel says later
_CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
_TASKS = Path("/proc/self/task")  # Linux: one entry a thread
_pinned_threads = 0


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(_CORES)


def prepare(
    *, keep_allocator: bool, flush_denormals: bool, pin_threads: bool = False, threads: int = 0
) -> dict[str, str]:
    """Apply the settings; returns what took effect, in words, under the settings' names.

    ``threads = 0`` takes every core that the process may use. What the machine does not offer is logged as a
    warning and returned as "not available": the run goes on without it.

    Example:
        >>> effect = prepare(keep_allocator=True, flush_denormals=True, threads=1)
        >>> sorted(effect)
        ['flush_denormals', 'keep_allocator', 'pin_threads', 'threads']
        >>> effect["threads"]
        '1'
    """
    torch.set_num_threads(threads or usable_cores())
    effect = {
        "keep_allocator": _keep_pages() if keep_allocator else "off",
        "flush_denormals": _flush_denormals(flush_denormals),
        "pin_threads": _pin(torch.get_num_threads()) if pin_threads else "off",
        "threads": str(torch.get_num_threads()),
    }
    for name, what in effect.items():
        log.log(logging.WARNING if what == "not available" else logging.INFO, "runtime: %s %s", name, what)
    return effect


def _pin(threads: int) -> str:
    """One core a thread of torch's pool. Two threads of an LSTM step that share a core for a while take twice as long.

    The pool's threads are those that appear when it first runs, so this must come before any other parallel work.
    Threads and processes started later by this thread inherit its core.
    """
    global _pinned_threads
    if not _TASKS.is_dir() or threads > len(_CORES):
        return "not available"
    if _pinned_threads != threads:
        before = {task.name for task in _TASKS.iterdir()}
        torch.ones(2**20).exp()  # large enough to be shared out: starts the pool
        started = sorted({int(task.name) for task in _TASKS.iterdir() if task.name not in before})
        if len(started) != threads - 1:
            return "not available"  # the pool was running already: which threads are its own is unknown
        for task, core in zip([0, *started], _CORES, strict=False):  # 0: the calling thread
            os.sched_setaffinity(task, {core})
        _pinned_threads = threads
    return "on"


def _keep_pages() -> str:
    """Let glibc keep freed blocks: an LSTM step else returns its buffers to the system and faults them in again."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # not glibc
        return "not available"
    kept = mallopt(M_MMAP_THRESHOLD, KEEP_BYTES) and mallopt(M_TRIM_THRESHOLD, KEEP_BYTES)
    return "on" if kept else "not available"


def _flush_denormals(wanted: bool) -> str:
    if not torch.set_flush_denormal(wanted) and wanted:
        return "not available"
    return "on" if wanted else "off"
