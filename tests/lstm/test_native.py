"""The native layer against the reference in float64: every plan, any size, precision, layout and thread."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from isotrain.errors import InputError
from isotrain.lstm import reference
from isotrain.lstm.kernels import layer as function
from isotrain.lstm.kernels.layer import LANES, layout, lstm_layer
from isotrain.lstm.plan import CREDITS, EVERYTHING, Plan

pytestmark = pytest.mark.usefixtures("kernels")

NAMES = ("x", "h0", "c0", "weight_ih", "weight_hh", "bias_ih", "bias_hh")
OUTPUTS = ("y", "h", "c")


@dataclass(frozen=True)
class Case:
    """A layer and what is asked of it. ``wanted``: who needs a gradient; ``used``: which outputs the loss sees."""

    steps: int = 5
    batch: int = 3
    inputs: int = 4
    hidden: int = 20
    constants: tuple[int, ...] = ()
    plan: Plan = EVERYTHING
    bf16: bool = False
    biases: bool = True
    batch_first: bool = False
    how_x_lies: str = "plain"
    wanted: frozenset[str] = frozenset(NAMES)
    used: frozenset[str] = frozenset(OUTPUTS)
    seed: int = 0

    def arguments(self) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The seven arguments by name, and the constant inputs; fp32, of a trained network's size."""
        generator = torch.Generator().manual_seed(self.seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator)

        rows, seen = 4 * self.hidden, self.inputs + sum(self.constants)
        scale = (self.hidden + seen) ** -0.5
        values = (
            normal(self.steps, self.batch, self.inputs),
            normal(self.batch, self.hidden).mul(0.5),
            normal(self.batch, self.hidden).mul(0.5),
            normal(rows, seen).mul(scale),
            normal(rows, self.hidden).mul(scale),
            normal(rows).mul(0.3),
            normal(rows).mul(0.3),
        )
        return dict(zip(NAMES, values, strict=True)), [normal(self.steps, self.batch, n) for n in self.constants]

    def lies(self, x: Tensor) -> Tensor:
        """The same numbers, differently in memory."""
        if self.how_x_lies == "batch first":
            return x.transpose(0, 1).contiguous().transpose(0, 1)
        if self.how_x_lies == "every other column":
            return x.repeat_interleave(2, -1)[..., ::2]
        if self.how_x_lies == "columns of a wider table":
            return torch.cat([x, x], -1)[..., : x.shape[-1]]
        if self.how_x_lies == "features first":
            return x.permute(2, 0, 1).contiguous().permute(1, 2, 0)
        return x


LAYOUTS = ("plain", "batch first", "every other column", "columns of a wider table", "features first")
Answer = dict[str, Tensor | None]


