"""The masked optimisers against torch's own: on the sub-tensor bit for bit, and weight by weight."""

import copy
import pickle
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from isotrain.errors import InputError
from isotrain.isolation.masking import Masked
from isotrain.isolation.optimisers import MASKED, MaskedAdam, MaskedSGD, masked

KINDS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.1}),
    "momentum": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    "nesterov": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True}),
    "dampening": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    "adagrad": (torch.optim.Adagrad, {"lr": 0.1, "initial_accumulator_value": 0.2}),
    "adagrad, decay": (torch.optim.Adagrad, {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.01}),
    "rmsprop, centered": (torch.optim.RMSprop, {"lr": 0.01, "centered": True, "momentum": 0.9}),
    "adadelta": (torch.optim.Adadelta, {"rho": 0.8}),
    "adam": (torch.optim.Adam, {"lr": 0.01, "amsgrad": True}),
    "adamw": (torch.optim.AdamW, {"lr": 0.01}),
}
SHAPE = (6, 5)


def draw(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.double)


@pytest.mark.parametrize(("kind", "foreach"), [*product(KINDS, [None, True])])
@pytest.mark.parametrize("contiguous", [True, False])
@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**16), share=st.sampled_from([0.0, 0.3, 0.7, 1.0]), rows=st.booleans(), saved=st.booleans())
def test_a_constant_set_is_torch_on_the_sub_tensor(
    kind: str, foreach: bool | None, contiguous: bool, seed: int, share: float, rows: bool, saved: bool
) -> None:
    """Bit for bit, beside a second parameter of which nothing is isolated and under a schedule of the rate."""
    base, common = KINDS[kind]
    generator = torch.Generator().manual_seed(seed)
    start, other = draw(SHAPE, generator), draw((3,), generator)
    mask = (torch.rand((6, 1) if rows else SHAPE, generator=generator) < share).expand(SHAPE)
    p = torch.nn.Parameter(start.clone() if contiguous else start.T.contiguous().T)
    ours = [p, torch.nn.Parameter(other.clone())]
    theirs = [torch.nn.Parameter(start[mask]), torch.nn.Parameter(other.clone())]

    def fresh() -> Masked:
        optimiser = masked(base)([{"params": ours[:1]}, {"params": ours[1:]}], foreach=foreach, **common)
        optimiser.set_active(p, mask)
        return optimiser

    optimisers = [fresh(), base([{"params": theirs[:1]}, {"params": theirs[1:]}], foreach=foreach, **common)]  # type: ignore[call-arg]
    schedulers = [torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.9) for optimiser in optimisers]
    for number in range(6):
        if saved and number == 3:
            state = copy.deepcopy(optimisers[0].state_dict())
            optimisers[0] = fresh()
            optimisers[0].set_active(p, None)  # type: ignore[attr-defined]
            optimisers[0].load_state_dict(state)
            schedulers[0] = copy.copy(schedulers[0])
            schedulers[0].optimizer = optimisers[0]
        g, h = draw(SHAPE, generator), draw((3,), generator)
        p.grad, theirs[0].grad = g, g[mask]
        ours[1].grad, theirs[1].grad = h.clone(), h.clone()
        for optimiser, scheduler in zip(optimisers, schedulers, strict=True):
            optimiser.step()
            scheduler.step()
    assert torch.equal(p[mask], theirs[0])
    assert torch.equal(p[~mask], start[~mask])
    assert torch.equal(ours[1], theirs[1])
    for name, value in optimisers[1].state[theirs[1]].items():
        assert torch.equal(optimisers[0].state[ours[1]][name], value), name
    if mask.any():
        for name, value in optimisers[1].state[theirs[0]].items():
            whole = optimisers[0].state[p][name]
            assert torch.equal(whole if name == "step" else whole[mask], value), name


# their step count enters nothing, so a weight among others is a weight alone
ALONE = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "rmsprop, centered", "adadelta")


