"""Trials become MLflow runs, each once: against real sqlite stores and a real tracking server that is down, then up."""

import logging
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from optuna.trial import FrozenTrial
from tests.search.real_study import tiny_place

from isotrain.data.windows import Windows
from isotrain.files import write_json
from isotrain.search import outbox as parcels
from isotrain.search.outbox import Outbox, sync
from isotrain.search.study import Place, open_study, place

SENDER = """
import sys
from isotrain.search.outbox import Outbox
from isotrain.search.study import open_study, place
here = place(sys.argv[1])
outbox = Outbox(here)
trials = open_study(here, create=False).get_trials()
print("ready", flush=True)
sys.stdin.readline()
for trial in trials[int(sys.argv[2]) :: int(sys.argv[3])]:
    outbox(trial)
"""


@pytest.fixture
def here(tmp_path: Path, windows: Windows, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tiny_place(tmp_path, windows)


def finished(here: Place, count: int = 3) -> list[FrozenTrial]:
    """Trials of a study: the second failed, the others have results."""
    study = open_study(here)
    for number in range(count):
        trial = study.ask()
        here.space.suggest(trial)
        trial.set_user_attr("seed", number)
        if number == 1:
            trial.set_user_attr("why", "told to fail")
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        for name, value in {"val_mae": 5.0 - number, "seconds": 2.0 + number, "steps": 20}.items():
            trial.set_user_attr(name, value)
        rows = [{"step": 10, "val_mae": 6.0, "train_loss": 0.5, "seconds": 1.0}]
        write_json(
            here.folder / "trials" / str(number) / "result.json", {"params": {"model.hidden": 6}, "history": rows}
        )
        study.tell(trial, [5.0 - number, 2.0 + number])
    return study.get_trials()


def runs(uri: str) -> dict[str, Run]:
    """Every run of the store, by its name; a name twice is a run too many."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("isotrain")
    found = client.search_runs([experiment.experiment_id]) if experiment else []
    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: run for run in found}


def test_a_trial_is_one_flat_run_that_sorts_by_what_matters(here: Place) -> None:
    outbox = Outbox(here)
    for trial in finished(here):
        outbox(trial)
    stored = runs(str(here.tracking.uri))
    assert set(stored) == {"isolation-0", "isolation-1", "isolation-2"}
    good, failed = stored["isolation-2"], stored["isolation-1"]
    assert (good.info.status, failed.info.status) == ("FINISHED", "FAILED")
    assert good.data.metrics["final/best_val_mae"] == 3.0 and good.data.metrics["final/train_seconds"] == 4.0
    assert good.data.metrics["trial"] == 2.0 and good.data.metrics["val_mae"] == 6.0
    assert good.data.params == {"model.hidden": "6"}
    expected = {"study": "isolation", "trial": "2", "seed": "2", "method": "search", "state": "COMPLETE"}
    assert expected.items() <= good.data.tags.items() and good.data.tags["data.simulated"] == "yes"
    assert failed.data.tags["why"] == "told to fail"
    assert not outbox.waiting() and sync(here) == "0 runs sent, 0 left"
    assert parcels.read_json(here.folder / "sent" / "2.json")["run"] == good.info.run_id


def test_what_was_sent_half_and_is_sent_again_is_there_once(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender dies between the run and the note that it is sent, and in the middle of the run."""
    trials = finished(here)
    outbox = Outbox(here)
    send = MlflowClient.log_batch
    for dies_at in (1, 2, 3):
        calls = 0

        def dying(self: MlflowClient, *args: object, _at: int = dies_at, **named: object) -> None:
            nonlocal calls
            calls += 1
            if calls == _at:
                raise KeyboardInterrupt
            send(self, *args, **named)  # type: ignore[arg-type]

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(MlflowClient, "log_batch", dying)
            for trial in trials:
                outbox(trial)
    (here.folder / "sent" / "0.json").unlink(missing_ok=True)
    assert sync(here).endswith(" 0 left")
    stored = runs(str(here.tracking.uri))
    assert set(stored) == {"isolation-0", "isolation-1", "isolation-2"}
    history = MlflowClient(here.tracking.uri).get_metric_history(stored["isolation-0"].info.run_id, "val_mae")
    assert len(history) == 1
    assert [run.info.status for run in stored.values()].count("FINISHED") == 2


def test_sync_knows_the_trials_whose_worker_wrote_no_parcel(here: Place) -> None:
    finished(here)
    assert sync(here) == "3 runs sent, 0 left"


def test_a_parcel_that_is_refused_does_not_stop_the_others(here: Place, caplog: pytest.LogCaptureFixture) -> None:
    trials = finished(here)
    write_json(here.folder / "trials" / "0" / "result.json", {"params": {"not/../a key?": "x"}, "history": []})
    assert sync(here) == f"2 runs sent, 1 left in {here.folder / 'outbox'}"
    assert "MLflow refuses" in caplog.text and f"{trials[0].number}.json" in caplog.text


@contextmanager
def server(port: int, folder: Path) -> Iterator[str]:
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "kept")]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen([*command, *store], stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None, (folder / "server.log").read_text()
                time.sleep(0.2)
        yield uri
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def test_a_server_that_is_down_loses_nothing_and_is_complained_of_once(
    here: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(parcels, "PAUSE", 0.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    away = replace(here, tracking=here.tracking.model_copy(update={"uri": f"http://127.0.0.1:{port}"}))
    trials = finished(away)
    outbox = Outbox(away)
    for trial in trials[:2]:
        outbox(trial)
    assert len(outbox.waiting()) == 2
    assert [record.getMessage() for record in caplog.records if "cannot be sent" in record.getMessage()] != []
    assert caplog.text.count("cannot be sent") == 1 and "isotrain search sync" in caplog.text
    with server(port, tmp_path) as uri:
        outbox(trials[2])
        assert not outbox.waiting()
        assert set(runs(uri)) == {"isolation-0", "isolation-1", "isolation-2"}
        assert sync(away) == "0 runs sent, 0 left"
        assert len(runs(uri)) == 3


def test_many_processes_send_to_one_store(here: Place, tmp_path: Path) -> None:
    """All at once, into a store that is not there yet; between them they send everything, once."""
    trials, senders = finished(here, 60), 4
    environment = {**os.environ, "MLFLOW_TRACKING_URI": str(here.tracking.uri)}
    command = [sys.executable, "-c", SENDER, str(tmp_path / "params.yaml")]
    processes = [
        subprocess.Popen(
            [*command, str(n), str(senders)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        for n in range(senders)
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.close()
    assert [process.wait(120) for process in processes] == [0] * senders
    assert not Outbox(place(tmp_path / "params.yaml")).waiting()
    assert set(runs(str(here.tracking.uri))) == {f"isolation-{trial.number}" for trial in trials}
