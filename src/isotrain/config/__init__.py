"""params.yaml, typed. ``load`` is the only way in."""

from isotrain.config.ingest import Ingest
from isotrain.config.params import (
    VIEWS,
    CompareView,
    IngestView,
    MethodsView,
    Params,
    Settings,
    WindowView,
    flatten,
    load,
    load_settings,
)
from isotrain.config.sections import Compare, Window

__all__ = [
    "VIEWS",
    "Compare",
    "CompareView",
    "Ingest",
    "IngestView",
    "MethodsView",
    "Params",
    "Settings",
    "Window",
    "WindowView",
    "flatten",
    "load",
    "load_settings",
]
