"""The pages: what pays follows the protocol, and docs/ says what its recorded numbers say."""

import math
from pathlib import Path

import pytest

from isotrain.compare.statistics import Interval
from isotrain.files import read_json
from isotrain.study.chapter import Effect
from isotrain.study.chapters import chapters_of
from isotrain.study.pages import write_pages

ROOT = Path(__file__).parents[2]
SURE, UNSURE, SLOW = Interval(1.5, 1.2, 1.8), Interval(1.1, 0.9, 1.3), Interval(0.7, 0.6, 0.8)
EQUAL, LOWER, HIGHER = Interval(1.0, 0.995, 1.005), Interval(0.97, 0.95, 0.99), Interval(1.03, 1.01, 1.05)


@pytest.mark.parametrize(
    ("times", "error", "seeds", "pays"),
    [
        (SURE, EQUAL, 5, "yes"),
        (SURE, HIGHER, 5, "trade"),  # surely sooner, surely at a higher error
        (SURE, EQUAL, 2, "not separated"),  # two seeds decide nothing
        (UNSURE, LOWER, 5, "yes"),
        (SLOW, LOWER, 5, "yes"),  # less error for 1.4 times the seconds
        (Interval(0.4, 0.35, 0.45), LOWER, 5, "no"),  # for more than twice the seconds
        (UNSURE, EQUAL, 5, "not separated"),
        (SLOW, EQUAL, 5, "no"),
        (UNSURE, HIGHER, 5, "no"),
        (Interval(-math.inf, -math.inf, 0.9), EQUAL, 5, "no"),  # missed
        (None, LOWER, 5, "yes"),
    ],
)
def test_what_pays(times: Interval | None, error: Interval, seeds: int, pays: str) -> None:
    assert Effect("a setting", "un cas", "a", "units", "dense", times, error, seeds).pays == pays


def test_seconds_to_one_error_are_compared_at_equal_error() -> None:
    assert Effect("a setting", "un cas", "a", "units", "dense", SURE, HIGHER, 5, to_target=True).pays == "yes"


def test_a_chapter_that_nothing_recorded_says_so(tmp_path: Path) -> None:
    chapters = {chapter.letter: chapter for chapter in chapters_of({"races": {}}, tmp_path)}
    assert [*chapters] == list("abcdefghij")
    assert "Not run yet" in chapters["a"].verdict
    assert "Not recorded here (experiments/adapt/results/results.json," in chapters["d"].verdict
    assert "Not measured" in chapters["i"].verdict
    paths = write_pages({"races": {}, "profile": "quick", "protocol": 1}, tmp_path, tmp_path, "figures")
    assert all(path.read_text(encoding="utf-8").startswith("# ") for path in paths)


def test_the_pages_of_docs_are_those_of_the_recorded_numbers(tmp_path: Path) -> None:
    study = read_json(ROOT / "docs/results/study/study.json")
    for page in write_pages(study, ROOT, tmp_path, "results/study"):
        assert page.read_text(encoding="utf-8") == (ROOT / "docs" / page.name).read_text(encoding="utf-8"), (
            f"docs/{page.name} is older than what it is made of: isotrain study --profile {study['profile']} --record"
        )
    assert not any(race["data"]["simulated"] for race in study["races"].values())
