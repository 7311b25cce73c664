"""A file written from a known series, in many forms, is proposed to the reader so that it reads that series again."""

import io
import logging
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from isotrain.cli import run
from isotrain.config import load
from isotrain.data.cells import unpacked
from isotrain.data.ingest import ingest_all
from isotrain.data.inspect import Asked, Proposal, as_yaml, bars, inspect, write_section
from isotrain.data.source import read_hourly
from isotrain.errors import InputError

REPOSITORY = Path(__file__).parents[2]
NOTHING = Asked()


def building(start: str = "2021-01-01", days: int = 365, zone: str = "Europe/Oslo", step: str = "h") -> pd.DataFrame:
    """Load in kW and temperature in degC of a building whose people follow the clock of ``zone``; UTC index."""
    index = pd.date_range(start, periods=days * (96 if step == "15min" else 24), freq=step, tz="UTC")
    local, chance = index.tz_convert(zone), np.random.default_rng(0)
    hour = local.hour + local.minute / 60
    used = 20 + 15 * ((hour >= 8) & (hour < 18) & (local.day_of_week < 5)) + chance.normal(0, 1, len(index))
    warm = 8 - 9 * np.cos(2 * np.pi * index.day_of_year / 365) + chance.normal(0, 1, len(index))
    return pd.DataFrame({"load": used.round(3), "temperature": warm.round(2)}, index=index)


def on_clock(series: pd.DataFrame, zone: str) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(series.index).tz_convert(zone)


