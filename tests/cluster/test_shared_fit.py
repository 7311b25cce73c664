"""A fit that two tasks of a real SLURM share: what one process trains on the same batches, and an end when one dies."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
import torch
import yaml
from tests.cluster.slurm import Slurm, until

from isotrain.config import MethodsView, Settings, load
from isotrain.data.windows import Windows
from isotrain.files import read_json
from isotrain.training.fit import Fit, fit, prepare

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
METHODS = ["autonomous-75", "layer", "credit-none", "credit-measured"]  # each leaves out something else
SMALL: dict[str, Any] = {
    "model": {"hidden": 8, "decoder": 8, "dropout": 0.0, "state_dropout": 0.0},  # each process would drop other units
    "training": {
        "steps": 8, "stretches": 3, "stretch": 100, "origins": 4, "validate_every": 4, "accelerator": "cpu"
    },
    "runtime": {"bf16": False, "threads": 1},  # so that what differs is the rounding of single precision
    "window": {"history": 48},
    "compare": {"methods": METHODS, "seeds": [3], "reference_tuned": {"streamed": "credit-none"}},
}  # fmt: skip
OFTEN = {"every": 2}


@pytest.fixture
def study(tmp_path: Path, windows: Windows, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml and the windows."""
    windows.save(tmp_path / "data" / "windows")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, changes in SMALL.items():
        params[section] |= changes
    for name in METHODS:
        if "isolation" in params["methods"][name]:
            params["methods"][name]["isolation"] |= OFTEN
    write(tmp_path, params)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path


def write(folder: Path, params: dict[str, Any], processes: int = 2) -> None:
    params["runtime"]["processes"] = processes
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def train(*words: str, tasks: str = "--ntasks-per-node=2") -> list[str]:
    """What a user would type, for two tasks of one node."""
    return ["srun", "--nodes=1", tasks, "--mem=0", sys.executable, f"{ROOT}/pipelines/train.py",
            "data/windows", "results/runs", "params.yaml", *words]  # fmt: skip


def environment(slurm: Slurm) -> dict[str, str]:
    """Of the tests' nodes, whose names no system knows."""
    return {**slurm.environment, "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / "model.ckpt", weights_only=True)["state_dict"]
    return state


def test_two_nodes_train_what_one_process_trains(slurm: Slurm, study: Path, windows: Windows) -> None:
    (study / "pipelines").symlink_to(ROOT / "pipelines")
    place = [f"--export=ALL,ISOTRAIN_ENVIRONMENT={sys.prefix}", "--partition=main", "--mem=1000", "--time=10"]
    job = slurm.submit(*place, ROOT / "cluster" / "train.sbatch", env=environment(slurm), cwd=study)
    states = slurm.wait(job, 280)
    said = (study / f"slurm-{job}.out").read_text()
    assert set(states.values()) == {"COMPLETED"}, said
    written = {path.name for path in (study / "results" / "runs" / "layer-3").iterdir()}
    bundle = {"forecaster.json", "residuals.npz", "model.ckpt"}
    assert written == {"result.json", "forecasts.npz", "isolation.npz", *bundle}
    runs = mlflow.search_runs(search_all_experiments=True)
    assert sorted(runs["tags.mlflow.runName"]) == sorted(f"{name}-3" for name in METHODS)  # the first task's alone
    for name in METHODS:
        settings = load("params.yaml", view=MethodsView, overrides={"runtime.processes": 1}).settings(name)
        alone = fit(settings, 3, windows, study / "alone" / name)
        shared = read_json(study / "results" / "runs" / f"{name}-3" / "result.json")
        left_out = [{key: row[key] for key in ("step", "share", "churn")} for row in alone["selections"]]
        assert left_out == [{key: row[key] for key in ("step", "share", "churn")} for row in shared["selections"]]
        assert left_out
        for row, other in zip(alone["history"], shared["history"], strict=True):
            for key in ("val_mae", "train_loss"):
                assert other[key] == pytest.approx(row[key], rel=1e-4), (name, key)  # type: ignore[literal-required]
        mine, theirs = weights(study / "alone" / name), weights(study / "results" / "runs" / f"{name}-3")
        untrained = weights_at_start(settings, windows)
        for key, value in mine.items():
            moved = (value - untrained[key]).norm()
            assert (value - theirs[key]).norm() <= 1e-3 * moved, (name, key)


def weights_at_start(settings: Settings, windows: Windows) -> dict[str, torch.Tensor]:
    module, _ = prepare(Fit(settings, 3, windows, Path()))
    return {key: value.clone() for key, value in module.state_dict().items()}


def test_a_dead_task_ends_the_job_which_goes_on_when_sent_again(slurm: Slurm, study: Path) -> None:
    params = yaml.safe_load((study / "params.yaml").read_text())
    params["training"] |= {"steps": 400, "validate_every": 10}
    write(study, params)
    command = train("native", "3")
    job = subprocess.Popen(command, env=environment(slurm), stderr=subprocess.PIPE, text=True)
    folder = study / "results" / "runs" / "native-3"
    try:
        until(lambda: list(folder.glob("resume-*.ckpt")) or job.poll() is not None, 200)
        os.kill(fit_of(1), signal.SIGKILL)
        said = job.communicate(timeout=120)[1]
    finally:
        job.terminate()  # srun ends its tasks
    assert job.returncode != 0
    assert "process 0 of 2 has lost another one, whose log says why" in said
    assert "the process of a fit ended with status -9" in said
    assert not (folder / "result.json").exists()
    again = subprocess.run(command, env=environment(slurm), capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("resuming from results/runs") == 2, again.stderr
    history = read_json(folder / "result.json")["history"]
    assert [row["step"] for row in history] == list(range(10, 401, 10))


def fit_of(rank: int) -> int:
    """The process in which a task trains: the child of its stage."""
    for process in psutil.process_iter():
        try:
            ours = "pipelines/train.py" in " ".join(process.cmdline()) and process.environ().get("SLURM_PROCID")
            if ours == str(rank) and not process.children():
                return process.pid
        except psutil.Error:  # it ended meanwhile, or is another user's
            continue
    raise AssertionError(f"no process of task {rank}")


@pytest.mark.parametrize(
    ("tasks", "says"), [("--ntasks-per-node=1", "srun started 1"), ("--ntasks=2", "as many on each")]
)
def test_other_tasks_than_the_settings_say_are_refused(slurm: Slurm, study: Path, tasks: str, says: str) -> None:
    done = subprocess.run(
        train("native", "3", tasks=tasks),
        env=environment(slurm),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert "runtime.processes = 2, and srun" in done.stderr
    assert says in done.stderr
