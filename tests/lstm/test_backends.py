"""Whichever code computes it, an LSTM is torch.nn.LSTM; and which code does is said."""

import copy
import io
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from isotrain.errors import InputError
from isotrain.lstm import LSTM
from isotrain.lstm.backends import SMALL
from isotrain.lstm.kernels import build
from isotrain.lstm.kernels import layer as function

Answer = dict[str, Tensor | None]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine on which nobody has compiled the kernels."""
    monkeypatch.setenv("ISOTRAIN_NATIVE_DIR", str(tmp_path))
    build.load.cache_clear()
    yield
    build.load.cache_clear()


def pair(*sizes: int, backend: str = "native", **options: Any) -> tuple[LSTM, nn.LSTM]:
    """Ours and torch's, with the same weights."""
    torch.manual_seed(0)
    ours = LSTM(*sizes, backend=backend, **options)  # type: ignore[arg-type]
    stock = nn.LSTM(*sizes, **options)
    stock.load_state_dict(ours.state_dict())
    return ours, stock


def answer(net: nn.Module, x: Tensor, hx: tuple[Tensor, Tensor] | None = None, **more: Any) -> Answer:
    """Outputs, and the gradients of everything that wants one, for a loss that sees all of the outputs."""
    net.zero_grad()
    x = x.detach().clone().requires_grad_(x.requires_grad)
    hx = None if hx is None else (hx[0].detach().clone().requires_grad_(), hx[1].detach().clone().requires_grad_())
    y, (h, c) = net(x, hx, **more)
    loss: Tensor = y.sin().sum() + h.square().sum() + c.cos().sum()
    loss.backward()
    found: Answer = {"y": y, "h": h, "c": c, "dx": x.grad}
    if hx is not None:
        found |= {"dh0": hx[0].grad, "dc0": hx[1].grad}
    return found | {f"d{name}": p.grad for name, p in net.named_parameters()}


def assert_near(ours: Answer, expected: Answer, relative: float = 1e-5, floor: float = 1e-6) -> None:
    """Each tensor as a whole; None is a gradient of 0."""
    assert ours.keys() == expected.keys()
    for name, value in ours.items():
        right = expected[name]
        value = torch.zeros_like(right) if value is None and right is not None else value
        right = torch.zeros_like(value) if right is None and value is not None else right
        if value is None or right is None:
            continue
        assert value.shape == right.shape, name
        error, allowed = (value - right).norm().item(), relative * right.norm().item() + floor * right.numel() ** 0.5
        assert error <= allowed, f"{name}: error {error:.2e} of {right.norm():.2e}, allowed {allowed:.2e}"


# In place of torch.nn.LSTM ----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 40), st.integers(1, 3)),
    batch_first=st.booleans(),
    shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 10)), min_size=1, max_size=3),
    with_states=st.booleans(),
    x_trains=st.booleans(),
    backend=st.sampled_from(["native", "auto"]),
)
def test_outputs_states_and_gradients_are_torchs(
    kernels: None,
    sizes: tuple[int, int, int],
    batch_first: bool,
    shapes: list[tuple[int, int]],
    with_states: bool,
    x_trains: bool,
    backend: str,
) -> None:
    """Also as lengths and batches change; a batch of 0 stands for an input without one."""
    ours, stock = pair(*sizes, backend=backend, batch_first=batch_first)
    for steps, batch in shapes:
        shape = (batch, steps) if batch_first else (steps, batch)
        x = torch.randn(*(shape if batch else (steps,)), sizes[0]).requires_grad_(x_trains)
        state = (sizes[2], batch, sizes[1]) if batch else (sizes[2], sizes[1])
        hx = (torch.randn(state), torch.randn(state)) if with_states else None
        assert_near(answer(ours, x, hx), answer(stock, x, hx))


@pytest.mark.parametrize("backend", ["native", "torch", "reference"])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("isolated", [(), (0,), (1,), (2,), (1, 2)])
def test_the_same_seed_draws_the_same_dropout(
    backend: str, batch_first: bool, isolated: tuple[int, ...], kernels: None
) -> None:
    ours, stock = pair(5, 20, 3, backend=backend, batch_first=batch_first, dropout=0.5)
    ours.isolate(layer=isolated)
    x = torch.randn(10, 8, 5)
    answers = []
    for net in (ours, stock):
        torch.manual_seed(1)
        answers.append(answer(net, x))
    for k in isolated:
        answers[1] |= {name: None for name in answers[1] if name.endswith(f"l{k}")}
    assert_near(*answers)
    assert not torch.equal(ours(x)[0], ours(x)[0])
    assert torch.equal(ours.eval()(x)[0], ours(x)[0])
    assert_near({"y": ours(x)[0]}, {"y": stock.eval()(x)[0]})


