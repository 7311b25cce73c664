"""What the benchmark of the search's seconds says of made-up ones. No time is taken here."""

import argparse
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is no part of the installed package

from experiments.search.ranking import SETTINGS, page

from isotrain.search.study import place

PARAMS = Path(__file__).parents[2] / "params.yaml"
ASKED = argparse.Namespace(steps=100, repeats=1, workers=2)


def rows(busy: dict[str, float]) -> dict[str, list[dict[str, object]]]:
    """Trainings of 1, 2, ... seconds alone; among others the wall-clock is ``busy``, or what it is alone."""
    made = {}
    for number, name in enumerate(SETTINGS, start=1):
        alone, among = float(number), busy.get(name, float(number))
        common = {"seconds": alone, "waited_seconds": 0.0}
        made[name] = [
            {**common, "condition": "1", "wall_seconds": alone},
            {**common, "condition": "n", "wall_seconds": among, "waited_seconds": among / 19},
        ]
    return made


def line(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


def test_equal_rankings_agree() -> None:
    text = page(rows({}), ASKED, "a series")
    assert line(text, "| quiet, n | quiet, 1 ") == "| quiet, n | quiet, 1 | 1.000 | 0 of 45 | 0 | 1.000 to 1.000 |"
    assert "for 0.0% of its time alone, 5.0% among n" in text


def test_a_changed_ranking_is_counted() -> None:
    """The quickest of ten has become the slowest: nine pairs turned, tau 1 - 2 * 9 / 45."""
    text = page(rows({next(iter(SETTINGS)): 100.0}), ASKED, "a series")
    assert line(text, "| wall, n | wall, 1 ") == "| wall, n | wall, 1 | 0.600 | 9 of 45 | 9 | 1.000 to 100.000 |"


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_one_that_a_trial_can_have(name: str) -> None:
    space = place(PARAMS).space
    space.settings(SETTINGS[name])
    assert set(SETTINGS[name]) <= set(space.dimensions)
