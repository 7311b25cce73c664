"""Many series: each is what its file alone gives, and whatever is wrong with one of them is said by its name."""

import json
import logging
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from pipelines.ingest import main as stage_ingest
from pydantic import ValidationError

from isotrain.config import Ingest, load
from isotrain.data import ingest as stage
from isotrain.data.ingest import ingest, ingest_all, names, read, read_all, read_facts, write, write_all
from isotrain.errors import InputError
from isotrain.report.overview import Overview, Row, page

HOURS = 24 * 60
FILE = {"time_column": "When", "separator": ";"}
COLUMNS = {"Load": {"kind": "load", "unit": "Wh"}, "Tout": {"kind": "temperature"}}
SECTION: dict[str, Any] = {
    "source": "meters", "series": "each", "target": "Load", "time_zone": "Europe/Oslo", "country": "NO", "file": FILE,
    "columns": COLUMNS,
}  # fmt: skip


def described(**changes: Any) -> Ingest:
    return Ingest.model_validate(SECTION | changes)


def table(seed: int, hours: int = HOURS, start: str = "2020-01-06", step: str = "h") -> pd.DataFrame:
    """A load in Wh of about 40 kW that people make by day, and the weather."""
    rng = np.random.default_rng(seed)
    time = pd.date_range(start, periods=hours, freq=step, tz="Etc/GMT-1")
    busy = (time.hour > 6) & (time.hour < 18)
    load = (1000 * (20 + 30 * busy + rng.normal(0, 2, hours))).round()
    texts = [f"{one:%Y-%m-%dT%H:%M:%S}+0100" for one in time]
    return pd.DataFrame({"When": texts, "Load": load, "Tout": rng.normal(5, 4, hours).round(1)})


HEAD = "\ufefffloor_area;1250;;\r\nbuilding_category;Sch\r\nnotes;\r\n# pv;238:46:00\r\n\r\n;Electricity;Weather\r\n"


