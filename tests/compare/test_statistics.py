"""Intervals, speed-ups and paired differences, against values worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrain.compare.statistics import Interval, mae_difference, median_interval, speedup, week_of
from isotrain.forecast.forecasts import Forecasts

INF = math.inf
MONDAY = 1_600_041_600  # 2020-09-14 00:00 UTC
HOUR = 3600


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7.0], (7.0, 7.0, 7.0)),
        ([2.0, 3.0], (2.5, 2.0, 3.0)),
        ([3.0, 1.0, 2.0], (2.0, 1.0, 3.0)),
        ([5.0, INF], (INF, 5.0, INF)),
        ([5.0, 6.0, INF], (6.0, 5.0, INF)),
        ([INF, INF], (INF, INF, INF)),
        ([-INF, INF], (-INF, -INF, INF)),
        ([-INF, 2.0, 3.0], (2.0, -INF, 3.0)),
    ],
)
def test_up_to_three_values_have_their_range(values: list[float], expected: tuple[float, ...]) -> None:
    assert median_interval(values, 0.9, 2000) == Interval(*expected)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=9), st.floats(0.5, 0.99))
def test_the_interval_holds_the_median_and_stays_within_the_values(values: list[float], confidence: float) -> None:
    interval = median_interval(values, confidence, 400)
    assert min(values) <= interval.low <= interval.high <= max(values)
    assert interval.low <= interval.median + 1e-9
    assert interval.median <= interval.high + 1e-9


def test_many_values_give_an_interval_narrower_than_their_range_and_the_same_each_time() -> None:
    values = list(np.random.default_rng(0).normal(10, 1, 100))
    interval = median_interval(values, 0.9, 2000)
    assert interval == median_interval(values, 0.9, 2000)
    # the median of 100 normal values has a standard error of 1.253 / 10: 90 % is some +-0.21
    assert 0.25 < interval.high - interval.low < 0.6


def test_an_interval_without_values_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        median_interval([], 0.9, 10)


def test_json_has_null_where_a_value_is_infinite() -> None:
    assert Interval(INF, 5.0, INF).as_json() == {"median": None, "low": 5.0, "high": None}
    assert Interval(-INF, -INF, 2.0).as_json() == {"median": None, "low": None, "high": 2.0}


@pytest.mark.parametrize(
    ("reference", "own", "expected"),
    [
        (30.0, 10.0, 3.0),
        (10.0, 40.0, 0.25),
        (INF, 10.0, INF),
        (10.0, INF, -INF),
        (INF, INF, -INF),
        (0.0, 0.0, 1.0),
    ],
)
def test_speedup(reference: float, own: float, expected: float) -> None:
    assert speedup(reference, own) == expected


def test_weeks_begin_on_monday() -> None:
    week = week_of(np.array([MONDAY - 1, MONDAY, MONDAY + 7 * 24 * HOUR - 1, MONDAY + 7 * 24 * HOUR]))
    assert list(week - week[0]) == [0, 1, 1, 2]


def forecasts(errors: list[float], origins: list[int], unknown: tuple[int, ...] = ()) -> Forecasts:
    """One origin a week, two leads, the truth 0, forecast ``errors``; ``unknown`` rows lack the truth."""
    truth = np.zeros((len(errors), 2))
    truth[list(unknown)] = np.nan
    time = MONDAY + 7 * 24 * HOUR * np.array(origins)
    return Forecasts(np.array(origins), time, np.repeat(np.array(errors)[:, None], 2, axis=1), truth)


def test_the_difference_is_of_mean_errors_at_common_origins_with_a_known_truth() -> None:
    a = forecasts([9.0, 2.0, 4.0, 50.0], origins=[0, 1, 2, 3], unknown=(3,))
    b = forecasts([1.0, 1.0, 70.0, 30.0], origins=[1, 2, 3, 4], unknown=(2,))
    # origins 1 and 2 are left: errors 2 and 4 against 1 and 1, so differences 1 and 3
    assert mae_difference([a], [b], 0.9, 2000) == Interval(2.0, 1.0, 3.0)
    assert mae_difference([b], [a], 0.9, 2000) == Interval(-2.0, -3.0, -1.0)


def test_the_errors_of_several_seeds_are_averaged() -> None:
    a = [forecasts([1.0, 1.0], [0, 1]), forecasts([-3.0, -3.0], [0, 1])]
    assert mae_difference(a, [forecasts([0.5, 0.5], [0, 1])], 0.9, 100) == Interval(1.5, 1.5, 1.5)


def test_pairing_removes_what_both_methods_share() -> None:
    hard = np.abs(np.random.default_rng(1).normal(5, 3, 60))
    a, b = forecasts(list(hard + 0.1), list(range(60))), forecasts(list(hard), list(range(60)))
    interval = mae_difference([a], [b], 0.9, 500)
    assert interval is not None
    assert interval.low == pytest.approx(0.1)
    assert interval.high == pytest.approx(0.1)


def test_blocks_are_whole_weeks() -> None:
    # two weeks of 168 origins that differ by 0 and by 1: only 0, 1/2 and 1 can be drawn
    origins = np.arange(336)
    truth = np.zeros((336, 1))
    time = MONDAY + HOUR * origins
    a = Forecasts(origins, time, (origins >= 168).astype(float)[:, None], truth)
    b = Forecasts(origins, time, truth, truth)
    assert mae_difference([a], [b], 0.9, 1000) == Interval(0.5, 0.0, 1.0)


def test_copies_of_a_series_say_no_more_than_the_series() -> None:
    rng = np.random.default_rng(2)
    origins = np.arange(20 * 168)
    time, truth = MONDAY + HOUR * origins, np.zeros((len(origins), 1))
    own, other = (np.abs(rng.normal(1, 1, truth.shape)) + rng.uniform(0, 2, 20).repeat(168)[:, None] for _ in "ab")

    def copies(prediction: np.ndarray, count: int) -> Forecasts:
        """As if ``count`` series, one after the other, had the same errors in the same hours."""
        rows = np.concatenate([origins + 10_000 * number for number in range(count)])
        parts = (np.concatenate([one] * count) for one in (time, prediction, truth))
        return Forecasts(rows, *parts)

    one, many = (mae_difference([copies(own, n)], [copies(other, n)], 0.9, 500) for n in (1, 30))
    assert one is not None and many is not None
    assert one.low < one.median < one.high  # thirty times as many independent errors would narrow it
    assert (many.median, many.low, many.high) == pytest.approx((one.median, one.low, one.high))


def test_each_series_may_be_in_its_own_unit() -> None:
    a, b = forecasts([2.0, 30.0], [0, 1]), forecasts([1.0, 10.0], [0, 1])
    relative = mae_difference([a], [b], 0.9, 100, lambda origins: np.where(origins == 0, 1.0, 10.0))
    assert relative is not None and relative.median == pytest.approx((1 / 1 + 20 / 10) / 2)
    assert (relative.low, relative.high) == pytest.approx((1.0, 2.0))


def test_nothing_in_common_gives_no_difference() -> None:
    assert mae_difference([forecasts([1.0], [0])], [forecasts([1.0], [1])], 0.9, 10) is None
    assert mae_difference([forecasts([1.0], [0], (0,))], [forecasts([1.0], [0])], 0.9, 10) is None
