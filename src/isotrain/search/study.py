"""A study: any number of processes may open it at once, it is created once, and refused if it is another study."""

import json
import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from isotrain.config import Search, load
from isotrain.config.params import MethodsView
from isotrain.config.sections import Tracking
from isotrain.data.windows import data_key, read_meta
from isotrain.errors import InputError, masked
from isotrain.files import sha256_text
from isotrain.search.recovery import Heartbeats, Leases, SignsOfLife, enqueue
from isotrain.search.space import Space
from isotrain.search.storage import DAMAGED, JOURNAL, exclusive, storage_at

URL = "ISOTRAIN_STUDY_URL"
FOLDERS = ("leases", "trials", "workers")
OBJECTIVES = {"trade-off": ["val_mae", "seconds"], "time-to-target": ["seconds"]}

optuna.logging.set_verbosity(optuna.logging.WARNING)  # the worker has a log of its own


@dataclass(frozen=True)
class Place:
    """What a worker needs to know of a study.

    Attributes:
        search: the section ``search`` of params.yaml.
        space: what the trials vary.
        folder: the study's own folder, with journal, leases, results and logs.
        windows: the folder that the stage ``window`` made.
        tracking: where MLflow keeps the runs.

    Example:
        >>> at = place("params.yaml")
        >>> at.objectives
        ['val_mae', 'seconds']
        >>> str(at.folder)
        'results/search/isolation'
    """

    search: Search
    space: Space
    folder: Path
    windows: Path
    tracking: Tracking

    @property
    def url(self) -> str | None:
        """The URL of PostgreSQL, from ``ISOTRAIN_STUDY_URL`` or ``search.url``; None for the journal in the folder."""
        url = os.environ.get(URL) or self.search.url
        if url is None:
            return None
        try:
            known = make_url(url).drivername in ("postgresql", "postgresql+psycopg")
        except (ArgumentError, ValueError):  # the latter of a port that is no number
            known = False
        if not known:
            name = URL if url == os.environ.get(URL) else "params.yaml: search.url"
            raise InputError(f"{name} = {masked(url)}: write postgresql://user@host/database")
        return "postgresql+psycopg://" + url.partition("://")[2]

    @property
    def objectives(self) -> list[str]:
        """The names of the values of a trial, in their order."""
        return OBJECTIVES[self.search.objectives]


def place(params: str | Path = "params.yaml") -> Place:
    """The study that ``params`` describes.

    Raises :class:`InputError` as :func:`isotrain.config.load` does, and for a known method outside the space.
    """
    p = load(params)
    methods = MethodsView.model_construct(**{field: getattr(p, field) for field in MethodsView.model_fields})
    root = Path(params).parent
    space = Space(methods, p.search.base, p.search.space)
    for name in p.search.known:
        space.point(name)
    return Place(p.search, space, root / p.paths.search / p.search.study, root / p.paths.windows, p.tracking)


def open_study(place: Place, *, create: bool = True) -> optuna.Study:
    """Open the study, with its known methods queued; many processes may do so at once.

    Raises :class:`InputError` if the study does not exist and ``create`` is False, or if the stored study of this name
    is another one: another space, base, objective or series; the message names each difference.
    """
    identity = identity_of(place)
    study = _load(place, create)
    if create and not _begun(study, place):
        with exclusive(place.url, place.folder):
            _begin(study, place, identity)
    _refuse_another(study.user_attrs.get("identity", {}), identity, place)
    return study


def identity_of(place: Place) -> dict[str, Any]:
    """All that must be equal for results of two trials to compare; :class:`InputError` if there are no windows yet."""
    try:
        meta = read_meta(place.windows / "windows.json")
    except FileNotFoundError:
        raise InputError(f"{place.windows} holds no windows: run `dvc repro window` first") from None
    search = place.search
    varied = {f"search.space.{path}": what for path, what in place.space.describe().items()}
    asked = {f"search.{key}": getattr(search, key) for key in ("base", "objectives", "target")}
    return {"series": data_key(meta), **asked, **place.space.base_values(), **varied}


