"""The commands that people type, in a fresh copy of the project: repro, exp run -S, metrics, a series of one's own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from isotrain.config.ingest import Simulated
from isotrain.data.simulate import building

ROOT = Path(__file__).parents[1]
QUICK = {
    "ingest.simulated.hours": 3360,
    "window.history": 48,
    "model.hidden": 6,
    "model.decoder": 8,
    "training.steps": 20,
    "training.stretch": 100,
    "training.stretches": 2,
    "training.validate_every": 5,
    "window.train": 0.6,
    "window.validation": 0.2,
    "compare.methods": "[tuned,isolated]",
    "compare.seeds": "[0]",
    "compare.bootstrap": 50,
}


def run(project: Path, *words: str) -> str:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "DVC"))}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    done = subprocess.run(words, cwd=project, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def script(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A stage's script as DVC would call it, whatever its end."""
    return subprocess.run([sys.executable, *words], cwd=project, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that git would hand out, in a repository of their own."""
    goal = tmp_path_factory.mktemp("fresh") / "project"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith("docs/"):
            (goal / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, goal / name)
    run(goal, "git", "init", "--quiet")
    run(goal, "git", "config", "user.email", "test@localhost")
    run(goal, "git", "config", "user.name", "test")
    run(goal, "git", "add", "--all")
    run(goal, "git", "commit", "--quiet", "--message", "start")
    settings = [word for key, value in QUICK.items() for word in ("--set-param", f"{key}={value}")]
    run(goal, "dvc", "exp", "run", *settings)
    return goal


@pytest.mark.slow
def test_the_pipeline_ends_in_a_report_and_runs_in_mlflow(project: Path) -> None:
    report = json.loads((project / "reports" / "tradeoff.json").read_text())
    assert [method["name"] for method in report["methods"]] == ["tuned", "isolated"]
    assert report["data"]["simulated"] is True and report["data"]["rows"] == 3360
    assert {"data", "hardware", "target", "methods", "baselines"} <= set(report)
    published = json.loads((project / "reports" / "forecaster" / "forecaster.json").read_text())
    errors = published["candidates"]
    assert {"tuned", "isolated", "ridge", "ridge-rich", "lightgbm-quick"} < set(errors)
    assert report["published"]["name"] == min(errors, key=errors.__getitem__)
    assert report["published"]["name"].split()[-1] in published["name"]
    assert "SIMULATED" in (project / "reports" / "tradeoff.md").read_text()
    assert (project / "reports" / "data" / "series.png").stat().st_size > 10_000
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("isotrain").experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    fits = {run.info.run_name: run for run in runs if run.data.tags["kind"] == "fit"}
    assert set(fits) == {"tuned-0", "isolated-0"}
    assert fits["tuned-0"].data.params["training.steps"] == "20"
    assert fits["tuned-0"].data.tags["data.simulated"] == "yes"
    assert fits["tuned-0"].data.tags["dvc.stage"] == "train" and fits["tuned-0"].data.tags["dvc_exp"]
    [reported] = [run.info.run_id for run in runs if run.data.tags["kind"] == "report"]
    assert {run.data.tags["report"] for run in runs} == {reported}
    experiment, data = client.get_experiment_by_name("isotrain").tags, fits["isolated-0"].data
    logged = {f"metrics.`{name}`" for name in data.metrics} | {f"tags.`{name}`" for name in data.tags}
    assert set(json.loads(experiment["mlflow.sharedViewState.report"])["selectedColumns"]) <= logged
    note = experiment["mlflow.note.content"]
    assert report["answer"] in note and note.startswith("**SIMULATED series.**")
    stored = {file.path for file in client.list_artifacts(fits["tuned-0"].info.run_id)}
    assert stored >= {"forecasts.npz", "forecaster.json", "model.ckpt", "residuals.npz", "result.json"}


@pytest.mark.slow
def test_what_did_not_change_does_not_run_again(project: Path) -> None:
    assert "Data and pipelines are up to date" in run(project, "dvc", "repro")
    said = run(project, "dvc", "exp", "run", "--set-param", "isolation.schedule.start=0.5")
    assert "fit 1 of 1: isolated, seed 0" in said
    assert "Running stage 'window'" not in said and "Running stage 'baselines'" not in said
    shown = run(project, "dvc", "exp", "show", "--csv")
    assert "isolation.schedule.start" in shown and "isolated.val_mae" in shown


@pytest.mark.slow
def test_a_bad_setting_stops_in_the_first_stage_with_one_line(project: Path) -> None:
    done = script(project, "pipelines/ingest.py", "data/raw", "data/tidy", "reports/data", "params.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    text = (project / "params.yaml").read_text()
    (project / "broken.yaml").write_text(text.replace("  hidden: 6", "  hiden: 6"))
    done = script(project, "pipelines/ingest.py", "data/raw", "data/tidy", "reports/data", "broken.yaml")
    (project / "broken.yaml").unlink()
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: broken.yaml: model.hidden is missing; model.hiden is not a key; did you mean 'hidden'?"
    ]


@pytest.mark.slow
def test_a_file_of_ones_own_becomes_the_series(project: Path, tmp_path: Path) -> None:
    table = building(Simulated(seed=5, hours=1000)).rename_axis("Date and time (UTC)")
    table.to_csv(tmp_path / "mine.csv")
    before = (project / "params.yaml").read_text()
    run(project, sys.executable, "pipelines/fetch.py", str(tmp_path / "mine.csv"), "params.yaml")
    assert (project / "params.yaml").read_text() == before
    assert (project / "data" / "raw" / "mine.csv.dvc").exists()
    run(project, "dvc", "repro", "ingest")
    assert json.loads((project / "data" / "tidy" / "series.json").read_text())["source"] == "mine.csv"
    refused = script(project, "pipelines/fetch.py", "nowhere.csv", "params.yaml")
    assert refused.returncode == 2 and "nowhere.csv is neither a file nor" in refused.stderr
