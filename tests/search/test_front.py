"""What counts among a study's trials, and the command that does a point again."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna._hypervolume import compute_hypervolume
from tests.search.made_up_study import failed, finished_like, made_up_study

from isotrain.compare.searched import Searched, history
from isotrain.compare.statistics import hypervolume, pareto, spread_out
from isotrain.config import MethodsView, load
from isotrain.search.results import points, reproduce, tally

PARAMS = Path(__file__).parents[2] / "params.yaml"
PLANES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=25)


@given(PLANES)
def test_hypervolume_is_optunas(planes: list[tuple[int, int]]) -> None:
    inside = np.array([plane for plane in planes if max(plane) < 9] or [(9, 9)], dtype=float)
    assert hypervolume(planes, (9, 9)) == pytest.approx(compute_hypervolume(inside, np.array([9.0, 9.0])))


@given(PLANES, st.integers(1, 6))
@settings(max_examples=50)
def test_what_stands_for_a_front_lies_on_it_and_holds_its_ends(planes: list[tuple[int, int]], count: int) -> None:
    taken = spread_out(planes, count, (10, 10))
    front = pareto(planes)
    assert set(taken) <= set(front) and len(set(taken)) == len(taken) <= count
    assert len(taken) == min(count, len({planes[index] for index in front}))
    if count >= 2:
        assert min(x for x, _ in planes) in {planes[index][0] for index in taken}
        assert min(y for _, y in planes) in {planes[index][1] for index in taken}


@given(PLANES, st.integers(1, 5))
def test_hypervolume_never_shrinks(planes: list[tuple[int, int]], startup: int) -> None:
    grown = history(planes, startup)
    assert len(grown) == len(planes) and grown == sorted(grown)
    assert all(value == 0 for value in grown[: startup - 1])


def test_a_study_is_counted_once_a_chain() -> None:
    study = made_up_study()
    counted = tally(study.trials, retries=2)
    assert len(counted.finished) == 61 and counted.failed == {"diverged": 2, "out of memory": 1}
    assert (counted.running, counted.waiting, counted.again, counted.repeated) == (1, 0, 1, 1)
    assert counted.ended == 64


def test_what_was_repeated_often_enough_has_failed() -> None:
    study = made_up_study(trials=20)  # its last failure was given back, and a running trial follows
    preempted = len(study.trials) - 2
    for before in (preempted, len(study.trials)):
        study.add_trial(failed(why="vanished", given_back=True, again_of=before))
    allowed = [tally(study.trials, retries=retries) for retries in (1, 2)]  # what was only pre-empted costs none
    assert [counted.failed.get("vanished", 0) for counted in allowed] == [1, 0]
    assert [counted.again for counted in allowed] == [0, 1]


def test_points_stopped_early_are_not_on_the_front() -> None:
    study = made_up_study()
    best = study.trials[20]
    assert best.user_attrs["early"]
    study.add_trial(finished_like(best, val_mae=1.0, seconds=0.1))
    found = searched(study)
    assert not {point.number for point in found.front} & {20, 33}
    whole = [t for t in study.best_trials if not t.user_attrs.get("early")]
    assert {t.number for t in whole} <= {point.number for point in found.front}


def test_of_one_objective_the_best_are_chosen_and_what_missed_the_target_never() -> None:
    shapes = [(3.0,), (2.0,), (float("inf"),), (5.0,)]
    made = [p for t in made_up_study(trials=20).trials[:4] for p in points([t])]
    one = [type(p)(number, v, p.val_mae, v[0]) for number, (p, v) in enumerate(zip(made, shapes, strict=True))]
    found = Searched("s", ("time-to-target",), "tpe", "", tuple(one), startup=2, data={})
    assert [p.number for p in found.chosen(2)] == [1, 0] and [p.number for p in found.front] == [1]
    assert found.hypervolumes == pytest.approx((0.0, 1.69, 1.69, 1.69))  # (1.1 * 3 - 2) squared


@pytest.mark.parametrize("changes", [
    {},
    {"isolation.schedule.fraction": 0.0},
    {"isolation.zone": "unit", "isolation.mode": "autonomous", "isolation.criterion": "snip", "isolation.thaw": False,
     "isolation.schedule.fraction": 0.35, "isolation.schedule.shape": "cubic", "isolation.modules": ["net.encoder.*"],
     "model.hidden": 80, "training.learning_rate": 1e-05, "training.steps": 90, "isolation.tile": [8, 4]},
    {"isolation.zone": "step", "training.regime": "windowed", "runtime.backend": "torch"},
])  # fmt: skip
def test_the_command_makes_isolated_the_point(changes: dict[str, Any]) -> None:
    point = load(PARAMS, view=MethodsView, overrides=changes).settings("isolated")
    view = load(PARAMS, view=MethodsView)
    command = reproduce(point, view, seed=0)
    assert load(PARAMS, view=MethodsView, overrides=overrides(command)).settings("isolated") == point
    assert command.endswith("-S 'compare.methods=[\"isolated\"]' -S 'compare.seeds=[0]' train")


def overrides(command: str) -> dict[str, Any]:
    """What the -S of a command set, as DVC would write it into params.yaml."""
    words = shlex.split(command)
    pairs = [words[n + 1].split("=", 1) for n, word in enumerate(words) if word == "-S"]
    return {path: yaml.safe_load(value) for path, value in pairs}


def searched(study: Any) -> Searched:
    """``study`` as the report sees it."""
    made = points(tally(study.trials, 2).finished)
    return Searched("made-up", ("val_mae", "seconds"), "tpe", "", made, startup=16, data={})