def sampler(search: Search) -> optuna.samplers.BaseSampler:
    """The sampler of one worker.

    Its seed comes from ``search.seed``, the machine and the process: workers with one seed would all suggest the same
    points. TPE treats running trials as bad ones (``constant_liar``), so that workers suggest different points.
    """
    seed = int(sha256_text(f"{search.seed} {socket.gethostname()} {os.getpid()}")[:8], 16)
    if search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if search.sampler == "nsga2":
        return optuna.samplers.NSGAIISampler(population_size=max(2, search.startup), seed=seed)
    return optuna.samplers.TPESampler(n_startup_trials=search.startup, constant_liar=True, seed=seed)


def signs_of_life(place: Place, study: optuna.Study) -> SignsOfLife:
    """How the workers of ``study`` show that they live."""
    if isinstance(study._storage, optuna.storages.JournalStorage):
        return Leases(place.folder / "leases", place.search.lease)
    return Heartbeats(_database(study._storage))


def _load(place: Place, create: bool) -> optuna.Study:
    """The stored study; if ``create``, it is created where there is none. One that exists is only read."""
    if create:
        for inner in FOLDERS:
            (place.folder / inner).mkdir(parents=True, exist_ok=True)
    elif place.url is None and not (place.folder / JOURNAL).exists():
        raise _not_there(place)
    try:
        return _stored(place, create)
    except InputError:
        raise
    except (
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        ValueError,
        AssertionError,
    ) as problem:  # Optuna, at an entry that is none
        where = "the database" if place.url else place.folder / JOURNAL
        raise InputError(f"{where} holds a damaged entry ({type(problem).__name__}: {problem}): {DAMAGED}") from problem


def _stored(place: Place, create: bool) -> optuna.Study:
    storage, name = storage_at(place.url, place.folder, place.search.lease), place.search.study
    if name not in optuna.get_all_study_names(storage):
        if not create:
            raise _not_there(place)
        directions = [StudyDirection.MINIMIZE] * len(place.objectives)
        optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=place.search.startup)
    return optuna.load_study(study_name=name, storage=storage, sampler=sampler(place.search), pruner=pruner)


def _database(storage: optuna.storages.BaseStorage) -> optuna.storages.RDBStorage:
    inner = getattr(storage, "_backend", storage)  # Optuna wraps a database in its cache
    assert isinstance(inner, optuna.storages.RDBStorage)
    return inner


def _begun(study: optuna.Study, place: Place) -> bool:
    return "identity" in study.user_attrs and not _unqueued(study, place)


def _unqueued(study: optuna.Study, place: Place) -> list[str]:
    queued = {trial.user_attrs.get("known") for trial in study.get_trials(deepcopy=False)}
    return [name for name in place.search.known if name not in queued]


def _begin(study: optuna.Study, place: Place, identity: dict[str, Any]) -> None:
    """Do what is left of beginning a study: a process that died half-way leaves the rest to the next."""
    if "identity" not in study.user_attrs:
        study.set_user_attr("began", datetime.now(UTC).isoformat(timespec="seconds"))
        study.set_user_attr("params", json.dumps(place.space.describe(), indent=1))
        study.set_user_attr("identity", identity)
    if study.user_attrs["identity"] == identity:
        for name in _unqueued(study, place):
            enqueue(study, place.space.point(name), {"known": name})


def _refuse_another(stored: dict[str, Any], identity: dict[str, Any], place: Place) -> None:
    keys = dict.fromkeys([*stored, *identity])
    apart = [
        f"{key} = {stored.get(key)}, now {identity.get(key)}" for key in keys if stored.get(key) != identity.get(key)
    ]
    if apart:
        raise InputError(
            f"the study {place.search.study} was begun with other settings ({'; '.join(apart)}): its trials would not "
            "compare with new ones; give search.study another name, or restore them"
        )


def _not_there(place: Place) -> InputError:
    where = "the database" if place.url else str(place.folder)
    return InputError(f"the study {place.search.study} is not in {where}: start it with `make search`")
