"""Which modules are divided, in what order, and what is refused."""

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, prune

from isotrain.errors import InputError
from isotrain.isolation.zones import chosen_modules, zones


def lstm(inputs: int = 2, hidden: int = 3, layers: int = 2) -> nn.LSTM:
    return nn.LSTM(inputs, hidden, layers)


def network() -> nn.Sequential:
    encoder = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.LayerNorm(4), nn.Linear(4, 4))
    return nn.Sequential(nn.Embedding(7, 4), encoder, nn.Linear(4, 1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.body, self.decoder = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7)
        self.decoder.weight = self.embedding.weight
        self.same_body = self.body


@pytest.mark.parametrize(("kind", "count"), [("weight", 4 * 3 * (2 + 3 + 2)), ("gate", 12), ("unit", 3)])
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
    (named,) = zones(model, "layer", modules=["1", "0"])
    assert named.layers == (("0", 0), ("0", 1), ("1", 0))


def test_two_directions_are_two_layers_of_one_depth() -> None:
    maps = zones(nn.Sequential(nn.GRU(2, 3, 2, bidirectional=True)), "unit")
    assert [zone_map.name for zone_map in maps] == ["0.l0", "0.l0_reverse", "0.l1", "0.l1_reverse"]
    assert [int(zone_map.depth[0]) for zone_map in maps] == [0, 0, 1, 1]
    assert set(maps[1].zone) == {
        f"0.{kind}_l0_reverse" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }  # fmt: skip
    (whole,) = zones(nn.GRU(2, 3, 2, bidirectional=True), "layer")
    assert whole.depth.tolist() == [0, 0, 1, 1]


def test_more_than_ten_layers_keep_their_own_parameters() -> None:
    maps = zones(nn.LSTM(2, 2, 12), "unit")
    assert set(maps[1].shapes) == {"weight_ih_l1", "weight_hh_l1", "bias_ih_l1", "bias_hh_l1"}
    assert len(maps) == 12


def test_time_steps_have_no_parameters() -> None:
    (steps,) = zones(lstm(), "step", window=168)
    assert steps.expand(torch.ones(168, dtype=torch.bool)) == {}


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["weight", "row", "gate", "unit", "layer"]),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3)),
    seed=st.integers(0, 999),
)
def test_expand_and_gather_agree(kind: str, sizes: tuple[int, int, int], seed: int) -> None:
    torch.manual_seed(seed)
    module = lstm(*sizes)
    parameters = dict(module.named_parameters())
    seen: list[str] = []
    for zone_map in zones(module, kind):
        zone_map = pickle.loads(pickle.dumps(zone_map))  # a value: it outlives the process that made it
        seen += zone_map.shapes
        flat = torch.cat([parameters[name].reshape(-1) for name in zone_map.shapes])
        assert torch.equal(zone_map.gather(parameters), flat)
        active = torch.rand(zone_map.count) < 0.5
        weights = zone_map.gather(zone_map.expand(active))
        assert torch.equal(weights, active[zone_map.numbers()])
        assert torch.equal(zone_map.numbers().unique(), torch.arange(zone_map.count))
        assert int(zone_map.sizes().sum()) == weights.numel()
        assert zone_map.isolated_weights(active) == int((~weights).sum())
    assert sorted(seen) == sorted(parameters)


# Which modules ------------------------------------------------------------------------------------------


def test_without_names_recurrent_modules_or_all_that_can() -> None:
    mixed = nn.ModuleDict({"conv": nn.Conv1d(2, 2, 1), "lstm": lstm(), "gru": nn.GRU(3, 3)})
    assert list(chosen_modules(mixed, None)) == ["lstm", "gru"]
    assert [zone_map.name for zone_map in zones(network(), "unit")] == ["1.0", "1.3", "2"]
    assert [zone_map.name for zone_map in zones(network(), "weight")] == ["0", "1.0", "1.2", "1.3", "2"]
    assert [zone_map.name for zone_map in zones(nn.Linear(2, 2), "row")] == ["Linear"]


def test_patterns_take_what_can_be_divided_in_the_networks_order() -> None:
    assert list(chosen_modules(network(), ["2", "1*"], "unit")) == ["1.0", "1.3", "2"]
    assert list(chosen_modules(network(), ["1.*"])) == ["1.0", "1.2", "1.3"]
    assert list(chosen_modules(network(), ["1.[03]"])) == ["1.0", "1.3"]