def proposed(text: str | bytes, path: Path, asked: Asked = NOTHING) -> Proposal:
    """What is proposed for a file that holds ``text``."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return inspect([path], asked)


def read(proposal: Proposal, path: Path) -> pd.Series:
    """The target as the pipeline reads it with the proposed section, kW."""
    settings = proposal.settings(path.name)
    return read_hourly(settings, path)[settings.target]


def expect(series: pd.Series, truth: pd.Series) -> None:
    """The same instants and values, up to the digits written."""
    pd.testing.assert_series_equal(
        series, truth, check_names=False, check_freq=False, check_index_type=False, atol=2e-3
    )
    assert (series.index == truth.index).all()


def kinds(proposal: Proposal) -> dict[str, str]:
    return {key: column["kind"] for key, column in proposal.section["columns"].items()}


STAMPS = ("%Y-%m-%d %H:%M:%S", "%d/%m/%Y %H:%M", "%m/%d/%Y %I:%M %p", "%d.%m.%Y %H:%M", "%Y%m%d%H%M", "%Y/%m/%d %H:%M",
          "%d-%b-%Y %H:%M", "%d/%m/%y %H:%M", "%Y-%m-%dT%H:%M:%S+00:00")  # fmt: skip
WRITTEN = ((",", "."), (";", ","), ("\t", "."), ("\t", ","), ("|", "."))


@pytest.mark.parametrize(("number", "stamps"), enumerate([*STAMPS, *STAMPS]))
def test_every_way_to_write_stamps_and_numbers_is_read_back(number: int, stamps: str, tmp_path: Path) -> None:
    separator, decimal = WRITTEN[number % len(WRITTEN)]
    truth = building(days=40)
    table = truth.assign(when=on_clock(truth, "UTC").strftime(stamps))[["when", "temperature", "load"]]
    table.columns = ["Time (UTC)", "Température [°C]", "Load [kW]"]
    path = tmp_path / "a.csv"
    text = table.to_csv(index=False, sep=separator, decimal=decimal)
    encodings = ("utf-8", "utf-8-sig", "latin-1", "utf-16")
    encoding = encodings[number % len(encodings)]
    proposal = proposed(text.encode(encoding), path)
    assert kinds(proposal) == {"Température": "temperature", "Load": "load"}
    expect(read(proposal, path), truth["load"])


def excel_in_france(truth: pd.DataFrame) -> bytes:
    """Semicolons, decimal commas, CRLF, a mark in front, stamps of a clock that skips and repeats an hour."""
    local = on_clock(truth, "Europe/Paris").strftime("%d/%m/%Y %H:%M")
    table = pd.DataFrame({"Horodate": local, "Puissance (W)": (truth["load"] * 1000).round().to_numpy()})
    return table.to_csv(index=False, sep=";", decimal=",", lineterminator="\r\n").encode("utf-8-sig")


def with_head_lines(truth: pd.DataFrame) -> bytes:
    """Facts about the meter, lines of kinds and units, energy of an hour in Wh, winter time with its offset."""
    head = (
        "location;Drammen - Norway\r\ntime_zone;Etc/Gmt-1\r\n\r\n;Weather;Electricity import;Heat use\r\n;C;Wh;Wh\r\n"
    )
    stamps = on_clock(truth, "Etc/GMT-1").strftime("%Y-%m-%dT%H:%M:%S%z")
    energy = truth["load"].to_numpy() * 1000
    table = pd.DataFrame({"TimeStamp": stamps, "Tout": truth["temperature"].to_numpy(), "El": energy, "Ht": 3 * energy})
    return (head + table.to_csv(index=False, sep=";", lineterminator="\r\n")).encode("utf-8-sig")


def against_the_sign(truth: pd.DataFrame) -> bytes:
    return (
        pd.DataFrame({"time": truth.index, "grid power [kW]": -truth["load"].to_numpy()}).to_csv(index=False).encode()
    )


def with_useless_columns(truth: pd.DataFrame) -> bytes:
    table = pd.DataFrame({"id": range(len(truth)), "when": truth.index, "usage_kW": truth["load"].to_numpy()})
    table = table.assign(place="hall", open=np.where(table["id"] % 7 < 2, "FALSE", "TRUE"), gain=1, spare="", wind=1.5)
    table.loc[3:, "wind"] = np.arange(len(table) - 3) % 11 / 2
    return table.to_csv(index=False).encode()


def of_two_loads(truth: pd.DataFrame) -> bytes:
    table = pd.DataFrame({"when": truth.index, "T1": truth["load"].to_numpy() / 3, "T2": truth["load"].to_numpy() / 2})
    return table.assign(**{"Main meter": truth["load"].to_numpy()}).to_csv(index=False).encode()


FORMS: dict[Callable[[pd.DataFrame], bytes], dict[str, str]] = {
    excel_in_france: {"Puissance": "load"},
    with_head_lines: {"Tout": "temperature", "El": "load", "Ht": "sub_load"},
    against_the_sign: {"grid_power": "load"},
    with_useless_columns: {"usage_kW": "load", "wind": "other"},
    of_two_loads: {"T1": "sub_load", "T2": "sub_load", "Main_meter": "load"},
}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_files_as_portals_and_spreadsheets_write_them_are_read_back(
    form: Callable[[pd.DataFrame], bytes], tmp_path: Path
) -> None:
    truth, path = building(), tmp_path / "a.csv"
    proposal = proposed(form(truth), path)
    assert kinds(proposal) == FORMS[form]
    expect(read(proposal, path), truth["load"])


def test_energy_of_a_quarter_of_an_hour_is_read_as_power(tmp_path: Path) -> None:
    truth, path = building(days=30, step="15min"), tmp_path / "a.csv"
    table = pd.DataFrame({"time": truth.index, "consumption (kWh)": (truth["load"] / 4).to_numpy()})
    proposal = proposed(table.to_csv(index=False), path)
    assert proposal.section["file"]["step_minutes"] == 15
    expect(read(proposal, path), truth["load"].resample("h").mean())


@pytest.mark.parametrize("zone", ["Europe/Paris", "Europe/London", "America/New_York", "Australia/Sydney"])
def test_the_zone_of_local_stamps_is_found_by_the_hours_that_the_clock_skips_and_repeats(
    zone: str, tmp_path: Path
) -> None:
    truth, path = building("2020-03-01", 600, zone), tmp_path / "a.csv"
    stamps = on_clock(truth, zone).strftime("%Y-%m-%d %H:%M")
    proposal = proposed(pd.DataFrame({"t": stamps, "load [kW]": truth["load"].to_numpy()}).to_csv(index=False), path)
    assert proposal.section["file"]["time_zone"] == proposal.section["time_zone"] == zone
    expect(read(proposal, path), truth["load"])


@pytest.mark.parametrize(("written", "expected"), [("UTC", "UTC"), ("Europe/Paris", "Europe/Paris")])
def test_stamps_without_a_skipped_hour_are_told_apart_by_whether_the_days_move_at_the_clock_changes(
    written: str, expected: str, tmp_path: Path
) -> None:
    """A file of full days is in UTC if people's hours move in it, and else follows the clock with a row filled in."""
    truth, path = building("2019-01-01", 730, "Europe/Paris"), tmp_path / "a.csv"
    clock = pd.Series(truth["load"].to_numpy(), index=on_clock(truth, written).tz_localize(None))
    days = pd.date_range("2019-01-02", "2020-12-29 23:00", freq="h")
    filled = clock.groupby(level=0).first().reindex(days).ffill()
    table = pd.DataFrame({"t": days.strftime("%d/%m/%Y %H:%M"), "load": filled.to_numpy()})
    proposal = proposed(table.to_csv(index=False), path, Asked(time_zone="Europe/Paris"))
    assert proposal.section["file"]["time_zone"] == expected
    series = read(proposal, path)
    both = pd.concat([series, truth["load"]], axis=1, join="inner").dropna().to_numpy()
    assert np.abs(both[:, 0] - both[:, 1]).max() < 1e-2 and len(both) >= len(days) - 24


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("date,hour,load\n" + "2021-01-04,{h},5.{h}\n", "the hour in 'hour'"),
        ("date,load\n" + "2021-01-{d:02},5.{h}\n", "dates without an hour"),
        ("time,load\n" + "{epoch},5.{h}\n", "seconds since 1970"),
        ("2021-01-04 {h:02}:00,5.{h}\n", "has no heading"),
        ("time,load\n" + "2021-01-{d:02} 10:00,5.{h}\n", "1440 minutes apart"),
        ("time,load\n" + "03/04/2021 {h:02}:00,5.{h}\n", "--day-first or --month-first"),
        ("time,name\n" + "2021-01-04 {h:02}:00,x{h}\n", "no column looks like a load"),
        ("time,load\n" + '2021-01-04 {h:02}:00,"1,00{h}.5"\n', "'load': it holds text"),
        ("time\n" + "2021-01-04 {h:02}:00\n", "is no table"),
        ("when,load\n" + "at {h} o'clock,5.{h}\n", "no column of time stamps"),
        ('{{"a": 1}}\n' + "{h}", "JSON"),
        ("PK" + "{h}", "a spreadsheet or an archive"),
        ("" + " ", "is empty"),
    ],
)
def test_what_cannot_be_read_is_said_with_what_to_do(rows: str, said: str, tmp_path: Path) -> None:
    head, _, row = rows.partition("\n") if rows.count("\n") == 2 else ("", "", rows)
    filled = [row.format(h=h, d=h + 1, epoch=1_600_000_000 + 3600 * h) for h in range(24)]
    with pytest.raises(InputError, match=r"a\.csv") as refused:
        proposed((head.replace("{{", "{") + "\n" if head else "") + "".join(filled), tmp_path / "a.csv")
    assert said in str(refused.value)


