"""Compiling the kernels: once, for this machine, or a reason why not; and the kernels of lesser processors."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from isotrain.errors import InputError
from isotrain.lstm.kernels import __main__ as command
from isotrain.lstm.kernels import build


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder without a library, in which the kernels are to be."""
    monkeypatch.setenv("PATH", os.environ["PATH"])  # build() adds to it
    if "slow" not in request.keywords:
        monkeypatch.setenv("ISOTRAIN_NATIVE_DIR", str(tmp_path / "libraries"))
    build._key.cache_clear()
    build.load.cache_clear()
    yield tmp_path / "libraries"
    build._key.cache_clear()
    build.load.cache_clear()


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


# Where there is no library ----------------------------------------------------------------------------------------


def test_without_a_compiler_it_names_the_one_that_it_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nonexistent/g++")
    with pytest.raises(InputError, match=r"need '/nonexistent/g\+\+', which is not installed: LSTMs use torch's"):
        build.build()


def test_without_ninja_it_names_ninja(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", script(tmp_path / "c++", "exit 0"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(InputError, match="need 'ninja', which is not installed"):
        build.build()


@pytest.mark.parametrize(
    ("compiler", "said"),
    [
        ("case $1 in *version*) c++ $1;; *) echo the disk is full of ants >&2; exit 1;; esac", "full of ants"),
        ("exit 1", "compiling the native LSTM kernels failed"),
    ],
)
def test_a_compiler_that_fails_is_quoted_and_leaves_nothing_half_made(
    compiler: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, empty: Path
) -> None:
    monkeypatch.setenv("CXX", script(tmp_path / "c++", compiler))
    with pytest.raises(InputError, match=said):
        build.build()
    assert not [path for path in empty.rglob("*") if path.is_file()]
    with pytest.raises(InputError, match=r"not built on this machine: run `python -m isotrain\.lstm\.kernels`"):
        build.load()


def test_set_up_goes_on_without_a_compiler_and_says_what_follows(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", "/nonexistent/g++")
    command.main()
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "'/nonexistent/g++', which is not installed" in record.message


# Where there is one -----------------------------------------------------------------------------------------------


def test_a_library_that_is_there_is_taken_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nonexistent/g++")
    library = build.library()
    library.parent.mkdir(parents=True)
    library.write_bytes(b"")
    assert build.build() == library


def test_it_lies_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert build.library().parent.parent == tmp_path / "libraries"
    monkeypatch.delenv("ISOTRAIN_NATIVE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert build.library().parent.parent == tmp_path / "cache" / "isotrain"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert build.library().parent.parent == Path.home() / ".cache" / "isotrain"


@pytest.mark.parametrize("changed", ["torch", "flags", "processor", "source"])
def test_another_torch_compilation_processor_or_source_has_another_library(
    changed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = build.library()
    build._key.cache_clear()
    assert build.library() == before
    if changed == "torch":
        monkeypatch.setattr(torch, "__version__", "2.0.0")
    elif changed == "flags":
        flags = build.flags()
        monkeypatch.setattr(build, "flags", lambda: [*flags, "-g"])
    elif changed == "processor":
        monkeypatch.setattr(build, "_processor", lambda: "another")
    else:
        monkeypatch.setattr(build, "SOURCE", tmp_path / "lstm.cpp")
        build.SOURCE.write_text("// another")
    build._key.cache_clear()
    assert build.library() != before


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ("AVX512", {"-DCPU_CAPABILITY=AVX512", "-DCPU_CAPABILITY_AVX512"}),
        ("AVX2", {"-DCPU_CAPABILITY=AVX2", "-DCPU_CAPABILITY_AVX2", "-march=haswell"}),
        ("NO AVX", {"-DCPU_CAPABILITY=DEFAULT", "-DCPU_CAPABILITY_DEFAULT"}),
        ("SVE256", {"-DCPU_CAPABILITY=DEFAULT"}),
    ],
)
def test_the_vector_width_is_the_one_that_torch_chose(
    capability: str, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert expected <= set(build.flags())


# Lesser processors ------------------------------------------------------------------------------------------------

LESSER = """
import torch
from isotrain.errors import InputError
from isotrain.lstm import LSTM
from isotrain.lstm.backends import choose
from isotrain.lstm.kernels import build
from isotrain.lstm.kernels.layer import lstm_layer

build.build()
build.load()
print(torch.backends.cpu.get_cpu_capability(), build.has_brgemm(True))
x = torch.randn(64, 2, 3)
for bf16 in (False, True):
    print(choose("auto", x, torch.float32, bf16))
try:
    LSTM(3, 20, backend="native", compute="bf16")(x)
except InputError as refusal:
    print(refusal)
try:
    zero = torch.zeros(2, 20)
    lstm_layer(x, zero, zero, *LSTM(3, 20).parameters(), bf16=True)
except RuntimeError:
    print("refused by torch")
"""
TESTS = ["-q", "-p", "no:cacheprovider", "tests/lstm/test_native.py", "-k", "not memory_does_not_grow"]


@pytest.mark.slow
@pytest.mark.usefixtures("kernels")  # a machine that compiles for itself compiles for lesser ones
@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="not such a processor")
@pytest.mark.parametrize(("capability", "seen"), [("avx2", "AVX2"), ("default", "DEFAULT")])
def test_kernels_of_a_lesser_processor_are_right_in_fp32_and_refuse_bf16(capability: str, seen: str) -> None:
    """Torch and oneDNN are told to see no better processor than that; half a minute where nothing is compiled yet."""
    environment = os.environ | {"ATEN_CPU_CAPABILITY": capability, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", LESSER], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"{seen} False",
        "native (a float32 CPU network, fp32 products)",
        "torch (this processor has no bf16 products)",
        "LSTM backend 'native': this processor has no bf16 products",
        "refused by torch",
    ]
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", *TESTS],
        env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert tests.returncode == 0, tests.stdout


# Who may have written a library ------------------------------------------------------------------------------------


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    """A library where the kernels would be, in folders that are this user's alone."""
    path = tmp_path / "isotrain" / "native-0" / "isotrain_lstm.so"
    path.parent.mkdir(parents=True)
    path.touch()
    for one, mode in ((path, 0o644), (path.parent, 0o755), (path.parent.parent, 0o755)):
        one.chmod(mode)
    return path


def test_a_library_of_ones_own_is_trusted(cached: Path) -> None:
    build.check_trusted(cached)


@pytest.mark.parametrize("which", [0, 1, 2, 3])
@pytest.mark.parametrize("mode", [0o666, 0o662, 0o777])
def test_a_library_that_others_can_write_is_not_loaded(which: int, mode: int, cached: Path) -> None:
    one = [cached, *cached.parents][which]
    one.chmod(mode | (0o111 if which else 0))
    with pytest.raises(InputError, match=re.escape(f"{one} is writable by others")):
        build.check_trusted(cached)


def test_a_link_does_not_hide_what_it_leads_to(cached: Path, tmp_path: Path) -> None:
    cached.parent.chmod(0o777)
    link = tmp_path / "mine" / "a" / "isotrain_lstm.so"
    link.parent.mkdir(parents=True)
    link.symlink_to(cached)
    with pytest.raises(InputError, match="is writable by others"):
        build.check_trusted(link)


def test_the_library_of_another_user_is_not_loaded(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = cached.stat().st_uid
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    if owner == 0:
        build.check_trusted(cached)  # root's own is everyone's
        return
    with pytest.raises(InputError, match="belongs to another user"):
        build.check_trusted(cached)


def test_a_group_of_several_may_not_write(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached.parent.chmod(0o775)
    for own in (True, False):
        monkeypatch.setattr(build, "_own_group", lambda group, own=own: own)
        if own:
            build.check_trusted(cached)
        else:
            with pytest.raises(InputError, match="is writable by others"):
                build.check_trusted(cached)


def test_a_cache_that_cannot_be_trusted_is_not_loaded(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build.library().parent.mkdir(parents=True)
    build.library().write_bytes(b"whatever is there must not reach the loader")

    def refuse(path: Path) -> None:
        raise InputError(f"{path} is writable by others")

    monkeypatch.setattr(build, "check_trusted", refuse)
    for use in (build.load, build.build):
        with pytest.raises(InputError, match="is writable by others"):
            use()
