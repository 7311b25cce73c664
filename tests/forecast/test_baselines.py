"""Scores by hand, naive forecasts by index, linear ones where the answer is known, and no baseline sees the future."""

import dataclasses
from collections import Counter
from datetime import UTC, datetime
from typing import get_args
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from isotrain.baselines import BASELINES, RESTORED, score
from isotrain.baselines.linear import PENALTIES, Design, linear, reservoir, ridge
from isotrain.baselines.naive import hour_of_week, previous_alike, same_day_type, same_hour, working
from isotrain.baselines.trees import EFFORTS, SETTINGS
from isotrain.config.sections import BaselineName
from isotrain.data.windows import OfSeries, Windows
from isotrain.forecast.forecasts import scores

ARRAYS = ("inputs", "origin", "recent", "target", "truth", "level", "spread")
AHEAD = ("ahead", "lags")
CHEAP = [name for name in BASELINES if not name.startswith("lightgbm")]


@pytest.fixture(autouse=True)
def small_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """One core and a few small trees: what is tested does not depend on them."""
    monkeypatch.setattr("isotrain.baselines.trees.cores", lambda: 1)
    few = {name: dataclasses.replace(effort, rounds=20) for name, effort in EFFORTS.items()}
    monkeypatch.setattr("isotrain.baselines.trees.EFFORTS", few)
    small = {"learning_rate": 0.5, "num_leaves": 7, "feature_fraction": 1.0}
    monkeypatch.setattr("isotrain.baselines.trees.SETTINGS", SETTINGS | small)


def test_scores_by_hand(windows: Windows) -> None:
    """Two origins of two leads; in a series whose standard deviation is 4 kW."""
    truth = np.array([1.0, np.nan, 9.0, 3.0, 4.0], np.float32)
    forecast = np.array([[2.0, 9.0], [3.0, 2.0]], np.float32)
    one = windows.series[0]
    series: list[OfSeries] = [{**one, "mase_scale": 2.0, "statistics": {**one["statistics"], "scale": 4.0}}]
    two = dataclasses.replace(windows, truth=truth, meta={**windows.meta, "horizon": 2, "series": series})
    origins = np.array([0, 3])
    answer = scores(two, origins, forecast)
    assert answer["mae"] == pytest.approx(1.0)  # errors 1, 0, 2 over three known hours
    assert answer["rmse"] == pytest.approx((5 / 3) ** 0.5)
    assert answer["mase"] == pytest.approx(0.5)
    assert answer["relative"] == pytest.approx(0.25)
    assert answer["mae_by_lead"] == pytest.approx([0.5, 2.0])
    assert answer["by_series"] == {}
    assert np.isnan(scores(two, origins, np.full((2, 2), np.nan, np.float32))["mae"])


def test_params_yaml_may_name_every_baseline() -> None:
    assert set(get_args(BaselineName)) == set(BASELINES)


def test_naive_forecasts_look_back_whole_days(windows: Windows) -> None:
    origins = np.array([600, 777])
    hours = origins[:, None] + np.arange(24)
    np.testing.assert_array_equal(same_hour(1)(windows)(origins), windows.target[hours - 24])
    np.testing.assert_array_equal(same_hour(7)(windows)(origins), windows.target[hours - 168])
    longer = dataclasses.replace(windows, meta=windows.meta | {"horizon": 30})
    hours = origins[:, None] + np.arange(30)
    back = np.where(np.arange(30) < 24, 24, 48)  # beyond a day, yesterday is not yet known
    np.testing.assert_array_equal(same_hour(1)(longer)(origins), windows.target[hours - back])


def test_the_same_day_type_is_the_last_known_hour_of_equal_clock_and_kind(windows: Windows) -> None:
    zone = ZoneInfo(windows.series[0]["time_zone"])
    clock = np.array([datetime.fromtimestamp(int(t), UTC).astimezone(zone).hour for t in windows.time])
    kind = working(windows)[: len(clock)]
    assert {*kind} == {0, 1}
    change = np.flatnonzero(np.diff(clock) == 2)  # the night in March that lacks an hour
    assert len(change) == 1
    origins = np.array([600, 700, int(change[0]) - 30, int(change[0]) + 1, int(change[0]) + 50])
    answer = same_day_type(windows)(origins)
    for row, origin in enumerate(origins):
        for lead in range(24):
            f = origin + lead
            known = [h for h in range(origin) if clock[h] == clock[f] and kind[h] == kind[f]]
            assert answer[row, lead] == windows.target[known[-1]]


def test_where_nothing_alike_is_known_the_level_stands_in(windows: Windows) -> None:
    answer = same_day_type(windows)(np.array([3]))
    np.testing.assert_array_equal(answer[0, 3:6], windows.level[[2, 2, 2]])
    assert previous_alike(np.array([5, 6, 5, 5, 6])).tolist() == [-1, -1, 0, 2, 1]


def test_the_hour_of_the_week_is_the_buildings(windows: Windows) -> None:
    zone = ZoneInfo(windows.series[0]["time_zone"])
    for hour in range(0, len(windows.time), 97):
        local = datetime.fromtimestamp(int(windows.time[hour]), UTC).astimezone(zone)
        assert hour_of_week(windows)[hour] == local.weekday() * 24 + local.hour


def test_ridge_learns_a_weekly_pattern(windows: Windows) -> None:
    hour = np.arange(len(windows.target))
    pattern = (30 + 10 * np.sin(2 * np.pi * hour / 168) + 5 * np.cos(2 * np.pi * hour / 24)).astype(np.float32)
    level = np.full_like(pattern, 30)
    known = dataclasses.replace(windows, target=pattern, truth=pattern, level=level)
    origins = known.origins("test")
    error = np.abs(ridge("plain")(known)(origins) - known.targets(origins)).mean()
    assert error < 0.3  # of an amplitude of 15: the penalty shrinks a little


