"""Conformal intervals: the promised coverage where it is a theorem, and the right residuals in each class."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrain.errors import InputError
from isotrain.forecast.intervals import calibrate, coverage_of, cross_fitted, fewest

LEADS = 3


@given(m=st.integers(10, 80), percent=st.integers(20, 80))
def test_a_new_exchangeable_residual_is_held_with_the_promised_probability(m: int, percent: int) -> None:
    # of m + 1 exchangeable distinct numbers each is as likely to be the new one: count over all of them
    numbers = np.arange(m + 1, dtype=float) ** 3
    one_class = np.ones((m, 1), bool)
    missed = 0
    for new, number in enumerate(numbers):
        intervals = calibrate(np.delete(numbers, new)[:, None], one_class, percent / 100)
        missed += not intervals.low[1, 0] <= number <= intervals.high[1, 0]
    allowed = Fraction(100 - percent, 100) * (m + 1)
    assert allowed - 2 < missed <= allowed  # no interval is wider than it must be, either


def test_each_class_and_lead_has_its_own_limits() -> None:
    rng = np.random.default_rng(0)
    working = rng.random((4000, LEADS)) < 0.7
    scale = np.where(working, 3.0, 1.0) * np.arange(1, LEADS + 1)
    residuals = rng.normal(size=working.shape) * scale + 0.5
    intervals = calibrate(residuals, working, 0.8)
    expected = 1.2816 * np.array([[1.0], [3.0]]) * np.arange(1, LEADS + 1)  # the normal's 90 % point
    np.testing.assert_allclose(intervals.high - 0.5, expected, rtol=0.12)
    np.testing.assert_allclose(intervals.low - 0.5, -expected, rtol=0.12)
    assert not intervals.pooled.any()


def test_the_interval_is_the_forecast_plus_the_limits_of_each_hour() -> None:
    residuals = np.tile(np.arange(-9.5, 10.0)[:, None], (2, LEADS))
    working = np.repeat([[True], [False]], 20, axis=0) & np.ones((1, LEADS), bool)
    residuals[20:] *= 2
    intervals = calibrate(residuals, working, 0.8)
    low, high = intervals.around(np.full((1, LEADS), 100.0), np.array([[True, False, True]]))
    # 20 residuals, rank ceil(21 * 0.9) = 19: the second smallest and the second largest
    np.testing.assert_array_equal(low, [[91.5, 83.0, 91.5]])
    np.testing.assert_array_equal(high, [[108.5, 117.0, 108.5]])


def test_too_small_a_class_takes_the_residuals_of_both() -> None:
    rng = np.random.default_rng(1)
    working = np.ones((500, LEADS), bool)
    working[: fewest(0.8) - 1] = False
    residuals = rng.normal(size=working.shape)
    intervals = calibrate(residuals, working, 0.8)
    assert intervals.pooled[0].all() and not intervals.pooled[1].any()
    both = calibrate(residuals, np.ones_like(working), 0.8)
    np.testing.assert_array_equal(intervals.high[0], both.high[1])
    working[: fewest(0.8)] = False
    assert not calibrate(residuals, working, 0.8).pooled.any()


def test_unknown_hours_change_nothing() -> None:
    rng = np.random.default_rng(2)
    residuals, working = rng.normal(size=(300, LEADS)), rng.random((300, LEADS)) < 0.5
    more = np.concatenate([residuals, np.full((50, LEADS), np.nan)])
    flags = np.concatenate([working, working[:50]])
    one, two = calibrate(residuals, working, 0.8), calibrate(more, flags, 0.8)
    np.testing.assert_array_equal(one.low, two.low)
    np.testing.assert_array_equal(one.high, two.high)
    holds = one.holds(more, flags)
    assert np.isnan(holds[300:]).all() and not np.isnan(holds[:300]).any()
    assert coverage_of(holds, flags) == coverage_of(holds[:300], working)


def test_wider_coverage_contains_the_narrower() -> None:
    residuals = np.random.default_rng(3).normal(size=(500, LEADS))
    working = np.zeros((500, LEADS), bool)
    narrow, wide = (calibrate(residuals, working, share) for share in (0.5, 0.95))
    assert (wide.low < narrow.low).all() and (wide.high > narrow.high).all()


def test_cross_fitting_judges_each_week_by_the_others() -> None:
    rng = np.random.default_rng(4)
    weeks = np.repeat(np.arange(40), 168)
    working = rng.random((len(weeks), LEADS)) < 0.7
    residuals = rng.normal(size=working.shape)
    measured = coverage_of(cross_fitted(residuals, working, weeks, 0.8), working)
    assert measured["all"] == pytest.approx(0.8, abs=0.02)
    assert measured["working"] == pytest.approx(0.8, abs=0.02)
    assert measured["off"] == pytest.approx(0.8, abs=0.03)
    # the weeks of one half ten times as large: intervals that had seen them would hold 80 % there too
    residuals[weeks % 2 == 0] *= 10
    holds = cross_fitted(residuals, working, weeks, 0.8)
    assert np.nanmean(holds[weeks % 2 == 0]) < 0.2
    assert np.nanmean(holds[weeks % 2 == 1]) > 0.99


@pytest.mark.parametrize("coverage", [0.0, 1.0, 80.0])
def test_no_share_is_refused(coverage: float) -> None:
    with pytest.raises(InputError, match="coverage = "):
        calibrate(np.zeros((100, 1)), np.ones((100, 1), bool), coverage)


def test_too_few_residuals_are_refused_with_the_number_needed() -> None:
    with pytest.raises(InputError, match=r"8 residuals.*take 9"):
        calibrate(np.zeros((8, 1)), np.ones((8, 1), bool), 0.8)
