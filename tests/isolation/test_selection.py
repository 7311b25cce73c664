"""Selection and schedules: the right share, a growing set, ties always the same."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isotrain.errors import InputError
from isotrain.isolation import SCHEDULES
from isotrain.isolation.selection import select

scores = st.dictionaries(
    st.text("abc", min_size=1, max_size=3),
    st.lists(st.integers(-3, 3), min_size=1, max_size=40).map(lambda values: torch.tensor(values).double()),
    min_size=1,
    max_size=4,
)
fractions = st.floats(0, 1)


def isolated(active: dict[str, torch.Tensor]) -> torch.Tensor:
    return ~torch.cat(list(active.values()))


@settings(max_examples=100, deadline=None)
@given(scores=scores, fraction=fractions)
def test_the_right_share(scores: dict[str, torch.Tensor], fraction: float) -> None:
    for name, active in select(scores, fraction, "local").items():
        assert active.dtype == torch.bool
        assert int((~active).sum()) == math.floor(fraction * len(scores[name]) + 0.5)
    everything = isolated(select(scores, fraction, "global"))
    assert int(everything.sum()) == math.floor(fraction * len(everything) + 0.5)


@settings(max_examples=100, deadline=None)
@given(
    scores=scores,
    pair=st.tuples(fractions, fractions).map(sorted),
    scope=st.sampled_from(["local", "global"]),
)
def test_a_larger_fraction_isolates_all_that_a_smaller_one_does(
    scores: dict[str, torch.Tensor], pair: list[float], scope: str
) -> None:
    few, many = (isolated(select(scores, fraction, scope)) for fraction in pair)
    assert not (few & ~many).any()


@settings(max_examples=100, deadline=None)
@given(scores=scores, fraction=fractions)
def test_lowest_scores_go_first_and_among_equals_the_lowest_index(
    scores: dict[str, torch.Tensor], fraction: float
) -> None:
    for name, active in select(scores, fraction).items():
        order = sorted(range(len(active)), key=lambda i, name=name: (float(scores[name][i]), i))
        gone = int((~active).sum())
        assert (~active).nonzero().flatten().tolist() == sorted(order[:gone])


def test_half_is_rounded_up() -> None:
    assert int((~select({"a": torch.zeros(5)}, 0.5)["a"]).sum()) == 3
    assert int((~select({"a": torch.zeros(1)}, 0.49)["a"]).sum()) == 0
    assert select({}, 0.5, "global") == {}


def test_bad_use_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"zones 'lstm.l0': a score is not a number"):
        select({"lstm.l0": torch.tensor([1.0, float("nan")])}, 0.5)
    for fraction in (-0.1, 1.5, float("nan")):
        with pytest.raises(InputError, match=f"fraction={fraction} .* in \\[0, 1\\]"):
            select({"a": torch.zeros(2)}, fraction)
    with pytest.raises(InputError, match="scope='layer' is unknown; choose one of local, global"):
        select({"a": torch.zeros(2)}, 0.5, "layer")


def test_schedules_by_hand() -> None:
    constant = SCHEDULES["constant"](fraction=0.5, start=0.25, stop=1.0)
    assert [constant(p) for p in (0.0, 0.2499, 0.25, 1.0)] == [0.0, 0.0, 0.5, 0.5]
    ramp = SCHEDULES["ramp"](fraction=0.8, start=0.25, stop=0.75)
    assert [ramp(p) for p in (0.0, 0.25, 0.5, 0.75, 1.0)] == [0.0, 0.0, 0.4, 0.8, 0.8]
    assert [SCHEDULES["ramp"](fraction=0.8, start=0.5, stop=0.5)(p) for p in (0.49, 0.5)] == [0.0, 0.8]
    assert str(constant) == "Constant(fraction=0.5, start=0.25, stop=1.0)"


@given(
    name=st.sampled_from(sorted(SCHEDULES)),
    fraction=fractions,
    bounds=st.tuples(fractions, fractions).map(sorted),
    pair=st.tuples(fractions, fractions).map(sorted),
)
def test_schedules_grow_and_stay_between_zero_and_their_fraction(
    name: str, fraction: float, bounds: list[float], pair: list[float]
) -> None:
    schedule = SCHEDULES[name](fraction=fraction, start=bounds[0], stop=bounds[1])
    early, late = (schedule(p) for p in pair)
    assert 0 <= early <= late <= fraction
    assert schedule(1.0) == fraction


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_schedules_refuse_what_is_no_share(name: str) -> None:
    for key in ("fraction", "start", "stop"):
        for value in (-0.1, 1.5, float("nan")):
            with pytest.raises(InputError, match=f"{key}={value} is outside"):
                SCHEDULES[name](**{key: value})
    with pytest.raises(InputError, match=r"start=0.7 comes after stop=0.2"):
        SCHEDULES[name](start=0.7, stop=0.2)
