"""Origins, parts, scaling and calendar: nothing of the future reaches an input, no hour is a target twice."""

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from isotrain.config import Ingest, Window
from isotrain.config.ingest import Simulated
from isotrain.data.calendar import calendar_features, day_kinds
from isotrain.data.ingest import Tidy, ingest
from isotrain.data.windowing import make_windows, split
from isotrain.data.windows import ARRAYS, PARTS, Windows
from isotrain.errors import InputError

HOURS = 24 * 7 * 20
SPLIT = Window(history=48, horizon=24, train=0.6, validation=0.2, stride=1)


@pytest.fixture(scope="module")
def tidy() -> Tidy:
    return ingest(Ingest(simulated=Simulated(seed=3, hours=HOURS)), Path())


def test_no_hour_is_a_target_of_two_parts(windows: Windows) -> None:
    leads = np.arange(windows.meta["horizon"])
    hours = [set((windows.origins(part)[:, None] + leads).ravel().tolist()) for part in PARTS]
    assert not hours[0] & hours[1] and not hours[1] & hours[2] and not hours[0] & hours[2]
    assert max(hours[0]) + 1 == min(hours[1]) and max(hours[1]) + 1 == min(hours[2])
    assert max(hours[2]) == len(windows.target) - 1


def test_parts_are_where_a_hand_puts_them() -> None:
    parts = split([600, 800, 1000], Window(history=48, horizon=24, train=0.6, validation=0.2, stride=1), first=385)
    # the last origin of a part has its 24 targets before hours 600, 800 and 1000
    assert parts == {"train": (385, 577), "validation": (600, 777), "test": (800, 977)}


def test_scaling_is_the_training_parts_alone(tidy: Tidy) -> None:
    made = make_windows(tidy.frame, tidy.facts, SPLIT)
    _first, last = made.ranges("train")[0]
    hours = last + SPLIT.horizon - 1
    assert hours == int(0.6 * HOURS)
    assert made.series[0]["statistics"]["scale"] == pytest.approx(tidy.frame["TGBT"][:hours].std())
    column = made.names("inputs").index("AirTemp")
    assert made.inputs[:hours, column].mean() == pytest.approx(0, abs=1e-4)
    assert made.inputs[:hours, column].std() == pytest.approx(1, abs=1e-3)


def test_flagged_hours_are_no_truth(tidy: Tidy) -> None:
    made = make_windows(tidy.frame, tidy.facts, SPLIT)
    flagged = tidy.frame["TGBT__flag"].to_numpy() != 0
    assert flagged.any()
    np.testing.assert_array_equal(np.isnan(made.truth), flagged)
    assert not np.isnan(made.target).any()


def test_windows_are_indices_whatever_their_length(tidy: Tidy) -> None:
    sizes = []
    for history in (24, 500):
        made = make_windows(tidy.frame, tidy.facts, SPLIT.model_copy(update={"history": history}))
        sizes.append(sum(getattr(made, name).nbytes for name in (*ARRAYS, "target", "truth")))
    assert sizes[0] == sizes[1]


def test_only_a_target_is_enough(tidy: Tidy) -> None:
    facts = tidy.facts | {"columns": {"TGBT": tidy.facts["columns"]["TGBT"]}}
    made = make_windows(tidy.frame[["time", "TGBT", "TGBT__flag"]], facts, SPLIT)
    plain = made.columns("inputs", "plain")
    assert made.names("inputs")[plain[0]] == "load" and len(plain) == 1 + made.calendar.shape[1]


def test_what_does_not_fit_is_refused(tidy: Tidy) -> None:
    with pytest.raises(InputError, match=r"validation part has no room.*shorten the window"):
        make_windows(tidy.frame, tidy.facts, SPLIT.model_copy(update={"validation": 0.005}))
    flat = tidy.frame.assign(TGBT=5.0)
    with pytest.raises(InputError, match="TGBT is constant"):
        make_windows(flat, tidy.facts, SPLIT)
    short = tidy.frame[:600]
    with pytest.raises(InputError, match=r"train part has no room for a past of 384 h.*series of 600 h"):
        make_windows(short, tidy.facts, SPLIT)


