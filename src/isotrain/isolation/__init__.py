"""Isolation of zones: leave part of a network out of training, and know exactly what that means.

Everything here needs torch alone, apart from :class:`Isolation`, the Lightning callback, which is therefore
imported when it is first asked for.
"""

from typing import TYPE_CHECKING

from isotrain.isolation.adam import MaskedAdam
from isotrain.isolation.criteria import CRITERIA
from isotrain.isolation.schedules import SCHEDULES

if TYPE_CHECKING:
    from isotrain.isolation.callback import Isolation

__all__ = ["CRITERIA", "SCHEDULES", "Isolation", "MaskedAdam"]


def __getattr__(name: str) -> object:
    if name == "Isolation":
        from isotrain.isolation.callback import Isolation

        return Isolation
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
