"""All that a fit knows of MLflow: one flat run a fit, sent in batches while the training clock stands still."""

import contextlib
import fcntl
import logging
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read by mlflow at import


log = logging.getLogger(__name__)
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # the UI opens on the runs, not on traces
SERIES = ("source", "simulated", "rows", "sha256", "target", "unit")  # what :meth:`Run.dataset` reads of a series
EXPERIMENTS = (".dvc", "tmp", "exps")  # where DVC runs queued experiments


class Run:
    """An open MLflow run."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client, self.id = client, run_id

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters under their dotted paths."""
        items = [Param(key, str(value)) for key, value in values.items()]
        for start in range(0, len(items), 100):  # MLflow's limit a batch
            self._client.log_batch(self.id, params=items[start : start + 100])

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log metrics at ``step``, with the machine's and the process's load beside them."""
        now = int(time.time() * 1000)
        items = [Metric(key, float(value), now, step) for key, value in {**values, **_system()}.items()]
        self._client.log_batch(self.id, metrics=items)

    def history(self, rows: Iterable[Mapping[str, Any]], prefix: str) -> None:
        """Log the numbers of rows that each have a ``step``, as metrics ``prefix/name``."""
        now = int(time.time() * 1000)
        items = [
            Metric(f"{prefix}/{key}", float(value), now, row["step"])
            for row in rows
            for key, value in row.items()
            if key != "step" and isinstance(value, int | float)
        ]
        for start in range(0, len(items), 1000):  # MLflow's limit a batch
            self._client.log_batch(self.id, metrics=items[start : start + 1000])

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""
        self._client.log_batch(self.id, tags=[RunTag(key, str(value)) for key, value in values.items()])

    def dataset(self, meta: Mapping[str, Any]) -> None:
        """Name the series behind the run: source, digest (sha256), rows."""
        name = "simulated" if meta["simulated"] else Path(meta["source"]).name
        data = Dataset(
            name=name,
            digest=meta["sha256"][:32],
            source_type="simulated" if meta["simulated"] else "file",
            source=str(meta["source"]),
            profile=f'{{"rows": {meta["rows"]}, "target": "{meta["target"]}", "unit": "{meta["unit"]}"}}',
        )
        self._client.log_inputs(self.id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])

    def artifacts(self, path: Path, folder: str | None = None) -> None:
        """Store a file, or every file of a folder."""
        send = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        send(self.id, str(path), folder)


@contextmanager
def tracked(
    experiment: str, uri: str | None, name: str, tags: Mapping[str, str], *, whole_pipeline: bool = False
) -> Iterator[Run]:
    """Open a run called ``name``; it ends FINISHED, FAILED (an exception) or KILLED (a signal), never RUNNING.

    ``uri = None`` takes ``MLFLOW_TRACKING_URI``, else ``mlflow.db`` in the project's root. Runs that a killed
    process of this machine left RUNNING are marked KILLED first: nobody else can. The run that ``mlflow run`` opened
    is taken up by the fit that it was asked for, or, ``whole_pipeline``, by the report of the pipeline.
    """
    uri = tracking_uri(uri)
    with _first_come(uri):
        client = MlflowClient(uri)
        experiment_id = _experiment(client, experiment, uri)
        _bury_the_dead(client, experiment_id)
    run_id = _open_run(client, experiment_id, name, {**tags, **_process_tags()}, whole_pipeline)
    log.info("MLflow run %s in %s", run_id, uri)
    status = "FAILED"
    try:
        with _terminable():
            yield Run(client, run_id)
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        client.set_terminated(run_id, status)


@dataclass(frozen=True)
class Parcel:
    """A run as a whole, to be logged when it is over. ``metrics``: (name, value, step); times in ms since 1970."""

    name: str
    key: Mapping[str, str]  # the tags that no other run has
    tags: Mapping[str, str]
    series: Mapping[str, Any]  # as :meth:`Run.dataset` takes it
    params: Mapping[str, Any]
    metrics: Sequence[tuple[str, float, int]]
    status: str  # FINISHED | FAILED
    began: int
    ended: int


class TrackingError(OSError):
    """The store of runs does not answer; or, ``refused``, answers that it does not want what it was given."""

    def __init__(self, message: str, refused: bool) -> None:
        super().__init__(message)
        self.refused = refused


def log_parcel(experiment: str, uri: str | None, parcel: Parcel) -> str:
    """Log ``parcel`` as one flat run and return its id; done twice, or half and then again, it is there once.

    One caller at a time: two could both find that it is not there. Raises :class:`TrackingError`, within seconds.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # by default a dead server is asked for minutes
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    uri = tracking_uri(uri)
    try:
        with _first_come(uri):
            client = MlflowClient(uri)
            experiment_id = _experiment(client, experiment, uri)
        query = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in parcel.key.items())
        known = client.search_runs([experiment_id], query, max_results=1)
        run_id = known[0].info.run_id if known else _new_run(client, experiment_id, parcel)
        run = Run(client, run_id)
        run.dataset(parcel.series)
        run.params(parcel.params)
        items = [Metric(name, value, parcel.ended, step) for name, value, step in parcel.metrics]
        for start in range(0, len(items), 1000):  # MLflow's limit a batch
            client.log_batch(run_id, metrics=items[start : start + 1000])
        client.set_terminated(run_id, parcel.status, parcel.ended)
    except MlflowException as problem:
        refused = problem.error_code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
        raise TrackingError(str(problem).splitlines()[0], refused) from problem
    return str(run_id)


