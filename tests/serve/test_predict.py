"""A forecast from a file is the one that the trained network gives at the same origin, whatever the file's form."""

import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
import torch
from tests.serve.small_forecaster import READ, Fitted, numbers

from isotrain.config.ingest import Column, File
from isotrain.errors import InputError
from isotrain.files import read_json, write_json
from isotrain.forecast.bundle import best_bundle, load_bundle
from isotrain.forecast.intervals import calibrate
from isotrain.report.fans import forecast_figure
from isotrain.serve.predict import predict, read_series


@pytest.mark.parametrize("origin", [1000, 1999, 3000])
def test_it_is_the_forecast_of_the_network_at_that_origin(fitted: Fitted, tmp_path: Path, origin: int) -> None:
    bundle = load_bundle(fitted.folder)
    answer = predict(bundle, read_series(bundle, fitted.csv(tmp_path / "latest.csv", origin)))
    expected = fitted.net.forecast(torch.tensor([origin]))[0].numpy()
    np.testing.assert_allclose(answer["forecast_kw"], expected, rtol=1e-4)
    seconds = [datetime.fromisoformat(stamp).timestamp() for stamp in answer["time_utc"]]
    assert seconds == list(fitted.windows.time[origin : origin + 24])
    assert [datetime.fromisoformat(stamp).timestamp() for stamp in answer["time_local"]] == seconds
    assert list(answer["lead_h"]) == list(range(1, 25))


def test_the_shortest_history_is_enough_and_one_hour_less_is_refused(fitted: Fitted, tmp_path: Path) -> None:
    bundle = load_bundle(fitted.folder)
    table = read_series(bundle, fitted.csv(tmp_path / "latest.csv"))
    enough = table.tail(bundle.needed_hours).reset_index(drop=True)
    np.testing.assert_allclose(numbers(predict(bundle, enough)), numbers(predict(bundle, table)), rtol=1e-5)
    with pytest.raises(InputError, match=rf"{bundle.needed_hours - 1} h.*{bundle.needed_hours} h"):
        predict(bundle, enough.iloc[1:].reset_index(drop=True))


def test_local_stamps_follow_the_clock_over_its_change(plain: Fitted, tmp_path: Path) -> None:
    bundle = load_bundle(plain.folder)
    table = read_series(bundle, plain.csv(tmp_path / "latest.csv"))
    until = table[table["time"] <= pd.Timestamp("2017-03-25 22:00", tz="UTC")]
    answer = predict(bundle, until)
    assert list(answer["time_local"][:4]) == [
        "2017-03-26T00:00:00+01:00",
        "2017-03-26T01:00:00+01:00",
        "2017-03-26T03:00:00+02:00",
        "2017-03-26T04:00:00+02:00",
    ]
    assert answer["time_utc"].iloc[0] == "2017-03-25T23:00:00+00:00"
    assert answer["time_local"].iloc[-1] == "2017-03-27T00:00:00+02:00"


def test_a_file_of_another_form_gives_the_same_forecast(plain: Fitted, tmp_path: Path) -> None:
    bundle = load_bundle(plain.folder)
    expected = predict(bundle, read_series(bundle, plain.csv(tmp_path / "plain.csv")))
    raw = plain.tidy.raw[READ]
    other = raw.assign(TGBT=-1000 * raw["TGBT"]).rename(columns={"TGBT": "Usage"})
    local = pd.DatetimeIndex(raw.index).tz_convert(ZoneInfo("Europe/Paris"))
    other.insert(0, "when", local.strftime("%d/%m/%Y %H:%M"))
    other.to_csv(tmp_path / "other.csv", index=False, sep=";", decimal=",")
    form = File(time_column="when", time_zone="Europe/Paris", time_format="%d/%m/%Y %H:%M", separator=";", decimal=",")
    columns = {**bundle.ingest.columns, "TGBT": Column(kind="load", name="Usage", unit="W", sign=-1)}
    there = replace(bundle, ingest=bundle.ingest.model_copy(update={"file": form, "columns": columns}))
    answer = predict(there, read_series(there, tmp_path / "other.csv"))
    assert list(answer["time_utc"]) == list(expected["time_utc"])
    np.testing.assert_allclose(numbers(answer), numbers(expected), rtol=1e-4)


def test_a_missing_column_is_named_with_all_that_is_read(plain: Fitted, tmp_path: Path) -> None:
    bundle = load_bundle(plain.folder)
    path = plain.csv(tmp_path / "latest.csv")
    pd.read_csv(path).drop(columns="AirTemp").to_csv(path, index=False)
    with pytest.raises(InputError, match=r"no column 'AirTemp'.*reads .*'TGBT' in kW, 'AirTemp' in degC"):
        read_series(bundle, path)


