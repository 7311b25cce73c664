"""The second half of the road to MLflow: :func:`send` sends all pending runs of a project, each exactly once.

A server that is down, a store that is full or damaged, a file that is refused: each is said in one line, the pending
run stays on disk, and the next call sends it. Importing this module imports MLflow, which takes a second.

What a reader sees first is kept as tags of the experiment: its note, and two views of the table of runs, columns, order
and filter included. ``python -m isotrain.training.outbox`` sends what waits and prints the address of such a view.
"""

import fcntl
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read by mlflow at import
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # by default a dead server is asked for minutes
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

from alembic.util import CommandError
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from isotrain.errors import InputError, masked, run_as_command
from isotrain.files import machine_lock, wait_for_lock
from isotrain.training.tracking import (
    ABOUT,
    ARTIFACTS,
    FIT,
    PICTURE,
    RUN,
    PendingRun,
    now_ms,
    outbox_folder,
    project_root,
    tracking_uri,
    with_password,
)

log = logging.getLogger(__name__)
LOOPBACK = "http://127.0.0.1:5000"  # where `mlflow ui` answers
VIEW = "mlflow.sharedViewState."  # and a name: tag of an experiment, the state of its page behind ?viewStateShareKey=
COLUMNS = {  # column of the table of runs -> width, all of them on a screen of 1440 pixels
    "tags.`method`": 120,
    "tags.`seed`": 50,
    "metrics.`final/isolated_fraction`": 110,
    "metrics.`final/seconds_to_target`": 150,
    "metrics.`final/train_seconds`": 125,
    "metrics.`final/val_mae`": 105,
    "metrics.`final/test_mae`": 110,
}
KIND = "workflowType=machine_learning"  # without it MLflow shows pages for chats
RUNS = f"runs?{KIND}&viewStateShareKey="  # and a name


def view(order: str, search: str = "") -> str:
    """The state of an experiment's page: the table with :data:`COLUMNS`, sorted by ``order`` from the highest down."""
    found = {"searchFilter": search, "orderByKey": order, "orderByAsc": False, "runsHiddenMode": "FIRST_20_RUNS"}
    shown = {"selectedColumns": [*COLUMNS], "columnOrder": [*COLUMNS], "columnWidths": COLUMNS}
    return json.dumps(found | shown)


EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # the UI opens on the runs, not on traces
    f"{VIEW}runs": view("attributes.start_time"),
}
REFUSED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST")  # of this run, by a store that answers
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # its tracebacks: send says what failed
STORE_ERRORS = (MlflowException, SQLAlchemyError, CommandError, OSError, InputError)
STORE_SECONDS = 300.0  # to make a new store takes ten
_said: set[str] = set()  # stores that failed in the last call: each is complained of once
_shown: dict[tuple[str, str], str] = {}  # views whose address was said


def send(folder: Path | None = None) -> list[str]:
    """Send every pending run of ``folder``, by default :func:`~isotrain.training.tracking.outbox_folder`.

    Returns the ids of the runs that are now in MLflow and no longer pending. Runs whose process was killed are sent as
    KILLED. A run that still goes on is sent as far as it is written, and stays. One process sends at a time: if
    another is at it, that one sends these runs too and nothing is returned. It never raises for what a store does.
    """
    folder = folder or outbox_folder()
    done: list[str] = []
    views: dict[tuple[str, str], str] = {}  # store, experiment -> its view
    passed: dict[Path, int] = {}  # refused or still running: not tried again in this call until they are written anew
    unreachable: dict[str, str] = {}  # store -> why
    while todo := [path for path in pending(folder) if passed.get(path) != _written(path)]:
        with _turn(folder) as mine:
            if not mine:
                return done
            for path in todo:
                passed[path] = _written(path)  # before it is read: what is written meanwhile is read in the next round
                if (run_id := _send(path, unreachable, views)) is not None:
                    done.append(run_id)
    for uri, reason in unreachable.items():
        if uri not in _said:
            log.warning(
                "MLflow at %s takes no runs (%s): they wait in %s; the next fit or `isotrain search sync` sends them",
                uri,
                reason,
                folder,
            )
    _said.clear()
    _said.update(unreachable)
    for (uri, experiment_id), name in views.items():
        if _shown.get((uri, experiment_id)) != name:
            log.info("runs: %s", where(uri, experiment_id, name))
    _shown.update(views)
    return done  # asked once more after the turn: what came meanwhile was left to this process


def pending(folder: Path | None = None) -> list[Path]:
    """The folders of the pending runs in ``folder``, by default the project's: a report after what it reports on."""
    return sorted((path.parent for path in (folder or outbox_folder()).glob(f"*/{RUN}")), key=_written)