@pytest.mark.parametrize(("kind", "moments"), [*product(ALONE, ["hold", "reset"])])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**16),
    plan=st.lists(st.sampled_from(["step", "step", "missing", "reload", 0.0, 0.4, 1.0]), min_size=4, max_size=20),
)
def test_a_weight_among_others_is_a_weight_alone(kind: str, moments: str, seed: int, plan: list[str | float]) -> None:
    """Each weight as torch trains it by itself: isolated = without gradient, reset = with its state thrown away."""
    base, common = KINDS[kind]
    generator = torch.Generator().manual_seed(seed)
    start = draw((3, 4), generator)
    p = torch.nn.Parameter(start.clone())
    alone = [torch.nn.Parameter(w.clone()) for w in start.flatten()]
    ours, theirs = masked(base)([p], moments=moments, **common), base(alone, foreach=False, **common)  # type: ignore[call-arg]
    active = torch.ones(12, dtype=torch.bool)
    for order in plan:
        if order == "reload":
            state, ours = ours.state_dict(), masked(base)([p], moments=moments, **common)
            ours.load_state_dict(state)
        elif isinstance(order, str):
            g = draw((3, 4), generator)
            p.grad = None if order == "missing" else g
            for w, each, is_active in zip(alone, g.flatten(), active.tolist(), strict=True):
                w.grad = each.clone() if is_active and order == "step" else None
            ours.step()
            theirs.step()
        else:
            before, active = active, torch.rand(12, generator=generator) < order
            ours.set_active(p, active.reshape(3, 4))
            if moments == "reset":
                for w, gone in zip(alone, (before & ~active).tolist(), strict=True):
                    if gone:
                        theirs.state.pop(w, None)
    expected = [w.item() for w in alone]
    np.testing.assert_allclose(p.detach().flatten().numpy(), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("moments", ["hold", "reset"])
def test_none_active_changes_no_bit(kind: str, moments: str) -> None:
    """Alone in its group and in the optimiser, before its first step and after; the step count too."""
    base, common = KINDS[kind]
    p = torch.nn.Parameter(torch.ones(3))
    optimiser = masked(base)([p], moments=moments, **common)
    for _ in range(2):
        p.grad = torch.ones(3)
        optimiser.set_active(p, torch.tensor(False))
        before = p.detach().clone(), copy.deepcopy(optimiser.state_dict()["state"])
        optimiser.step()
        assert torch.equal(p, before[0])
        after = optimiser.state_dict()["state"]
        assert after[0].keys() == before[1][0].keys()
        assert all(torch.equal(after[0][name], value) for name, value in before[1][0].items())
        optimiser.set_active(p, None)
        optimiser.step()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_go_on_alike(kind: str, duplicate: Callable[[Any], Any]) -> None:
    base, common = KINDS[kind]
    p = torch.nn.Parameter(torch.arange(4.0))
    optimiser = masked(base)([p], moments="reset", **common)
    optimiser.set_active(p, torch.tensor([True, True, False, False]))
    p.grad = torch.ones(4)
    optimiser.step()
    twin, q = duplicate((optimiser, p))
    for each, weight in ((optimiser, p), (twin, q)):
        weight.grad = torch.full((4,), 2.0)  # a copy of a parameter has none
        each.step()
        each.set_active(weight, torch.tensor([True, False, True, False]))
        each.step()
    assert torch.equal(p, q)
    assert not torch.equal(p, torch.arange(4.0))


class First(torch.optim.Optimizer):
    """An optimiser that counts on each group having a parameter, and keeps a scalar and an entry a weight."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            assert group["params"][0].grad is not None
            for p in group["params"]:
                state = self.state[p]
                state["step"] = state.get("step", 0) + 1
                state["total"] = state.get("total", 0) + p.grad
                p.sub_(group["lr"] * state["total"])


class MaskedFirst(Masked, First):
    pass


def test_any_optimiser_can_be_masked() -> None:
    """The first gradients are 1, 2; the group that is left empty is not shown to the optimiser."""
    p, q = torch.nn.Parameter(torch.zeros(2, 1)), torch.nn.Parameter(torch.zeros(1))
    optimiser = MaskedFirst([{"params": [p]}, {"params": [q]}], lr=1.0)
    optimiser.set_active(q, torch.tensor(False))
    optimiser.set_active(p, torch.tensor([[True], [False]]))
    p.grad, q.grad = torch.tensor([[1.0], [2.0]]), torch.ones(1)
    optimiser.step()
    optimiser.set_active(p, None)
    optimiser.step()
    assert p.tolist() == [[-3.0], [-2.0]]
    assert q.tolist() == [0.0]
    assert optimiser.state[p]["step"] == 2
    assert optimiser.state[p]["total"].tolist() == [[2.0], [2.0]]


def test_dampening_of_a_weight_that_comes_late() -> None:
    """torch dampens every gradient but the parameter's first; a weight thawed later begins from a buffer of zero."""
    p = torch.nn.Parameter(torch.zeros(2))
    optimiser = MaskedSGD([p], lr=1.0, momentum=0.5, dampening=0.75)
    optimiser.set_active(p, torch.tensor([True, False]))
    p.grad = torch.ones(2)
    optimiser.step()
    optimiser.set_active(p, None)
    optimiser.step()
    assert p.tolist() == [-1.75, -0.25]


def test_hooks_and_closure_run_once() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    torch.optim.SGD([torch.nn.Parameter(torch.ones(1))])  # patches SGD.step, which must not run the hooks again
    optimiser = MaskedSGD([p], lr=0.5)
    optimiser.set_active(p, torch.tensor([True, False, True]))
    calls = []
    optimiser.register_step_pre_hook(lambda *_: calls.append("before"))
    optimiser.register_step_post_hook(lambda *_: calls.append("after"))

    def closure() -> float:
        loss = (p**2).sum()
        loss.backward()
        calls.append("closure")
        return loss.item()

    assert optimiser.step(closure) == 3.0
    assert calls == ["before", "closure", "after"]
    assert p.tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_overflowed_is_left_out(fused: bool) -> None:
    p = torch.nn.Parameter(torch.ones(3))
    optimiser = MaskedSGD([p], lr=0.5, fused=fused)
    optimiser.set_active(p, torch.tensor([True, False, True]))
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=100)
    for factor, expected in ((1.0, [0.5, 1.0, 0.5]), (float("inf"), [0.5, 1.0, 0.5])):
        optimiser.zero_grad()
        scaler.scale((p * factor).sum()).backward()
        scaler.step(optimiser)
        scaler.update()
        assert p.tolist() == expected
    assert scaler.get_scale() == 2.0


