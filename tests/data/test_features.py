"""Verbs against pandas, columns against hand-made ones, histories that are just long enough, missing weather."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrain.config import Ingest, Window
from isotrain.config.ingest import Simulated
from isotrain.config.sections import FeatureGroup
from isotrain.data.calendar import climatology, usual
from isotrain.data.features import FEATURES, Family
from isotrain.data.ingest import Tidy, ingest
from isotrain.data.signals import Known, Past
from isotrain.data.windowing import apply_statistics, describe, make_windows
from isotrain.data.windows import ARRAYS, Windows, needed_hours
from isotrain.errors import InputError

HOURS = 24 * 7 * 12
SPLIT = Window(history=48, horizon=24, train=0.6, validation=0.2, stride=1)


@pytest.fixture(scope="module")
def tidy() -> Tidy:
    return ingest(Ingest(simulated=Simulated(seed=3, hours=HOURS)), Path())


@pytest.fixture(scope="module")
def made(tidy: Tidy) -> Windows:
    return make_windows(tidy.frame, tidy.facts, SPLIT)


def without(tidy: Tidy, *kinds: str) -> Tidy:
    kept = {name: about for name, about in tidy.facts["columns"].items() if about["kind"] not in kinds}
    gone = [name for name in tidy.facts["columns"] if name not in kept]
    return replace(tidy, frame=tidy.frame.drop(columns=gone), facts=tidy.facts | {"columns": kept})


def column(windows: Windows, array: str, name: str) -> np.ndarray:
    return np.asarray(getattr(windows, array)[:, windows.names(array).index(name)])


series = st.lists(st.floats(-100, 100), min_size=1, max_size=80).map(np.array)


@given(series, st.integers(1, 40), st.floats(0, 1))
def test_windows_of_the_past_are_those_of_pandas(values: np.ndarray, hours: int, share: float) -> None:
    past, rolling = Past(values, 24), pd.Series(values).rolling(hours, min_periods=1)
    np.testing.assert_allclose(past.mean(hours).values, rolling.mean(), atol=1e-9)
    np.testing.assert_allclose(past.spread(hours).values, rolling.std().fillna(0), atol=1e-5)
    np.testing.assert_allclose(past.quantile(hours, share).values, rolling.quantile(share), atol=1e-9)
    np.testing.assert_array_equal(past.lag(hours).values, pd.Series(values).shift(hours).fillna(values[0]))


@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_a_kind_of_day_is_looked_for_day_by_day(horizon: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    load = Past(rng.normal(size=24 * 25), horizon)
    kind = Known(rng.integers(0, 2, 24 * 25 + horizon).astype(float), horizon)
    found = load.same_kind_of_day(kind, count).values
    first = -(-horizon // 24)
    for hour in rng.integers(24 * (first + 13), len(found), 20):
        days = [d for d in range(first, first + 14) if kind.values[hour - 24 * d] == kind.values[hour]][:count]
        truth = np.mean([load.values[hour - 24 * d] for d in days or [first]])
        assert found[hour] == pytest.approx(truth)


def test_verbs_refuse_to_look_ahead() -> None:
    load = Past(np.arange(500.0), 30)
    with pytest.raises(ValueError, match="would use later hours"):
        load.lag(-1)
    with pytest.raises(ValueError, match="not yet known 30 h ahead"):
        load.days_before(1)
    assert len(load.days_before(2).values) == 530
    np.testing.assert_array_equal(load.days_before(2).values[48:], np.arange(482.0))


def test_an_array_takes_only_what_is_known_at_its_rows(tidy: Tidy) -> None:
    wrong = Family("ahead", "load", lambda s: {"load": s.load})
    with pytest.raises(TypeError, match="load is a Past, which is not what ahead holds"):
        make_windows(tidy.frame, tidy.facts, SPLIT, (*FEATURES, wrong))


@pytest.mark.parametrize("inputs", ["plain", "rich"])
@pytest.mark.parametrize("horizon", [1, 24, 30])
@pytest.mark.parametrize("end", [HOURS, HOURS - 131])
def test_a_history_just_long_enough_gives_every_bit(tidy: Tidy, inputs: str, horizon: int, end: int) -> None:
    """So the reach of every column is true, and the first origin of the training part has its whole past."""
    whole = make_windows(tidy.frame, tidy.facts, SPLIT.model_copy(update={"horizon": horizon}))
    stored = json.loads(json.dumps(whole.meta))
    needed = needed_hours(stored, inputs)
    tail = tidy.frame.iloc[end - needed : end].reset_index(drop=True)
    new = apply_statistics(tail, tidy.facts, stored, inputs=inputs)
    assert new.origins("next").tolist() == [needed]
    rows = {"inputs": SPLIT.history, "ahead": horizon, "lags": horizon, "origin": 1, "recent": 1}
    for array, count in rows.items():
        use = whole.columns(array, inputs)
        last = end + horizon if array in ("ahead", "lags") else end
        old = getattr(whole, array)[last - count : last, use]
        np.testing.assert_array_equal(old, getattr(new, array)[-count:, use], err_msg=array)
    assert (new.level[-1], new.spread[-1]) == (whole.level[end - 1], whole.spread[end - 1])
    with pytest.raises(InputError, match=f"has {needed - 1} h of history; {inputs} inputs look back over {needed} h"):
        apply_statistics(tail.iloc[1:], tidy.facts, stored, inputs=inputs)


def test_the_reach_is_no_longer_than_it_must_be(tidy: Tidy) -> None:
    assert make_windows(tidy.frame, tidy.facts, SPLIT).origins("train")[0] == 47 + 14 * 24 + 1
    spread_out = SPLIT.model_copy(update={"history": 168})
    meta = make_windows(tidy.frame, tidy.facts, spread_out).meta
    assert needed_hours(meta, "rich") == 167 + 14 * 24 + 1  # the same kind of day, at the encoder's first hour
    assert needed_hours(meta, "plain") == 167 + 168  # the level, there


def test_new_data_must_have_the_columns(tidy: Tidy, made: Windows) -> None:
    poor = without(tidy, "temperature")
    with pytest.raises(InputError, match="lacks AirTemp, which the forecaster was trained on: it needs TGBT, AirTemp"):
        apply_statistics(poor.frame, poor.facts, made.meta)


def test_stored_statistics_give_the_same_windows(tidy: Tidy, made: Windows) -> None:
    again = apply_statistics(tidy.frame, tidy.facts, made.meta)
    for array in ARRAYS:
        np.testing.assert_array_equal(getattr(made, array), getattr(again, array))
    assert again.ahead.shape[0] == again.lags.shape[0] == HOURS + 24


def test_columns_say_what_they_are(tidy: Tidy, made: Windows) -> None:
    load, scale = tidy.frame["TGBT"], made.series[0]["statistics"]["scale"]
    level = load.rolling(168, min_periods=1).mean()
    ago = load.shift(24)
    truths = {
        ("inputs", "load"): (load - level) / scale,
        ("inputs", "load_lag_24h"): (ago - level) / scale,
        ("origin", "load_lag_0h"): (load - level) / scale,
        ("origin", "load_mean_3h_change_24h"): (load.rolling(3).mean() - ago.rolling(3).mean()) / scale,
        ("origin", "load_high_24h"): (load.rolling(24).quantile(0.95) - level) / scale,
        ("recent", "load_lag_169h"): load.shift(169),
        ("recent", "load_low_24h"): load.rolling(24).quantile(0.05),
        ("lags", "load_14d_before"): load.shift(14 * 24),
    }
    for (array, name), truth in truths.items():
        found = column(made, array, name)[:HOURS]
        np.testing.assert_allclose(found[400:], truth[400:], rtol=1e-4, atol=1e-5, err_msg=name)
    temperature = tidy.frame["AirTemp"]
    trained = temperature[: int(0.6 * HOURS)]
    standard = (temperature - trained.mean()) / trained.std()
    np.testing.assert_allclose(column(made, "ahead", "temperature_1d_before")[24:], standard, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        column(made, "origin", "temperature_mean_72h")[72:], standard.rolling(72).mean()[72:], rtol=1e-4, atol=1e-5
    )


def test_a_working_day_is_compared_with_working_days(made: Windows) -> None:
    start = pd.Timestamp("2017-01-01", tz="UTC")
    noon = int((pd.Timestamp("2017-03-20 12:00", tz="UTC") - start).total_seconds()) // 3600  # a Monday
    same = column(made, "lags", "load_same_day_type_1")
    assert same[noon] == made.target[noon - 72]  # Friday
    assert same[noon + 24] == made.target[noon]
    saturday = noon + 5 * 24
    assert same[saturday] == made.target[saturday - 6 * 24]  # the Sunday before
    three = column(made, "lags", "load_same_day_type_3")
    assert three[noon] == pytest.approx(made.target[[noon - 72, noon - 96, noon - 120]].mean())


def test_plain_is_the_series_the_weather_and_the_calendar(made: Windows) -> None:
    calendar = [c["name"] for c in made.meta["columns"]["ahead"] if c["group"] == "calendar"]
    plain = {array: [made.names(array)[i] for i in made.columns(array, "plain")] for array in ARRAYS}
    weather = ["AirTemp", "Global_Solar_Flux", "Direct_Solar_Flux", "Diffuse_Solar_Flux"]
    assert plain["inputs"] == ["load", *weather, *calendar]
    assert plain["ahead"] == calendar and len(calendar) == made.calendar.shape[1] == 20
    assert plain["lags"] == ["load_1d_before", "load_7d_before"]
    assert plain["recent"] == [f"load_lag_{hours}h" for hours in (0, 1, 2, 3, 23, 24, 25, 167, 168, 169)]
    assert plain["origin"] == []
    np.testing.assert_array_equal(made.calendar, made.ahead[:, made.columns("ahead", "plain")])


@pytest.mark.parametrize(("horizon", "days"), [(1, [1, 7]), (48, [2, 7]), (169, [8, 14])])
def test_the_main_lags_are_the_first_that_are_known(tidy: Tidy, horizon: int, days: list[int]) -> None:
    made = make_windows(tidy.frame, tidy.facts, SPLIT.model_copy(update={"horizon": horizon}))
    names = [made.names("lags")[i] for i in made.columns("lags", "plain")]
    assert names == [f"load_{d}d_before" for d in days]
    back = [int(name.split("_")[1].removesuffix("d")) for name in made.names("lags") if name.endswith("d_before")]
    assert len(back) == len(set(back)) == 8 and min(back) * 24 >= horizon


def test_groups_can_be_left_out(made: Windows) -> None:
    rich = made.columns("origin")
    fewer = made.columns("origin", leave_out=["weather_history", "climate"])
    gone = {made.names("origin")[i] for i in set(rich.tolist()) - set(fewer.tolist())}
    assert gone and all(name.startswith(("temperature", "solar")) for name in gone)
    assert not any("temperature" in made.names("origin")[i] for i in fewer)
    with pytest.raises(InputError, match=r"no group of features 'wether' to leave out: use calendar, climate"):
        made.columns("inputs", leave_out=["wether"])


@pytest.mark.parametrize("kinds", [("temperature", "solar"), ("temperature",), ("solar",)])
def test_without_weather_the_rest_is_as_it_was(tidy: Tidy, made: Windows, kinds: tuple[str, ...]) -> None:
    poor = without(tidy, *kinds)
    other = make_windows(poor.frame, poor.facts, SPLIT)
    assert set(other.meta["left_out"]) == set(kinds)
    for kind, groups in other.meta["left_out"].items():
        assert {"weather", "weather_history"} <= set(groups)
        assert describe(other)[f"left_out_without_{kind}"] == ", ".join(groups)
    for array in ARRAYS:
        names = other.names(array)
        assert len(names) == len(set(names))
        kept = [made.names(array).index(name) for name in names]
        np.testing.assert_array_equal(getattr(other, array), getattr(made, array)[:, kept])
    assert other.columns("inputs", leave_out=["climate"]).size  # a group may be left out that this series lacks
    assert describe(made).keys() == {"columns", "train_origins", "validation_origins", "test_origins"}


def test_any_load_can_be_the_target_and_no_other_is_read(tidy: Tidy) -> None:
    facts = tidy.facts | {"target": "T7"}
    made = make_windows(tidy.frame, facts, SPLIT)
    np.testing.assert_allclose(made.target, tidy.frame["T7"], rtol=1e-6)
    others = tidy.frame.assign(**dict.fromkeys(("TGBT", "T1", "T2"), 1.0))
    again = make_windows(others, facts, SPLIT)
    for array in ARRAYS:
        np.testing.assert_array_equal(getattr(made, array), getattr(again, array))


def test_what_is_usual_goes_smoothly_around_the_year() -> None:
    hours = pd.date_range("2018-01-01", "2019-12-31 23:00", freq="h", tz="UTC")
    season = np.cos(2 * np.pi * hours.day_of_year.to_numpy() / 365.25)
    climate = climatology(season + np.tile([-1.0, 1.0], len(hours) // 2), hours)
    assert len(climate) == 366 and climate[365] == pytest.approx(climate[0], abs=0.02)
    np.testing.assert_allclose(usual(climate, hours), season, atol=0.02)
    leap = pd.DatetimeIndex(["2020-12-31 12:00"], tz="UTC")
    assert usual(climate, leap)[0] == climate[365]


def test_what_is_usual_on_unseen_days_lies_between_those_seen() -> None:
    hours = pd.DatetimeIndex(["2018-01-20 12:00", "2018-12-01 12:00"], tz="UTC")
    climate = np.array(climatology(np.array([0.0, 1.0]), hours))
    assert climate.min() >= 0 and climate.max() <= 1
    assert np.all(np.diff(climate[40:320]) > 0)


def test_the_target_row_knows_the_buildings_own_midnight(made: Windows) -> None:
    start = pd.Timestamp(made.time[0], unit="s", tz="UTC")
    sunday = column(made, "ahead", "weekday_6")
    hour = {stamp: int((pd.Timestamp(stamp, tz="UTC") - start).total_seconds()) // 3600 for stamp in (
        "2017-03-18 22:00", "2017-03-18 23:00", "2017-03-25 22:00", "2017-03-25 23:00", "2017-03-26 21:00",
        "2017-03-26 22:00")}  # fmt: skip
    # winter: Sunday from 23:00 UTC on; 26 March, the day of the change, ends at 22:00 UTC: 23 hours
    assert [sunday[at] for at in hour.values()] == [0, 1, 0, 1, 1, 0]


def test_the_page_lists_every_column_with_its_group_and_set(made: Windows) -> None:
    page = (Path(__file__).parents[2] / "docs" / "features.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines()]
    listed = {
        (array, row[1], row[2], name)
        for row in rows
        if len(row) == 5
        for array in row[0].replace("`", "").split(", ")
        for name in re.findall("`(.+?)`", row[3])
    }
    there = {
        (array, about["group"], "plain" if about["plain"] else "rich", about["name"])
        for array in ARRAYS
        for about in made.meta["columns"][array]
    }
    assert listed == there


def test_params_yaml_knows_every_group_of_features_and_no_other() -> None:
    assert sorted({family.group for family in FEATURES}) == sorted(get_args(FeatureGroup))


def test_another_regressor_is_one_scaled_series_of_both_input_sets(tidy: Tidy) -> None:
    about = tidy.facts["columns"] | {"T2": {"unit": "EUR", "kind": "other"}}
    windows = make_windows(tidy.frame, tidy.facts | {"columns": about}, SPLIT)
    price, trained = tidy.frame["T2"].to_numpy(), tidy.frame["T2"].iloc[: int(len(tidy.frame) * SPLIT.train)]
    np.testing.assert_allclose(column(windows, "inputs", "T2"), (price - trained.mean()) / trained.std(), atol=1e-5)
    for inputs in ("plain", "rich"):
        chosen = windows.columns("inputs", inputs)
        assert windows.names("inputs").index("T2") in chosen
    assert "T2" not in {name for array in ARRAYS if array != "inputs" for name in windows.names(array)}
