"""Isolation of zones: leave part of a network out of training, and know exactly what that means.

Everything here needs torch alone, apart from the Lightning callbacks :class:`Isolation` and
:class:`AdaptiveHorizon`, which are therefore imported when they are first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from isotrain.isolation.criteria import CRITERIA
from isotrain.isolation.isolator import Isolator
from isotrain.isolation.optimisers import MASKED, MaskedAdam, masked
from isotrain.isolation.policy import Policy
from isotrain.isolation.schedules import SCHEDULES
from isotrain.isolation.zones import zones

if TYPE_CHECKING:
    from isotrain.isolation.callback import AdaptiveHorizon, Isolation

__all__ = [
    "CRITERIA",
    "MASKED",
    "SCHEDULES",
    "AdaptiveHorizon",
    "Isolation",
    "Isolator",
    "MaskedAdam",
    "Policy",
    "masked",
    "zones",
]
_CALLBACKS = {"AdaptiveHorizon": "callback", "Isolation": "callback"}


def __getattr__(name: str) -> object:
    if name in _CALLBACKS:
        return getattr(import_module(f"isotrain.isolation.{_CALLBACKS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
