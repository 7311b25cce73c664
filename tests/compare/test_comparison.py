"""References, targets and paired speed-ups of a handful of fits whose seconds are known."""

import dataclasses
import math
import re

import pytest
from tests.compare.test_target import a_run

from isotrain.compare.comparison import Comparison, Settings
from isotrain.compare.results import Budget, Run, cautions, check_comparable
from isotrain.compare.statistics import Interval
from isotrain.errors import InputError

SETTINGS = Settings(
    {"streamed": "stock", "windowed": "stock-windowed"},
    {"streamed": "tuned", "windowed": "tuned-windowed"},
    about={"tuned": "", "layer": ""},
)
TUNED = [a_run((10, 6.0), (20, 5.0)), a_run((10, 6.0), (24, 5.0), seed=1)]


def test_speedups_are_paired_by_seed() -> None:
    layer = [a_run((5, 5.0), method="layer", seed=0), a_run((8, 5.0), method="layer", seed=1)]
    comparison = Comparison([*TUNED, *layer], SETTINGS)
    method = comparison.find("layer")
    assert method is not None
    assert comparison.targets == {"streamed": 5.0}
    # 20 / 5 and 24 / 8; an unpaired ratio of medians would be 22 / 6.5
    assert comparison.speedup(method, comparison.tuned("streamed")) == Interval(3.5, 3.0, 4.0)
    assert comparison.speedup(method, comparison.stock("streamed")) is None


def test_a_seed_that_only_one_of_the_two_has_is_left_out_of_the_speedup() -> None:
    comparison = Comparison([*TUNED, a_run((5, 5.0), method="layer", seed=1)], SETTINGS)
    assert comparison.speedup(comparison.methods[1], comparison.methods[0]) == Interval(4.8, 4.8, 4.8)
    alone = Comparison([*TUNED, a_run((5, 5.0), method="layer", seed=7)], SETTINGS)
    assert alone.speedup(alone.methods[1], alone.methods[0]) is None


def test_missing_the_target_counts_as_infinite() -> None:
    layer = [a_run((5, 5.5), method="layer", seed=0), a_run((8, 5.5), method="layer", seed=1)]
    comparison = Comparison([*TUNED, *layer], SETTINGS)
    method = comparison.methods[1]
    assert comparison.seconds_to_target(method) == Interval(math.inf, math.inf, math.inf)
    assert comparison.speedup(method, comparison.tuned("streamed")) == Interval(-math.inf, -math.inf, -math.inf)


def test_a_method_is_judged_by_the_reference_of_its_own_regime() -> None:
    steps = a_run((5, 4.0), method="steps-24", regime="windowed")
    without = Comparison([*TUNED, steps], SETTINGS)
    assert without.targets == {"streamed": 5.0, "windowed": None}
    assert without.seconds_to_target(without.methods[1]) is None
    windowed = a_run((10, 4.0), method="tuned-windowed", regime="windowed")
    comparison = Comparison([*TUNED, steps, windowed], SETTINGS)
    method = comparison.find("steps-24")
    assert method is not None
    assert comparison.targets == {"streamed": 5.0, "windowed": 4.0}
    assert comparison.speedup(method, comparison.tuned("windowed")) == Interval(2.0, 2.0, 2.0)
    assert comparison.speedup(method, comparison.find("tuned")) is None


def test_roles_and_settings_decide_what_a_method_is_and_never_its_name() -> None:
    plain = {"model.hidden": 64, "training.steps": 9}
    masked = {"isolation.zone": "unit", "isolation.mode": "masked"}
    cut = {"isolation.zone": "unit", "isolation.mode": "cut"}
    budgets = {"a": Budget("step", "small", 0.1), "b": Budget("time", "small", 1.0)}
    runs = [
        a_run((1, 5.0), method="tuned", role="reference", **plain),
        a_run((1, 5.0), method="small", **plain, **cut),  # under test, whatever it is called
        a_run((1, 5.0), method="masked-none", role="control", **plain),
        a_run((1, 5.0), method="layer", role="control", **plain, **masked),
        a_run((1, 5.0), method="a", role="control", budget=budgets["a"], **plain | {"model.hidden": 8}),
        a_run((1, 5.0), method="b", role="control", budget=budgets["b"], **plain | {"training.steps": 4}),
        a_run((1, 5.0), method="zeroed", role="control", **plain, **{"model.encoder": "zeroed"}),
        a_run((1, 5.0), method="arc", role="control", **plain, **cut),
    ]
    comparison = Comparison(runs, SETTINGS)
    assert [m.name for m in comparison.isolated()] == ["small"]
    assert [m.name for m in comparison.masked()] == ["layer"]
    rivals = {kind: method.name for kind, method in comparison.rivals("streamed")}
    assert rivals == {"smaller": "a", "shorter": "b", "kernels": "masked-none"}
    assert len(comparison.rivals("streamed")) == 3
    assert comparison.rivals("windowed") == []
    assert [m.name for m in comparison.methods[:2]] == ["tuned", "layer"]  # the order of `about`, then by name


def test_a_method_is_not_compared_with_itself() -> None:
    comparison = Comparison(TUNED, Settings({"streamed": "tuned"}, {"streamed": "tuned"}))
    tuned = comparison.find("tuned")
    assert tuned is not None and comparison.targets["streamed"] == 5.0
    assert comparison.speedup(tuned, comparison.tuned("streamed")) is None
    assert comparison.isolated() == []  # although it isolates: nothing is left to compare it with


def test_one_name_in_two_regimes_is_refused() -> None:
    with pytest.raises(InputError, match="tuned was fitted in two regimes"):
        _ = Comparison([TUNED[0], a_run((1, 5.0), seed=2, regime="windowed")], SETTINGS).methods


def alike(**changes: object) -> list[Run]:
    """Two fits alike but for ``changes`` of the second."""
    run = dataclasses.replace(TUNED[0], hardware={"cpu": "A", "memory_gb": 7.9})
    return [run, dataclasses.replace(run, **({"method": "layer"} | changes))]  # type: ignore[arg-type]


def test_equal_fits_are_comparable_without_a_warning() -> None:
    assert check_comparable(alike()) == []
    assert check_comparable(alike(hardware={"cpu": "A", "memory_gb": 8.1})) == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"hardware": {"cpu": "B", "memory_gb": 7.9}}, "hardware"),
        ({"data": {"source": "simulated", "sha256": "b" * 64}}, "data"),
    ],
)
def test_different_data_or_hardware_are_refused_by_name_with_the_remedy(changes: dict[str, object], what: str) -> None:
    with pytest.raises(InputError, match=rf"different {what}.*tuned-0.*layer-0.*dvc repro"):
        check_comparable(alike(**changes))


@pytest.mark.parametrize(
    ("changes", "mark", "words"),
    [
        ({"commit": "d"}, "several commits", r"2 commits \(c, d\)"),
        ({"commit": None}, "several commits", r"2 commits \(unknown, c\)"),
        ({"commit": "c+"}, "uncommitted changes", r"commit \(c\+\)"),
        ({"machine_seconds": 1.16}, "speed changed 1.16-fold", "speed changed during the comparison"),
        ({"diverged": True}, "1 diverged", "Diverged.*layer-0"),
    ],
)
def test_what_weakens_a_comparison_is_said_at_length_and_in_a_mark(
    changes: dict[str, object], mark: str, words: str
) -> None:
    (caution,) = cautions(alike(**changes))
    assert mark in caution.mark
    assert re.search(words, caution.text)
    assert check_comparable(alike(**changes)) == [caution.text]