def _written(path: Path) -> int:
    """When the pending run in the folder ``path`` was last written, in nanoseconds; 0 if it was sent meanwhile."""
    try:
        return (path / RUN).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def reason_of(problem: Exception) -> str:
    """The first line of what a store complains of."""
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]


def where(uri: str, experiment_id: str, name: str) -> str:
    """The address of the view ``name`` of an experiment, and what has to run before it can be opened."""
    address = urlsplit(uri)
    page = f"#/experiments/{experiment_id}/{RUNS}{name}"
    if address.scheme in ("http", "https"):
        server = urlunsplit((address.scheme, address.netloc.rpartition("@")[2], address.path.rstrip("/"), "", ""))
        return f"{server}/{page}"
    store = "" if uri == f"sqlite:///{Path.cwd() / 'mlflow.db'}" else f" --backend-store-uri '{uri}'"
    return f"{LOOPBACK}/{page} (while `mlflow ui{store}` runs)"


def open_store(uri: str, experiment: str) -> tuple[MlflowClient, str]:
    """The store at ``uri``, made if it is a new file, and the id of ``experiment`` in it, made too if it is new."""
    with _one_at_a_time(uri):
        client = MlflowClient(uri)
        known = client.get_experiment_by_name(experiment)
        if known is not None:
            for tag, value in EXPERIMENT_TAGS.items():
                if known.tags.get(tag) != value:
                    client.set_experiment_tag(known.experiment_id, tag, value)
            return client, str(known.experiment_id)
        location = (project_root() / "mlruns").as_uri() if uri.startswith("sqlite:") else None
        return client, str(client.create_experiment(experiment, artifact_location=location, tags=EXPERIMENT_TAGS))


def _send(path: Path, unreachable: dict[str, str], views: dict[tuple[str, str], str]) -> str | None:
    """Send the run in the folder ``path`` and remove it; None if it stays, which is said, or was sent meanwhile.

    ``unreachable`` and ``views`` learn of the store that failed, and of the view that shows the run.
    """
    try:
        run = PendingRun.read(path)
        if run.is_abandoned:
            run = PendingRun.read(path)  # its process wrote its last word before it went
    except FileNotFoundError:
        return None
    except ValueError as problem:
        log.error("%s is damaged and stays there, remove it when it is of no use: %s", path / RUN, problem)
        return None
    if run.is_abandoned:
        log.warning("run %s: its process is gone, so it is marked KILLED", run.name)
        run.status, run.ended = "KILLED", _last_sign(run)
    if run.uri in unreachable or (run.ended is None and not run.metrics):  # it has just begun
        return None
    try:
        run_id, experiment_id = _deliver(run, path / ARTIFACTS)
    except STORE_ERRORS as problem:
        reason = reason_of(problem)
        if getattr(problem, "error_code", "") in REFUSED and not isinstance(problem.__cause__, SQLAlchemyError):
            log.error("MLflow refuses the run in %s, which stays there: %s", path, reason)
        else:
            unreachable[run.uri] = reason
        return None
    if run.ended is None:
        return None
    log.debug("MLflow run %s: %s in %s", run.name, run_id, run.uri)
    if run.note is not None or (run.uri, experiment_id) not in views:
        views[run.uri, experiment_id] = "runs" if run.note is None else "report"
    (path / RUN).unlink()  # first: a folder without it is no pending run
    shutil.rmtree(path)
    return run_id


def _deliver(run: PendingRun, artifacts: Path) -> tuple[str, str]:
    """Put ``run`` into its store; its id and its experiment's. Done twice, or half and then again, it is there once."""
    client, experiment_id = open_store(with_password(run.uri), run.experiment)
    run_id = _taken_up(client, experiment_id, run) or _found(client, experiment_id, run)
    run_id = run_id or _created(client, experiment_id, run)
    tags = {**run.tags, **run.key, "mlflow.runName": run.name, "mlflow.source.name": "isotrain"}
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    params = [Param(key, value) for key, value in run.params.items()]
    for start in range(0, len(params), 100):  # MLflow's limit a batch
        client.log_batch(run_id, params=params[start : start + 100])
    metrics = [Metric(name, float(value), moment, step) for name, value, step, moment in run.metrics]
    for start in range(0, len(metrics), 1000):  # MLflow's limit a batch
        client.log_batch(run_id, metrics=metrics[start : start + 1000])
    if run.series is not None:
        client.log_inputs(run_id, [DatasetInput(_dataset(run.series), [InputTag("mlflow.data.context", "training")])])
    if run.ended is not None:
        if artifacts.exists():
            client.log_artifacts(run_id, str(artifacts))
        if run.note is not None:
            _publish(client, experiment_id, run_id, run)
        client.set_terminated(run_id, run.status, run.ended)
    return run_id, experiment_id


