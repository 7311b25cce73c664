"""Every relative of the plain file is read to the same hourly table; every broken file is refused by name."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from isotrain.config.ingest import Column, File, Ingest, Simulated
from isotrain.data.simulate import building
from isotrain.data.source import read_hourly
from isotrain.errors import InputError

TIME = "Date and time (UTC)"
COLUMNS = {"TGBT": Column(kind="load"), "T1": Column(kind="sub_load"), "AirTemp": Column(kind="temperature")}


@pytest.fixture(scope="module", params=["2019-03-10", "2019-10-05"], ids=["spring change", "autumn change"])
def plain(request: pytest.FixtureRequest) -> pd.DataFrame:
    """Four weeks around a change of clocks."""
    return building(Simulated(seed=3, start=request.param, hours=28 * 24))[list(COLUMNS)]


@pytest.fixture(scope="module")
def small() -> pd.DataFrame:
    """Two days without a fault."""
    hours = pd.date_range("2019-06-03", periods=48, freq="h", tz="UTC", unit="us")
    return pd.DataFrame({"TGBT": np.arange(48) + 10.5, "T1": 2.5, "AirTemp": -1.5}, index=hours)


def settings(columns: dict[str, Column] = COLUMNS, **file: Any) -> Ingest:
    return Ingest(source="series.csv", columns=columns, file=File(**file))


def write(table: pd.DataFrame, path: Path, sep: str = ",", heading: str = TIME, **options: Any) -> Path:
    table.rename_axis(heading).to_csv(path, sep=sep, **options)
    return path


def finer(table: pd.DataFrame, minutes: int) -> pd.DataFrame:
    """Samples every ``minutes`` whose mean over each hour is the value in ``table``."""
    each = 60 // minutes
    stamps = pd.date_range(table.index[0], periods=len(table) * each, freq=f"{minutes}min")
    ripple = np.tile(np.linspace(-1, 1, each), len(table))
    return pd.DataFrame(table.to_numpy().repeat(each, axis=0) + ripple[:, None], index=stamps, columns=table.columns)


def local(table: pd.DataFrame, layout: str) -> pd.DataFrame:
    return table.set_axis(pd.DatetimeIndex(table.index).tz_convert("Europe/Paris").strftime(layout))


def test_the_plain_file_is_read_as_it_stands(plain: pd.DataFrame, tmp_path: Path) -> None:
    read = read_hourly(settings(), write(plain, tmp_path / "series.csv"))
    pd.testing.assert_frame_equal(read, plain, check_freq=False)


@pytest.mark.parametrize("minutes", [1, 5, 15, 30])
def test_finer_steps_become_hourly_means(plain: pd.DataFrame, tmp_path: Path, minutes: int) -> None:
    path = write(finer(plain, minutes), tmp_path / "series.csv")
    read = read_hourly(settings(step_minutes=minutes), path)
    pd.testing.assert_frame_equal(read, plain, check_freq=False)


def test_watts_and_negative_sub_loads(plain: pd.DataFrame, tmp_path: Path) -> None:
    path = write(plain.assign(TGBT=plain["TGBT"] * 1000, T1=plain["T1"] * -1000), tmp_path / "series.csv")
    columns = COLUMNS | {
        "TGBT": Column(kind="load", unit="W"),
        "T1": Column(kind="sub_load", unit="W", sign=-1),
    }
    pd.testing.assert_frame_equal(read_hourly(settings(columns), path), plain, check_freq=False)


def test_other_names_stray_blanks_and_tabs(plain: pd.DataFrame, tmp_path: Path) -> None:
    spoilt = plain.rename(columns={"TGBT": "Usage [kW]  ", "T1": " T1", "AirTemp": "  temp "})
    path = write(spoilt, tmp_path / "series.csv", sep="\t", heading=" Date & Time ")
    columns = {
        "TGBT": Column(kind="load", name="Usage [kW]"),
        "T1": Column(kind="sub_load"),
        "AirTemp": Column(kind="temperature", name="temp"),
    }
    read = read_hourly(settings(columns, separator="\t", time_column="Date & Time"), path)
    pd.testing.assert_frame_equal(read, plain, check_freq=False)


def test_decimal_commas_other_encoding_and_own_time_format(plain: pd.DataFrame, tmp_path: Path) -> None:
    stamped = plain.set_axis(pd.DatetimeIndex(plain.index).strftime("%d/%m/%Y %H:%M"))
    path = write(
        stamped.rename(columns={"AirTemp": "Température"}),
        tmp_path / "series.csv",
        sep=";",
        decimal=",",
        encoding="latin-1",
    )
    columns = COLUMNS | {"AirTemp": Column(kind="temperature", name="Température")}
    file = {"separator": ";", "decimal": ",", "encoding": "latin-1", "time_format": "%d/%m/%Y %H:%M"}
    pd.testing.assert_frame_equal(read_hourly(settings(columns, **file), path), plain, check_freq=False)


def test_a_byte_order_mark_quotes_and_blank_lines_at_the_end(plain: pd.DataFrame, tmp_path: Path) -> None:
    path = write(plain, tmp_path / "series.csv", encoding="utf-8-sig", quoting=1)
    path.write_bytes(path.read_bytes() + b"\n\n")
    pd.testing.assert_frame_equal(read_hourly(settings(), path), plain, check_freq=False)


@pytest.mark.parametrize("layout", ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"], ids=["naive", "with offsets"])
@pytest.mark.parametrize("minutes", [15, 60])
def test_local_stamps_across_the_change_of_clocks(
    plain: pd.DataFrame, tmp_path: Path, layout: str, minutes: int
) -> None:
    table = finer(plain, minutes) if minutes < 60 else plain
    path = write(local(table, layout), tmp_path / "series.csv")
    read = read_hourly(settings(time_zone="Europe/Paris", step_minutes=minutes), path)
    pd.testing.assert_frame_equal(read, plain, check_freq=False)


def test_an_ambiguous_hour_present_once_is_refused_or_left_out(tmp_path: Path) -> None:
    table = building(Simulated(start="2019-10-05", hours=28 * 24))[list(COLUMNS)]
    once = table.drop(pd.Timestamp("2019-10-27 01:00", tz="UTC"))
    path = write(local(once, "%Y-%m-%d %H:%M"), tmp_path / "series.csv")
    with pytest.raises(InputError, match=r"line \d+.*'2019-10-27 02:00'.*twice.*clock_change to gap"):
        read_hourly(settings(time_zone="Europe/Paris"), path)
    read = read_hourly(settings(time_zone="Europe/Paris", clock_change="gap"), path)
    expected = table.copy()
    expected.loc["2019-10-27 00:00":"2019-10-27 01:00"] = np.nan  # type: ignore[misc]
    pd.testing.assert_frame_equal(read, expected, check_freq=False)


def test_an_hour_that_no_clock_showed_is_refused_or_left_out(tmp_path: Path) -> None:
    table = building(Simulated(start="2019-03-10", hours=28 * 24))[list(COLUMNS)]
    path = write(table.set_axis(pd.DatetimeIndex(table.index).tz_localize(None)), tmp_path / "series.csv")
    with pytest.raises(InputError, match=r"'2019-03-31 02:00:00'.*spring change.*time_zone"):
        read_hourly(settings(time_zone="Europe/Paris"), path)
    assert len(read_hourly(settings(time_zone="Europe/Paris", clock_change="gap"), path)) == len(table) - 1


def test_an_hour_needs_enough_of_its_samples(small: pd.DataFrame, tmp_path: Path) -> None:
    samples = finer(small, 15)
    samples.iloc[4:6, 0] = np.nan  # two of four are missing
    samples.iloc[8, 0] = np.nan  # one of four
    samples = samples.drop(samples.index[12:15])  # one row of four is left
    path = write(samples, tmp_path / "series.csv")
    read = read_hourly(settings(step_minutes=15), path)["TGBT"]
    assert np.isnan(read.iloc[1])
    assert read.iloc[2] == pytest.approx(samples["TGBT"].iloc[9:12].mean())
    assert np.isnan(read.iloc[3])
    assert not read.drop(read.index[[1, 3]]).isna().any()
    assert read_hourly(settings(step_minutes=15, enough=0.5), path)["TGBT"].isna().sum() == 1


def test_absent_rows_are_gaps_and_the_target_alone_is_enough(small: pd.DataFrame, tmp_path: Path) -> None:
    path = write(small[["TGBT"]].drop(small.index[5:9]), tmp_path / "series.csv")
    read = read_hourly(settings({"TGBT": COLUMNS["TGBT"]}), path)
    assert list(read.index) == list(small.index)
    assert np.flatnonzero(read["TGBT"].isna()).tolist() == [5, 6, 7, 8]


def lines(change: Callable[[list[str]], list[str]]) -> Callable[[bytes], bytes]:
    return lambda content: "\n".join(change(content.decode().splitlines())).encode() + b"\n"


def cell(line: int, column: int, text: str) -> Callable[[bytes], bytes]:
    """Replace one cell; lines count from 1 as an editor does, columns from 0."""

    def change(rows: list[str]) -> list[str]:
        fields = rows[line - 1].split(",")
        fields[column] = text
        return [*rows[: line - 1], ",".join(fields), *rows[line:]]

    return lines(change)


def times(factor: float) -> Callable[[bytes], bytes]:
    def change(rows: list[str]) -> list[str]:
        fields = [row.split(",") for row in rows[1:]]
        return [rows[0], *(",".join([f[0], str(float(f[1]) * factor), *f[2:]]) for f in fields)]

    return lines(change)


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str, dict[str, Any]]] = {
    "empty": (lambda _: b"", r"series\.csv is empty: fetch it again", {}),
    "heading alone": (lines(lambda rows: rows[:1]), r"series\.csv holds a heading and no rows", {}),
    "one row": (lines(lambda rows: rows[:2]), r"series\.csv holds one row only", {}),
    "web page": (lambda _: b"\n<!DOCTYPE html><html></html>", r"series\.csv is a web page.*raw file", {}),
    "cut short": (lambda b: b[:-14], r"series\.csv line 49 \(the last\) has 2 fields instead of 4.*cut short", {}),
    "ragged": (lines(lambda rows: [*rows[:7], rows[7] + ",1", *rows[8:]]), r"line 8 has 5 fields instead of 4", {}),
    "missing column": (
        cell(1, 2, "T9"),
        rf"no column 'T1'; it has {re.escape(TIME)}, TGBT, T9, AirTemp: correct ingest.columns",
        {},
    ),
    "missing time": (cell(1, 0, "when"), r"no column 'Date and time .*'; it has when.*ingest.file.time_column", {}),
    "column twice": (cell(1, 2, "TGBT"), r"has 2 columns headed 'TGBT'", {}),
    "separator": (lambda b: b.replace(b",", b";"), r"line 1 has one column only.*comma.*semicolon.*separator", {}),
    "encoding": (lambda b: b.replace(b"T1", b"\xe9"), r"cannot be read as ingest.file.encoding = utf-8", {}),
    "word": (cell(5, 1, "n/d"), r"line 5, column 'TGBT': 'n/d' is not a number: correct it", {}),
    "stamp": (cell(6, 0, "yesterday"), r"line 6, time stamp 'yesterday': cannot be read as ISO 8601", {}),
    "date": (cell(6, 0, "2019-06-99 04:00:00+00:00"), r"line 6, time stamp '2019-06-99.*cannot be read", {}),
    "no stamp": (cell(6, 0, ""), r"line 6, time stamp an empty cell: cannot be read", {}),
    "offset on some": (cell(6, 0, "2019-06-03 04:00:00"), r"line 6, .*offset present on some stamps only", {}),
    "mixed offsets": (cell(6, 0, "2019-06-03 09:00:00+05:00"), r"line 6.*mixed offsets \(\+00:00, \+05:00\)", {}),
    "twice": (
        lines(lambda rows: [*rows[:9], rows[8], *rows[9:]]),
        r"line 10, .*the same instant as line 9: keep one",
        {},
    ),
    "unsorted": (
        lines(lambda rows: [*rows[:9], rows[10], rows[9], *rows[11:]]),
        r"line 11, .*earlier than '2019-06-03 09:00:00\+00:00' before it: sort",
        {},
    ),
    "step": (
        lambda b: b,
        r"rows are 60 minutes apart, ingest.file.step_minutes says 15: set it to 60",
        {"step_minutes": 15},
    ),
    "odd step": (cell(6, 0, "2019-06-03 03:10:00+00:00"), r"line 6: 2019-06-03 03:10 UTC comes 10 minutes after", {}),
    "far": (cell(49, 0, "2031-06-03 03:00:00+00:00"), r"line 49: 2031-06-03 03:00 UTC comes \d+ minutes after", {}),
    "comma in a quoted file": (
        lambda b: b.replace(b"AirTemp", b'"AirTemp"', 1).replace(b",20.5,", b",20,5,", 1),
        r"line 12 has 5 fields instead of 4",
        {},
    ),
    "field too many in a quoted file": (
        lines(lambda rows: [rows[0].replace("T1", '"T1"'), *rows[1:9], *(row + ",1" for row in rows[9:])]),
        r"line 10 has 5 fields instead of 4",
        {},
    ),
    "open quote": (cell(7, 1, '"15.5'), r"line 7: .*correct its quotes", {}),
    "quote within": (cell(7, 1, '"15"5'), r"line 7: .*expected after", {}),
    "no end": (lambda b: b[:-1], r"line 49 \(the last\) has no end.*cut short", {}),
    "cut in a number": (lambda b: b[:-2], r"line 49 \(the last\) has no end.*cut short", {}),
    "nul": (lambda b: b[:300] + b"\0" * 9 + b[309:], r"line 8 holds a NUL byte", {}),
    "infinite": (cell(5, 1, "inf"), r"line 5, column 'TGBT': 'inf' is not a number", {}),
    "mark alone": (lambda _: b"\xef\xbb\xbf", r"series\.csv is empty", {}),
    "JSON": (lambda _: b'[{"TGBT": 1.5, "T1": 2}]', r"is JSON, not a table", {}),
    "basic stamps": (
        lines(
            lambda rows: [rows[0], *(re.sub(r"[-:]", "", r[:19]).replace(" ", "T") + "Z" + r[25:] for r in rows[1:])]
        ),
        r"line 2, time stamp '20190603T000000Z': cannot be read as ISO 8601",
        {},
    ),
    "year 1160": (cell(2, 0, "1160-06-03 00:00:00+00:00"), r"line 2, .*no year in which", {}),
    "year 9016": (cell(49, 0, "9016-06-03 00:00:00+00:00"), r"line 49, .*no year in which", {}),
    "half hours": (
        lambda b: b.replace(b"-06-", b"-07-"),
        r"rows are 60 minutes apart, ingest.file.step_minutes says 30: set it to 60",
        {"step_minutes": 30},
    ),
    "half an hour within": (cell(6, 0, "2019-06-03 03:30:00+00:00"), r"line 6: .* comes 30 minutes after", {}),
    "hour and a half": (cell(6, 0, "2019-06-03 04:30:00+00:00"), r"line 6: .* comes 90 minutes after", {}),
    "no target": (
        lines(lambda rows: [rows[0], *(",".join([r.split(",")[0], "", *r.split(",")[2:]]) for r in rows[1:])]),
        r"column 'TGBT' has no value at all: choose another target",
        {},
    ),
    "watts": (
        times(1000),
        r"column 'TGBT': half .* exceed 34000 kW, probably watts: set ingest.columns.TGBT.unit to W",
        {},
    ),
    "sign": (
        times(-1),
        r"column 'TGBT': half of the values are below -34.00 kW: set ingest.columns.TGBT.sign to -1",
        {},
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_by_name_and_remedy(name: str, small: pd.DataFrame, tmp_path: Path) -> None:
    spoil, message, file = BROKEN[name]
    path = write(small, tmp_path / "series.csv")
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(InputError, match=message) as problem:
        read_hourly(settings(**file), path)
    assert str(path) in str(problem.value)


@pytest.mark.parametrize("minutes", [30, 90])
def test_rows_of_another_step_than_configured_are_refused(minutes: int, small: pd.DataFrame, tmp_path: Path) -> None:
    stamps = pd.date_range("2019-06-03", periods=48, freq=f"{minutes}min", tz="UTC")
    path = write(small.set_axis(stamps), tmp_path / "series.csv")
    with pytest.raises(InputError, match=rf"rows are {minutes} minutes apart, ingest.file.step_minutes says 60"):
        read_hourly(settings(), path)


@pytest.mark.parametrize("minutes", [1, 15, 60])
@pytest.mark.parametrize("clock", ["jitter", "slow"])
def test_a_clock_seconds_off_loses_no_hour_and_is_reported(
    minutes: int, clock: str, plain: pd.DataFrame, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = finer(plain, minutes) if minutes < 60 else plain
    off = np.random.default_rng(0).integers(-5, 6, len(table)) if clock == "jitter" else np.full(len(table), -5)
    stamps = pd.DatetimeIndex(table.index) + pd.to_timedelta(off, unit="s")
    read = read_hourly(settings(step_minutes=minutes), write(table.set_axis(stamps), tmp_path / "series.csv"))
    pd.testing.assert_frame_equal(read, plain, check_freq=False)
    assert "lie up to 5 s beside their step" in caplog.text


def test_a_clock_that_drifts_is_refused_where_it_has_gone_too_far(plain: pd.DataFrame, tmp_path: Path) -> None:
    stamps = pd.DatetimeIndex(plain.index) + pd.to_timedelta(np.arange(len(plain)) * 3, unit="s")
    with pytest.raises(InputError, match=r"line \d+: .* UTC lies \d+ s beside the steps of 60 minutes"):
        read_hourly(settings(), write(plain.set_axis(stamps), tmp_path / "series.csv"))


def test_hours_of_a_zone_between_the_hours_stay_together(plain: pd.DataFrame, tmp_path: Path) -> None:
    stamps = pd.DatetimeIndex(plain.index) + pd.Timedelta(minutes=30)
    read = read_hourly(settings(), write(plain.set_axis(stamps), tmp_path / "series.csv"))
    pd.testing.assert_frame_equal(read, plain, check_freq=False)


def test_hardly_any_of_the_hours_are_no_series(small: pd.DataFrame, tmp_path: Path) -> None:
    stamps = small.index + pd.to_timedelta(np.arange(48) // 3 * 300, unit="D")
    with pytest.raises(InputError, match="holds hardly any of its"):
        read_hourly(settings(), write(small.set_axis(stamps), tmp_path / "series.csv"))


def test_kilowatts_taken_for_watts_are_suspected(small: pd.DataFrame, tmp_path: Path) -> None:
    path = write(small, tmp_path / "series.csv")
    columns = COLUMNS | {"TGBT": Column(kind="load", unit="W")}
    with pytest.raises(InputError, match=r"below 0.0340 kW, probably kilowatts.*unit to kW"):
        read_hourly(settings(columns), path)


def test_decimal_commas_read_with_points_hint_at_the_setting(small: pd.DataFrame, tmp_path: Path) -> None:
    path = write(small, tmp_path / "series.csv", sep=";", decimal=",")
    with pytest.raises(InputError, match=r"line 2, column 'TGBT': '10,5' is not a number.*ingest.file.decimal"):
        read_hourly(settings(separator=";"), path)


def test_a_missing_file_says_how_to_fetch_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"series\.csv does not exist: fetch it \(dvc import-url"):
        read_hourly(settings(), tmp_path / "series.csv")


def test_a_weather_column_without_values_is_to_be_removed(small: pd.DataFrame, tmp_path: Path) -> None:
    path = write(small.assign(AirTemp=np.nan), tmp_path / "series.csv")
    with pytest.raises(InputError, match=r"column 'AirTemp' has no value at all: remove AirTemp from ingest.columns"):
        read_hourly(settings(), path)


HEAD = "location;Drammen\nnotes;a roof, a note\n\n;weather;\n;C;Wh;\n"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("head_lines", [None, 5])
def test_head_lines_are_counted_or_found(head_lines: int | None, end: str, plain: pd.DataFrame, tmp_path: Path) -> None:
    """A mark, ragged lines before the heading, an empty heading, offsets without a colon, energy of an hour."""
    table = plain[["AirTemp", "TGBT"]].assign(TGBT=plain["TGBT"] * 1000)
    table.insert(1, "", 7)
    stamped = table.set_axis(pd.DatetimeIndex(table.index).tz_convert("Etc/GMT-1").strftime("%Y-%m-%dT%H:%M:%S%z"))
    path = write(stamped, tmp_path / "series.csv", sep=";", heading="TimeStamp")
    text = "\ufeff" + HEAD + path.read_text()
    path.write_bytes(text.replace("\n", end).encode())
    columns = {"TGBT": Column(kind="load", unit="Wh"), "AirTemp": COLUMNS["AirTemp"]}
    read = read_hourly(settings(columns, separator=";", time_column="TimeStamp", head_lines=head_lines), path)
    pd.testing.assert_frame_equal(read, plain[list(columns)], check_freq=False)
    path.write_bytes(text.replace("-1.5", "n/d").replace(f"{plain['AirTemp'].iloc[3]};7", "n/d;7", 1).encode())
    with pytest.raises(InputError, match=r"line 10, column 'AirTemp': 'n/d' is not a number"):
        read_hourly(settings(columns, separator=";", time_column="TimeStamp", head_lines=head_lines), path)


def test_a_heading_that_no_line_holds_is_refused_before_its_fields_are_counted(
    small: pd.DataFrame, tmp_path: Path
) -> None:
    path = write(small, tmp_path / "series.csv", sep=";", heading="when")
    path.write_text(HEAD + path.read_text())
    with pytest.raises(
        InputError, match=r"no column 'Date and time .*'; it has location, Drammen: .*time_column.*head"
    ):
        read_hourly(settings(separator=";"), path)
    with pytest.raises(InputError, match=r"has 54 lines, ingest\.file\.head_lines says 54"):
        read_hourly(settings(separator=";", head_lines=54), path)


@pytest.mark.parametrize(
    ("unit", "minutes", "factor"),
    [("Wh", 60, 1000), ("kWh", 60, 1), ("MWh", 60, 0.001), ("kWh", 15, 0.25), ("Wh", 30, 500), ("MW", 15, 0.001)],
)
def test_energy_of_a_step_becomes_power(
    unit: str, minutes: int, factor: float, plain: pd.DataFrame, tmp_path: Path
) -> None:
    table = finer(plain, minutes) if minutes < 60 else plain
    path = write(table.assign(TGBT=table["TGBT"] * factor), tmp_path / "series.csv")
    columns = COLUMNS | {"TGBT": Column(kind="load", unit=unit)}
    read = read_hourly(settings(columns, step_minutes=minutes), path)
    pd.testing.assert_frame_equal(read, plain, check_freq=False)


def test_a_large_load_whose_unit_is_written_is_believed(plain: pd.DataFrame, tmp_path: Path) -> None:
    path = write(plain.assign(TGBT=plain["TGBT"] * 1000), tmp_path / "series.csv")
    read = read_hourly(settings(COLUMNS | {"TGBT": Column(kind="load", unit="kW")}), path)
    np.testing.assert_allclose(read["TGBT"], plain["TGBT"] * 1000)


def test_any_other_column_is_read_as_it_stands(plain: pd.DataFrame, tmp_path: Path) -> None:
    path = write(plain.assign(price=-plain["AirTemp"]), tmp_path / "series.csv")
    read = read_hourly(settings(COLUMNS | {"price": Column(kind="other", unit="EUR/MWh")}), path)
    np.testing.assert_array_equal(read["price"], -plain["AirTemp"])


def test_several_files_are_one_series(plain: pd.DataFrame, tmp_path: Path) -> None:
    """Loads by year in files that overlap, the weather in another, whatever their order."""
    files = [
        write(plain[["TGBT", "T1"]].iloc[:400], tmp_path / "a.csv"),
        write(plain[["AirTemp"]], tmp_path / "weather.csv"),
        write(plain[["T1", "TGBT"]].iloc[350:], tmp_path / "b.csv"),
    ]
    for paths in (files, files[::-1]):
        pd.testing.assert_frame_equal(read_hourly(settings(), paths), plain, check_freq=False)


def test_files_that_differ_about_a_value_are_refused_by_both_lines(small: pd.DataFrame, tmp_path: Path) -> None:
    one = write(small.iloc[:30], tmp_path / "a.csv")
    two = write(
        small.iloc[20:].assign(TGBT=lambda t: t["TGBT"].where(t.index != small.index[25], 99.0)), tmp_path / "b.csv"
    )
    with pytest.raises(
        InputError, match=r"a\.csv line 27 and \S+b\.csv line 7 differ at 2019-06-04 01:00.*35\.5 and 99"
    ):
        read_hourly(settings(), [one, two])


def test_a_column_that_no_file_holds_or_a_file_without_any_is_refused(small: pd.DataFrame, tmp_path: Path) -> None:
    loads, weather = write(small[["TGBT"]], tmp_path / "a.csv"), write(small[["AirTemp"]], tmp_path / "b.csv")
    with pytest.raises(InputError, match=r"none of \S+a\.csv, \S+b\.csv has a column 'T1': correct ingest\.columns"):
        read_hourly(settings(), [loads, weather])
    with pytest.raises(InputError, match=r"b\.csv has none of the columns TGBT; it has Date.*ingest\.source"):
        read_hourly(settings({"TGBT": COLUMNS["TGBT"]}), [loads, weather])
