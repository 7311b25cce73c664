"""The forecaster as an MLflow model: loaded by MLflow, and served for real on the loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.error import URLError

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from tests.serve.small_forecaster import Fitted, numbers

from isotrain.config.sections import Tracking
from isotrain.errors import InputError
from isotrain.forecast.bundle import load_bundle
from isotrain.serve.predict import predict, read_series
from isotrain.serve.registry import fetch, input_example, log_model
from isotrain.training.outbox import send
from isotrain.training.tracking import tracked

TRACKING = Tracking(experiment="study", uri=None)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.chdir(tmp_path)
    return uri


@pytest.mark.slow
def test_mlflow_loads_and_serves_it(plain: Fitted, tmp_path: Path, store: str) -> None:
    csv = plain.csv(tmp_path / "latest.csv")
    bundle = load_bundle(plain.folder)
    direct = predict(bundle, read_series(bundle, csv))
    uri = log_model(bundle, csv, TRACKING, "drahix")

    example = input_example(bundle, csv)
    loaded = mlflow.pyfunc.load_model(uri)
    np.testing.assert_allclose(numbers(loaded.predict(example)), numbers(direct), rtol=1e-4)
    narrow = loaded.predict(example, params={"coverage": 0.5})
    assert (narrow["high_kw"] < direct["high_kw"]).all()
    assert {column.name for column in loaded.metadata.signature.inputs} == set(example)
    assert mlflow.models.Model.load(uri).saved_input_example_info is not None
    assert mlflow.MlflowClient().get_model_version("drahix", "1").description == bundle.description

    folder = fetch("models:/drahix/1")
    np.testing.assert_array_equal(load_bundle(folder).residuals, bundle.residuals)
    assert not [path for path in folder.parents[1].rglob("*") if path.suffix in (".pkl", ".pickle")]
    torch.load(folder / "model.ckpt", weights_only=True)

    served = pd.DataFrame(answer_of_a_server(uri, example)["predictions"])
    assert list(served["time_local"]) == list(direct["time_local"])
    np.testing.assert_allclose(numbers(served), numbers(direct), rtol=1e-4)


def answer_of_a_server(uri: str, example: pd.DataFrame) -> dict[str, object]:
    """What `mlflow models serve` answers, on a free port of the loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["models", "serve", "-m", uri, "--env-manager", "local", "-h", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *words],
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},  # it calls its own uvicorn
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        _wait_for(f"http://127.0.0.1:{port}/ping", server, seconds=50)
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            data=json.dumps({"dataframe_split": json.loads(example.to_json(orient="split"))}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            answered: dict[str, object] = json.load(answer)
        return answered
    finally:
        os.killpg(server.pid, signal.SIGTERM)  # its own session: the server and its workers
        server.communicate(timeout=20)


def _wait_for(address: str, server: subprocess.Popen[bytes], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=2)
        except (URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"no answer from {address}; the server's status is {server.poll()}")


def test_the_bundle_of_a_fit_is_fetched_from_its_run(plain: Fitted, store: str) -> None:
    with tracked("study", None, "fit", {}) as run:
        run.artifacts(plain.folder)
    [run_id] = send()
    about = load_bundle(fetch(f"runs:/{run_id}"))
    assert about.meta == load_bundle(plain.folder).meta


def test_a_run_without_a_forecaster_is_refused(tmp_path: Path, store: str) -> None:
    (tmp_path / "note.txt").write_text("nothing")
    with tracked("study", None, "fit", {}) as run:
        run.artifacts(tmp_path / "note.txt")
    [run_id] = send()
    with pytest.raises(InputError, match="holds 0 forecasters"):
        fetch(f"runs:/{run_id}")
    with pytest.raises(InputError, match="cannot be had"):
        fetch("models:/nobody/1")
