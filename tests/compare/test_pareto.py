"""The front: properties that hold for any points, and one case by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrain.compare.statistics import pareto

# few distinct values, so that ties and equal points happen often
POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=25)


def dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] <= b[0] and a[1] <= b[1] and a != b


def test_a_case_by_hand_with_a_tie_and_an_infinite_point() -> None:
    points = [(1, 5), (2, 3), (2, 3), (2, 4), (4, 3), (5, 1), (0, math.inf), (math.inf, math.inf)]
    assert pareto(points) == [0, 1, 2, 5, 6]


@given(POINTS)
def test_exactly_the_points_that_nothing_dominates(points: list[tuple[int, int]]) -> None:
    expected = [i for i, own in enumerate(points) if not any(dominates(other, own) for other in points)]
    assert pareto(points) == expected


@given(POINTS)
def test_every_point_left_out_is_dominated_by_one_on_the_front(points: list[tuple[int, int]]) -> None:
    front = pareto(points)
    left_out = set(range(len(points))) - set(front)
    assert front
    assert all(any(dominates(points[f], points[i]) for f in front) for i in left_out)


@given(POINTS, st.randoms())
def test_the_order_of_the_points_does_not_matter(points: list[tuple[int, int]], random: object) -> None:
    shuffled = list(points)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert sorted(points[i] for i in pareto(points)) == sorted(shuffled[i] for i in pareto(shuffled))


@pytest.mark.parametrize("points", [[(1.0, math.nan)], [1.0, 2.0], [(1.0, 2.0, 3.0)]])
def test_what_has_no_front_is_refused(points: list[object]) -> None:
    with pytest.raises(ValueError, match="points must"):
        pareto(points)  # type: ignore[arg-type]