def test_an_option_decides_the_order_of_day_and_month_unless_the_data_say_otherwise(tmp_path: Path) -> None:
    rows = "".join(f"03/04/2021 {hour:02}:00,{hour}.5\n" for hour in range(24))
    for first, month in ((True, 4), (False, 3)):
        assert proposed("t,load\n" + rows, tmp_path / "a.csv", Asked(day_first=first)).first.month == month
    with pytest.raises(InputError, match="leave out the option"):
        proposed("t,load\n" + rows.replace("03/04", "13/04"), tmp_path / "a.csv", Asked(day_first=False))


def test_options_for_building_target_and_unit_go_before_what_is_found(tmp_path: Path) -> None:
    truth = building(days=30)
    table = pd.DataFrame({"t": truth.index, "total load": truth["load"].to_numpy(), "B": truth["load"].to_numpy() / 2})
    asked = Asked(country="NO", target="B", unit="MW")
    section = proposed(table.to_csv(index=False), tmp_path / "a.csv", asked).section
    assert (section["country"], section["time_zone"], section["target"]) == ("NO", "Europe/Oslo", "B")
    assert section["columns"]["B"] == {"kind": "load", "unit": "MW"}
    with pytest.raises(InputError, match="no column of numbers 'C'"):
        proposed(table.to_csv(index=False), tmp_path / "a.csv", Asked(target="C"))
    with pytest.raises(InputError, match="'Oslo' is no time zone"):
        proposed(table.to_csv(index=False), tmp_path / "a.csv", Asked(time_zone="Oslo"))
    with pytest.raises(InputError, match="no country"):
        proposed(table.to_csv(index=False), tmp_path / "a.csv", Asked(country="XX"))


