"""Pages that experiments write: they say what the figures beside them say, and choose without the test part."""

from pathlib import Path

import numpy as np
import pytest
from experiments.drammen.run import page
from experiments.forecaster.run import SEEDS, Members, write_page

from isotrain.files import read_json
from isotrain.forecast.forecasts import Forecasts

ROOT = Path(__file__).parents[1]


def test_the_page_of_drammen_says_what_its_figures_say() -> None:
    folder = ROOT / "docs" / "results" / "drammen"
    assert page(read_json(folder / "drammen.json")) == (folder / "README.md").read_text(encoding="utf-8")


def test_zones_and_means_are_chosen_on_validation_and_nothing_else_is_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The truth is 0. Errors of pooled and of the trees cancel in a mean; columns would be best on the test part."""
    value = {"alone": 1.0, "columns": 2.0, "pooled": 0.9, "trees": -0.9}
    asked = set()

    def forecasts(self: Members, kind: str, part: str, refit: bool = False) -> list[Forecasts]:
        asked.add((kind, part))
        error = 0.0 if part == "test" and kind == "columns" else value[kind]
        origins = np.arange(3)
        return [Forecasts(origins, origins, np.full((3, 2), error), np.zeros((3, 2)))]

    monkeypatch.setattr(Members, "forecasts", forecasts)
    members = Members.__new__(Members)
    members.work = tmp_path
    write_page(tmp_path, members, list(SEEDS))
    assert {kind for kind, part in asked if part == "validation"} == set(SEEDS)
    assert {kind for kind, part in asked if part == "test"} == {"alone", "pooled", "trees"}
    tested = read_json(tmp_path / "members.json")["test"]
    assert [row["of"] for row in tested] == ["alone", "pooled", "alone", "pooled + trees"]
    assert tested[-1]["refitted"] == pytest.approx(0.0, abs=1e-12)
