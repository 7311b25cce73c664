"""A real journal as the report sees it, and which fits its confirmation asks for."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.search.made_up_study import failed, run_trials, small_place

from isotrain.config import MethodsView, decisive, load
from isotrain.data.windows import Windows
from isotrain.search import confirm as module
from isotrain.search.confirm import confirm_best, found
from isotrain.search.study import Place


@pytest.fixture
def at(tmp_path: Path, windows: Windows) -> Place:
    """A study of ten trials to be, in a folder of its own."""
    return small_place(tmp_path, windows)


def test_every_command_makes_the_point_that_the_trial_was(at: Place, tmp_path: Path) -> None:
    run_trials(at, 6)
    for point in found(at).points:
        words = shlex.split(point.command)
        pairs = [words[n + 1].split("=", 1) for n, word in enumerate(words) if word == "-S"]
        changes = {path: yaml.safe_load(value) for path, value in pairs}
        made = load(tmp_path / "params.yaml", view=MethodsView, overrides=changes).settings("isolated")
        assert decisive(made) == decisive(at.space.settings(point.settings))


def test_the_study_is_given_as_it_is(at: Place) -> None:
    study = run_trials(at, 25)
    study.add_trial(failed(why="diverged: at step 3"))
    seen = found(at)
    assert len(seen.points) == 25 and seen.failed == {"diverged": 1} and seen.hosts == ("here",)
    assert {point.number for point in seen.front} == {trial.number for trial in study.best_trials}
    assert [one.objective for one in seen.importances] == at.objectives == list(seen.objectives)
    assert seen.data["simulated"] is True and seen.confirmed == () and seen.points[0].known == "native"


def test_the_points_run_again_have_their_own_settings(at: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    run_trials(at, 8)
    asked: dict[str, Any] = {}
    monkeypatch.setattr(module, "confirm", lambda methods, seeds, *_: asked.update(methods=methods, seeds=seeds))
    confirm_best(at)
    points = {point.name: point for point in found(at).chosen(at.search.winners)}
    assert list(asked["methods"]) == [*points, *at.search.against] and asked["seeds"] == at.search.fresh_seeds
    for name, point in points.items():
        assert asked["methods"][name].model.hidden == point.settings["model.hidden"]
        assert asked["methods"][name].method == name
    assert not {point.number for point in points.values()} & set(at.search.fresh_seeds)
