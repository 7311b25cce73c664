"""The workers of this machine: started, waited for, told when to leave."""

import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

from isotrain.errors import InputError
from isotrain.search.budget import spent
from isotrain.search.cores import given_cores
from isotrain.search.signals import Stop
from isotrain.search.study import Place, open_study, place

log = logging.getLogger(__name__)
Process = subprocess.Popen[bytes]


def run_workers(params: str | Path = "params.yaml") -> None:
    """Run workers until the study's budget is spent; an interrupted study goes on where it was.

    TERM and INT are passed on, so that the workers give their trials back. A worker that dies is not replaced: the
    others go on, and find its trial by its lease.

    Raises:
        InputError: params.yaml or the study stored cannot be used, or the study is not finished when the last worker
            has ended.
    """
    at = place(params)
    study = open_study(at)
    if reason := spent(study, at.search):
        log.info("study %s is finished: %s", at.search.study, reason)
        return
    count = workers_here(at)
    log.info("study %s: %d workers; `isotrain search status` says how it stands", at.search.study, count)
    with Stop().listening() as stop:
        _wait([_start(params) for _ in range(count)], stop)
    if not (reason := spent(study, at.search)):
        raise InputError(f"study {at.search.study} is not finished: the same command goes on with it")
    log.info("study %s is finished: %s", at.search.study, reason)


def workers_here(at: Place) -> int:
    """``search.workers``, or as many as this process has cores for."""
    threads = at.space.settings({}).runtime.threads
    return at.search.workers or (max(1, len(given_cores()) // threads) if threads else 1)


def _start(params: str | Path) -> Process:
    return subprocess.Popen([sys.executable, "-m", "isotrain.cli", "search", "worker", "--params", str(params)])


def _wait(workers: list[Process], stop: Stop) -> None:
    """Until every worker has ended; a signal is passed on once."""
    running, told = list(workers), False
    while running:
        if stop.signal and not told:
            log.warning("%s: the workers give their trials back", stop.signal)
            for worker in running:
                worker.send_signal(signal.SIGTERM)
            told = True
        for worker in [one for one in running if one.poll() is not None]:
            running.remove(worker)
            if worker.returncode:
                log.warning("worker %d ended with status %d; %d go on", worker.pid, worker.returncode, len(running))
        time.sleep(0.1)
