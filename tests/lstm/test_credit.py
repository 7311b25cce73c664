"""Credit left out of an LSTM: every backend against autograd of a loop in which the state is detached."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from isotrain.errors import InputError
from isotrain.lstm import LSTM
from isotrain.lstm.horizon import Measurement

pytestmark = pytest.mark.usefixtures("one_thread")

Gradients = dict[str, Tensor]
BACKENDS = ["reference", "torch", "native"]
SHAPES = [(9, 4, 3, 20, 3), (1, 3, 2, 5, 2), (12, 1, 3, 17, 1), (1, 1, 1, 1, 1), (24, 16, 7, 33, 2)]
CASES: list[dict[str, Any]] = [
    {"credit": "cell"},
    {"credit": "none"},
    {"credit": {0: "cell"}},
    {"credit": "cell", "steps": 4},
    {"credit": "none", "steps": 4},
]


def by_hand(lstm: LSTM, x: Tensor, hx: tuple[Tensor, Tensor], asked: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """The LSTM's equations one step at a time; what gets no credit is detached where the next step reads it."""
    last_h, last_c = [], []
    first = len(x) - min(asked.get("steps") or len(x), len(x))
    for k in range(lstm.num_layers):
        w_ih, w_hh, b_ih, b_hh = (lstm.get_parameter(name) for name in lstm._all_weights[k])
        credit = asked["credit"] if isinstance(asked["credit"], str) else asked["credit"].get(k, "full")
        passes = torch.zeros(lstm.hidden_size, dtype=torch.bool)
        passes[list(asked.get("part", ()))] = True
        h, c, y = hx[0][k], hx[1][k], []
        for t, now in enumerate(x):
            if t == first > 0:
                h, c, y = h.detach(), c.detach(), [earlier.detach() for earlier in y]
            seen = h if credit == "full" else torch.where(passes, h, h.detach())
            kept = c.detach() if credit == "none" else c
            i, f, g, o = (now @ w_ih.T + b_ih + seen @ w_hh.T + b_hh).chunk(4, -1)
            c = f.sigmoid() * kept + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            y.append(h)
        x = torch.stack(y)
        last_h.append(h)
        last_c.append(c)
    return x, torch.stack(last_h), torch.stack(last_c)


def answers(
    lstm: LSTM, shape: tuple[int, ...], asked: Mapping[str, Any], dtype: torch.dtype = torch.float64
) -> tuple[Gradients, Gradients]:
    """Outputs and gradients (0 for none) of everything, ours and by hand in float64; the loss sees all outputs."""
    steps, batch, inputs, hidden, layers = shape
    truth = LSTM(inputs, hidden, layers, backend="reference").double()
    truth.load_state_dict(lstm.state_dict())
    generator = torch.Generator().manual_seed(1)
    sizes = ((steps, batch, inputs), (layers, batch, hidden), (layers, batch, hidden))
    values = [torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]

    def found(net: LSTM, outputs: Any, arguments: list[Tensor]) -> Gradients:
        y, h, c = outputs
        loss = y.double().sin().sum() + h.double().square().sum() + c.double().cos().sum()
        loss.backward()
        leaves = dict(zip(("x", "h0", "c0"), arguments, strict=True)) | dict(net.named_parameters())
        gradients = {f"d{n}": torch.zeros_like(p) if p.grad is None else p.grad for n, p in leaves.items()}
        return {"y": y, "h": h, "c": c} | gradients

    lstm.isolate(**asked)
    mine = [value.to(dtype).requires_grad_() for value in values]
    y, (h, c) = lstm(mine[0], (mine[1], mine[2]))
    theirs = [value.requires_grad_() for value in values]
    expected = found(truth, by_hand(truth, theirs[0], (theirs[1], theirs[2]), asked), theirs)
    return found(lstm, (y, h, c), mine), expected


def assert_near(ours: Gradients, expected: Gradients, relative: float, floor: float) -> None:
    assert ours.keys() == expected.keys()
    for name, value in ours.items():
        right = expected[name]
        error, allowed = (value - right).norm().item(), relative * right.norm().item() + floor * right.numel() ** 0.5
        assert error <= allowed, f"{name}: error {error:.2e} of {right.norm():.2e}, allowed {allowed:.2e}"


def seeded(shape: tuple[int, ...], **options: Any) -> LSTM:
    torch.manual_seed(0)
    return LSTM(*shape[2:], **options)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("asked", [*CASES, {"credit": "cell", "part": (0,)}], ids=str)
