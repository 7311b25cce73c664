"""What is published has the least validation error, whatever the test part says."""

from pathlib import Path

import numpy as np
import pytest
from tests.report.made_up_runs import MadeUp, change, make_baseline, make_runs

from isotrain.compare.accuracy import Best, best_on_validation
from isotrain.compare.results import Baseline, read_runs

SEEDS = (0, 1, 2)
METHODS = {
    "tuned": MadeUp("streamed", 42, 4.0, role="reference"),
    "native": MadeUp("streamed", 30, 5.0),
    "refitted": MadeUp("streamed", 43, 1.0, refit=True),
}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return make_runs(tmp_path / "runs", METHODS, SEEDS)


def baselines(folder: Path, levels: dict[str, float], noise: int = 3) -> list[Baseline]:
    """Baselines whose errors are of their own, independent of those of the fits."""
    found = []
    for number, (name, level) in enumerate(levels.items()):
        row = make_baseline(folder, name, level, 1000)
        arrays = dict(np.load(row.folder / "forecasts.npz"))
        rng = np.random.default_rng([noise, number])
        for part in ("", "val_"):
            truth = np.nan_to_num(arrays[f"{part}truth"], nan=40)
            arrays[f"{part}prediction"] = truth + rng.normal(0, level, truth.shape).astype(np.float32)
        np.savez(row.folder / "forecasts.npz", **arrays)  # type: ignore[arg-type]
        error = float(np.nanmean(np.abs(arrays["val_prediction"] - arrays["val_truth"])))
        found.append(Baseline(**{**vars(row), "val_mae": error}))
    return found


def found(runs: Path, rows: list[Baseline]) -> Best:
    best = best_on_validation(read_runs(runs), rows)
    assert best is not None
    return best


def validation(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(folder / "forecasts.npz") as arrays:
        return arrays["val_prediction"].astype(float), arrays["val_truth"].astype(float)


def test_an_average_wins_where_the_errors_are_independent(runs: Path, tmp_path: Path) -> None:
    rows = baselines(tmp_path, {"ridge": 5.0, "ridge-rich": 4.5, "lightgbm-quick": 4.5, "same-hour-yesterday": 0.1})
    best = found(runs, rows)
    assert best.name == "average of tuned, ridge-rich and lightgbm-quick"
    assert {row.name for row in best.baselines} == {"ridge-rich", "lightgbm-quick"}
    fits = {seed: runs / f"tuned-{seed}" for seed in SEEDS}
    fixed = [validation(tmp_path / name)[0] for name in ("ridge-rich", "lightgbm-quick")]
    errors = []
    for folder in fits.values():
        own, truth = validation(folder)
        errors.append(np.nanmean(np.abs(np.mean([own, *fixed], axis=0) - truth)))
    assert best.val_mae == pytest.approx(np.mean(errors), rel=1e-6)
    assert best.candidates == dict(sorted(best.candidates.items(), key=lambda item: item[1]))
    assert "same-hour-yesterday" not in best.candidates  # it cannot be published
    of_seeds = {run.seed: run.val_mae for run in read_runs(runs) if run.method == "tuned"}
    assert best.candidates["tuned"] == pytest.approx(np.mean(list(of_seeds.values())))
    assert best.network is not None and best.network.seed == min(of_seeds, key=of_seeds.__getitem__)
    together = best.forecasts("validation").prediction
    np.testing.assert_allclose(together, np.mean([validation(best.network.folder)[0], *fixed], axis=0))


def test_one_alone_wins_where_the_others_are_far_behind(runs: Path, tmp_path: Path) -> None:
    best = found(runs, baselines(tmp_path / "good", {"ridge": 0.1}))
    assert best.name == "ridge" and best.network is None and best.members == [tmp_path / "good" / "ridge"]
    best = found(runs, baselines(tmp_path / "bad", {"ridge": 90.0}))
    assert best.name == "tuned" and not best.baselines
    assert found(runs, []).name == "tuned"


def test_choosing_reads_nothing_of_the_test_part(runs: Path, tmp_path: Path) -> None:
    rows = baselines(tmp_path, {"ridge": 5.0, "ridge-rich": 4.5})
    before = found(runs, rows)
    for folder in [*runs.iterdir(), *(row.folder for row in rows)]:
        arrays = dict(np.load(folder / "forecasts.npz"))
        kept = {name: array for name, array in arrays.items() if name.startswith("val_")}
        np.savez(folder / "forecasts.npz", **kept)  # type: ignore[arg-type]
    tempting = {"test_mae": 0.0, "test_rmse": 0.0, "test_mase": 0.0, "mae_by_lead": [0.0] * 24}
    for seed in SEEDS:
        change(runs, f"native-{seed}", **tempting)
    after = found(runs, [Baseline(**{**vars(row), "test_mae": 1.0 / n}) for n, row in enumerate(rows, 1)])
    assert after.candidates == before.candidates and after.name == before.name
    after.forecasts("validation")


def test_neither_a_refit_nor_a_method_that_diverged_is_a_candidate(runs: Path, tmp_path: Path) -> None:
    change(runs, "tuned-1", diverged=True, val_mae=None)
    best = found(runs, [])
    assert list(best.candidates) == ["native"]
    for seed in SEEDS:
        change(runs, f"native-{seed}", diverged=True, val_mae=None)
    assert best_on_validation(read_runs(runs), []) is None
    assert found(runs, baselines(tmp_path, {"ridge": 5.0})).name == "ridge"
