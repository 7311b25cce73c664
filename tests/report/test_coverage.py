"""The stage of the baselines, and their coverage in the report, counted by hand from their own forecasts."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.report.made_up_runs import MadeUp, make_runs

from isotrain.baselines import Score
from isotrain.baselines import score as scored
from isotrain.compare.accuracy import coverages
from isotrain.compare.comparison import Comparison, Settings
from isotrain.compare.results import read_baselines, read_runs
from isotrain.config.sections import Tracking
from isotrain.data.windows import Windows
from isotrain.report.tables import coverage_table
from isotrain.training.baselines import on_cores, run_baselines
from isotrain.training.outbox import send

NAMES = ["same-day-type", "ridge", "ridge-refit"]


@pytest.fixture
def rows(windows: Windows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Score]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracking = Tracking(experiment="test", uri=f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    found = run_baselines(NAMES, windows, tmp_path / "baselines", tracking, threads=1)
    send()
    return found


def test_baselines_leave_rows_forecasts_and_runs(rows: list[Score], tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    assert json.loads((tmp_path / "baselines" / "baselines.json").read_text()) == {"baselines": rows}
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = {run.info.run_name: run for run in client.search_runs([client.get_experiment_by_name("test").experiment_id])}
    assert set(runs) == set(NAMES)
    for row in rows:
        metrics = runs[row["name"]].data.metrics
        assert runs[row["name"]].data.tags["kind"] == "baseline"
        assert metrics["final/test_mae"] == pytest.approx(row["test_mae"], rel=1e-3)
        assert metrics["final/train_seconds"] == pytest.approx(row["seconds"], rel=1e-3)
        assert ("final/val_mae" in metrics) == (not row["refit"])
        assert (tmp_path / "baselines" / row["name"] / "forecasts.npz").exists()
        assert str(tmp_path) not in json.dumps(row)
    assert [row.name for row in read_baselines(tmp_path / "baselines")] == NAMES


def refitted(
    monkeypatch: pytest.MonkeyPatch, windows: Windows, tmp_path: Path, names: list[str], threads: int = 1
) -> list[str]:
    """The baselines that are fitted when the stage runs once more."""
    fitted: list[str] = []

    def score(name: str, baseline: Any, windows: Windows) -> Any:
        fitted.append(name)
        return scored(name, baseline, windows)

    monkeypatch.setattr("isotrain.training.baselines.score", score)
    tracking = Tracking(experiment="test", uri=f"sqlite:///{tmp_path}/mlflow.db")
    rows = run_baselines(names, windows, tmp_path / "baselines", tracking, threads)
    assert [row["name"] for row in rows] == names
    assert [row.name for row in read_baselines(tmp_path / "baselines")] == names
    return fitted


@pytest.mark.usefixtures("rows")
def test_only_what_is_not_fitted_yet_is_fitted(
    windows: Windows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refitted(monkeypatch, windows, tmp_path, NAMES) == []
    assert refitted(monkeypatch, windows, tmp_path, ["ridge", "same-hour-yesterday"]) == ["same-hour-yesterday"]
    (tmp_path / "baselines" / "ridge" / "forecasts.npz").unlink()
    assert refitted(monkeypatch, windows, tmp_path, ["same-hour-yesterday", "ridge"]) == ["ridge"]


def test_without_lightgbm_its_baselines_are_left_out_and_the_study_goes_on(
    windows: Windows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("isotrain.training.baselines.find_spec", lambda name: None)
    tracking = Tracking(experiment="test", uri=f"sqlite:///{tmp_path}/mlflow.db")
    rows = run_baselines(["lightgbm-quick", "ridge"], windows, tmp_path / "baselines", tracking, threads=1)
    assert [row["name"] for row in rows] == ["ridge"]
    assert "baseline lightgbm-quick is left out: LightGBM is not installed" in caplog.text


@pytest.mark.usefixtures("rows")
def test_other_windows_other_code_or_other_cores_fit_again(
    windows: Windows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warmer = dataclasses.replace(windows, ahead=windows.ahead + np.float32(0.25))
    assert refitted(monkeypatch, warmer, tmp_path, NAMES) == NAMES
    renamed = dataclasses.replace(windows, meta=windows.meta | {"stride": 2})
    assert refitted(monkeypatch, renamed, tmp_path, NAMES) == NAMES
    assert refitted(monkeypatch, renamed, tmp_path, NAMES, threads=2) == NAMES
    monkeypatch.setattr("isotrain.training.baselines.sha256", lambda path: f"changed {path.name}")
    assert refitted(monkeypatch, renamed, tmp_path, NAMES, threads=2) == NAMES


@pytest.mark.usefixtures("rows")
def test_coverage_is_the_share_of_hours_inside(windows: Windows, tmp_path: Path) -> None:
    refit = {"refitted": MadeUp("streamed", 10, 5.0, refit=True)}
    comparison = Comparison(read_runs(make_runs(tmp_path / "runs", refit, seeds=(0,))), Settings({}, {}))
    baselines = read_baselines(tmp_path / "baselines")
    found = coverages(comparison, baselines, windows, 0.6)
    assert [row.name for row in found] == ["same-day-type", "ridge"]  # no refit: its validation errors say nothing
    arrays = np.load(baselines[1].folder / "forecasts.npz")
    working = windows.ahead[:, windows.names("ahead").index("working")] > 0.5
    inside, known, widths = 0, 0, []
    for lead in range(24):
        early = arrays["val_truth"][:, lead].astype(float) - arrays["val_prediction"][:, lead]
        late = arrays["truth"][:, lead].astype(float) - arrays["prediction"][:, lead]
        for kind in (False, True):
            seen = np.sort(early[(working[arrays["val_origins"] + lead] == kind) & np.isfinite(early)])
            rank = int(np.ceil((len(seen) + 1) * 0.8 - 1e-9))
            low, high = seen[len(seen) - rank], seen[rank - 1]
            mine = working[arrays["origins"] + lead] == kind
            inside += ((low <= late[mine]) & (late[mine] <= high)).sum()
            known += np.isfinite(late[mine]).sum()
            widths += [high - low] * int(mine.sum())
    assert found[1].test["all"] == pytest.approx(inside / known)
    assert found[1].width == pytest.approx(np.mean(widths), rel=1e-5)
    assert f"{100 * inside / known:.1f}" in coverage_table(found)


def test_cores_are_given_back() -> None:
    import os

    before = os.sched_getaffinity(0)
    with on_cores(1):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before
