"""The zone map as a value: what each zone costs, and the share of each cell's weights that trains."""

import pytest
import torch
from torch import nn

from isotrain.isolation.zonemap import ActiveShares
from isotrain.isolation.zones import zones


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
    (units,) = zones(model, "unit")
    assert units.cost("zones").tolist() == [1, 1]
    assert units.cost("weights").tolist() == [4 * (3 + 2 + 2)] * 2
    assert units.cost("flops").tolist() == [4 * (3 + 2)] * 2
    (whole,) = zones(model, "layer", modules=["*"])
    assert whole.cost("flops").tolist() == [40, 2]
    assert all(units.cost(count).dtype == torch.double for count in ("zones", "weights", "flops"))
    (columns,) = zones(model, "column")
    assert columns.cost("flops").tolist() == [8] * 5
    (each,) = zones(model, "weight")
    assert each.cost("flops").tolist() == [1] * 40 + [0] * 16  # matrices, then biases


def test_a_step_has_its_part_of_the_layers() -> None:
    (steps,) = zones(Recurrent(), "step", window=10)
    assert steps.cost("weights").tolist() == steps.cost("zones").tolist() == [1] * 10
    assert steps.cost("flops").tolist() == [4] * 10


def test_the_credit_of_a_layer_has_its_part_of_the_layers() -> None:
    (credit,) = zones(nn.LSTM(3, 2, 2), "credit")
    assert (credit.name, credit.count, credit.depth.tolist()) == ("credit", 2, [0, 1])
    assert credit.cost("weights").tolist() == credit.cost("zones").tolist() == [1, 1]
    assert ActiveShares(credit)(torch.tensor([False, True]))["credit"].tolist() == [[0, 1]]


def test_an_embedding_multiplies_nothing() -> None:
    table, head = zones(nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2)), "row")
    assert table.cost("flops").tolist() == [0] * 5
    assert head.cost("flops").tolist() == [3] * 2


# Shares -------------------------------------------------------------------------------------------------


def test_shares_of_a_unit_and_of_a_gate() -> None:
    model = nn.Sequential(nn.LSTM(3, 2))
    (units,), (gates,) = zones(model, "unit"), zones(model, "gate")
    assert ActiveShares(units)(torch.tensor([False, True])) == {"0.l0": pytest.approx(torch.tensor([[0.0, 1.0]] * 4))}
    picture = ActiveShares(gates)(torch.arange(8) != 5)["0.l0"]  # row 5: gate g (the third) of unit 1
    assert picture.shape == (4, 2)
    assert (picture == 0).nonzero().tolist() == [[2, 1]]
    (reset,) = zones(nn.GRU(3, 2), "gate")
    assert ActiveShares(reset)(torch.ones(6, dtype=torch.bool))["l0"].tolist() == [[1, 1]] * 3


def test_shares_is_the_share_of_each_cells_arcs() -> None:
    """A cell of this LSTM has 3 + 2 weights and 2 biases, which belong to no column and train."""
    (columns,) = zones(nn.LSTM(3, 2), "column")
    picture = ActiveShares(columns)(torch.tensor([False, True, True, False, True]))["l0"]
    assert picture.flatten().tolist() == pytest.approx([5 / 7] * 8)
    (rows,) = zones(nn.LSTM(3, 2), "row")
    picture = ActiveShares(rows)(torch.arange(16) != 8 + 3)["l0"]  # the recurrent row of f of unit 1
    assert picture[1].tolist() == pytest.approx([1, 4 / 7])
    assert picture[[0, 2, 3]].tolist() == [[1, 1]] * 3


def test_shares_of_other_layers() -> None:
    conv, norm = zones(convolution(), "weight")
    picture = ActiveShares(conv)(torch.arange(conv.count) >= 9)["0"]  # the first of two filters of channel 0
    assert picture.tolist() == [[pytest.approx(10 / 19), 1, 1, 1, 1, 1]]
    assert ActiveShares(norm)(torch.arange(12) < 3)["1"].tolist() == [[0.25]]
    (whole,) = zones(convolution(), "layer")
    pictures = ActiveShares(whole)(torch.tensor([True, False]))
    assert {name: picture.tolist() for name, picture in pictures.items()} == {"0": [[1] * 6], "1": [[0]]}
    (steps,) = zones(nn.RNN(3, 2), "step", window=3)
    assert ActiveShares(steps)(torch.tensor([False, True, True]))["time"].tolist() == [[0, 1, 1]]


def test_shares_of_an_attention_leaves_out_what_has_no_row() -> None:
    attention, _ = zones(nn.MultiheadAttention(4, 2, add_bias_kv=True), "row")
    picture = ActiveShares(attention)(torch.arange(12) >= 6)["MultiheadAttention"]
    assert picture.tolist() == [[0] * 6 + [1] * 6]