def test_shapes_can_be_worked_out_without_numbers() -> None:
    ours, stock = (net.to("meta") for net in pair(3, 20, 2, backend="auto", batch_first=True))
    x = torch.randn(8, 9, 3, device="meta")
    assert [t.shape for t in (ours(x)[0], *ours(x)[1])] == [t.shape for t in (stock(x)[0], *stock(x)[1])]


@pytest.mark.parametrize("backend", ["auto", "native", "torch", "reference"])
def test_weights_go_to_and_fro(backend: str, kernels: None) -> None:
    ours, stock = pair(3, 20, 2, backend=backend)
    x = torch.randn(9, 8, 3)
    assert [(n, p.shape) for n, p in ours.named_parameters()] == [(n, p.shape) for n, p in stock.named_parameters()]
    with torch.no_grad():
        for p in stock.parameters():
            p.add_(0.1)
    assert not torch.allclose(ours(x)[0], stock(x)[0], atol=1e-3)
    file = io.BytesIO()
    torch.save(stock.state_dict(), file)
    file.seek(0)
    ours.load_state_dict(torch.load(file, weights_only=True))
    assert_near({"y": ours(x)[0]}, {"y": stock(x)[0]})


def test_copies_and_files_of_the_module_compute_the_same(kernels: None) -> None:
    ours, _ = pair(3, 20, 2, batch_first=True, dropout=0.0)
    ours.isolate(layer=0, units={1: [0, 3]}, mode="cut", steps=4)
    x = torch.randn(8, 9, 3)
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    for twin in (copy.deepcopy(ours), torch.load(file, weights_only=False)):
        assert (twin.backend, twin.isolated.mode, twin.isolated.steps) == ("native", "cut", 4)
        for a, b in zip(answer(twin, x).values(), answer(ours, x).values(), strict=True):
            assert a is b is None or torch.equal(a, b)  # type: ignore[arg-type]


def loss_curve(net: nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
    """200 steps of Adam: a running sum, which takes memory."""
    torch.manual_seed(1)
    head = nn.Linear(24, 1)
    x = torch.randn(30, 16, 4)
    target = (x[..., :1].cumsum(0) + x[..., 1:2].roll(3, 0)).to(dtype)
    for p in net.parameters():
        nn.init.uniform_(p, -0.2, 0.2)
    net, head, x = net.to(dtype), head.to(dtype), x.to(dtype)
    optimiser = torch.optim.Adam([*net.parameters(), *head.parameters()], lr=1e-3)
    losses = []
    for _ in range(200):
        optimiser.zero_grad()
        loss = nn.functional.mse_loss(head(net(x)[0]), target)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return torch.tensor(losses, dtype=torch.float64)


def test_training_follows_torchs_loss_curve_as_closely_as_float32_allows(kernels: None) -> None:
    """Rounding is amplified from step to step, torch's as well as ours. So: over 50 steps one part in 10^5, and over
    200 no further from the curve in float64 than five times what torch's own float32 is.
    """
    exact = loss_curve(nn.LSTM(4, 24, 2), torch.float64)
    ours, stock = (loss_curve(net) for net in (LSTM(4, 24, 2, backend="native"), nn.LSTM(4, 24, 2)))
    assert exact[-1] < 0.3 * exact[0]
    assert ((ours - stock).abs() / exact)[:50].max() < 1e-5
    off, allowed = (((curve - exact).abs() / exact).max().item() for curve in (ours, stock))
    assert off < 5 * allowed + 1e-5
    assert allowed < 1e-3  # else the tolerance would say nothing


# Which, and why ---------------------------------------------------------------------------------------------------

ENOUGH = (SMALL, 1, 3)  # steps, batch, inputs


def chosen(net: LSTM, x: Tensor) -> tuple[str, str]:
    net(x)
    assert net.chosen is not None
    return net.chosen.name, net.chosen.why


def test_float32_on_a_cpu_takes_our_kernels(kernels: None, caplog: pytest.LogCaptureFixture) -> None:
    net = LSTM(3, 20)
    with caplog.at_level(logging.INFO, "isotrain.lstm"):
        assert chosen(net, torch.randn(ENOUGH)) == ("native", "a float32 CPU network, fp32 products")
        net(torch.randn(ENOUGH))
    assert caplog.messages == ["LSTM(3, 20, 1 layers): native (a float32 CPU network, fp32 products)"]  # once


def test_tiny_calls_take_torchs_kernels_and_isolated_units_the_reference(kernels: None) -> None:
    net = LSTM(3, 20)
    tiny = torch.randn(SMALL - 1, 1, 3)
    assert chosen(net, tiny) == ("torch", "too small for our kernels to pay")
    assert chosen(net, torch.randn(ENOUGH))[0] == "native"
    net.isolate(units=[1])
    assert chosen(net, tiny) == ("reference", "isolated units need our own backward, and for the kernels it is small")
    assert chosen(net.eval(), tiny)[0] == "torch"


def test_float64_takes_torchs_kernels_and_isolated_units_the_reference(kernels: None) -> None:
    net, x = LSTM(3, 20).double(), torch.randn(ENOUGH).double()
    assert chosen(net, x) == ("torch", "the kernels keep their weights in float32, not float64")
    net.isolate(units=[1], mode="cut")
    name, why = chosen(net, x)
    assert name == "reference" and why.endswith("not float64")
    net.isolate(units=[1], mode="autonomous")
    assert chosen(net, x)[0] == "torch"


def test_without_kernels_it_says_how_to_get_them(no_kernels: None, caplog: pytest.LogCaptureFixture) -> None:
    net = LSTM(3, 20)
    with caplog.at_level(logging.INFO, "isotrain.lstm"):
        name, why = chosen(net, torch.randn(ENOUGH))
    assert name == "torch" and why.startswith("the native LSTM kernels are not built on this machine: run `python -m")
    assert f"LSTM(3, 20, 1 layers): torch ({why})" in caplog.messages
    net.isolate(units=[1])
    assert chosen(net, torch.randn(ENOUGH))[0] == "reference"
    with pytest.raises(InputError, match="LSTM backend 'native': the native LSTM kernels are not built"):
        LSTM(3, 20, backend="native")(torch.randn(ENOUGH))


def test_without_products_in_bf16_torchs_kernels_do_them(kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "has_brgemm", lambda bf16: not bf16)
    x = torch.randn(ENOUGH)
    assert chosen(LSTM(3, 20, compute="bf16"), x) == ("torch", "this processor has no bf16 products")
    with pytest.raises(InputError, match="backend 'native': this processor has no bf16 products"):
        LSTM(3, 20, backend="native", compute="bf16")(x)


def test_a_backend_that_cannot_do_what_is_asked_is_refused_by_name(kernels: None) -> None:
    with pytest.raises(InputError, match="backend 'native': the kernels keep their weights in float32, not float64"):
        LSTM(3, 20, backend="native").double()(torch.randn(ENOUGH).double())
    with pytest.raises(InputError, match="backend 'native': the kernels are for CPUs, not meta"):
        LSTM(3, 20, backend="native").to("meta")(torch.randn(ENOUGH, device="meta"))
    net = LSTM(3, 20, backend="torch")
    for mode in ("exact", "cut"):
        net.isolate(units=[1], mode=mode)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="backend 'torch' always computes every unit's gradient"):
            net(torch.randn(ENOUGH))
    net.isolate(units=[1], mode="masked")
    assert chosen(net, torch.randn(ENOUGH)) == ("torch", "asked for")


