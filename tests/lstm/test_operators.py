"""A wrong call of the registered operators is an error of Python, and never a read past the end of a tensor."""

from typing import Any

import pytest
import torch
from torch import Tensor

from isotrain.lstm.kernels.layer import layout
from isotrain.lstm.plan import Plan

pytestmark = pytest.mark.usefixtures("kernels")

T, B, INPUTS, H = 3, 2, 5, 20
ORDER = layout(Plan(torch.arange(H) % 2 == 0), H).order  # 10 active units and 10 isolated: two blocks of 16 places
P, K = len(ORDER), 40
GATES = 4 * P + 32


def operators() -> Any:
    return torch.ops.isotrain


def pack_forward(**changed: Any) -> Tensor:
    good: dict[str, Any] = {"w_ih": torch.ones(4 * H, INPUTS), "w_hh": torch.ones(4 * H, H), "b_ih": torch.ones(4 * H)}
    good |= {"b_hh": torch.ones(4 * H), "order": ORDER, "K": K, "bf16": False}
    answer: Tensor = operators().pack_forward(**(good | changed))
    return answer


def pack_backward(**changed: Any) -> Tensor:
    good: dict[str, Any] = {
        "w_ih": torch.ones(4 * H, INPUTS),
        "w_hh": torch.ones(4 * H, H),
        "order": ORDER,
        "columns": P,
        "inputs": INPUTS,
    }
    answer: Tensor = operators().pack_backward(**(good | {"bf16": False} | changed))
    return answer


