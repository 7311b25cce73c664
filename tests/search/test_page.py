"""The page of a search: the contract, the words, the figures, of a made-up study and made-up fits."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from matplotlib.image import imread
from tests.report.made_up_runs import MadeUp, make_runs
from tests.search.made_up_study import made_up_study

from isotrain.compare.results import read_runs
from isotrain.compare.searched import Searched
from isotrain.compare.statistics import Interval
from isotrain.errors import InputError
from isotrain.report.search.page import write_search_report
from isotrain.report.search.words import Rules, again, answer, duels, verdict
from isotrain.search.results import importances, points, tally

DATA = {"source": "simulated", "simulated": True, "rows": 26304, "sha256": "0" * 64}
AGAINST = {
    "stock": MadeUp("streamed", 60, 4.98),
    "tuned": MadeUp("streamed", 24, 5.02),
    "native": MadeUp("streamed", 20, 5.02),
    "small": MadeUp("streamed", 15, 5.06),
}
FIGURES = ("front", "confirmed", "importance", "parallel", "hypervolume")
RULES = Rules(bootstrap=300)


def searched(study: optuna.Study) -> Searched:
    """What ``study`` found; nothing run again."""
    counted = tally(study.trials, 2)
    names = ("val_mae", "seconds")
    whole = [trial for trial in counted.finished if not trial.user_attrs.get("early")]
    made = tuple(replace(p, command=f"dvc exp run -S 'model.hidden={p.settings['model.hidden']}' train@0-isolated")
                 for p in points(counted.finished))  # fmt: skip
    common = {"began": "2026-11-01T20:00:00+00:00", "startup": 16, "data": DATA, "hosts": ("host0", "host1")}
    lost = {"failed": counted.failed, "repeated": counted.repeated, "against": tuple(AGAINST)}
    return Searched(
        "made-up", names, "tpe", points=made, importances=importances(study, whole, names), **common, **lost
    )


def confirmed(found: Searched, folder: Path, error: float = 0.06) -> Searched:
    """``found`` with five points run again on three seeds, each ``error`` kW worse than searched."""
    again = {
        point.name: MadeUp("streamed", 1000 * point.seconds / 300, point.val_mae + error, isolated=0.4)
        for point in found.chosen(5)
    }
    make_runs(folder, {**again, **AGAINST}, seeds=(1000, 1001, 1002))
    return replace(found, confirmed=tuple(read_runs(folder)))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """A study with five points run again."""
    return confirmed(searched(made_up_study(80)), tmp_path_factory.mktemp("fits"))


@pytest.fixture(scope="module")
def report(found: Searched, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its report."""
    return write_search_report(found, tmp_path_factory.mktemp("report"), RULES).parent


def test_the_contract_holds_what_the_study_does(found: Searched, report: Path) -> None:
    data = json.loads((report / "search.json").read_text(encoding="utf-8"))
    assert data["trials"] == {"finished": 81, "pruned": 0, "failed": {"diverged": 2, "out of memory": 1}, "repeated": 1}
    assert [point["trial"] for point in data["front"]] == [point.number for point in found.front]
    assert len(data["hypervolume"]) == 81 and data["hypervolume"] == sorted(data["hypervolume"])
    assert len(data["confirmed"]) == 5 and len(data["duels"]) == 5 * len(AGAINST)
    assert all(row["seeds"] == [1000, 1001, 1002] for row in data["confirmed"])
    assert {fit["seed"] for fits in data["against"].values() for fit in fits} == {1000, 1001, 1002}


def test_every_point_of_the_front_has_its_command(found: Searched, report: Path) -> None:
    page, text = ((report / f"search.{kind}").read_text(encoding="utf-8") for kind in ("html", "md"))
    assert all(f"Trial {point.number}:\n\n    {point.command}" in text for point in found.front)
    assert page.count("<pre><code>dvc exp run -S") == len(found.front)


def test_the_page_needs_nothing_else_and_says_simulated(report: Path) -> None:
    page = (report / "search.html").read_text(encoding="utf-8")
    assert page.count("data:image/svg+xml") == len(FIGURES) and not re.search(r'(src|href)="(?!data:)', page)
    assert "SIMULATED" in page.split("</h1>")[0] and "docs/search.md" in page


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_pictures(report: Path, name: str) -> None:
    picture = imread(report / "search" / f"{name}.png")
    assert picture.shape[1] >= 1000 and picture[..., :3].std() > 0.02