def put(path: Path, data: pd.DataFrame, head: str = "", factor: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = data.assign(Load=data["Load"] * factor) if "Load" in data else data
    path.write_bytes((head + data.to_csv(sep=";", index=False, lineterminator="\r\n")).encode())
    return path


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder of raw files with three meters in a folder of it."""
    for seed, name in enumerate(("c", "a", "b")):
        put(tmp_path / "meters" / f"{name}.txt", table(seed), HEAD)
    return tmp_path


def packed(folder: Path) -> Path:
    archive = folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as whole:
        for path in sorted(folder.rglob("*")):
            whole.write(path, path.relative_to(folder))
    return archive


@pytest.mark.parametrize(
    "source",
    ["meters", "meters.zip", "meters/*.txt", "meters.zip/*.txt", ["meters/a.txt", "meters/b.txt", "meters/c.txt"]],
)  # fmt: skip
def test_each_series_is_bit_for_bit_what_its_file_alone_gives(source: str | list[str], raw: Path) -> None:
    packed(raw / "meters")
    whole = [str(raw / one) for one in ([source] if isinstance(source, str) else source)]
    found = list(ingest_all(described(source=whole, about={"area": "floor_area"}), raw))
    assert [tidy.facts["name"] for tidy in found] == ["a", "b", "c"]
    for tidy in found:
        inside = "meters.zip" if "meters.zip" in str(source) else "meters"
        own = str(raw / inside / f"{tidy.facts['name']}.txt")
        alone = ingest(described(source=own, series="one", about={"area": "floor_area"}), raw)
        pd.testing.assert_frame_equal(tidy.frame, alone.frame, check_exact=True)
        pd.testing.assert_frame_equal(tidy.raw, alone.raw, check_exact=True)
        assert tidy.facts == alone.facts


def test_a_list_gives_the_order(raw: Path) -> None:
    source = [str(raw / "meters" / f"{name}.txt") for name in "bca"]
    assert ingest_all(described(source=source), raw).names == ["b", "c", "a"]


def test_one_file_is_read_at_a_time(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_so_far: list[str] = []
    original = stage.read_hourly

    def counted(settings: Ingest, paths: list[Path]) -> pd.DataFrame:
        read_so_far.extend(path.stem for path in paths)
        return original(settings, paths)

    monkeypatch.setattr(stage, "read_hourly", counted)
    many = ingest_all(described(), raw)
    assert read_so_far == []
    for number, _ in enumerate(many, start=1):
        assert read_so_far == ["a", "b", "c"][:number]


@pytest.mark.parametrize("inside", ["meters", "meters.zip"])
def test_a_folder_that_is_one_series_is_its_files_joined(inside: str, tmp_path: Path) -> None:
    whole = table(0)
    put(tmp_path / "meters" / "2020a.csv", whole.iloc[:700])
    put(tmp_path / "meters" / "2020b.csv", whole.iloc[700:])
    put(tmp_path / "whole.csv", whole)
    packed(tmp_path / "meters")
    joined = ingest(described(source=inside, series="one"), tmp_path)
    alone = ingest(described(source="whole.csv", series="one"), tmp_path)
    pd.testing.assert_frame_equal(joined.frame, alone.frame, check_exact=True)
    assert (joined.facts["name"], alone.facts["name"]) == ("2020a", "whole")
    with pytest.raises(InputError, match=r"one is asked for"):
        ingest(described(source=inside), tmp_path)


# on the disk


def test_what_is_written_is_read_back_in_order(raw: Path, tmp_path: Path) -> None:
    tidy = tmp_path / "tidy"
    many = ingest_all(described(), raw)
    write_all(many, tidy)
    assert json.loads((tidy / "many.json").read_text())["series"] == ["a", "b", "c"] == names(tidy)
    back = read_all(tidy)
    assert isinstance(back, Iterator)
    for (frame, facts), expected in zip(back, ingest_all(described(), raw), strict=True):
        pd.testing.assert_frame_equal(frame, expected.frame, check_exact=True)
        assert facts == expected.facts
    for parquet in tidy.rglob("*.parquet"):
        parquet.unlink()
    assert [facts["name"] for facts in read_facts(tidy)] == ["a", "b", "c"]
    with pytest.raises(InputError, match="holds 3 series, and one is asked for"):
        read(tidy)


def test_one_series_is_read_back_as_a_list_of_one(raw: Path, tmp_path: Path) -> None:
    one = ingest(described(source=str(raw / "meters" / "a.txt"), series="one"), raw)
    write(one, tmp_path / "tidy")
    ((frame, facts),) = read_all(tmp_path / "tidy")
    pd.testing.assert_frame_equal(frame, one.frame)
    assert facts == one.facts == read_facts(tmp_path / "tidy")[0]
    assert names(tmp_path / "tidy") == ["a"]


def test_a_second_run_leaves_nothing_of_the_first(raw: Path, tmp_path: Path) -> None:
    tidy = tmp_path / "tidy"
    write(ingest(described(source=str(raw / "meters" / "a.txt"), series="one"), raw), tidy)
    write_all(ingest_all(described(), raw), tidy)
    assert sorted(path.name for path in tidy.iterdir()) == ["a", "b", "c", "many.json"]
    (raw / "meters" / "b.txt").unlink()
    write_all(ingest_all(described(), raw), tidy)
    assert sorted(path.name for path in tidy.iterdir()) == ["a", "c", "many.json"]
    write(ingest(described(source=str(raw / "meters" / "a.txt"), series="one"), raw), tidy)
    assert names(tidy) == ["a"]
    assert sorted(path.name for path in tidy.iterdir()) == ["series.json", "series.parquet"]


def test_a_run_that_stops_leaves_nothing_that_looks_whole(raw: Path, tmp_path: Path) -> None:
    write_all(ingest_all(described(), raw), tmp_path / "tidy")
    (raw / "meters" / "b.txt").write_text("")
    with pytest.raises(InputError, match="b"):
        write_all(ingest_all(described(), raw), tmp_path / "tidy")
    with pytest.raises((InputError, FileNotFoundError)):
        read_facts(tmp_path / "tidy")


# what is wrong with a file


def other_step(path: Path) -> None:
    put(path, table(9, step="15min"))


def no_month(path: Path) -> None:
    data = table(9)
    data.loc[200:, "Load"] = np.nan
    put(path, data)


def too_short(path: Path) -> None:
    put(path, table(9, hours=300))


def mostly_flagged(path: Path) -> None:
    data = table(9)
    data.loc[HOURS * 8 // 10 :, "Load"] *= 1000
    put(path, data)


BROKEN: Mapping[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_text(""), "is empty"),
    "page": (lambda path: path.write_text("<html>no</html>"), "is a web page"),
    "bytes": (lambda path: path.write_bytes(b"When;Load;Tout\r\n\xff\xfe;1;2\r\n"), "cannot be read as"),
    "lacks": (lambda path: put(path, table(9).drop(columns="Tout")), "no column 'Tout'"),
    "step": (other_step, "15 minutes apart"),
    "month": (no_month, "no usable month"),
    "short": (too_short, "no usable month"),
    "nothing": (lambda path: put(path, table(9), factor=0.0), "never exceeds 0"),
    "flagged": (mostly_flagged, "flagged as faults"),
}


@pytest.mark.parametrize("inside", ["meters", "meters.zip"])
def test_broken_files_are_all_named_with_their_reasons(inside: str, raw: Path) -> None:
    for name, (spoil, _) in BROKEN.items():
        spoil(raw / "meters" / f"{name}.csv")
    packed(raw / "meters")
    with pytest.raises(InputError, match=r"9 of 12 series cannot be used .*leave_out") as caught:
        list(ingest_all(described(source=inside), raw))
    for name, (_, reason) in BROKEN.items():
        assert re.search(rf"{name}: [^;]*{reason}", str(caught.value)), name


def test_broken_files_are_left_out_and_said(raw: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, (spoil, _) in BROKEN.items():
        spoil(raw / "meters" / f"{name}.csv")
    many = ingest_all(described(broken="leave_out"), raw)
    overview = Overview(tmp_path / "report")
    write_all(many, tmp_path / "tidy", overview.note)
    overview.write(many.left_out, many.remarks)
    assert names(tmp_path / "tidy") == ["a", "b", "c"]
    assert {facts["ingest"]["broken"] for facts in read_facts(tmp_path / "tidy")} == {"leave_out"}  # for make_all
    texts = [
        caplog.text, (tmp_path / "tidy" / "many.json").read_text(),
        *((tmp_path / "report" / name).read_text() for name in ("index.html", "data_report.md", "data_report.json")),
    ]  # fmt: skip
    for text in texts:
        for name, (_, reason) in BROKEN.items():
            assert name in text and reason.replace("'", "&#x27;") in text.replace("'", "&#x27;"), (name, text)
    (raw / "meters" / "month.csv").rename(raw / "month.csv")
    with pytest.raises(InputError, match="1 of 1 series cannot be used"):
        list(ingest_all(described(source="month.csv", broken="leave_out"), raw))


def test_what_is_no_table_is_left_out_and_said(raw: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("readme.pdf", ".DS_Store", "__MACOSX/a.txt", "deep/.hidden/x.csv"):
        (raw / "meters" / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / "meters" / name).write_text("no table")
    packed(raw / "meters")
    for inside in ("meters", "meters.zip"):
        with caplog.at_level(logging.INFO):
            assert ingest_all(described(source=inside), raw).names == ["a", "b", "c"]
        for name in ("readme.pdf", ".DS_Store", "__MACOSX/a.txt", "deep/.hidden/x.csv"):
            assert name in caplog.text
        caplog.clear()
    (raw / "other").mkdir()
    (raw / "other" / "readme.pdf").write_text("")
    with pytest.raises(InputError, match="holds no table"):
        ingest_all(described(source="other"), raw)


@pytest.mark.parametrize("second", ["meters/deep/a.txt", "meters/a.csv", "meters/A.txt"])
def test_two_files_of_one_name_are_refused(second: str, raw: Path) -> None:
    put(raw / second, table(7))
    with pytest.raises(InputError, match="have one name") as caught:
        ingest_all(described(), raw)
    assert str(raw / "meters/a.txt") in str(caught.value) and str(raw / second) in str(caught.value)


def test_a_zip_file_that_is_damaged_or_locked_is_refused(raw: Path) -> None:
    archive = packed(raw / "meters")
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"meters\.zip cannot be read"):
        ingest_all(described(source="meters.zip"), raw)
    with pytest.raises(InputError, match="no file fits the pattern"):
        ingest_all(described(source="meters/*.dat"), raw)


@pytest.mark.parametrize(("factor", "unit"), [(0.001, "kWh"), (1000.0, None)])
def test_a_unit_a_thousand_off_is_said_and_not_corrected(
    factor: float, unit: str | None, raw: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of 5 GWh an hour in Wh, so that the reader, who knows one file only, sees nothing strange."""
    for path in (raw / "meters").iterdir():
        put(path, table(1), HEAD, factor=100.0)
    put(raw / "meters" / "wrong.txt", table(8), HEAD, factor=100.0 * factor)
    many = ingest_all(described(), raw)
    medians = {tidy.facts["name"]: tidy.frame["Load"].median() for tidy in many}
    assert medians["wrong"] == pytest.approx(factor * medians["a"], rel=0.2)
    assert list(many.remarks) == ["wrong"]
    (remark,) = many.remarks["wrong"]
    numbers = re.search(r"Load is ([\d,.]+) kW, that of the others like it ([\d,.]+) kW", remark)
    assert numbers and "nothing is corrected" in remark
    shown = [float(number.replace(",", "")) for number in numbers.groups()]
    assert shown == pytest.approx([medians["wrong"], medians["a"]], rel=0.02)
    assert f"wrong: {remark}" in caplog.text
    if unit is None:
        return
    said = re.search(r"ingest\.overrides: (\{.*\});", remark)
    assert said
    corrected = ingest_all(described(overrides=yaml.safe_load(said[1])), raw)
    again = {tidy.facts["name"]: tidy.frame["Load"].median() for tidy in corrected}
    assert again["wrong"] == pytest.approx(again["a"], rel=0.2)
    assert corrected.remarks == {}


def test_a_unit_is_held_against_the_same_category(raw: Path) -> None:
    big = HEAD.replace("Sch", "Plant")
    for number in range(6):
        put(raw / "meters" / f"plant{number}.txt", table(number), big, factor=1000.0)
        put(raw / "meters" / f"school{number}.txt", table(number), HEAD)
    alike, unknown = (ingest_all(described(about=about), raw) for about in ({"category": "building_category"}, {}))
    for many in (alike, unknown):
        assert sum(1 for _ in many) == 15
    assert alike.remarks == {}
    assert set(unknown.remarks) == {f"plant{number}" for number in range(6)}


def test_a_period_of_its_own_is_said(raw: Path) -> None:
    put(raw / "meters" / "late.txt", table(5, start="2021-01-04"))
    many = ingest_all(described(), raw)
    assert sum(1 for _ in many) == 4
    assert list(many.remarks) == ["late"]
    assert "3 of the 3 other series have no hour in common" in many.remarks["late"][0]


def test_a_part_without_any_truth_is_said(raw: Path) -> None:
    data = table(5)
    data.loc[HOURS * 7 // 10 - 1 :, "Load"] = np.nan
    put(raw / "meters" / "stopped.txt", data)
    many = ingest_all(described(), raw)
    assert sum(1 for _ in many) == 4
    assert many.remarks == {"stopped": ["no hour of its parts validation and test is measured and without a fault"]}


# what differs between files


def test_an_override_is_as_if_the_file_alone_were_described_so(raw: Path) -> None:
    data = table(3).drop(columns="Tout").rename(columns={"Load": "Use"})
    data["Use"] /= 1000
    path = put(raw / "meters" / "far.csv", data)
    path.write_text(path.read_text().replace(";", ",").replace("+0100", ""))
    override = {
        "file": {"separator": ",", "time_zone": "Europe/Helsinki", "clock_change": "gap"},
        "columns": {"Load": {"name": "Use", "unit": "kWh"}, "Tout": None},
        "checks": {"load": {"highest": 60.0}},
        "time_zone": "Europe/Helsinki",
        "country": "FI",
    }  # fmt: skip
    found = {tidy.facts["name"]: tidy for tidy in ingest_all(described(overrides={"fa?": override}), raw)}
    one = {
        "file": FILE | override["file"],  # type: ignore[operator]
        "columns": {"Load": {"kind": "load", "name": "Use", "unit": "kWh"}},
    }
    alone = ingest(described(**override | one, source=str(path), series="one"), raw)
    pd.testing.assert_frame_equal(found["far"].frame, alone.frame, check_exact=True)
    assert found["far"].facts == alone.facts
    assert (alone.facts["country"], alone.facts["time_zone"]) == ("FI", "Europe/Helsinki")
    assert found["a"].facts == ingest(described(source=str(raw / "meters" / "a.txt"), series="one"), raw).facts


def test_of_two_patterns_that_fit_the_later_goes_first() -> None:
    settings = described(overrides={"a*": {"country": "SE", "target": "Load"}, "*1": {"country": "DK"}})
    assert [settings.of(name, "x.csv").country for name in ("a0", "a1", "b1", "b0")] == ["SE", "DK", "DK", "NO"]


def test_a_pattern_that_fits_nothing_is_refused(raw: Path) -> None:
    with pytest.raises(InputError, match=r"ingest\.overrides\.x\* fits none of the 3 series \(a, b, c\)"):
        ingest_all(described(overrides={"a": {"country": "SE"}, "x*": {"country": "DK"}}), raw)


def test_overrides_that_fit_one_series_and_not_each_other_are_refused_by_its_name(raw: Path) -> None:
    other = {"target": "Use", "columns": {"Use": {"kind": "load"}}}
    settings = described(overrides={"a": other, "[ab]": {"columns": {"Use": None}}})
    with pytest.raises(InputError, match=r"overrides say of a does not fit together: target 'Use' is not in columns"):
        ingest_all(settings, raw)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ({"source": "b.csv"}, "overrides.a.source: only file, columns"),
        ({"country": False}, "overrides.a.country: YAML reads"),
        ({"columns": {"Load": {"unit": "Joule"}}}, "overrides.a.columns.Load: unit 'Joule'"),
        ({"file": {"separater": ","}}, "overrides.a.file.separater"),
        ({"target": "Tout"}, "must be a load"),
        ({"columns": {"Load": None}}, "not in columns"),
    ],
)
def test_an_override_that_cannot_be_meant_is_refused_before_any_file_is_read(
    override: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        described(overrides={"a": override})


@pytest.mark.parametrize("changes", [{"overrides": {"a": {"country": "SE"}}}, {"simulated": {"series": 2}}])
def test_what_needs_many_series_is_refused_for_one(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"series"):
        described(series="one", **changes)


# facts about the buildings


def test_facts_come_from_the_head_lines(raw: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    wanted = {"area": "floor_area", "category": "building_category", "pv": "pv", "notes": "notes", "year": "year"}
    put(raw / "meters" / "plain.csv", table(4))
    found = {tidy.facts["name"]: tidy.facts["about"] for tidy in ingest_all(described(about=wanted), raw)}
    assert found["a"] == {"area": 1250.0, "category": "Sch", "pv": "238:46:00", "notes": None, "year": None}
    assert found["plain"] == dict.fromkeys(wanted)
    assert "a: nothing says notes, year" in caplog.text


# simulated buildings


def test_simulated_buildings_are_no_two_alike_and_the_same_twice() -> None:
    settings = Ingest.model_validate({
        "series": "each", "simulated": {"hours": 24 * 42, "series": 4},
        "about": {"area": "floor_area", "category": "building_category"},
    })  # fmt: skip
    first, second = (list(ingest_all(settings, Path())) for _ in range(2))
    assert [tidy.facts["name"] for tidy in first] == [f"building-00{number}" for number in (1, 2, 3, 4)]
    for one, again in zip(first, second, strict=True):
        pd.testing.assert_frame_equal(one.frame, again.frame, check_exact=True)
        assert one.facts == again.facts
        assert one.facts["simulated"] and isinstance(one.facts["about"]["area"], float)
    loads = np.array([tidy.frame["TGBT"] for tidy in first])
    means = sorted(loads.mean(axis=1))
    assert all(later > 1.02 * earlier for earlier, later in pairwise(means))
    assert np.corrcoef([tidy.frame["AirTemp"] for tidy in first])[np.triu_indices(4, 1)].max() < 0.9
    assert len({tidy.facts["sha256"] for tidy in first}) == 4


def test_the_stage_makes_one_series_or_many_as_the_file_of_settings_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated, by a file that extends params.yaml."""
    root = Path(__file__).parents[2]
    monkeypatch.chdir(tmp_path)
    for series, count in (("each", 2), ("one", 1)):
        own = {"series": series, "simulated": {"hours": 24 * 120, "series": count}, "source": "simulated"}
        (tmp_path / "own.yaml").write_text(yaml.safe_dump({"extends": str(root / "params.yaml"), "ingest": own}))
        stage_ingest("raw", f"{series}/tidy", f"{series}/report", "own.yaml")
    assert names(tmp_path / "each" / "tidy") == ["building-001", "building-002"]
    assert names(tmp_path / "one" / "tidy") == ["simulated"]
    assert "SIMULATED" in (tmp_path / "each" / "report" / "index.html").read_text()
    assert {path.name for path in (tmp_path / "one" / "tidy").iterdir()} == {"series.parquet", "series.json"}
    assert {path.name for path in (tmp_path / "one" / "report").iterdir()} == {"data_report.md", "series.png"}
    assert load(root / "experiments" / "drammen" / "params.yaml").ingest.series == "each"


# the overview


def test_the_worst_series_comes_first_and_has_a_figure(raw: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("b", "c", "a")):
        data = table(number)
        data.loc[100 : 100 + 60 * (2 - number), "Load"] = np.nan
        put(raw / "meters" / f"{name}.txt", data, HEAD)
    many, overview = ingest_all(described(about={"area": "floor_area"}), raw), Overview(tmp_path / "r")
    write_all(many, tmp_path / "tidy", overview.note)
    overview.write(many.left_out, many.remarks)
    text = (tmp_path / "r" / "index.html").read_text()
    links = re.findall(r'<a href="([^"]+)">(\w)</a>', text)
    assert [name for _, name in links] == ["b", "c", "a"]
    assert all((tmp_path / "r" / link).is_file() for link, _ in links)
    assert text.count("<svg") == 3 and not re.search(r"(src=|https?://|<script|<link)", text)
    rows = json.loads((tmp_path / "r" / "data_report.json").read_text())["series"]
    for row, facts in zip(rows, (read(tmp_path / "tidy" / name) for name in "bca"), strict=True):
        frame, known = facts
        good = frame["Load__flag"] == 0
        assert row["flagged"] == pytest.approx(1 - good.mean()) == known["flagged"]["whole"]
        assert row["mean_kw"] == pytest.approx(frame["Load"][good].mean())
        assert row["flags"]["gap"] * row["hours"] == pytest.approx(known["flags"]["Load"]["gap"])
        assert row["about"] == {"area": 1250.0}
        assert pd.Timestamp(row["first"]) == pd.Timestamp("2020-01-06")
    assert (tmp_path / "r" / "b" / "series.png").is_file()


def made_up_row(number: int, days: int = 1461) -> Row:
    rng = np.random.default_rng(number)
    first = pd.Timestamp("2018-01-01")
    return Row(
        f"building {number} <b>&", False, {"category": "<i>"}, 24 * days, first, first + pd.Timedelta(days=days - 1),
        50.0, 0.1, {"gap": 0.1, "stuck": 0.0}, rng.uniform(10, 90, days).astype(np.float32),
        (rng.uniform(0, 1, days) > 0.9).astype(np.float32),
    )  # fmt: skip


def test_the_page_of_a_thousand_buildings_can_be_opened() -> None:
    text = page([made_up_row(number) for number in range(1000)], {"x": "<script>"}, {})
    assert len(text) < 4_000_000
    assert "<script" not in text and "<b>&" not in text and "<i>" not in text


def test_a_drawing_shows_where_the_series_lies_and_what_is_flagged() -> None:
    """The first half of the days alone is known: a curve over that half, a mark below the other."""
    days = np.tile(np.float32([10.0, 20.0]), 140)
    days[140:] = np.nan
    row = Row(**{**vars(made_up_row(0, days=280)), "days": days, "marked": np.isnan(days).astype(np.float32)})
    curve = re.search(r'class="c" d="M([^"]+)"', page([row], {}, {}))
    assert curve
    points = np.array(curve[1].split(), dtype=int).reshape(-1, 2)
    assert points[:, 0].tolist() == list(range(140))
    assert (points[::2, 1] > points[1::2, 1]).all()  # downward is less
    assert 'class="f" d="M140 31h140"' in page([row], {}, {})


@pytest.mark.parametrize("listed", ['{"series": [".."]}', '{"series": []}', '{"series": ["a/b"]}', "[]", "{"])
def test_a_damaged_list_of_series_is_refused(listed: str, tmp_path: Path) -> None:
    (tmp_path / "many.json").write_text(listed)
    with pytest.raises(InputError, match=r"many\.json cannot be read"):
        list(read_all(tmp_path))


# the page on data


def test_what_is_written_is_in_the_dictionary_and_the_sections_shown_are_read(raw: Path, tmp_path: Path) -> None:
    docs = Path(__file__).parents[2] / "docs"
    put(raw / "meters" / "late.txt", table(5, start="2021-01-04"))
    (raw / "meters" / "empty.txt").write_text("")
    many = ingest_all(described(broken="leave_out", about={"area": "floor_area"}), raw)
    overview = Overview(tmp_path)
    write_all(many, tmp_path, overview.note)
    overview.write(many.left_out, many.remarks)
    for name in ("many.json", "data_report.json"):
        section = (docs / "results-files.md").read_text().split(f"\n## {name}\n")[1].split("\n## ")[0]
        rows = re.findall(r"^\| (`[^|]*)\|", section, re.MULTILINE)
        known = {one.removesuffix(".*") for row in rows for one in re.findall(r"`([^`]+)`", row)}
        written = json.loads((tmp_path / name).read_text())
        inside = written["series"][0] if isinstance(written["series"][0], dict) else {}
        assert {*written, *(f"series.{key}" for key in inside)} <= known
    section = (docs / "data.md").read_text().split("\n## Many series\n")[1].split("\n## ")[0]
    shown = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    assert len(shown) == 2
    assert [Ingest.model_validate(yaml.safe_load(text)["ingest"]).series for text in shown] == ["each", "each"]