def _publish(client: MlflowClient, experiment_id: str, run_id: str, run: PendingRun) -> None:
    """Give every run that ``run`` reports on its metrics, and the experiment its note and the view of these runs."""
    absent = 0
    for fit, metrics in run.reported:
        of = _first(client, experiment_id, f"tags.`{FIT}` = '{fit}' and attributes.status = 'FINISHED'")
        if of is None:
            absent += 1
            continue
        logged = [Metric(name, float(value), run.ended or run.began, 0) for name, value in metrics.items()]
        client.log_batch(of.info.run_id, metrics=logged, tags=[RunTag("report", run_id)])
    if absent:
        log.warning("%d of the %d fits of the report are not in MLflow at %s", absent, len(run.reported), run.uri)
    client.set_tag(run_id, "report", run_id)
    client.set_experiment_tag(experiment_id, f"{VIEW}report", view("tags.`kind`", f"tags.report = '{run_id}'"))
    client.set_experiment_tag(experiment_id, ABOUT, _linked(run.note or "", experiment_id, run_id))


def _linked(note: str, experiment_id: str, run_id: str) -> str:
    """``note`` with its pictures and its pages fetched from the artifacts of the run, wherever the server is."""
    pages = f"#/experiments/{experiment_id}"
    note = re.sub(PICTURE, rf"\1(get-artifact?run_uuid={run_id}&path=\2)", note)
    note = re.sub(r"(?<!\])\[([^]]*)\]\(([^):?]+)\)", rf"[\1]({pages}/runs/{run_id}/artifacts/\2?{KIND})", note)
    return f"{note}\n\n[The runs of this report, as a table]({pages}/{RUNS}report)\n"


def _taken_up(client: MlflowClient, experiment_id: str, run: PendingRun) -> str | None:
    """The run that ``mlflow run`` opened, if it lies in our experiment; if not, it gets a link to them."""
    if run.taken_up is None:
        return None
    if client.get_run(run.taken_up).info.experiment_id == experiment_id:
        return run.taken_up
    there = f"[{run.experiment}](#/experiments/{experiment_id}/{RUNS}runs)"
    client.set_tag(run.taken_up, ABOUT, f"What this call of `mlflow run` trained is in the experiment {there}.")
    return None


def _first(client: MlflowClient, experiment_id: str, query: str) -> StoredRun | None:
    """The newest run that ``query`` finds."""
    found = client.search_runs([experiment_id], query, max_results=1)
    return found[0] if found else None


def _found(client: MlflowClient, experiment_id: str, run: PendingRun) -> str | None:
    known = _first(client, experiment_id, " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in run.key.items()))
    return str(known.info.run_id) if known else None


def _created(client: MlflowClient, experiment_id: str, run: PendingRun) -> str:
    created = client.create_run(experiment_id, start_time=run.began, run_name=run.name, tags=run.key)
    return str(created.info.run_id)


def _dataset(series: dict[str, object]) -> Dataset:
    return Dataset(
        name="simulated" if series["simulated"] else Path(str(series["source"])).name,
        digest=str(series["sha256"])[:32],
        source_type="simulated" if series["simulated"] else "file",
        source=str(series["source"]),
        profile=json.dumps({key: series[key] for key in ("rows", "target", "unit")}),
    )


def _last_sign(run: PendingRun) -> int:
    return max([run.began, *(moment for *_, moment in run.metrics)]) if run.metrics else now_ms()


@contextmanager
def _turn(folder: Path) -> Iterator[bool]:
    """Whether it is this process's turn to send; the kernel drops the lock of a process that dies."""
    with (folder / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextmanager
def _one_at_a_time(uri: str) -> Iterator[None]:
    """One process of this machine at a time makes a new sqlite store: several at once crash in its migrations."""
    if not uri.startswith("sqlite:"):
        yield
        return
    lock = machine_lock("isotrain-mlflow.lock")
    try:
        wait_for_lock(lock, fcntl.LOCK_EX, STORE_SECONDS)
        yield
    finally:
        os.close(lock)


def main(params: str) -> None:
    """Send what waits, and print where the runs of the project are."""
    from isotrain.config import load

    tracking = load(params).tracking
    uri = tracking_uri(tracking.uri)
    send()
    try:
        client, experiment_id = open_store(uri, tracking.experiment)
        known = client.get_experiment(experiment_id).tags
    except STORE_ERRORS as problem:
        waiting = f"{len(pending())} runs wait in {outbox_folder()}"
        print(masked(f"MLflow at {uri} does not answer ({reason_of(problem)}); {waiting}"))
        return
    print(masked(where(uri, experiment_id, "report" if f"{VIEW}report" in known else "runs")))


if __name__ == "__main__":
    run_as_command(main)
