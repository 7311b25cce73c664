"""The data report tells the numbers of the series it was given, and says when nobody measured them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from isotrain.config.ingest import Ingest, Simulated
from isotrain.data.ingest import Tidy, ingest
from isotrain.report.data_report import figure, longest_repair, page, report

SHORT = Ingest(simulated=Simulated(hours=24 * 42), checks="drahix")


@pytest.fixture(scope="module")
def simulated() -> Tidy:
    return ingest(SHORT, Path())


@pytest.fixture(scope="module")
def measured(simulated: Tidy, tmp_path_factory: pytest.TempPathFactory) -> Tidy:
    """The same series as if it came from a file, its first 30 hours before the start and one hour impossible."""
    folder = tmp_path_factory.mktemp("raw")
    raw = simulated.raw.copy()
    raw.iloc[:30, raw.columns.get_loc("TGBT")] = 0.0
    raw.loc[raw.index[500], "T2"] = 4321.5
    raw.rename_axis("Date and time (UTC)").to_csv(folder / "meter.csv")
    return ingest(SHORT.model_copy(update={"source": "meter.csv"}), folder)


def row(text: str, column: str, table: int) -> list[str]:
    lines = [line for line in text.splitlines() if line.startswith(f"| {column} |")]
    return [cell.strip() for cell in lines[table].strip("|").split("|")]


def titles(tidy: Tidy) -> list[str]:
    drawn = figure(tidy)
    return [drawn.get_suptitle(), *(axes.get_title(loc="left") for axes in drawn.axes)]


def test_simulated_is_said_in_title_text_and_figure(simulated: Tidy, measured: Tidy) -> None:
    text = page(simulated)
    assert text.startswith("# SIMULATED series")
    assert "This series is SIMULATED: no building was measured." in text
    assert "SIMULATED" in titles(simulated)[0]
    assert "simulated" not in (page(measured) + titles(measured)[0]).lower()


def test_what_is_known_ahead_is_said_in_text_and_figure(measured: Tidy) -> None:
    section = measured.facts["ingest"]
    columns = {**section["columns"], "AirTemp": {**section["columns"]["AirTemp"], "ahead": "perfect"}}
    tidy = replace(measured, facts=measured.facts | {"ingest": {**section, "columns": columns}})
    assert "read columns at the hours forecast: perfect weather forecast (AirTemp)." in page(tidy)
    assert titles(tidy)[0].splitlines() == ["meter.csv", "perfect weather forecast (AirTemp)"]
    assert "forecast" not in titles(measured)[0] and "perfect" not in page(measured)


def test_a_measured_series_is_named_with_its_digest(measured: Tidy) -> None:
    text = page(measured)
    assert text.startswith("# Series meter.csv, as ingested")
    assert measured.facts["sha256"] in text
    assert titles(measured)[0] == "meter.csv"


def test_the_columns_table_gives_hours_units_and_ranges_before_and_after(measured: Tidy) -> None:
    text = page(measured)
    assert "978 hours from 2017-01-02 06:00 to 2017-02-11 23:00 UTC; 30 hours before" in text
    cells = row(text, "T2", 0)
    assert cells[1:5] == ["kW", "978", "2017-01-02 06:00", "2017-02-11 23:00"]
    read, repaired = measured.raw["T2"], measured.frame["T2"]
    expected = [read.min(), read.median(), 4321.5, repaired.min(), repaired.median(), repaired.max()]
    assert [float(cell) for cell in cells[5:]] == pytest.approx(expected, abs=0.005)
    assert float(cells[-1]) < 100
    assert row(text, "AirTemp", 0)[1] == "°C"
    assert int(row(text, "AirTemp", 0)[2]) == measured.raw["AirTemp"].notna().sum() < 978


def test_the_flag_table_counts_every_kind(measured: Tidy) -> None:
    text = page(measured)
    for name, counts in measured.facts["flags"].items():
        assert [int(cell.replace(",", "")) for cell in row(text, name, 1)[1:]] == list(counts.values())
    assert row(text, "T2", 1)[4] == "1"
    assert "| column | gap | stuck | outage | impossible | offset | not started |" in text


def test_the_close_up_shows_the_targets_longest_repair(simulated: Tidy) -> None:
    found = longest_repair(simulated)
    assert found is not None
    name, first, last = found
    assert name == "TGBT"
    flagged = simulated.frame.set_index("time")["TGBT__flag"] > 0
    assert flagged.loc[first:last].all()
    assert not flagged[first - pd.Timedelta(hours=1)]
    assert not flagged[last + pd.Timedelta(hours=1)]
    lines = {line.get_label(): line for line in figure(simulated).axes[3].lines}
    shown = np.asarray(lines["repaired hour"].get_ydata(), dtype=float)
    assert np.isfinite(shown).sum() == flagged.loc[first - pd.Timedelta(days=3) : last + pd.Timedelta(days=3)].sum()
    assert np.nanmin(shown) > 3 > np.nanmin(np.asarray(lines["as read"].get_ydata(), dtype=float))


def test_axes_carry_units_and_the_flags_their_kind(simulated: Tidy) -> None:
    target, _, flags, close = figure(simulated).axes
    assert target.get_ylabel() == close.get_ylabel() == "TGBT (kW)"
    assert close.get_xlabel() == "Time (UTC)"
    kinds = {text.get_text() for text in flags.get_legend().get_texts()}  # type: ignore[union-attr]
    assert kinds == {"gap", "stuck", "outage", "impossible"}


def test_a_series_without_a_fault_has_no_close_up() -> None:
    settings = SHORT.model_copy(update={"columns": {"T2": SHORT.columns["T2"]}, "target": "T2"})
    tidy = ingest(settings, Path())
    kept = tidy.raw["T2"] > 0.1
    clean = tidy.frame.assign(T2__flag=np.int8(0))
    assert not kept.all()  # it had faults before they were wiped away here
    wiped = Tidy(clean, tidy.raw, tidy.facts)
    assert longest_repair(wiped) is None
    assert len(figure(wiped).axes) == 3


def test_the_report_is_written_whole_and_the_same_twice(simulated: Tidy, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        report(simulated, tmp_path / folder)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["data_report.md", "series.png"]
    for name in ("data_report.md", "series.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    height, width = imread(tmp_path / "a" / "series.png").shape[:2]
    assert width >= 1400
    assert height >= 1000
    assert "(series.png)" in (tmp_path / "a" / "data_report.md").read_text()


def test_the_typical_week_is_that_of_the_buildings_clock(simulated: Tidy) -> None:
    week = figure(simulated).axes[1]
    line = next(line for line in week.lines if line.get_label() == "median")
    local = simulated.frame.set_index("time")[simulated.facts["target"]].tz_convert("Europe/Paris")
    at = pd.DatetimeIndex(local.index)
    monday_noon = local[(at.day_of_week == 0) & (at.hour == 12)].median()
    assert np.asarray(line.get_ydata())[12] == pytest.approx(monday_noon)
    assert "Europe/Paris" in week.get_title(loc="left")


def test_every_limit_stands_with_its_reason(measured: Tidy) -> None:
    text = page(measured)
    assert "| TGBT | highest | 200 | set in ingest.checks |" in text
    derived = ingest(SHORT.model_copy(update={"checks": {}}), Path())
    limits = {tuple(cells[:2]): cells[2:] for cells in map(split, page(derived).split("## Limits")[1].splitlines())}
    for column, of_column in derived.facts["limits"].items():
        for limit in ("lowest", "highest", "stuck_hours"):
            value, reason = limits[column, limit]
            assert float(value) == pytest.approx(of_column[limit]["value"])
            assert reason == of_column[limit]["reason"] != ""


def split(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]
