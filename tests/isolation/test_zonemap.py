"""The zone map as a value: its costs, its pictures, its words, and that it survives being saved."""

import io

import pytest
import torch
from torch import nn

from isotrain.errors import InputError
from isotrain.isolation.zonemap import ZoneMap
from isotrain.isolation.zones import KINDS, count_uses, zones


class Recurrent(nn.Module):
    """H=2, 3 inputs, one output read at the last step: 8 * (3 + 2) = 40 products a step, and 2 at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 2, batch_first=True), nn.Linear(2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def convolution() -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6))


# Costs --------------------------------------------------------------------------------------------------


def test_costs_by_hand() -> None:
    model = Recurrent()
    uses = count_uses(model, torch.randn(4, 10, 3))
    (units,) = zones(model, "unit", uses=uses)
    assert units.cost("zones").tolist() == [1, 1]
    assert units.cost("arcs").tolist() == [4 * (3 + 2 + 2)] * 2
    assert units.cost("flops").tolist() == [10 * 4 * (3 + 2)] * 2
    (whole,) = zones(model, "layer", uses=uses, modules=["*"])
    assert whole.cost("flops").tolist() == [10 * 40, 2]
    assert all(units.cost(count).dtype == torch.double for count in ("zones", "arcs", "flops"))
    (columns,) = zones(model, "column", uses=uses)
    assert columns.cost("flops").tolist() == [80] * 5
    (unmeasured,) = zones(model, "arc")
    assert unmeasured.cost("flops").tolist() == [1] * 40 + [0] * 16  # matrices, then biases


def test_a_step_has_its_part_of_the_layers() -> None:
    (steps,) = zones(Recurrent(), "step", window=10, uses={"lstm": 10})
    assert steps.cost("arcs").tolist() == steps.cost("zones").tolist() == [1] * 10
    assert steps.cost("flops").tolist() == [40] * 10


def test_an_embedding_multiplies_nothing_and_an_unknown_count_is_refused() -> None:
    table, head = zones(nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2)), "row", uses={"0": 7, "1": 7})
    assert table.cost("flops").tolist() == [0] * 5
    assert head.cost("flops").tolist() == [21] * 2
    with pytest.raises(InputError, match="count='bits' is unknown; choose one of zones, arcs, flops"):
        head.cost("bits")


def test_words() -> None:
    model = Recurrent()
    half = torch.tensor([False, True])
    (units,) = zones(model, "unit", uses={"lstm": 10})
    assert str(units) == (
        "lstm.l0: 2 zones of kind unit, 28 arcs each: 94.9 % of the arcs, 99.5 % of the multiply-adds of the network"
    )
    assert units.describe(half) == (
        "lstm.l0: 1 of 2 zones of kind unit isolated: 47.5 % of the arcs, 49.8 % of the multiply-adds of the network"
    )
    (whole,) = zones(model, "layer", modules=["*"])
    assert str(whole).startswith("layers: 2 zones of kind layer, 3 to 56 arcs each: 100.0 % of the arcs")
    assert str(whole).endswith("100.0 % of the multiply-adds of the network (every matrix counted as used once)")
    (steps,) = zones(model, "step", window=10, uses={"lstm": 10})
    assert steps.describe(torch.arange(10) >= 5) == (
        "time: 5 of 10 zones of kind step isolated: 49.8 % of the multiply-adds of the network"
    )
    assert str(zones(model, "arc")[0]).startswith("lstm.l0: 56 zones of kind arc, 1 arc each")


# Pictures -----------------------------------------------------------------------------------------------


def test_heat_of_a_unit_and_of_a_gate() -> None:
    model = nn.Sequential(nn.LSTM(3, 2))
    (units,), (gates,) = zones(model, "unit"), zones(model, "gate")
    assert units.heat(torch.tensor([False, True])) == {"0.l0": pytest.approx(torch.tensor([[0.0, 1.0]] * 4))}
    picture = gates.heat(torch.arange(8) != 5)["0.l0"]  # row 5: gate g (the third) of unit 1
    assert picture.shape == (4, 2)
    assert (picture == 0).nonzero().tolist() == [[2, 1]]
    assert gates.gates == {"0.l0": ("i", "f", "g", "o")}
    (reset,) = zones(nn.GRU(3, 2), "gate")
    assert reset.gates == {"l0": ("r", "z", "n")}
    assert reset.heat(torch.ones(6, dtype=torch.bool))["l0"].tolist() == [[1, 1]] * 3


def test_heat_is_the_share_of_each_cells_arcs() -> None:
    """A cell of this LSTM has 3 + 2 weights and 2 biases, which belong to no column and train."""
    (columns,) = zones(nn.LSTM(3, 2), "column")
    picture = columns.heat(torch.tensor([False, True, True, False, True]))["l0"]
    assert picture.flatten().tolist() == pytest.approx([5 / 7] * 8)
    (rows,) = zones(nn.LSTM(3, 2), "row")
    picture = rows.heat(torch.arange(16) != 8 + 3)["l0"]  # the recurrent row of f of unit 1
    assert picture[1].tolist() == pytest.approx([1, 4 / 7])
    assert picture[[0, 2, 3]].tolist() == [[1, 1]] * 3


def test_heat_of_other_layers() -> None:
    conv, norm = zones(convolution(), "arc")
    picture = conv.heat(torch.arange(conv.count) >= 9)["0"]  # the first of two filters of channel 0
    assert picture.tolist() == [[pytest.approx(10 / 19), 1, 1, 1, 1, 1]]
    assert norm.heat(torch.arange(12) < 3)["1"].tolist() == [[0.25]]
    (whole,) = zones(convolution(), "layer")
    pictures = whole.heat(torch.tensor([True, False]))
    assert {name: picture.tolist() for name, picture in pictures.items()} == {"0": [[1] * 6], "1": [[0]]}
    assert whole.gates == {"0": ("row",), "1": ("row",)}
    (steps,) = zones(nn.RNN(3, 2), "step", window=3)
    assert steps.heat(torch.tensor([False, True, True]))["time"].tolist() == [[0, 1, 1]]
    assert steps.gates == {"time": ("step",)}


def test_heat_of_an_attention_leaves_out_what_has_no_row() -> None:
    attention, _ = zones(nn.MultiheadAttention(4, 2, add_bias_kv=True), "row")
    picture = attention.heat(torch.arange(12) >= 6)["MultiheadAttention"]
    assert picture.tolist() == [[0] * 6 + [1] * 6]


# A value ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_it_is_equal(kind: str) -> None:
    model = convolution() if kind in ("channel", "kernel") else Recurrent()
    for zone_map in zones(model, kind, window=5, uses={"": 3}):
        file = io.BytesIO()
        torch.save(zone_map.state(), file)
        file.seek(0)
        again = ZoneMap.from_state(torch.load(file, weights_only=True))
        assert again == zone_map
        assert str(again) == str(zone_map)
        half = torch.arange(zone_map.count) % 2 == 0
        assert again.expand(half).keys() == zone_map.expand(half).keys()
        assert all(torch.equal(again.heat(half)[name], heat) for name, heat in zone_map.heat(half).items())
        assert all(torch.equal(again.cost(count), zone_map.cost(count)) for count in ("zones", "arcs", "flops"))


def test_what_differs_is_not_equal() -> None:
    def unit_map(inputs: int = 3, hidden: int = 2, kind: str = "unit", **settings: dict[str, int]) -> ZoneMap:
        return zones(nn.LSTM(inputs, hidden), kind, **settings)[0]

    assert unit_map() == unit_map()
    others = [unit_map(inputs=4), unit_map(hidden=3), unit_map(kind="gate"), unit_map(uses={"": 2})]
    assert all(unit_map() != other for other in others)
    assert zones(nn.Linear(4, 4), "tile", tile=(2, 4))[0] != zones(nn.Linear(4, 4), "tile", tile=(4, 2))[0]
    assert unit_map() != "l0"
