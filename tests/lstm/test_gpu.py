"""What runs on a GPU, as far as a CPU can tell: the same code, with the GPU's choices made here."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tests.lstm.test_credit import SHAPES, answers, assert_near, seeded
from torch import Tensor, nn

import isotrain.lstm
from isotrain.isolation import MaskedAdam
from isotrain.lstm import LSTM, backends, credit, cudnn, precision
from isotrain.lstm import lstm as module
from isotrain.lstm.cudnn import Gpu, kernels, padded
from isotrain.lstm.graphs import GraphedStep, on_cuda, without_graph

KERNELS = Path(isotrain.lstm.__file__).parent / "kernels" / "scan_triton.py"
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs triton: pip install 'isotrain[gpu]'"
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
pytestmark = pytest.mark.usefixtures("one_thread")


def loaded(monkeypatch: pytest.MonkeyPatch, interpret: bool) -> ModuleType:
    """The Triton kernels, for Triton's interpreter or its compiler: the decorator decides when it is applied."""
    monkeypatch.setenv("TRITON_INTERPRET", str(int(interpret)))
    spec = importlib.util.spec_from_file_location(f"scan_triton_{interpret}", KERNELS)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, found)
    spec.loader.exec_module(found)
    return found


@pytest.fixture
def as_on_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A CPU takes the paths of a GPU without Triton."""
    for part in (credit, backends, module):
        monkeypatch.setattr(part, "on_gpu", lambda x: True)
    monkeypatch.setattr(credit, "scan", lambda: None)
    yield


# The kernels of Triton ---------------------------------------------------------------------------------------------


@needs_triton
@pytest.mark.parametrize("asked", ["cell", "none"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 3, 7), (19, 2, 70)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_kernels_compute_what_plain_torch_does(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, shape: tuple[int, int, int], asked: str
) -> None:
    """Against autograd in float64, from the same rounded sums."""
    scan = loaded(monkeypatch, interpret=True)
    steps, batch, hidden = shape
    generator = torch.Generator().manual_seed(2)
    sums = torch.randn(steps, batch, 4 * hidden, generator=generator).to(dtype)
    c0, dy, dc = (torch.randn(size, generator=generator) for size in (shape[1:], shape, shape[1:]))
    leaf, start = sums.double().requires_grad_(), c0.double().requires_grad_()
    c, expected = start, []
    for now in leaf:
        i, f, g, o = now.chunk(4, -1)
        c = f.sigmoid() * (c if asked == "cell" else c.detach()) + i.sigmoid() * g.tanh()
        expected.append(o.sigmoid() * c.tanh())
    truth = torch.stack(expected)
    torch.autograd.backward([truth, c], [dy.double(), dc.double()])
    y, cells = scan.forward(sums, c0)
    dsums, dc0 = scan.backward(sums, c0, cells, dy, dc, cell=asked == "cell", scale=8.0)
    assert y.dtype == dsums.dtype == dtype and cells.dtype == torch.float32
    near: dict[str, Any] = {"rtol": 2e-3, "atol": 1e-3} if dtype == torch.float16 else {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(y.double(), truth.detach(), **near)
    torch.testing.assert_close(cells[-1].double(), c.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(dsums.double() / 8, leaf.grad, **near)
    if asked == "cell":
        torch.testing.assert_close(dc0.double(), start.grad, rtol=1e-5, atol=1e-6)


@needs_triton
@pytest.mark.parametrize("asked", ["cell", "none"])
def test_a_layer_by_the_kernels_has_the_gradient_of_one_by_hand(
    monkeypatch: pytest.MonkeyPatch, as_on_gpu: None, asked: str
) -> None:
    scan = loaded(monkeypatch, interpret=True)
    monkeypatch.setattr(credit, "scan", lambda: scan)
    shape = SHAPES[0]
    ours, by_hand = answers(seeded(shape, backend="torch"), shape, {"credit": asked}, torch.float32)
    assert_near(ours, by_hand, 1e-5, 1e-5)


@needs_triton
@pytest.mark.parametrize("hidden", [1, 64, 150, 512])
@pytest.mark.parametrize("kind", ["fp32", "fp16", "bf16"])
def test_the_kernels_compile_for_an_h100_and_fit_on_it(monkeypatch: pytest.MonkeyPatch, kind: str, hidden: int) -> None:
    """A multiprocessor of an H100 has 227 KiB of memory to share and 65,536 registers."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    scan = loaded(monkeypatch, interpret=False)
    half, whole = f"*{kind}", "*fp32"
    sizes = {"T": "i32", "N": "i32", "H": "i32"}
    forward = {"sums": half, "c0": whole, "y": half, "cells": whole, **sizes}
    backward = {"sums": half, "c0": whole, "cells": whole, "dy": whole, "dc_last": whole, "dsums": half, "dc0": whole}
    backward |= {"scale": "fp32", **sizes}
    jobs: list[tuple[Any, dict[str, str], dict[str, Any]]] = [(scan.forward_kernel, forward, {})]
    jobs += [(scan.backward_kernel, backward, {"CELL": cell, "STEPS": scan.CHUNK}) for cell in (True, False)]
    for kernel, signature, constants in jobs:
        constants = {**constants, "BLOCK": scan.BLOCK} | ({"H": 1} if hidden == 1 else {})
        named = {name: "constexpr" if name in constants else signature[name] for name in kernel.arg_names}
        attributes = {}
        if hidden % 16 == 0:  # as Triton notes of arguments that are multiples of 16
            attributes = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in ("N", "H")}
        source = ASTSource(kernel, named, constants, attributes)
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": scan.WARPS})
        assert compiled.metadata.shared <= 227 * 1024
        assert ".target sm_90" in compiled.asm["ptx"]


