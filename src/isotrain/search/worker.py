"""A worker: asks the study for a trial, runs it, tells; nothing of it outlives it but what it told."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from isotrain.config import Settings
from isotrain.search.study import Place

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One trial to run.

    Attributes:
        number: of the trial.
        seed: below 1000; a repeat of a trial has the seed of the first.
        overrides: dotted path -> value, what the trial changes in the base.
        settings: the base so changed.
        out: folder for whatever the trial writes.
    """

    number: int
    seed: int
    overrides: dict[str, Any]
    settings: Settings
    out: Path


@dataclass(frozen=True)
class Outcome:
    """What a trial found: ``values`` in the order of the objectives, ``attrs`` to be kept with the trial."""

    values: tuple[float, ...]
    attrs: dict[str, Any]


Report = Callable[[int, float, float], None]
Objective = Callable[[Job, Report], Outcome]


class Diverged(Exception):
    """The training ran into numbers that are not finite: the trial has failed and is not repeated."""


class EndEarly(Exception):
    """The trial cannot reach the front: it ends without values and is not repeated."""


def work(place: Place, objective: Objective, *, on_finished: Callable[[FrozenTrial], None] = lambda _: None) -> str:
    """Run trials until the budget is spent; returns why it ended."""
    raise NotImplementedError
