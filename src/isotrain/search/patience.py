"""Storage that does not answer for a while: wait and say so, up to a limit."""

import errno
import logging
import time
from collections.abc import Callable
from typing import TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError

log = logging.getLogger(__name__)
T = TypeVar("T")
FULL = (errno.ENOSPC, errno.EDQUOT)
UNREACHABLE = (OSError, DBAPIError, StorageInternalError)


def patiently(call: Callable[[], T], seconds: float, what: str) -> T:
    """The answer of ``call``, asked again for up to ``seconds`` while its storage cannot be reached.

    ``call`` may be done twice: an answer can be lost on its way. A full disk is not waited for, and is raised at
    once; after ``seconds`` so is whatever the last attempt raised.
    """
    begun, pause = time.monotonic(), 0.1
    while True:
        try:
            answer = call()
        except UNREACHABLE as problem:
            waited = time.monotonic() - begun
            if getattr(problem, "errno", None) in FULL or waited >= seconds:
                raise
            log.warning(
                "%s: storage does not answer (%s); waited %.0f of %.0f s", what, _short(problem), waited, seconds
            )
            time.sleep(min(pause, max(0.0, seconds - waited)))
            pause = min(2 * pause, 5.0)
        else:
            if pause > 0.1:
                log.warning("%s: storage answers again after %.1f s", what, time.monotonic() - begun)
            return answer


def _short(problem: Exception) -> str:
    return (str(problem.__cause__ or problem).splitlines() or [type(problem).__name__])[0]