# Credit without Triton ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["cell", "none"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_one_product_for_all_gates_changes_nothing(as_on_gpu: None, shape: tuple[int, ...], asked: str) -> None:
    ours, by_hand = answers(seeded(shape, backend="torch").double(), shape, {"credit": asked})
    assert_near(ours, by_hand, 1e-10, 1e-10)


# Types -------------------------------------------------------------------------------------------------------------


def of_a_small_loss(compute: str, credit_: str, size: float) -> dict[str, Tensor]:
    torch.manual_seed(5)
    lstm = LSTM(3, 16, 2, backend="torch", compute=compute)  # type: ignore[arg-type]
    lstm.isolate(credit=credit_)  # type: ignore[arg-type]
    x = torch.randn(12, 4, 3, requires_grad=True)
    y, _ = lstm(x)
    (size * y.square().sum()).backward()
    gradients = {name: p.grad / size for name, p in lstm.named_parameters() if p.grad is not None}
    assert x.grad is not None
    return {"y": y.detach(), "x": x.grad / size, **gradients}


@pytest.mark.parametrize("asked", ["full", "cell", "none"])
@pytest.mark.parametrize("compute", ["fp16", "bf16"])
def test_half_types_keep_a_gradient_that_float16_has_no_numbers_for(as_on_gpu: None, compute: str, asked: str) -> None:
    """The loss is a millionth of its size: float16's least number is 6e-8."""
    expected = of_a_small_loss("fp32", asked, 1e-6)
    for name, value in of_a_small_loss(compute, asked, 1e-6).items():
        assert value.dtype == torch.float32
        error = (value - expected[name]).norm() / expected[name].norm()
        assert error < (0.02 if compute == "fp16" else 0.05), (name, float(error))