def forward(**changed: Any) -> Any:
    good: dict[str, Any] = {
        "inputs": [torch.ones(T, B, 2), torch.ones(T, B, 3)],
        "h0": torch.ones(B, H),
        "c0": torch.ones(B, H),
    }
    good |= {"panels": torch.ones(P // 16, K, 64), "order": ORDER, "kept": 2, "batch_first": False, "brgemm": False}
    return operators().forward(**(good | changed))


def backward(**changed: Any) -> Any:
    good: dict[str, Any] = {
        "gates": torch.ones(T, B, GATES),
        "cells": torch.ones(T + 1, B, P),
        "panels": torch.ones(2, 4 * P, 64),
    }
    good |= {"order": ORDER, "dy": torch.ones(T, B, H), "dh_last": torch.ones(B, H), "dc_last": torch.ones(B, H)}
    good |= {"H": H, "inputs": INPUTS, "batch_first": False, "first_step": 0, "places": P, "brgemm": False}
    good |= {"passing": None, "cell": True}
    return operators().backward(**(good | changed))


def test_the_calls_that_the_others_change_are_right() -> None:
    assert pack_forward().shape == (P // 16, K, 64)
    assert pack_forward(b_ih=None, b_hh=None).shape == (P // 16, K, 64)
    assert pack_backward().shape == pack_backward(columns=16).shape == (2, 4 * P, 64)
    y, h, c, rows, gates, cells = forward()
    assert [t.shape for t in (y, h, c)] == [(T, B, H), (B, H), (B, H)]
    assert [t.shape for t in (rows, gates, cells)] == [(T + 1, B, K), (T, B, GATES), (T + 1, B, P)]
    assert [t.shape for t in backward()] == [(T, B, INPUTS), (B, H), (B, H)]
    assert [t.shape for t in backward(places=0, panels=torch.ones(1, 4 * P, 64))] == [(T, B, INPUTS), (B, H), (B, H)]
    some = torch.arange(P) < 16
    for passing, panels in ((some, 2), (some & ~some, 1)):
        less = backward(passing=passing, panels=torch.ones(panels, 4 * P, 64), cell=False)
        assert [t.shape for t in less] == [(T, B, INPUTS), (B, H), (B, H)]
    assert [t.shape for t in backward(dy=None, dh_last=None, dc_last=None)] == [(T, B, INPUTS), (B, H), (B, H)]


def wrong_tensors(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """What may stand where a tensor of this shape and type belongs, and does not belong there."""
    right = torch.zeros(shape, dtype=dtype)
    wrong = {
        f"size {k} {change:+d}": torch.zeros([n + change * (i == k) for i, n in enumerate(shape)], dtype=dtype)
        for k in range(len(shape))
        for change in (-1, 1)
    }
    wrong |= {"empty": right.new_zeros([0] * len(shape)), "one axis less": right[0], "one axis more": right[None]}
    wrong |= {"float64": right.double(), "int32": right.int(), "float16": right.half(), "elsewhere": right.to("meta")}
    return wrong | {"sparse": torch.zeros(shape, dtype=dtype).to_sparse()}


def with_gaps(shape: tuple[int, ...]) -> Tensor:
    return torch.zeros(*shape[:-1], 2 * shape[-1])[..., ::2]


TENSORS: dict[str, dict[str, tuple[int, ...]]] = {
    "pack_forward": {"w_ih": (4 * H, INPUTS), "w_hh": (4 * H, H), "b_ih": (4 * H,), "b_hh": (4 * H,)},
    "pack_backward": {"w_ih": (4 * H, INPUTS), "w_hh": (4 * H, H)},
    "forward": {"h0": (B, H), "c0": (B, H), "panels": (P // 16, K, 64)},
    "backward": {
        "gates": (T, B, GATES),
        "cells": (T + 1, B, P),
        "panels": (2, 4 * P, 64),
        "dy": (T, B, H),
        "dh_last": (B, H),
        "dc_last": (B, H),
        "passing": (P,),
    },
}
# these sizes are not given by the other arguments
FREE: dict[tuple[str, str], set[str]] = {
    ("pack_forward", "w_ih"): {"size 1 -1", "size 1 +1"},
    ("pack_backward", "w_ih"): {"size 1 +1"},  # more columns than are packed
    ("forward", "panels"): {"size 1 -1", "size 1 +1"},  # rows beyond the inputs are padding
    ("backward", "gates"): {"size 2 -1", "size 2 +1"},  # columns too
}
CALLS = {"pack_forward": pack_forward, "pack_backward": pack_backward, "forward": forward, "backward": backward}
WRONG_TENSORS = [
    pytest.param(operator, name, wrong, id=f"{operator}: {name}, {what}")
    for operator, tensors in TENSORS.items()
    for name, shape in tensors.items()
    for what, wrong in (wrong_tensors(shape) | {"gaps": with_gaps(shape)}).items()
    if what not in FREE.get((operator, name), set())
]


@pytest.mark.parametrize(("operator", "name", "wrong"), WRONG_TENSORS)
def test_a_tensor_that_does_not_fit_is_refused(operator: str, name: str, wrong: Tensor) -> None:
    with pytest.raises((RuntimeError, NotImplementedError)):
        CALLS[operator](**{name: wrong})


@pytest.mark.parametrize(
    "wrong",
    [[], [torch.ones(B, 5)], [torch.ones(T, B, 2), torch.ones(T, B)]]
    + [[torch.ones(T, B, 2), w] for w in (torch.ones(T + 1, B, 3), torch.ones(T, B - 1, 3), torch.ones(0, B, 3))]
    + [[torch.ones(T, B, 9)], [torch.ones(T, B, 5).double()], [torch.ones(T, B, 10)[..., ::2]]]
    + [[torch.ones(T, B, 5, device="meta")], [torch.ones(T, B, 5).bfloat16()], [torch.ones(T, B, 5).to_sparse()]],
    ids=lambda inputs: ", ".join(f"{tuple(t.shape)} {t.dtype} {t.device}" for t in inputs) or "none",
)
def test_inputs_that_do_not_fit_are_refused(wrong: list[Tensor]) -> None:
    with pytest.raises((RuntimeError, NotImplementedError, IndexError)):
        forward(inputs=wrong)


def place(at: int, unit: int) -> Tensor:
    order = ORDER.clone()
    order[at] = unit
    return order


ORDERS = {
    "a unit that is not there": (place(0, H), "order has unit 20 in place 0, units are 0 to 19"),
    "a negative unit": (place(0, -2), "order has unit -2 in place 0"),
    "a unit twice": (place(0, int(ORDER[1])), "order has unit 2 twice"),
    "a unit nowhere": (place(9, -1), "order has 19 of 20 units"),
    "a unit behind an empty place": (
        ORDER[[10, *range(1, 10), 0, *range(11, P)]],
        "behind an empty place of its block",
    ),
    "half a block": (ORDER[:-8], "order must be one row of whole blocks"),
    "no block": (ORDER[:0], "order has 0 of 20 units"),
    "a table": (ORDER[None], "order must be one row of whole blocks"),
    "floats": (ORDER.float(), "order is Float, must be Long"),
    "short numbers": (ORDER.int(), "order is Int, must be Long"),
    "gaps": (ORDER.repeat_interleave(2)[::2], "order must be contiguous"),
    "elsewhere": (ORDER.to("meta"), "order must be a dense tensor on the CPU"),
}


@pytest.mark.parametrize("operator", CALLS)
@pytest.mark.parametrize("what", ORDERS)
def test_an_order_that_is_not_one_of_all_units_is_refused(operator: str, what: str) -> None:
    order, message = ORDERS[what]
    if operator == "backward" and what in ("half a block", "no block"):
        message = "order|H is"
    with pytest.raises(RuntimeError, match=message):
        CALLS[operator](order=order)


@pytest.mark.parametrize(
    ("operator", "changed", "message"),
    [
        ("pack_forward", {"K": P + INPUTS}, "K is 37, must be even and at least 38"),
        ("pack_forward", {"K": 39}, "K is 39, must be even"),
        ("pack_forward", {"K": -2}, "K is -2"),
        ("pack_forward", {"b_hh": None}, "b_ih and b_hh must both be given, or neither"),
        ("pack_forward", {"b_ih": None}, "b_ih and b_hh must both be given, or neither"),
        ("pack_backward", {"columns": P + 1}, "columns is 33, must be from 0 to 32"),
        ("pack_backward", {"columns": -1}, "columns is -1"),
        ("pack_backward", {"inputs": INPUTS + 1}, "inputs is 6, must be from 0 to 5"),
        ("pack_backward", {"inputs": -1}, "inputs is -1"),
        ("forward", {"panels": torch.ones(P // 16, P + INPUTS, 64)}, "panels have 37 rows, must have at least 38"),
        ("forward", {"panels": torch.ones(P // 16, K, 64).bfloat16()}, "panels in bf16 need brgemm"),
        ("forward", {"panels": torch.ones(P // 16, 39, 64).bfloat16(), "brgemm": True}, "panels in bf16 have an even"),
        ("backward", {"gates": torch.ones(T, B, 4 * P - 1)}, "gates have 127 columns, must have at least 128"),
        ("backward", {"panels": torch.ones(2, 4 * P, 64).bfloat16()}, "panels in bf16 need brgemm"),
        ("backward", {"panels": torch.ones(3, 4 * P, 64)}, "panels are 3: 2 for h, must be from 1 to 1"),
        (
            "backward",
            {"passing": torch.arange(P) == P - 1, "panels": torch.ones(1, 4 * P, 64)},
            "panels are 1: 0 for h, must be from 1 to 1",
        ),
        ("backward", {"passing": torch.ones(P, dtype=torch.bool)[:, None]}, "passing has sizes"),
        ("backward", {"H": P + 1}, "H is 33, must be from 0 to 32"),
        ("backward", {"H": -1}, "H is -1"),
        ("backward", {"H": H + 1}, "order has 20 of 21 units"),
        ("backward", {"H": H - 1}, "order has unit 19 in place"),
        ("backward", {"inputs": 65}, "panels are 2: 0 for h, must be from 1 to 1"),
        ("backward", {"inputs": 129}, "inputs is 129, must be from 0 to 128"),
        ("backward", {"inputs": -1}, "inputs is -1"),
        ("backward", {"first_step": T + 1}, "first_step is 4, must be from 0 to 3"),
        ("backward", {"first_step": -1}, "first_step is -1"),
        ("backward", {"places": P + 16}, "places is 48, must be from 0 to 32"),
        ("backward", {"places": 8}, "places is 8, must be whole blocks of 16"),
        ("backward", {"places": -16}, "places is -16"),
    ],
    ids=lambda value: value if isinstance(value, str) else ", ".join(value),
)
def test_a_number_out_of_range_is_refused(operator: str, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        CALLS[operator](**changed)
