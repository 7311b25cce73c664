"""A worker as the command starts it, its trials real trainings: what it leaves, and how it leaves when asked to."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState
from tests.search.real_study import tiny_place

from isotrain.data.windows import Windows
from isotrain.search.study import Place, open_study
from isotrain.training.outbox import pending

pytestmark = pytest.mark.slow


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "isotrain.cli", "search", "worker", "--params", str(folder / "params.yaml")]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "TMPDIR": str(folder)}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=folder)


def wait_for_a_validation(process: subprocess.Popen[str], folder: Path) -> None:
    """Wait until the first trial's log has a validation: it is in the middle of its training."""
    log = folder / "results/search/isolation/trials/0/log"
    for _ in range(1200):
        if log.exists() and "val MAE" in log.read_text():
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    pytest.fail("no validation within two minutes")


def test_a_worker_runs_the_study_to_its_end(tmp_path: Path, windows: Windows) -> None:
    here = tiny_place(tmp_path, windows, trials=2, known=["native"])
    process = start(tmp_path)
    said = process.communicate(timeout=200)[1]
    assert process.returncode == 0, said
    trials = open_study(here, create=False).get_trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2
    assert trials[0].user_attrs["known"] == "native" and trials[0].user_attrs["isolated_fraction"] == 0
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("isotrain").experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["isolation-0", "isolation-1"]
    assert not pending(tmp_path / "pending_runs")
    assert "on a core of its own" in said


def test_asked_to_leave_in_mid_training_it_gives_the_trial_back(tmp_path: Path, windows: Windows) -> None:
    space = {"training.steps": {"value": 100_000}, "isolation.zone": {"choices": ["unit", "layer"]}}
    here: Place = tiny_place(tmp_path, windows, space=space)
    process = start(tmp_path)
    wait_for_a_validation(process, tmp_path)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=100)[1]
    assert process.returncode == 0, said
    first, *again = open_study(here, create=False).get_trials()
    assert first.state == TrialState.FAIL and first.user_attrs["given_back"]
    assert [(trial.state, trial.user_attrs["again_of"]) for trial in again] == [(TrialState.WAITING, 0)]