def test_no_time_steps_are_refused(kernels: None) -> None:
    with pytest.raises(InputError, match="at least one step"):
        LSTM(3, 20, backend="native")(torch.randn(0, 4, 3))


# Precision --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["asked for", "a surrounding autocast"])
def test_bf16_products_are_taken_where_bf16_is_asked_for(how: str, bf16_kernels: None) -> None:
    ours, stock = pair(3, 64, 2)
    ours.compute = "bf16" if how == "asked for" else "fp32"
    x = torch.randn(20, 16, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=how != "asked for"):
        half = answer(ours, x)
    full = answer(stock, x)
    errors = [((half[name] - full[name]).norm() / full[name].norm()).item() for name in full if name != "dx"]
    assert all(1e-4 < error < 1e-2 for error in errors)  # below it would not have been bf16


# What is isolated -------------------------------------------------------------------------------------------------


@st.composite
def zones(draw: Any, layers: int, hidden: int) -> dict[str, Any]:
    mode = draw(st.sampled_from(["exact", "cut", "masked"]))
    layer = draw(st.sets(st.integers(0, layers - 1), max_size=layers - 1))
    some = st.lists(st.integers(0, hidden - 1), max_size=hidden - 1)
    return {
        "layer": layer,
        "units": draw(some | st.dictionaries(st.integers(0, layers - 1), some)),
        "mode": mode,
        "steps": draw(st.none() | st.integers(1, 8)),
    }


