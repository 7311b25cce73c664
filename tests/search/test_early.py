"""The rule that ends hopeless trials: optimistic, silent on little evidence, right where it can be checked."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrain.files import write_json
from isotrain.search.objective import FEWEST, Rule, improvement

FLAT = [(0.5, 5.0), (1.0, 5.0)]
FALLING = [(0.25, 8.0), (0.5, 6.0), (1.0, 5.0)]


@pytest.mark.parametrize(("share", "expected"), [(0.25, 3.0), (0.5, 1.0), (0.6, 1.0), (1.0, 0.0), (0.1, float("inf"))])
def test_the_improvement_still_to_come_is_read_off_a_history(share: float, expected: float) -> None:
    assert improvement(FALLING, share) == expected


def test_it_waits_for_enough_finished_trials() -> None:
    front = [(1.0, 1.0)]
    assert not Rule(front, [FLAT] * (FEWEST - 1)).hopeless(100.0, 100.0, 0.5)
    assert Rule(front, [FLAT] * FEWEST).hopeless(100.0, 100.0, 0.5)


def test_a_point_of_the_front_must_beat_even_the_optimistic_error() -> None:
    rule = Rule([(10.0, 5.0)], [FALLING] * FEWEST)
    assert not rule.hopeless(5.9, 20.0, 0.5)  # may still reach 4.9
    assert rule.hopeless(6.1, 20.0, 0.5)
    assert not rule.hopeless(6.1, 9.0, 0.5)  # may still be the quicker
    assert not rule.hopeless(6.1, 20.0, 0.1)  # nobody had validated so early


@given(
    st.lists(st.lists(st.floats(0, 10), min_size=4, max_size=4), min_size=FEWEST, max_size=20),
    st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), min_size=1),
    st.integers(0, 2),
    st.floats(0, 10),
)
def test_no_trial_like_a_finished_one_is_ended_if_it_reaches_the_front(
    errors: list[list[float]], front: list[tuple[float, float]], at: int, seconds: float
) -> None:
    """A trial that goes as a finished one did, and in the end is dominated by nobody, is never ended on its way."""
    histories = [[((n + 1) / 4, min(run[: n + 1])) for n in range(4)] for run in errors]
    rule = Rule(front, histories)
    for history in histories:
        dominated = any(time < seconds and error < history[-1][1] for time, error in front)
        assert dominated or not rule.hopeless(history[at][1] - 1e-9, seconds, history[at][0])


def test_the_rule_is_read_from_the_finished_results(tmp_path: Path) -> None:
    for number in range(FEWEST + 1):
        history = [{"step": 10, "val_mae": 6.0}, {"step": 20, "val_mae": 5.0 + number}]
        found = {"early": number == FEWEST, "seconds": 1.0 + number, "val_mae": 5.0, "history": history}
        write_json(tmp_path / "trials" / str(number) / "result.json", found)
    rule = Rule.of(tmp_path)
    assert len(rule.front) == FEWEST == len(rule.histories)
    histories = sorted(list(history) for history in rule.histories)
    assert histories[0] == [(0.5, 6.0), (1.0, 5.0)]
    assert histories[-1] == [(0.5, 6.0), (1.0, 6.0)]  # the best so far, not the last
