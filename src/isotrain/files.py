"""Files that are whole or absent: a stage killed half-way leaves nothing that looks finished."""

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from isotrain.errors import InputError

DIGEST = 32  # bytes of a SHA-256, the end of a sealed file
PATIENCE = 24 * 3600.0  # s: no fit holds a lock of the machine for longer


@contextmanager
def reading(path: str | Path, remedy: str) -> Iterator[None]:
    """The boundary where a file enters the program: whatever goes wrong in the block is an :class:`InputError`.

    So a file that is cut, empty, of another kind or not readable is one line that names it and the remedy, however the
    library that reads it complains. A file that is absent stays ``FileNotFoundError``: some callers expect that.
    """
    try:
        yield
    except (InputError, FileNotFoundError):
        raise
    except Exception as problem:
        reason = (str(problem).splitlines() or [""])[0][:200]
        raise InputError(f"{path} cannot be read ({type(problem).__name__}: {reason}): {remedy}") from problem


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary neighbour of ``path`` to write to; move it into place only if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` (UTF-8) so that a reader sees the old file or the new one, never a part."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON; NaN and infinity are refused (``ValueError``), they are not JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: str | Path, remedy: str = "remove it and run the same command again") -> Any:
    """The value written by :func:`write_json`; :class:`InputError` if the file is damaged."""
    with reading(path, remedy):
        return json.loads(read_plain(path).decode("utf-8"))


def read_plain(path: str | Path) -> bytes:
    """The bytes of a file; ``ValueError`` for a pipe, which keeps its reader waiting, or a device, which has no end."""
    found = Path(path).stat().st_mode
    if not stat.S_ISREG(found) and not stat.S_ISDIR(found):  # of a folder the system says so itself
        raise ValueError("it is no plain file")
    return Path(path).read_bytes()


def write_sealed(path: str | Path, content: bytes) -> None:
    """Write ``content`` and its SHA-256 behind it, on the disk before it takes the place of what was there."""
    with replacing(path) as draft, draft.open("wb") as stream:
        stream.write(content)
        stream.write(hashlib.sha256(content).digest())
        stream.flush()
        os.fsync(stream.fileno())


def read_sealed(path: str | Path) -> bytes:
    """What :func:`write_sealed` wrote; ``ValueError`` if a single bit of it has changed or is missing."""
    content = read_plain(path)
    if hashlib.sha256(content[:-DIGEST]).digest() != content[-DIGEST:]:
        raise ValueError("its checksum does not agree: it is cut or damaged")
    return content[:-DIGEST]


def sha256(path: str | Path) -> str:
    """Hexadecimal digest of the file's bytes."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def same_content(one: Path, other: Path) -> bool:
    """Whether two files, or all of the files in two folders, have the same bytes."""
    if one.is_dir() and other.is_dir():
        inside, there = ({path.relative_to(top) for path in top.rglob("*") if path.is_file()} for top in (one, other))
        return inside == there and all(same_content(one / path, other / path) for path in inside)
    return one.is_file() and other.is_file() and sha256(one) == sha256(other)


def sha256_text(text: str) -> str:
    """Hexadecimal digest of ``text`` in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def checksum(value: Any) -> str:
    """Hexadecimal digest of what ``value`` says as JSON; the order of its keys says nothing."""
    return sha256_text(json.dumps(value, sort_keys=True))


def machine_lock(name: str) -> int:
    """A file of this machine, open to be locked with flock(2), for which permission to read is enough.

    So several users of a machine can share the lock; the first of them makes the file. A link, a pipe or a file that
    cannot be opened in its place is neither followed nor waited for: :class:`InputError`.
    """
    path = Path(tempfile.gettempdir()) / name
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644))
    remedy = f"{path} must be a plain file that everyone may read: remove it, or set TMPDIR to a folder of your own"
    try:
        lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as problem:
        raise InputError(f"the lock cannot be opened ({problem.strerror}): {remedy}") from problem
    if not stat.S_ISREG(os.fstat(lock).st_mode):
        os.close(lock)
        raise InputError(f"the lock is no file: {remedy}")
    return lock


def try_lock(lock: int, how: int) -> bool:
    """Take ``lock`` as ``how`` says (``fcntl.LOCK_SH`` or ``LOCK_EX``) if that is possible at once."""
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for_lock(lock: int, how: int, seconds: float = PATIENCE, on_wait: Callable[[], None] = lambda: None) -> None:
    """Take ``lock``, waiting up to ``seconds`` for it; :class:`InputError` after that. ``on_wait``: before waiting.

    Another user of the machine can hold a lock for ever: no command waits for ever.
    """
    if try_lock(lock, how):
        return
    on_wait()
    end, pause = time.monotonic() + seconds, 0.001
    while not try_lock(lock, how):
        if time.monotonic() > end:
            link = Path(f"/proc/self/fd/{lock}")
            name = link.readlink() if link.is_symlink() else "a lock"
            raise InputError(f"{name} has been held by another process for {seconds:g} s: end that one (fuser {name})")
        time.sleep(pause)
        pause = min(2 * pause, 0.1)