def test_without_the_scale_float16_loses_it(as_on_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above is able to fail."""
    for part in (precision, credit):
        monkeypatch.setattr(part, "SCALE", 1.0)
    expected, found = (of_a_small_loss(kind, "full", 1e-6)["weight_hh_l0"] for kind in ("fp32", "fp16"))
    assert (found - expected).norm() / expected.norm() > 0.05


# cuDNN's kernels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hidden", "inputs", "batch", "options", "forward", "backward", "why"),
    [
        (128, 7, 64, {"dtype": torch.float32}, "persistent for few units", "persistent for few units", "128 units"),
        (128, 7, 63, {"layers": 5}, "persistent for few units", "persistent for few units", "128 units"),
        (129, 7, 64, {}, "persistent for few units", "standard", "129 units are no multiple of 128"),
        (192, 128, 64, {}, "persistent for few units", "standard", "192 units are no multiple of 128"),
        (193, 128, 64, {}, "standard", "standard", "193 units are no multiple"),
        (256, 128, 64, {}, "persistent", "persistent", "all sizes fit"),
        (256, 7, 64, {}, "standard", "standard", "7 inputs are no multiple of 128"),
        (256, 128, 63, {}, "standard", "standard", "a batch of 63 is no multiple of 8"),
        (256, 128, 128, {}, "persistent", "persistent", "all sizes fit"),
        (256, 128, 136, {}, "standard", "standard", "a batch of 136 is larger than 128"),
        (256, 128, 64, {"layers": 2}, "standard", "standard", "2 layers in one module"),
        (256, 128, 64, {"dtype": torch.bfloat16}, "standard", "standard", "bfloat16 is not float16"),
        (1024, 128, 64, {}, "persistent", "persistent", "all sizes fit"),
        (1152, 128, 64, {}, "standard", "standard", "1152 units are more than 1024"),
        (256, 128, 64, {"gpu": Gpu(8, 6, 84)}, "standard", "standard", "capability 8.6, 84 processors"),
        (64, 7, 64, {"dtype": torch.float64}, "standard", "standard", "float64 is not float16"),
    ],
)  # fmt: skip
def test_which_kernels_torch_takes(
    hidden: int, inputs: int, batch: int, options: dict[str, Any], forward: str, backward: str, why: str
) -> None:
    """Both edges of every bound of torch's rules."""
    found = kernels(hidden, inputs, batch, **options)
    assert (found.forward, found.backward) == (forward, backward)
    assert why in found.why


@pytest.mark.parametrize("units", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("inputs", "hidden", "batch"), [(7, 150, 5), (128, 128, 8), (3, 9, 130)])
def test_a_padded_layer_is_the_layer(inputs: int, hidden: int, batch: int, bias: bool, units: bool) -> None:
    torch.manual_seed(3)
    lstm = nn.LSTM(inputs, hidden, bias=bias).double()
    x = torch.randn(4, batch, inputs).double().requires_grad_()
    states = tuple(torch.randn(1, batch, hidden).double().requires_grad_() for _ in range(2))
    leaves = [x, *states, *lstm.parameters()]
    seen: list[tuple[int, ...]] = []

    def run(x: Tensor, hx: Any, weights: list[Tensor]) -> Any:
        seen.append((*x.shape[1:], hx[0].shape[-1], len(weights[1]) // 4))
        y, h, c = torch._VF.lstm(x, hx, weights, bias, 1, 0.0, True, False, False)
        return y, (h, c)

    def gradients(found: Any) -> list[Tensor]:
        y, (h, c) = found
        return [y, h, c, *torch.autograd.grad(y.sin().sum() + h.square().sum() + c.cos().sum(), leaves)]

    ours = gradients(padded(run, x, states, list(lstm.parameters()), units=units))  # type: ignore[arg-type]
    for a, b in zip(ours, gradients(lstm(x, states)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    for rows, columns, wide, also in seen:
        assert rows % 8 == 0 and rows <= 128 and columns % 128 == 0
        assert wide == also == (-(-hidden // 128) * 128 if units else hidden)


@pytest.mark.parametrize("batch_first", [False, True])
def test_wide_float16_layers_are_called_one_by_one_at_sizes_that_fit(
    as_on_gpu: None, monkeypatch: pytest.MonkeyPatch, batch_first: bool
) -> None:
    """And answer what the same LSTM does in float32, up to float16's rounding."""
    torch.manual_seed(4)
    lstm = LSTM(3, 256, 2, backend="torch", compute="fp16", batch_first=batch_first)
    truth = nn.LSTM(3, 256, 2, batch_first=batch_first)
    truth.load_state_dict(lstm.state_dict())
    x = torch.randn(4, 6, 3)
    run, calls = torch._VF.lstm, []

    def watched(x: Tensor, *others: Any) -> Any:
        calls.append((x.dtype, tuple(x.shape), others[3]))
        return run(x, *others)

    monkeypatch.setattr(torch._VF, "lstm", watched)
    y, (h, c) = lstm(x)
    steps, batch = (6, 4) if batch_first else (4, 6)
    rows = -(-batch // 8) * 8
    assert calls == [(torch.float16, (steps, rows, 128), 1), (torch.float16, (steps, rows, 256), 1)]
    monkeypatch.undo()
    expected, (h_there, c_there) = truth(x)
    for ours, there in ((y, expected), (h, h_there), (c, c_there)):
        torch.testing.assert_close(ours, there, rtol=0.0, atol=2e-3)


# On a GPU ----------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("asked", ["cell", "none"])
@pytest.mark.parametrize("compute", ["fp32", "fp16", "bf16"])
def test_credit_by_triton_is_credit_by_plain_torch(monkeypatch: pytest.MonkeyPatch, compute: str, asked: str) -> None:
    assert credit.scan() is not None, "torch's CUDA builds bring Triton along"
    found = []
    for by_triton in (True, False):
        if not by_triton:
            monkeypatch.setattr(credit, "scan", lambda: None)
        torch.manual_seed(6)
        lstm = LSTM(7, 150, backend="torch", compute=compute).cuda()  # type: ignore[arg-type]
        lstm.isolate(credit=asked)  # type: ignore[arg-type]
        x = torch.randn(40, 5, 7).cuda().requires_grad_()
        y, (h, c) = lstm(x)
        (y.sin().mean() + h.square().mean() + c.cos().mean()).backward()
        found.append([y, h, c, x.grad, *(p.grad for p in lstm.parameters())])
    for ours, plain in zip(*found, strict=True):
        error = (ours.double() - plain.double()).norm() / plain.double().norm()
        assert error < {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2}[compute]


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(("hidden", "layers"), [(64, 2), (256, 1), (256, 2), (150, 2)])
@pytest.mark.parametrize("compute", ["fp32", "fp16", "bf16"])
def test_any_type_and_size_on_a_gpu_is_near_the_cpu(compute: str, hidden: int, layers: int, batch_first: bool) -> None:
    found = []
    for device, kind in (("cpu", "fp32"), ("cuda", compute)):
        torch.manual_seed(7)
        lstm = LSTM(7, hidden, layers, batch_first=batch_first, backend="torch", compute=kind)  # type: ignore[arg-type]
        x = torch.randn(24, 13, 7).to(device).requires_grad_()
        y, (h, c) = lstm.to(device)(x)
        (y.sin().mean() + h.square().mean() + c.cos().mean()).backward()
        found.append([tensor.detach().cpu() for tensor in (y, h, c, x.grad, *(p.grad for p in lstm.parameters()))])
    for here, there in zip(*found, strict=True):
        error = (there - here).norm() / here.norm()
        assert error < {"fp32": 2e-3, "fp16": 2e-2, "bf16": 8e-2}[compute]  # fp32: cuDNN may use TF32


@pytest.mark.gpu
@needs_gpu
def test_torch_takes_the_persistent_kernels_at_these_sizes() -> None:
    """As its profiler names them: a persistent layer is one kernel, a standard one has a product for each step."""
    lstm = LSTM(7, 256, backend="torch", compute="fp16").cuda()
    x = torch.randn(64, 64, 7, device="cuda")
    counts = []
    for inputs in (x, x.repeat(2, 1, 1)):
        lstm(inputs)[0].sum().backward()
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            lstm(inputs)[0].sum().backward()
            torch.cuda.synchronize()
        counts.append(sum(str(event.device_type).endswith("CUDA") for event in profile.events()))
    assert cudnn.kernels(256, 128, 64, gpu=Gpu.here()).forward == "persistent"
    assert counts[1] < 1.2 * counts[0], counts


@pytest.mark.gpu
@needs_gpu
def test_a_recorded_step_is_the_step() -> None:
    """Masked Adam, rates written in place, other weights isolated without another recording."""
    answers = []
    for record in (on_cuda, without_graph):
        torch.manual_seed(8)
        lstm = LSTM(3, 16, backend="torch").cuda()
        rate = torch.tensor(0.01, device="cuda")
        optimiser = MaskedAdam(lstm.parameters(), rate, fused=True, capturable=True)

        def step(x: Tensor, lstm: LSTM = lstm, optimiser: MaskedAdam = optimiser) -> Tensor:
            optimiser.zero_grad(set_to_none=True)
            loss = lstm(x)[0].square().mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(lstm.parameters(), 0.1)
            optimiser.step()
            return loss.detach()

        graphed = GraphedStep(step, lambda optimiser=optimiser: optimiser.changes, record)
        for number in range(12):
            rate.fill_(0.01 / (1 + number))
            optimiser.set_active(lstm.weight_hh_l0, (torch.arange(64)[:, None] % 4) != number % 4)
            graphed(torch.randn(20, 4, 3, generator=torch.Generator().manual_seed(number)).cuda())
        assert graphed.recorded == 1 and graphed.replayed == 9
        answers.append([p.detach().cpu() for p in lstm.parameters()])
    for recorded, plain in zip(*answers, strict=True):
        torch.testing.assert_close(recorded, plain, rtol=1e-5, atol=1e-6)