@settings(max_examples=60, deadline=None)
@given(data=st.data(), layers=st.integers(1, 3), hidden=st.integers(1, 20), x_trains=st.booleans())
def test_any_isolation_is_the_same_on_every_backend(
    kernels: None, data: Any, layers: int, hidden: int, x_trains: bool
) -> None:
    """The truth is the reference in float64, which is held to autograd elsewhere."""
    zone = data.draw(zones(layers, hidden))
    x = torch.randn(7, 4, 3).requires_grad_(x_trains)
    hx = (torch.randn(layers, 4, hidden), torch.randn(layers, 4, hidden)) if data.draw(st.booleans()) else None
    answers = {}
    for backend in ("reference", "native", "torch"):
        ours, _ = pair(3, hidden, layers, backend=backend)
        ours.isolate(**zone)
        if backend == "torch" and ours.isolated.by_unit:
            continue
        if backend == "reference":
            wide = None if hx is None else (hx[0].double(), hx[1].double())
            answers[backend] = answer(ours.double(), x.detach().double().requires_grad_(x_trains), wide)
        else:
            answers[backend] = answer(ours, x, hx)
            for name, value in answers[backend].items():
                if name[1:].startswith(("weight", "bias")):
                    assert (value is None) == (int(name[-1]) in ours.isolated.layers), name
    for found in answers.values():
        assert_near(found, answers["reference"], relative=1e-5, floor=2e-6)


@pytest.mark.parametrize("backend", ["native", "torch", "reference"])
def test_layers_below_the_lowest_active_one_keep_nothing_for_a_backward(
    backend: str, kernels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen in what autograd saves: the activations of the upper layer only."""
    sizes = []
    kept = watch(monkeypatch)
    for layer in ((), (0,), (0, 1)):
        kept.clear()
        ours, _ = pair(3, 20, 3, backend=backend)
        ours.isolate(layer=layer)
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, saved=saved: saved.append(t.numel()) or t, lambda t: t):
            ours(torch.randn(9, 8, 3))
        sizes.append(sum(saved) + sum(kept))
    assert sizes[0] > sizes[1] > sizes[2]


def watch(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of what the native layer keeps from now on."""
    run, kept = function._run, []

    def watched(*arguments: Any, **options: Any) -> Any:
        found = run(*arguments, **options)
        kept.extend(t.numel() for t in found[3:])
        return found

    monkeypatch.setattr(function, "_run", watched)
    return kept


# Several processes ------------------------------------------------------------------------------------------------


def gradients_of_a_worker(rank: int, folder: str, units: tuple[int, ...]) -> None:
    """One of two processes: its half of the batch, through DistributedDataParallel."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    x, target, net = job()
    net.isolate(units=units)
    half = slice(None), slice(8 * rank, 8 * rank + 8)
    shared = DistributedDataParallel(net)
    y = shared(x[half])[0]
    nn.functional.mse_loss(y, target[half]).backward()
    torch.save({name: p.grad for name, p in net.named_parameters()}, f"{folder}/{rank}")
    torch.distributed.destroy_process_group()


def job() -> tuple[Tensor, Tensor, LSTM]:
    torch.manual_seed(0)
    return torch.randn(9, 16, 3), torch.randn(9, 16, 20), LSTM(3, 20, 2, backend="native")


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed training")
def test_two_processes_together_have_the_gradient_of_the_whole_batch(kernels: None, tmp_path: Path) -> None:
    units = (1, 4, 18)
    multiprocessing.spawn(gradients_of_a_worker, (str(tmp_path), units), nprocs=2)
    x, target, net = job()
    net.isolate(units=units)
    nn.functional.mse_loss(net(x)[0], target).backward()
    expected = {name: p.grad for name, p in net.named_parameters()}
    for rank in range(2):
        assert_near(torch.load(tmp_path / str(rank)), expected, floor=1e-8)


# On a GPU ---------------------------------------------------------------------------------------------------------

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
ZONES: dict[str, Callable[[LSTM], None]] = {
    "nothing": lambda net: net.isolate(),
    "layer": lambda net: net.isolate(layer=0),
    "upper layer": lambda net: net.isolate(layer=1),
    "steps": lambda net: net.isolate(steps=4),
    "layers and steps": lambda net: net.isolate(layer=[0, 2], steps=4),
    "autonomous": lambda net: net.isolate(units=range(5, 15), mode="autonomous"),
    "exact": lambda net: net.isolate(units=[1, 7]),
    "cut": lambda net: net.isolate(units=[1, 7], mode="cut"),
}


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("zone", ZONES)
def test_a_gpu_computes_what_the_cpu_does(zone: str) -> None:
    answers = []
    torch.manual_seed(1)
    x, hx = torch.randn(9, 4, 3).double(), (torch.randn(3, 4, 20).double(), torch.randn(3, 4, 20).double())
    for device in ("cpu", "cuda"):
        net = pair(3, 20, 3, backend="auto")[0].double().to(device)
        ZONES[zone](net)
        states = (hx[0].to(device), hx[1].to(device))
        found = answer(net, x.to(device), states)
        assert net.chosen is not None and net.chosen.name == ("reference" if zone in ("exact", "cut") else "torch")
        answers.append({name: None if value is None else value.cpu() for name, value in found.items()})
    assert_near(*answers, relative=1e-9, floor=1e-10)
