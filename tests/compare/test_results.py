"""Reading result folders: what is whole is read, what is not is refused by name."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isotrain.compare.results import Baseline, Budget, Isolated, read_baselines, read_runs, short_commit
from isotrain.errors import InputError
from isotrain.forecast.forecasts import read_forecasts

RESULT: dict[str, Any] = {
    "method": "layer",
    "role": "tested",
    "budget": {"step": "other", "goal_ms": 12.5, "hidden": 8},
    "seed": 3,
    "regime": "streamed",
    "started_at": "2026-03-01T10:00:00+00:00",
    "finished_at": "2026-03-01T10:01:00+00:00",
    "commit": None,
    "data": {
        "source": "simulated",
        "simulated": True,
        "rows": 100,
        "sha256": "ab",
        "target": "TGBT",
        "unit": "kW",
    },
    "hardware": {"cpu": "A", "memory_gb": 8.0},
    "params": {"model.hidden": 8, "isolation.zone": "unit", "isolation.mode": "cut"},
    "parameters": 10,
    "steps": 20,
    "train_seconds": 12.5,
    "phase_seconds": {"forward": 4, "backward": 6, "optimizer": 1, "selection": 0.5, "other": 1},
    "step_ms_median": 600.0,
    "machine_seconds": 1.0,
    "history": [
        {"step": 10, "train_seconds": 6.0, "val_mae": 5.5, "train_loss": 0.3, "isolated_fraction": 0.5},
        {"step": 20, "train_seconds": 12.5, "val_mae": 5.2, "train_loss": 0.2, "isolated_fraction": 0.5},
    ],
    "isolated_fraction": 0.5,
    "best_val_mae": 5.2,
    "val_mae": 5.2,
    "test_mae": 4.0,
    "test_rmse": 6.0,
    "test_mase": 0.7,
    "mae_by_lead": [4.0] * 24,
}


def write(folder: Path, text: str | None = None, **changes: Any) -> Path:
    """One result folder below ``folder``; returns ``folder``."""
    home = folder / f"{changes.get('method', 'layer')}-{changes.get('seed', 3)}"
    home.mkdir(parents=True)
    (home / "result.json").write_text(json.dumps(RESULT | changes) if text is None else text)
    return folder


def test_a_whole_result_is_read(tmp_path: Path) -> None:
    write(tmp_path, seed=10)
    write(tmp_path, seed=2)
    runs = read_runs(tmp_path)
    assert [run.name for run in runs] == ["layer-2", "layer-10"]  # by number, not as text
    assert runs[0].history[1].train_seconds == 12.5
    assert runs[0].phase_seconds["backward"] == 6.0
    assert runs[0].mae_by_lead == (4.0,) * 24
    assert not runs[0].diverged
    assert runs[0].role == "tested"
    assert runs[0].isolation == Isolated("unit", "cut")
    assert runs[0].budget == Budget("step", "other", 0.0125)
    assert runs[0].params["model.hidden"] == 8


def test_a_diverged_fit_has_infinite_errors(tmp_path: Path) -> None:
    empty = dict.fromkeys(["best_val_mae", "val_mae", "test_mae", "test_rmse", "test_mase", "mae_by_lead"])
    history = [RESULT["history"][0] | {"val_mae": None, "train_loss": None}]
    (run,) = read_runs(write(tmp_path, diverged=True, history=history, **empty))
    assert run.diverged
    assert run.val_mae == run.test_mae == run.history[0].val_mae == math.inf
    assert run.mae_by_lead == ()


@pytest.mark.parametrize(
    ("text", "changes", "words"),
    [
        ('{"method": "layer",', {}, "cannot be read"),
        ("[1, 2]", {}, "list"),
        (None, {"test_mae": None}, "result.json"),
        (None, {"val_mae": math.nan}, "not a finite number"),
        (None, {"train_seconds": "soon"}, "soon"),
        (None, {"machine_seconds": 0}, "machine_seconds"),
        (None, {"data": {"source": "simulated"}}, "data.rows"),
        (None, {"phase_seconds": {"forward": 1}}, "backward"),
        (None, {"role": "master"}, "reference, control, tested"),
        (None, {"budget": {"money": "layer"}}, "step"),
        (None, {"budget": {"time": "layer"}}, "seconds"),
    ],
)
def test_a_bad_result_is_refused_by_name(tmp_path: Path, text: str | None, changes: dict[str, Any], words: str) -> None:
    write(tmp_path, text, **changes)
    with pytest.raises(InputError, match=words) as refusal:
        read_runs(tmp_path)
    assert str(tmp_path / "layer-3" / "result.json") in str(refusal.value)
    assert "dvc repro" in str(refusal.value)


@pytest.mark.parametrize("key", sorted(set(RESULT) - {"best_val_mae"}))
def test_every_key_that_is_used_must_be_there(tmp_path: Path, key: str) -> None:
    write(tmp_path, json.dumps({k: v for k, v in RESULT.items() if k != key}))
    with pytest.raises(InputError, match=f"layer-3/result.json lacks the key '{key}'.*too old.*dvc repro train"):
        read_runs(tmp_path)


def test_a_missing_result_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no fit"):
        read_runs(tmp_path)
    (tmp_path / "layer-3").mkdir()
    with pytest.raises(InputError, match=r"layer-3/result.json does not exist"):
        read_runs(tmp_path)


def test_a_fit_found_twice_is_refused(tmp_path: Path) -> None:
    write(tmp_path).joinpath("layer-3").rename(tmp_path / "copy")
    write(tmp_path)
    with pytest.raises(InputError, match=r"more than one folder holds layer-3"):
        read_runs(tmp_path)


def arrays(n: int = 3) -> dict[str, Any]:
    return {
        "origins": np.arange(n)[::-1] + 50,
        "time": 3600 * (np.arange(n)[::-1] + 50),
        "prediction": np.repeat(np.arange(n, dtype=np.float32)[:, None], 24, axis=1),
        "truth": np.zeros((n, 24), np.float32),
    }


def test_forecasts_come_in_the_order_of_their_origins(tmp_path: Path) -> None:
    (run,) = read_runs(write(tmp_path))
    np.savez(run.folder / "forecasts.npz", **arrays())
    forecasts = read_forecasts(run.folder)
    assert list(forecasts.origins) == [50, 51, 52]
    assert list(forecasts.prediction[:, 0]) == [2.0, 1.0, 0.0]


@pytest.mark.parametrize("damage", ["absent", "cut short", "no truth", "one row less", "twice"])
def test_damaged_forecasts_are_refused_by_name(tmp_path: Path, damage: str) -> None:
    (run,) = read_runs(write(tmp_path))
    path, content = run.folder / "forecasts.npz", arrays()
    if damage == "no truth":
        del content["truth"]
    if damage == "one row less":
        content["prediction"] = content["prediction"][:-1]
    if damage == "twice":
        content["origins"][:] = 50
    if damage != "absent":
        np.savez(path, **content)
    if damage == "cut short":
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"layer-3/forecasts.npz"):
        read_forecasts(run.folder)


ROW: dict[str, Any] = {
    "name": "ridge",
    "seconds": 0.5,
    "parameters": 10,
    "refit": False,
    "val_mae": 5.0,
    "test_mae": 4.0,
    "test_rmse": 6.0,
    "test_mase": 0.7,
    "mae_by_lead": [4.0, 4.5],
}


def test_baselines_are_read_in_their_order(tmp_path: Path) -> None:
    refit = ROW | {"name": "ridge-refit", "refit": True, "val_mae": None}
    (tmp_path / "baselines.json").write_text(json.dumps({"baselines": [refit, ROW]}))
    first, second = read_baselines(tmp_path)
    assert (first.name, first.refit, first.val_mae) == ("ridge-refit", True, None)
    assert second == Baseline("ridge", tmp_path / "ridge", 0.5, 10, False, 5.0, 4.0, 6.0, 0.7, (4.0, 4.5))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "does not exist"),
        ("{", "cannot be read"),
        ("{}", "lacks the key 'baselines'"),
        (json.dumps({"baselines": [{k: v for k, v in ROW.items() if k != "refit"}]}), "lacks the key 'refit'"),
        (json.dumps({"baselines": [ROW | {"val_mae": None}]}), "float"),
        (json.dumps({"baselines": [ROW | {"test_mae": "low"}]}), "low"),
    ],
)
def test_bad_baselines_are_refused_by_name_with_the_remedy(tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / "baselines.json").write_text(text)
    with pytest.raises(InputError, match=rf"baselines\.json.*{words}.*dvc repro baselines"):
        read_baselines(tmp_path)


def test_the_mark_of_a_dirty_commit_is_never_cut_off() -> None:
    assert short_commit("0123456789abcdef") == "0123456789"
    assert short_commit("0123456789abcdef+") == "0123456789+"
    assert short_commit("012345+") == "012345+"
    assert short_commit(None) == "unknown"
