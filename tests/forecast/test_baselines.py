"""Scores by hand, naive forecasts by index, the ridge where the answer is known."""

import dataclasses

import numpy as np
import pytest

from isotrain.data.windows import Windows
from isotrain.forecast.baselines import ridge, same_hour, score_baselines
from isotrain.forecast.scores import scores


def test_scores_by_hand() -> None:
    truth = np.array([[1.0, np.nan], [3.0, 4.0]], np.float32)
    forecast = np.array([[2.0, 9.0], [3.0, 2.0]], np.float32)
    answer = scores(forecast, truth, mase_scale=2.0)
    assert answer["mae"] == pytest.approx(1.0)  # errors 1, 0, 2 over three known hours
    assert answer["rmse"] == pytest.approx((5 / 3) ** 0.5)
    assert answer["mase"] == pytest.approx(0.5)
    assert answer["mae_by_lead"] == pytest.approx([0.5, 2.0])
    assert np.isnan(scores(np.full((2, 2), np.nan, np.float32), truth, 2.0)["mae"])


def test_naive_forecasts_look_back_whole_days(windows: Windows) -> None:
    origins = np.array([500, 777])
    hours = origins[:, None] + np.arange(24)
    np.testing.assert_array_equal(same_hour(1)(windows)(origins), windows.target[hours - 24])
    np.testing.assert_array_equal(same_hour(7)(windows)(origins), windows.target[hours - 168])
    longer = dataclasses.replace(windows, meta=windows.meta | {"horizon": 30})
    hours = origins[:, None] + np.arange(30)
    back = np.where(np.arange(30) < 24, 24, 48)  # beyond a day, yesterday is not yet known
    np.testing.assert_array_equal(same_hour(1)(longer)(origins), windows.target[hours - back])


def test_ridge_learns_a_weekly_pattern_and_sees_no_future(windows: Windows) -> None:
    hour = np.arange(len(windows.target))
    pattern = (30 + 10 * np.sin(2 * np.pi * hour / 168) + 5 * np.cos(2 * np.pi * hour / 24)).astype(np.float32)
    week = np.convolve(pattern, np.ones(168) / 168)[: len(pattern)].astype(np.float32)
    week[:168] = 30
    known = dataclasses.replace(windows, target=pattern, truth=pattern, level=week)
    forecast = ridge(known)
    origins = known.origins("test")
    assert (
        np.abs(forecast(origins) - known.targets(origins)).mean() < 0.3
    )  # of an amplitude of 15: the penalty shrinks a little
    last = origins[-1]
    known.target[last:] = np.nan  # the arrays that the fitted forecast reads
    assert np.isfinite(forecast(origins[-1:])).all()


def test_every_baseline_is_scored_on_the_same_origins(windows: Windows) -> None:
    rows = score_baselines(windows)
    assert [row["name"] for row in rows] == ["same-hour-yesterday", "same-hour-last-week", "ridge"]
    origins = windows.origins("test")
    naive = np.nanmean(np.abs(same_hour(1)(windows)(origins) - windows.targets(origins)))
    assert rows[0]["test_mae"] == pytest.approx(naive, rel=1e-5)
    assert all(len(row["mae_by_lead"]) == 24 for row in rows)
