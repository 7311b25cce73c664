"""The stage of DVC over a folder of meters: started by its own name alone, and again when a meter changes."""

import os
import subprocess
import sys
from pathlib import Path
from shutil import copy, copytree

import pytest
import yaml
from tests.adapt.test_adapt import csv_of
from tests.serve.small_forecaster import Fitted

from isotrain.data.ingest import Tidy

ROOT = Path(__file__).parents[2]
STAGE = "pipelines/adapt/dvc.yaml"


def test_the_pipeline_of_the_study_adapts_nothing() -> None:
    for path in ("dvc.yaml", "pipelines/dvc.yaml"):
        assert "adapt" not in yaml.safe_load((ROOT / path).read_text())["stages"]


@pytest.mark.slow
def test_each_meter_of_the_folder_is_adapted_to(fitted: Fitted, new: Tidy, tmp_path: Path) -> None:
    copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "pipelines" / "adapt").mkdir(parents=True)
    copy(ROOT / STAGE, tmp_path / STAGE)
    for package in ("adapt", "data", "forecast", "lstm"):
        copytree(ROOT / "src" / "isotrain" / package, tmp_path / "src" / "isotrain" / package)
    copytree(fitted.folder, tmp_path / "reports" / "forecaster")
    (tmp_path / "data" / "meters").mkdir(parents=True)
    csv_of(new, tmp_path / "data" / "meters" / "a.csv")
    dvc = [sys.executable, "-m", "dvc"]
    here = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def run(*words: str) -> str:
        ended = subprocess.run([*dvc, *words], cwd=tmp_path, env=here, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    run("init", "--no-scm")
    run("repro", STAGE)
    assert (tmp_path / "results" / "adapted" / "a" / "forecaster.json").exists()
    csv_of(new, tmp_path / "data" / "meters" / "b.csv", times=2.0)
    run("repro", STAGE)
    assert (tmp_path / "results" / "adapted" / "b" / "forecaster.json").exists()
