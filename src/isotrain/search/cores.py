"""Cores of one's own: a worker whose cores nobody shares measures itself, not its neighbours."""

import fcntl
import logging
import os
import sys
from pathlib import Path

from isotrain.errors import InputError
from isotrain.files import machine_lock

log = logging.getLogger(__name__)
POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # read when the libraries are loaded
_TASKS = Path("/proc/self/task")  # Linux: one entry a thread
_held: list[int] = []  # locks, until this process ends


def own_cores(threads: int) -> list[int]:
    """Take the first ``threads`` cores that no other worker on this machine has, and run on them alone.

    ``threads = 0`` takes every core that this process was given: its affinity, and SLURM_CPUS_PER_TASK of them at the
    most. A core is held by a lock on a file in the temporary folder until the process ends, whatever ends it. Call it
    before torch is imported (RuntimeError otherwise): its pool and :mod:`isotrain.lstm.runtime` take the cores as they
    find them.

    Raises:
        InputError: fewer cores are free, or were given to this process.
    """
    if "torch" in sys.modules:
        raise RuntimeError("own_cores comes before the import of torch, whose threads are made for the cores it finds")
    given = given_cores()
    allotted = min(int(os.environ.get("SLURM_CPUS_PER_TASK", len(given))), len(given))
    wanted = threads or allotted
    if wanted > allotted:
        raise InputError(
            f"runtime.threads of {wanted} is more than the {allotted} cores given: lower it, or ask for more cores"
        )
    turn = machine_lock("isotrain-cores.lock")  # one at a time: two that take half each would both fail
    fcntl.flock(turn, fcntl.LOCK_EX)
    try:
        cores = _claim(given, wanted)
    finally:
        os.close(turn)
    os.environ.update(dict.fromkeys(POOLS, str(wanted)))
    if hasattr(os, "sched_setaffinity"):
        for task in _TASKS.iterdir():  # numpy's threads, if it was loaded before
            os.sched_setaffinity(int(task.name), cores)
    else:
        log.warning("this system pins no process to cores: workers may disturb each other's seconds")
    log.info("on %s of its own: %s", "a core" if wanted == 1 else "cores", ", ".join(map(str, cores)))
    return cores


def given_cores() -> list[int]:
    """The cores that this process may run on."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def _claim(given: list[int], wanted: int) -> list[int]:
    """The first ``wanted`` of the cores ``given`` that are free, locked; all or none."""
    locks: dict[int, int] = {}
    for core in given:
        if len(locks) < wanted and (lock := _locked(core)) is not None:
            locks[core] = lock
    if len(locks) < wanted:
        for lock in locks.values():
            os.close(lock)
        raise InputError(
            f"{wanted} of {len(given)} cores wanted, {len(given) - len(locks)} taken by other workers: start fewer "
            "workers, or lower runtime.threads"
        )
    _held.extend(locks.values())
    return list(locks)


def _locked(core: int) -> int | None:
    """The lock on ``core``, or None if another process has it."""
    lock = machine_lock(f"isotrain-core-{core}.lock")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock
