"""The timing lock, with real processes: a writer is alone in it, is not starved, and death lets go."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from isotrain.training.machine import alone, shared

# Each worker notes, in one append to a common file, where it is: "+" in a writer's block, "-" out of it, "." a reader
# between two gates. Appends are in the order in which they happened.
READER = """
import os, sys, time
from isotrain.training.machine import shared
note = os.open(sys.argv[1], os.O_APPEND | os.O_WRONLY | os.O_CREAT)
with shared() as lock:
    print("in", flush=True)
    while not os.path.exists(sys.argv[2]):
        lock.gate()
        os.write(note, b".")
        time.sleep(0.002)
        os.write(note, b".")
"""
WRITER = """
import os, sys, time
from isotrain.training.machine import alone, shared
note = os.open(sys.argv[1], os.O_APPEND | os.O_WRONLY | os.O_CREAT)
def timed():
    os.write(note, b"+")
    time.sleep(0.02)
    os.write(note, b"-")
if sys.argv[3] == "alone":
    for _ in range(5):
        with alone():
            timed()
else:
    with shared() as lock:
        for _ in range(5):
            lock.gate()
            with lock.quiet():
                timed()
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a process whose timing lock is this test's own."""
    begun: list[subprocess.Popen[str]] = []

    def _start(code: str, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, str(tmp_path / "notes"), str(tmp_path / "stop"), *words]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp_path)}
        )
        begun.append(process)
        return process

    yield _start
    for process in begun:
        process.kill()
        process.wait(20)


def wait_until_in(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"


@pytest.mark.parametrize("kind", ["alone", "quiet"])
def test_a_writer_is_alone_and_four_readers_do_not_starve_it(
    kind: str, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    readers = [start(READER) for _ in range(4)]
    for reader in readers:
        wait_until_in(reader)
    writers = [start(WRITER, kind) for _ in range(2)]
    assert [writer.wait(60) for writer in writers] == [0, 0]  # the readers work until both are done
    (tmp_path / "stop").touch()
    assert [reader.wait(60) for reader in readers] == [0] * 4
    notes = (tmp_path / "notes").read_text()
    inside = notes.split("+")[1:]
    assert len(inside) == 10
    assert all(block.startswith("-") for block in inside)  # nobody noted anything between a writer's two notes
    assert notes.count(".") > 0


def test_whoever_is_killed_lets_go(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    reader = start(READER)
    wait_until_in(reader)
    reader.send_signal(signal.SIGSTOP)  # it stands between two gates: nobody may time
    writer = start(WRITER, "alone")
    with pytest.raises(subprocess.TimeoutExpired):
        writer.wait(1)
    reader.kill()
    assert writer.wait(60) == 0


def test_a_process_does_not_wait_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for outer in (alone, shared):
        for inner in (alone, shared):
            with outer(), pytest.raises(RuntimeError, match="do not nest"), inner():
                pass
    with shared() as lock, lock.quiet():
        lock.gate()
        with pytest.raises(RuntimeError, match="quiet already"), lock.quiet():
            pass
    with alone():
        pass
