"""Both recurrent gradients against autograd, and what sets RTRL apart: it never looks back."""

import pytest
import torch
from experiments.recurrent_learning.methods import back_propagation_through_time, real_time_recurrent_learning
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

METHODS = [real_time_recurrent_learning, back_propagation_through_time]


def make(steps: int, units: int, inputs: int, seed: int = 0) -> tuple[tuple[Tensor, ...], Tensor]:
    """(W, U, b, x, h0) and the targets (L, n) of a loss that weighs every step differently."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((units, units), (units, inputs), (units,), (steps, inputs), (units,), (steps, units))
    *network, target = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    return tuple(network), target


def loss(t: int, h: Tensor, target: Tensor) -> Tensor:
    return (t + 1) * (h - target[t]).square().sum() + h.prod()


def slope(t: int, h: Tensor, target: Tensor) -> Tensor:
    others = torch.stack([torch.cat((h[:k], h[k + 1 :])).prod() for k in range(len(h))])
    return 2 * (t + 1) * (h - target[t]) + others


def by_autograd(network: tuple[Tensor, ...], target: Tensor) -> tuple[Tensor, ...]:
    weight, weight_in, bias = (p.clone().requires_grad_() for p in network[:3])
    x, h = network[3:]
    total = torch.zeros((), dtype=torch.float64)
    for t in range(len(x)):
        h = torch.tanh(weight @ h + weight_in @ x[t] + bias)
        total = total + loss(t, h, target)
    return torch.autograd.grad(total, (weight, weight_in, bias))


@settings(max_examples=60, deadline=None)
@given(steps=st.integers(1, 12), units=st.integers(1, 6), inputs=st.integers(1, 4), seed=st.integers(0, 2**16))
def test_both_methods_give_the_gradient_of_autograd(steps: int, units: int, inputs: int, seed: int) -> None:
    network, target = make(steps, units, inputs, seed)
    truth = by_autograd(network, target)
    for method in METHODS:
        answer = method(*network, lambda t, h: slope(t, h, target))
        for a, b in zip(answer, truth, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_the_longest_memory_counts(method: object) -> None:
    """One unit, a loss at the last of 30 steps: dh(30)/dw by the chain rule, through every step."""
    weight, state = 0.9, 0.5
    derivative = 0.0
    for _ in range(30):
        before, state = state, torch.tensor(weight * state, dtype=torch.float64).tanh().item()
        derivative = (1 - state**2) * (before + weight * derivative)
    one = torch.ones(1, dtype=torch.float64)
    arguments = (weight * one[None], one[None], 0 * one, 0 * one.expand(30, 1), 0.5 * one)
    answer = method(*arguments, lambda t, h: one if t == 29 else 0 * h)  # type: ignore[operator]
    assert answer[0].item() == pytest.approx(derivative, rel=1e-12)


def test_recurrent_learning_asks_for_the_loss_as_the_sequence_runs() -> None:
    """So a prefix's gradient is the gradient so far: nothing of it waits for the steps to come."""
    network, target = make(9, 4, 2)
    weight, weight_in, bias, x, h0 = network
    asked: list[int] = []

    def ending(t: int, h: Tensor) -> Tensor:
        asked.append(t)
        return slope(t, h, target) if t < 5 else torch.zeros_like(h)

    whole = real_time_recurrent_learning(*network, ending)
    prefix = real_time_recurrent_learning(weight, weight_in, bias, x[:5], h0, lambda t, h: slope(t, h, target))
    assert asked == list(range(9))
    assert all(torch.equal(a, b) for a, b in zip(whole, prefix, strict=True))
