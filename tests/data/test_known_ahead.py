"""Columns known ahead: they alone are read at later hours, up to the last one forecast, by every forecast."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from isotrain.baselines import BASELINES, RESTORED
from isotrain.baselines.trees import EFFORTS, SETTINGS
from isotrain.config import Ingest, Window
from isotrain.config.ingest import Column, Simulated
from isotrain.data.ingest import Tidy, ingest
from isotrain.data.windowing import NEXT, apply_statistics, make_windows
from isotrain.data.windows import ARRAYS, KNOWN_AHEAD, Windows, ahead_words, needed_hours
from isotrain.errors import InputError
from isotrain.forecast.network import Forecaster
from isotrain.forecast.series import Series

HOURS, K = 24 * 7 * 20, 24
SPLIT = Window(history=48, horizon=K, train=0.6, validation=0.2, stride=1)
COLUMNS = {
    "TGBT": Column(kind="load"),
    "AirTemp": Column(kind="temperature", ahead="perfect"),
    "Global_Solar_Flux": Column(kind="solar"),
}
ORIGIN = HOURS - 100


@pytest.fixture(scope="module")
def tidy() -> Tidy:
    return ingest(Ingest(simulated=Simulated(seed=3, hours=HOURS), columns=COLUMNS), Path())


@pytest.fixture(scope="module")
def made(tidy: Tidy) -> Windows:
    return make_windows(tidy.frame, tidy.facts, SPLIT)


def of_group(windows: Windows) -> list[int]:
    return [i for i, column in enumerate(windows.meta["columns"]["ahead"]) if column["group"] == KNOWN_AHEAD]


def next_windows(tidy: Tidy, made: Windows, future: pd.DataFrame | None, **choice: object) -> Windows:
    return apply_statistics(tidy.frame.iloc[:ORIGIN], tidy.facts, made.meta, future=future, **choice)


def test_the_columns_are_the_value_and_the_days_mean_of_each_hour_forecast(tidy: Tidy, made: Windows) -> None:
    about = next(column for column in made.series[0]["statistics"]["weather"] if column["name"] == "AirTemp")
    standard = (tidy.frame["AirTemp"] - about["mean"]) / about["std"]
    names = [made.names("ahead")[i] for i in of_group(made)]
    assert names == ["AirTemp", "AirTemp_mean_24h"]
    assert [made.meta["columns"]["ahead"][i]["reach"] for i in of_group(made)] == [0, 23]
    value, mean = (made.ahead[:, i] for i in of_group(made))
    np.testing.assert_allclose(value[:HOURS], standard, atol=1e-5)
    np.testing.assert_allclose(mean[23:HOURS], standard.rolling(24).mean()[23:], atol=1e-5)
    assert set(of_group(made)) <= set(made.columns("ahead", "plain"))
    assert not set(of_group(made)) & set(made.columns("ahead", "rich", [KNOWN_AHEAD]))


def test_after_the_series_the_last_value_is_repeated_where_no_origin_reads(made: Windows) -> None:
    first = of_group(made)[0]
    assert (made.ahead[HOURS:, first] == made.ahead[HOURS - 1, first]).all()
    assert max(made.origins("test")) + K == HOURS


def test_nothing_else_differs_from_windows_without_it(tidy: Tidy, made: Windows) -> None:
    columns = {name: {**about, "ahead": None} for name, about in tidy.facts["ingest"]["columns"].items()}
    plain = make_windows(tidy.frame, tidy.facts | {"ingest": {**tidy.facts["ingest"], "columns": columns}}, SPLIT)
    assert not of_group(plain)
    for array in ARRAYS:
        np.testing.assert_array_equal(
            getattr(made, array)[:, made.columns(array, "rich", [KNOWN_AHEAD])],
            getattr(plain, array)[:, plain.columns(array, "rich", [KNOWN_AHEAD])],
        )
    assert ahead_words(plain.meta) == ""


def test_the_given_future_is_what_the_whole_series_holds_there(tidy: Tidy, made: Windows) -> None:
    future = tidy.frame.iloc[ORIGIN:]
    windows = next_windows(tidy, made, future)
    np.testing.assert_array_equal(windows.ahead[ORIGIN : ORIGIN + K], made.ahead[ORIGIN : ORIGIN + K])
    enough = tidy.frame.iloc[ORIGIN - needed_hours(made.meta) : ORIGIN].reset_index(drop=True)
    cut = apply_statistics(enough, tidy.facts, made.meta, future=future)
    np.testing.assert_array_equal(cut.ahead[-K:], made.ahead[ORIGIN : ORIGIN + K])


@pytest.mark.parametrize("name", ["ridge", "ridge-rich", "lightgbm-quick", "network"])
def test_every_forecast_reads_the_future_of_that_column_and_of_no_other(
    tidy: Tidy, made: Windows, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isotrain.baselines.trees.cores", lambda: 1)
    monkeypatch.setitem(EFFORTS, "quick", replace(EFFORTS["quick"], rounds=20))
    monkeypatch.setitem(SETTINGS, "feature_fraction", 1.0)  # few trees, of which some must read the column
    torch.manual_seed(0)
    fitted = None if name == "network" else BASELINES[name](made)
    net = Forecaster(Series(made, "plain"), hidden=4, layers=1, decoder=6, dropout=0.0, backend="torch", remember=None)
    torch.nn.init.normal_(net.decoder.out.weight)

    def forecast(future: pd.DataFrame) -> np.ndarray:
        windows = next_windows(tidy, made, future)
        if fitted is None:
            net.series = Series(windows, "plain")
            return net.forecast(torch.from_numpy(windows.origins(NEXT))).numpy()
        return RESTORED[name](windows, fitted.file)(windows.origins(NEXT))

    future = tidy.frame.iloc[ORIGIN:].reset_index(drop=True)
    before = forecast(future)
    colder = future.assign(AirTemp=future["AirTemp"] - 15.0)
    assert not np.allclose(forecast(colder), before)
    later = future.assign(AirTemp=future["AirTemp"].where(future.index < K, 99.0))
    np.testing.assert_array_equal(forecast(later), before)
    others = future.assign(TGBT=0.0, Global_Solar_Flux=1000.0)
    np.testing.assert_array_equal(forecast(others), before)


@pytest.mark.parametrize(
    ("future", "said"),
    [
        (lambda rows: None, "AirTemp at 24 of them"),
        (lambda rows: rows.iloc[: K - 3], "AirTemp at 3 of them"),
        (lambda rows: rows.drop(columns="AirTemp"), "AirTemp at 24 of them"),
        (lambda rows: rows.assign(AirTemp=rows["AirTemp"].where(rows.index != ORIGIN + 5)), "AirTemp at 1 of them"),
        (lambda rows: rows.iloc[1:], "AirTemp at 1 of them"),
    ],
)
def test_what_is_missing_of_the_future_is_named_with_what_to_add(
    tidy: Tidy, made: Windows, future: object, said: str
) -> None:
    rows = tidy.frame.iloc[ORIGIN:]
    with pytest.raises(InputError, match=f"{said}.*Add a row for each of these hours after the last value of TGBT"):
        next_windows(tidy, made, future(rows))  # type: ignore[operator]
    next_windows(tidy, made, None, leave_out=[KNOWN_AHEAD])  # who does not read it needs none


def test_a_load_is_not_known_ahead() -> None:
    with pytest.raises(ValidationError, match="ahead: known does not fit kind 'sub_load': a load is forecast"):
        Column(kind="sub_load", ahead="known")


def test_the_words_name_what_is_perfect_and_what_is_known() -> None:
    price = Column(kind="other", ahead="known")
    columns = {**COLUMNS, "Price": price, "Global_Solar_Flux": Column(kind="solar", ahead="perfect")}
    series = {"ingest": Ingest(columns=columns).model_dump(mode="json")}
    assert ahead_words(series) == "perfect weather forecast (AirTemp, Global_Solar_Flux); known ahead: Price"  # type: ignore[arg-type]
