"""What is solved is put back exactly, and what is fitted changes nothing else."""

import pytest
import torch

from isotrain.adapt.candidates import CANDIDATES, Design, Ground, bias_and_scale, design, put_back, solved, trained
from isotrain.forecast.network import Forecaster


def origins_of(ground: Ground) -> torch.Tensor:
    return torch.arange(ground.memory.first, ground.memory.last, 5)


def test_the_network_forecasts_what_was_solved(ground: Ground) -> None:
    origins = origins_of(ground)
    made = design(ground, origins)
    b = 0.1 * torch.randn(made.x.shape[1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    before, after = ground.errors({}, origins), ground.errors(put_back(ground, b), origins)
    known = ~before.isnan()
    torch.testing.assert_close(made.y, before[known], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(after[known], made.y - made.x @ b.float(), rtol=1e-4, atol=1e-4)


def test_the_design_is_the_same_without_memory(ground: Ground) -> None:
    origins = origins_of(ground)
    remembered = design(ground, origins)
    with ground.thawed_encoder():
        run = design(ground, origins)
    torch.testing.assert_close(
        remembered.x, run.x, rtol=1e-3, atol=1e-3
    )  # the strided stretches warm up longer or shorter


def test_a_correction_that_is_there_is_found_despite_outliers(ground: Ground) -> None:
    first, last = ground.memory.first, ground.memory.last
    made = ground.design(first, last)
    b = torch.zeros(made.x.shape[1], dtype=torch.float64)
    b[[2, 7, 9, -3]] = torch.tensor([0.3, -0.2, 0.1, 0.05], dtype=torch.float64)
    y = (made.x.double() @ b).float()
    y[::50] += 5.0  # a squared error would follow these
    ground._designs[first, last] = Design(made.x, y, made.step)
    weights = solved(ground, [(first, last)], narrow=False, refit=1e-3)(1e-3)
    wanted = put_back(ground, b)
    change = [torch.cat([(of[name] - ground.parent[name]).flatten() for name in wanted]) for of in (weights, wanted)]
    assert float((change[0] - change[1]).norm()) < 0.1 * float(change[1].norm())


def test_bias_and_scale_say_what_they_mean(ground: Ground) -> None:
    basis = bias_and_scale(ground).double()
    twice = put_back(ground, basis @ torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(twice["decoder.out.weight"], 2 * ground.parent["decoder.out.weight"])
    torch.testing.assert_close(twice["decoder.out.bias"], 2 * ground.parent["decoder.out.bias"])
    assert torch.equal(twice["skip.of_lags"], ground.parent["skip.of_lags"])
    moved = put_back(ground, basis @ torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    assert torch.equal(moved["decoder.out.weight"], ground.parent["decoder.out.weight"])
    torch.testing.assert_close(moved["decoder.out.bias"], ground.parent["decoder.out.bias"] + 1)
    skip = put_back(ground, basis @ torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(skip["skip.of_lags"], 2 * ground.parent["skip.of_lags"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("narrow", [True, False])
def test_the_stronger_the_ridge_the_nearer_the_parent(ground: Ground, narrow: bool) -> None:
    path = solved(ground, [(ground.memory.first, ground.memory.last)], narrow)
    moved = [
        sum(float((value - ground.parent[name]).norm()) for name, value in path(strength).items())
        for strength in (1e-2, 1e2, 1e4, 1e6, 1e12)
    ]
    assert moved == sorted(moved, reverse=True)
    assert moved[-1] < 1e-4 * moved[0]


@pytest.mark.parametrize("name", list(CANDIDATES))
def test_fitting_changes_neither_the_parent_nor_the_ground(ground: Ground, net: Forecaster, name: str) -> None:
    kept = {key: value.clone() for key, value in ground.parent.items()}
    parts = [(ground.memory.first, ground.memory.last)]
    path = CANDIDATES[name].fit(ground, parts, None)
    changed = path([*CANDIDATES[name].strengths][-1])
    ground.errors(changed, origins_of(ground)[:10])
    for key, value in ground.parent.items():
        assert torch.equal(value, kept[key]), key
    state = net.state_dict()
    assert all(torch.equal(value, kept[key]) for key, value in state.items())
    moved = {key for key, value in changed.items() if not torch.equal(value, kept[key])}
    assert not any(key.startswith("encoder.") for key in moved)
    assert any(key.startswith("decoder.middle") for key in moved) == (name == "decoder")
    assert "decoder.out.weight" in moved


def test_no_way_is_gone_at_strength_nothing(ground: Ground) -> None:
    path = trained(ground, [(ground.memory.first, ground.memory.last)], encoder=False, steps=2)
    assert all(torch.equal(value, ground.parent[name]) for name, value in path(0.0).items())
