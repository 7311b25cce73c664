"""The one exception that means "mend your input", and how a command shows it."""

import errno
import gc
import logging
import sys
from collections.abc import Callable


class InputError(ValueError):
    """A file, a setting or an argument cannot be used; the message names it and the remedy."""


def run_as_command(main: Callable[..., None]) -> None:
    """Call ``main`` with the command line's words; an :class:`InputError` or a full disk ends in one line, status 2.

    Every other exception keeps its traceback: it is our defect, not the user's.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        main(*sys.argv[1:])
    except InputError as problem:
        sys.exit(_refusal(problem))
    except OSError as problem:
        if problem.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        sys.exit(_refusal(f"{problem}: free some space and run the same command again; nothing was left half-written"))
    gc.freeze()  # at exit Python would tidy up every object of torch and Lightning, for over a second a stage


def _refusal(problem: InputError | str) -> int:
    print(f"error: {problem}", file=sys.stderr)
    return 2
