"""The workers of this machine: how they are started, and the cores that each has for itself."""

import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from isotrain.config import check_device
from isotrain.errors import InputError
from isotrain.files import machine_lock, try_lock, wait_for_lock
from isotrain.search.results import spent
from isotrain.search.study import Place, open_study, place
from isotrain.search.worker import Stop

log = logging.getLogger(__name__)
POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # read when the libraries are loaded
_TASKS = Path("/proc/self/task")  # on Linux: one entry for each thread
TURN_SECONDS = 60.0  # taking cores takes milliseconds
_held: list[int] = []  # locks, until this process ends


def own_cores(threads: int) -> list[int]:
    """Take the first ``threads`` cores that no other worker on this machine has, and run on them alone.

    ``threads = 0`` takes every core that this process was given: the cores of its affinity, SLURM_CPUS_PER_TASK of them
    at most. A lock on a file in the temporary folder holds a core until the process ends, whatever ends it. Call this
    function before torch is imported (RuntimeError otherwise): torch makes its threads for the cores that it finds, and
    so does :mod:`isotrain.lstm.runtime`.

    Raises:
        InputError: fewer cores are free, or were given to this process.
    """
    if "torch" in sys.modules:
        raise RuntimeError("call own_cores before torch is imported, which makes threads for the cores that it finds")
    given = given_cores()
    said = os.environ.get("SLURM_CPUS_PER_TASK", str(len(given)))
    if not said.isdecimal():
        raise InputError(f"SLURM_CPUS_PER_TASK = {said!r} is no number of cores: unset it, or correct it")
    allotted = min(int(said), len(given))
    wanted = threads or allotted
    if wanted > allotted:
        raise InputError(
            f"runtime.threads of {wanted} is more than the {allotted} cores given: lower it, or ask for more cores"
        )
    turn = machine_lock("isotrain-cores.lock")  # two processes that took half of the cores each would both fail
    try:
        wait_for_lock(turn, fcntl.LOCK_EX, TURN_SECONDS)
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
            f"the worker needs {wanted} of {len(given)} cores, and other workers have {len(given) - len(locks)}: start "
            "fewer workers, or lower runtime.threads"
        )
    _held.extend(locks.values())
    return list(locks)


def _locked(core: int) -> int | None:
    """The lock on ``core``, or None if another process has it."""
    lock = machine_lock(f"isotrain-core-{core}.lock")
    if not try_lock(lock, fcntl.LOCK_EX):
        os.close(lock)
        return None
    return lock


Process = subprocess.Popen[bytes]


def run_workers(params: str | Path = "params.yaml") -> None:
    """Run workers until the study's budget is spent; an interrupted study goes on where it was.

    The signals TERM and INT are passed on, so that the workers give their trials back. A worker that dies is not
    replaced: the other workers go on, and find its trial by its lease.

    Raises:
        InputError: params.yaml or the stored study cannot be used, or the study is not finished when the last worker
            has ended.
    """
    at = place(params)
    check_device(at.space.settings({}))  # here once, not in every worker
    study = open_study(at)
    if reason := spent(study, at.search):
        log.info("study %s is finished: %s", at.search.study, reason)
        return
    count = workers_here(at)
    log.info("study %s: %d workers; `isotrain search status` says how it stands", at.search.study, count)
    with Stop().listening() as stop:
        _wait([_start(params) for _ in range(count)], stop)
    if not (reason := spent(study, at.search)):
        raise InputError(f"study {at.search.study} is not finished: run the same command again to go on with it")
    log.info("study %s is finished: %s", at.search.study, reason)


def workers_here(at: Place) -> int:
    """``search.workers``, or as many as this process has cores for."""
    threads = at.space.settings({}).runtime.threads
    return at.search.workers or (max(1, len(given_cores()) // threads) if threads else 1)


def _start(params: str | Path) -> Process:
    return subprocess.Popen([sys.executable, "-m", "isotrain.cli", "search", "worker", "--params", str(params)])


def _wait(workers: list[Process], stop: Stop) -> None:
    """Wait until every worker has ended; pass a signal on once."""
    running, passed_on = list(workers), False
    while running:
        if stop.signal and not passed_on:
            log.warning("%s: the workers give their trials back", stop.signal)
            for worker in running:
                worker.send_signal(signal.SIGTERM)
            passed_on = True
        for worker in [one for one in running if one.poll() is not None]:
            running.remove(worker)
            if worker.returncode:
                log.warning("worker %d ended with status %d; %d go on", worker.pid, worker.returncode, len(running))
        time.sleep(0.1)
