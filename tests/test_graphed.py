"""Steps recorded and replayed: on a CPU a replay is a call, so that all but the recording itself is compared."""

import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tests.test_training import METHODS, lower_layers, small
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from isotrain.config import Settings
from isotrain.data.windows import Windows
from isotrain.errors import InputError
from isotrain.isolation import MaskedAdam
from isotrain.lstm import backends, credit
from isotrain.lstm import lstm as lstm_module
from isotrain.lstm.graphs import GraphedStep, on_cuda, without_graph
from isotrain.training import fit as training
from isotrain.training.clock import Clock, GpuStopwatch
from isotrain.training.fit import Fit, Loop
from isotrain.training.graphed import GraphedModule
from isotrain.training.processes import Place

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class OnCpu(GraphedModule):
    record = staticmethod(without_graph)


@pytest.fixture(autouse=True)
def own_runtime_again(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(training, "alone", nullcontext)
    yield
    torch.set_flush_denormal(False)


def trained(settings: Settings, windows: Windows, *callbacks: pl.Callback, **how: Any) -> Loop:
    loop = Loop(Fit(settings, 0, windows, Path()))
    loop.run(*callbacks, **how)
    return loop


def bits(loop: Loop) -> dict[str, torch.Tensor]:
    """Weights and moments; the number of steps is no matter of memory."""
    names = {p: name for name, p in loop.module.named_parameters()}
    state = loop.module.trainer.optimizers[0].state
    moments = {f"{names[p]} {k}": v for p, known in state.items() for k, v in known.items()}
    return {name: p.detach() for p, name in names.items()} | moments


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_the_same_with_steps_replayed(
    method: str, windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit: rates written in place, states renewed in place, and whatever is isolated followed."""
    settings = small(method)
    if not settings.runtime.fused_adam:  # torch's other Adams cannot be captured on a CPU
        settings = small(method, runtime__fused_adam=True)
    plain = trained(settings, windows)
    monkeypatch.setattr(training, "ForecastModule", OnCpu)
    replayed = trained(settings, windows)
    graphed = replayed.module.graphed
    assert graphed is not None and graphed.replayed > 0
    expected, found = bits(plain), bits(replayed)
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    for ours, theirs in zip(replayed.clock.rows, plain.clock.rows, strict=True):
        assert (ours["val_mae"], ours["train_loss"]) == (theirs["val_mae"], theirs["train_loss"])


class Repeated(TorchDispatchMode):
    """Every call of a replay is that of the first: the same operation, numbers, shapes and, of what outlives a step,
    memory; and none has to wait for the device. So a graph would do the same."""

    WAITS = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "unique", "lift_fresh")

    def __init__(self) -> None:
        super().__init__()
        self.first: list[Any] | None = None
        self.calls: list[Any] = []
        self.made: list[torch.Tensor] = []
        self.own: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.")
        assert name.split(".")[0] not in self.WAITS, f"{name} waits"
        call: list[Any] = [name]
        before = set()
        for one in tree_flatten((args, kwargs or {}))[0]:
            if isinstance(one, torch.Tensor):
                assert not (name.startswith("index.") and one.dtype == torch.bool), f"{name} counts a mask"
                place = one.untyped_storage().data_ptr()
                before.add(place)
                call.append((tuple(one.shape), one.dtype, "made" if place in self.own else place))
            else:
                call.append(type(one) if isinstance(one, torch.Generator | torch.ScriptObject) else repr(one))
        self.calls.append(call)
        answer = func(*args, **(kwargs or {}))
        for one in tree_flatten(answer)[0]:
            if isinstance(one, torch.Tensor):
                self.own |= {one.untyped_storage().data_ptr()} - before
                self.made.append(one)  # so that no memory of this step is used twice
        return answer

    def record(self, step: Any) -> Any:
        self.first = None

        def watched() -> torch.Tensor:
            self.calls, self.made, self.own = [], [], set()
            with self:
                answer: torch.Tensor = step()
            self.first = self.first or self.calls
            assert len(self.calls) == len(self.first)
            for now, then in zip(self.calls, self.first, strict=True):
                assert now == then
            return answer

        return without_graph(watched)


@pytest.mark.parametrize("encoder", ["gru", "tcn", "attention"])
def test_layers_isolated_and_thawed_train_the_same_with_steps_replayed(
    encoder: str, windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small("isolated", **lower_layers(encoder, stop=0.6))
    ordinary = trained(settings, windows)
    monkeypatch.setattr(training, "ForecastModule", OnCpu)
    replayed = trained(settings, windows)
    expected, found = bits(ordinary), bits(replayed)
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    graphed = replayed.module.graphed
    assert graphed is not None and graphed.recorded == 3  # whole, isolated, whole again


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_replayed_step_does_what_the_recorded_one_did(
    method: str, windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the code that runs on a GPU."""
    for part in (backends, credit, lstm_module):
        monkeypatch.setattr(part, "on_gpu", lambda x: True)
    monkeypatch.setattr(credit, "scan", lambda: None)
    monkeypatch.setattr(backends, "_native_lacks", lambda *_: "as on a GPU")
    repeated = Repeated()

    class Checked(OnCpu):
        record = staticmethod(repeated.record)

    monkeypatch.setattr(training, "ForecastModule", Checked)
    settings = small(method, runtime__fused_adam=True, runtime__backend="auto")
    if settings.isolation and settings.isolation.renewed:
        settings = small(method, runtime__backend="auto", isolation__renew=7)
    graphed = trained(settings, windows, validate=False).module.graphed
    assert graphed is not None and graphed.replayed > graphed.recorded
    assert len(repeated.calls) > 50


@pytest.mark.parametrize(
    ("method", "changes", "recorded"),
    [
        ("tuned", {}, 1),
        ("masked-unit-50", {}, 1),  # other units each time, as many: their numbers are written in place
        ("masked-unit-50", {"isolation__schedule": {"shape": "linear", "fraction": 0.5, "start": 0.0, "stop": 1.0}}, 3),
        *(("isolated", lower_layers(encoder), 2) for encoder in ("gru", "tcn", "attention")),
    ],
)
def test_a_step_is_recorded_anew_where_shapes_change_and_that_is_logged(
    method: str, changes: dict[str, Any], recorded: int, windows: Windows, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(training, "ForecastModule", OnCpu)
    every = {} if method == "tuned" else {"isolation__every": 10}
    with caplog.at_level(logging.INFO):
        loop = trained(small(method, **{**every, **changes}), windows)
    graphed = loop.module.graphed
    assert graphed is not None and graphed.recorded == recorded
    assert sum("a training step was recorded" in line for line in caplog.messages) == recorded
    ordinary = 3 * recorded + (0 if method == "tuned" else 3)
    assert graphed.replayed == 30 - ordinary


def test_an_interrupted_training_goes_on_bit_for_bit(
    windows: Windows, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The rate of a checkpoint is put back on the device."""
    monkeypatch.setattr(training, "ForecastModule", OnCpu)
    whole = trained(small("isolated"), windows)
    half = trained(small("isolated"), windows, Stop(20))
    half.module.trainer.save_checkpoint(tmp_path / "half.ckpt")
    rest = trained(small("isolated"), windows, resume=str(tmp_path / "half.ckpt"))
    expected, found = bits(whole), bits(rest)
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


class Stop(pl.Callback):
    def __init__(self, at: int) -> None:
        self.at = at

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.should_stop or trainer.global_step == self.at


def test_a_callback_that_may_read_gradients_keeps_steps_as_they_are(
    windows: Windows, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[bool] = []

    class Reads(pl.Callback):
        def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
            seen.append(all(p.grad is not None for p in module.net.decoder.parameters()))

    monkeypatch.setattr(training, "ForecastModule", OnCpu)
    with caplog.at_level(logging.INFO):
        loop = trained(small("tuned"), windows, Reads())
    assert seen == [True] * 30
    assert loop.module.graphed is not None and loop.module.graphed.replayed == 0
    assert "no CUDA graphs: Reads may read the gradients of every step" in caplog.messages


@pytest.mark.parametrize("processes", [1, 2])
def test_several_processes_train_without_graphs_and_say_so(
    processes: int, windows: Windows, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(training, "device", lambda settings: "cuda")
    monkeypatch.setattr(training, "place", lambda settings: Place(0, processes))
    with caplog.at_level(logging.INFO):
        module, _ = training.prepare(Fit(small("tuned", runtime__processes=processes), 0, windows, Path()))
    assert isinstance(module, GraphedModule) == (processes == 1)
    said = "no CUDA graphs: runtime.processes = 2 meet within each step" in caplog.messages
    assert said == (processes == 2)


def test_a_step_that_fails_while_recorded_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    class Graph:
        replay = None

    def wait() -> torch.Tensor:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: nullcontext())
    with pytest.raises(InputError, match=r"not permitted when stream is capturing\): set runtime.graphs to false"):
        on_cuda(wait)


def test_other_shapes_and_another_key_are_recorded_anew() -> None:
    key = [0]
    graphed = GraphedStep(lambda x: x.sum(), lambda: key[0], without_graph, warm=1)
    for size in (2, 2, 2, 3, 3):
        assert graphed(torch.ones(size)) == size
    assert (graphed.recorded, graphed.replayed) == (2, 3)
    key[0] = 1
    assert graphed(torch.ones(3)) == 3 and graphed(torch.ones(3)) == 3
    assert (graphed.recorded, graphed.replayed) == (3, 4)


def test_an_answer_is_the_callers_own() -> None:
    graphed = GraphedStep(lambda x: x.sum(), record=without_graph, warm=0)
    first = graphed(torch.ones(2))
    graphed(torch.zeros(2))
    assert first == 2


# The optimiser -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"fused": True},
        {"fused": True, "moments": "decay"},
        {"variant": "lazy"},
        {"variant": "tf15", "moments": "decay"},
        {"fused": True, "correction": "per_weight"},
    ],
    ids=str,
)
def test_a_capturable_adam_is_adam(settings: dict[str, Any]) -> None:
    """Rates and counts as tensors; every path of MaskedAdam that a CPU can take."""
    answers = []
    for capturable in (False, True):
        generator = torch.Generator().manual_seed(1)
        weights = [torch.nn.Parameter(torch.randn(4, 3, generator=generator)) for _ in range(3)]
        optimiser = MaskedAdam(weights, 0.01, weight_decay=0.1, capturable=capturable, **settings)
        if capturable:
            optimiser.param_groups[0]["lr"] = torch.tensor(0.01, dtype=torch.float64)
        optimiser.set_active(weights[0], torch.tensor([[True], [False], [True], [False]]))
        optimiser.set_active(weights[1], torch.zeros(4, 3, dtype=torch.bool))
        for step in range(6):
            if step == 3:
                optimiser.set_active(weights[0], torch.tensor([[False], [True], [True], [False]]))
            for p in weights:
                p.grad = torch.randn(4, 3, generator=generator)
            optimiser.step()
        answers.append([p.detach() for p in weights])
    for plain, captured in zip(*answers, strict=True):
        torch.testing.assert_close(captured, plain, rtol=1e-6, atol=1e-9)


def test_as_many_rows_isolated_elsewhere_are_written_where_a_recorded_step_finds_them() -> None:
    p = torch.nn.Parameter(torch.zeros(4, 3))
    optimiser = MaskedAdam([p])
    optimiser.set_active(p, torch.tensor([[True], [False], [True], [False]]))
    rows, saved, changes = optimiser._sets[p].rows, optimiser.state_dict()["state"][0]["active"], optimiser.changes
    optimiser.set_active(p, torch.tensor([[False], [True], [True], [False]]))
    assert optimiser._sets[p].rows is rows and rows.tolist() == [1, 2]
    assert optimiser.changes == changes
    assert saved[:, 0].tolist() == [True, False, True, False]  # what was saved is not written into
    for other in (torch.tensor([[True], [True], [True], [False]]), torch.rand(4, 3) > 2, None):
        optimiser.set_active(p, other)
        assert optimiser.changes == (changes := changes + 1)
    optimiser.set_active(p, None)
    assert optimiser.changes == changes


# The clock ---------------------------------------------------------------------------------------------------------


class Queue:
    """A GPU that is behind: what is recorded is known after ``synchronise`` only, at its own times."""

    def __init__(self, *times: float) -> None:
        self.times, self.waits, self.made = list(times), 0, 0

    def synchronise(self) -> None:
        self.waits += 1

    def event(self) -> Any:
        queue = self

        class Event:
            at = 0.0

            def record(self) -> None:
                self.at = queue.times.pop(0)

            def elapsed_time(self, later: Any) -> float:
                assert queue.waits >= 2, "read before the queue was waited for"
                return 1e3 * (later.at - self.at)

        return Event()


def test_phases_on_a_gpu_are_read_when_the_watch_stands_still() -> None:
    queue = Queue(0, 1, 3, 6, 10, 11, 13, 16, 20, 25)
    watch = GpuStopwatch(queue.synchronise, queue.event)
    watch.resume()
    for _ in range(2):
        for phase in ("forward", "backward", "optimizer", "other"):
            watch.enter(phase)
    assert queue.waits == 1 and sum(watch.seconds.values()) == 0
    watch.pause()
    assert queue.waits == 2
    assert watch.seconds == {"forward": 4, "backward": 6, "optimizer": 8, "selection": 0, "other": 7}
    assert watch.take_steps() == [9, 9] and watch.take_steps() == []


def test_the_clock_takes_the_steps_from_the_gpu() -> None:
    queue = Queue(0, 1, 2, 5, 7)
    clock = Clock()
    clock.watch = GpuStopwatch(queue.synchronise, queue.event)
    clock.watch.resume()
    clock.on_train_batch_start()
    clock.on_before_backward()
    clock.on_train_batch_end()
    assert clock.step_seconds[0] < 1
    clock.on_train_end()
    assert clock.step_seconds == [4]
    assert clock.watch.seconds["other"] == 3


# On a GPU ----------------------------------------------------------------------------------------------------------


# one method of each kind: a whole training each takes seconds
KINDS = (
    "tuned", "stock", "tuned-windowed", "masked-unit-50", "exact-75", "cut-75", "autonomous-75", "layer", "isolated",
    "credit-none", "credit-thawed", "credit-measured", "steps-adaptive", "rich",
)  # fmt: skip


def on_gpu(method: str, **changes: Any) -> Settings:
    return small(method, training__accelerator="cuda", **changes)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("method", KINDS)
def test_replayed_steps_on_a_gpu_train_as_ordinary_ones_do(method: str, windows: Windows) -> None:
    """Up to the rounding of another order of sums: cuBLAS and scatters may choose one anew."""
    plain = trained(on_gpu(method, runtime__graphs=False), windows)
    replayed = trained(on_gpu(method), windows)
    assert isinstance(replayed.module, GraphedModule) and replayed.module.graphed is not None
    assert replayed.module.graphed.replayed > 0
    for ours, theirs in zip(replayed.clock.rows, plain.clock.rows, strict=True):
        assert ours["val_mae"] == pytest.approx(theirs["val_mae"], rel=2e-2)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("precision", [{"bf16": False}, {"bf16": True}, {"bf16": True, "fp16": True}], ids=str)
def test_a_training_on_a_gpu_ends_where_that_on_the_cpu_does(precision: dict[str, bool], windows: Windows) -> None:
    """The same seed and stretches; dropout, which draws from another generator there, is off."""
    settings: dict[str, Any] = {f"runtime__{name}": value for name, value in precision.items()}
    settings |= {"model__dropout": 0.0, "model__state_dropout": 0.0}
    here = trained(small("tuned", **settings), windows).clock.rows[-1]["val_mae"]
    there = trained(on_gpu("tuned", **settings), windows).clock.rows[-1]["val_mae"]
    assert there == pytest.approx(here, rel=5e-2 if precision["bf16"] else 1e-2)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("method", "graphs"), [*((method, True) for method in KINDS), ("tuned", False)])
def test_a_step_between_selections_never_waits_for_the_gpu(method: str, graphs: bool, windows: Windows) -> None:
    class Strict(pl.Callback):
        """Any wait in these steps is an error."""

        def on_train_batch_start(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
            step = trainer.global_step
            reads = any(c.reads(step) for c in trainer.callbacks if hasattr(c, "reads"))  # type: ignore[attr-defined]
            renews = module.net.encoder.renew if hasattr(module.net.encoder, "renew") else 0
            quiet = step % 5 == 4 and not reads and not (renews and step % renews == 0)
            torch.cuda.set_sync_debug_mode("error" if quiet else "default")

        def on_train_batch_end(self, *_: Any) -> None:
            torch.cuda.set_sync_debug_mode("default")

    try:
        trained(on_gpu(method, runtime__graphs=graphs), windows, Strict(), validate=False)
    finally:
        torch.cuda.set_sync_debug_mode("default")
