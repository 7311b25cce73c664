"""Optimisers that leave weights, and what they remember of them, as they are."""

from isotrain.isolation.optimisers.adam import MaskedAdam
from isotrain.isolation.optimisers.others import MASKED, masked

__all__ = ["MASKED", "MaskedAdam", "masked"]
