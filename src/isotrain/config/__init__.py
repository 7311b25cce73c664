"""params.yaml, typed. ``load`` is the only way in."""

from isotrain.config.ingest import Ingest
from isotrain.config.params import (
    VIEWS,
    CompareView,
    IngestView,
    MethodsView,
    Params,
    SearchReportView,
    SearchView,
    Settings,
    WindowView,
    decisive,
    flatten,
    load,
    load_settings,
)
from isotrain.config.search import Search
from isotrain.config.sections import Compare, Window

__all__ = [
    "VIEWS",
    "Compare",
    "CompareView",
    "Ingest",
    "IngestView",
    "MethodsView",
    "Params",
    "Search",
    "SearchReportView",
    "SearchView",
    "Settings",
    "Window",
    "WindowView",
    "decisive",
    "flatten",
    "load",
    "load_settings",
]