@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_in_float64_it_is_autograd_of_the_detached_loop(
    backend: str, asked: dict[str, Any], shape: tuple[int, ...]
) -> None:
    if backend == "torch" and "part" in asked:
        return  # refused, see below
    ours, expected = answers(seeded(shape, backend=backend).double(), shape, asked)
    assert_near(ours, expected, 1e-12, 1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("asked", [*CASES, {"credit": "cell", "part": (0,)}], ids=str)
def test_the_kernels_are_near_the_detached_loop(asked: dict[str, Any], shape: tuple[int, ...], kernels: None) -> None:
    ours, expected = answers(seeded(shape, backend="native"), shape, asked, torch.float32)
    assert_near(ours, expected, 1e-5, 1e-6)


@pytest.mark.parametrize("asked", CASES, ids=str)
@pytest.mark.parametrize("backend", ["torch", "native"])
def test_in_bf16_it_stays_near(backend: str, asked: dict[str, Any], bf16_kernels: None) -> None:
    shape = SHAPES[-1]
    ours, expected = answers(seeded(shape, backend=backend, compute="bf16"), shape, asked, torch.float32)
    assert_near(ours, expected, 0.02, 5e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("credit", ["cell", "none"])
def test_every_weight_learns_and_what_is_left_out_differs(backend: str, credit: str, kernels: None) -> None:
    shape = SHAPES[-1]
    ours, _ = answers(seeded(shape, backend=backend), shape, {"credit": credit}, torch.float32)
    whole, _ = answers(seeded(shape, backend=backend), shape, {"credit": "full"}, torch.float32)
    for name in ("weight_ih_l0", "weight_hh_l0", "weight_ih_l1", "weight_hh_l1", "bias_ih_l0", "bias_hh_l1"):
        gradient = ours[f"d{name}"]
        assert (gradient != 0).any(1 if gradient.dim() > 1 else 0).all()
        assert not torch.allclose(gradient, whole[f"d{name}"], rtol=1e-2)
    assert not ours["dh0"].any()
    assert ours["dc0"].any() == (credit == "cell")


@pytest.mark.parametrize("backend", BACKENDS)
def test_with_layers_and_units(backend: str, kernels: None) -> None:
    """An isolated layer passes on what credit leaves; units lose the rows that they lose without it, and no others."""
    shape = (9, 8, 3, 20, 2)
    whole, _ = answers(seeded(shape, backend=backend), shape, {"credit": "cell"}, torch.float32)
    layer, _ = answers(seeded(shape, backend=backend), shape, {"credit": "cell", "layer": 1}, torch.float32)
    above = {name for name in whole if name.endswith("l1")}
    assert not any(layer[name].any() for name in above)
    assert_near(
        {n: v for n, v in layer.items() if n not in above}, {n: whole[n] for n in whole if n not in above}, 1e-5, 1e-6
    )
    if backend == "torch":
        return
    units, _ = answers(
        seeded(shape, backend=backend), shape, {"credit": "cell", "units": range(7), "mode": "exact"}, torch.float32
    )
    gone = (torch.arange(20) < 7).repeat(4)
    for name, value in units.items():
        if name.startswith(("dweight", "dbias")):
            assert not value[gone].any()
            value, whole[name] = value[~gone], whole[name][~gone]
        torch.testing.assert_close(value, whole[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_autonomous_units_that_are_remembered_and_no_credit_among_the_others(backend: str, kernels: None) -> None:
    """With two units of three a memory: the same as computing them, and all that trains gets its gradient."""
    torch.manual_seed(0)
    lstm, series = LSTM(3, 24, backend=backend), torch.randn(60, 3)  # type: ignore[arg-type]
    lstm.isolate(units=range(16), mode="autonomous", credit="none")
    memory = lstm.remember(series)
    found = []
    for known in (memory[:, None], None):
        lstm.zero_grad()
        y, _ = lstm(series[:, None], memory=known)
        y.square().sum().backward()
        found.append({name: p.grad.clone() for name, p in lstm.named_parameters() if p.grad is not None} | {"y": y})
    assert_near(found[0], found[1], 1e-4, 1e-6)
    active = (torch.arange(24) >= 16).repeat(4)
    assert (found[0]["weight_hh_l0"][active] != 0).all()
    assert not found[0]["weight_hh_l0"][~active].any()


class Products(TorchDispatchMode):
    """Counts matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += any(name in str(func) for name in ("mm", "matmul", "lstm", "gru"))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("credit", ["cell", "none"])
def test_the_torch_backend_multiplies_no_more_often_for_more_steps(credit: Any) -> None:
    counts = []
    for steps in (5, 50):
        lstm = LSTM(3, 8, 2, backend="torch")
        lstm.isolate(credit=credit)
        loss = lstm(torch.randn(steps, 4, 3))[0].sum()
        with Products() as products:
            loss.backward()
        counts.append(products.count)
    # of each layer both weights; of the upper one its input
    assert counts == [5, 5]


@pytest.mark.parametrize("backend", BACKENDS)
def test_evaluation_and_thawing_are_what_they_were(backend: str, kernels: None) -> None:
    torch.manual_seed(0)
    lstm, stock, x = LSTM(3, 20, 2, backend=backend), nn.LSTM(3, 20, 2), torch.randn(9, 8, 3)  # type: ignore[arg-type]
    stock.load_state_dict(lstm.state_dict())
    lstm.isolate(credit="none")
    assert not lstm.isolated.nothing
    torch.testing.assert_close(lstm(x)[0], stock(x)[0], rtol=1e-4, atol=1e-5)  # in training too
    torch.testing.assert_close(lstm.eval()(x)[0], stock(x)[0], rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(lstm.train()(x)[0], stock(x)[0], rtol=1e-4, atol=1e-5)
    lstm.isolate()
    assert lstm.isolated.nothing
    assert lstm._plans[0].credit == "full"


@pytest.mark.parametrize("backend", BACKENDS)
def test_batch_first_dropout_and_a_single_sequence(backend: str, kernels: None) -> None:
    torch.manual_seed(0)
    lstm = LSTM(3, 20, 2, batch_first=True, dropout=0.5, backend=backend)  # type: ignore[arg-type]
    stock = nn.LSTM(3, 20, 2, batch_first=True, dropout=0.5)
    stock.load_state_dict(lstm.state_dict())
    lstm.isolate(credit="cell")
    x = torch.randn(8, 9, 3)
    drawn = []
    for net in (lstm, stock):
        torch.manual_seed(1)
        drawn.append(net(x)[0])
    torch.testing.assert_close(*drawn, rtol=1e-4, atol=1e-5)
    y, (h, c) = lstm(x[0])
    assert (y.shape, h.shape, c.shape) == ((9, 20), (2, 20), (2, 20))


def test_without_kernels_a_part_is_computed_by_the_reference_and_the_rest_by_torch() -> None:
    lstm, x = LSTM(3, 20).double(), torch.randn(9, 8, 3, dtype=torch.float64)
    lstm.isolate(credit="cell")
    assert lstm.backend_for(x).name == "torch"
    lstm.isolate(credit="cell", part=4)
    assert lstm.isolated.part == (0, 1, 2, 3)
    assert str(lstm.backend_for(x)) == (
        "reference (units that alone pass credit need our own backward, and for the kernels the kernels keep their "
        "weights in float32, not float64)"
    )
    lstm.backend = "torch"
    with pytest.raises(InputError, match="units that alone pass credit need backend 'native' or 'reference'"):
        lstm(x)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"credit": "some"}, "credit 'some' is unknown: use one of full, cell, none"),
        ({"credit": {2: "cell"}}, r"credit of layers \[2\]: the LSTM has layers 0 to 1"),
        ({"part": 4}, "part are the units .* it goes with credit 'cell'"),
        ({"credit": "none", "part": [1]}, "with 'full' all units do, and with 'none' none"),
        ({"credit": "cell", "part": 9}, "part = 9: give a number of units from 0 to 8, or their indices"),
        ({"credit": "cell", "part": [8]}, "layer 0 has no unit 8"),
        ({"credit": "cell", "part": torch.ones(8).bool()}, "part takes the indices of units, not booleans"),
        ({"credit": "cell", "part": 2, "units": [0], "mode": "autonomous"}, "part does not go with mode 'autonomous'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(asked: dict[str, Any], message: str) -> None:
    lstm = LSTM(3, 8, 2)
    with pytest.raises(InputError, match=message):
        lstm.isolate(**asked)
    assert lstm.isolated.nothing


def test_two_directions_and_a_measured_horizon_are_refused() -> None:
    for options in ({"bidirectional": True}, {"proj_size": 4}):
        with pytest.raises(InputError, match=r"credit cannot be left out in .* use one direction and no projection"):
            LSTM(3, 8, **options).isolate(credit="cell")  # type: ignore[arg-type]
    lstm = LSTM(3, 8)
    lstm.isolate(credit="cell")
    with pytest.raises(InputError, match="isolated with credit cell: a measured step is a whole one"):
        Measurement(lstm, (4, 8)).attach()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("asked", CASES, ids=str)
def test_on_a_gpu(asked: dict[str, Any]) -> None:
    shape = SHAPES[-1]
    ours, _ = answers(seeded(shape, backend="torch").double(), shape, asked)
    there = seeded(shape, backend="torch").double().cuda()
    there.isolate(**asked)
    generator = torch.Generator().manual_seed(1)
    sizes = (shape[:3], (shape[4], shape[1], shape[3]), (shape[4], shape[1], shape[3]))
    x, h, c = (torch.randn(size, generator=generator, dtype=torch.float64).cuda().requires_grad_() for size in sizes)
    y, (h_last, c_last) = there(x, (h, c))
    (y.sin().sum() + h_last.square().sum() + c_last.cos().sum()).backward()
    found = {"y": y, "h": h_last, "c": c_last, "dx": x.grad, "dh0": h.grad, "dc0": c.grad}
    found |= {f"d{name}": p.grad for name, p in there.named_parameters()}
    assert_near(
        {name: torch.zeros_like(ours[name]) if value is None else value.cpu() for name, value in found.items()},
        ours, 1e-10, 1e-10,
    )  # fmt: skip