def arriving(outputs: dict[str, Tensor]) -> list[Tensor]:
    """Gradients of the outputs: those of a random linear function of them."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(o.shape, generator=generator, dtype=torch.float64).to(o.dtype) for o in outputs.values()]


def ours(case: Case) -> Answer:
    arguments, constants = case.arguments()
    leaves = {name: value.clone().requires_grad_(name in case.wanted) for name, value in arguments.items()}
    x, h0, c0, w_ih, w_hh, b_ih, b_hh = leaves.values()
    y, h, c = lstm_layer(
        case.lies(x), h0, c0, w_ih, w_hh, b_ih if case.biases else None, b_hh if case.biases else None, case.plan,
        constants=tuple(case.lies(z) for z in constants), bf16=case.bf16, batch_first=case.batch_first,
    )  # fmt: skip
    return {"y": y, "h": h, "c": c} | gradients(case, {"y": y, "h": h, "c": c}, leaves)


def truth(case: Case) -> Answer:
    arguments, constants = case.arguments()
    leaves = {name: value.double().requires_grad_(name in case.wanted) for name, value in arguments.items()}
    x, *states, w_ih, w_hh, b_ih, b_hh = leaves.values()
    biases = (b_ih, b_hh) if case.biases else (torch.zeros_like(b_ih), torch.zeros_like(b_hh))
    seen = torch.cat([x, *(z.double() for z in constants)], -1)
    with threads(1):  # small products: two threads would mostly wait for each other
        y, h, c = reference.lstm_layer(seen, *states, w_ih, w_hh, *biases, case.plan)
        return {"y": y, "h": h, "c": c} | gradients(case, {"y": y, "h": h, "c": c}, leaves)


def gradients(case: Case, outputs: dict[str, Tensor], leaves: dict[str, Tensor]) -> Answer:
    wanted = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    if not case.biases:
        wanted = {name: leaf for name, leaf in wanted.items() if not name.startswith("bias")}
    used = {name: o for name, o in outputs.items() if name in case.used and o.requires_grad}
    if not wanted or not used:
        return {}
    answers = torch.autograd.grad(tuple(used.values()), tuple(wanted.values()), arriving(used), allow_unused=True)
    return {f"d{name}": answer for name, answer in zip(wanted, answers, strict=True)}


def assert_near(answer: Answer, expected: Answer, relative: float, floor: float = 0.0) -> None:
    """Each tensor as a whole: L2 error below ``relative`` of its norm, or ``floor`` an element."""
    assert answer.keys() == expected.keys()
    for name, value in answer.items():
        right = expected[name]
        assert (value is None) == (right is None), name
        if value is None or right is None:
            continue
        assert value.dtype == torch.float32
        assert value.shape == right.shape
        error, allowed = (value - right).norm().item(), relative * right.norm().item() + floor * right.numel() ** 0.5
        assert error <= allowed, f"{name}: error {error:.2e} of {right.norm():.2e}, allowed {allowed:.2e}"


@contextmanager
def threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def same_bits(first: Answer, second: Answer) -> bool:
    pairs = zip(first.values(), second.values(), strict=True)
    return all(torch.equal(a, b) if a is not None and b is not None else a is b for a, b in pairs)


# Against the reference --------------------------------------------------------------------------------------------


@st.composite
def plans(draw: Any, hidden: int) -> Plan:
    mode = draw(st.sampled_from(["masked", "exact", "cut"]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    share = draw(st.sampled_from([None, 0.0, 0.1, 0.5, 0.9, 1.0]))
    credit = draw(st.sampled_from(CREDITS))
    part = torch.rand(hidden, generator=generator) < draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    active = None if share is None else torch.rand(hidden, generator=generator) < share
    return Plan(
        active=active.sort(descending=True).values if active is not None and draw(st.booleans()) else active,
        mode=mode,
        steps=draw(st.none() | st.integers(1, 6)),
        weights=draw(st.integers(0, 3)) > 0,
        credit=credit,
        part=part if credit == "cell" and draw(st.booleans()) else None,
    )


@st.composite
def cases(draw: Any, bf16: bool = False) -> Case:
    hidden = draw(st.integers(1, 70))
    some = st.sets(st.sampled_from(NAMES))
    return Case(
        steps=draw(st.integers(1, 6)),
        batch=draw(st.integers(1, 5)),
        inputs=draw(st.integers(1, 9) | st.integers(60, 70)),
        hidden=hidden,
        constants=tuple(draw(st.lists(st.integers(1, 9), max_size=2))),
        plan=draw(plans(hidden)),
        bf16=bf16,
        biases=draw(st.booleans()),
        batch_first=draw(st.booleans()),
        how_x_lies=draw(st.sampled_from(LAYOUTS)),
        wanted=frozenset(draw(st.just(NAMES) | some)),
        used=frozenset(draw(st.sets(st.sampled_from(OUTPUTS), min_size=1))),
        seed=draw(st.integers(0, 99)),
    )


@settings(max_examples=300, deadline=None)
@given(case=cases())
def test_any_layer_is_the_reference(case: Case) -> None:
    with threads(1):
        assert_near(ours(case), truth(case), relative=1e-5, floor=1e-6)


@settings(max_examples=150, deadline=None)
@given(case=cases(bf16=True))
def test_any_layer_in_bf16_is_near_the_reference(bf16_kernels: None, case: Case) -> None:
    """Small tensors do not average their rounding errors: a wrong index is far beyond this, a rounding within."""
    with threads(1):
        assert_near(ours(case), truth(case), relative=0.03, floor=5e-3)


@contextmanager
def without_batch_reduced_products() -> Iterator[None]:
    """As on a processor for which torch has none: at::mm multiplies then, inside the threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(function.build, "has_brgemm", lambda bf16: False)
        yield


