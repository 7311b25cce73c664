"""Training steps of an LSTM on a GPU: the ways that there are, and how one is timed. Needs torch alone."""

import statistics
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import torch
from benchmarks.lstm.conditions import INPUTS, LEADS, Shape, origins
from torch import Tensor, nn

from isotrain.lstm import LSTM, credit
from isotrain.lstm.cudnn import Gpu, in_type, kernels, padded, widens
from isotrain.lstm.graphs import GraphedStep, on_cuda, without_graph
from isotrain.lstm.stacked import StackedLSTM

SHAPES = (
    *(Shape(hidden, layers, 168, batch) for hidden in (256, 64, 512, 128) for batch in (64, 512) for layers in (1, 2)),
    Shape(150, 5, 96, 500),
)
SHAPES = tuple(sorted(SHAPES, key=lambda shape: (shape.layers == 2, shape.batch == 512)))  # what matters most first
TINY = (Shape(8, 1, 12, 4), Shape(130, 2, 6, 3))
MANY = 16  # networks at once


@dataclass(frozen=True)
class Way:
    """A way to train.

    Attributes:
        name, label: the key everywhere, and in words.
        compute: the type of the LSTM's products.
        graphs: whether the step is replayed as a CUDA graph.
        sizes: of the layers given to cuDNN: ``library`` as isotrain.lstm chooses them, ``own`` as they are, ``wide``
            with units up to a multiple of 128.
        credit, steps: what is left out of the backward.
        scan: what computes the gates and the cell where the recurrent weights get no gradient; plain torch too where
            Triton is not installed.
        many: networks stacked; time and launches are given for one of them.
    """

    name: str
    label: str
    compute: Literal["fp32", "bf16", "fp16"] = "fp16"
    graphs: bool = True
    sizes: Literal["library", "own", "wide"] = "library"
    credit: Literal["full", "cell", "none"] = "full"
    steps: int | None = None
    scan: Literal["triton", "torch"] = "triton"
    many: int = 1

    @property
    def tuned(self) -> bool:
        """Whether it leaves nothing out and may be the reference: the fastest of these is."""
        return self.name.startswith("tuned")


def ways(shape: Shape) -> tuple[Way, ...]:
    """What is timed at a shape. The loss reads the states of every 7th hour of the last half (streamed training)."""
    found = [
        Way("stock", "nn.LSTM and Adam, fp32, nothing set", "fp32", graphs=False),
        Way("tuned", "cuDNN, fp16, sizes of persistent kernels where units fit, fused Adam, CUDA graph"),
        Way("tuned-bf16", "the same in bf16", "bf16"),
        Way("eager", "tuned without a CUDA graph", graphs=False),
        Way("credit-cell", "credit along the cell alone, its scan by Triton", credit="cell"),
        Way("credit-cell-torch", "the same, its scan in plain torch", credit="cell", scan="torch"),
        Way("credit-none", "no credit: states without a graph, one hour before each origin with", credit="none"),
        Way("steps-4", "the last 4 hours before each origin", steps=4),
    ]
    if widens(shape.hidden, torch.float16):
        found.insert(2, Way("tuned-own-sizes", "cuDNN at the sizes as they are, all layers in one call", sizes="own"))
    elif shape.hidden > 128:
        found.insert(2, Way("tuned-wide", "units up to a multiple of 128 too", sizes="wide"))
    if shape.layers == 1 and shape.hidden <= 256:
        found.append(
            Way(f"many-{MANY}", f"{MANY} networks stacked, no credit, bf16: for one", "bf16", credit="none", many=MANY)
        )
    return tuple(found)


class Step:
    """A network, its batch and its optimiser on ``device``; calling it trains once."""

    def __init__(self, shape: Shape, way: Way, device: str) -> None:
        torch.manual_seed(0)
        self.way, self.shape, self.kind = way, shape, device
        size = (INPUTS, shape.hidden, shape.layers)
        self.lstm: Any
        if way.many > 1:
            self.lstm = StackedLSTM([nn.LSTM(*size) for _ in range(way.many)], way.credit)
        elif way.name == "stock":
            self.lstm = nn.LSTM(*size)
        else:
            self.lstm = LSTM(*size, backend="torch", compute=way.compute)
            self.lstm.isolate(credit=way.credit, steps=way.steps)
        self.head = nn.Linear(shape.hidden, LEADS)
        self.lstm.to(device)
        self.head.to(device)
        self.parameters = [*self.lstm.parameters(), *self.head.parameters()]
        here = device == "cuda"
        options: dict[str, Any] = {} if way.name == "stock" else {"fused": True, "capturable": here and way.graphs}
        self.optimiser = torch.optim.Adam(self.parameters, **options)
        several = (way.many,) if way.many > 1 else ()
        read = torch.tensor(origins(shape.length), device=device)
        self.at, self.read = read.expand(shape.batch, -1).contiguous(), read
        self.x = torch.randn(shape.length, *several, shape.batch, INPUTS, device=device)
        self.target = torch.randn(len(read), *several, shape.batch, LEADS, device=device)
        graphed = GraphedStep(self._train, record=on_cuda if here else without_graph)
        self.step: Callable[[Tensor, Tensor], Tensor] = graphed if way.graphs else self._train

    def __call__(self) -> Tensor:
        usual = credit.scan
        if self.way.scan == "torch":
            credit.scan = _no_kernels  # type: ignore[assignment]
        try:
            return self.step(self.x, self.target)
        finally:
            credit.scan = usual

    def _train(self, x: Tensor, target: Tensor) -> Tensor:
        self.optimiser.zero_grad(set_to_none=True)
        stock = self.way.name == "stock"
        within = nullcontext() if stock else torch.autocast(self.kind, torch.bfloat16, cache_enabled=False)
        with within:
            answer = self.head(self._states(x))
        loss = nn.functional.mse_loss(answer.float(), target)
        loss.backward()
        self.optimiser.step()
        return loss.detach()

    def _states(self, x: Tensor) -> Tensor:
        if self.way.sizes != "library":
            return self._at_sizes(x).index_select(0, self.read)
        if self.way.many == 1 and (self.way.credit == "none" or self.way.steps):
            return self.lstm.outputs_at(x, self.at).transpose(0, 1)
        return self.lstm(x)[0].index_select(0, self.read)

    def _at_sizes(self, x: Tensor) -> Tensor:
        """The network by cuDNN in float16, at its own sizes or with more units."""
        wide, own = self.way.sizes == "wide", self.lstm._all_weights
        weights = [[getattr(self.lstm, name) for name in names] for names in own]
        for group in weights if wide else [list(chain(*weights))]:
            layers = len(group) // 4
            zero = x.new_zeros(layers, x.shape[1], self.shape.hidden)

            def run(x: Tensor, hx: Any, weights: list[Tensor], layers: int = layers) -> Any:
                y, h, c = torch._VF.lstm(x, hx, weights, True, layers, 0.0, True, False, False)
                return y, (h, c)

            def chosen(x: Tensor, hx: Any, weights: list[Tensor], run: Any = run) -> Any:
                return padded(run, x, hx, weights, units=True) if wide else run(x, hx, weights)

            x, _ = in_type(chosen, x, (zero, zero), group, torch.float16)
        return x


