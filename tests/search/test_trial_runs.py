"""Trials become MLflow runs, each once: against real sqlite stores and a real tracking server that is down, then up."""

import logging
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from optuna.trial import FrozenTrial
from tests.mlflow_server import server
from tests.search.real_study import tiny_place

from isotrain.data.windows import Windows
from isotrain.files import write_json
from isotrain.search import tracking
from isotrain.search.study import Place, open_study
from isotrain.search.tracking import TrialTracking, sync
from isotrain.training.outbox import pending

SENDER = """
import sys
from isotrain.search.study import open_study, place
from isotrain.search.tracking import TrialTracking
here = place(sys.argv[1])
tracking = TrialTracking(here)
trials = open_study(here, create=False).get_trials()
print("ready", flush=True)
sys.stdin.readline()
for trial in trials[int(sys.argv[2]) :: int(sys.argv[3])]:
    tracking(trial)
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
            trial.set_user_attr("why", "asked to fail")
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
    track = TrialTracking(here)
    for trial in finished(here):
        track(trial)
    stored = runs(str(here.tracking.uri))
    assert set(stored) == {"isolation-0", "isolation-1", "isolation-2"}
    good, failed = stored["isolation-2"], stored["isolation-1"]
    assert (good.info.status, failed.info.status) == ("FINISHED", "FAILED")
    assert good.data.metrics["final/best_val_mae"] == 3.0 and good.data.metrics["final/train_seconds"] == 4.0
    assert good.data.metrics["trial"] == 2.0 and good.data.metrics["curve/val_mae"] == 6.0
    assert good.data.params == {"model.hidden": "6"}
    expected = {"study": "isolation", "trial": "2", "seed": "2", "method": "search", "state": "COMPLETE"}
    assert expected.items() <= good.data.tags.items() and good.data.tags["data.simulated"] == "yes"
    assert failed.data.tags["why"] == "asked to fail"
    assert not pending() and sync(here) == "0 runs sent, 0 left"


def test_what_was_sent_half_and_is_sent_again_is_there_once(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender dies between the run and the note that it is sent, and in the middle of the run."""
    trials = finished(here)
    track = TrialTracking(here)
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
                track(trial)
    (here.folder / "trials" / "0" / "tracked").unlink()
    assert sync(here).endswith(" 0 left")
    stored = runs(str(here.tracking.uri))
    assert set(stored) == {"isolation-0", "isolation-1", "isolation-2"}
    history = MlflowClient(here.tracking.uri).get_metric_history(stored["isolation-0"].info.run_id, "curve/val_mae")
    assert len(history) == 1
    assert [run.info.status for run in stored.values()].count("FINISHED") == 2


def test_sync_finds_the_trials_whose_worker_wrote_no_pending_run(here: Place) -> None:
    finished(here)
    assert sync(here) == "3 runs sent, 0 left"


def test_a_run_that_is_refused_does_not_stop_the_others(
    here: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    finished(here)
    write_json(here.folder / "trials" / "0" / "result.json", {"params": {"not/../a key?": "x"}, "history": []})
    assert sync(here) == f"2 runs sent, 1 left in {tmp_path / 'pending_runs'}"
    assert "MLflow refuses" in caplog.text and "isolation-0-" in caplog.text


@pytest.mark.slow
def test_a_server_that_is_down_loses_nothing_and_is_complained_of_once(
    here: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(tracking, "PAUSE", 0.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    away = replace(here, tracking=here.tracking.model_copy(update={"uri": f"http://127.0.0.1:{port}"}))
    trials = finished(away)
    track = TrialTracking(away)
    for trial in trials[:2]:
        track(trial)
    assert len(pending()) == 2
    assert caplog.text.count("takes no runs") == 1 and "isotrain search sync" in caplog.text
    with server(port, tmp_path) as uri:
        track(trials[2])
        assert not pending()
        assert set(runs(uri)) == {"isolation-0", "isolation-1", "isolation-2"}
        assert sync(away) == "0 runs sent, 0 left"
        assert len(runs(uri)) == 3


@pytest.mark.slow
def test_many_processes_send_to_one_store(here: Place, tmp_path: Path) -> None:
    """All at once, into a store that is not there yet; between them they send everything, once."""
    trials, senders = finished(here, 45), 3
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
    assert not pending()
    assert set(runs(str(here.tracking.uri))) == {f"isolation-{trial.number}" for trial in trials}
