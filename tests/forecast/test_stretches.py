"""Which hours are run and which are forecast."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isotrain.forecast.stretches import Sampler, cover


def sampler(regime: str, seed: int = 0) -> Sampler:
    return Sampler(regime, [(400, 2000)], history=48, stretch=100, count=5, origins=7, seed=seed)


@pytest.mark.parametrize("regime", ["streamed", "windowed"])
def test_a_step_is_a_function_of_seed_and_number(regime: str) -> None:
    once, again = sampler(regime)(3), sampler(regime)(3)
    assert torch.equal(once.origins, again.origins)
    assert not torch.equal(once.origins, sampler(regime)(4).origins)
    assert not torch.equal(once.origins, sampler(regime, seed=1)(3).origins)


@given(step=st.integers(0, 10_000), regime=st.sampled_from(["streamed", "windowed"]))
def test_origins_lie_in_the_part_and_after_the_warm_up(step: int, regime: str) -> None:
    at = sampler(regime)(step)
    assert (at.origins >= 400).all() and (at.origins < 2000).all()
    assert (at.offset >= 48).all() and (at.offset <= at.length).all()
    assert (at.start >= 352).all()
    assert at.hours.shape == (5, at.length)


def test_both_ends_of_the_part_are_drawn() -> None:
    drawn = torch.cat([sampler("windowed")(step).origins.flatten() for step in range(4000)])
    assert drawn.min() == 400 and drawn.max() == 1999


@given(
    n=st.integers(1, 700),
    stride=st.sampled_from([1, 3, 7, 24, 500]),
    regime=st.sampled_from(["streamed", "windowed"]),
)
def test_evaluation_answers_every_origin_once(n: int, stride: int, regime: str) -> None:
    origins = 500 + stride * torch.arange(n)
    answered = torch.zeros(n, dtype=torch.int)
    for at, position in cover(origins, regime, history=48, batch_hours=3000):
        real = position >= 0
        assert torch.equal(at.origins[real], origins[position[real]])
        assert (at.offset >= 48).all()
        assert at.length * len(at.start) <= max(3000, at.length)
        answered[position[real]] += 1
    assert (answered == 1).all()
