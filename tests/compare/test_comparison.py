"""References, targets and paired speed-ups of a handful of fits whose seconds are known."""

import dataclasses
import math
import re

import pytest
from test_target import a_run

from isotrain.compare.comparison import Comparison, Settings
from isotrain.compare.results import check_comparable
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


def test_controls_and_references_are_not_methods_under_test() -> None:
    names = [
        "tuned",
        "stock",
        "masked-unit-50",
        "small",
        "short",
        "state-zeroed",
        "random-50",
        "layer",
        "arc",
    ]
    comparison = Comparison([a_run((1, 5.0), method=name) for name in names], SETTINGS)
    assert [m.name for m in comparison.isolated()] == ["layer", "arc"]
    assert [m.name for m in comparison.masked()] == ["masked-unit-50"]
    assert [m.name for m in comparison.methods[:2]] == [
        "tuned",
        "layer",
    ]  # the order of `about`, then by name


def test_one_name_in_two_regimes_is_refused() -> None:
    with pytest.raises(InputError, match="tuned was fitted in two regimes"):
        _ = Comparison([TUNED[0], a_run((1, 5.0), seed=2, regime="windowed")], SETTINGS).methods


def alike(**changes: object) -> list[object]:
    """Two fits alike but for ``changes`` of the second."""
    data = {"source": "simulated", "sha256": "a" * 64, "rows": 1, "simulated": True}
    run = dataclasses.replace(TUNED[0], data=data, hardware={"cpu": "A", "memory_gb": 7.9})
    return [run, dataclasses.replace(run, **({"method": "layer"} | changes))]  # type: ignore[arg-type]


def test_equal_fits_are_comparable_without_a_warning() -> None:
    assert check_comparable(alike()) == []  # type: ignore[arg-type]
    assert check_comparable(alike(hardware={"cpu": "A", "memory_gb": 8.1})) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"hardware": {"cpu": "B", "memory_gb": 7.9}}, "hardware"),
        ({"data": {"source": "simulated", "sha256": "b" * 64}}, "data"),
    ],
)
def test_different_data_or_hardware_are_refused_by_name_with_the_remedy(changes: dict[str, object], what: str) -> None:
    with pytest.raises(InputError, match=rf"different {what}.*tuned-0.*layer-0.*dvc repro"):
        check_comparable(alike(**changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"commit": "d"}, "2 commits"),
        ({"machine_seconds": 1.16}, "speed changed during the comparison"),
        ({"diverged": True}, "Diverged.*layer-0"),
    ],
)
def test_what_weakens_a_comparison_is_said(changes: dict[str, object], words: str) -> None:
    (warning,) = check_comparable(alike(**changes))  # type: ignore[arg-type]
    assert re.search(words, warning)
