"""The commands that people type, in a fresh copy of the project: repro, exp run -S, metrics, a series of one's own."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from tests.file_server import serving

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


def run(project: Path, *words: str, status: int = 0) -> str:
    """What a command says, given as words, or as README gives it: one text for a shell."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "DVC"))}
    env = {key: value for key, value in env.items() if not key.lower().endswith("_proxy")} | {"COLUMNS": "120"}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    given = ["bash", "-c", words[0]] if len(words) == 1 else words
    done = subprocess.run(given, cwd=project, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == status, f"{' '.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def commands(title: str, file: str = "README.md") -> list[str]:
    """The commands of a section of a page, as it has them."""
    section = (ROOT / file).read_text(encoding="utf-8").split(f"{title}\n")[1].split("\n## ")[0]
    return [one for one in re.findall(r"^```\n(.*?)\n```|^\| `([^`]+)`", section, re.M | re.S) for one in one if one]


def script(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A stage's script as DVC would call it, whatever its end."""
    return subprocess.run([sys.executable, *words], cwd=project, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh copy in which a small study was run."""
    goal = fresh(tmp_path_factory.mktemp("fresh") / "project")
    settings = [word for key, value in QUICK.items() for word in ("--set-param", f"{key}={value}")]
    said = run(goal, "dvc", "exp", "run", *settings)
    assert "fit 1 of 2: tuned, seed 0" in said and re.search(r"fit 2 of 2, about \d+ \w+ left: isolated, seed 0", said)
    assert "report: reports/tradeoff.html" in said
    (goal / ".venv").mkdir()  # set up already
    for part in ("bin", "lib", "pyvenv.cfg"):
        (goal / ".venv" / part).symlink_to(Path(sys.prefix) / part)
    (goal / ".venv" / ".ready").touch()
    run(goal, "git", "commit", "--quiet", "--all", "--message", "a small study")
    return goal


def fresh(goal: Path) -> Path:
    """The files that git would hand out, in a repository of their own."""
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
    assert {run.data.tags.get("report") for run in runs} == {reported}
    experiment, data = client.get_experiment_by_name("isotrain").tags, fits["isolated-0"].data
    logged = {f"metrics.`{name}`" for name in data.metrics} | {f"tags.`{name}`" for name in data.tags}
    assert set(json.loads(experiment["mlflow.sharedViewState.report"])["selectedColumns"]) <= logged
    note = experiment["mlflow.note.content"]
    assert report["answer"] in note and note.startswith("**SIMULATED series.**")
    stored = {file.path for file in client.list_artifacts(fits["tuned-0"].info.run_id)}
    assert stored >= {"forecasts.npz", "forecaster.json", "model.ckpt", "residuals.npz", "result.json"}


@pytest.mark.slow
def test_the_commands_that_readme_gives_to_try_things(project: Path) -> None:
    """In the order of the page, on the simulated series; each leaves params.yaml as the next one needs it."""
    first, own, reset, diff, ui, one_fit, *_, shown = commands("## Trying things")
    params = project / "params.yaml"
    start = params.read_text()
    assert "Data and pipelines are up to date" in run(project, "dvc", "repro")
    said = run(project, first)
    assert first == "dvc exp run -S isolation.steps=12" and "fit 1 of 1: isolated, seed 0" in said
    assert "Running stage 'window'" not in said and "Running stage 'baselines'" not in said
    assert "report: reports/tradeoff.html" in said
    assert [a for a, b in zip(start.splitlines(), params.read_text().splitlines(), strict=True) if a != b] == [
        "  steps: 4 # zone step: the backward covers the last so many hours before an origin"
    ]
    before = params.read_text()
    units, refused, *_ = commands("# Trying things with DVC", "docs/experiments.md")
    said = run(project, refused, status=255)
    line = next(line for line in said.splitlines() if line.startswith("error: "))
    assert "plays no part for zone step" in line and "isolation.schedule.fraction is 1.0 again" in line
    assert "fit 1" not in said and params.read_text() == before
    table = run(project, shown)
    assert max(map(len, table.splitlines())) <= 120 and "…" not in table
    assert "isolated.train_seconds" in table and "isolation.steps" in table and "12" in table
    assert "isolated, seed 0" in run(project, units)
    assert "fit 1 of 2: tuned, seed 0" in run(project, own)
    said = run(project, diff)
    assert "tuned.val_mae" in said and "series." not in said  # the same series
    assert "model.hidden is 6 again" in run(project, reset)
    assert re.sub(r" +#", " #", params.read_text()) == re.sub(r" +#", " #", start)  # DVC had moved some comments
    assert ui == "mlflow ui" and "--env-manager local -e train -P method=layer" in one_fit


@pytest.mark.slow
def test_one_fit_by_mlflow_and_a_forecast_from_the_end_of_the_series(project: Path) -> None:
    _, _, _, _, _, one_fit, *_ = commands("## Trying things")
    assert "fit 1 of 1: layer, seed 3" in run(project, one_fit)
    assert (project / "fits" / "layer-3" / "result.json").exists()
    _, _, forecast = commands("## Your own series")
    assert "forecaster: reports/forecaster" in run(project, forecast)
    assert len((project / "forecast.csv").read_text().splitlines()) == 25
    assert (project / "forecast.png").stat().st_size > 10_000
    (project / "series.csv").write_text("made by hand")
    assert run(project, "git", "status", "--porcelain", "--", "*.csv", "*.png") == ""
    (project / "series.csv").unlink()


@pytest.mark.slow
def test_a_stopped_study_says_how_to_go_on(project: Path) -> None:
    """Ctrl-C reaches every process of the terminal, the stage and its fit too."""
    words = [sys.executable, "pipelines/train.py", "data/windows", "stopped", "params.yaml", "rich", "0"]
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "DVC"))}
    stage = subprocess.Popen(words, cwd=project, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert stage.stderr is not None
    assert stage.stderr.readline() == "fit 1 of 1: rich, seed 0\n"
    os.killpg(stage.pid, signal.SIGINT)
    rest = stage.stderr.read()
    assert stage.wait() == 130
    assert rest.endswith("stopped: the same command goes on from here\n") and "Traceback" not in rest


@pytest.mark.slow
def test_a_bad_setting_stops_in_the_first_stage_with_one_line(project: Path) -> None:
    done = script(project, "pipelines/ingest.py", "data/raw", "data/tidy", "reports/data", "params.yaml")
    assert done.returncode == 0 and "error" not in done.stderr
    text = (project / "params.yaml").read_text()
    (project / "broken.yaml").write_text(text.replace("  hidden: 6", "  hiden: 6"))
    done = script(project, "pipelines/ingest.py", "data/raw", "data/tidy", "reports/data", "broken.yaml")
    (project / "broken.yaml").unlink()
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: broken.yaml: model.hidden is missing; model.hiden is not a key; did you mean 'hidden'?"
    ]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a folder on loopback, with a file in it."""
    mine(tmp_path / "mine, of 2020.csv")
    with serving(tmp_path) as base:
        yield base


def mine(path: Path) -> None:
    """A file as a meter writes it: 1,500 hours."""
    building(Simulated(seed=5, hours=1500)).rename_axis("Date and time (UTC)").to_csv(path)


@pytest.mark.slow
def test_a_file_of_ones_own_becomes_the_series(project: Path, served: str) -> None:
    """The commands of README on a file beside the project, then on an address and on a file that lies in its place."""
    params = project / "params.yaml"
    before = params.read_text()
    mine(project.parent / "mine.csv")
    unknown, reproduce, _ = commands("## Your own series")
    said = run(project, reproduce.replace("path/or/url.csv", "../mine.csv"))
    assert "report:  reports/tradeoff.html" in said
    assert params.read_text() == before
    assert (project / "data" / "raw" / "mine.csv.dvc").exists()
    assert json.loads((project / "data" / "tidy" / "series.json").read_text())["source"] == "mine.csv"
    said = run(project, "dvc metrics diff")  # against the commit, of the simulated series
    assert re.search(r"series.source +simulated +mine.csv", said) and "series.sha256" in said
    fetch = [sys.executable, "pipelines/fetch.py"]
    run(project, *fetch, f"{served}/mine%2C%20of%202020.csv", "params.yaml")
    assert (project / "data" / "raw" / "source.txt").read_text() == "mine, of 2020.csv\n"
    mine(project / "data" / "raw" / "there.csv")
    run(project, *fetch, "data/raw/there.csv", "params.yaml")
    assert (project / "data" / "raw" / "source.txt").read_text() == "there.csv\n"
    refused = script(project, "pipelines/fetch.py", "nowhere.csv", "params.yaml")
    assert refused.returncode == 2 and "nowhere.csv is neither a file nor" in refused.stderr
    foreign = building(Simulated(seed=6, hours=1500))[["TGBT"]].rename_axis("When").tz_localize(None)
    foreign.to_csv(project / "foreign.csv", sep=";", decimal=",", date_format="%d/%m/%Y %H:%M")
    inspect, again = unknown.splitlines()
    assert "every byte is valid UTF-8" in run(project, inspect.replace("FILE.csv", "foreign.csv"))
    assert again == "make reproduce"
    run(project, "dvc", "repro", "window")
    assert json.loads((project / "data" / "tidy" / "series.json").read_text())["source"] == "foreign.csv"
