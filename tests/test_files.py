"""Files at the edge of the program: sealed, damaged, locked, planted by others."""

import fcntl
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from isotrain import files
from isotrain.config.reader import read_yaml
from isotrain.errors import InputError
from isotrain.files import read_json


def test_a_sealed_file_is_read_as_written_and_refused_when_one_bit_differs(tmp_path: Path) -> None:
    path, content = tmp_path / "a.bin", bytes(range(256)) * 3
    files.write_sealed(path, content)
    assert files.read_sealed(path) == content
    whole = path.read_bytes()
    for position in range(0, len(whole), 37):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 16]) + whole[position + 1 :])
        with pytest.raises(ValueError, match="checksum"):
            files.read_sealed(path)
    for length in (0, 1, 31, 32, 33, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="checksum"):
            files.read_sealed(path)


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    files.write_sealed(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_sealed(path, b"new")
    assert files.read_sealed(path) == b"old" and [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def damaged_json(path: Path) -> None:
    json.loads(path.read_text())


def damaged_arrays(path: Path) -> None:
    with np.load(path) as arrays:
        arrays["a"]


def damaged_zip(path: Path) -> None:
    zipfile.ZipFile(path)


@pytest.mark.parametrize("planted", ["a pipe", "a device", "a folder"])
@pytest.mark.parametrize("read", [read_json, read_yaml], ids=["json", "yaml"])
def test_a_pipe_or_a_device_in_place_of_a_file_is_neither_waited_for_nor_read(
    read: Callable[[Path], object], planted: str, tmp_path: Path
) -> None:
    path = tmp_path / "a"
    if planted == "a pipe":
        os.mkfifo(path)
    elif planted == "a device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(InputError, match=r"/a cannot be read"):
        read(path)


@pytest.mark.parametrize("read", [damaged_json, damaged_arrays, damaged_zip])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff" * 99, b"PK\x03\x04" + b"a" * 50, b"\x93NUMPY\x01\x00"])
def test_whatever_a_library_says_of_a_damaged_file_is_one_line(read: object, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"/a cannot be read \(\w+: .*\): make it again$") as caught:  # noqa: SIM117
        with files.reading(path, "make it again"):
            read(path)  # type: ignore[operator]
    assert "\n" not in str(caught.value)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, where others may plant what they like."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_two_processes_share_a_lock_for_which_reading_is_enough(shared: Path) -> None:
    (shared / "a.lock").touch(0o444)
    one, other = files.machine_lock("a.lock"), files.machine_lock("a.lock")
    assert files.try_lock(one, fcntl.LOCK_EX) and not files.try_lock(other, fcntl.LOCK_SH)
    waited: list[bool] = []
    with pytest.raises(InputError, match=r"a\.lock has been held by another process for 0\.05 s"):
        files.wait_for_lock(other, fcntl.LOCK_EX, 0.05, lambda: waited.append(True))
    os.close(one)
    files.wait_for_lock(other, fcntl.LOCK_EX, 0.05)
    os.close(other)
    assert waited == [True]


@pytest.mark.parametrize("planted", ["link", "link to nothing", "pipe", "folder"])
def test_what_another_user_plants_is_neither_followed_nor_waited_for(planted: str, shared: Path) -> None:
    victim = shared / "victim"
    if planted == "pipe":
        os.mkfifo(shared / "a.lock")
    elif planted == "folder":
        (shared / "a.lock").mkdir()
    else:
        if planted == "link":
            victim.write_text("precious")
        (shared / "a.lock").symlink_to(victim)
    with pytest.raises(InputError, match=r"a\.lock must be a plain file .* remove it, or set TMPDIR"):
        files.machine_lock("a.lock")
    assert victim.exists() == (planted == "link")
