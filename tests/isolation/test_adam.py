"""MaskedAdam against torch.optim.Adam, bit for bit. Its formulas: test_adam_oracle.py."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from isotrain.errors import InputError
from isotrain.isolation.optimisers import MaskedAdam, MaskedAdamW
from isotrain.isolation.settings import CORRECTIONS, MOMENTS, VARIANTS

SHAPES = ((8, 5), (8,), (3, 2, 4))
COMMON = {"lr": 1e-2, "betas": (0.8, 0.95)}


def parameters(dtype: torch.dtype = torch.float32, seed: int = 0) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in SHAPES]


def gradients(steps: int, dtype: torch.dtype = torch.float32, seed: int = 1) -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(shape, generator=generator, dtype=dtype) for shape in SHAPES] for _ in range(steps)]


def run(optimiser: torch.optim.Optimizer, weights: list[Tensor], grads: list[list[Tensor]]) -> None:
    for row in grads:
        for p, g in zip(weights, row, strict=True):
            p.grad = g.clone()
        optimiser.step()


def assert_same_state(a: torch.optim.Optimizer, b: torch.optim.Optimizer) -> None:
    left, right = a.state_dict()["state"], b.state_dict()["state"]
    assert left.keys() == right.keys()
    for key in left:
        assert left[key].keys() == right[key].keys()
        for name in left[key]:
            assert torch.equal(left[key][name], right[key][name]), name
            assert left[key][name].dtype == right[key][name].dtype, name


def random_mask(shape: tuple[int, ...], seed: int = 2) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5


# 1. All active ------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    steps=st.integers(1, 6),
    weight_decay=st.sampled_from([0.0, 0.1]),
    amsgrad=st.booleans(),
    maximize=st.booleans(),
    decoupled=st.booleans(),
    implementation=st.sampled_from([{}, {"foreach": True}, {"foreach": False}, {"fused": True}]),
    moments=st.sampled_from(MOMENTS),
    correction=st.sampled_from(["global", "per_weight"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    once_masked=st.booleans(),
)
def test_all_active_is_torch_adam(
    seed: int,
    steps: int,
    weight_decay: float,
    amsgrad: bool,
    maximize: bool,
    decoupled: bool,
    implementation: dict[str, bool],
    moments: str,
    correction: str,
    dtype: torch.dtype,
    once_masked: bool,
) -> None:
    """Two groups of their own rates, an LR scheduler, a mask that came and went before the first step."""
    keywords: dict[str, Any] = {
        "betas": (0.8, 0.95),
        "weight_decay": weight_decay,
        "amsgrad": amsgrad,
        "maximize": maximize,
        "decoupled_weight_decay": decoupled,
        **implementation,
    }
    weights, optimisers = [], []
    for kind, extra in ((torch.optim.Adam, {}), (MaskedAdam, {"moments": moments, "correction": correction})):
        mine = parameters(dtype, seed)
        groups = [{"params": mine[:1], "lr": 1e-2}, {"params": mine[1:], "lr": 1e-3}]
        optimiser = kind(groups, **keywords, **extra)
        if once_masked and kind is MaskedAdam:
            optimiser.set_active(mine[0], random_mask(SHAPES[0]))  # type: ignore[attr-defined]
            optimiser.set_active(mine[0], None)  # type: ignore[attr-defined]
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.9)
        for row in gradients(steps, dtype, seed + 1):
            run(optimiser, mine, [row])
            scheduler.step()
        weights.append(mine)
        optimisers.append(optimiser)
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    assert_same_state(*optimisers)


def test_all_active_is_torch_adamw() -> None:
    results = []
    for kind in (torch.optim.AdamW, MaskedAdamW):
        weights = parameters()
        run(kind(weights, lr=1e-2), weights, gradients(5))
        results.append(weights)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_hooks_run_once_and_the_closure_sees_gradients() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    torch.optim.Adam([torch.nn.Parameter(torch.ones(1))])  # patches Adam.step, which must not run the hooks again
    optimiser = MaskedAdam([p])
    calls = []
    optimiser.register_step_post_hook(lambda *_: calls.append("after"))

    def closure() -> float:
        loss = (p**2).sum()
        loss.backward()
        calls.append("closure")
        return loss.item()

    assert optimiser.step(closure) == 3.0
    assert calls == ["closure", "after"]


# 2. None active -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("moments", MOMENTS)
@pytest.mark.parametrize("amsgrad", [False, True])
def test_none_active_changes_no_bit(
    decoupled: bool, variant: str, correction: str, moments: str, amsgrad: bool
) -> None:
    """Weights never move, but for TensorFlow's sparse apply; torch's state does not either, unless told to decay."""
    weights = parameters()
    optimiser = MaskedAdam(
        weights,
        **COMMON,
        weight_decay=0.1,
        decoupled_weight_decay=decoupled,
        variant=variant,
        correction=correction,
        moments=moments,
        amsgrad=amsgrad,
    )
    run(optimiser, weights, gradients(3))
    for p in weights:
        optimiser.set_active(p, torch.tensor(False))
    before = [p.detach().clone() for p in weights], copy.deepcopy(optimiser)
    run(optimiser, weights, gradients(3, seed=9))
    moves = variant == "tf15" and moments == "decay"
    assert all(torch.equal(p, q) != moves for p, q in zip(weights, before[0], strict=True))
    if moments != "decay" and variant == "torch":
        assert_same_state(optimiser, before[1])  # the step count too: as if the gradient had been None


@pytest.mark.parametrize("moments", MOMENTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_isolating_all_of_a_parameter_equals_not_computing_its_gradient(moments: str, variant: str) -> None:
    results = []
    for drop_gradient in (False, True):
        weights = parameters()
        optimiser = MaskedAdam(weights, **COMMON, moments=moments, variant=variant)
        run(optimiser, weights, gradients(2))
        optimiser.set_active(weights[0], torch.tensor(False))
        for row in gradients(3, seed=5):
            for p, g in zip(weights, row, strict=True):
                p.grad = None if drop_gradient and p is weights[0] else g.clone()
            optimiser.step()
        optimiser.set_active(weights[0], None)
        run(optimiser, weights, gradients(2, seed=6))
        results.append((weights, optimiser))
    assert all(torch.equal(a, b) for a, b in zip(results[0][0], results[1][0], strict=True))
    assert_same_state(results[0][1], results[1][1])


# 3. Some active -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("implementation", [{}, {"foreach": True}, {"fused": True}])
@pytest.mark.parametrize("extra", [{}, {"amsgrad": True}, {"weight_decay": 0.1}])
@pytest.mark.parametrize("whole_rows", [False, True])
@pytest.mark.parametrize("contiguous", [True, False])
def test_some_active_is_torch_adam_on_the_sub_tensor(
    dtype: torch.dtype,
    implementation: dict[str, bool],
    extra: dict[str, Any],
    whole_rows: bool,
    contiguous: bool,
) -> None:
    start = torch.randn((33, 17), dtype=dtype, generator=torch.Generator().manual_seed(0))
    mask = random_mask((33, 1)) if whole_rows else random_mask((33, 17))
    p = torch.nn.Parameter(start.clone() if contiguous else start.T.contiguous().T)
    sub = torch.nn.Parameter(start[mask.expand_as(start)])
    assert p.is_contiguous() == contiguous
    masked = MaskedAdam([p], **COMMON, **extra, **implementation)
    alone = torch.optim.Adam([sub], **COMMON, **extra, **implementation)
    masked.set_active(p, mask)
    wide = mask.expand_as(start)
    generator = torch.Generator().manual_seed(3)
    for _ in range(5):
        g = torch.randn((33, 17), dtype=dtype, generator=generator)
        p.grad, sub.grad = g.clone(), g[wide]
        masked.step()
        alone.step()
    assert torch.equal(p[wide], sub)
    assert torch.equal(p[~wide], start[~wide])
    for name in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(masked.state[p][name][wide], alone.state[sub][name])
        assert not masked.state[p][name][~wide].any()


# Saving, copying, errors --------------------------------------------------------------------------------


def through_file(saved: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_dict_round_trip(dtype: torch.dtype) -> None:
    keywords: dict[str, Any] = {**COMMON, "correction": "per_weight", "moments": "decay", "weight_decay": 0.1}
    weights = parameters(dtype)
    optimiser = MaskedAdam(weights, **keywords)
    optimiser.set_active(weights[2], random_mask(SHAPES[2]))  # before the first step: there is no state yet
    early = through_file(optimiser.state_dict())
    run(optimiser, weights, gradients(3, dtype))
    optimiser.set_active(weights[0], random_mask(SHAPES[0]))
    run(optimiser, weights, gradients(3, dtype))

    twins = [torch.nn.Parameter(p.detach().clone()) for p in weights]
    twin = MaskedAdam(twins, **keywords)
    twin.load_state_dict(early)
    assert torch.equal(twin.active(twins[2]), optimiser.active(weights[2]))
    twin.load_state_dict(through_file(optimiser.state_dict()))
    assert_same_state(optimiser, twin)
    run(optimiser, weights, gradients(3, dtype, seed=7))
    run(twin, twins, gradients(3, dtype, seed=7))
    assert all(torch.equal(a, b) for a, b in zip(weights, twins, strict=True))
    assert_same_state(optimiser, twin)


def test_state_dict_goes_to_torch_adam_and_back() -> None:
    """A mask that is still there is taken out by hand, and the two go on alike."""
    weights = parameters()
    ours = MaskedAdam(weights, **COMMON)
    ours.set_active(weights[0], random_mask(SHAPES[0]))
    run(ours, weights, gradients(2))
    saved = through_file(ours.state_dict())
    del saved["state"][0]["active"]
    theirs = torch.optim.Adam([torch.nn.Parameter(p.detach().clone()) for p in weights], **COMMON)
    theirs.load_state_dict(saved)
    assert_same_state(theirs, torch_state_of(ours))
    back = MaskedAdam([torch.nn.Parameter(p.detach().clone()) for p in weights], **COMMON)
    back.set_active(back.param_groups[0]["params"][0], random_mask(SHAPES[0]))
    back.load_state_dict(through_file(theirs.state_dict()))
    for optimiser in (theirs, back):
        run(optimiser, optimiser.param_groups[0]["params"], gradients(2, seed=5))
    pairs = zip(theirs.param_groups[0]["params"], back.param_groups[0]["params"], strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert_same_state(theirs, back)


def torch_state_of(optimiser: MaskedAdam) -> MaskedAdam:
    twin = copy.deepcopy(optimiser)
    for p in twin.param_groups[0]["params"]:
        twin.set_active(p, None)
    return twin


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_go_on_alike(duplicate: Callable[[Any], Any]) -> None:
    weights = parameters()
    optimiser = MaskedAdam(weights, **COMMON, correction="per_weight", variant="tf15", moments="reset")
    run(optimiser, weights, gradients(2))
    optimiser.set_active(weights[1], random_mask(SHAPES[1]))
    twins, twin = duplicate((weights, optimiser))
    run(optimiser, weights, gradients(3, seed=4))
    run(twin, twins, gradients(3, seed=4))
    assert all(torch.equal(a, b) for a, b in zip(weights, twins, strict=True))
    assert_same_state(optimiser, twin)


def test_the_mask_is_copied_and_answers_in_full_shape() -> None:
    (p, *_) = weights = parameters()
    optimiser = MaskedAdam(weights)
    mask = torch.zeros((8, 1), dtype=torch.bool)
    optimiser.set_active(p, mask)
    mask.fill_(True)
    assert optimiser.active(p).shape == p.shape
    assert not optimiser.active(p).any()
    optimiser.set_active(p, None)
    assert optimiser.active(p).all()


def test_bad_use_is_refused_by_name() -> None:
    weights = parameters()
    optimiser = MaskedAdam(weights)
    with pytest.raises(InputError, match=r"shape \(2,\) is not in this optimiser"):
        optimiser.set_active(torch.nn.Parameter(torch.zeros(2)), None)
    with pytest.raises(InputError, match=r"torch.int64; give a boolean"):
        optimiser.set_active(weights[0], torch.ones(SHAPES[0], dtype=torch.int64))
    with pytest.raises(InputError, match=r"shape \(3,\) does not broadcast to a parameter of shape \(8, 5\)"):
        optimiser.set_active(weights[0], torch.ones(3, dtype=torch.bool))
    for name in ("moments", "correction", "variant"):
        with pytest.raises(InputError, match=f"{name}='no' is unknown: choose one of"):
            MaskedAdam(weights, **{name: "no"})  # type: ignore[arg-type]
