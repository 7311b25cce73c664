"""The study's storage: opened by any number of processes at once, created once, refused if it is another study."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna

from isotrain.config import Search, flatten, load
from isotrain.config.params import MethodsView
from isotrain.config.sections import Tracking
from isotrain.errors import InputError
from isotrain.files import read_json
from isotrain.search.journal import WholeLinesBackend, file_lock
from isotrain.search.space import Space

log = logging.getLogger(__name__)
URL = "ISOTRAIN_STUDY_URL"
LOCK_KEY = 0x15071A1  # of PostgreSQL's advisory lock
MODELLED = {"trade-off": ["val_mae", "seconds"], "time-to-target": ["seconds"]}


@dataclass(frozen=True)
class Place:
    """What a worker needs to know.

    Attributes:
        search: the section of params.yaml.
        space: what is varied.
        folder: the study's own; of the journal, leases, results and logs.
        windows: folder of the stage ``window``.
        tracking: where MLflow keeps the runs.
    """

    search: Search
    space: Space
    folder: Path
    windows: Path
    tracking: Tracking

    @property
    def url(self) -> str | None:
        """Of PostgreSQL: ``ISOTRAIN_STUDY_URL``, else ``search.url``; None: the journal in the folder."""
        url = os.environ.get(URL) or self.search.url
        if url is None:
            return None
        if not url.startswith(("postgresql://", "postgresql+psycopg://")):
            raise InputError(f"{URL}={url}: write postgresql://user@host/database")
        return "postgresql+psycopg://" + url.partition("://")[2]

    @property
    def objectives(self) -> list[str]:
        """Names of the values of a trial, in their order."""
        return MODELLED[self.search.objectives]


def place(params: str | Path = "params.yaml") -> Place:
    """The study that ``params`` describes; raises :class:`InputError` as :func:`isotrain.config.load` does."""
    p = load(params)
    methods = MethodsView.model_construct(**{field: getattr(p, field) for field in MethodsView.model_fields})
    root = Path(params).parent
    space = Space(methods, p.search.base, p.search.space)
    return Place(p.search, space, root / p.paths.search / p.search.study, root / p.paths.windows, p.tracking)


def open_study(place: Place, *, create: bool = True) -> optuna.Study:
    """The study, with its known methods enqueued; safe from many processes at once.

    Raises :class:`InputError` if it does not exist and ``create`` is False, or if what is stored under its name is
    another study: another space, base, objective or series, each difference named.
    """
    raise NotImplementedError
