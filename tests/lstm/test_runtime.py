"""Process-wide settings, each seen at work in a process of its own."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow  # every test starts processes that load torch

PAGE_FAULTS = """
import resource, statistics, torch
from isotrain.lstm.runtime import prepare
print(prepare(keep_allocator={keep}, flush_denormals=False, threads=1)["keep_allocator"])
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**23)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(statistics.median(faults() for _ in range(30)))  # the heap takes up to ten to settle
"""

DENORMALS = """
import torch
from isotrain.lstm.runtime import prepare
effect = prepare(keep_allocator=False, flush_denormals={flush}, threads=1)
print(effect["flush_denormals"], effect["threads"], torch.get_num_threads())
print((torch.full((64,), 1e-30) * torch.full((64,), 1e-12)).count_nonzero().item())
"""


def lines(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_kept_pages_are_not_faulted_in_again() -> None:
    kept, stock = (lines(PAGE_FAULTS.format(keep=keep)) for keep in (True, False))
    assert (kept[0], stock[0]) == ("on", "off")
    assert float(kept[1]) * 10 < float(stock[1])


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="torch flushes denormals there only")
def test_denormals_are_flushed_when_asked_and_threads_are_set() -> None:
    assert lines(DENORMALS.format(flush=True)) == ["on 1 1", "0"]
    assert lines(DENORMALS.format(flush=False)) == ["off 1 1", "64"]


PINNED = """
import os
import torch
from isotrain.lstm.runtime import prepare, usable_cores
given = os.sched_getaffinity(0)
effect = prepare(keep_allocator=False, flush_denormals=False, pin_threads=True, threads={threads})
masks = [os.sched_getaffinity(int(task)) for task in os.listdir("/proc/self/task")]
print(effect["pin_threads"], sum(len(mask) == 1 for mask in masks))
print(len(set().union(*(mask for mask in masks if len(mask) == 1))), usable_cores() == len(given))
"""


@pytest.mark.skipif(platform.system() != "Linux", reason="threads are listed in /proc")
def test_each_thread_of_the_pool_has_a_core_of_its_own() -> None:
    threads = min(2, len(os.sched_getaffinity(0)))
    if threads == 2:  # with one core there is nothing to pin; the process's only thread is on it anyway
        assert lines(PINNED.format(threads=2)) == ["on 2", "2 True"]
    assert lines(PINNED.format(threads=10_000))[0].startswith("not available")