@settings(max_examples=100, deadline=None)
@given(case=cases(), n=st.integers(1, 2))
def test_any_layer_is_the_reference_where_mm_multiplies(case: Case, n: int) -> None:
    with without_batch_reduced_products(), threads(n):
        answer = ours(case)
    assert_near(answer, truth(case), relative=1e-5, floor=1e-6)


REAL = Case(steps=24, batch=32, inputs=7, hidden=96)
ODD = Case(steps=25, batch=33, inputs=71, hidden=101, constants=(13, 2), biases=False)
SCATTERED = torch.arange(96) % 3 == 0
PLANS = {
    "nothing": Plan(),
    "layer": Plan(weights=False),
    "steps": Plan(steps=10),
    "masked": Plan(SCATTERED, "masked"),
    "exact": Plan(SCATTERED),
    "exact block": Plan(torch.arange(96) >= 48, steps=10),
    "cut": Plan(SCATTERED, "cut"),
    "cut block": Plan(torch.arange(96) < 32, "cut"),
    "cut, steps": Plan(SCATTERED, "cut", steps=10),
    "cell": Plan(credit="cell"),
    "none": Plan(credit="none"),
    "part": Plan(credit="cell", part=SCATTERED),
    "part block": Plan(credit="cell", part=torch.arange(96) < 16),
    "cell, exact": Plan(SCATTERED, credit="cell", part=torch.arange(96) % 5 == 0),
    "none, cut, steps": Plan(SCATTERED, "cut", steps=10, credit="none"),
}


def more(flags: Tensor | None, hidden: int) -> Tensor | None:
    return None if flags is None else torch.cat([flags, torch.zeros(hidden - len(flags), dtype=torch.bool)])


def sized(plan: Plan, hidden: int) -> Plan:
    """The plan for more units: the additional ones are isolated, and pass no credit on where only a part does."""
    return replace(plan, active=more(plan.active, hidden), part=more(plan.part, hidden))


@pytest.mark.parametrize("case", [REAL, ODD], ids=["real", "odd"])
@pytest.mark.parametrize("name", PLANS)
def test_layers_of_a_real_size_are_the_reference(name: str, case: Case) -> None:
    case = replace(case, plan=sized(PLANS[name], case.hidden))
    assert_near(ours(case), truth(case), relative=1e-5)


@pytest.mark.parametrize("name", PLANS)
def test_layers_of_a_real_size_are_the_reference_where_mm_multiplies(name: str) -> None:
    case = replace(ODD, plan=sized(PLANS[name], ODD.hidden))
    with without_batch_reduced_products(), threads(2):
        answer = ours(case)
    assert_near(answer, truth(case), relative=1e-5)


@pytest.mark.parametrize("case", [REAL, ODD], ids=["real", "odd"])
@pytest.mark.parametrize("name", PLANS)
def test_layers_of_a_real_size_in_bf16_are_within_a_hundredth(name: str, case: Case, bf16_kernels: None) -> None:
    case = replace(case, plan=sized(PLANS[name], case.hidden), bf16=True)
    assert_near(ours(case), truth(case), relative=0.01)


@pytest.mark.parametrize("case", [REAL, ODD], ids=["real", "odd"])
def test_masked_units_change_nothing_bit_for_bit(case: Case) -> None:
    active = torch.arange(case.hidden) < case.hidden  # all, so that the units lie as they do without a plan
    assert same_bits(ours(replace(case, plan=Plan(active, "masked"))), ours(case))


