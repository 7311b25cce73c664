"""The exception for input that a user can correct, and how a command ends with it."""

import errno
import gc
import logging
import sys
from collections.abc import Callable


class InputError(ValueError):
    """A file, a setting or an argument that cannot be used; the message names it and the remedy."""


def run_as_command(main: Callable[..., None]) -> None:
    """Call ``main`` with the words of the command line.

    An :class:`InputError` or a full disk ends the command with one line and status 2. Every other exception is a defect
    of the program and keeps its traceback.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        main(*sys.argv[1:])
    except InputError as problem:
        sys.exit(_refusal(problem))
    except OSError as problem:
        if problem.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        sys.exit(_refusal(f"{problem}: free some space and run the same command again"))
    gc.freeze()  # else Python examines every object of torch and Lightning once more at exit: a second a stage


def _refusal(problem: InputError | str) -> int:
    print(f"error: {problem}", file=sys.stderr)
    return 2
