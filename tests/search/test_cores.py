"""Workers get cores of their own, in real processes."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(platform.system() != "Linux", reason="cores are given to processes on Linux"),
]
GIVEN = sorted(os.sched_getaffinity(0)) if platform.system() == "Linux" else []

OWN = """
import os, sys, time
import numpy
from isotrain.errors import InputError
from isotrain.search.local_workers import own_cores
try:
    cores = own_cores(int(sys.argv[1]))
except InputError as problem:
    print(problem, flush=True)
else:
    from isotrain.lstm.runtime import usable_cores
    masks = [os.sched_getaffinity(int(task)) for task in os.listdir("/proc/self/task")]
    same = all(mask == set(cores) for mask in masks) and usable_cores() == len(cores)
    print(*cores, same, os.environ["OMP_NUM_THREADS"], flush=True)
    time.sleep(120)
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Callable[..., tuple[str, subprocess.Popen[str]]]]:
    """Start a process that takes cores; what it says, and the process. Locks are this test's own."""
    begun: list[subprocess.Popen[str]] = []

    def _start(threads: int, **environment: str) -> tuple[str, subprocess.Popen[str]]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
        clean |= {"TMPDIR": str(tmp_path), **environment}
        process = subprocess.Popen(
            [sys.executable, "-c", OWN, str(threads)], stdout=subprocess.PIPE, text=True, env=clean
        )
        begun.append(process)
        assert process.stdout is not None
        return process.stdout.readline().strip(), process

    yield _start
    for process in begun:
        process.kill()
        process.wait(20)


def test_each_takes_the_next_free_core_until_there_is_none(worker: Callable[..., tuple[str, object]]) -> None:
    for core in GIVEN:
        assert worker(1)[0] == f"{core} True 1"
    refused = worker(1)[0]
    count = len(GIVEN)
    assert refused.startswith(f"the worker needs 1 of {count} cores, and other workers have {count}: start fewer")
    assert "runtime.threads" in refused


def test_a_dead_workers_cores_are_free(worker: Callable[..., tuple[str, subprocess.Popen[str]]]) -> None:
    everything = f"{' '.join(map(str, GIVEN))} True {len(GIVEN)}"
    said, first = worker(0)
    assert said == everything
    first.kill()
    first.wait(20)
    assert worker(0)[0] == everything


def test_slurms_share_is_respected(worker: Callable[..., tuple[str, object]]) -> None:
    assert worker(0, SLURM_CPUS_PER_TASK="1")[0] == f"{GIVEN[0]} True 1"
    assert "SLURM_CPUS_PER_TASK = 'x' is no number of cores" in worker(1, SLURM_CPUS_PER_TASK="x")[0]
    assert "runtime.threads of 99 is more than the 1 cores given" in worker(99, SLURM_CPUS_PER_TASK="1")[0]
