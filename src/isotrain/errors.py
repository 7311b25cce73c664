"""The exception for input that a user can correct, how a command ends with it, and what no message may show."""

import errno
import gc
import inspect
import logging
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TextIO

SECRET = re.compile(r"://([^/\s:@]*):(?!\d+(?:/|$))")  # what comes before the password of an address; no host:port/
SECRET_WORD = "password|passwd|pwd|secret|token|signature|api.?key|credential|authorization"
SECRET_FIELD = re.compile(  # ?access_token=... of an address; bounded, so that no text takes long
    rf"(?i)([?&;#](?:[\w.-]{{0,40}}(?:{SECRET_WORD})[\w.-]{{0,40}}|sig|key)=)[^&;\s'\"]+"
)
LONGEST = 2000  # characters of a message: a screen
PERMISSION, SPACE = "give this user the permission, or name another folder", "free some space"
REMEDIES = {
    errno.ENOSPC: SPACE,
    errno.EDQUOT: SPACE,
    errno.EFBIG: SPACE,
    errno.EACCES: PERMISSION,
    errno.EPERM: PERMISSION,
    errno.EROFS: PERMISSION,
    errno.ENOTDIR: "name a folder, or move the file that is in its place",
    errno.EISDIR: "name a file, or move the folder that is in its place",
    errno.ENOENT: "make it, or correct its name",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.ELOOP: "remove the link",
    errno.EIO: "look after the disk",
    errno.ESTALE: "look after the network drive",
}


class InputError(ValueError):
    """A file, a setting or an argument that cannot be used; the message names it and the remedy.

    Example:
        >>> from isotrain.lstm import LSTM
        >>> LSTM(3, 8).isolate(units=[8])
        Traceback (most recent call last):
        isotrain.errors.InputError: layer 0 has no unit 8: its units are 0 to 7
    """


def masked(text: str) -> str:
    """``text`` with ``***`` in place of every password or token in an address, whatever its scheme."""
    return SECRET_FIELD.sub(r"\1***", re.sub(r"\S+", _without_password, text))


def holds_secret(text: str) -> bool:
    """Whether ``text`` shows a password or a token of an address."""
    return masked(text) != text


def _without_password(found: re.Match[str]) -> str:
    """A word without blanks; up to its last @ all is password, which may hold slashes, quotes and @ itself."""
    word, end = found[0], found[0].rfind("@")
    begun = next((one for one in SECRET.finditer(word, 0, max(end, 0))), None)
    return word if begun is None else f"{word[: begun.end()]}***{word[end:]}"


def passing(text: str) -> None:
    """Log how far a command has come. On a terminal the next line takes the place of this one."""
    logging.getLogger(__name__).info(text, extra={"passing": True})


def run_as_command(main: Callable[..., None], on_refusal: Callable[[], str] = str) -> None:
    """Call ``main`` with the words of the command line.

    An :class:`InputError`, and what the system refuses by a number that :data:`REMEDIES` knows (a full disk, a folder
    that may not be written), ends the command with one line and status 2. Every other exception is a defect of the
    program and keeps its traceback. Ctrl-C ends the command with one line and status 130. Nothing that is printed or
    logged shows a password. What ``on_refusal`` does and says follows the line of an :class:`InputError`.
    """
    lines = Lines(sys.stderr)
    logging.basicConfig(level=logging.INFO, handlers=[lines])
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells of every plug-in, at import, and every migration
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Masked("%(message)s"))
    sys.excepthook = _print_masked
    try:
        _check_words(main, sys.argv[1:])
        main(*sys.argv[1:])
    except InputError as problem:
        lines.end()
        sys.exit(_refusal(f"{problem}{on_refusal()}"))
    except KeyboardInterrupt:
        lines.end()
        print("stopped: the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except OSError as problem:
        lines.end()
        if (remedy := REMEDIES.get(problem.errno or 0)) is None:
            raise
        sys.exit(_refusal(f"{problem}: {remedy} and run the same command again"))
    lines.end()
    gc.freeze()  # else Python examines every object of torch and Lightning once more at exit: a second a stage


def _check_words(main: Callable[..., None], words: list[str]) -> None:
    """:class:`InputError` for more or fewer words than ``main`` takes."""
    taken = inspect.signature(main)
    try:
        taken.bind(*words)
    except TypeError as problem:
        named = " ".join(name.upper() for name in taken.parameters)
        raise InputError(f"{problem}: call {Path(sys.argv[0]).name} {named}") from None


class Lines(logging.StreamHandler[TextIO]):
    """Log lines, of which a passing one is written over by the next where somebody watches."""

    _passing = False

    def emit(self, record: logging.LogRecord) -> None:
        self.end("\r\x1b[K")
        self._passing = hasattr(record, "passing") and self.stream.isatty()
        self.terminator = "" if self._passing else "\n"
        super().emit(record)

    def end(self, text: str = "\n") -> None:
        """Leave a passing line, if the last one was, by ``text``."""
        if self._passing:
            self.stream.write(text)
            self._passing = False


class _Masked(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return masked(super().format(record))


def _print_masked(kind: type[BaseException], problem: BaseException, trace: TracebackType | None) -> None:
    print(masked("".join(traceback.format_exception(kind, problem, trace))), file=sys.stderr, end="")


def _refusal(problem: str) -> int:
    text = masked(problem)
    print("error: " + (text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."), file=sys.stderr)
    return 2
