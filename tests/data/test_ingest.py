"""What the stage writes: a validated table with its facts, both or neither; and what the real series gives."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from pydantic import ValidationError

from isotrain import files
from isotrain.config.ingest import Check, Column, Ingest, Simulated
from isotrain.data import ingest as stage
from isotrain.data.ingest import Tidy, ingest, read, write
from isotrain.data.repair import repair
from isotrain.data.schema import Flag, check_hourly, check_tidy
from isotrain.errors import InputError

SHORT = Ingest(simulated=Simulated(hours=24 * 42))
FLAGS = {"gap", "stuck", "outage", "impossible", "offset", "not_started"}


@pytest.fixture(scope="module")
def tidy() -> Tidy:
    return ingest(SHORT, Path("data/raw"))


def test_the_table_on_disc_is_the_promised_one(tidy: Tidy, tmp_path: Path) -> None:
    write(tidy, tmp_path)
    table = pd.read_parquet(tmp_path / "series.parquet")
    names = list(SHORT.columns)
    assert list(table) == ["time", *names, *(f"{name}__flag" for name in names)]
    assert str(table["time"].dtype).endswith("UTC]")
    assert (table["time"].diff().iloc[1:] == pd.Timedelta(hours=1)).all()
    assert (table[names].dtypes == np.float64).all()
    assert (table.filter(like="__flag").dtypes == np.int8).all()
    assert not table.isna().any().any()


def test_the_facts_on_disc_say_what_the_table_is(tidy: Tidy, tmp_path: Path) -> None:
    write(tidy, tmp_path)
    facts = json.loads((tmp_path / "series.json").read_text())
    told = ("source", "simulated", "rows", "target", "unit", "time_zone", "country")
    assert [facts[key] for key in told] == ["simulated", True, 24 * 42, "TGBT", "kW", "Europe/Paris", "FR"]
    assert facts["columns"]["T1"] == {"unit": "kW", "kind": "load"}
    assert facts["columns"]["AirTemp"] == {"unit": "degC", "kind": "temperature"}
    assert facts["columns"]["Direct_Solar_Flux"] == {"unit": "W/m2", "kind": "solar"}
    for name, counts in facts["flags"].items():
        assert set(counts) == FLAGS
        assert counts["gap"] == (tidy.frame[f"{name}__flag"] == Flag.GAP).sum()
    assert len(facts["sha256"]) == 64


def test_a_file_gives_what_the_simulator_put_into_it(tidy: Tidy, tmp_path: Path) -> None:
    path = tmp_path / "series.csv"
    tidy.raw.rename_axis("Date and time (UTC)").to_csv(path)
    for source in ("series.csv", str(path)):
        read = ingest(SHORT.model_copy(update={"source": source}), tmp_path)
        pd.testing.assert_frame_equal(read.frame, tidy.frame)
        assert read.facts["source"] == "series.csv"
        assert read.facts["simulated"] is False
        assert read.facts["sha256"] == files.sha256(path)


def test_a_source_outside_the_raw_folder_is_warned_about(
    tidy: Tidy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tidy.raw.rename_axis("Date and time (UTC)").to_csv(tmp_path / "series.csv")
    ingest(SHORT.model_copy(update={"source": str(tmp_path / "series.csv")}), tmp_path / "raw")
    assert "DVC will not notice" in caplog.text


@pytest.mark.parametrize("kept", [["TGBT"], ["TGBT", "T1", "T2"], ["TGBT", "AirTemp"]])
def test_a_part_of_the_columns_is_enough(kept: list[str]) -> None:
    settings = SHORT.model_copy(update={"columns": {name: SHORT.columns[name] for name in kept}})
    assert list(ingest(settings, Path()).facts["columns"]) == kept


def test_a_column_that_the_simulator_does_not_make_is_refused() -> None:
    settings = SHORT.model_copy(update={"columns": SHORT.columns | {"T8": Column(kind="sub_load")}})
    with pytest.raises(InputError, match=r"no column T8; it has .*TGBT.*correct ingest\.columns"):
        ingest(settings, Path())


@pytest.mark.parametrize("fails", ["to_parquet", "write_json"])
def test_a_failure_leaves_the_old_output_untouched(
    tidy: Tidy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    write(tidy, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def broken(*_: object, **__: object) -> None:
        raise OSError("disc full")

    owner: Any = pd.DataFrame if fails == "to_parquet" else stage.files
    monkeypatch.setattr(owner, fails, broken)
    with pytest.raises(OSError, match="disc full"):
        write(ingest(SHORT.model_copy(update={"simulated": Simulated(seed=9, hours=2000)}), Path()), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("lacks", ["target", "columns", "TGBT", "T1__flag", "time"])
def test_what_the_table_or_its_facts_lack_is_named(lacks: str, tidy: Tidy, tmp_path: Path) -> None:
    write(tidy, tmp_path)
    frame, facts = read(tmp_path)
    pd.testing.assert_frame_equal(frame, tidy.frame)
    assert facts == tidy.facts
    if lacks in frame:
        frame.drop(columns=[lacks]).to_parquet(tmp_path / "series.parquet")
    else:
        files.write_json(tmp_path / "series.json", {key: value for key, value in facts.items() if key != lacks})
    with pytest.raises(InputError, match=f"it lacks {lacks}.*dvc repro"):
        read(tmp_path)
    for damaged in ("[]", "{", ""):
        (tmp_path / "series.json").write_text(damaged)
        with pytest.raises(InputError, match="dvc repro"):
            read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"../a.csv", b"/etc/passwd", b"..", b"a\0.csv\xff"])
def test_a_note_of_what_was_brought_in_that_names_no_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "source.txt").write_bytes(content)
    with pytest.raises(InputError, match=r"source\.txt cannot be read.*remove it"):
        ingest(SHORT, tmp_path)


def test_writing_twice_gives_the_same_bytes(tidy: Tidy, tmp_path: Path) -> None:
    write(tidy, tmp_path / "a")
    write(ingest(SHORT, Path()), tmp_path / "b")
    for name in ("series.parquet", "series.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_table_that_breaks_the_schema_is_refused(tidy: Tidy) -> None:
    names = list(SHORT.columns)
    check_tidy(tidy.frame, names)
    check_hourly(tidy.raw, names)
    with pytest.raises(InputError, match="AirTemp"):
        check_tidy(tidy.frame.assign(AirTemp=np.inf), names)
    with pytest.raises(InputError, match="T1__flag"):
        check_tidy(tidy.frame.assign(T1__flag=np.int8(7)), names)
    with pytest.raises(InputError, match="hourly"):
        check_tidy(tidy.frame.drop(index=5), names)
    with pytest.raises(InputError, match="TGBT"):
        check_hourly(tidy.raw.astype({"TGBT": "float32"}), names)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"target": "T9"}, "target 'T9' is not in columns"),
        ({"target": "AirTemp"}, "must be a load"),
        ({"time_zone": "Europe/Palaiseau"}, "not a time zone"),
        ({"columns": {"TGBT": {"kind": "load", "unit": "degC"}}}, "does not fit kind 'load'"),
        ({"columns": {"TGBT": {"kind": "load"}, "B": {"kind": "load", "name": " TGBT"}}}, "given to two columns"),
        ({"columns": {"TGBT": {"kind": "load"}, "time": {"kind": "load"}}}, "kept for the tidy table"),
        ({"file": {"step_minutes": 7}}, "1, 5, 15, 30 or 60"),
        ({"simulated": {"start": "2017-01-01 00:30"}}, "must be a UTC hour"),
        ({"checks": {"load": {"lowest": 5, "highest": 1, "stuck_hours": 6}}}, "must lie below highest"),
        ({"sorce": "x"}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Ingest(**section)


def test_settings_survive_yaml() -> None:
    changed = Ingest(simulated=Simulated(seed=3), columns={"TGBT": Column(kind="load", unit="W", sign=-1)})
    assert Ingest(**yaml.safe_load(changed.model_dump_json())) == changed
    assert Ingest(**yaml.safe_load("simulated: {seed: 0, start: 2017-01-01, hours: 26304}")) == Ingest()
    assert Check(lowest=0, highest=1, stuck_hours=None).stuck_hours is None


@pytest.mark.real
def test_the_real_series_is_read_in_time_and_flagged_as_its_card_says(real_series: Path) -> None:
    started = time.process_time()  # of this process: a busy machine decides nothing
    real = ingest(Ingest(source=real_series.name), real_series.parent)
    assert time.process_time() - started < 3
    assert real.facts["rows"] == 42_481
    flags = real.facts["flags"]
    assert flags["TGBT"] == dict.fromkeys(FLAGS, 0) | {"gap": 10, "outage": 30}
    assert {flags[name]["stuck"] for name in flags if name != "T1"} == {0}
    table = real.frame.set_index("time")
    stuck = table.loc["2020-06-19 19:00":"2020-06-22 03:00", "T1__flag"]  # type: ignore[misc]
    assert len(stuck) == 57
    assert (stuck == Flag.STUCK).all()
    assert table.loc["2020-10-26 04:00", "AirTemp__flag"].item() == Flag.IMPOSSIBLE  # type: ignore[union-attr]
    assert flags["AirTemp"]["impossible"] <= 5
    for name in ("Global", "Direct", "Diffuse"):
        assert 0.45 < flags[f"{name}_Solar_Flux"]["offset"] / 42_481 < 0.48


@pytest.mark.real
def test_poisoning_the_future_of_the_real_series_changes_nothing_before_it(real_series: Path) -> None:
    settings = Ingest(source=real_series.name, checks="drahix")
    raw = ingest(settings, real_series.parent).raw
    whole, _ = repair(raw, settings)
    for now in ("2017-11-02 11:00", "2018-10-28 00:00", "2020-06-20 21:00", "2020-10-26 04:00"):
        for poison in (np.nan, 0.05, 1e6):
            poisoned = raw.copy()
            poisoned.loc[poisoned.index > pd.Timestamp(now, tz="UTC")] = poison
            part, _ = repair(poisoned, settings)
            pd.testing.assert_frame_equal(part.loc[:now], whole.loc[:now])  # type: ignore[misc]
