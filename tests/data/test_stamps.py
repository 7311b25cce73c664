"""Stamps become the instants that were meant, or an error says which line is in doubt."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrain.config.ingest import File
from isotrain.data.source import utc_stamps
from isotrain.errors import InputError

PATH = Path("series.csv")


CHANGES = {  # nights in which clocks changed, forth and back
    "Europe/Paris": ["2017-03-26", "2019-10-27", "2020-10-25"],
    "America/New_York": ["2019-03-10", "2020-11-01"],
    "Australia/Adelaide": ["2019-04-07", "2020-10-04"],
    "UTC": ["2020-10-25"],
}


@given(
    night=st.sampled_from([(zone, night) for zone, nights in CHANGES.items() for night in nights]),
    days=st.tuples(st.integers(0, 3), st.integers(1, 3)),
    minutes=st.sampled_from([1, 5, 15, 30, 60]),
)
def test_local_clock_readings_in_order_are_the_instants_meant(
    night: tuple[str, str], days: tuple[int, int], minutes: int
) -> None:
    """Unbroken stretches of whole local days around a change of clocks."""
    zone, date = night
    first = pd.Timestamp(date, tz=zone) - pd.DateOffset(days=days[0])
    meant = pd.date_range(first, first + pd.DateOffset(days=sum(days)), freq=f"{minutes}min", inclusive="left")
    read = utc_stamps(pd.Series(meant.strftime("%Y-%m-%d %H:%M:%S")), File(time_zone=zone), PATH)
    assert (pd.DatetimeIndex(read) == meant.tz_convert("UTC")).all()


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2020-07-01 12:00:00+00:00", "2020-07-01 12:00"),
        ("2020-07-01T12:00Z", "2020-07-01 12:00"),
        ("2020-07-01T14:00:00+0200", "2020-07-01 12:00"),
        ("2020-07-01 14:00", "2020-07-01 12:00"),
        ("  2020-07-01 14:00 ", "2020-07-01 12:00"),
    ],
)
def test_offsets_are_kept_and_other_stamps_are_local(text: str, instant: str) -> None:
    read = utc_stamps(pd.Series([text]), File(time_zone="Europe/Paris"), PATH)
    assert read[0] == pd.Timestamp(instant, tz="UTC")


def test_offsets_of_another_zone_are_refused() -> None:
    text = pd.Series(["2020-10-24 12:00+02:00", "2020-10-25 12:00+01:00"], index=[2, 3])
    assert len(utc_stamps(text, File(time_zone="Europe/Paris"), PATH)) == 2
    with pytest.raises(InputError, match=r"line 2, .*mixed offsets .* not those of ingest.file.time_zone = UTC"):
        utc_stamps(text, File(time_zone="UTC"), PATH)


def test_line_numbers_are_those_of_the_file() -> None:
    text = pd.Series(["2020-07-01 12:00", "2020-07-01 13:00", "13 o'clock"], index=[2, 3, 6])
    with pytest.raises(InputError, match=r"series\.csv line 6, time stamp \"13 o'clock\".*time_format"):
        utc_stamps(text, File(), PATH)


def test_a_time_format_is_named_when_stamps_do_not_follow_it() -> None:
    with pytest.raises(InputError, match=r"line 2, time stamp '2020-07-01 12:00': cannot be read as %d/%m/%Y %H:%M"):
        utc_stamps(pd.Series(["2020-07-01 12:00"], index=[2]), File(time_format="%d/%m/%Y %H:%M"), PATH)
