"""Repair uses the past alone, flags sit exactly on what was spoilt, and nothing genuine is touched."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isotrain.config.ingest import PROFILES, Check, Column, Ingest
from isotrain.data.repair import repair
from isotrain.data.schema import Flag
from isotrain.errors import InputError

HOURS = 24 * 16
SETTINGS = Ingest(
    columns={
        "TGBT": Column(kind="load"),
        "T1": Column(kind="sub_load"),
        "AirTemp": Column(kind="temperature"),
        "Sun": Column(kind="solar"),
    },
    checks=PROFILES["drahix"],
)
NAMES = list(SETTINGS.columns)
POISON = [np.nan, np.inf, 1e6, -1e6, 0.0, 0.04, 7.77, -1.0]


def clean() -> pd.DataFrame:
    """Sixteen days without a fault, no two hours equal but the sun's nights."""
    rng = np.random.default_rng(5)
    hour = np.arange(HOURS)
    day = np.maximum(np.sin(2 * np.pi * (hour - 6) / 24), 0)
    table = {
        "TGBT": 20 + 10 * day + rng.uniform(0, 1, HOURS),
        "T1": 4 + day + rng.uniform(0, 1, HOURS),
        "AirTemp": 8 + 5 * day + rng.uniform(0, 1, HOURS),
        "Sun": 600 * day + rng.uniform(0, 1, HOURS) * (day > 0),
    }
    return pd.DataFrame(table, index=pd.date_range("2020-01-01", periods=HOURS, freq="h", tz="UTC"))


def spoilt(faults: list[tuple[str, int, int, float]]) -> pd.DataFrame:
    """The clean table with faults (column, first hour, length, value) in it."""
    table = clean()
    for name, start, length, value in faults:
        table.iloc[start : start + length, NAMES.index(name)] = value
    return table


def at(table: pd.DataFrame, name: str) -> Any:
    return table[name].to_numpy()


def test_a_clean_table_comes_back_as_it_was() -> None:
    values, flags = repair(clean(), SETTINGS)
    pd.testing.assert_frame_equal(values, clean())
    assert not flags.to_numpy().any()
    assert (flags.dtypes == np.int8).all()


faults = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.integers(0, HOURS - 1),
        st.integers(1, 60),
        st.sampled_from(POISON),
    ),
    max_size=6,
)


@given(
    before=faults,
    back=st.integers(0, 59),
    value=st.sampled_from([None, *POISON]),
    future=st.sampled_from(["hold", *POISON]),
    later=faults,
    now=st.integers(60, HOURS - 2),
)
@settings(max_examples=300)
def test_no_value_depends_on_a_later_hour(
    before: Any, back: int, value: float | None, future: Any, later: Any, now: int
) -> None:
    """Two tables equal up to ``now`` are repaired equally up to ``now``, whatever comes then.

    Up to ``now`` there are faults anywhere, and a run of one ``value`` over the last hours, which the poisoned future
    may hold on to: a run known to be stuck only later is where hindsight would creep in.
    """
    one = spoilt(before)
    one.iloc[0] = clean().iloc[0]  # the target starts at once, so rows correspond
    one.iloc[now - back : now + 1] = one.iloc[now - back].to_numpy() if value is None else value
    other = one.copy()
    other.iloc[now + 1 :] = one.iloc[now].to_numpy() if future == "hold" else future
    for name, start, length, fault in later:
        other.iloc[max(start, now + 1) : start + length, NAMES.index(name)] = fault
    (left, _), (right, _) = repair(one, SETTINGS), repair(other, SETTINGS)
    pd.testing.assert_frame_equal(left.iloc[: now + 1], right.iloc[: now + 1])


@given(before=faults)
def test_nothing_missing_is_left_and_unflagged_hours_are_the_raw_ones(before: Any) -> None:
    raw = spoilt(before)
    values, flags = repair(raw, SETTINGS)
    assert np.isfinite(values.to_numpy()).all()
    kept = flags.to_numpy() == Flag.OK
    np.testing.assert_array_equal(values.to_numpy()[kept], raw.loc[values.index].to_numpy()[kept])


@pytest.mark.parametrize(
    ("name", "hours", "value", "flag"),
    [
        ("TGBT", slice(200, 203), np.nan, Flag.GAP),
        ("TGBT", slice(200, 203), 0.06, Flag.OUTAGE),
        ("TGBT", slice(200, 206), 25.0, Flag.STUCK),
        ("TGBT", slice(200, 201), 250.0, Flag.IMPOSSIBLE),
        ("TGBT", slice(200, 201), -4.0, Flag.IMPOSSIBLE),
        ("T1", slice(200, 224), 4.5, Flag.STUCK),
        ("T1", slice(200, 201), 101.0, Flag.IMPOSSIBLE),
        ("AirTemp", slice(200, 201), -19.0, Flag.IMPOSSIBLE),  # a spike within the limits
        ("AirTemp", slice(200, 203), -27.02, Flag.IMPOSSIBLE),
        ("AirTemp", slice(200, 206), 9.0, Flag.STUCK),
        ("Sun", slice(202, 206), 300.0, Flag.STUCK),
        ("Sun", slice(202, 204), -60.0, Flag.IMPOSSIBLE),
        ("Sun", slice(193, 197), -1.2, Flag.OFFSET),
    ],
)
def test_flags_sit_exactly_on_the_spoilt_hours(name: str, hours: slice, value: float, flag: Flag) -> None:
    raw = clean()
    raw.iloc[hours, NAMES.index(name)] = value
    _, flags = repair(raw, SETTINGS)
    expected = np.zeros(HOURS, dtype=np.int8)
    expected[hours] = flag
    np.testing.assert_array_equal(at(flags, name), expected)
    others = flags.drop(columns=["T1", name] if flag == Flag.OUTAGE else name)
    assert not others.to_numpy().any()


