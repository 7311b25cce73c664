"""Every kind of zone in every type of module, against its definition spelled out an weight at a time."""

from collections.abc import Hashable

import numpy as np
import pytest
import torch
from torch import nn

from isotrain.isolation.zones import zones

TILE = (2, 3)
MODULES: dict[str, tuple[nn.Module, str]] = {
    "lstm": (nn.LSTM(3, 4, 2), "weight row column tile gate unit layer"),
    "gru": (nn.GRU(3, 4, bidirectional=True), "weight row column tile gate unit layer"),
    "rnn": (nn.RNN(3, 4, bias=False), "weight row column tile gate unit layer"),
    "linear": (nn.Linear(5, 3), "weight row column tile unit layer"),
    "conv1d": (nn.Conv1d(4, 6, 3, groups=2), "weight row column tile channel kernel layer"),
    "conv2d": (nn.Conv2d(3, 4, (2, 3)), "weight row column tile channel kernel layer"),
    "conv3d": (nn.Conv3d(2, 3, 2, bias=False), "weight row column tile channel kernel layer"),
    "transposed": (nn.ConvTranspose2d(3, 4, 2), "weight row column tile channel kernel layer"),
    "depthwise": (nn.Conv1d(4, 4, 3, groups=4), "weight row column tile channel kernel layer"),
    "transposed in groups": (nn.ConvTranspose1d(4, 4, 2, groups=2), "weight layer"),
    "attention": (nn.MultiheadAttention(4, 2, add_bias_kv=True), "weight row column tile layer"),
    "attention in three": (nn.MultiheadAttention(4, 2, kdim=3, vdim=5), "weight row column tile layer"),
    "embedding": (nn.Embedding(5, 3), "weight row column tile layer"),
    "norm": (nn.LayerNorm(4), "weight layer"),
    "bag": (nn.EmbeddingBag(5, 3), "weight row column tile layer"),
    "batch norm": (nn.BatchNorm1d(4), "weight layer"),
}
HIDDEN = 4
FIRST_ROW = {"k_proj_weight": 4, "v_proj_weight": 8}  # beside the 3 x 4 rows of one bias


