"""Compiles the native kernels once, and loads them; ``python -m isotrain.lstm.kernels`` does it at set-up.

The library is kept in the user's cache (``ISOTRAIN_NATIVE_DIR`` if set), in a folder named after everything that it
depends on: the source, torch's version, the compiler's flags and the processor.
"""

import functools
import grp
import hashlib
import logging
import os
import platform
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from isotrain.errors import InputError

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("lstm.cpp")
REMEDY = "run `python -m isotrain.lstm.kernels` (needs a C++ compiler and ninja)"


def library() -> Path:
    """Where the compiled kernels of this torch, this processor and this source are, or would be."""
    home = os.environ.get("ISOTRAIN_NATIVE_DIR")
    folder = Path(home) if home else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "isotrain"
    return folder / f"native-{_key()}" / "isotrain_lstm.so"


@functools.cache  # where there are no kernels every forward asks for them
def _key() -> str:
    """What the kernels depend on, in 16 digits."""
    key = hashlib.sha256()
    for part in (SOURCE.read_text(), torch.__version__, _processor(), *flags()):
        key.update(part.encode() + b"\0")
    return key.hexdigest()[:16]


def build() -> Path:
    """Compile the kernels unless they are there; returns the library.

    Raises :class:`InputError` where there is no compiler, and with the compiler's words where it fails.
    """
    target = library()
    if target.is_file():
        check_trusted(target)
        return target
    # ninja comes with the package: it lies beside python, also where the environment was never activated
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for tool in (os.environ.get("CXX", "c++"), "ninja"):
        if shutil.which(tool) is None:
            raise InputError(
                f"the native LSTM kernels need {tool!r}, which is not installed: LSTMs use torch's kernels"
            )
    from torch.utils import cpp_extension  # half a second, needed here only

    log.info("compiling the LSTM kernels for this processor: about a quarter of a minute, once")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:  # so that half a library is never loaded
        try:
            cpp_extension.load(
                name=target.stem,
                sources=[str(SOURCE)],
                extra_cflags=flags(),
                extra_ldflags=["-fopenmp"],
                build_directory=scratch,
                is_python_module=False,
            )
        except (RuntimeError, OSError, subprocess.CalledProcessError) as error:  # the last: no `--version`
            raise InputError(f"compiling the native LSTM kernels failed: {error}") from error
        target.parent.chmod(0o755)
        (Path(scratch) / target.name).chmod(0o755)
        (Path(scratch) / target.name).replace(target)
    log.info("kernels in %s", target.parent)
    return target


@functools.cache
def load() -> None:
    """Make ``torch.ops.isotrain`` available; raises :class:`InputError` where the kernels are not built."""
    path = library()
    if not path.is_file():
        raise InputError(f"the native LSTM kernels are not built on this machine: {REMEDY}")
    check_trusted(path)
    torch.ops.load_library(str(path))


def check_trusted(path: Path) -> None:
    """Refuse a library that others could have put there: loading it runs their code.

    It and the two folders around it must belong to this user or to root, and neither they nor any folder above may be
    writable by others, save folders such as /tmp where nobody can move what another owns. Writing by the group counts,
    unless it is the user's own group.
    """
    path = path.resolve()
    for depth, one in enumerate((path, *path.parents)):
        about = one.stat()
        writable = about.st_mode & stat.S_IWOTH or (about.st_mode & stat.S_IWGRP and not _own_group(about.st_gid))
        shared = bool(writable) and not (depth > 2 and about.st_mode & stat.S_ISVTX)
        if shared or (depth <= 2 and about.st_uid not in (os.getuid(), 0)):
            what = "is writable by others" if shared else "belongs to another user"
            raise InputError(
                f"{one} {what}, so the kernels in {path.parent} are not loaded: "
                "make it yours alone (chmod go-w), or set ISOTRAIN_NATIVE_DIR to a folder of your own"
            )


def _own_group(group: int) -> bool:
    """Whether ``group`` is the group that many systems make for each user alone."""
    try:
        name, members = grp.getgrgid(group).gr_name, grp.getgrgid(group).gr_mem
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return False
    return name == user and set(members) <= {user}


@functools.cache
def has_brgemm(bf16: bool) -> bool:
    """Whether torch has batch-reduced products of this precision on this processor; :func:`load` comes first."""
    return bool(torch.ops.isotrain.has_brgemm(bf16))


def flags() -> list[str]:
    """The compiler's flags: this processor, and the vector width that torch itself chose."""
    capability = torch.backends.cpu.get_cpu_capability()
    known = capability if capability in ("AVX512", "AVX2") else "DEFAULT"
    native = "-mcpu=native" if platform.machine() == "aarch64" else "-march=native"
    machine = "-march=haswell" if known == "AVX2" else native
    vectors = [f"-DCPU_CAPABILITY={known}", f"-DCPU_CAPABILITY_{known}"]
    return ["-O3", "-std=c++20", machine, "-fopenmp", "-fno-math-errno", *vectors]


def _processor() -> str:
    """What distinguishes processors for the compiler: kind, and on Linux the instruction sets."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.machine() + platform.processor()
    wanted = ("model name", "flags", "Features")
    return "".join(sorted({line for line in info.read_text().splitlines() if line.startswith(wanted)}))
