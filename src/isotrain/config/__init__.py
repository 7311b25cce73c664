"""params.yaml, typed. In: the file, overrides by dotted path; out: checked, frozen sections. Open params.py."""

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
    check_device,
    check_isolation,
    cuda_is_there,
    decisive,
    extended,
    flatten,
    key_of,
    load,
    plain,
)
from isotrain.config.search import Search
from isotrain.config.sections import Budget, Compare, Window

__all__ = [
    "VIEWS",
    "Budget",
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
    "check_device",
    "check_isolation",
    "cuda_is_there",
    "decisive",
    "extended",
    "flatten",
    "key_of",
    "load",
    "plain",
]
