"""Limits lose nothing genuine, find what was spoilt, know no hour after the training part, and give their reasons."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from isotrain.config import Window
from isotrain.config.ingest import PROFILES, Check, Column, Ingest, Simulated
from isotrain.data import simulate
from isotrain.data.ingest import ingest, located
from isotrain.data.limits import derive
from isotrain.data.repair import repair
from isotrain.data.schema import Flag
from isotrain.errors import InputError

HOURS = 24 * 400
TRAIN = int(0.7 * HOURS)
KINDS: dict[str, Any] = {"load": "load", "zone": "sub_load", "air": "temperature", "sun": "solar", "price": "other"}
SETTINGS = Ingest(target="load", columns={name: Column(kind=kind) for name, kind in KINDS.items()})
HOUR = np.arange(HOURS)
DAY = np.maximum(np.sin(2 * np.pi * (HOUR - 6) / 24), 0)
Raw = np.ndarray


def noise(seed: int, size: float = 1.0) -> Raw:
    return np.random.default_rng(seed).uniform(0, size, HOURS)


LOADS: dict[str, Raw] = {  # none of them has a fault
    "office": (20 + 30 * DAY + 5 * noise(1)).round(2),
    "a meter of 1 kWh": np.floor(3 + 4 * DAY + 1.5 * noise(2)),
    "nights at zero": np.where(DAY > 0, 10 * DAY + noise(3), 0.0).round(2),
    "a heat pump that is mostly off": np.where(noise(4) > 0.9, 5 + noise(5), 0.0).round(2),
    "feeds in at noon": (2 + noise(6) - 6 * DAY).round(2),
    "flats with peaks": np.exp(np.random.default_rng(7).normal(-1, 0.9, HOURS)).round(3),
    "a district": (4e6 + 1e6 * DAY + 1e5 * noise(8)).round(),
}


def table(load: Raw) -> pd.DataFrame:
    season = 10 - 12 * np.cos(2 * np.pi * HOUR / 8766)
    columns = {
        "load": load,
        "zone": (2 + DAY + noise(9)).round(2),
        "air": (season + 4 * DAY + 2 * noise(10)).round(1),
        "sun": (600 * DAY * noise(11) - 1.5 * (DAY == 0)).round(1),
        "price": np.random.default_rng(12).standard_t(3, HOURS).round(2) * 30,
    }
    return pd.DataFrame(columns, index=pd.date_range("2020-01-01", periods=HOURS, freq="h", tz="UTC"))


def flags_of(raw: pd.DataFrame, settings: Ingest = SETTINGS) -> pd.DataFrame:
    flags = repair(raw, derive(raw, settings, TRAIN)[0])[1]
    return flags.reindex(raw.index, fill_value=Flag.OK)  # without the hours before the target's start


@pytest.mark.parametrize("name", LOADS)
def test_hardly_any_hour_of_a_clean_series_is_flagged(name: str) -> None:
    flags = flags_of(table(LOADS[name]))
    wrong = ((flags != Flag.OK) & (flags != Flag.OFFSET)).mean()
    assert (wrong < 0.005).all(), wrong
    assert wrong["load"] == 0 or name == "a meter of 1 kWh"


@pytest.mark.parametrize("where", [1000, HOURS - 1000], ids=["in the training part", "in the test part"])
@pytest.mark.parametrize(
    ("name", "column", "length", "value", "flag"),
    [
        ("office", "load", 6, lambda x: x * 1000, Flag.IMPOSSIBLE),
        ("office", "load", 3, lambda x: x * 0 - 5, Flag.IMPOSSIBLE),
        ("office", "load", 30, lambda x: x * 0 + 41.5, Flag.STUCK),
        ("office", "zone", 57, lambda x: x * 0 + 2.5, Flag.STUCK),
        ("nights at zero", "load", 40, lambda x: x * 0 + 3.25, Flag.STUCK),
        ("flats with peaks", "load", 5, lambda x: x + 500, Flag.IMPOSSIBLE),
        ("office", "air", 1, lambda x: x - 40, Flag.IMPOSSIBLE),
        ("office", "air", 24, lambda x: x * 0 + x[0], Flag.STUCK),
        ("office", "sun", 3, lambda x: x * 0 - 70, Flag.IMPOSSIBLE),
        ("office", "price", 2, lambda x: x * 0 + 1e5, Flag.IMPOSSIBLE),
    ],
)
def test_what_is_spoilt_is_found_wherever_it_lies(
    name: str, column: str, length: int, value: Callable[[Raw], Raw], flag: Flag, where: int
) -> None:
    raw = table(LOADS[name])
    spoilt = slice(where, where + length)
    raw.iloc[spoilt, raw.columns.get_loc(column)] = value(raw[column].to_numpy()[spoilt])
    flags = flags_of(raw)[column].to_numpy()
    assert (flags[spoilt] == flag).all()
    assert np.isin(np.delete(flags, np.r_[spoilt]), [Flag.OK, Flag.OFFSET]).mean() > 0.999


def test_a_meter_that_was_off_in_the_training_part_is_found_off_later_too() -> None:
    raw = table(LOADS["office"])
    for first in (2000, HOURS - 500):
        raw.iloc[first : first + 6, :2] = [0.06, 0.01]
    flags = flags_of(raw)
    for column in ("load", "zone"):
        off = np.flatnonzero(flags[column] == Flag.OUTAGE)
        assert off.tolist() == [*range(2000, 2006), *range(HOURS - 500, HOURS - 494)]


@pytest.mark.parametrize("name", ["nights at zero", "a heat pump that is mostly off", "feeds in at noon", "office"])
def test_nothing_says_off_where_zero_is_usual_or_never_seen(name: str) -> None:
    settings, limits = derive(table(LOADS[name]), SETTINGS, TRAIN)
    assert settings.check("load").outage_below is None
    assert limits["load"]["outage_below"]["reason"]


@pytest.mark.parametrize("poison", [np.nan, 0.0, -7.0, 1e9])
def test_no_limit_knows_an_hour_after_the_training_part(poison: float) -> None:
    raw = table(LOADS["office"])
    later = raw.copy()
    later.iloc[TRAIN:] = poison
    assert derive(raw, SETTINGS, TRAIN) == derive(later, SETTINGS, TRAIN)


def test_what_is_set_stands_and_the_rest_is_derived() -> None:
    said = {"load": Check(highest=70.0, stuck_hours=None), "zone": Check(lowest=-1.0), "sub_load": Check(lowest=0.5)}
    settings, limits = derive(table(LOADS["office"]), SETTINGS.model_copy(update={"checks": said}), TRAIN)
    assert settings.check("load").highest == 70.0
    assert settings.check("load").stuck_hours is None
    assert settings.check("zone").lowest == -1.0  # of the column, before that of its kind
    assert limits["load"]["highest"] == {"value": 70.0, "reason": "set in ingest.checks"}
    assert "99.88 % quantile" in limits["zone"]["highest"]["reason"]
    again = Ingest(**settings.model_dump(mode="json"))
    assert again == settings
    assert derive(table(LOADS["a district"]), again, TRAIN)[0] == settings  # a trained forecaster's limits are its own


def test_a_limit_that_contradicts_a_derived_one_is_refused() -> None:
    settings = SETTINGS.model_copy(update={"checks": {"zone": Check(lowest=50.0)}})
    with pytest.raises(InputError, match=r"checks of zone: lowest = 50 must lie below highest = 11"):
        derive(table(LOADS["office"]), settings, TRAIN)


def test_a_column_without_readings_in_the_training_part_has_no_limits() -> None:
    raw = table(LOADS["office"])
    raw.iloc[: int(HOURS * TRAIN), 1:] = np.nan
    limits = derive(raw, SETTINGS, TRAIN)[1]
    for column in ("zone", "air", "sun", "price"):
        assert limits[column]["highest"]["value"] is None
        assert "0 readings" in limits[column]["highest"]["reason"]


FAULTS = {
    "highest": (
        {"load": Check(highest=30.0)},
        lambda x: x,
        r"simulated: \d+% of the hours.* of the target TGBT are flagged.* allows 20%.* "
        r"\(1\) highest = 30 \(set in ingest\.checks\) flags \d+%: the unit may be W, .*ingest\.columns\.TGBT\.unit",
    ),
    "outage": ({"TGBT": Check(outage_below=40.0)}, lambda x: x, r"\(1\) outage_below = 40 .*outage_below: null"),
    "stuck": ({"load": Check(stuck_hours=2)}, lambda x: x.round(-1), r"\(1\) stuck_hours = 2 .*\(3\) "),
    "lowest": ({"load": Check(lowest=40.0)}, lambda x: x, r"\(1\) lowest = 40 .*ingest\.columns\.TGBT\.sign: -1"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_run_that_its_limits_would_spoil_stops_with_causes_and_settings(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks, change, message = FAULTS[name]
    settings = Ingest(simulated=Simulated(hours=24 * 60), columns={"TGBT": Column(kind="load")}, checks=checks)
    made = simulate.building(settings.simulated)
    monkeypatch.setattr(simulate, "building", lambda _: made.apply(change))
    with pytest.raises(InputError, match=message):
        ingest(settings, Path())
    tidy = ingest(settings.model_copy(update={"most_flagged": 1.0}), Path())
    flagged = tidy.frame["TGBT__flag"].to_numpy() != Flag.OK
    ends = [0, int(len(flagged) * 0.6), int(len(flagged) * 0.8), len(flagged)]
    parts = Window(train=0.6, validation=0.2)
    shares = ingest(settings.model_copy(update={"most_flagged": 1.0}), Path(), parts).facts["flagged"]
    expected = [flagged.mean(), *(flagged[a:b].mean() for a, b in pairwise(ends))]
    np.testing.assert_allclose([*shares.values()], expected)


def test_gaps_are_warned_of_and_stop_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    raw = table(LOADS["office"])[["load"]]
    raw.iloc[3000:8000] = np.nan
    raw.to_csv(tmp_path / "series.csv", index_label="Date and time (UTC)")
    settings = Ingest(source="series.csv", target="load", columns={"load": Column(kind="load")})
    tidy = ingest(settings, tmp_path)
    assert tidy.facts["flags"]["load"]["gap"] == 5000
    assert "hours of load without a value: 52.08% of the hours (train 55.36%" in caplog.text


def test_patterns_and_lists_name_files(tmp_path: Path) -> None:
    for name in ("load-2.csv", "load-1.csv", "weather.csv", "b[1].csv"):
        (tmp_path / name).touch()
    found = [tmp_path / "load-1.csv", tmp_path / "load-2.csv"]
    assert located("load-*.csv", tmp_path) == found
    assert located([str(tmp_path / "load-?.csv"), "weather.csv"], tmp_path) == [*found, tmp_path / "weather.csv"]
    assert located("b[1].csv", tmp_path) == [tmp_path / "b[1].csv"]
    assert located("absent.csv", tmp_path) == [tmp_path / "absent.csv"]  # the reader says how to fetch it
    with pytest.raises(InputError, match=r"no file fits the pattern \S+x\*\.csv: correct ingest\.source"):
        located("x*.csv", tmp_path)
    with pytest.raises(InputError, match="names a file twice"):
        located(["weather.csv", "w*.csv"], tmp_path)


@pytest.mark.real
def test_the_real_series_gives_by_itself_what_its_profile_finds(real_series: Path) -> None:
    settings = Ingest(source=real_series.name)
    auto = ingest(settings, real_series.parent).frame
    profile = ingest(settings.model_copy(update={"checks": PROFILES["drahix"]}), real_series.parent).frame
    flags = [f"{name}__flag" for name in settings.columns]
    pd.testing.assert_frame_equal(auto[flags], profile[flags])
