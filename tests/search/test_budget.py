"""When a study ends: counted with repeats, by hours, by a hypervolume computed by hand."""

from datetime import UTC, datetime, timedelta

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from isotrain.search.recovery import given_back, lost, settled, why
from isotrain.search.results import hours_since, stalled

START = datetime(2026, 1, 1)


def trial(number: int, state: TrialState, values: list[float] | None = None, **attrs: object) -> FrozenTrial:
    done = optuna.create_trial(state=state, values=values, user_attrs=attrs)
    done.number = number
    done.datetime_complete = START + timedelta(minutes=number) if state.is_finished() else None
    return done


def points(*pairs: tuple[float, float]) -> list[FrozenTrial]:
    return [trial(n, TrialState.COMPLETE, list(pair)) for n, pair in enumerate(pairs)]


def test_a_trial_and_its_repeats_count_once() -> None:
    fail, run, done = TrialState.FAIL, TrialState.RUNNING, TrialState.COMPLETE
    trials = [
        trial(0, fail),  # vanished
        trial(1, fail, why="RuntimeError", given_back=False),
        trial(2, fail, again_of=0, why="interrupted (SIGTERM)", given_back=True),
        trial(3, done, [1.0, 1.0], again_of=2),
        trial(4, run),
        trial(5, fail, why="interrupted (SIGTERM)", given_back=True),
    ]
    assert [t.number for t in settled(trials, retries=1)] == [1, 3]
    assert [t.number for t in lost(trials, retries=1)] == [5]


@pytest.mark.parametrize(("retries", "settles"), [(0, [0]), (1, [1]), (2, [])])
def test_what_vanishes_too_often_has_failed(retries: int, settles: list[int]) -> None:
    trials = [trial(0, TrialState.FAIL), trial(1, TrialState.FAIL, again_of=0)]
    trials = trials[: retries + 1]
    assert [t.number for t in settled(trials, retries)] == settles
    assert [t.number for t in lost(trials, retries)] == ([] if settles else [1])


def test_what_is_given_back_is_repeated_without_end() -> None:
    back = {"why": "interrupted (SIGUSR1)", "given_back": True}
    trials = [trial(n, TrialState.FAIL, **back, **({"again_of": n - 1} if n else {})) for n in range(5)]
    assert [t.number for t in lost(trials, retries=0)] == [4]
    assert not settled(trials, retries=0)


def test_a_failure_without_a_reason_is_a_vanished_worker() -> None:
    assert given_back(trial(0, TrialState.FAIL)) and why(trial(0, TrialState.FAIL)) == "vanished"
    assert not given_back(trial(0, TrialState.FAIL, why="diverged"))
    assert not given_back(trial(0, TrialState.COMPLETE, [1.0, 2.0]))


# The first two fix the reference point beyond (4, 4). (2, 2) adds at least 2 x 2, (1, 3) at least (2 - 1) x (4 - 3);
# (3, 3) lies above (2, 2) and adds nothing, (1.9999, 2) some 0.0001 x 1 to more than 5: below 0.1 %.
def test_the_hypervolume_stands_still_as_computed_by_hand() -> None:
    run = points((4.0, 1.0), (1.0, 4.0), (2.0, 2.0), (1.0, 3.0), (3.0, 3.0), (1.9999, 2.0))
    assert not stalled(run[:4], startup=2, count=1)
    assert stalled(run[:5], startup=2, count=1)
    assert not stalled(run[:5], startup=2, count=2)
    assert stalled(run, startup=2, count=2)
    assert not stalled(run, startup=2, count=3)


def test_failures_count_among_those_without_growth() -> None:
    failed = [trial(number, TrialState.FAIL, why="diverged") for number in (3, 4)]
    run = [*points((4.0, 1.0), (1.0, 4.0), (2.0, 2.0)), *failed]
    assert stalled(run, startup=2, count=2)
    assert not stalled(run, startup=2, count=3)
    assert not stalled(run, startup=9, count=2)


def test_hours_are_counted_from_the_beginning() -> None:
    began = (datetime.now(UTC) - timedelta(hours=3)).isoformat(timespec="seconds")
    assert hours_since(began) == pytest.approx(3, abs=0.1)