def test_missing_last_hours_are_said(plain: Fitted, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = plain.csv(tmp_path / "latest.csv")
    table = pd.read_csv(path)
    table.loc[len(table) - 5 :, "TGBT"] = np.nan
    table.to_csv(path, index=False)
    bundle = load_bundle(plain.folder)
    answer = predict(bundle, read_series(bundle, path))
    assert "the last 5 h of TGBT are missing" in caplog.text
    assert np.isfinite(numbers(answer)).all()


def test_intervals_are_those_of_the_validation_part(plain: Fitted, tmp_path: Path) -> None:
    bundle = load_bundle(plain.folder)
    table = read_series(bundle, plain.csv(tmp_path / "latest.csv", 3000))
    answer = predict(bundle, table, 0.5)
    origins = plain.windows.origins("validation")
    residuals = plain.windows.targets(origins) - plain.net.forecast(torch.from_numpy(origins)).numpy()
    target_hours = np.concatenate([origins, [3000]])[:, None] + np.arange(24)
    working = working_day(plain.windows.time[target_hours])
    limits = calibrate(residuals, working[:-1], 0.5)
    row = working[-1].astype(int)
    np.testing.assert_allclose(answer["low_kw"] - answer["forecast_kw"], limits.low[row, np.arange(24)], atol=1e-3)
    np.testing.assert_allclose(answer["high_kw"] - answer["forecast_kw"], limits.high[row, np.arange(24)], atol=1e-3)


def working_day(seconds: np.ndarray) -> np.ndarray:
    """Of early 2017 in France, written out by hand: a week-end, a holiday or a bridge (26 May) is none."""
    free = ["01-01", "01-02", "04-17", "05-01", "05-08", "05-25", "05-26"]
    local = pd.DatetimeIndex(pd.to_datetime(seconds.ravel(), unit="s", utc=True)).tz_convert("Europe/Paris")
    return ((local.day_of_week < 5) & ~local.strftime("%m-%d").isin(free)).reshape(seconds.shape)


def test_a_refit_has_no_intervals_and_says_so(plain: Fitted, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bundle = replace(load_bundle(plain.folder), residuals=None, working=None)
    table = read_series(bundle, plain.csv(tmp_path / "latest.csv"))
    answer = predict(bundle, table)
    assert answer[["low_kw", "high_kw"]].isna().all(axis=None) and answer["forecast_kw"].notna().all()
    assert "no intervals" in caplog.text
    assert forecast_figure(bundle, table).axes[0].get_legend_handles_labels()[1] == ["measured", "forecast"]


def test_a_refit_may_take_the_errors_of_its_like(plain: Fitted) -> None:
    like = load_bundle(plain.folder)
    refit = replace(like, residuals=None, working=None)
    np.testing.assert_array_equal(refit.with_errors_of(like).intervals(0.8).low, like.intervals(0.8).low)
    with pytest.raises(InputError, match="so it has no validation errors"):
        like.with_errors_of(refit)
    with pytest.raises(InputError, match="T7 24 h ahead"):
        refit.with_errors_of(replace(like, meta={**like.meta, "target": "T7"}))


def test_no_lower_end_is_below_what_is_possible(plain: Fitted, tmp_path: Path) -> None:
    bundle = load_bundle(plain.folder)
    wild = replace(bundle, residuals=bundle.residuals * 100)
    answer = predict(wild, read_series(wild, plain.csv(tmp_path / "latest.csv")), 0.9)
    assert (answer["low_kw"] == 0.0).all()
    assert (answer["high_kw"] > answer["forecast_kw"] + 50).all()


def test_without_a_name_the_one_with_the_least_error_on_validation_is_taken(plain: Fitted, tmp_path: Path) -> None:
    about = read_json(plain.folder / "forecaster.json")
    for name, error in (("a", 5.0), ("b", 4.0), ("c", 4.5), ("refit", None)):
        write_json(tmp_path / name / "forecaster.json", about)
        write_json(tmp_path / name / "result.json", {"val_mae": error})
    assert best_bundle(tmp_path).name == "b"
    with pytest.raises(InputError, match="no trained forecaster"):
        best_bundle(tmp_path / "a")


def test_what_is_no_bundle_is_refused(plain: Fitted, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape("forecaster.json is missing")):
        load_bundle(tmp_path)
    write_json(tmp_path / "forecaster.json", {**read_json(plain.folder / "forecaster.json"), "format": 99})
    (tmp_path / "model.ckpt").write_bytes((plain.folder / "model.ckpt").read_bytes())
    with pytest.raises(InputError, match="format 99"):
        load_bundle(tmp_path)
