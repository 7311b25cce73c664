"""A study of several series, from windows to report, forecasts and MLflow: what is said of each is computed by hand."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from dvc.utils.hydra import apply_overrides
from mlflow.tracking import MlflowClient
from tests.search.real_study import job, tiny_place
from tests.test_end_to_end import QUICK, fresh, run
from tests.test_training import small

from isotrain import cli
from isotrain.compare.accuracy import coverages, entries_of, middle_and_worst, telling
from isotrain.compare.comparison import Comparison, Settings
from isotrain.compare.results import read_baselines, read_runs
from isotrain.config.sections import Tracking
from isotrain.data.windows import Windows
from isotrain.errors import InputError
from isotrain.forecast.bundle import Bundle, load_bundle
from isotrain.forecast.intervals import working_hours
from isotrain.report.page import write_report
from isotrain.report.tables import series_table
from isotrain.search.objective import objective
from isotrain.serve.predict import predict, read_series
from isotrain.serve.pyfunc_model import ForecasterModel
from isotrain.serve.registry import _lean_copy, input_example
from isotrain.training.baselines import run_baselines
from isotrain.training.fit import fit

PARAMS = Path(__file__).parents[1] / "params.yaml"
NAMES = ["building-001", "building-002", "building-003"]
SETTINGS = Settings({}, {"streamed": "tuned"}, bootstrap=50, against="ridge")


@pytest.fixture(scope="module")
def study(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small fit and two baselines of three buildings; the runs are pending."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        windows = Windows.load(pool / "windows")
        run_baselines(["same-hour-last-week", "ridge"], windows, folder / "baselines", Tracking(), 1)
        fit(small("tuned", training__steps=20), 0, windows, folder / "runs" / "tuned-0")
        yield folder


@pytest.fixture(scope="module")
def windows(pool: Path) -> Windows:
    return Windows.load(pool / "windows")


@pytest.fixture
def bundle(study: Path) -> Bundle:
    return load_bundle(study / "runs" / "tuned-0")


@pytest.fixture
def files(windows: Windows, tmp_path: Path) -> Path:
    """A folder with a file for each building, as its meter writes it."""
    (tmp_path / "meters").mkdir()
    for index, name in enumerate(NAMES):
        one = windows.only(index)
        table = pd.DataFrame({"Date and time (UTC)": pd.to_datetime(one.time, unit="s", utc=True), "TGBT": one.target})
        for weather in one.series[0]["statistics"]["weather"]:
            column = one.inputs[:, one.names("inputs").index(weather["name"])]
            table[weather["name"]] = column * weather["std"] + weather["mean"]
        table.tail(700).to_csv(tmp_path / "meters" / f"{name}.csv", index=False)
    return tmp_path / "meters"


def arrays(study: Path, part: str = "") -> dict[str, np.ndarray]:
    held = np.load(study / "runs" / "tuned-0" / "forecasts.npz")
    return {name: held[part + name] for name in ("origins", "prediction", "truth")}


def of(windows: Windows, name: str, origins: np.ndarray) -> np.ndarray:
    """Which origins are those of a series: its rows, and the one after its last."""
    one = next(one for one in windows.series if one["name"] == name)
    return (origins > one["first"]) & (origins <= one["first"] + one["rows"])


# the comparison


def test_errors_of_each_series_are_in_its_own_standard_deviation(study: Path, windows: Windows) -> None:
    comparison = Comparison(read_runs(study / "runs"), SETTINGS)
    entries = {e.name: e for e in entries_of(comparison, read_baselines(study / "baselines"), None, windows)}
    held, errors, hours = arrays(study), {}, {}
    for index, name in enumerate(NAMES):
        own = of(windows, name, held["origins"])
        error = np.abs(held["prediction"][own].astype(float) - held["truth"][own])
        trained = windows.only(index)
        scale = trained.target[: trained.series[0]["origins"]["train"][1] + 23].std()  # up to the last hour trained on
        errors[name], hours[name] = np.nanmean(error) / scale, np.isfinite(error).sum()
        assert entries["tuned"].by_series[name]["mae"] == pytest.approx(np.nanmean(error), rel=1e-5)
        assert entries["tuned"].by_series[name]["relative"] == pytest.approx(errors[name], rel=1e-3)
    together = sum(errors[name] * hours[name] for name in NAMES) / sum(hours.values())
    assert entries["tuned"].relative is not None and entries["ridge"].relative is not None
    assert entries["tuned"].relative.median == pytest.approx(together, rel=1e-3)
    by_hand = together - entries["ridge"].relative.median
    difference = entries["tuned"].relative_difference
    assert difference is not None and difference.median == pytest.approx(by_hand, abs=1e-3)
    assert entries["ridge"].relative_difference is None
    ranked = sorted(NAMES, key=lambda name: errors[name])
    assert middle_and_worst(entries["tuned"].by_series) == (ranked[1], ranked[2])
    for category, found in entries["tuned"].by_category.items():
        alike = [one["name"] for one in windows.series if one["about"]["category"] == category]
        assert found["relative"] == pytest.approx(np.mean([errors[name] for name in alike]), rel=1e-3)


def test_intervals_of_each_series_come_from_its_own_errors(study: Path, windows: Windows, bundle: Bundle) -> None:
    comparison = Comparison(read_runs(study / "runs"), SETTINGS)
    (row,) = coverages(comparison, [], windows, 0.8)
    held = arrays(study)
    inside = []
    for name in NAMES:
        own = of(windows, name, held["origins"])
        intervals = bundle.only(name).intervals(0.8)
        assert intervals is not None
        working = working_hours(windows, held["origins"][own])
        low, high = intervals.around(held["prediction"][own], working)
        truth = held["truth"][own]
        holds = np.where(np.isnan(truth), np.nan, (low <= truth) & (truth <= high))
        assert row.by_series[name]["test"] == pytest.approx(np.nanmean(holds), abs=2e-3)  # float32 and float64
        inside.append(holds)
    assert row.test["all"] == pytest.approx(np.nanmean(np.concatenate(inside)), abs=2e-3)
    pooled = bundle.intervals(0.8)
    assert pooled is not None  # of all errors together they fit no building
    assert not np.allclose(pooled.high, intervals.high, rtol=0.05)


def test_the_report_says_how_many_series_and_lists_the_worst(study: Path, windows: Windows, tmp_path: Path) -> None:
    runs, baselines = read_runs(study / "runs"), read_baselines(study / "baselines")
    page = write_report(runs, baselines, tmp_path / "report", SETTINGS, windows)
    text = page.with_suffix(".md").read_text()
    assert text.splitlines()[0] == "# SIMULATED series. Isolation: training time against forecast accuracy, 3 series"
    figures = {path.stem for path in (tmp_path / "report" / "figures").glob("*.png")}
    assert {"error_by_series", "fans", "forecasts", "tradeoff"} <= figures
    report = json.loads(page.with_suffix(".json").read_text())
    (tuned, *_) = report["accuracy"]["forecasts"]
    assert report["data"]["series"] == 3 and set(tuned["by_series"]) == set(NAMES)
    rows = [line.split("|")[1].strip() for line in text.split("### Error by series")[1].splitlines() if "| b" in line]
    assert rows == sorted(NAMES, key=lambda name: -tuned["by_series"][name]["relative"])
    assert "relative test MAE" in text.split("## Accuracy")[1].split("###")[0]
    entries = entries_of(Comparison(runs, SETTINGS), baselines, None, windows)
    shown = telling(entries, "ridge")
    assert [entry.name for entry in shown] == ["tuned", "ridge"]
    assert len(series_table(shown, [], windows, most=2).splitlines()) == 4  # heading, rule, the two worst
    assert f"| {rows[0]} |" in series_table(shown, [], windows, most=2).splitlines()[2]


# MLflow


def test_a_run_has_a_table_of_its_series_and_no_metric_of_one(study: Path) -> None:
    pending = {json.loads(path.read_text())["name"]: path.parent for path in study.glob("pending_runs/*/run.json")}
    result = json.loads((study / "runs" / "tuned-0" / "result.json").read_text())
    for name, by_series in {"tuned-0": result["by_series"], "ridge": None}.items():
        one = json.loads((pending[name] / "run.json").read_text())
        assert one["tags"]["data.series"] == "3" and "on 3 series." in one["tags"]["mlflow.note.content"]
        assert not [metric for metric, *_ in one["metrics"] if "building" in metric]
        assert "final/test_relative" in {metric for metric, *_ in one["metrics"]}
        table = json.loads((pending[name] / "artifacts" / "by_series.json").read_text())
        frame = pd.DataFrame(table["data"], columns=table["columns"]).set_index("series")
        assert set(frame.index) == set(NAMES) and frame["relative"].is_monotonic_decreasing
        assert frame.index[0] in one["tags"]["mlflow.note.content"]
        assert (pending[name] / "artifacts" / "by_series.png").read_bytes().startswith(b"\x89PNG")
        for series in NAMES if by_series else []:
            assert frame.loc[series, "mae"] == pytest.approx(by_series[series]["mae"], rel=1e-3)


# forecasts


def forecast(study: Path, *words: str) -> pd.DataFrame:
    out = study / "forecast.csv"
    out.unlink(missing_ok=True)
    cli.run("forecast", "--model", str(study / "runs" / "tuned-0"), "--out", str(out), *words)
    return pd.read_csv(out)


def test_one_series_is_found_by_its_file_or_by_its_name(study: Path, bundle: Bundle, files: Path) -> None:
    csv = files / "building-002.csv"
    direct = predict(bundle.only("building-002"), read_series(bundle.only("building-002"), csv))
    by_file = forecast(study, "--csv", str(csv), "--plot", str(study / "forecast.png"))
    assert list(by_file) == list(direct)
    np.testing.assert_allclose(by_file["forecast_kw"], direct["forecast_kw"], atol=1e-3)
    renamed = csv.rename(files.parent / "latest.csv")
    by_name = forecast(study, "--csv", str(renamed), "--series", "building-002")
    pd.testing.assert_frame_equal(by_name, by_file)
    with pytest.raises(InputError, match="was not trained on latest but on building-001, building-002, building-003"):
        forecast(study, "--csv", str(renamed))
    with pytest.raises(InputError, match="was not trained on elsewhere"):
        forecast(study, "--csv", str(renamed), "--series", "elsewhere")


def test_a_folder_and_a_zip_file_are_forecast_whole(study: Path, files: Path) -> None:
    packed = shutil.make_archive(str(files.parent / "packed"), "zip", files)
    whole = forecast(study, "--csv", str(files))
    assert whole.columns[0] == "series" and list(whole["series"].unique()) == NAMES and len(whole) == 72
    pd.testing.assert_frame_equal(forecast(study, "--csv", packed), whole)
    one = forecast(study, "--csv", str(files), "--series", "building-003")
    pd.testing.assert_frame_equal(
        one, whole[whole["series"] == "building-003"].drop(columns="series").reset_index(drop=True)
    )
    with pytest.raises(InputError, match="--plot draws one series, and there are 3: name one with --series"):
        forecast(study, "--csv", str(files), "--plot", "forecast.png")


def test_what_cannot_be_forecast_is_named_and_the_others_go_on(
    study: Path, files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (files / "building-001.csv").write_text("Date and time (UTC),TGBT\n2017-01-01 00:00,1\n")
    shutil.copy(files / "building-002.csv", files / "new.csv")
    with pytest.raises(InputError, match="no forecast of 2 of 4 series: building-001, new"):
        forecast(study, "--csv", str(files))
    assert list(pd.read_csv(study / "forecast.csv")["series"].unique()) == NAMES[1:]
    assert "building-001 has no forecast: " in caplog.text and "not trained on new but on" in caplog.text


def test_without_a_file_every_series_of_the_study_is_forecast(
    study: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS.read_text().replace("data/tidy", str(pool / "tidy")))
    whole = forecast(study)
    assert list(whole["series"].unique()) == NAMES
    one = forecast(study, "--series", "building-001")
    pd.testing.assert_frame_equal(one, whole[whole["series"] == "building-001"].drop(columns="series"))


def test_the_logged_model_takes_a_column_that_says_of_which_series_a_row_is(
    study: Path, bundle: Bundle, files: Path, tmp_path: Path
) -> None:
    model = ForecasterModel()
    model.load_context(SimpleNamespace(artifacts={"bundle": str(_lean_copy(bundle, tmp_path / "bundle"))}))
    examples = {name: input_example(bundle.only(name), files / f"{name}.csv") for name in NAMES[:2]}
    rows = pd.concat([table.assign(series=name) for name, table in examples.items()])
    answer = model.predict(None, rows.sample(frac=1, random_state=0).sort_values("Date and time (UTC)"))
    whole = forecast(study, "--csv", str(files)).set_index("series")
    for name in NAMES[:2]:
        got = answer[answer["series"] == name]
        np.testing.assert_allclose(got["forecast_kw"], whole.loc[name, "forecast_kw"], rtol=1e-3, atol=2e-3)
        np.testing.assert_allclose(got["high_kw"], whole.loc[name, "high_kw"], rtol=1e-3, atol=2e-3)
    with pytest.raises(InputError, match="no column 'series'"):
        model.predict(None, examples["building-001"])


# everything in a row


@pytest.mark.slow
def test_the_pipeline_runs_on_many_buildings(tmp_path: Path) -> None:
    project = fresh(tmp_path / "project")
    many = {"ingest.series": "each", "ingest.simulated.series": 3, "compare.methods": "[tuned]"}
    changes = QUICK | many | {"compare.baselines": "[same-hour-last-week,ridge]", "compare.against": "ridge"}
    apply_overrides(project / "params.yaml", [f"++{path}={value}" for path, value in changes.items()])
    assert "report: reports/tradeoff.html" in run(project, "dvc", "repro")
    report = json.loads((project / "reports" / "tradeoff.json").read_text())
    assert report["data"]["series"] == 3 and report["data"]["rows"] == 3 * QUICK["ingest.simulated.hours"]
    assert {name for one in report["accuracy"]["forecasts"] for name in one["by_series"]} == set(NAMES)
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("isotrain").experiment_id], "tags.`data.series` = '3'")
    assert {found.info.run_name for found in runs} == {"tuned-0", "ridge", "same-hour-last-week"}
    run(project, "isotrain", "forecast", "--out", "forecasts.csv")  # of the published forecaster
    assert list(pd.read_csv(project / "forecasts.csv")["series"].unique()) == NAMES


# the search


def test_a_trial_trains_on_all_series(pool: Path, windows: Windows, tmp_path: Path) -> None:
    here = tiny_place(tmp_path, windows)
    trained = objective(here)(job(here), lambda *_: None)
    error, seconds = trained.values
    assert 0 < error < 3 * np.nanstd(windows.truth) and seconds > 0