def _new_run(client: MlflowClient, experiment_id: str, parcel: Parcel) -> str:
    tags = {**parcel.tags, **parcel.key, "mlflow.source.name": "isotrain"}
    run = client.create_run(experiment_id, start_time=parcel.began, run_name=parcel.name, tags=tags)
    return str(run.info.run_id)


def tracking_uri(uri: str | None = None) -> str:
    """Where runs are kept: ``MLFLOW_TRACKING_URI``, else ``uri``, else ``mlflow.db`` in the project's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or uri or f"sqlite:///{project_root() / 'mlflow.db'}"


def project_root() -> Path:
    """The project's folder, also from inside a temporary copy in which DVC runs a queued experiment."""
    here = Path.cwd().resolve()
    inside = [n for n in range(len(here.parts)) if here.parts[n : n + 3] == EXPERIMENTS]
    return Path(*here.parts[: inside[0]]) if inside else here


def _experiment(client: MlflowClient, name: str, uri: str) -> str:
    known = client.get_experiment_by_name(name)
    if known is not None:
        return str(known.experiment_id)
    local = uri.startswith("sqlite:")
    location = (project_root() / "mlruns").as_uri() if local else None
    return str(client.create_experiment(name, artifact_location=location, tags=EXPERIMENT_TAGS))


def _open_run(
    client: MlflowClient, experiment_id: str, name: str, tags: Mapping[str, str], whole_pipeline: bool
) -> str:
    """A new run, or the one that ``mlflow run`` opened for this very work."""
    given = os.environ.get("MLFLOW_RUN_ID")
    if given and (whole_pipeline or "DVC_STAGE" not in os.environ):
        for key, value in {**tags, "mlflow.runName": name}.items():
            client.set_tag(given, key, value)
        return given
    run = client.create_run(experiment_id, run_name=name, tags={**tags, "mlflow.source.name": "isotrain"})
    return str(run.info.run_id)


def _bury_the_dead(client: MlflowClient, experiment_id: str) -> None:
    query = f"attributes.status = 'RUNNING' and tags.`isotrain.host` = '{socket.gethostname()}'"
    for run in client.search_runs([experiment_id], query):
        pid, born = run.data.tags.get("isotrain.pid", "0"), run.data.tags.get("isotrain.pid_born", "")
        if _born(int(pid)) != born:
            log.warning("MLflow run %s: its process %s is gone, marked KILLED", run.info.run_id, pid)
            client.set_terminated(run.info.run_id, "KILLED")


def _process_tags() -> dict[str, str]:
    pid = os.getpid()
    return {"isotrain.host": socket.gethostname(), "isotrain.pid": str(pid), "isotrain.pid_born": _born(pid)}


def _born(pid: int) -> str:
    """When the process started: a reused pid is another process."""
    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.NoSuchProcess:
        return "never"


def _system() -> dict[str, float]:
    memory = psutil.virtual_memory()
    return {
        "system/cpu_percent": psutil.cpu_percent(),
        "system/memory_used_percent": memory.percent,
        "system/process_rss_mb": psutil.Process().memory_info().rss / 2**20,
    }


@contextmanager
def _first_come(uri: str) -> Iterator[None]:
    """One process at a time makes a new sqlite store: several at once crash in its migrations."""
    if not uri.startswith("sqlite:"):
        yield
        return
    with (Path(tempfile.gettempdir()) / "isotrain-mlflow.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM unwinds the stack like an exit, so that the run is closed on the way out."""

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.getsignal(signal.SIGTERM)
    with contextlib.suppress(ValueError):  # not the main thread: signals are not ours
        signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGTERM, before)