def label(module: nn.Module, kind: str, name: str, index: tuple[int, ...]) -> Hashable | None:
    """What tells the zone of one weight from the others of its layer; None if it belongs to none."""
    if kind == "layer":  # a direction of a recurrent layer; what a module owns, without its submodules
        return name.split("_l")[1] if isinstance(module, nn.RNNBase) else name.startswith("out_proj")
    if kind == "weight":
        return name, index
    if name in ("bias_k", "bias_v"):
        return None
    if isinstance(module, nn.ConvTranspose2d) and name == "weight":
        index = (index[1], index[0])
    row, column = index[0], index[1] if len(index) > 1 else None
    if kind == "gate":
        return row
    if kind == "unit" and isinstance(module, nn.RNNBase):
        return row % HIDDEN
    if kind in ("row", "unit", "channel"):
        matrix = name.replace("bias", "weight") if isinstance(module, nn.RNNBase) else ""
        return matrix, row + FIRST_ROW.get(name, 0)
    if "bias" in name:
        return None
    assert column is not None
    if kind == "kernel":
        return row, column
    if kind == "tile":
        return name, row // TILE[0], column // TILE[1]
    assert kind == "column"
    if isinstance(module, nn.Conv1d):
        group = row // (module.out_channels // module.groups)
        return group * (module.in_channels // module.groups) + column
    return name, column


@pytest.mark.parametrize(("which", "kind"), [(w, kind) for w, (_, kinds) in MODULES.items() for kind in kinds.split()])
def test_zones_are_as_defined(which: str, kind: str) -> None:
    module, _ = MODULES[which]
    maps = zones(module, kind, tile=TILE)
    parameters = dict(module.named_parameters())
    divided = [name for zone_map in maps for name in zone_map.zone]
    assert len(divided) == len(set(divided))
    for zone_map in maps:
        covered: dict[Hashable, set[int]] = {}
        size: dict[Hashable, int] = {}
        for name in [name for layer in zone_map.covered for name in layer.parts]:
            for index in np.ndindex(*parameters[name].shape):
                expected = label(module, kind, name, index)
                assert (expected is None) == (name not in zone_map.zone)
                if expected is not None:
                    number = int(zone_map.zone[name].broadcast_to(parameters[name].shape)[index])
                    covered.setdefault(expected, set()).add(number)
                    size[expected] = size.get(expected, 0) + 1
        numbers = sorted(number for found in covered.values() for number in found)
        assert numbers == list(range(zone_map.count))  # one number a label and one label a number
        by_number = sorted(covered, key=lambda key: min(covered[key]))
        assert zone_map.sizes().tolist() == [size[key] for key in by_number]
    in_no_zone = set(parameters) - set(divided)
    assert all("bias" in name for name in in_no_zone)
    assert (
        kind in ("weight", "layer")
        or which.startswith("attention")
        or bool(in_no_zone) == (kind in ("column", "tile", "kernel") and any("bias" in name for name in parameters))
    )


@pytest.mark.parametrize(
    ("module", "kind", "counts"),
    [
        (nn.LSTM(5, 6, 2), "row", [48, 48]),
        (nn.LSTM(5, 6, 2), "column", [11, 12]),
        (nn.LSTM(20, 40), "tile", [10 * 2 + 10 * 3]),
        (nn.GRU(5, 6, bidirectional=True), "gate", [18, 18]),
        (nn.GRU(5, 6, 2, bidirectional=True), "column", [11, 11, 18, 18]),
        (nn.RNN(5, 6), "gate", [6]),
        (nn.Conv2d(8, 6, 3, groups=2), "column", [8]),
        (nn.Conv2d(8, 6, 3, groups=2), "kernel", [24]),
        (nn.MultiheadAttention(8, 2), "row", [24, 8]),
        (nn.Embedding(10, 4), "row", [10]),
        (nn.Embedding(10, 4), "column", [4]),
    ],
)
def test_counts_by_hand(module: nn.Module, kind: str, counts: list[int]) -> None:
    assert [zone_map.count for zone_map in zones(module, kind)] == counts


def test_a_row_of_an_lstm_by_hand() -> None:
    """H=2: row 9 of the layer is row 1 of W_hh with its entry of bias_hh; column 3 is that of unit 0 in W_hh."""
    module = nn.LSTM(3, 2)
    (rows,), (columns,) = zones(module, "row"), zones(module, "column")
    picked = {name: mask.broadcast_to(rows.shapes[name]) for name, mask in rows.expand(torch.arange(16) == 9).items()}
    assert picked["weight_hh_l0"].nonzero().tolist() == [[1, 0], [1, 1]]
    assert picked["bias_hh_l0"].nonzero().tolist() == [[1]]
    assert not picked["weight_ih_l0"].any() and not picked["bias_ih_l0"].any()
    picked = columns.expand(torch.arange(5) == 3)
    assert set(picked) == {"weight_ih_l0", "weight_hh_l0"}
    assert picked["weight_hh_l0"].broadcast_to(8, 2).nonzero().tolist() == [[row, 0] for row in range(8)]
    assert not picked["weight_ih_l0"].any()


def test_frozen_parameters_leave_no_gap() -> None:
    """Zones without an weight would have no score: they are closed up."""
    module = nn.LSTM(3, 2)
    module.weight_ih_l0.requires_grad_(False)
    module.bias_ih_l0.requires_grad_(False)
    (rows,) = zones(module, "row")
    assert set(rows.zone) == {"weight_hh_l0", "bias_hh_l0"}
    assert rows.numbers().unique().tolist() == list(range(8)) and rows.count == 8
    (units,) = zones(module, "unit")
    assert units.sizes().tolist() == [12, 12]