def test_the_curse_is_said_in_numbers(report: Path) -> None:
    text = (report / "search.md").read_text(encoding="utf-8")
    assert "5 of 5 points have a larger validation MAE than the search measured (+0.0" in text


def test_nothing_is_called_better_before_fresh_seeds(tmp_path: Path) -> None:
    found = searched(made_up_study(40))
    text = (write_search_report(found, tmp_path, RULES).parent / "search.md").read_text(encoding="utf-8")
    assert answer(found, [], []).startswith("Open.") and "isotrain search confirm" in text
    assert not re.search(r"\bbeats?\b", text)
    assert not (tmp_path / "search" / "confirmed.png").exists()


def test_losing_points_are_said_to_lose(tmp_path: Path) -> None:
    found = confirmed(searched(made_up_study(40)), tmp_path, error=3.0)
    fought = duels(found, RULES)
    said = answer(found, again(found, RULES), fought)
    assert not any(duel.verdict == "beats it" and duel.rival == "small" for duel in fought)
    assert "none beats `small`" in said


def test_what_is_too_few_is_not_said(tmp_path: Path) -> None:
    found = searched(made_up_study(10))
    assert found.importances == () and found.reference is None
    write_search_report(found, tmp_path, RULES)
    assert not (tmp_path / "search" / "importance.png").exists()
    with pytest.raises(InputError, match="made-up has no finished trial"):
        write_search_report(replace(found, points=()), tmp_path, RULES)


def test_a_study_of_one_objective_is_reported_by_its_best(tmp_path: Path) -> None:
    two = searched(made_up_study(40))
    one = tuple(replace(point, values=(point.seconds,)) for point in two.points)
    missed = replace(one[3], values=(float("inf"),))
    found = replace(two, objectives=("seconds",), points=(*one[:3], missed, *one[4:]), importances=())
    report = write_search_report(confirmed(found, tmp_path / "fits"), tmp_path, RULES).parent
    data = json.loads((report / "search.json").read_text(encoding="utf-8"))
    best = min(point.seconds for point in found.points if point.counts)
    assert [point["seconds"] for point in data["front"]] == [best] and len(data["confirmed"]) == 5


def test_chance_is_distinguished_from_what_matters() -> None:
    found = searched(made_up_study(150, sampler="random"))
    for one in found.importances:
        assert sum(one.share.values()) == pytest.approx(1) and one.trials == 149
    seconds = found.importances[1]
    assert seconds.share["model.hidden"] > 3 * seconds.chance["model.hidden"]
    assert seconds.share["training.learning_rate"] < 2 * seconds.chance["training.learning_rate"]


@pytest.mark.parametrize(("ratio", "difference", "said"), [
    ((0.8, 0.7, 0.9), (0.0, -0.01, 0.01), "beats it"),
    ((0.8, 0.7, 0.9), (0.0, -0.1, 0.1), "undecided"),
    ((0.8, 0.7, 0.9), (0.3, 0.2, 0.4), "trades"),
    ((0.8, 0.7, 1.1), (0.0, -0.01, 0.01), "undecided"),
    ((1.0, 0.99, 1.001), (-0.3, -0.4, -0.2), "beats it"),
    ((1.5, 1.4, 1.6), (-0.3, -0.4, -0.2), "trades"),
    ((1.5, 1.4, 1.6), (0.0, -0.01, 0.01), "is beaten"),
    ((1.0, 0.999, 1.001), (0.3, 0.2, 0.4), "is beaten"),
    ((0.8, 0.7, 0.9), None, "undecided"),
])  # fmt: skip
def test_verdicts(ratio: tuple[float, ...], difference: tuple[float, ...] | None, said: str) -> None:
    assert verdict(Interval(*ratio), Interval(*difference) if difference else None, 0.02, 0.005) == said


def test_verdicts_are_mirrored() -> None:
    """What beats another is one by which the other is beaten."""
    for ratio, difference in (((0.8, 0.7, 0.9), (0.0, -0.01, 0.01)), ((0.8, 0.7, 0.9), (-0.2, -0.3, -0.1))):
        inverse: Any = Interval(*(1 / value for value in (ratio[0], ratio[2], ratio[1])))
        negative = Interval(*(-value for value in (difference[0], difference[2], difference[1])))
        assert verdict(Interval(*ratio), Interval(*difference), 0.02, 0.005) == "beats it"
        assert verdict(inverse, negative, 0.02, 0.005) == "is beaten"