@pytest.mark.parametrize(
    ("name", "hours", "value"),
    [
        ("TGBT", slice(200, 205), 25.0),  # five equal hours, stuck from six
        ("T1", slice(200, 223), 0.19),  # a zone at night
        ("T1", slice(200, 201), 0.0),
        ("AirTemp", slice(200, 205), 9.0),
        ("Sun", slice(193, 197), 12.0),  # dusk
    ],
)
def test_what_may_be_genuine_is_not_flagged(name: str, hours: slice, value: float) -> None:
    raw = clean()
    raw.iloc[hours, NAMES.index(name)] = value
    values, flags = repair(raw, SETTINGS)
    assert not flags.to_numpy().any()
    pd.testing.assert_frame_equal(values, raw)


def test_a_jump_that_lasts_is_believed_after_an_hour() -> None:
    raw = clean()
    raw.iloc[200:, NAMES.index("AirTemp")] += 15.0
    _, flags = repair(raw, SETTINGS)
    assert np.flatnonzero(at(flags, "AirTemp")).tolist() == [200]


def test_stuck_hours_keep_their_value_until_they_are_known_to_be_stuck() -> None:
    raw = clean()
    raw.iloc[200:220, 0] = 25.0
    values, flags = repair(raw, SETTINGS)
    assert (at(flags, "TGBT")[200:220] == Flag.STUCK).all()
    assert (at(values, "TGBT")[200:205] == 25.0).all()
    np.testing.assert_array_equal(at(values, "TGBT")[205:220], at(raw, "TGBT")[205 - 168 : 220 - 168])


def test_loads_are_taken_from_last_week_else_yesterday_else_the_last_hour() -> None:
    raw = clean()
    raw.iloc[[10, 11, 100, 300], 0] = np.nan
    values, _ = repair(raw, SETTINGS)
    load, read = at(values, "TGBT"), at(raw, "TGBT")
    assert load[300] == read[300 - 168]
    assert load[100] == read[100 - 24]
    assert load[10] == load[11] == read[9]


def test_a_gap_of_a_fortnight_repeats_the_week_before_it() -> None:
    raw = pd.concat([clean(), clean().set_axis(clean().index + pd.Timedelta(hours=HOURS))])
    raw.iloc[200 : 200 + 14 * 24, 0] = np.nan
    values, _ = repair(raw, SETTINGS)
    week = at(raw, "TGBT")[200 - 168 : 200]
    np.testing.assert_array_equal(at(values, "TGBT")[200 : 200 + 14 * 24], np.tile(week, 2))


def test_weather_is_held_for_three_hours_then_taken_from_yesterday() -> None:
    raw = clean()
    raw.iloc[200:206, NAMES.index("AirTemp")] = np.nan
    values, _ = repair(raw, SETTINGS)
    air, read = at(values, "AirTemp"), at(raw, "AirTemp")
    assert (air[200:203] == read[199]).all()
    np.testing.assert_array_equal(air[203:206], read[203 - 24 : 206 - 24])


def test_slightly_negative_flux_is_set_to_zero() -> None:
    raw = clean()
    raw.iloc[193:197, NAMES.index("Sun")] = -1.2
    values, _ = repair(raw, SETTINGS)
    assert (at(values, "Sun")[193:197] == 0.0).all()


def test_zones_are_off_when_the_whole_building_is() -> None:
    raw = clean()
    raw.iloc[200:203, :2] = [0.06, 0.01]
    values, flags = repair(raw, SETTINGS)
    assert np.flatnonzero(at(flags, "T1") == Flag.OUTAGE).tolist() == [200, 201, 202]
    assert at(values, "T1")[200:203].min() > 4
    assert not at(flags, "AirTemp").any()


def test_the_table_begins_where_the_target_does_and_late_columns_wait() -> None:
    raw = clean()
    raw.iloc[:30, 0] = 0.0
    raw.iloc[:5, 0] = np.nan
    raw.iloc[:50, 1] = 0.0
    raw.iloc[:40, 2] = np.nan
    values, flags = repair(raw, SETTINGS)
    assert values.index[0] == raw.index[30]
    assert np.flatnonzero(at(flags, "T1") == Flag.NOT_STARTED).tolist() == list(range(20))
    assert np.flatnonzero(at(flags, "AirTemp") == Flag.NOT_STARTED).tolist() == list(range(10))
    assert (at(values, "T1")[:20] == 0.0).all()
    assert (at(values, "AirTemp")[:10] == SETTINGS.check("AirTemp").before_start).all()


def test_a_target_that_never_starts_is_refused() -> None:
    raw = clean()
    raw["TGBT"] = 0.0
    with pytest.raises(InputError, match=r"target TGBT never exceeds 0 kW: choose another ingest\.target"):
        repair(raw, SETTINGS)


def test_checks_can_be_switched_off() -> None:
    raw = clean()
    raw.iloc[200:300, 0] = 1.0
    lenient = SETTINGS.model_copy(update={"checks": {"load": Check(lowest=0, highest=200, stuck_hours=None)}})
    _, flags = repair(raw, lenient)
    assert not flags.to_numpy().any()
