"""Zone maps: right rows, nothing lost, nothing counted twice; and scores by zone."""

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from isotrain.errors import InputError
from isotrain.isolation import CRITERIA, MaskedAdam
from isotrain.isolation.criteria import view_of
from isotrain.isolation.zones import zones


def lstm(inputs: int = 2, hidden: int = 3, layers: int = 2) -> nn.LSTM:
    return nn.LSTM(inputs, hidden, layers)


@pytest.mark.parametrize(("kind", "count"), [("arc", 4 * 3 * (2 + 3 + 2)), ("gate", 12), ("unit", 3)])
def test_a_map_a_layer_with_the_right_number_of_zones(kind: str, count: int) -> None:
    first, second = zones(nn.Sequential(lstm()), kind)
    assert (first.name, second.name) == ("0.l0", "0.l1")
    assert first.count == count
    assert first.layers == (("0", 0),)
    assert second.depth.tolist() == [1] * second.count


def test_unit_rows_by_hand() -> None:
    """H=3: unit 1 owns rows 1, 4, 7, 10 (its i, f, g, o) of matrices and biases, and nothing else."""
    (first, _) = zones(lstm(), "unit")
    expanded = first.expand(torch.tensor([True, False, True]))
    assert set(expanded) == {"weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"}
    for name, active in expanded.items():
        wide = active.broadcast_to(first.shapes[name])
        for row in range(12):
            assert bool(wide[row].all()) == bool(wide[row].any()) == (row not in (1, 4, 7, 10))
    assert first.sizes().tolist() == [4 * (2 + 3 + 1 + 1)] * 3
    assert first.share(torch.tensor([True, False, True])) == pytest.approx(1 / 3)


def test_gate_rows_by_hand() -> None:
    (first, _) = zones(lstm(), "gate")
    active = torch.ones(12, dtype=torch.bool)
    active[7] = False  # g of unit 1
    for expanded in first.expand(active).values():
        assert (~expanded).nonzero()[:, 0].tolist() == [7]


def test_layers_of_unequal_size_in_order_of_depth() -> None:
    model = nn.Sequential(lstm(inputs=5), nn.Linear(3, 1))
    (whole,) = zones(model, "layer")
    assert whole.layers == (("0", 0), ("0", 1))
    assert whole.sizes().tolist() == [4 * 3 * (5 + 3 + 2), 4 * 3 * (3 + 3 + 2)]
    assert whole.share(torch.tensor([False, True])) == pytest.approx(10 / 18)
    (named,) = zones(model, "layer", modules=["0", "1"])
    assert named.layers == (("0", 0), ("0", 1), ("1", 0))
    assert str(named) == "layers: 3 zones of kind layer, 4 to 120 arcs each"


def test_more_than_ten_layers_keep_their_own_parameters() -> None:
    maps = zones(nn.LSTM(2, 2, 12), "unit")
    assert set(maps[1].shapes) == {"weight_ih_l1", "weight_hh_l1", "bias_ih_l1", "bias_hh_l1"}
    assert len(maps) == 12


def test_time_steps_have_no_parameters() -> None:
    (steps,) = zones(lstm(), "step", window=168)
    assert steps.expand(torch.ones(168, dtype=torch.bool)) == {}
    assert steps.share(torch.arange(168) >= 144) == pytest.approx(144 / 168)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["arc", "gate", "unit", "layer"]),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3)),
    seed=st.integers(0, 999),
)
def test_expand_and_gather_are_inverse(kind: str, sizes: tuple[int, int, int], seed: int) -> None:
    torch.manual_seed(seed)
    module = lstm(*sizes)
    parameters = dict(module.named_parameters())
    seen: list[str] = []
    for zone_map in zones(module, kind):
        zone_map = pickle.loads(pickle.dumps(zone_map))  # a value: it outlives the process that made it
        seen += zone_map.shapes
        back = zone_map.scatter(zone_map.gather(parameters))
        assert all(torch.equal(back[name], parameters[name]) for name in zone_map.shapes)
        active = torch.rand(zone_map.count) < 0.5
        arcs = zone_map.gather(zone_map.expand(active))
        assert torch.equal(arcs, active[zone_map.numbers()])
        assert torch.equal(zone_map.numbers().unique(), torch.arange(zone_map.count))
        assert int(zone_map.sizes().sum()) == arcs.numel()
        assert zone_map.share(active) == pytest.approx(float((~arcs).float().mean()))
    assert sorted(seen) == sorted(parameters)


