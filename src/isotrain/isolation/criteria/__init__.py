"""Criteria: which zones to isolate first."""

from isotrain.isolation.criteria.scores import CRITERIA, neglected
from isotrain.isolation.criteria.views import Criterion, ZoneView, needs, view_of

__all__ = ["CRITERIA", "Criterion", "ZoneView", "needs", "neglected", "view_of"]
