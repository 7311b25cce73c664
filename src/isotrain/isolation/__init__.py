"""Isolation of zones: leave part of a network out of training, and know exactly what that means.

Everything here needs torch alone, apart from the Lightning callbacks. A name is imported when it is first asked for, so
that :mod:`.settings` can be read without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isotrain.isolation.callback import AdaptiveHorizon, Isolation
    from isotrain.isolation.criteria import CRITERIA
    from isotrain.isolation.isolator import Isolator
    from isotrain.isolation.optimisers import MASKED, MaskedAdam, masked
    from isotrain.isolation.policy import Policy
    from isotrain.isolation.schedules import SCHEDULES

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
]
_MODULE = {
    "CRITERIA": "criteria",
    "MASKED": "optimisers",
    "SCHEDULES": "schedules",
    "AdaptiveHorizon": "callback",
    "Isolation": "callback",
    "Isolator": "isolator",
    "MaskedAdam": "optimisers",
    "Policy": "policy",
    "masked": "optimisers",
}


def __getattr__(name: str) -> object:
    if name in _MODULE:
        return getattr(import_module(f"isotrain.isolation.{_MODULE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