def test_a_layer_whose_units_are_all_cut_passes_nothing_on() -> None:
    answer = ours(replace(REAL, plan=Plan(torch.zeros(96, dtype=torch.bool), "cut")))
    assert not any(answer[f"d{name}"].any() for name in NAMES)  # type: ignore[union-attr]


# What is not computed ---------------------------------------------------------------------------------------------


def spy(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Any]:
    """What this function of the native layer returns from now on, call by call."""
    original, results = getattr(function, name), []

    def watched(*arguments: Any, **options: Any) -> Any:
        results.append(original(*arguments, **options))
        return results[-1]

    monkeypatch.setattr(function, name, watched)
    return results


@pytest.mark.parametrize(
    ("plan", "rows"),
    [
        (Plan(), [96]),
        (Plan(SCATTERED, "masked"), [96]),
        (Plan(SCATTERED), [32]),
        (Plan(SCATTERED, "cut"), [32]),
        (Plan(weights=False), []),
    ],
)
def test_weight_gradients_of_isolated_units_are_not_computed(
    plan: Plan, rows: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    products = spy(monkeypatch, "_product")
    ours(replace(REAL, plan=plan))
    assert [p.shape[0] for p in products] == [4 * n for n in rows]


@pytest.mark.parametrize(
    ("plan", "columns"),
    [
        (Plan(), 96),
        (Plan(credit="cell"), 0),
        (Plan(credit="none"), 0),
        (Plan(credit="cell", part=torch.arange(96) < 10), 10),
        (Plan(credit="cell", part=SCATTERED), 32),
        (Plan(~SCATTERED, "cut", credit="cell", part=torch.arange(96) % 6 == 1), 16),
    ],
)
def test_the_product_into_earlier_states_is_of_the_units_that_pass_credit(
    plan: Plan, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights into states that get no credit are not even packed; units of a part lie together wherever they are."""
    packed: list[int] = []
    operator = torch.ops.isotrain.pack_backward

    def watched(w_ih: Tensor, w_hh: Tensor, order: Tensor, wanted: int, *more: Any) -> Tensor:
        packed.append(wanted)
        answer: Tensor = operator(w_ih, w_hh, order, wanted, *more)
        return answer

    monkeypatch.setattr(torch.ops.isotrain, "pack_backward", watched)
    ours(replace(REAL, plan=plan))
    assert packed == [columns]


@pytest.mark.parametrize(("read", "first"), [("states", 23), ("last", 23), ("some", 7), ("all", 0)])
def test_without_credit_the_backward_begins_where_the_loss_first_reads(
    read: str, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    begins: list[int] = []
    product = function._product

    def watched(rows: Tensor, gates: Tensor, places: int, first: int) -> Tensor:
        begins.append(first)
        return product(rows, gates, places, first)

    monkeypatch.setattr(function, "_product", watched)
    steps = {"states": [], "last": [23], "some": [7, 12], "all": list(range(24))}[read]

    def loss(outputs: tuple[Tensor, ...]) -> Tensor:
        y, h, c = outputs
        return (y[steps].sin().sum() if steps else 0) + h.sum() + c.square().sum()

    arguments, _ = REAL.arguments()
    for layer, kind in ((lstm_layer, torch.float32), (reference.lstm_layer, torch.float64)):
        leaves = [value.to(kind).requires_grad_() for value in arguments.values()]
        found = torch.autograd.grad(loss(layer(*leaves, Plan(credit="none"))), leaves)
        if layer is lstm_layer:
            ours_ = found
    assert_near(dict(zip(NAMES, ours_, strict=True)), dict(zip(NAMES, found, strict=True)), relative=1e-5, floor=1e-6)
    assert begins == [first]


def test_without_a_backward_to_come_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = spy(monkeypatch, "_run")
    trained = ours(REAL)
    with torch.no_grad():
        evaluated = ours(REAL)
    ours(replace(REAL, wanted=frozenset()))
    kept = [sum(t.numel() for t in run[3:]) for run in runs]
    assert kept[0] > 0 and kept[1:] == [0, 0]
    assert all(torch.equal(evaluated[name], trained[name]) for name in OUTPUTS)  # type: ignore[arg-type]


def test_memory_that_nobody_wrote_is_not_read() -> None:
    """Torch can fill fresh memory with NaN; whatever reads it is then seen in the answer."""
    cases_ = [replace(ODD, plan=sized(PLANS["cut, steps"], 101)), replace(ODD, plan=Plan(steps=5)), REAL]
    plain = [ours(case) for case in cases_]
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(100).isnan().all()
        filled = [ours(case) for case in cases_]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(same_bits(a, b) for a, b in zip(plain, filled, strict=True))


# As torch's kernels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", ["x", "h0", "c0", "weight_ih", "weight_hh", "bias_ih"])
def test_what_is_no_number_comes_out_where_torch_has_it(name: str, bad: float) -> None:
    arguments, _ = Case(hidden=20).arguments()
    arguments[name].view(-1)[3] = bad
    x, h0, c0, *weights = arguments.values()
    ours_ = lstm_layer(x, h0, c0, *weights)
    theirs = torch._VF.lstm(x, (h0[None], c0[None]), weights, True, 1, 0.0, False, False, False)
    assert any(t.isnan().any() for t in theirs) or bad == torch.inf
    for a, b in zip(ours_, (theirs[0], theirs[1][0], theirs[2][0]), strict=True):
        torch.testing.assert_close(a, b, equal_nan=True)


def test_an_empty_batch_gives_empty_outputs_and_zero_gradients() -> None:
    answer = ours(Case(batch=0))
    assert answer["y"].shape == (5, 0, 20) and answer["h"].shape == answer["c"].shape == (0, 20)  # type: ignore[union-attr]
    assert answer["dweight_hh"].shape == (80, 20) and not answer["dweight_hh"].any()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": torch.zeros(3, 4)}, r"x is \(3, 4\), h0 \(3, 20\): use \(steps, batch, inputs\), at least one step"),
        ({"x": torch.zeros(0, 3, 4)}, r"x is \(0, 3, 4\), .* at least one step"),
        ({"x": torch.zeros(5, 3, 5)}, r"weight_ih is \(80, 4\): with 5 inputs and 20 units use \(80, 5\)"),
        ({"x": torch.zeros(5, 3, 4, device="meta")}, "x is torch.float32 on meta: the kernels take .* on the CPU"),
        ({"h0": torch.zeros(20)}, r"h0 \(20,\): use"),
        ({"h0": torch.zeros(2, 20)}, r"h0 is \(2, 20\): .* use \(3, 20\)"),
        ({"c0": torch.zeros(3, 21)}, r"c0 is \(3, 21\): .* use \(3, 20\)"),
        ({"c0": torch.zeros(3, 20).double()}, "c0 is torch.float64 on cpu: the kernels take torch.float32"),
        ({"weight_hh": torch.zeros(80, 19)}, r"weight_hh is \(80, 19\): .* use \(80, 20\)"),
        ({"bias_ih": torch.zeros(79)}, r"bias_ih is \(79,\): .* use \(80,\)"),
        ({"bias_hh": torch.zeros(80, 1)}, r"bias_hh is \(80, 1\): .* use \(80,\)"),
        ({"constants": (torch.zeros(5, 3, 1),)}, r"weight_ih is \(80, 4\): with 5 inputs"),
        ({"constants": (torch.zeros(4, 3, 0),)}, r"constants are \[\(4, 3, 0\)\]: use \(5, 3, \.\.\.\) on the CPU"),
        ({"plan": Plan(torch.zeros(19).bool())}, r"active is torch.bool \(19,\): use booleans of shape \(20,\)"),
        ({"plan": Plan(torch.zeros(20))}, r"active is torch.float32"),
        ({"plan": Plan(credit="cell", part=torch.zeros(19).bool())}, r"part is torch.bool \(19,\): use booleans"),
        ({"plan": Plan(torch.zeros(20).bool(), "autonomous")}, "the kernels do not know mode 'autonomous'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_and_not_read_past_its_end(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        lstm_layer(**(Case().arguments()[0] | changed))


def test_the_gradient_of_an_input_in_bf16_is_in_bf16() -> None:
    arguments, _ = REAL.arguments()
    x, *others = arguments.values()
    answers = []
    for dtype in (torch.float32, torch.bfloat16):
        leaf = x.bfloat16().to(dtype).requires_grad_()
        lstm_layer(leaf, *others)[0].sin().sum().backward()
        answers.append(leaf.grad)
    assert torch.equal(answers[0].bfloat16(), answers[1])  # type: ignore[union-attr]


@pytest.mark.parametrize("batch_first", [True, False])
def test_the_output_lies_as_asked(batch_first: bool) -> None:
    y = ours(replace(REAL, batch_first=batch_first))["y"]
    assert y is not None
    assert (y.transpose(0, 1) if batch_first else y).is_contiguous()


# Autograd ---------------------------------------------------------------------------------------------------------


def leaves_of(case: Case) -> list[Tensor]:
    return [value.requires_grad_() for value in case.arguments()[0].values()]


@pytest.mark.parametrize("bf16", [False, True])
def test_a_kept_graph_gives_the_same_bits_again_and_a_spent_one_is_refused(bf16: bool) -> None:
    if bf16 and not function.build.has_brgemm(True):
        pytest.skip("this processor has no bf16 products")
    leaves = leaves_of(REAL)
    loss = lstm_layer(*leaves, Plan(SCATTERED, "cut"), bf16=bf16)[0].sin().sum()
    first, again, last = (torch.autograd.grad(loss, leaves, retain_graph=keep) for keep in (True, True, False))
    for others in (again, last):
        assert all(torch.equal(a, b) for a, b in zip(first, others, strict=True))
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, leaves)


def test_a_second_derivative_is_refused() -> None:
    leaves = leaves_of(REAL)
    (dx,) = torch.autograd.grad(lstm_layer(*leaves)[0].square().sum(), leaves[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()


@pytest.mark.parametrize("k", range(7))
def test_writing_into_an_argument_before_the_backward_is_noticed(k: int) -> None:
    leaves = leaves_of(REAL)
    total = lstm_layer(*leaves)[0].sum()
    with torch.no_grad():
        leaves[k].add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def test_writing_into_the_outputs_does_not_spoil_the_gradient() -> None:
    leaves = leaves_of(REAL)
    expected = torch.autograd.grad(lstm_layer(*leaves)[0].sum(), leaves)
    outputs = lstm_layer(*leaves)
    total = outputs[0].sum()
    for output in outputs:
        output.data.fill_(7.0)
    for a, b in zip(torch.autograd.grad(total, leaves), expected, strict=True):
        assert torch.equal(a, b)


# The process ------------------------------------------------------------------------------------------------------

CALLS = (REAL, replace(ODD, bf16=False, plan=sized(PLANS["cut, steps"], 101)), replace(REAL, batch_first=True, seed=1))


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("case", [REAL, ODD, Case(steps=9, batch=7, hidden=33)], ids=["real", "odd", "small"])
def test_the_number_of_threads_changes_no_bit_of_a_sample(case: Case, bf16: bool) -> None:
    """Threads share out samples. Weight gradients are one product over all of them, which is torch's to share out.

    Below AVX-512 oneDNN adds up in an order that depends on how many samples a thread has: there, up to rounding.
    """
    if bf16 and not function.build.has_brgemm(True):
        pytest.skip("this processor has no bf16 products")
    exact = torch.backends.cpu.get_cpu_capability() == "AVX512" and "ONEDNN_MAX_CPU_ISA" not in os.environ
    answers = []
    for n in (1, 2, 3):
        with threads(n):
            answers.append(ours(replace(case, bf16=bf16)))
    for answer in answers[1:]:
        for name, value in answer.items():
            if not exact or "weight" in name or "bias" in name:
                torch.testing.assert_close(value, answers[0][name], rtol=1e-5, atol=1e-5 if not bf16 else 1e-2)
            else:
                assert torch.equal(value, answers[0][name]), name  # type: ignore[arg-type]


def test_threads_of_python_at_once_give_what_they_give_in_turn() -> None:
    expected = [ours(case) for case in CALLS]
    wrong: list[str] = []
    start = threading.Barrier(len(CALLS))

    def work(case: Case, right: Answer) -> None:
        start.wait()
        wrong.extend(str(case) for _ in range(10) if not same_bits(ours(case), right))

    workers = [threading.Thread(target=work, args=pair) for pair in zip(CALLS, expected, strict=True)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def flushed_denormals() -> tuple[bool, bool]:
    """Whether denormals are flushed in this thread, as results and as operands."""
    tiny = torch.full((8,), 1e-30)
    return not (tiny * 1e-12).any().item(), not (torch.full((8,), 1e-42) * 1e30).any().item()


@pytest.mark.parametrize("flush", [False, True])
def test_how_the_caller_treats_denormals_stays_as_it_was(flush: bool) -> None:
    if not torch.set_flush_denormal(flush):
        pytest.skip("torch does not set denormals on this machine")
    try:
        before = flushed_denormals()
        assert before == (flush, flush)
        for n in (1, 2):
            with threads(n):
                ours(REAL)
                assert flushed_denormals() == before
    finally:
        torch.set_flush_denormal(False)


def test_denormals_are_flushed_inside() -> None:
    """With nothing to bring them up the cell states fall below the smallest normal number, and end at 0."""
    hidden = 16
    zero = torch.zeros(1, hidden)
    biases = torch.zeros(4 * hidden)
    biases[hidden : 2 * hidden] = -20.0  # the forget gate: 2e-9 a step
    weights = (torch.zeros(4 * hidden, 1), torch.zeros(4 * hidden, hidden), biases, torch.zeros_like(biases))
    *_, c = lstm_layer(torch.zeros(4, 1, 1), zero, zero + 1e-5, *weights)
    assert torch.equal(c, zero)  # 1e-5 * (2e-9)^4 = 2e-40 would be a denormal
    assert lstm_layer(torch.zeros(3, 1, 1), zero, zero + 1e-5, *weights)[2].all()


def train(steps: int, case: Case) -> None:
    leaves = leaves_of(case)
    for _ in range(steps):
        for leaf in leaves:
            leaf.grad = None
        lstm_layer(*leaves, case.plan)[0].sum().backward()
        lstm_layer(*leaves, case.plan)  # a graph that nobody runs


def test_memory_does_not_grow_with_the_steps() -> None:
    case = Case(steps=8, batch=4, hidden=20, plan=Plan(torch.arange(20) > 7, "cut"))
    process = psutil.Process()
    with threads(1):
        train(200, case)
        before = process.memory_info().rss
        train(1800, case)
    kept_by_a_step = 8 * 4 * (4 * 32 + 32 + 60) * 4  # bytes, of gates, cells and rows
    assert process.memory_info().rss - before < 100 * kept_by_a_step


# The order of the units -------------------------------------------------------------------------------------------


@given(flags=st.lists(st.booleans(), min_size=1, max_size=70), part=st.none() | st.integers(1, 4))
def test_every_unit_has_a_place_active_ones_first_and_blocks_of_one_kind(flags: list[bool], part: int | None) -> None:
    active = torch.tensor(flags)
    passing = None if part is None else torch.arange(len(flags)) % part == 0
    found = layout(Plan(active) if part is None else Plan(active, credit="cell", part=passing), len(flags))
    if passing is not None:
        assert found.passing is not None
        assert torch.equal(found.passing[found.place], passing)
        assert int(found.passing.sum()) == int(passing.sum())
    assert len(found.order) % LANES == found.active % LANES == 0
    assert torch.equal(found.order[found.place], torch.arange(len(flags)))
    assert (found.order >= 0).sum() == len(flags)
    assert set(found.order[: found.active].tolist()) - {-1} == set(active.nonzero().flatten().tolist())
    assert found.natural == (found.order.tolist() == list(range(len(flags))))
