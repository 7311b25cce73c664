"""Autonomous units: a zone fed by nothing that trains, against nn.LSTM and a cell cut by detach(); and its memory."""

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isotrain.errors import InputError
from isotrain.lstm import LSTM
from isotrain.lstm.kernels import build

INPUTS, HIDDEN = 3, 10
ZONE = (1, 2, 5, 9)
OTHERS = tuple(sorted(set(range(HIDDEN)) - set(ZONE)))
States = tuple[Tensor, Tensor]
pytestmark = pytest.mark.usefixtures("one_thread")
EXACT = {"rtol": 1e-10, "atol": 1e-12}


@pytest.fixture(params=["torch", "reference", "native"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "native":
        request.getfixturevalue("kernels")
    return str(request.param)


def network(layers: int = 2, backend: str = "torch", dtype: torch.dtype = torch.float64, **more: Any) -> LSTM:
    """With weights as large as a trained network's, so that what feeds what is seen."""
    torch.manual_seed(0)
    net = LSTM(INPUTS, HIDDEN, layers, backend=backend, **more).to(dtype)  # type: ignore[arg-type]
    for p in net.parameters():
        nn.init.normal_(p, std=0.4)
    return net


def stock_of(net: LSTM) -> nn.LSTM:
    stock = nn.LSTM(INPUTS, net.hidden_size, net.num_layers, batch_first=net.batch_first).to(net.weight_hh_l0)
    stock.load_state_dict(net.state_dict())
    return stock


def example(layers: int, steps: int = 7, batch: int = 4) -> tuple[Tensor, States]:
    torch.manual_seed(1)
    state = (layers, batch, HIDDEN)
    return torch.randn(steps, batch, INPUTS).double(), (torch.randn(state).double(), torch.randn(state).double())


def rows(units: tuple[int, ...], hidden: int = HIDDEN) -> Tensor:
    """The gate rows of these units."""
    return (torch.arange(4)[:, None] * hidden + torch.tensor(units, dtype=torch.long)).flatten()


def outputs(net: nn.Module, x: Tensor, hx: States | None = None, **more: Any) -> list[Tensor]:
    y, (h, c) = net(x, hx, **more)
    return [y, h, c]


def gradients(net: nn.Module, x: Tensor, hx: States | None = None, **more: Any) -> dict[str, Tensor | None]:
    """For a loss that sees every output, the zone's too."""
    net.zero_grad()
    y, (h, _) = net(x, hx, **more)
    (y.sin().sum() + h.square().sum()).backward()
    return {name: p.grad for name, p in net.named_parameters()}


def close(ours: Any, expected: Any, **tolerance: float) -> None:
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, **(tolerance or EXACT))


def by_hand(net: LSTM, x: Tensor, hx: States, zones: Mapping[int, tuple[int, ...]]) -> list[Tensor]:
    """y and the last h of the standard equations, the zone's outputs detached wherever they go."""
    last = []
    for k in range(net.num_layers):
        is_zone = torch.zeros(HIDDEN, dtype=torch.bool)
        is_zone[list(zones.get(k, ()))] = True
        w_ih, w_hh, b_ih, b_hh = (getattr(net, f"{n}_l{k}") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        h, c = hx[0][k], hx[1][k]
        seen = []
        for x_t in x:
            i, f, g, o = (x_t @ w_ih.T + b_ih + h @ w_hh.T + b_hh).chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            h, c = torch.where(is_zone, h.detach(), h), torch.where(is_zone, c.detach(), c)
            seen.append(h)
        x = torch.stack(seen)
        last.append(h)
    return [x, torch.stack(last)]


# The forward and the gradient -------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_zone_is_fed_by_itself_and_the_input_alone(layers: int) -> None:
    net = network(layers)
    expected = copy.deepcopy(net.state_dict())
    net.isolate(units=ZONE, mode="autonomous")
    for name, weight in expected.items():
        if name.startswith("weight_hh") or (name.startswith("weight_ih") and not name.endswith("l0")):
            weight[rows(ZONE)[:, None], torch.tensor(OTHERS)] = 0.0
    assert all(torch.equal(value, expected[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("batch_first", [False, True])
def test_the_forward_is_nn_lstms_with_the_same_weights(layers: int, backend: str, batch_first: bool) -> None:
    dtype = torch.float32 if backend == "native" else torch.float64
    net = network(layers, backend, dtype, batch_first=batch_first)
    net.isolate(units={k: (*ZONE, k) for k in range(layers)}, mode="autonomous")
    x, hx = example(layers)
    x, hx = (x.transpose(0, 1) if batch_first else x).to(dtype), (hx[0].to(dtype), hx[1].to(dtype))
    tolerance = {"rtol": 1e-5, "atol": 2e-6} if backend == "native" else EXACT
    close(outputs(net, x, hx), outputs(stock_of(net), x, hx), **tolerance)
    close(outputs(net.eval(), x, hx), outputs(stock_of(net), x, hx), **tolerance)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_active_units_get_the_gradient_of_a_cell_whose_zone_is_detached(layers: int, backend: str) -> None:
    net = network(layers, backend, torch.float32 if backend == "native" else torch.float64)
    zones = {k: ZONE[: 4 - k] for k in range(layers)}
    net.isolate(units=zones, mode="autonomous")
    x, hx = example(layers)
    x.requires_grad_()
    truth = copy.deepcopy(net).double()
    y, h = by_hand(truth, x, hx, zones)
    (y.sin().sum() + h.square().sum()).backward()
    right_dx = x.grad
    ours_x = x.detach().to(net.weight_hh_l0.dtype).requires_grad_()
    found = gradients(net, ours_x, (hx[0].to(ours_x.dtype), hx[1].to(ours_x.dtype)))
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if backend == "native" else EXACT
    for name, p in truth.named_parameters():
        k, gradient = int(name[-1]), found[name]
        assert gradient is not None and p.grad is not None
        trains = torch.ones(4 * HIDDEN, dtype=torch.bool)
        trains[rows(zones[k])] = False
        torch.testing.assert_close(gradient[trains].double(), p.grad[trains], **tolerance)
        assert not gradient[~trains].any()
        assert gradient[trains].any()
    torch.testing.assert_close(ours_x.grad, right_dx, **tolerance, check_dtype=False)


def test_a_backward_through_the_last_steps_only() -> None:
    net, (x, hx) = network(2), example(2)
    net.isolate(units=ZONE, mode="autonomous", steps=3)
    whole = outputs(stock_of(net), x, hx)
    close(outputs(net, x, hx), whole)
    found = gradients(net, x, hx)
    _, states = stock_of(net)(x[:4], hx)
    states = (states[0].detach(), states[1].detach())  # the early steps, without a graph
    last = copy.deepcopy(net)
    late, h = by_hand(last, x[4:], states, dict.fromkeys(range(2), ZONE))
    (late.sin().sum() + h.square().sum()).backward()
    trains = torch.ones(4 * HIDDEN, dtype=torch.bool)
    trains[rows(ZONE)] = False
    for name, p in last.named_parameters():
        torch.testing.assert_close(found[name][trains], p.grad[trains], **EXACT)  # type: ignore[index]


def test_the_zones_weights_hold_still_under_training() -> None:
    net, (x, hx) = network(2), example(2)
    net.isolate(units=ZONE, mode="autonomous")
    before, memory = copy.deepcopy(net.state_dict()), net.remember(x[:, 0])
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(3):
        gradients(net, x, hx)
        optimiser.step()
    for name, value in net.state_dict().items():
        assert torch.equal(value[rows(ZONE)], before[name][rows(ZONE)])
        assert (value[rows(OTHERS)] != before[name][rows(OTHERS)]).any()
    assert torch.equal(net.remember(x[:, 0]), memory)


# Memory -----------------------------------------------------------------------------------------------------------

SERIES = 40


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_run_over_the_whole_series_is_the_same_with_its_memory(layers: int, backend: str, batch_first: bool) -> None:
    dtype = torch.float32 if backend == "native" else torch.float64
    net = network(layers, backend, dtype, batch_first=batch_first)
    net.isolate(units=ZONE, mode="autonomous")
    series = torch.randn(SERIES, INPUTS, dtype=dtype)
    memory = net.remember(series)
    assert memory.shape == (SERIES + 1, net.memory_width) == (SERIES + 1, layers * len(ZONE))
    assert not memory[0].any() and not memory.requires_grad
    batch = 0 if batch_first else 1
    x, with_memory = series.unsqueeze(batch), memory.unsqueeze(batch)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if backend == "native" else EXACT
    y, (h, c) = net(x, memory=with_memory)
    expected = outputs(stock_of(net), x)
    close([y, h], expected[:2], **tolerance)
    assert c[..., ZONE].isnan().all()  # a memory does not hold them
    torch.testing.assert_close(c[..., OTHERS], expected[2][..., OTHERS], **tolerance)
    found, right = gradients(net, x, memory=with_memory), gradients(net, x)
    close(found.values(), right.values(), **tolerance)


def test_what_is_remembered_in_stretches_is_what_one_run_remembers_but_for_the_warm_up() -> None:
    torch.manual_seed(0)
    lstm, series = LSTM(3, 20, 2), torch.randn(700, 3)
    lstm.isolate(units=range(12), mode="autonomous")
    once = lstm.remember(series)
    far = [(once - lstm.remember(series, warm=warm))[100:].abs().max() for warm in (0, 4, 16, 64)]
    assert far[0] > far[1] > far[2] > far[3]
    assert far[3] < 1e-4
    assert not lstm.remember(series, warm=64)[0].any()


def test_a_stretch_from_the_middle_is_that_of_the_continuous_run() -> None:
    """Given the states there, which for the zone are the memory's own."""
    net = network(2)
    net.isolate(units=ZONE, mode="autonomous")
    series = torch.randn(SERIES, INPUTS).double()
    memory, first = net.remember(series), 17
    whole, _ = stock_of(net)(series[:, None])
    _, before = stock_of(net)(series[:first, None])
    y, (h, _) = net(series[first:, None], before, memory=memory[first:, None])
    close([y], [whole[first:]])
    unknown = (before[0].clone(), before[1].clone())
    unknown[0][..., ZONE] = unknown[1][..., ZONE] = torch.nan  # not read
    y, (again, _) = net(series[first:, None], unknown, memory=memory[first:, None])
    close([y, again], [whole[first:], h])


def test_a_window_from_zero_states_differs_and_warms_up() -> None:
    """The zone remembers what was before the window; without a memory that is lost, and fades."""
    net = network(1)
    net.isolate(units=ZONE, mode="autonomous")
    series = torch.randn(SERIES, INPUTS).double()
    whole, first = stock_of(net)(series[:, None])[0], 15
    remembered = net(series[first:, None], memory=net.remember(series)[first:, None])[0]
    torch.testing.assert_close(remembered[..., ZONE], whole[first:][..., ZONE], **EXACT)
    error = (net(series[first:, None])[0] - remembered)[..., ZONE].abs().mean((1, 2))
    assert error[0] > 0.01
    assert error[:5].mean() > 4 * error[5:10].mean() > 16 * error[15:].mean()


def test_memory_in_bf16_is_near(backend: str) -> None:
    net = network(2, backend, torch.float32)
    net.isolate(units=ZONE, mode="autonomous")
    series = torch.randn(SERIES, INPUTS)
    expected = torch.cat(outputs(stock_of(net), series[:, None])[:2])
    net.compute = "bf16"
    if backend == "native" and not build.has_brgemm(True):
        pytest.skip("this processor has no bf16 products")
    y, (h, _) = net(series[:, None], memory=net.remember(series)[:, None])
    assert y.dtype == h.dtype == torch.float32
    assert (torch.cat([y, h]) - expected).norm() < 0.02 * expected.norm()


def test_windows_of_a_batch_each_take_their_own_rows() -> None:
    net = network(2, batch_first=True)
    net.isolate(units=ZONE, mode="autonomous")
    series, starts = torch.randn(SERIES, INPUTS).double(), torch.tensor([3, 20, 11])
    memory = net.remember(series)
    hours = starts[:, None] + torch.arange(9)
    rows_ = torch.cat([hours, hours[:, -1:] + 1], 1)
    y = net(series[hours], memory=memory[rows_])[0]
    for k, start in enumerate(starts.tolist()):
        alone = net(series[start : start + 9], memory=memory[start : start + 10])[0]  # without a batch
        torch.testing.assert_close(y[k], alone, **EXACT)


@pytest.mark.parametrize("isolated", [(0,), (0, 1)])
def test_isolated_layers_below_can_be_remembered_as_well(backend: str, isolated: tuple[int, ...]) -> None:
    net = network(3, backend, torch.float32 if backend == "native" else torch.float64)
    net.isolate(layer=isolated)
    series = torch.randn(SERIES, INPUTS).to(net.weight_hh_l0.dtype)
    x, memory = series[:, None], net.remember(series)[:, None]
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if backend == "native" else EXACT
    assert net.memory_width == HIDDEN  # the topmost of them: nobody reads the others
    y, (h, c) = net(x, memory=memory)
    expected = outputs(stock_of(net), x)
    top = isolated[-1]
    right_states = [expected[1][2], expected[2][2], expected[1][top]]
    close([y, h[2], c[2], h[top]], [expected[0], *right_states], **tolerance)
    assert c[: len(isolated)].isnan().all()
    assert h[: len(isolated) - 1].isnan().all()
    found, right = gradients(net, x, memory=memory), gradients(net, x)
    for name, gradient in found.items():
        assert (gradient is None) == (int(name[-1]) in isolated) == (right[name] is None)
        if gradient is not None:
            torch.testing.assert_close(gradient, right[name], **tolerance)


def test_an_isolated_layer_and_a_zone_above_it() -> None:
    net, (x, hx) = network(2), example(2)
    net.isolate(layer=0, units={1: ZONE}, mode="autonomous")
    close(outputs(net, x, hx), outputs(stock_of(net), x, hx))
    series = torch.randn(SERIES, INPUTS).double()
    memory = net.remember(series)
    assert net.memory_width == HIDDEN + len(ZONE)
    y, _ = net(series[:, None], memory=memory[:, None])
    close([y], [stock_of(net)(series[:, None])[0]])
    found = gradients(net, series[:, None], memory=memory[:, None])
    y, h = by_hand(net, series[:, None], (x.new_zeros(2, 1, HIDDEN),) * 2, {0: tuple(range(HIDDEN)), 1: ZONE})
    net.zero_grad()
    (y.sin().sum() + h.square().sum()).backward()
    for name, p in net.named_parameters():
        if name.endswith("l1"):
            torch.testing.assert_close(found[name][rows(OTHERS)], p.grad[rows(OTHERS)], **EXACT)  # type: ignore[index]


def test_evaluation_takes_a_memory_too_and_needs_none() -> None:
    net = network(2).eval()
    net.isolate(units=ZONE, mode="autonomous")
    series = torch.randn(SERIES, INPUTS).double()
    expected = stock_of(net)(series[:, None])[0]
    close([net(series[:, None])[0], net(series[:, None], memory=net.remember(series)[:, None])[0]], [expected] * 2)


def test_a_memory_that_does_not_fit_is_refused_by_name() -> None:
    net = network(2)
    series, x = torch.randn(9, INPUTS).double(), torch.randn(9, 4, INPUTS).double()
    with pytest.raises(InputError, match="nothing to remember: isolate units in mode 'autonomous', or the lowest lay"):
        net.remember(series)
    with pytest.raises(InputError, match="memory was given, but nothing isolated can be remembered"):
        net(x, memory=torch.zeros(10, 4, 8).double())
    net.isolate(layer=1)
    with pytest.raises(InputError, match="nothing to remember"):
        net.remember(series)
    net.isolate(units=ZONE, mode="autonomous")
    for shape in ((9, 4, 8), (10, 3, 8), (10, 4, 7), (4, 10, 8), (10, 8)):
        with pytest.raises(InputError, match=r"memory has shape .*, expected \(10, 4, 8\): one row more than x"):
            net(x, memory=torch.zeros(shape).double())
    net.batch_first = True
    with pytest.raises(InputError, match=r"memory has shape \(10, 9, 8\), expected \(9, 5, 8\)"):
        net(x, memory=torch.zeros(10, 9, 8).double())


def test_a_zone_that_would_see_no_input_is_refused() -> None:
    net = network(2)
    with pytest.raises(InputError, match="layer 1 has isolated units but layer 0 below has none"):
        net.isolate(units={1: ZONE}, mode="autonomous")
    with pytest.raises(InputError, match="every unit of every layer isolated"):
        net.isolate(units=range(HIDDEN), mode="autonomous")
    with pytest.raises(InputError, match="layer 0 has no unit 10: its units are 0 to 9"):
        net.isolate(units=[10], mode="autonomous")
