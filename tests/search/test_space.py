"""The space: what a trial may be, and where known methods lie in it."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from isotrain.config import decisive
from isotrain.config.search import Dimension
from isotrain.search.space import Space, parameter_name, path_of
from isotrain.search.study import place

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture(scope="module")
def space() -> Space:
    return place(PARAMS).space


def trials(space: Space, count: int) -> list[tuple[optuna.Trial, dict[str, object]]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [(trial, space.suggest(trial)) for trial in (study.ask() for _ in range(count))]


def test_every_point_of_the_default_space_is_valid(space: Space) -> None:
    zones = set()
    for trial, overrides in trials(space, 300):
        settings = space.settings(overrides)
        zones.add(settings.isolation.zone if settings.isolation else None)
        assert {path_of(name) for name in trial.params} <= overrides.keys()
    assert zones == {"unit", "layer", "step", "credit", None}


def test_overrides_are_what_differs_from_the_base(space: Space) -> None:
    base = space.base_values()
    for _, overrides in trials(space, 50):
        settings = space.settings(overrides)
        counts = [path for path in base if settings.isolation or not path.startswith("isolation.")]
        if overrides["isolation.zone"] == "step":  # its share is isolation.steps, and no fraction is read
            counts.remove("isolation.schedule.fraction")
        reached, wanted = decisive(settings), base | overrides
        assert {path: reached[path] for path in counts} == {path: wanted[path] for path in counts}


def test_conditional_parameters_are_asked_only_where_they_hold(space: Space) -> None:
    for trial, overrides in trials(space, 100):
        zone = overrides["isolation.zone"]
        assert ("isolation.mode@unit" in trial.params) == (zone == "unit")
        assert ("isolation.mode@credit" in trial.params) == (zone == "credit")
        assert ("isolation.schedule.stop" in trial.params) == (overrides["isolation.schedule.shape"] == "thaw")
        assert ("isolation.criterion@unit" in trial.params) == (zone == "unit")
        assert ("isolation.criterion@step" in trial.params) == (zone == "step")
        assert ("isolation.schedule.cycles" in trial.params) == (overrides["isolation.schedule.shape"] == "cyclic")
        assert overrides.get("training.regime") == (
            "windowed" if overrides.get("isolation.criterion") == "neglected" else None
        )
        assert zone != "layer" or overrides["model.layers"] == 2 or overrides["isolation.schedule.fraction"] == 0


@pytest.mark.parametrize("method", ["native", "small", "layer", "autonomous-75", "cut-75", "exact-75", "credit-thawed"])
def test_a_known_point_asked_for_gives_back_its_method(space: Space, method: str) -> None:
    study = optuna.create_study()
    study.enqueue_trial(space.point(method))
    reached = space.settings(space.suggest(study.ask()))
    wanted = space.methods.settings(method)
    assert decisive(reached) == decisive(wanted)


def test_a_fraction_of_nothing_isolates_nothing(space: Space) -> None:
    assert space.settings({"isolation.zone": "unit", "isolation.schedule.fraction": 0.0}).isolation is None


def reordered(value: Any, order: Callable[[list[str]], list[str]]) -> Any:
    """``value`` with the keys of every mapping in it, lists included, in another order."""
    if isinstance(value, dict):
        return {key: reordered(value[key], order) for key in order(list(value))}
    return [reordered(inner, order) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
def test_the_order_of_keys_decides_nothing(space: Space, tmp_path: Path, seed: int | None) -> None:
    """Sorted, and shuffled: the same names, asked in the same order, with the same draws."""
    draw = random.Random(seed)
    order = sorted if seed is None else lambda keys: draw.sample(keys, len(keys))
    values = reordered(yaml.safe_load(PARAMS.read_text()), order)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    other = place(tmp_path / "params.yaml").space
    assert other.describe() == space.describe()
    for (one, overrides), (again, same) in zip(trials(space, 40), trials(other, 40), strict=True):
        assert list(one.params.items()) == list(again.params.items())
        assert overrides == same


def test_several_conditions_name_a_parameter_by_their_values_in_one_order(space: Space) -> None:
    """``when`` is a mapping too: whichever of its keys stands first, it is the same parameter."""
    names = set()
    for keys in (["training.regime", "isolation.zone"], ["isolation.zone", "training.regime"]):
        allowed = {"training.regime": ["streamed"], "isolation.zone": ["unit", "layer"]}
        variants = [
            Dimension.model_validate({"low": 0.0, "high": 0.9, "when": {key: allowed[key] for key in keys}}),
            Dimension.model_validate({"value": 0.5, "when": {"isolation.zone": ["step"]}}),
        ]
        names.add(parameter_name("isolation.schedule.fraction", variants[0], alone=False))
    assert names == {"isolation.schedule.fraction@unit+layer,streamed"}
