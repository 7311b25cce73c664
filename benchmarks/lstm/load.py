"""What this process and its machine have done so far, as the system counts it."""

import os
import resource
import time
from pathlib import Path

from benchmarks.lstm.protocol import TICK, Load

STAT = Path("/proc/stat")
# as the process was given them
CORES = (
    frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset(range(os.cpu_count() or 1))
)


def load() -> Load:
    """Now. Where there is no /proc/stat nobody else is seen: the reference kernel alone then judges."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    own = usage.ru_utime + usage.ru_stime
    busy, stolen = _of_cores(STAT.read_text()) if STAT.exists() else (own, 0.0)
    return Load(time.perf_counter(), own, busy, stolen, usage.ru_nivcsw)


def _of_cores(stat: str) -> tuple[float, float]:
    """Seconds that our CPUs ran anything, and that the hypervisor took from them."""
    busy = stolen = 0
    for line in stat.splitlines():
        word, *counts = line.split()
        if word.startswith("cpu") and word[3:].isdecimal() and int(word[3:]) in CORES:
            user, nice, system, _idle, _wait, interrupt, soft, steal = map(int, counts[:8])
            busy += user + nice + system + interrupt + soft
            stolen += steal
    return TICK * busy, TICK * stolen
