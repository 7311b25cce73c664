"""Seconds of a training from those of some of its steps: exact where costs follow the model, few steps timed."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrain.search.cost import LENGTH, MOST, WARM_UP, QuietCost, Step, StepCost
from isotrain.training.machine import Stopwatch

costs = st.floats(1e-3, 1.0)


KINDS = st.sampled_from(["other", "check", "after"])


@given(st.lists(st.tuples(KINDS, st.sampled_from([0.0, 0.5])), min_size=1), costs)
def test_it_is_exact_where_each_kind_has_one_cost_at_a_share(steps: list[tuple[str, float]], unit: float) -> None:
    def cost(kind: str, share: float) -> float:
        return unit * {"other": 1.0, "check": 3.0, "after": 2.0}[kind] * (1 - share)

    timed = [Step(kind, share, cost(kind, share)) for kind, share in dict.fromkeys(steps)]
    rest = [Step(kind, share, None) for kind, share in steps]
    estimate = StepCost([*rest, *timed]).total()
    assert estimate == pytest.approx(sum(cost(step.kind, step.share) for step in [*rest, *timed]))


def test_a_step_is_worth_those_of_its_kind_at_the_nearest_share() -> None:
    steps = [Step("other", 0.0, 4.0), Step("other", 0.5, 2.0), Step("other", 0.4, None), Step("other", 0.1, None)]
    assert StepCost(steps).total() == 4 + 2 + 2 + 4
    assert StepCost(steps).total(3) == 4 + 2 + 2
    assert StepCost([Step("other", 0.0, None)]).total() is None


def test_one_disturbed_step_among_ordinary_ones_does_not_count() -> None:
    steps = [Step("other", 0.0, seconds) for seconds in (*[1.0] * 7, 50.0)]
    assert StepCost(steps).total() == 8.0


class Isolator:
    """An isolator that checks every ``every`` steps and raises its share, as the clock of a training sees it."""

    def __init__(self, every: int, until: int) -> None:
        self.every, self.until = every, until
        self.checks, self.choices = 0, 0

    def step(self, number: int) -> None:
        if self.every and number % self.every == 0:
            self.checks += 1
            self.choices += self.checks <= self.until

    def share(self) -> float:
        return min(0.1 * self.choices, 0.9)


class CountingLock:
    """A lock that no other process holds: it counts its gates and its quiet moments."""

    def __init__(self) -> None:
        self.gates, self.moments, self.is_quiet = 0, 0, False

    def gate(self) -> None:
        assert not self.is_quiet
        self.gates += 1

    def quiet(self) -> "CountingLock":
        return self

    def __enter__(self) -> None:
        assert not self.is_quiet
        self.moments, self.is_quiet = self.moments + 1, True

    def __exit__(self, *_: object) -> None:
        self.is_quiet = False


@given(st.integers(1, 400), st.sampled_from([0, 1, 7, 20, 500]), st.integers(0, 30), st.integers(1, 60))
def test_every_part_of_a_training_has_its_moment_and_there_are_few(
    steps: int, every: int, until: int, validate_every: int
) -> None:
    isolator, lock = Isolator(every, until), CountingLock()
    clock = SimpleNamespace(watch=Stopwatch(), share=isolator.share, selection=lambda: float(isolator.checks))
    cost = QuietCost(lock, clock, every, lambda: isolator.choices)  # type: ignore[arg-type]
    trainer = SimpleNamespace(max_steps=steps)
    for number in range(steps):
        cost.on_train_batch_start(trainer)  # type: ignore[arg-type]
        isolator.step(number)
        if number % validate_every == validate_every - 1:
            cost.on_validation_start()
            assert not lock.is_quiet  # others work while we validate
            clock.watch.resume()
    cost.on_train_end()
    assert not lock.is_quiet
    assert len(cost.cost.steps) == steps
    timed = [number for number, step in enumerate(cost.cost.steps) if step.seconds is not None]
    assert lock.moments <= MOST and len(timed) <= MOST * LENGTH
    assert all(number >= WARM_UP for number in timed)
    assert (steps > WARM_UP) == bool(timed)
    kinds = [step.kind for step in cost.cost.steps]
    if every > 1:
        assert [number for number, kind in enumerate(kinds) if kind in ("check", "choice")] == list(
            range(0, steps, every)
        )
    for part in range(3):
        if steps >= 60:
            assert any(part * steps / 3 <= number < (part + 1) * steps / 3 for number in timed)
