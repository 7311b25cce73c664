"""Every forecast on the same origins: ensembles, refits, and the pairing with a baseline."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from tests.report.made_up_runs import ABOUT, HOUR, LEVELS, MONDAY, MadeUp, make_baselines, make_runs

from isotrain.compare.accuracy import Entry, entries_of
from isotrain.compare.comparison import Comparison, Settings
from isotrain.compare.results import Baseline, chosen_runs, read_runs
from isotrain.config import CompareView, load
from isotrain.errors import InputError
from isotrain.forecast.forecasts import Forecasts, mae_by_month, mean_forecast
from isotrain.report.page import write_report

SETTINGS = Settings({}, {"streamed": "tuned"}, bootstrap=200, about=ABOUT, against="ridge")
METHODS = {"tuned": MadeUp("streamed", 42, 5.02, role="reference"), "refitted": MadeUp("streamed", 43, 4.9, refit=True)}
PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return make_runs(tmp_path / "runs", METHODS)


@pytest.fixture
def baselines(tmp_path: Path) -> list[Baseline]:
    """Three baselines with their forecasts."""
    return make_baselines(tmp_path / "baselines")


def by_name(found: list[Entry]) -> dict[str, Entry]:
    return {entry.name: entry for entry in found}


def arrays(runs: Path, name: str) -> list[dict[str, np.ndarray]]:
    return [dict(np.load(runs / f"{name}-{seed}" / "forecasts.npz")) for seed in range(3)]


def error(prediction: np.ndarray, truth: np.ndarray) -> float:
    return float(np.nanmean(np.abs(prediction.astype(float) - truth)))


def test_an_ensemble_is_the_mean_of_its_seeds_forecasts(runs: Path, baselines: list[Baseline]) -> None:
    entry = by_name(entries_of(Comparison(read_runs(runs), SETTINGS), baselines))["tuned, ensemble of 3 seeds"]
    seeds = arrays(runs, "tuned")
    test = np.mean([seed["prediction"].astype(float) for seed in seeds], axis=0)
    seen = np.mean([seed["val_prediction"].astype(float) for seed in seeds], axis=0)
    assert entry.test_mae.median == pytest.approx(error(test, seeds[0]["truth"]))
    assert entry.val_mae is not None
    assert entry.val_mae.median == pytest.approx(error(seen, seeds[0]["val_truth"]))
    singles = [error(seed["prediction"], seed["truth"]) for seed in seeds]
    assert entry.test_mae.median < min(singles)
    assert entry.seconds is not None
    results = [json.loads((runs / f"tuned-{seed}" / "result.json").read_text()) for seed in range(3)]
    assert entry.seconds.median == pytest.approx(sum(result["train_seconds"] for result in results))


def test_two_seeds_make_no_ensemble(tmp_path: Path) -> None:
    comparison = Comparison(read_runs(make_runs(tmp_path, METHODS, seeds=(0, 1))), SETTINGS)
    assert [entry.kind for entry in entries_of(comparison, [])] == ["method", "method"]


def test_a_refit_has_no_validation_error_and_no_time_to_a_target(runs: Path, baselines: list[Baseline]) -> None:
    comparison = Comparison(read_runs(runs), SETTINGS)
    found = by_name(entries_of(comparison, baselines))
    for name in ("refitted", "refitted, ensemble of 3 seeds"):
        assert found[name].val_mae is found[name].to_reference is None
        assert found[name].difference is not None
    method = comparison.find("refitted")
    assert method is not None and method.refit
    assert comparison.seconds_to_target(method) is None
    assert comparison.speedup(method, comparison.tuned("streamed")) is None
    assert all(math.isnan(run.val_mae) for run in method.runs)
    alone = Comparison([run for run in comparison.runs if run.refit], Settings({}, {"streamed": "refitted"}))
    assert alone.targets == {"streamed": None}


def test_differences_are_those_of_the_errors_on_the_same_hours(runs: Path, baselines: list[Baseline]) -> None:
    found = by_name(entries_of(Comparison(read_runs(runs), SETTINGS), baselines))
    ridge = np.load(baselines[2].folder / "forecasts.npz")
    level = error(ridge["prediction"], ridge["truth"])
    for name in ("tuned", "refitted"):
        own = np.mean([error(seed["prediction"], seed["truth"]) for seed in arrays(runs, name)])
        difference = found[name].difference
        assert difference is not None
        assert difference.median == pytest.approx(own - level)
        assert difference.low < difference.median < difference.high
    assert found["ridge"].difference is None
    assert found["ridge"].to_reference is not None and found["ridge"].to_reference.median == 0.4
    history = json.loads((runs / "tuned-0" / "result.json").read_text())["history"]
    goal = baselines[2].val_mae
    assert goal is not None
    reached = [row["train_seconds"] for row in history if row["val_mae"] <= goal]
    soon = found["tuned"].to_reference
    assert soon is not None and soon.low <= reached[0] <= soon.high


def test_the_page_and_the_json_hold_every_forecast(runs: Path, baselines: list[Baseline], tmp_path: Path) -> None:
    folder = write_report(read_runs(runs), baselines, tmp_path / "report", SETTINGS).parent
    text = (folder / "tradeoff.md").read_text(encoding="utf-8")
    (refit,) = [line for line in text.split("### Error by lead")[0].splitlines() if line.startswith("| refitted |")]
    assert refit.split("|")[5].strip() == "–"
    assert "| tuned, ensemble of 3 seeds | 3 | 810,000 |" in text
    page = json.loads((folder / "tradeoff.json").read_text())["accuracy"]
    assert page["against"] == "ridge"
    names = ["tuned", "tuned, ensemble of 3 seeds", "refitted", "refitted, ensemble of 3 seeds"]
    assert [e["name"] for e in page["forecasts"]] == names + list(LEVELS)
    assert page["forecasts"][0]["mae_by_month"].keys() == {"2020-09", "2020-10", "2020-11"}


def test_months_are_those_of_the_target_hours() -> None:
    last = MONDAY + 16 * 24 * HOUR + 23 * HOUR  # 2020-09-30 23:00 UTC
    truth = np.array([[1.0, 2.0, np.nan]])
    one = Forecasts(np.array([0]), np.array([last]), np.zeros((1, 3)), truth)
    assert mae_by_month(one) == {"2020-09": 1.0, "2020-10": 2.0}


def test_the_mean_is_taken_over_common_origins() -> None:
    a, b = (
        Forecasts(np.array(at), HOUR * np.array(at), np.full((3, 1), value), np.zeros((3, 1)))
        for at, value in (([1, 2, 3], 1.0), ([2, 3, 4], 3.0))
    )
    both = mean_forecast([a, b])
    assert both.origins.tolist() == [2, 3] and both.time.tolist() == [2 * HOUR, 3 * HOUR]
    assert both.prediction.tolist() == [[2.0], [2.0]]


def test_old_fits_without_validation_forecasts_are_refused_by_name(runs: Path) -> None:
    for seed in range(3):
        path = runs / f"tuned-{seed}" / "forecasts.npz"
        old = {key: value for key, value in np.load(path).items() if not key.startswith("val_")}
        np.savez(path, **old)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"tuned-0/forecasts.npz.*val_origins.*dvc repro"):
        entries_of(Comparison(read_runs(runs), SETTINGS), [])


def test_nothing_is_compared_without_a_fit_of_those_asked_for(runs: Path) -> None:
    assert [run.name for run in chosen_runs(runs, ["tuned"], [2, 7])] == ["tuned-2"]
    with pytest.raises(InputError, match=r"no fit of compare\.methods"):
        chosen_runs(runs, ["layer"], [0])


def test_an_unknown_baseline_is_refused_with_the_list() -> None:
    with pytest.raises(InputError, match=r"compare.baselines.*same-day-type.*lightgbm-rich"):
        load(PARAMS, view=CompareView, overrides={"compare.baselines": ["lasso"]})
    with pytest.raises(InputError, match="against lightgbm-rich is not among baselines: ridge"):
        load(PARAMS, view=CompareView, overrides={"compare.baselines": ["ridge"], "compare.against": "lightgbm-rich"})
