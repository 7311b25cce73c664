"""TERM, USR1 and INT ask a worker to leave: at once while it trains, else when what it does is done."""

import contextlib
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ASKED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Leave(SystemExit):
    """Raised in the middle of a training by a signal; not an Exception, so that nothing takes it for a failure."""


class Stop:
    """What has asked the worker to leave, if anything: a signal's name."""

    def __init__(self) -> None:
        self.signal: str | None = None
        self._interruptible = False

    @contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Take the signals in the block; outside the main thread they are not ours, and only the block runs."""
        before = {number: signal.getsignal(number) for number in ASKED}
        with contextlib.suppress(ValueError):
            for number in ASKED:
                signal.signal(number, self._asked)
        try:
            yield self
        finally:
            with contextlib.suppress(ValueError):
                for number, handler in before.items():
                    signal.signal(number, handler)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A signal in the block raises :class:`Leave` there; so does one that came before it."""
        self._interruptible = True
        try:
            if self.signal:
                raise Leave(self.signal)
            yield
        finally:
            self._interruptible = False

    def _asked(self, number: int, _: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        if self._interruptible:
            self._interruptible = False
            raise Leave(self.signal)