def test_a_step_that_fails_leaves_the_optimiser_as_it_was() -> None:
    p, table = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(4, 2))
    optimiser = MaskedAdam([p, table])
    optimiser.set_active(p, torch.tensor([True, False, True]))
    p.grad = torch.ones(3)
    table.grad = torch.sparse_coo_tensor([[1]], torch.ones(1, 2), (4, 2), check_invariants=True)
    with pytest.raises(RuntimeError, match="sparse"):
        optimiser.step()
    assert optimiser.param_groups[0]["params"][0] is p
    assert set(optimiser.state_dict()["state"]) <= {0, 1}
    optimiser.set_active(table, torch.zeros(2, dtype=torch.bool) < torch.tensor([True, False]))
    with pytest.raises(InputError, match=r"shape \(4, 2\) has a sparse gradient and isolated weights; build its emb"):
        optimiser.step()
    table.grad = None
    optimiser.step()
    assert optimiser.state[p]["step"] == 1


def test_registry() -> None:
    assert list(MASKED) == ["sgd", "adagrad", "rmsprop", "adadelta", "adam", "adamw"]
    for kind in MASKED.values():
        assert pickle.loads(pickle.dumps(kind)) is kind
    assert issubclass(masked(torch.optim.SGD), torch.optim.SGD)
    with pytest.raises(InputError, match=r"LBFGS has no masked form; choose one of SGD, .* write class MaskedLBFGS"):
        masked(torch.optim.LBFGS)
    with pytest.raises(InputError, match=r"MaskedSGD: moments='decay' is unknown: choose one of hold, reset"):
        MaskedSGD([torch.nn.Parameter(torch.ones(1))], moments="decay")
    with pytest.raises(InputError, match="differentiable=True cannot be masked"):
        MaskedSGD([torch.nn.Parameter(torch.ones(1))], differentiable=True)
