"""The hand-written gradient against finite differences, torch.nn.LSTM, and autograd through a cell cut by detach()."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from isotrain.errors import InputError
from isotrain.lstm import reference
from isotrain.lstm.plan import CREDITS, MODES, Plan
from isotrain.lstm.reference import Gates, lstm_layer

NAMES = ("x", "h0", "c0", "weight_ih", "weight_hh", "bias_ih", "bias_hh")
SIZES = [(5, 3, 2, 7), (1, 3, 2, 5), (6, 1, 3, 3), (1, 1, 1, 1), (9, 2, 5, 4)]  # steps, batch, inputs, hidden
ACTIVE = torch.tensor([True, False, True, True, False, False, True])  # for the first of them
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def make(sizes: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """The seven arguments, all of them leaves that require a gradient."""
    steps, batch, inputs, hidden = sizes
    generator = torch.Generator().manual_seed(seed)
    state, bias = (batch, hidden), (4 * hidden,)
    shapes = ((steps, batch, inputs), state, state, (4 * hidden, inputs), (4 * hidden, hidden), bias, bias)
    return tuple(torch.randn(s, generator=generator, dtype=dtype).mul_(0.7).requires_grad_() for s in shapes)


def arriving(outputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Gradients of the outputs: those of a random linear function of them."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(o.shape, generator=generator, dtype=torch.float64).to(o.dtype) for o in outputs]


def gradients(outputs: tuple[Tensor, ...], arguments: tuple[Tensor, ...]) -> dict[str, Tensor | None]:
    """By argument; None where no gradient came."""
    answers = torch.autograd.grad(outputs, arguments, arriving(outputs), allow_unused=True)
    return dict(zip(NAMES, answers, strict=True))


def spy(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[Any]:
    """What the function returns from now on, call by call."""
    function, results = getattr(owner, name), []

    def watched(*arguments: Any) -> Any:
        results.append(function(*arguments))
        return results[-1]

    monkeypatch.setattr(owner, name, watched)
    return results


def assert_same(ours: dict[str, Tensor | None], truth: dict[str, Tensor | None], absent: tuple[str, ...] = ()) -> None:
    """The names in ``absent`` got no gradient from us; a gradient that is absent from the truth is zero in ours."""
    for name, answer in ours.items():
        expected = truth[name]
        assert (answer is None) == (name in absent), name
        if answer is not None:
            expected = torch.zeros_like(answer) if expected is None else expected
            torch.testing.assert_close(answer, expected, **EXACT, msg=lambda m, name=name: f"{name}: {m}")


def printed(arguments: tuple[Tensor, ...], plan: Plan | None = None, gates: Gates = "as_printed") -> tuple[Tensor, ...]:
    """The six equations in the notation they were printed in, one step at a time; detach() stands for every cut."""
    x, h, c, weight_ih, weight_hh, bias_ih, bias_hh = arguments
    plan = plan or Plan()
    active = torch.ones_like(h[0], dtype=torch.bool) if plan.active is None else plan.active
    a = active.double()  # 1 at active units
    last = len(x) - (plan.steps or len(x))
    if plan.mode == "exact":
        row = active.repeat(4)
        weight_ih, weight_hh = (torch.where(row[:, None], w, w.detach()) for w in (weight_ih, weight_hh))
        bias_ih, bias_hh = (torch.where(row, b, b.detach()) for b in (bias_ih, bias_hh))
    if not plan.weights:
        weight_ih, weight_hh, bias_ih, bias_hh = (w.detach() for w in (weight_ih, weight_hh, bias_ih, bias_hh))
    Wxi, Wxf, Wxc, Wxo = weight_ih.chunk(4)
    Whi, Whf, Whc, Who = weight_hh.chunk(4)
    bi, bf, bc, bo = (bias_ih + bias_hh).chunk(4)
    sigma, tanh = torch.sigmoid, torch.tanh
    of_g, of_o = (sigma, tanh) if gates == "as_printed" else (tanh, sigma)

    def fixed(v: Tensor) -> Tensor:  # its isolated components are constants
        return torch.where(active, v, v.detach())

    outputs: list[Tensor] = []
    for t, x_t in enumerate(x):
        if t == last > 0:
            h, c, outputs = h.detach(), c.detach(), [y.detach() for y in outputs]
        if plan.mode == "autonomous":
            h = fixed(h)
        if plan.credit != "full":
            h = h.detach() if plan.part is None else torch.where(plan.part, h, h.detach())
        if plan.credit == "none":
            c = c.detach()
        f, i, g, o = (
            x_t @ Wx.T + h @ Wh.T + b for Wx, Wh, b in ((Wxf, Whf, bf), (Wxi, Whi, bi), (Wxc, Whc, bc), (Wxo, Who, bo))
        )
        if plan.mode == "autonomous":  # isolated units see themselves and the constant inputs only
            seen = x_t if plan.autonomous_inputs is None else x_t * plan.autonomous_inputs.double()
            f, i, g, o = (
                torch.where(active, sums, (seen @ Wx.T + (h * (1 - a)) @ Wh.T + b).detach())
                for sums, Wx, Wh, b in ((f, Wxf, Whf, bf), (i, Wxi, Whi, bi), (g, Wxc, Whc, bc), (o, Wxo, Who, bo))
            )
        dropped = plan.mode == "cut"
        if dropped:
            f, i, g, o = fixed(f), fixed(i), fixed(g), fixed(o)
        c = sigma(f) * c + sigma(i) * of_g(g)
        if dropped or plan.mode == "autonomous":
            c = fixed(c)
        h = of_o(o) * tanh(c)
        outputs.append(h)
    return torch.stack(outputs), h, c


# The whole gradient -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("gates", ["standard", "as_printed"])
def test_gradient_is_that_of_finite_differences(sizes: tuple[int, ...], gates: Gates) -> None:
    def layer(*arguments: Tensor) -> tuple[Tensor, ...]:
        return lstm_layer(*arguments, gates=gates)

    assert torch.autograd.gradcheck(layer, make(sizes))


@pytest.mark.parametrize("sizes", SIZES)
def test_standard_gates_are_torch_lstm(sizes: tuple[int, ...]) -> None:
    arguments = make(sizes)
    stock = nn.LSTM(sizes[2], sizes[3]).double()
    for name, value in zip(NAMES[3:], arguments[3:], strict=True):
        getattr(stock, f"{name}_l0").data.copy_(value.detach())
    x, h0, c0 = arguments[:3]
    y, (h, c) = stock(x, (h0[None], c0[None]))
    theirs = (y, h[0], c[0])
    ours = lstm_layer(*arguments)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, **EXACT)
    weights = tuple(getattr(stock, f"{name}_l0") for name in NAMES[3:])
    assert_same(gradients(ours, arguments), gradients(theirs, (x, h0, c0, *weights)))


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("gates", ["standard", "as_printed"])
def test_forward_and_gradient_are_those_of_the_printed_equations(sizes: tuple[int, ...], gates: Gates) -> None:
    arguments = make(sizes)
    ours, truth = lstm_layer(*arguments, gates=gates), printed(arguments, gates=gates)
    for a, b in zip(ours, truth, strict=True):
        torch.testing.assert_close(a, b, **EXACT)
    assert_same(gradients(ours, arguments), gradients(truth, arguments))


def test_gates_as_printed_by_hand() -> None:
    """One unit, one step, every sum chosen: i = 3/4, f = 2/3, g = 4/5, o = 3/5, c = 2/3 * 3 + 3/4 * 4/5 = 2.6."""
    sums = torch.tensor([3.0, 2.0, 4.0, 4.0], dtype=torch.float64).log()  # sigma(log a) = a / (1 + a)
    sums[3] /= 2  # tanh(log(a) / 2) = (a - 1) / (a + 1)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    weights = (zero.expand(4, 1), zero.expand(4, 1), sums, torch.zeros_like(sums))
    y, h, c = lstm_layer(zero[None], zero, zero + 3, *weights, gates="as_printed")
    assert c.item() == pytest.approx(2.6, rel=1e-14)
    assert h.item() == y.item() == pytest.approx(0.6 * torch.tensor(2.6, dtype=torch.float64).tanh().item(), rel=1e-14)


# What each plan leaves out ----------------------------------------------------------------------------------------


@st.composite
def cases(draw: Any, mode: str) -> tuple[tuple[int, ...], Plan, int]:
    sizes = tuple(draw(st.integers(1, most)) for most in (6, 3, 4, 5))
    flags = st.lists(st.booleans(), min_size=sizes[3], max_size=sizes[3])
    seen = st.none() | st.lists(st.booleans(), min_size=sizes[2], max_size=sizes[2]).map(torch.tensor)
    plan = Plan(
        active=torch.tensor(draw(flags)),
        mode=mode,  # type: ignore[arg-type]
        steps=draw(st.none() | st.integers(1, 7)),
        weights=draw(st.booleans()),
        autonomous_inputs=draw(seen) if mode == "autonomous" else None,
        credit=(credit := draw(st.sampled_from(CREDITS))),
        part=draw(st.none() | flags.map(torch.tensor)) if credit == "cell" else None,
    )
    return sizes, plan, draw(st.integers(0, 2**16))


def check(sizes: tuple[int, ...], plan: Plan, seed: int, gates: Gates) -> None:
    arguments = make(sizes, seed)
    ours, truth = lstm_layer(*arguments, plan, gates), printed(arguments, plan, gates)
    for a, b in zip(ours, truth, strict=True):
        torch.testing.assert_close(a, b, **EXACT)
    assert_same(gradients(ours, arguments), gradients(truth, arguments), absent=() if plan.weights else NAMES[3:])


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=200, deadline=None)
@given(data=st.data(), gates=st.sampled_from(["standard", "as_printed"]))
def test_every_plan_is_autograd_through_the_cell_with_the_same_cuts(mode: str, data: Any, gates: Gates) -> None:
    check(*data.draw(cases(mode)), gates)


@pytest.mark.parametrize("steps", [None, 1, 3, 5, 50])
@pytest.mark.parametrize("plan", [Plan(mode=m) for m in MODES])
def test_plans_that_random_sizes_may_miss(plan: Plan, steps: int | None) -> None:
    check(SIZES[0], replace(plan, active=ACTIVE, steps=steps), 0, "standard")


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("wanted", ["y", "states"])
@pytest.mark.parametrize("credit", CREDITS)
@pytest.mark.parametrize("part", [None, 0, 1, 3])
def test_credit_left_out_is_autograd_of_the_detached_equations(
    credit: str, part: int | None, sizes: tuple[int, ...], wanted: str
) -> None:
    """The loss may see all outputs, or the last states alone: both ends of the sequence, T = 1 and B = 1 too."""
    units = None if part is None or credit != "cell" else torch.arange(sizes[3]) < part
    plan, arguments = Plan(credit=credit, part=units), make(sizes)  # type: ignore[arg-type]
    seen = slice(0, 1) if wanted == "y" else slice(1, 3)
    ours, truth = lstm_layer(*arguments, plan), printed(arguments, plan, "standard")
    found = (gradients(outputs[seen], arguments) for outputs in (ours, truth))
    for name, (answer, expected) in zip(NAMES, zip(*(f.values() for f in found), strict=True), strict=True):
        expected = torch.zeros_like(answer) if expected is None else expected
        torch.testing.assert_close(answer, expected, rtol=1e-12, atol=1e-12, msg=lambda m, name=name: f"{name}: {m}")


def test_with_all_units_passing_credit_or_one_step_the_cell_has_the_whole_gradient() -> None:
    for sizes, plan in ((SIZES[0], Plan(credit="cell", part=ACTIVE | True)), (SIZES[1], Plan(credit="cell"))):
        arguments = make(sizes)
        whole, cell = (gradients(lstm_layer(*arguments, p), arguments) for p in (Plan(), plan))
        for name in set(NAMES) - ({"h0"} if sizes[0] == 1 else set()):
            assert torch.equal(cell[name], whole[name]), name  # type: ignore[arg-type]


@pytest.mark.parametrize("plan", [Plan(active=ACTIVE, mode="masked"), Plan(mode="autonomous"), Plan(mode="cut")])
def test_masked_and_no_units_are_the_whole_gradient_bit_for_bit(plan: Plan) -> None:
    arguments = make(SIZES[0])
    whole = gradients(lstm_layer(*arguments), arguments)
    for name, gradient in gradients(lstm_layer(*arguments, plan), arguments).items():
        assert torch.equal(gradient, whole[name]), name


def test_exact_leaves_out_the_rows_of_isolated_units_and_nothing_else() -> None:
    arguments = make(SIZES[0])
    whole = gradients(lstm_layer(*arguments), arguments)
    exact = gradients(lstm_layer(*arguments, Plan(active=ACTIVE)), arguments)
    row = ACTIVE.repeat(4)
    for name in NAMES[:3]:
        assert torch.equal(exact[name], whole[name])
    for name in NAMES[3:]:
        torch.testing.assert_close(exact[name][row], whole[name][row], **EXACT)
        assert not exact[name][~row].any() and whole[name][~row].all()


@pytest.mark.parametrize("mode", ["exact", "cut", "autonomous"])
def test_weight_gradients_of_isolated_units_are_not_computed(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = make(SIZES[0])
    products = spy(monkeypatch, torch, "tensordot")
    gradients(lstm_layer(*arguments, Plan(active=ACTIVE, mode=mode)), arguments)  # type: ignore[arg-type]
    assert [p.shape for p in products] == [(4, 4, inputs) for inputs in (2, 7, 1, 1)]  # gates, active units, columns


def test_an_autonomous_zone_runs_alone() -> None:
    """Its trajectory is that of a smaller LSTM, whatever the active units and the other inputs do."""
    arguments = make((6, 2, 3, 7))
    seen = torch.tensor([True, False, True])
    plan = Plan(active=ACTIVE, mode="autonomous", autonomous_inputs=seen)
    zone, rows = ~ACTIVE, ~ACTIVE.repeat(4)
    x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh = (a.detach() for a in arguments)
    small = (x[..., seen], h0[:, zone], c0[:, zone], weight_ih[rows][:, seen], weight_hh[rows][:, zone])
    alone = lstm_layer(*small, bias_ih[rows], bias_hh[rows])
    whole = lstm_layer(*arguments, plan)
    for a, b in zip(whole, alone, strict=True):
        torch.testing.assert_close(a[..., zone], b, **EXACT)
    assert not torch.allclose(whole[0], lstm_layer(*arguments)[0])


# What users may rely on -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_two_runs_agree_bit_for_bit(mode: str) -> None:
    plan = Plan(active=ACTIVE, mode=mode, steps=4)  # type: ignore[arg-type]
    runs = []
    for _ in range(2):
        arguments = make(SIZES[0])
        outputs = lstm_layer(*arguments, plan)
        runs.append([*outputs, *gradients(outputs, arguments).values()])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("wanted", range(7))
def test_only_what_is_asked_for_is_computed(wanted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = make(SIZES[0])
    expected = gradients(lstm_layer(*arguments), arguments)[NAMES[wanted]]
    alone = [a.detach().requires_grad_(k == wanted) for k, a in enumerate(arguments)]
    outputs = lstm_layer(*alone)
    calls = spy(monkeypatch, reference, "weight_gradient")
    (answer,) = torch.autograd.grad(outputs, alone[wanted], arriving(outputs))
    assert torch.equal(answer, expected)
    assert len(calls) == (wanted >= 3)


def test_an_isolated_layer_computes_no_weight_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = make(SIZES[0])
    calls = spy(monkeypatch, reference, "weight_gradient")
    gradients(lstm_layer(*arguments, Plan(weights=False)), arguments)
    assert not calls


@pytest.mark.parametrize("k", range(3))
def test_one_output_alone_may_carry_the_loss(k: int) -> None:
    arguments = make(SIZES[0])
    ours, truth = lstm_layer(*arguments)[k : k + 1], printed(arguments, gates="standard")[k : k + 1]
    assert_same(gradients(ours, arguments), gradients(truth, arguments))


def test_writing_into_the_outputs_does_not_spoil_the_gradient() -> None:
    arguments = make(SIZES[0])
    expected = torch.autograd.grad(lstm_layer(*arguments)[0].sum(), arguments)
    y = lstm_layer(*arguments)[0]
    total = y.sum()
    y.data.fill_(7.0)
    for a, b in zip(torch.autograd.grad(total, arguments), expected, strict=True):
        assert torch.equal(a, b)


def test_layers_stack_and_parameters_collect() -> None:
    first, second = make(SIZES[0]), make((5, 3, 7, 4), seed=3)
    lstm_layer(lstm_layer(*first)[0], *second[1:], Plan(weights=False))[0].sum().backward()
    ours = [a.grad for a in (*first, *second[1:3])]
    assert all(a.grad is None for a in second[3:])
    truth = printed((printed(first, gates="standard")[0], *second[1:]), gates="standard")[0].sum()
    for a, b in zip(ours, torch.autograd.grad(truth, (*first, *second[1:3])), strict=True):
        torch.testing.assert_close(a, b, **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_precisions_keep_their_dtype_and_stay_near(dtype: torch.dtype) -> None:
    arguments = make(SIZES[0])
    short = tuple(a.detach().to(dtype).requires_grad_() for a in arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = lstm_layer(*short)
    assert all(o.dtype == dtype for o in outputs)
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    expected = gradients(lstm_layer(*arguments), arguments)
    for name, gradient in gradients(outputs, short).items():
        assert gradient.dtype == dtype
        error = (gradient.double() - expected[name]).norm() / expected[name].norm()
        assert error < tolerance, name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mode", MODES)
def test_another_device_gives_the_same(mode: str) -> None:
    arguments = make(SIZES[0])
    moved = tuple(a.detach().cuda().requires_grad_() for a in arguments)
    plan = Plan(active=ACTIVE, mode=mode, steps=4)  # type: ignore[arg-type]
    arriving_there = [a.cuda() for a in arriving(lstm_layer(*arguments, plan))]
    answer = torch.autograd.grad(lstm_layer(*moved, plan), moved, arriving_there)
    assert all(a.is_cuda for a in answer)
    assert_same(
        dict(zip(NAMES, [a.cpu() for a in answer], strict=True)), gradients(lstm_layer(*arguments, plan), arguments)
    )


def test_a_second_derivative_is_refused() -> None:
    arguments = make(SIZES[0])
    (dx,) = torch.autograd.grad(lstm_layer(*arguments)[0].square().sum(), arguments[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": torch.zeros(3, 2)}, r"x is \(3, 2\)"),
        ({"x": torch.zeros(0, 3, 2)}, r"x is \(0, 3, 2\)"),
        ({"h0": torch.zeros(7)}, r"h0 \(7,\): use \(steps, batch, inputs\) and \(batch, hidden\)"),
        ({"c0": torch.zeros(3, 6)}, r"c0 is \(3, 6\): with x \(5, 3, 2\) and 7 units use \(3, 7\)"),
        ({"weight_ih": torch.zeros(28, 7)}, r"weight_ih is \(28, 7\): .* use \(28, 2\)"),
        ({"weight_hh": torch.zeros(21, 7)}, r"weight_hh is \(21, 7\): .* use \(28, 7\)"),
        ({"bias_hh": torch.zeros(28, 1)}, r"bias_hh is \(28, 1\): .* use \(28,\)"),
        ({"bias_ih": torch.zeros(28)}, r"bias_ih is torch.float32 on cpu, x torch.float64"),
        ({"gates": "peephole"}, "gates 'peephole' do not exist: use one of standard, as_printed"),
        ({"plan": Plan(mode="sparse")}, "mode 'sparse' is unknown"),  # type: ignore[arg-type]
        ({"plan": Plan(steps=0)}, "steps = 0"),
        ({"plan": Plan(credit="some")}, "credit 'some' is unknown: use one of full, cell, none"),  # type: ignore[arg-type]
        ({"plan": Plan(credit="cell", part=ACTIVE[:6])}, r"part is torch.bool of shape \(6,\): use booleans of shape"),
        ({"plan": Plan(active=ACTIVE[:6])}, r"active is torch.bool of shape \(6,\): use booleans of shape \(7,\)"),
        ({"plan": Plan(active=ACTIVE.long())}, "active is torch.int64"),
        ({"plan": Plan(autonomous_inputs=ACTIVE)}, r"autonomous_inputs is torch.bool of shape \(7,\)"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changed: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = dict(zip(NAMES, make(SIZES[0]), strict=True))
    with pytest.raises(InputError, match=message):
        lstm_layer(**(arguments | changed))
