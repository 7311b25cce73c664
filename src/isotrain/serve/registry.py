"""Forecasters in MLflow: a bundle logged as a model, and fetched back."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import infer_signature

from isotrain.config.sections import Tracking
from isotrain.errors import InputError
from isotrain.forecast.bundle import ABOUT, RESIDUALS, WEIGHTS, Bundle, read_about, save_state, write_about
from isotrain.serve.predict import COVERAGE, in_one, predict, read_series
from isotrain.training.outbox import STORE_ERRORS, open_store, reason_of
from isotrain.training.tracking import ABOUT as DESCRIPTION
from isotrain.training.tracking import series_tags, tracking_uri

SCRIPT = Path(__file__).with_name("pyfunc_model.py")
NEEDS = ["isotrain[study]", "mlflow", "numpy", "pandas", "torch"]  # what serves it must have installed


def fetch(model: str, uri: str | None = None) -> Path:
    """The folder of the bundle in ``model``, an MLflow URI ``runs:/...`` or ``models:/...`` of the store ``uri``.

    Raises :class:`InputError` if it is not there, or holds no forecaster or several.
    """
    store = tracking_uri(uri)
    mlflow.set_tracking_uri(store)
    with _answering(f"{model} cannot be had from {store}"):
        folder = Path(_download(model))
    found = sorted(folder.rglob(ABOUT))
    if len(found) != 1:
        raise InputError(f"{model} holds {len(found)} forecasters ({ABOUT}): name the run or the model of one")
    return found[0].parent


def log_model(bundle: Bundle, csv: Path, tracking: Tracking, name: str | None = None, series: str = "") -> str:
    """Log ``bundle`` as an MLflow model in a run of its own, and register it as ``name`` if one is given.

    ``csv``: a file of one series; its last hours become the input example, and its forecast the signature. A bundle of
    many series becomes one model for all of them: its input has the column ``series``, and so has its answer. In the
    example that is ``series``, or what the file is called after. The run and the registered version are described by
    what the bundle is and what it was chosen from. Returns the model's URI. Raises :class:`InputError` as
    :func:`isotrain.serve.predict.read_series` does, and for a series that the bundle does not know.
    """
    one = bundle.only(series) if series else bundle.of_file(csv)
    example, answer = input_example(one, csv), predict(one, read_series(one, csv))
    if len(bundle.names) > 1:
        example, answer = (in_one({one.names[0]: table}) for table in (example, answer))
    tags = {"kind": "model", "method": bundle.name, DESCRIPTION: bundle.description, **series_tags(bundle.meta)}
    store = tracking_uri(tracking.uri)
    with _answering(f"MLflow at {store} takes no model"):
        _, experiment = open_store(store, tracking.experiment)
    mlflow.set_tracking_uri(store)
    with (
        _answering(f"MLflow at {store} takes no model"),
        tempfile.TemporaryDirectory() as scratch,
        mlflow.start_run(experiment_id=experiment, run_name=f"model-{bundle.folder.name}", tags=tags),
    ):
        logged = mlflow.pyfunc.log_model(
            name="forecaster",
            python_model=str(SCRIPT),
            artifacts={"bundle": str(_lean_copy(bundle, Path(scratch) / "bundle"))},
            signature=infer_signature(example, answer, params={"coverage": COVERAGE}),
            input_example=example,
            pip_requirements=NEEDS,
            registered_model_name=name,
        )
        if name:
            version = str(logged.registered_model_version)
            mlflow.MlflowClient().update_model_version(name, version, description=bundle.description)
    return str(logged.model_uri)


@contextmanager
def _answering(what: str) -> Iterator[None]:
    """A store that is down, full or damaged is an :class:`InputError` that says ``what``, with the store's own word."""
    try:
        yield
    except InputError:
        raise
    except STORE_ERRORS as problem:
        raise InputError(f"{what}: {reason_of(problem)}; check MLFLOW_TRACKING_URI or tracking.uri") from problem


def input_example(bundle: Bundle, csv: Path) -> pd.DataFrame:
    """As many of the last rows of ``csv`` as a forecast takes, what is known ahead included, in its own form."""
    ingest, file = bundle.ingest, bundle.ingest.file
    table = pd.read_csv(
        csv,
        sep=file.separator,
        decimal=file.decimal,
        encoding=file.encoding,
        dtype={file.time_column: str},
        skipinitialspace=True,
    ).rename(columns=str.strip)
    headings = [ingest.heading(key) for key in ingest.columns]
    an_hour = 60 // file.step_minutes
    rows = (bundle.needed_hours + 1) * an_hour  # one hour more: the first may be cut in two
    if bundle.ahead:
        ahead = bundle.meta["horizon"] * an_hour
        measured = np.flatnonzero(table[ingest.heading(ingest.target)].notna())
        table, rows = table.iloc[: measured[-1] + 1 + ahead], rows + ahead
    example = table[[file.time_column.strip(), *headings]].tail(rows).reset_index(drop=True)
    return example.astype(dict.fromkeys(headings, np.float64))


def _lean_copy(bundle: Bundle, folder: Path) -> Path:
    """The bundle without what only resuming a fit takes: the optimiser's state."""
    folder.mkdir()
    if bundle.residuals is not None and bundle.working is not None and bundle.of is not None:
        np.savez(folder / RESIDUALS, residuals=bundle.residuals, working=bundle.working, of=bundle.of)
    if bundle.settings is not None:
        save_state(folder / WEIGHTS, {"state_dict": bundle.weights})
    for file, content in bundle.baselines.items():
        (folder / file).write_bytes(content)
    write_about(folder, read_about(bundle.folder))
    return folder


def _download(model: str) -> str:
    kind, _, name = model.partition(":/")
    if kind == "runs" and "/" not in name.strip("/"):  # MLflow takes no bare run for an address
        return str(mlflow.artifacts.download_artifacts(run_id=name.strip("/")))
    return str(mlflow.artifacts.download_artifacts(model))
