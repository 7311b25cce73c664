"""Isolation of zones: leave part of a network out of training, and know exactly what that means.

In: a torch network, an optimiser of :mod:`.optimisers`, and a :class:`.settings.Policy` (which zones, chosen how,
when). Out: the zones that train at each step; the optimiser leaves the others bitwise as they are, and the modules that
can compute no gradient for them. Begin with ``settings.py``, which has every name and setting; CARD.md says how to use
them.

Everything here needs torch alone, apart from the Lightning callbacks. A name is imported when it is first asked for, so
that the settings can be read without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isotrain.isolation.callback import AdaptiveCredit, AdaptiveHorizon, Chooser, Isolation, callback_of
    from isotrain.isolation.criteria import CRITERIA
    from isotrain.isolation.isolator import Isolator, isolate
    from isotrain.isolation.optimisers import MASKED, MaskedAdam, masked
    from isotrain.isolation.settings import SCHEDULES, ZONES, Policy, Schedule

__all__ = [
    "CRITERIA",
    "MASKED",
    "SCHEDULES",
    "ZONES",
    "AdaptiveCredit",
    "AdaptiveHorizon",
    "Chooser",
    "Isolation",
    "Isolator",
    "MaskedAdam",
    "Policy",
    "Schedule",
    "callback_of",
    "isolate",
    "masked",
]
_MODULES = {
    "callback": ("AdaptiveCredit", "AdaptiveHorizon", "Chooser", "Isolation", "callback_of"),
    "criteria": ("CRITERIA",),
    "isolator": ("Isolator", "isolate"),
    "optimisers": ("MASKED", "MaskedAdam", "masked"),
    "settings": ("SCHEDULES", "ZONES", "Policy", "Schedule"),
}


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            try:
                return getattr(import_module(f"isotrain.isolation.{module}"), name)
            except ModuleNotFoundError as problem:
                if problem.name != "pytorch_lightning":
                    raise
                raise ImportError(
                    f"isotrain.isolation.{name} needs the extra study: pip install 'isotrain[study]'"
                ) from problem
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
