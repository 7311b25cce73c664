"""What a training costs in seconds, the same on a busy and on an idle machine: its steps x their cost in quiet moments.

A *quiet moment* is a few of the trial's own steps during which every other worker of the machine stands still
(:meth:`.TimingLock.quiet`). The cost of a step depends on its *kind* and on the *share* that is isolated. The kinds
are: a step in which the isolator checks whether to choose; one in which it also chooses; the first step after a choice,
in which isolated parts may be run once and remembered; and any other step. Each step of the training counts with the
cost of the timed steps of its kind at the share nearest to its own.
"""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, NamedTuple

import pytorch_lightning as pl

from isotrain.training.clock import Clock
from isotrain.training.machine import TimingLock

MOMENTS = 3  # quiet moments in each training, evenly spread; besides, one at each share that has not been timed yet
MOST = 8  # quiet moments in a training
LENGTH = 4  # steps of a quiet moment: a check, the step after it, two others
WARM_UP = 3  # first steps, never timed: memory is allocated, kernels are built
SAME_SHARE = 0.05  # shares closer than this cost the same


class Step(NamedTuple):
    """A step that was done; ``seconds`` if it was timed in a quiet moment, else None."""

    kind: str  # check | choice | after | other
    share: float  # of the zones isolated when it began
    seconds: float | None


@dataclass
class StepCost:
    """The steps that were done, and what they cost: arithmetic only.

    Example:
        >>> timed = [Step("check", 0.0, 0.03), Step("other", 0.0, 0.01)]
        >>> StepCost([*timed, Step("other", 0.0, None), Step("other", 0.0, None)]).total()  # 0.03 + 3 x 0.01
        0.06
    """

    steps: list[Step] = field(default_factory=list)

    @property
    def timed(self) -> list[tuple[Step, float]]:
        """The steps that were timed, each with its seconds."""
        return [(step, step.seconds) for step in self.steps if step.seconds is not None]

    def total(self, first: int | None = None) -> float | None:
        """Seconds of the steps done, or of the ``first`` so many of them; None before a step was timed."""
        timed = self.timed
        if not timed:
            return None
        alike = Counter((step.kind, step.share) for step in self.steps[:first])
        return sum(number * _cost(timed, kind, share) for (kind, share), number in alike.items())

    def met(self, share: float) -> bool:
        """Whether a step was timed at (nearly) this share."""
        return any(abs(step.share - share) < SAME_SHARE for step, _ in self.timed)


def _cost(timed: list[tuple[Step, float]], kind: str, share: float) -> float:
    """Mean seconds of the timed steps of this kind at the nearest share; of all kinds, if no step of this kind was
    timed.

    The fastest and the slowest eighth are left out: programs that do not wait at the gates disturb a few steps.
    """
    alike = [entry for entry in timed if entry[0].kind == kind] or timed
    nearest = min(abs(step.share - share) for step, _ in alike)
    seconds = sorted(took for step, took in alike if abs(step.share - share) < nearest + SAME_SHARE)
    odd = len(seconds) // 8
    return fmean(seconds[odd : len(seconds) - odd])


class QuietCost(pl.Callback):
    """Waits at the gate before each step and times the quiet moments; a callback that comes before the :class:`Clock`.

    The clock stands still meanwhile, so it shows the wall-clock seconds of the training alone. Selection, clipping and
    packing count; validation and logging do not, as in every fit.

    Args:
        lock: the timing lock, which the workers of this machine hold together.
        clock: the clock of the training, by which steps are timed.
        every: the number of steps between two checks of the isolator; 0: it never checks.
        choices: says how often the isolator has chosen so far.

    Attributes:
        cost: the steps that were done.
        waited: seconds at the gates: standing still for others, or waiting until they stand still.
    """

    def __init__(self, lock: TimingLock, clock: Clock, every: int = 0, choices: Callable[[], int] = lambda: 0) -> None:
        self.cost = StepCost()
        self.waited = 0.0
        self._lock, self._clock, self._every, self._choices = lock, clock, every, choices
        self._begun: _Begun | None = None  # the step that runs
        self._last_check = 0
        self._chose = False  # in the step before
        self._part = 0  # of the training, whose moment comes next
        self._extra = MOST - MOMENTS  # moments for shares not met
        self._left = 0  # steps of this moment
        self._quiet = ExitStack()

    def seconds(self, first: int | None = None) -> float:
        """Seconds of the training so far, or of its ``first`` so many steps.

        Wall-clock seconds before a step was timed.
        """
        total = self.cost.total(first)
        return self._clock.watch.total if total is None else total

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self._clock.watch.pause()
        arrived = time.perf_counter()
        self._end_step()
        step, share = len(self.cost.steps), self._clock.share()
        if not self._left:
            self._quiet.close()
            if self._due(step, int(trainer.max_steps)) or self._unmet(step, share):
                self._quiet.enter_context(self._lock.quiet())
                self._left = LENGTH
            else:
                self._lock.gate()
        self.waited += time.perf_counter() - arrived
        self._begun = _Begun(share, self._clock.watch.total, self._clock.selection(), self._choices())
        self._clock.watch.resume()

    def on_validation_start(self, *_: Any) -> None:
        self._end_moment()

    def on_validation_batch_start(self, *_: Any) -> None:
        self._lock.gate()

    def on_train_end(self, *_: Any) -> None:
        self._end_moment()

    def on_exception(self, *_: Any) -> None:
        self._quiet.close()

    def _due(self, step: int, steps: int) -> bool:
        """Whether the quiet moment of this part begins: in the part's middle, or at the next check if it has one."""
        part = steps / MOMENTS
        if self._part == MOMENTS or step < max(WARM_UP, (self._part + 0.5) * part):
            return False
        if self._every > 1 and step < self._last_check + self._every < (self._part + 1) * part:
            return False
        self._part += 1
        return True

    def _unmet(self, step: int, share: float) -> bool:
        if step < WARM_UP or not self._extra or self.cost.met(share):
            return False
        self._extra -= 1
        return True

    def _end_moment(self) -> None:
        self._clock.watch.pause()
        self._end_step()
        self._left = 0
        self._quiet.close()

    def _end_step(self) -> None:
        """Add the step that ends here."""
        if self._begun is None:
            return
        checked, chose = self._clock.selection() > self._begun.selection, self._choices() > self._begun.choices
        kind = "choice" if chose else "check" if checked else "after" if self._chose else "other"
        self._chose = chose
        if checked:
            self._last_check = len(self.cost.steps)
        took = self._clock.watch.total - self._begun.at if self._left else None
        self.cost.steps.append(Step(kind, self._begun.share, took))
        self._left = max(0, self._left - 1)
        self._begun = None


class _Begun(NamedTuple):
    share: float
    at: float  # the clock's seconds
    selection: float  # the isolator's
    choices: int  # and how many it had made