def test_normal_equations_in_blocks_give_the_ridge_of_the_whole_table(windows: Windows) -> None:
    design = Design(lambda o: windows.inputs[o - 1], lambda o, lead: windows.ahead[o + lead])
    forecast = linear(windows, design, refit=False)
    train = windows.origins("train")
    train = train[~np.isnan(windows.targets(train)).any(1)]
    x = np.hstack([windows.inputs[train - 1], windows.ahead[train + 5]]).astype(np.float64)
    level, scale = windows.level[train - 1], windows.series[0]["statistics"]["scale"]
    test = windows.origins("test")[:50]
    rows = np.hstack([windows.inputs[test - 1], windows.ahead[test + 5]])
    answers = []
    for penalty in PENALTIES:  # as a least-squares problem with the penalty's rows below the table
        table = np.vstack([x, np.sqrt(penalty) * np.eye(x.shape[1])])
        goal = np.concatenate([(windows.targets(train)[:, 5] - level) / scale, np.zeros(x.shape[1])])
        answers.append(rows @ np.linalg.lstsq(table, goal)[0] * scale + windows.level[test - 1])
    own = forecast(test)[:, 5]
    assert min(np.abs(own - answer).max() for answer in answers) < 2e-3
    assert forecast.parameters == 24 * x.shape[1]


def test_the_reservoir_forgets_and_never_looks_ahead() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((400, 3)).astype(np.float32)
    other = inputs.copy()
    other[:50] = 0
    states, after = reservoir(inputs, 40), reservoir(other, 40)
    assert np.abs(states[49] - after[49]).max() > 0.01
    assert np.abs(states[-1] - after[-1]).max() < 1e-3  # the echo-state property
    other = inputs.copy()
    other[200:] = np.nan
    np.testing.assert_array_equal(reservoir(other, 40)[:200], states[:200])


@pytest.mark.parametrize("name", [*CHEAP, "lightgbm-rich", "lightgbm-quick"])
def test_a_fitted_baseline_reads_nothing_from_its_origin_on(name: str, windows: Windows) -> None:
    copies = {array: getattr(windows, array).copy() for array in (*ARRAYS, *AHEAD)}
    own = dataclasses.replace(windows, **copies)
    origin = int(own.origins("test")[40])
    forecast = BASELINES[name](own)
    before = forecast(np.array([origin]))
    for array in ARRAYS:
        copies[array][origin:] = np.nan  # the arrays that the fitted forecast indexes
    for array in AHEAD:
        copies[array][origin + 24 :] = np.nan
    np.testing.assert_array_equal(forecast(np.array([origin])), before)
    assert np.isfinite(before).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ridge-refit", "echo-state-refit", "lightgbm-rich-refit"])
def test_only_a_refit_learns_from_the_validation_part(name: str, windows: Windows) -> None:
    first, last = windows.ranges("validation")[0]
    copies = {"truth": windows.truth.copy()}
    copies["truth"][first + 24 : last] *= 1.3
    other = dataclasses.replace(windows, **copies)
    row, arrays, _ = score(name, BASELINES[name], windows)
    after = BASELINES[name](other)
    assert after.refit and row["refit"]
    assert np.abs(after(windows.origins("test")) - arrays["prediction"]).max() > 0.01
    assert row["val_mae"] is None
    assert set(arrays) == {"origins", "prediction", "truth", "time"}


def test_a_score_is_that_of_its_own_forecasts(windows: Windows) -> None:
    row, arrays, _ = score("ridge", BASELINES["ridge"], windows)
    for prefix, mae in (("", row["test_mae"]), ("val_", row["val_mae"])):
        error = np.abs(arrays[f"{prefix}prediction"] - arrays[f"{prefix}truth"])
        assert mae == pytest.approx(float(np.nanmean(error)), rel=1e-5)
    np.testing.assert_array_equal(arrays["time"], windows.time[windows.origins("test")])
    assert len(row["mae_by_lead"]) == 24
    assert row["parameters"] > 0 and not row["refit"]
    assert Counter(arrays["origins"]).most_common(1)[0][1] == 1


@pytest.mark.parametrize("name", list(RESTORED))
def test_what_was_fitted_is_restored_from_its_file(name: str, windows: Windows) -> None:
    fitted = BASELINES[name](windows)
    origins = windows.origins("test")[:30]
    np.testing.assert_allclose(RESTORED[name](windows, fitted.file)(origins), fitted(origins), rtol=1e-5)


def test_trees_learn_what_a_line_cannot(windows: Windows) -> None:
    """A load that rises on working days of a heat wave only: the trees' error is a fraction of the ridge's."""
    hours = len(windows.target)
    heat = np.random.default_rng(1).standard_normal(hours // 24 + 2).repeat(24)[: hours + 24].astype(np.float32)
    ahead = windows.ahead.copy()
    ahead[:, 0] = heat
    load = (30 + 20 * (heat > 0.5) * working(windows))[:hours].astype(np.float32)
    level = np.full_like(load, 30)
    other = dataclasses.replace(windows, target=load, truth=load, level=level, ahead=ahead)
    origins = other.origins("test")
    errors = [
        np.abs(BASELINES[name](other)(origins) - other.targets(origins)).mean()
        for name in ("lightgbm-rich", "ridge-rich")
    ]
    assert errors[0] < 0.5 * errors[1]
