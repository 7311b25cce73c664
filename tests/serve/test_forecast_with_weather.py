"""A forecaster that reads weather known ahead asks its file for the hours to come, and says so everywhere."""

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from tests.serve.small_forecaster import PARAMS, TIME_COLUMN, Fitted, make, numbers
from tests.serve.test_registry import answer_of_a_server

from isotrain.cli import run
from isotrain.config import Ingest
from isotrain.config.ingest import Column, Simulated
from isotrain.config.sections import Tracking
from isotrain.data.ingest import ingest, write
from isotrain.data.windows import KNOWN_AHEAD
from isotrain.errors import InputError
from isotrain.forecast.bundle import Bundle, load_bundle
from isotrain.report.fans import forecast_figure
from isotrain.serve.predict import end_known_ahead, past_and_future, predict, read_series
from isotrain.serve.registry import input_example, log_model

ORIGIN, K = 3000, 24
WORDS = "perfect weather forecast (AirTemp, Global_Solar_Flux)"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    columns = {
        **Ingest().columns,
        "AirTemp": Column(kind="temperature", ahead="perfect"),
        "Global_Solar_Flux": Column(kind="solar", ahead="perfect"),
    }
    tidy = ingest(Ingest(simulated=Simulated(seed=1, hours=24 * 7 * 20), columns=columns), Path())
    return make(tidy, tmp_path_factory.mktemp("ahead"), "plain")


@pytest.fixture(scope="module")
def bundle(fitted: Fitted) -> Bundle:
    return load_bundle(fitted.folder)


def file_with_future(fitted: Fitted, path: Path, hours: int = K) -> Path:
    """The series up to the origin, and after it the weather of some hours with everything else left empty."""
    fitted.csv(path, ORIGIN + hours)
    table = pd.read_csv(path)
    table.loc[ORIGIN:, ["TGBT", "Direct_Solar_Flux", "Diffuse_Solar_Flux"]] = np.nan
    table.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("hours", [K, K + 10])
def test_it_is_the_forecast_of_the_network_from_the_last_load_on(
    fitted: Fitted, bundle: Bundle, tmp_path: Path, hours: int
) -> None:
    answer = predict(bundle, read_series(bundle, file_with_future(fitted, tmp_path / "latest.csv", hours)))
    expected = fitted.net.forecast(torch.tensor([ORIGIN]))[0].numpy()
    np.testing.assert_allclose(answer["forecast_kw"], expected, rtol=1e-4)
    first = pd.Timestamp(answer["time_utc"].iloc[0]).timestamp()
    assert first == fitted.windows.time[ORIGIN] and len(answer) == K


def test_a_file_without_the_hours_to_come_is_refused_with_what_it_must_hold(
    fitted: Fitted, bundle: Bundle, tmp_path: Path
) -> None:
    wanted = r"AirTemp at 24 of them, .*Global_Solar_Flux at 24 of them, .*Add a row for each of these hours"
    with pytest.raises(InputError, match=wanted):
        predict(bundle, read_series(bundle, fitted.csv(tmp_path / "latest.csv", ORIGIN)))
    path = file_with_future(fitted, tmp_path / "latest.csv")
    table = pd.read_csv(path)
    table.loc[ORIGIN + 7, "AirTemp"] = np.nan
    table.to_csv(path, index=False)
    with pytest.raises(
        InputError, match=rf"latest\.csv lacks.*: AirTemp at 1 of them, the first {table[TIME_COLUMN][ORIGIN + 7][:16]}"
    ):
        predict(bundle, read_series(bundle, path))
    table.loc[ORIGIN + 7, "AirTemp"] = 290.0  # kelvin
    table.to_csv(path, index=False)
    with pytest.raises(InputError, match=r"AirTemp is 290 at .* UTC, an hour to be forecast; its limits are"):
        read_series(bundle, path)


def test_nothing_else_of_the_hours_to_come_is_read(fitted: Fitted, bundle: Bundle, tmp_path: Path) -> None:
    path = file_with_future(fitted, tmp_path / "latest.csv")
    before = numbers(predict(bundle, read_series(bundle, path)))
    table = pd.read_csv(path)
    table.loc[ORIGIN:, ["Direct_Solar_Flux", "Diffuse_Solar_Flux"]] = 500.0
    table.to_csv(path, index=False)
    np.testing.assert_array_equal(numbers(predict(bundle, read_series(bundle, path))), before)
    table.loc[ORIGIN:, "AirTemp"] += 5.0
    table.to_csv(path, index=False)
    assert not np.allclose(numbers(predict(bundle, read_series(bundle, path))), before)


def test_the_end_of_a_whole_series_serves_as_its_future(fitted: Fitted, bundle: Bundle) -> None:
    table = end_known_ahead(fitted.tidy.frame, bundle)
    past, future = past_and_future(table, "TGBT")
    assert (len(past), len(future)) == (len(fitted.tidy.frame) - K, K)
    expected = fitted.net.forecast(torch.tensor([len(past)]))[0].numpy()
    np.testing.assert_allclose(predict(bundle, table)["forecast_kw"], expected, rtol=1e-4)


def test_figure_description_and_log_say_what_was_known_ahead(
    fitted: Fitted, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert bundle.description.endswith(f" Learnt with {WORDS}.")
    figure = forecast_figure(bundle, end_known_ahead(fitted.tidy.frame, bundle))
    assert figure.get_suptitle().splitlines()[1] == f"learnt with {WORDS}"
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO")
    (tmp_path / "params.yaml").write_text(PARAMS.read_text())
    write(fitted.tidy, tmp_path / "data" / "tidy")
    run("forecast", "--model", str(fitted.folder), "--out", "forecast.csv")
    assert f"it learnt with {WORDS}" in caplog.text
    assert "the last 24 h of the series serve as what is known ahead" in caplog.text
    assert len(pd.read_csv("forecast.csv")) == K


def test_a_forecaster_that_leaves_it_out_asks_for_nothing(
    fitted: Fitted, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bundle, "reads", {"inputs": "plain", "leave_out": [KNOWN_AHEAD]})
    assert bundle.ahead == [] and "perfect" not in bundle.description
    assert end_known_ahead(fitted.tidy.frame, bundle) is fitted.tidy.frame


def test_the_example_of_a_model_holds_the_hours_to_come(fitted: Fitted, bundle: Bundle, tmp_path: Path) -> None:
    path = file_with_future(fitted, tmp_path / "latest.csv", K + 10)
    example = input_example(bundle, path)
    assert len(example) == bundle.needed_hours + 1 + K
    assert example["TGBT"].isna().sum() == K and example["AirTemp"].notna().all()
    example.to_csv(tmp_path / "example.csv", index=False)
    answers = [numbers(predict(bundle, read_series(bundle, file))) for file in (path, tmp_path / "example.csv")]
    np.testing.assert_allclose(*answers, rtol=1e-4)


@pytest.mark.slow
def test_mlflow_serves_rows_of_hours_to_come(
    fitted: Fitted, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.chdir(tmp_path)
    path = file_with_future(fitted, tmp_path / "latest.csv")
    uri = log_model(bundle, path, Tracking(experiment="study", uri=None))
    served = pd.DataFrame(answer_of_a_server(uri, input_example(bundle, path))["predictions"])
    np.testing.assert_allclose(numbers(served), numbers(predict(bundle, read_series(bundle, path))), rtol=1e-4)
    [made] = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert WORDS in made.data.tags["mlflow.note.content"] and made.data.tags["data.ahead"] == WORDS