def test_bad_use_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="zone='tile' is unknown; choose one of arc, gate, unit, layer, step"):
        zones(lstm(), "tile")
    with pytest.raises(InputError, match=r"Linear has no nn\.LSTM"):
        zones(nn.Linear(2, 2), "unit")
    with pytest.raises(InputError, match="Sequential has no submodule 'encoder'"):
        zones(nn.Sequential(lstm()), "unit", modules=["encoder"])
    with pytest.raises(InputError, match=r"1 \(Linear\) has no zones of kind 'unit'"):
        zones(nn.Sequential(lstm(), nn.Linear(3, 1)), "unit", modules=["0", "1"])
    with pytest.raises(InputError, match="bidirectional"):
        zones(nn.LSTM(2, 3, bidirectional=True), "unit")
    with pytest.raises(InputError, match=r"zone='step' needs window="):
        zones(lstm(), "step")


# Criteria -----------------------------------------------------------------------------------------------


def trained(steps: int = 3, correction: str = "global") -> tuple[nn.LSTM, MaskedAdam]:
    torch.manual_seed(0)
    module = lstm()
    optimiser = MaskedAdam(module.parameters(), lr=1e-2, correction=correction)
    for _ in range(steps):
        optimiser.zero_grad()
        module(torch.randn(5, 4, 2))[0].square().sum().backward()
        optimiser.step()
    return module, optimiser


@pytest.mark.parametrize("kind", ["arc", "unit", "layer"])
def test_update_norm_is_the_step_that_adam_took(kind: str) -> None:
    """Adam moves a weight by lr times the update: so the score is the root mean square step over lr."""
    module, optimiser = trained()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimiser.step()
    moved = {name: (p.detach() - before[name]) / 1e-2 for name, p in module.named_parameters()}
    parameters = dict(module.named_parameters())
    for zone_map in zones(module, kind):
        score = CRITERIA["update_norm"](view_of(zone_map, parameters, optimiser, torch.Generator()))
        arcs, numbers = zone_map.gather(moved), zone_map.numbers()
        for zone in range(zone_map.count):
            expected = arcs[numbers == zone].square().mean().sqrt()
            assert float(score[zone]) == pytest.approx(float(expected), rel=1e-3, abs=1e-4)


def test_update_norm_counts_each_weights_own_updates() -> None:
    module, optimiser = trained(correction="per_weight")
    (first, _) = zones(module, "unit")
    parameters = dict(module.named_parameters())
    for name, mask in first.expand(torch.tensor([True, False, True])).items():
        optimiser.set_active(parameters[name], mask)
    optimiser.step()
    view = view_of(first, parameters, optimiser, torch.Generator())
    assert [int(view.updates[view.zone == unit].unique()) for unit in range(3)] == [4, 3, 4]


def test_before_the_first_step_scores_are_numbers() -> None:
    module, optimiser = trained(steps=0)
    (first, _) = zones(module, "unit")
    view = view_of(first, dict(module.named_parameters()), optimiser, torch.Generator())
    assert CRITERIA["update_norm"](view).tolist() == [0.0, 0.0, 0.0]


def test_random_is_the_generators_and_depth_is_freezeouts() -> None:
    module, optimiser = trained(steps=1)
    (whole,) = zones(module, "layer")
    parameters = dict(module.named_parameters())
    draws = [
        CRITERIA["random"](view_of(whole, parameters, optimiser, torch.Generator().manual_seed(seed)))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert CRITERIA["depth"](view_of(whole, parameters, optimiser, torch.Generator())).tolist() == [0.0, 1.0]
