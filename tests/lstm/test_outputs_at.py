"""Outputs at the steps that a loss reads, with a backward of the last steps before each: against stock in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isotrain.errors import InputError
from isotrain.lstm import LSTM

pytestmark = pytest.mark.usefixtures("one_thread")

BACKENDS = ["reference", "torch", "native"]
STEPS, BATCH, INPUTS, HIDDEN, LAYERS = 30, 3, 4, 20, 2
AT = torch.tensor([[5, 29, 5, 17], [29, 28, 27, 6], [11, 5, 20, 21]])  # in any order, twice, close to one another
ASKED: list[dict[str, Any]] = [{"credit": "none"}, {"steps": 1}, {"steps": 4}, {"credit": "none", "steps": 4}]


def pair(backend: str, **options: Any) -> tuple[LSTM, nn.LSTM]:
    """Ours, and stock in float64 with the same weights."""
    torch.manual_seed(0)
    ours = LSTM(INPUTS, HIDDEN, LAYERS, backend=backend, **options)  # type: ignore[arg-type]
    stock = nn.LSTM(INPUTS, HIDDEN, LAYERS, batch_first=options.get("batch_first", False)).double()
    stock.load_state_dict(ours.state_dict())
    return ours, stock


def series(batch_first: bool) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(STEPS, BATCH, INPUTS, generator=generator, dtype=torch.float64)
    states = torch.randn(2, LAYERS, BATCH, HIDDEN, generator=generator, dtype=torch.float64)
    return (x.transpose(0, 1).contiguous() if batch_first else x), (states[0], states[1])


def truth(stock: nn.LSTM, x: Tensor, hx: tuple[Tensor, Tensor] | None, at: Tensor, reach: int) -> Tensor:
    """Each output by itself: stock without a graph up to ``reach`` steps before it, and with one from there."""
    found = []
    for b, row in enumerate(at.tolist()):
        own = x[b] if stock.batch_first else x[:, b]
        for t in row:
            first = t - reach + 1
            states = None if hx is None else (hx[0][:, b].contiguous(), hx[1][:, b].contiguous())
            if first > 0:
                with torch.no_grad():
                    _, states = stock(own[:first], states)
            found.append(stock(own[first : t + 1], states)[0][-1])
    return torch.stack(found).view(*at.shape, -1)


def gradients(net: nn.LSTM, y: Tensor, x: Tensor) -> dict[str, Tensor]:
    y.double().sin().sum().backward()
    leaves = {"dx": x, **dict(net.named_parameters())}
    return {"y": y.detach()} | {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}


def assert_near(ours: dict[str, Tensor], right: dict[str, Tensor], relative: float) -> None:
    assert ours.keys() == right.keys()
    for name, value in ours.items():
        error, whole = (value.double() - right[name]).norm().item(), right[name].norm().item()
        assert error <= relative * whole, f"{name}: error {error:.2e} of {whole:.2e}"


def compared(asked: dict[str, Any], backend: str, dtype: torch.dtype, *, given: bool, **options: Any) -> Any:
    ours, stock = pair(backend, **options)
    ours = ours.to(dtype)
    ours.isolate(**asked)
    x, hx = series(bool(options.get("batch_first")))
    mine, theirs = x.to(dtype, copy=True).requires_grad_(), x.clone().requires_grad_()
    own_hx = (hx[0].to(dtype), hx[1].to(dtype)) if given else None
    y = ours.outputs_at(mine, AT, own_hx)
    reach = ours.isolated.reach
    assert reach is not None
    right = truth(stock, theirs, hx if given else None, AT, reach)
    return gradients(ours, y, mine), gradients(stock, right, theirs)


@pytest.mark.parametrize("given", [False, True], ids=["from zero", "states given"])
@pytest.mark.parametrize("asked", ASKED, ids=str)
@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_in_float64_it_is_autograd_of_stock_from_detached_states(
    backend: str, asked: dict[str, Any], given: bool
) -> None:
    assert_near(*compared(asked, backend, torch.float64, given=given), 1e-12)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_the_kernels_are_near(asked: dict[str, Any], batch_first: bool, kernels: None) -> None:
    assert_near(*compared(asked, "native", torch.float32, given=True, batch_first=batch_first), 1e-5)


@pytest.mark.parametrize("backend", ["torch", "native"])
def test_in_bf16_it_stays_near(backend: str, bf16_kernels: None) -> None:
    ours, right = compared({"steps": 4}, backend, torch.float32, given=True, compute="bf16")
    assert_near(ours, right, 0.02)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_first_steps_can_be_read(backend: str, kernels: None) -> None:
    """From the states given, before which nothing is."""
    ours, stock = pair(backend)
    ours.isolate(steps=2)
    x, hx = series(False)
    at = torch.tensor([[1], [1], [2]])
    y = ours.outputs_at(x.float(), at, (hx[0].float(), hx[1].float()))
    torch.testing.assert_close(y, truth(stock, x, hx, at, 2).float(), rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="step 0 is read, but steps = 2: only 0 come before it"):
        ours.outputs_at(x.float(), at - 1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("asked", [{}, {"credit": "cell"}, {"credit": {0: "none"}}, {"layer": 0}], ids=str)
def test_with_anything_else_it_reads_the_forward(backend: str, asked: dict[str, Any], kernels: None) -> None:
    found = []
    for way in ("at", "forward"):
        ours, _ = pair(backend, batch_first=True)
        ours.isolate(**asked)
        x = series(True)[0].float().requires_grad_()
        y = ours.outputs_at(x, AT) if way == "at" else ours(x)[0].gather(1, AT[..., None].expand(-1, -1, HIDDEN))
        y.sin().sum().backward()
        found.append([y, x.grad, *(p.grad for p in ours.parameters() if p.grad is not None)])
    for mine, theirs in zip(*found, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_credit_it_is_the_gradient_of_the_whole_forward(backend: str, kernels: None) -> None:
    """Where no step sends anything to the step before, nothing is lost by leaving those steps out."""
    found = []
    for way in ("at", "forward"):
        ours, _ = pair(backend, batch_first=True)
        ours.isolate(credit="none")
        x = series(True)[0].float()
        y = ours.outputs_at(x, AT) if way == "at" else ours(x)[0].gather(1, AT[..., None].expand(-1, -1, HIDDEN))
        y.sin().sum().backward()
        found.append({name: p.grad for name, p in ours.named_parameters() if p.grad is not None})
    assert_near(found[0], {name: value.double() for name, value in found[1].items()}, 1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_layers_and_units_stay_isolated(backend: str, kernels: None) -> None:
    ours, _ = pair(backend)
    whole = compared({"steps": 4}, backend, torch.float32, given=False)[0]
    ours.isolate(steps=4, layer=0)
    ours.outputs_at(series(False)[0].float(), AT).sin().sum().backward()
    assert [name for name, p in ours.named_parameters() if p.grad is None] == [n for n in whole if n.endswith("l0")]
    torch.testing.assert_close(ours.weight_hh_l1.grad, whole["weight_hh_l1"], rtol=1e-4, atol=1e-5)
    if backend == "torch":
        return
    ours.zero_grad()
    ours.isolate(steps=4, units=range(7))
    ours.outputs_at(series(False)[0].float(), AT).sin().sum().backward()
    gone = (torch.arange(HIDDEN) < 7).repeat(4)
    assert ours.weight_hh_l1.grad is not None
    assert not ours.weight_hh_l1.grad[gone].any()
    torch.testing.assert_close(ours.weight_hh_l1.grad[~gone], whole["weight_hh_l1"][~gone], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_evaluation_and_no_grad_read_the_forward(backend: str, kernels: None) -> None:
    ours, stock = pair(backend)
    ours.isolate(credit="none")
    x = series(False)[0]
    right = stock(x)[0].transpose(0, 1).gather(1, AT[..., None].expand(-1, -1, HIDDEN)).float()
    with torch.no_grad():
        torch.testing.assert_close(ours.outputs_at(x.float(), AT), right, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.eval().outputs_at(x.float(), AT), right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_trajectory_holds_the_states_of_one_run_once_it_is_warm(backend: str, kernels: None) -> None:
    ours, stock = pair(backend)
    x = torch.randn(700, INPUTS, generator=torch.Generator().manual_seed(2))
    h, c = ours.trajectory(x, warm=200)
    assert h.shape == c.shape == (LAYERS, 701, HIDDEN)
    assert not h[:, 0].any() and not c[:, 0].any()
    for first in (250, 699):
        with torch.no_grad():
            _, (right_h, right_c) = stock(x[:first].double())
        torch.testing.assert_close(h[:, first], right_h.float(), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(c[:, first], right_c.float(), rtol=1e-3, atol=1e-4)


def test_what_cannot_be_is_refused_by_name() -> None:
    x = torch.randn(9, 2, 3)
    at = torch.tensor([[8], [8]])
    ours = LSTM(3, 8)
    ours.isolate(units=range(4), mode="autonomous", steps=2)
    with pytest.raises(InputError, match="steps before each step that is read do not go with autonomous units"):
        ours.outputs_at(x, at)
    projected = LSTM(3, 8, proj_size=4)
    projected.isolate(steps=2)
    with pytest.raises(InputError, match="do not go with an LSTM with projections"):
        projected.outputs_at(x, at)
    with pytest.raises(InputError, match="has no states that go on"):
        projected.trajectory(x[:, 0], warm=2)