def test_a_building_is_where_a_column_of_dates_begins_its_days(tmp_path: Path) -> None:
    truth = building("2020-01-01", 400, "Australia/Sydney")
    day = on_clock(truth, "Australia/Sydney").strftime("%Y-%m-%d")
    table = pd.DataFrame({"t": truth.index, "load": truth["load"].to_numpy(), "Date": day})
    section = proposed(table.to_csv(index=False), tmp_path / "a.csv").section
    assert (section["time_zone"], section["country"]) == ("Australia/Sydney", "AU")


def test_a_load_at_night_makes_the_guessed_zone_doubtful(tmp_path: Path) -> None:
    for zone, doubtful in (("Europe/Paris", False), ("Australia/Sydney", True)):
        truth = building(days=60, zone=zone)
        table = pd.DataFrame({"t": truth.index, "load [kW]": truth["load"].to_numpy()})
        proposal = proposed(table.to_csv(index=False), tmp_path / "a.csv")
        assert proposal.section["time_zone"] == "Europe/Paris"
        assert any("unusual" in what for what in proposal.to_check) == doubtful


def test_several_files_in_any_order_are_one_series(tmp_path: Path) -> None:
    truth = building(days=60)
    table = pd.DataFrame({"t": truth.index, "load [kW]": truth["load"].to_numpy()})
    paths = [tmp_path / "b.csv", tmp_path / "a.csv"]
    for path, part in zip(paths, (table[700:], table[:700]), strict=True):
        part.to_csv(path, index=False)
    proposal = inspect(paths)
    assert (proposal.rows, proposal.first) == (len(table), truth.index[0].tz_localize(None))
    expect(read_hourly(proposal.settings([path.name for path in paths]), paths)["load"], truth["load"])
    paths[1].write_text(table[:700].to_csv(index=False, sep=";"))
    with pytest.raises(InputError, match="in another form"):
        inspect(paths)


def test_a_file_in_a_zip_file_is_named_like_one_in_a_folder(tmp_path: Path) -> None:
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("deep/a.csv", "a\n")
        packed.writestr("b.csv", "b\n")
    assert unpacked(archive / "deep" / "a.csv", tmp_path).read_text() == "a\n"
    assert unpacked(tmp_path / "plain.csv", tmp_path) == tmp_path / "plain.csv"
    with pytest.raises(InputError, match=r"holds 2 files: name one of them, such as .*all\.zip/deep/a\.csv"):
        unpacked(archive, tmp_path)
    with pytest.raises(InputError, match=r"holds no file c\.csv"):
        unpacked(archive / "c.csv", tmp_path)


def test_yaml_reads_the_section_as_it_was(tmp_path: Path) -> None:
    section = proposed(with_head_lines(building(days=30)), tmp_path / "a.csv").section
    assert section["country"] == "NO"
    assert yaml.safe_load(io.StringIO(as_yaml(section)))["ingest"] == section


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_writing_the_section_keeps_every_other_byte(newline: str, tmp_path: Path) -> None:
    before = (REPOSITORY / "params.yaml").read_text(encoding="utf-8").replace("\n", newline)
    params = tmp_path / "params.yaml"
    params.write_bytes(before.encode())
    section = proposed(with_head_lines(building(days=30)), tmp_path / "a.csv").section
    write_section(params, section)
    after = params.read_bytes().decode()
    for word, part in ((f"{newline}ingest:", 0), (f"{newline}window:", 1)):
        assert after.split(word)[part] == before.split(word)[part]
    assert yaml.safe_load(after)["ingest"] == section | {"simulated": yaml.safe_load(before)["ingest"]["simulated"]}
    write_section(params, section)
    assert params.read_bytes().decode() == after


