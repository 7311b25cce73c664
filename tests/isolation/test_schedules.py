"""Schedules: their formulas by hand, their bounds, and when a loss has stopped improving."""

import math
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrain.errors import InputError
from isotrain.isolation import CRITERIA, MASKED, SCHEDULES, ZONES, Schedule

PLATEAU = partial(Schedule, "plateau")
RISING = ("constant", "linear", "cubic", "cosine", "plateau")
shares = st.floats(0, 1)
bounds = st.tuples(shares, shares).map(sorted)
counts = st.integers(1, 9)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [  # at progress 0, 0.25, 0.375, 0.5, 0.75 and 1
        ("constant", {}, [0.0, 0.8, 0.8, 0.8, 0.8, 0.8]),
        ("linear", {}, [0.0, 0.0, 0.2, 0.4, 0.8, 0.8]),
        ("cubic", {}, [0.0, 0.0, 0.8 * (1 - 27 / 64), 0.8 * 7 / 8, 0.8, 0.8]),
        ("cosine", {}, [0.0, 0.0, 0.4 * (1 - math.sqrt(0.5)), 0.4, 0.8, 0.8]),
        ("cyclic", {"cycles": 1}, [0.0, 0.0, 0.4, 0.8, 0.0, 0.0]),
        ("cyclic", {"cycles": 2}, [0.0, 0.0, 0.8, 0.0, 0.0, 0.0]),
        ("thaw", {}, [0.0, 0.8, 0.8, 0.8, 0.0, 0.0]),
        ("plateau", {}, [0.0, 0.8, 0.8, 0.8, 0.8, 0.8]),
    ],
)
def test_by_hand(name: str, settings: dict[str, int], expected: list[float]) -> None:
    schedule = Schedule(name, fraction=0.8, start=0.25, stop=0.75, **settings)
    assert [schedule(p) for p in (0.0, 0.25, 0.375, 0.5, 0.75, 1.0)] == pytest.approx(expected, abs=1e-15)


@given(
    name=st.sampled_from(RISING),
    fraction=shares,
    bounds=bounds,
    pair=st.tuples(shares, shares).map(sorted),
)
def test_they_grow_from_zero_to_their_fraction(
    name: str, fraction: float, bounds: list[float], pair: list[float]
) -> None:
    schedule = Schedule(name, fraction=fraction, start=bounds[0], stop=bounds[1])
    early, late = (schedule(p) for p in pair)
    assert 0 <= early <= late <= fraction
    assert schedule(bounds[1]) == schedule(1.0) == fraction


@given(name=st.sampled_from(["cyclic", "thaw"]), fraction=shares, bounds=bounds, progress=shares, cycles=counts)
def test_those_that_come_back_are_zero_outside_their_bounds(
    name: str, fraction: float, bounds: list[float], progress: float, cycles: int
) -> None:
    value = Schedule(name, fraction=fraction, start=bounds[0], stop=bounds[1], cycles=cycles)(progress)
    assert 0 <= value <= fraction
    if not bounds[0] <= progress < bounds[1]:
        assert value == 0


@given(name=st.sampled_from(sorted(SCHEDULES)), fraction=shares, bounds=bounds, progress=shares)
def test_nothing_before_start(name: str, fraction: float, bounds: list[float], progress: float) -> None:
    if progress < bounds[0]:
        assert Schedule(name, fraction=fraction, start=bounds[0], stop=bounds[1])(progress) == 0


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_a_value_that_refuses_what_makes_no_sense(name: str) -> None:
    make = partial(Schedule, name)
    assert make() == make(fraction=0.5, start=0.25, stop=1.0, cycles=4, patience=3, least=0.01)
    assert "fraction=0.25, start=0.25" in str(make(fraction=0.25))
    for key in ("fraction", "start", "stop"):
        for value in (-0.1, 1.5, float("nan")):
            with pytest.raises(InputError, match=f"{key}={value} is outside"):
                make(**{key: value})
    with pytest.raises(InputError, match=r"start=0.7 comes after stop=0.2"):
        make(start=0.7, stop=0.2)
    for key in ("cycles", "patience"):
        with pytest.raises(InputError, match=f"{key}=0 is too small"):
            make(**{key: 0})
    for value in (-0.1, float("nan"), float("inf")):
        with pytest.raises(InputError, match=f"least={value} is outside"):
            make(least=value)


# When a loss has stopped improving ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], False),
        ([1.0, 1.0], False),  # patience 2: nothing before the last two
        ([1.0, 1.0, 1.0], True),
        ([1.0, 0.95, 1.2], True),  # 5 % better is not better by more than 10 %
        ([1.0, 1.2, 0.85], False),  # one of the last two is
        ([1.0, 0.5, 0.6, 0.7], True),  # the best before the last two counts
        ([-1.0, -1.05, -1.05], True),  # a loss may be negative
        ([-1.0, -1.2, -1.0], False),
        ([0.0, 0.0, 0.0], True),
        ([0.0, -1e-9, 0.0], False),  # anything is better than nothing
    ],
)
def test_triggered_by_hand(values: list[float], expected: bool) -> None:
    assert PLATEAU(patience=2, least=0.1).triggered(values) is expected


@given(
    values=st.lists(st.floats(0.1, 10), max_size=12), patience=counts, least=st.floats(0, 0.5), power=st.integers(-9, 9)
)
def test_neither_the_unit_of_the_loss_nor_the_order_of_the_last_losses_matters(
    values: list[float], patience: int, least: float, power: int
) -> None:
    schedule = PLATEAU(patience=patience, least=least)
    turned = values[:-patience] + values[-patience:][::-1]
    assert schedule.triggered(values) == schedule.triggered([v * 2.0**power for v in turned])


def test_only_plateau_waits_and_it_begins_then() -> None:
    assert [name for name in SCHEDULES if Schedule(name).waits] == ["plateau"]
    schedule = PLATEAU(fraction=0.5, start=0.25, stop=0.5, patience=2)
    assert schedule.since(0.75) == PLATEAU(fraction=0.5, start=0.75, stop=0.75, patience=2)
    assert schedule.since(0.1) == schedule
    assert [schedule.since(0.75)(p) for p in (0.7, 0.75)] == [0.0, 0.5]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_loss_is_refused(value: float) -> None:
    with pytest.raises(InputError, match=f"the training loss is {value}"):
        PLATEAU().triggered([1.0, value])


@pytest.mark.parametrize(
    ("registry", "name", "near"),
    [
        (SCHEDULES, "cubik", "cubic"),
        (ZONES, "units", "unit"),
        (CRITERIA, "magnitud", "magnitude"),
        (MASKED, "adm", "adam"),
    ],
)
def test_an_unknown_name_is_answered_with_the_names_there_are(
    registry: dict[str, object], name: str, near: str
) -> None:
    with pytest.raises(KeyError) as raised:
        registry[name]
    assert f"did you mean '{near}'?" in str(raised.value) and all(known in str(raised.value) for known in registry)
    assert name not in registry and registry.get(name) is None
