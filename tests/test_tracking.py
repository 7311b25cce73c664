"""MLflow runs end as what happened to them, whoever is killed; against real sqlite stores."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from isotrain.training.tracking import project_root, tracked

OPEN_AND_WAIT = """
import sys, time
from isotrain.training.tracking import tracked
with tracked("study", sys.argv[1], "waiting", {}):
    print("open", flush=True)
    time.sleep(60)
"""
OPEN_AND_CLOSE = """
import sys
from isotrain.training.tracking import tracked
with tracked("study", sys.argv[1], "short", {"seed": "1"}) as run:
    run.metrics({"val_mae": 1.0}, 3)
"""


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path}/mlflow.db"


def statuses(uri: str) -> dict[str, str]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("study")
    return {run.info.run_name: run.info.status for run in client.search_runs([experiment.experiment_id])}


def start(code: str, uri: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, uri], stdout=subprocess.PIPE, text=True)


def waiting(uri: str) -> subprocess.Popen[str]:
    process = start(OPEN_AND_WAIT, uri)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


def test_a_run_ends_as_its_block_does(uri: str) -> None:
    with tracked("study", uri, "good", {}):
        pass
    with pytest.raises(ZeroDivisionError), tracked("study", uri, "bad", {}):
        1 / 0  # noqa: B018
    with pytest.raises(KeyboardInterrupt), tracked("study", uri, "stopped", {}):
        raise KeyboardInterrupt
    assert statuses(uri) == {"good": "FINISHED", "bad": "FAILED", "stopped": "KILLED"}


def test_a_terminated_process_closes_its_run(uri: str) -> None:
    process = waiting(uri)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM
    assert statuses(uri) == {"waiting": "KILLED"}


def test_the_run_of_a_process_killed_outright_is_closed_by_the_next(uri: str) -> None:
    dead, alive = waiting(uri), waiting(uri)
    dead.kill()
    dead.wait(20)
    with tracked("study", uri, "next", {}):
        client = MlflowClient(uri)
        runs = client.search_runs([client.get_experiment_by_name("study").experiment_id])
        by_pid = {run.data.tags["isotrain.pid"]: run.info.status for run in runs}
        assert by_pid[str(dead.pid)] == "KILLED"
        assert by_pid[str(alive.pid)] == "RUNNING"
        assert by_pid[str(os.getpid())] == "RUNNING"
    alive.terminate()
    alive.wait(20)


def test_several_processes_may_make_the_store_at_once(uri: str) -> None:
    processes = [start(OPEN_AND_CLOSE, uri) for _ in range(3)]
    assert [process.wait(120) for process in processes] == [0] * 3
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("study").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 3
    assert all(run.data.metrics["val_mae"] == 1.0 for run in runs)


def test_what_is_logged_can_be_read_back(uri: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "result.json").write_text("{}")
    facts = {"source": "simulated", "simulated": True, "rows": 9, "sha256": "ab" * 32, "target": "TGBT", "unit": "kW"}
    with tracked("study", uri, "run", {"method": "tuned"}) as run:
        run.params({f"training.p{n}": n for n in range(150)})
        run.metrics({"val_mae": 5.0}, 20)
        run.metrics({"val_mae": 4.0}, 40)
        run.dataset(facts)
        run.artifacts(tmp_path / "out")
    client = MlflowClient(uri)
    stored = client.get_run(run.id)
    assert stored.data.params["training.p149"] == "149" and len(stored.data.params) == 150
    assert [(m.step, m.value) for m in client.get_metric_history(run.id, "val_mae")] == [(20, 5.0), (40, 4.0)]
    assert stored.data.tags["method"] == "tuned"
    assert stored.inputs.dataset_inputs[0].dataset.name == "simulated"
    assert [file.path for file in client.list_artifacts(run.id)] == ["result.json"]
    assert stored.data.metrics["system/process_rss_mb"] > 1


def test_the_environment_names_the_store_and_mlflow_run_its_run(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = f"sqlite:///{tmp_path}/other.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", other)
    with tracked("study", None, "first", {}) as run:
        pass
    assert statuses(other) == {"first": "FINISHED"}
    monkeypatch.setenv("MLFLOW_RUN_ID", run.id)
    with tracked("study", None, "second", {}) as taken:
        assert taken.id == run.id
    assert statuses(other) == {"second": "FINISHED"}
    monkeypatch.setenv("DVC_STAGE", "train@0-tuned")  # a pipeline inside `mlflow run`: every fit has its own
    with tracked("study", None, "third", {}) as own:
        assert own.id != run.id


def test_by_default_the_store_lies_beside_params_yaml(uri: str, tmp_path: Path) -> None:
    with tracked("study", None, "run", {}):
        pass
    assert (tmp_path / "mlflow.db").exists()
    assert statuses(uri) == {"run": "FINISHED"}


def test_a_queued_experiment_logs_into_the_project_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "project" / ".dvc" / "tmp" / "exps" / "standalone" / "tmp123"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert project_root() == (tmp_path / "project").resolve()
    monkeypatch.chdir(tmp_path)
    assert project_root() == tmp_path.resolve()