def test_what_does_not_train_is_skipped_unless_named() -> None:
    model = network()
    model[1].requires_grad_(False)
    assert [zone_map.name for zone_map in zones(model, "unit")] == ["2"]
    assert [zone_map.name for zone_map in zones(model, "unit", modules=["1.*", "2"])] == ["2"]
    (whole,) = zones(model, "layer")
    assert whole.layers == (("0", 0), ("2", 0))
    with pytest.raises(InputError, match=r"^1\.0: every parameter that zones of kind 'unit' divide has requires_grad"):
        zones(model, "unit", modules=["1.0"])
    with pytest.raises(InputError, match="nothing that zones of kind 'unit' divide has requires_grad=True"):
        zones(model.requires_grad_(False), "unit")


def test_shared_parameters_are_refused_where_they_would_be_isolated() -> None:
    for modules in (["embedding"], ["decoder"], None):
        with pytest.raises(InputError, match=r"^decoder\.weight is embedding\.weight.*isolate neither.*or untie them"):
            zones(Tied(), "row", modules=modules)
    (body,) = zones(Tied(), "row", modules=["body"])  # one module under two names owns its weights once
    assert body.name == "body"


@pytest.mark.parametrize(
    "change",
    [
        parametrizations.weight_norm,
        parametrizations.orthogonal,
        torch.nn.utils.spectral_norm,
        lambda part: prune.l1_unstructured(part, "weight", 0.5),
    ],
)
@pytest.mark.parametrize("modules", [["0"], ["*"], None])
def test_weights_computed_from_others_are_refused(change, modules: list[str] | None) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=r"^0 \(.*Linear\) computes its weights from other parameters"):
        zones(nn.Sequential(change(nn.Linear(4, 4)), nn.Linear(4, 4)), "row", modules=modules)


def test_the_parameters_behind_a_parametrisation_are_refused_too() -> None:
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4)))
    with pytest.raises(InputError, match=r"^0\.parametrizations\.weight .* computes its weights from other parameters"):
        zones(model, "weight", modules=["0.p*"])


def test_bad_use_is_refused_by_name() -> None:
    kinds = "weight, row, column, tile, gate, unit, channel, kernel, layer, step"
    with pytest.raises(InputError, match=f"zone='cell' is unknown: choose one of {kinds}"):
        zones(lstm(), "cell")
    with pytest.raises(InputError, match=r"Linear has no recurrent module and no other with zones of kind 'gate'"):
        zones(nn.Linear(2, 2), "gate")
    with pytest.raises(InputError, match="its modules have none: they own no parameters"):
        zones(nn.ReLU(), "weight")
    with pytest.raises(InputError, match=r"Sequential has no submodule 'encoder'; it has 0, 1\.0, 1\.2, 1\.3, 2$"):
        zones(network(), "unit", modules=["encoder"])
    with pytest.raises(InputError, match=r"it has 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 5 more$"):
        zones(nn.Sequential(*[nn.Linear(1, 1) for _ in range(15)]), "unit", modules=["encoder.*"])
    with pytest.raises(
        InputError, match=r"1 \(Linear\) has no zones of kind 'gate'; it has weight, row, column, tile, un"
    ):
        zones(nn.Sequential(lstm(), nn.Linear(3, 1)), "gate", modules=["0", "1"])
    with pytest.raises(
        InputError, match=r"0 \(LSTM\) has no zones of kind 'channel'; it has weight, row, column, tile, g"
    ):
        zones(nn.Sequential(lstm(), nn.Conv1d(3, 1, 1)), "channel")
    with pytest.raises(InputError, match=r"1 \(Sequential\) owns no parameters itself; name what is in it.*'1\.\*'"):
        zones(network(), "unit", modules=["1"])
    with pytest.raises(
        InputError, match=r"nothing that '1\.\[12\]' matches has zones of kind 'unit'; there is weight, la"
    ):
        zones(network(), "unit", modules=["1.[12]"])
    for wrong in ("0", []):
        with pytest.raises(InputError, match="give a list of names or patterns, or None"):
            zones(network(), "unit", modules=wrong)
    with pytest.raises(InputError, match=r"the module \(LSTM\) has proj_size=2"):
        zones(nn.LSTM(2, 3, proj_size=2), "unit")
    with pytest.raises(InputError, match=r"0\.weight is not initialised yet: run the network once"):
        zones(nn.Sequential(nn.LazyLinear(2), nn.Linear(2, 2)), "unit", modules=["1"])
    with pytest.raises(InputError, match=r"zone='step' needs window="):
        zones(lstm(), "step")
    with pytest.raises(InputError, match=r"tile=\(0, 4\) is too small: give 1 or more"):
        zones(lstm(), "tile", tile=(0, 4))