def test_a_file_of_settings_without_the_section_is_refused(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("window: {history: 24}\n")
    with pytest.raises(InputError, match="no section ingest"):
        write_section(params, {"target": "a"})


def test_bars_go_from_the_lowest_to_the_highest() -> None:
    assert bars(np.array([1.0, np.nan, 8.0])) == "▁ █"
    assert bars(np.array([5.0, 5.0])) == "▁▁"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.getLogger("isotrain.data"), "level", logging.NOTSET)  # the command changes it
    return tmp_path


@pytest.mark.slow
def test_the_command_makes_a_file_the_series_of_the_study(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (project / "params.yaml").read_bytes()
    given = project / "elsewhere" / "meter.csv"
    given.parent.mkdir()
    given.write_bytes(excel_in_france(building()))
    run("inspect", str(given), "--picture", "meter.png")
    assert (project / "meter.png").read_bytes().startswith(b"\x89PNG")
    assert (project / "params.yaml").read_bytes() == before and not (project / "data").exists()
    run("inspect", str(given), "--write")
    said = capsys.readouterr().out
    assert "Please check" in said and "make reproduce" in said
    settings = load(project / "params.yaml").ingest
    assert settings.source == "meter.csv"
    expect(read_hourly(settings, project / "data" / "raw" / "meter.csv")["Puissance"], building()["load"])
    run("inspect", "data/raw/meter.csv", "--write")
    assert load(project / "params.yaml").ingest == settings


def test_what_the_reader_refuses_is_not_written(project: Path) -> None:
    before = (project / "params.yaml").read_bytes()
    given = project / "meter.csv"
    text = excel_in_france(building())
    for spoilt, said in (
        (text.rstrip(), "has no end"),
        (text + text.splitlines(keepends=True)[-1], "the same instant as line 8761"),
    ):
        given.write_bytes(spoilt)
        with pytest.raises(InputError, match=said):
            run("inspect", str(given), "--write")
    given.write_bytes(text)
    raw = project / "data" / "raw"
    raw.mkdir(parents=True)
    (raw / "meter.csv").write_text("another\n")
    with pytest.raises(InputError, match="would hold two files"):
        run("inspect", str(given), "--write")
    assert (project / "params.yaml").read_bytes() == before and (raw / "meter.csv").read_text() == "another\n"


@pytest.mark.parametrize("packed", [True, False])
def test_a_folder_or_a_zip_file_becomes_many_series(
    packed: bool, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second file lacks a column, the third has no load: the section is of what most have, and says so."""
    given = project / "elsewhere" / "meters"
    given.mkdir(parents=True)
    truth = building(days=60)
    whole = with_head_lines(truth)
    (given / "a.csv").write_bytes(whole)
    (given / "b.csv").write_bytes(whole.replace(b";Tout;", b";Other;"))
    (given / "c.csv").write_bytes(whole.replace(b";El;", b";Other;"))
    source = given
    if packed:
        source = Path(shutil.make_archive(str(given), "zip", given))
    run("inspect", str(source), "--write")
    said = capsys.readouterr().out
    assert "2 of 3 files are read by this section" in said and "c: " in said
    settings = load(project / "params.yaml").ingest
    assert (settings.series, settings.source) == ("each", source.name)
    many = ingest_all(settings.model_copy(update={"broken": "leave_out"}), project / "data" / "raw")
    for tidy in many:
        assert list(tidy.raw) == ["El", "Ht"]
        expect(tidy.raw["El"], truth["load"])
    assert list(many.left_out) == ["c"]