def _no_kernels() -> None:
    """In the place of :func:`isotrain.lstm.credit.scan`: as where Triton is not installed."""


def measure(shape: Shape, way: Way, device: str, seconds: float = 0.25) -> dict[str, Any]:
    """One row: milliseconds of a step, launches, kernels, memory. A way that fails has its error in place of them."""
    row: dict[str, Any] = {"shape": str(shape), "way": way.name, "label": way.label}
    try:
        step = Step(shape, way, device)
        for _ in range(6):  # ordinary steps, the recording, replays
            step()
        row |= {"ms": _milliseconds(step, device, seconds) / way.many}
        row |= _profiled(step, way.many) if device == "cuda" else {}
        row["memory_mib"] = _memory(step) if device == "cuda" else None
    except Exception as problem:  # noqa: BLE001 - a row that fails must not lose the others; its error is in the table
        row |= {"ms": None, "error": f"{type(problem).__name__}: {problem}"[:300]}
    if device == "cuda" and way.many == 1 and way.name != "stock":
        row["rule"] = rule(shape, way, Gpu.here())
    return row


def rule(shape: Shape, way: Way, gpu: Gpu) -> str:
    """Which of cuDNN's kernels torch's rules give the forward and the backward of the layers, and why."""
    dtype = torch.bfloat16 if way.compute == "bf16" else torch.float16
    fits = way.sizes == "wide" or (way.sizes == "library" and widens(shape.hidden, dtype))
    hidden = -(-shape.hidden // 128) * 128 if fits else shape.hidden
    inputs, batch = (128, min(-(-shape.batch // 8) * 8, 128)) if fits else (INPUTS, shape.batch)
    return kernels(hidden, inputs, batch, layers=1 if fits else shape.layers, dtype=dtype, gpu=gpu).why


def _milliseconds(step: Step, device: str, seconds: float) -> float:
    """The median over blocks of ten steps."""
    blocks, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(blocks) < 3:
        blocks.append(_block(step, device))
    return statistics.median(blocks)


def _block(step: Step, device: str, steps: int = 10) -> float:
    if device != "cuda":
        start = time.perf_counter()
        for _ in range(steps):
            step()
        return 1e3 * (time.perf_counter() - start) / steps
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    first.record()
    for _ in range(steps):
        step()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / steps


LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch",
            "cudaMemcpyAsync", "cudaMemsetAsync")  # fmt: skip


def _profiled(step: Step, many: int) -> dict[str, Any]:
    """What the host launches in a step, what the GPU runs, and the names of the kernels that take longest."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=activities) as profile:
        step()
        torch.cuda.synchronize()
    return counted([(event.name, str(event.device_type), float(event.device_time)) for event in profile.events()], many)


def counted(events: list[tuple[str, str, float]], many: int = 1) -> dict[str, Any]:
    """``events``: name, device and microseconds of each of the profiler's."""
    on_gpu = [(name, spent) for name, device, spent in events if device.endswith("CUDA")]
    longest: Counter[str] = Counter()
    for name, spent in on_gpu:
        longest[name[:120]] += round(spent)
    return {
        "launches": sum(name in LAUNCHES for name, device, _ in events if not device.endswith("CUDA")) / many,
        "kernels": len(on_gpu) / many,
        "longest": [f"{name} ({spent} us)" for name, spent in longest.most_common(4)],
    }


def _memory(step: Callable[[], Tensor]) -> float:
    """What this network, its batch, a step and its recording hold."""
    torch.cuda.empty_cache()  # what another row left behind does not count
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return max(torch.cuda.max_memory_allocated(), torch.cuda.memory_reserved()) / 2**20
