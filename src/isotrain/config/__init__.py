"""params.yaml, typed. ``load`` is the only way in."""

from isotrain.config.params import (
    METHOD_SECTIONS,
    VIEWS,
    CompareView,
    IngestView,
    Params,
    TrainView,
    WindowView,
    flatten,
    load,
)

__all__ = [
    "METHOD_SECTIONS",
    "VIEWS",
    "CompareView",
    "IngestView",
    "Params",
    "TrainView",
    "WindowView",
    "flatten",
    "load",
]