def test_saved_and_loaded_is_the_same(windows: Windows, tmp_path: Path) -> None:
    windows.save(tmp_path)
    again = Windows.load(tmp_path)
    for array in ARRAYS:
        np.testing.assert_array_equal(getattr(windows, array), getattr(again, array))
    assert windows.meta == again.meta
    with pytest.raises(InputError, match="dvc repro window"):
        Windows.load(tmp_path / "nowhere")


def test_windows_in_which_anything_differs_are_refused(windows: Windows, tmp_path: Path) -> None:
    """A figure of windows.json, a value of the arrays, or one of both files of another run."""
    windows.save(tmp_path)
    meta, arrays = tmp_path / "windows.json", tmp_path / "level.npy"
    whole, whole_arrays = meta.read_text(), arrays.read_bytes()
    for key in ("stride", "horizon", "sha256", "checksum"):
        held = json.loads(whole)
        held[key] = held[key] + 1 if isinstance(held[key], int | float) else "0" * len(held[key])
        meta.write_text(json.dumps(held))
        with pytest.raises(InputError, match=r"windows\.json is damaged.*dvc repro"):
            Windows.load(tmp_path)
    without = {key: value for key, value in json.loads(whole).items() if key != "checksum"}
    meta.write_text(json.dumps(without))
    with pytest.raises(InputError, match="has no checksum: another version wrote it"):
        Windows.load(tmp_path)
    meta.write_text(whole)
    Windows.load(tmp_path)
    replace(windows, level=windows.level + 1).save(tmp_path / "other")
    for content in (b"", whole_arrays[:-1], (tmp_path / "other" / "level.npy").read_bytes()):
        arrays.write_bytes(content)
        with pytest.raises(InputError, match=r"level\.npy is not the file that windows\.json"):
            Windows.load(tmp_path)


def test_the_clock_is_the_buildings_through_both_changes() -> None:
    hours = pd.date_range("2021-03-27", "2021-03-29", freq="h", tz="UTC")
    table = calendar_features(hours, "Europe/Paris", "FR")
    angle = np.arctan2(table["sin_1_per_day"], table["cos_1_per_day"])
    local = (np.round(angle / (2 * np.pi) * 24) % 24).astype(int)
    assert local["2021-03-28 00:00+00:00"] == 1
    assert local["2021-03-28 01:00+00:00"] == 3  # 2 o'clock did not exist
    assert table.loc["2021-03-27 23:00+00:00", "weekday_6"] == 1  # midnight in Paris: Sunday already


@pytest.mark.parametrize(
    ("day", "kinds"),
    [
        (date(2019, 7, 14), {"holiday"}),
        (date(2019, 5, 31), {"bridge", "off_before", "off_after"}),  # Friday after Ascension
        (date(2019, 12, 24), {"year_end", "off_after"}),
        (date(2019, 8, 7), {"august", "working"}),
        (date(2019, 10, 2), {"working"}),
        (date(2019, 10, 4), {"working", "off_after"}),
    ],
)
def test_kinds_of_day(day: date, kinds: set[str]) -> None:
    found = {name for name, value in day_kinds(day, "FR").items() if value}
    assert found - ({"off_before", "off_after"} if day.weekday() >= 5 else set()) == kinds


@pytest.mark.real
def test_the_real_series_splits_where_its_card_says(real_series: Path) -> None:
    tidy = ingest(Ingest(source=str(real_series)), real_series.parent)
    made = make_windows(tidy.frame, tidy.facts, Window(history=168, horizon=24, train=0.7, validation=0.1, stride=1))
    first_test_hour = pd.Timestamp(made.time[made.origins("test")[0]], unit="s")
    assert first_test_hour.date() == date(2020, 5, 31)
    assert len(made.origins("train")) > 29_000
