"""Every setting of MaskedAdam against the formulas in NumPy float64, and its new policies by hand."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.isolation.oracle import Oracle

from isotrain.isolation.optimisers import MaskedAdam
from isotrain.isolation.settings import CORRECTIONS, MOMENTS, VARIANTS

SHAPE = (4, 6)
ADAM: dict[str, Any] = {"lr": 1e-2, "betas": (0.8, 0.95), "eps": 1e-3}
STATE = {"exp_avg": "m", "exp_avg_sq": "v", "max_exp_avg_sq": "top", "updates": "n", "step": "t"}


@pytest.mark.parametrize(("moments", "correction", "variant"), [*product(MOMENTS, CORRECTIONS, VARIANTS)])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**16),
    weight_decay=st.sampled_from([0.0, 0.1]),
    decoupled=st.booleans(),
    amsgrad=st.booleans(),
    maximize=st.booleans(),
    # a number: the share of weights that is active from now on
    plan=st.lists(st.sampled_from(["step", "step", "missing", "reload", 0.0, 0.3, 0.7, 1.0]), min_size=4, max_size=30),
)
def test_formulas(
    moments: str,
    correction: str,
    variant: str,
    seed: int,
    weight_decay: float,
    decoupled: bool,
    amsgrad: bool,
    maximize: bool,
    plan: list[str | float],
) -> None:
    """To a relative 1e-12, over any sequence of isolating, thawing, steps with and without gradient, and resuming."""
    random = np.random.default_rng(seed)
    rule: dict[str, Any] = {"moments": moments, "correction": correction, "variant": variant}
    rule |= {"weight_decay": weight_decay, "decoupled_weight_decay": decoupled}
    rule |= {"amsgrad": amsgrad, "maximize": maximize}
    oracle = Oracle(random.normal(size=SHAPE), **rule)
    p = torch.nn.Parameter(torch.tensor(oracle.w))
    optimiser = MaskedAdam([p], **ADAM, **rule)
    for order in plan:
        if order == "reload":
            saved, optimiser = optimiser.state_dict(), MaskedAdam([p], **ADAM, **rule)
            optimiser.load_state_dict(saved)
        elif isinstance(order, str):
            g = random.normal(size=SHAPE) if order == "step" else None
            p.grad = None if g is None else torch.tensor(g)
            optimiser.step()
            oracle.step(g, **ADAM)
        else:
            active = random.random((4, 1) if random.random() < 0.3 else SHAPE) < order
            optimiser.set_active(p, torch.tensor(active))
            oracle.set_active(np.broadcast_to(active, SHAPE))
    np.testing.assert_allclose(p.detach().numpy(), oracle.w, rtol=1e-12, atol=1e-15)
    for name, value in optimiser.state[p].items():
        if name != "active":
            np.testing.assert_allclose(value.numpy(), getattr(oracle, STATE[name]), rtol=1e-12, atol=1e-15)


def one(start: float = 0.0, **rule: Any) -> tuple[torch.nn.Parameter, MaskedAdam]:
    p = torch.nn.Parameter(torch.full((1,), start, dtype=torch.double))
    return p, MaskedAdam([p], lr=0.1, betas=(0.9, 0.99), eps=0.05, **rule)


def move(p: torch.nn.Parameter, optimiser: MaskedAdam, gradient: float | None) -> float:
    before = p.item()
    p.grad = None if gradient is None else torch.full_like(p, gradient)
    optimiser.step()
    return p.item() - before


@pytest.mark.parametrize("variant", ["lazy", "tf15"])
def test_epsilon_of_tensorflow_by_hand(variant: str) -> None:
    """One step from zero moments with g = 1: w moves by lr sqrt(1 - b2) / (sqrt(1 - b2) + eps)."""
    assert move(*one(variant=variant), 1.0) == pytest.approx(-0.1 * 0.1 / (0.1 + 0.05), rel=1e-14)


def test_an_absent_index_of_tensorflow_goes_on_moving() -> None:
    """After a step with g = 1: m = 0.1 x 0.9, v = 0.01 x 0.99, t = 2, whether there is a gradient or none."""
    expected = -0.1 * (1 - 0.99**2) ** 0.5 / (1 - 0.9**2) * 0.09 / (0.0099**0.5 + 0.05)
    for gradient in (5.0, None):
        p, optimiser = one(variant="tf15", moments="decay", weight_decay=0.1, decoupled_weight_decay=True)
        move(p, optimiser, 1.0)
        optimiser.set_active(p, torch.tensor(False))
        assert move(p, optimiser, gradient) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("moments", MOMENTS)
def test_lazy_adam_counts_the_steps_that_it_sits_out(moments: str) -> None:
    p, optimiser = one(variant="lazy", moments=moments)
    move(p, optimiser, 1.0)
    optimiser.set_active(p, torch.tensor(False))
    assert [move(p, optimiser, gradient) for gradient in (1.0, None, 1.0)] == [0.0, 0.0, 0.0]
    assert optimiser.state[p]["step"] == 4


@pytest.mark.parametrize(("correction", "expected"), [("global", (1 - 0.9) / (1 - 0.999) ** 0.5), ("per_weight", 1.0)])
def test_the_first_step_after_a_thaw_from_zero(correction: str, expected: float) -> None:
    """In units of the rate, t being large: 3.2 if t is the parameter's, 1 if it is the weight's own."""
    p = torch.nn.Parameter(torch.zeros(2, dtype=torch.double))
    optimiser = MaskedAdam([p], lr=1.0, eps=0.0, moments="reset", correction=correction)
    optimiser.set_active(p, torch.tensor([True, False]))
    p.grad = torch.ones_like(p)
    optimiser.step()
    optimiser.state[p]["step"].fill_(20_000)
    optimiser.set_active(p, None)
    optimiser.step()
    assert -p[1].item() == pytest.approx(expected, rel=1e-8)


def test_mean_by_hand() -> None:
    """Weights 2 and 3 come back with the mean of weights 0 and 1; weight 2 had m, v and a count of its own."""
    p = torch.nn.Parameter(torch.zeros(4, dtype=torch.double))
    optimiser = MaskedAdam([p], betas=(0.5, 0.75), moments="mean", correction="per_weight", amsgrad=True)
    optimiser.set_active(p, torch.tensor([True, True, True, False]))
    p.grad = torch.tensor([2.0, 4.0, 6.0, 8.0], dtype=torch.double)
    optimiser.step()
    optimiser.set_active(p, torch.tensor([True, True, False, False]))
    optimiser.step()
    held = optimiser.state[p]["exp_avg"][2].item()
    assert held == 3.0
    optimiser.set_active(p, None)
    state = optimiser.state[p]
    assert state["exp_avg"].tolist() == [1.5, 3.0, 2.25, 2.25]
    squares = [4 * 0.4375, 16 * 0.4375, 10 * 0.4375, 10 * 0.4375]
    assert state["exp_avg_sq"].tolist() == squares
    assert state["max_exp_avg_sq"].tolist() == squares
    assert state["updates"].tolist() == [2, 2, 2, 2]


def test_mean_holds_where_there_is_nothing_to_take_the_mean_of() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    optimiser = MaskedAdam([p], moments="mean")
    p.grad = torch.tensor([1.0, 2.0, 3.0])
    optimiser.step()
    before = optimiser.state[p]["exp_avg"].clone()
    optimiser.set_active(p, torch.tensor(False))
    optimiser.set_active(p, None)
    assert torch.equal(optimiser.state[p]["exp_avg"], before)


def test_a_missing_gradient_leaves_the_active_weights_of_a_parameter_as_they_are() -> None:
    """Only its isolated weights decay."""
    p = torch.nn.Parameter(torch.ones(2, dtype=torch.double))
    optimiser = MaskedAdam([p], betas=(0.5, 0.75), moments="decay")
    p.grad = torch.full_like(p, 4.0)
    optimiser.step()
    optimiser.set_active(p, torch.tensor([True, False]))
    p.grad = None
    before = p.detach().clone()
    optimiser.step()
    assert torch.equal(p, before)
    assert optimiser.state[p]["exp_avg"].tolist() == [2.0, 1.0]
    assert optimiser.state[p]["exp_avg_sq"].tolist() == [4.0, 3.0]
    assert optimiser.state[p]["step"] == 1
