"""The benchmark of many series: its pool is made of whole buildings, and its table says what was measured."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.many_series import main, make, tables

from isotrain.config import WindowView, load
from isotrain.data.windowing import make_windows
from isotrain.data.windows import Windows

ROOT = Path(__file__).parents[2]
HOURS = 24 * 7 * 30


@pytest.fixture(autouse=True)
def project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_the_pool_holds_the_windows_of_each_of_its_buildings(tmp_path: Path) -> None:
    found = make(3, HOURS, tmp_path)
    assert found["hours"] == 3 * HOURS
    pool, settings = Windows.load(tmp_path), load(view=WindowView).window
    assert found["disk"] == sum(path.stat().st_size for path in tmp_path.iterdir()) / 2**30
    for k, (table, facts) in enumerate(tables(3, HOURS)[0]):
        alone, one = make_windows(table, facts, settings), pool.only(k)
        assert all(
            np.array_equal(getattr(one, name), getattr(alone, name), equal_nan=True) for name in one.array_names()
        )
    scales = [one["statistics"]["scale"] for one in pool.series]
    assert len(set(scales)) == 3  # the buildings differ


@pytest.mark.slow
def test_the_table_is_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--buildings", "3", "--hours", str(HOURS), "--steps", "4", "--name", str(tmp_path / "many")]
    monkeypatch.setattr(sys, "argv", ["many_series", *words])
    main()
    kept = json.loads((tmp_path / "many.json").read_text())
    assert [row["buildings"] for row in kept["rows"]] == [3]
    for row in kept["rows"]:
        for stage in ("windowing", "training"):
            assert 0.05 < row[stage]["anonymous"] < row[stage]["resident"] < 4
        assert row["step_ms"] > 0
        line = f"| {row['buildings']} | {row['hours'] / 1e6:.2g} million | {row['disk']:.2f} GiB |"
        assert line in (tmp_path / "many.md").read_text()
    assert (tmp_path / "many.png").stat().st_size > 10_000
