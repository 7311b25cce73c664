"""The measured horizon against the truncated backward itself, and the rule at its edges."""

import copy
import io
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from isotrain.errors import InputError
from isotrain.lstm import LSTM
from isotrain.lstm.horizon import CreditMeasurement, Horizon, Measurement, checked_ladder, next_horizon

T, LADDER = 19, (1, 3, 4, 11, 18, 19, 40)
States = tuple[Tensor, Tensor]


pytestmark = pytest.mark.usefixtures("one_thread")


def network(layers: int = 2, batch_first: bool = True, **more: object) -> LSTM:
    torch.manual_seed(0)
    return LSTM(5, 7, layers, batch_first=batch_first, **more).double()  # type: ignore[arg-type]


def example(net: LSTM, with_states: bool, steps: int = T) -> tuple[Tensor, States | None]:
    x = torch.randn((3, steps, 5) if net.batch_first else (steps, 3, 5), dtype=torch.float64)
    shape = (net.num_layers, 3, 7)
    return x, (torch.randn(shape).double(), torch.randn(shape).double()) if with_states else None


def loss_at_end(net: LSTM, x: Tensor, hx: States | None = None) -> Tensor:
    y = net(x, hx)[0]
    last: Tensor = y[:, -1] if net.batch_first else y[-1]
    return last.sin().sum()


def loss_everywhere(net: LSTM, x: Tensor, hx: States | None = None) -> Tensor:
    y, (h, c) = net(x, hx)
    return y.square().sum() + h.sin().sum() + c.cos().sum()


def gradients(net: nn.Module) -> list[Tensor]:
    answer = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    net.zero_grad()
    return answer


def norm(tensors: list[Tensor]) -> float:
    return math.sqrt(sum(float(t.square().sum()) for t in tensors))


def close(a: list[Tensor], b: list[Tensor]) -> None:
    assert len(a) == len(b) > 0
    for one, other in zip(a, b, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("loss", [loss_at_end, loss_everywhere])
@pytest.mark.parametrize("with_states", [False, True])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("layers", [1, 3])
def test_parts_are_what_the_truncated_backward_of_every_rung_says(
    layers: int, batch_first: bool, with_states: bool, loss: object
) -> None:
    assert callable(loss)
    net = network(layers, batch_first)
    x, hx = example(net, with_states)
    loss(net, x, hx).backward()
    whole = gradients(net)
    with Measurement(net, LADDER) as measurement:
        loss(net, x, hx).backward()
    close(gradients(net), whole)
    close([part.sum(0) for part in measurement.parts.values()], whole)
    neglected = measurement.neglected()
    assert tuple(neglected) == LADDER
    for rung, k in enumerate(LADDER):
        net.isolate(steps=k)
        loss(net, x, hx).backward()
        truncated = gradients(net)
        close([part[: rung + 1].sum(0) for part in measurement.parts.values()], truncated)
        direct = norm([g - t for g, t in zip(whole, truncated, strict=True)]) / norm(whole)
        assert neglected[k] == pytest.approx(direct, rel=1e-10, abs=1e-12)
        assert k < T or neglected[k] == 0.0


def test_outputs_states_and_the_gradients_of_inputs_are_the_undivided_ones() -> None:
    net = network()
    answers = []
    for measured in (False, True):
        torch.manual_seed(1)
        x, hx = example(net, True)
        assert hx is not None
        leaves = [t.requires_grad_() for t in (x, *hx)]
        with Measurement(net, (4, 9)) if measured else torch.enable_grad():
            y, (h, c) = net(x, hx)
        (y.square().sum() + h.sum() + c.sum()).backward()
        answers.append([y, h, c, *[t.grad for t in leaves if t.grad is not None]])
    close(*answers)


def test_unbatched_sequences() -> None:
    net = network()
    x = torch.randn(T, 5, dtype=torch.float64)
    shares = []
    for batched in (x, x[None]):
        with Measurement(net, (2, 6)) as measurement:
            net(batched)[0].reshape(T, 7)[-1].sum().backward()
        shares.append(measurement.neglected())
    assert shares[0] == pytest.approx(shares[1], rel=1e-12)


def test_backwards_add_up_as_gradients_do_whatever_the_lengths() -> None:
    net = network()
    first, second = example(net, False, 6)[0], example(net, False, T)[0]
    with Measurement(net, (3, 8)) as measurement:
        loss_at_end(net, first).backward()
        (0.5 * loss_at_end(net, second)).backward()
    close([part.sum(0) for part in measurement.parts.values()], gradients(net))
    net.isolate(steps=3)
    loss_at_end(net, first).backward()
    (0.5 * loss_at_end(net, second)).backward()
    close([part[0] for part in measurement.parts.values()], gradients(net))


def test_several_lstms_are_one_vector_and_what_does_not_train_is_no_part_of_it() -> None:
    one, two = network(1), LSTM(7, 4, batch_first=True).double()
    two.bias_hh_l0.requires_grad_(False)
    x, _ = example(one, False)
    with Measurement([one, two], (5,)) as measurement:
        two(one(x)[0])[0][:, -1].sum().backward()
    whole = [*gradients(one), *gradients(two)]
    assert len(measurement.parts) == len(whole) == 7
    one.isolate(steps=5)
    two.isolate(steps=5)
    two(one(x)[0])[0][:, -1].sum().backward()
    truncated = [*gradients(one), *gradients(two)]
    direct = norm([g - t for g, t in zip(whole, truncated, strict=True)]) / norm(whole)
    assert measurement.neglected()[5] == pytest.approx(direct, rel=1e-10)


def test_isolated_layers_stay_isolated() -> None:
    net = network(2)
    x, _ = example(net, False)
    net.isolate(layer=0)
    with Measurement(net, (5,)) as measurement:
        loss_at_end(net, x).backward()
    assert net.weight_ih_l0.grad is None
    assert measurement.parts[net.weight_ih_l0].count_nonzero() == 0
    torch.testing.assert_close(measurement.parts[net.weight_ih_l1].sum(0), net.weight_ih_l1.grad)


@pytest.mark.parametrize("compute, tolerance", [("fp32", 1e-4), ("bf16", 0.05)])
def test_in_the_precision_of_training(compute: str, tolerance: float) -> None:
    exact = network(2)
    net = LSTM(5, 7, 2, batch_first=True, compute=compute)  # type: ignore[arg-type]
    net.load_state_dict(exact.state_dict())
    x = torch.randn(32, T, 5)
    shares = []
    for which, at in ((exact, x.double()), (net, x)):
        with Measurement(which, (2, 6)) as measurement:
            which(at)[0][:, -1].double().square().sum().backward()
        shares.append(measurement.neglected())
    assert shares[1] == pytest.approx(shares[0], rel=tolerance)


def test_noise_between_layers_is_drawn_stretch_by_stretch() -> None:
    net = network(2, dropout=0.5)
    x, _ = example(net, False)
    with Measurement(net, (4,)) as measurement:
        first = net(x)[0]
        second = net(x)[0]
        second[:, -1].sum().backward()
    assert not torch.equal(first, second)
    close([part.sum(0) for part in measurement.parts.values()], gradients(net))


def test_a_small_share_is_not_lost_in_rounding() -> None:
    net = LSTM(5, 7, batch_first=True)
    x = torch.randn(3, 150, 5)
    with Measurement(net, (100,)) as measurement:
        net(x)[0][:, -1].sum().backward()
    assert 0.0 < measurement.neglected()[100] < 1e-12  # single precision resolves 1e-7 of the whole


def test_what_was_measured_survives_what_is_done_to_the_gradients() -> None:
    net = network(1)
    x, _ = example(net, False)
    with Measurement(net, (T,)) as measurement:
        loss_at_end(net, x).backward()
    before = copy.deepcopy(list(measurement.parts.values()))
    nn.utils.clip_grad_norm_(net.parameters(), 1e-3)
    close(list(measurement.parts.values()), before)


def test_the_forward_is_given_back_whatever_happens() -> None:
    net = network()
    x, _ = example(net, False)
    expected = net(x)[0]
    with pytest.raises(RuntimeError, match="on purpose"), Measurement(net, (4,)):
        net(x)
        raise RuntimeError("on purpose")
    assert "forward" not in vars(net)
    assert torch.equal(net(x)[0], expected)
    twin = copy.deepcopy(net)
    assert torch.equal(twin(x)[0], expected)
    torch.save(net.state_dict(), io.BytesIO())
    net.forward = own = lambda x: "own"  # type: ignore[method-assign,assignment]
    with Measurement(net, (4,)):
        assert net.forward is not own
    assert net.forward is own


def test_forwards_without_a_graph_are_left_alone_and_a_stock_lstm_will_do() -> None:
    net = nn.LSTM(5, 7, batch_first=True)
    x = torch.randn(3, T, 5)
    with Measurement(net, (4,)) as measurement:
        with torch.no_grad():
            assert torch.equal(net(x)[0], nn.LSTM.forward(net, x)[0])
        net(x)[0][:, -1].sum().backward()
    assert 0.0 < measurement.neglected()[4] < 1.0


def test_a_gradient_of_zero_or_no_number_says_nothing() -> None:
    net = network()
    x, _ = example(net, False)
    for factor in (0.0, math.nan, math.inf):
        with Measurement(net, (4, 30)) as measurement:
            (factor * loss_at_end(net, x)).backward()
        assert all(math.isnan(share) for share in measurement.neglected().values())


@pytest.mark.parametrize(
    "shares, tolerance, expected",
    [
        ({12: 0.3, 24: 0.05, 48: 0.01, 168: 0.0}, 0.1, 24),
        ({168: 0.0, 12: 0.3, 48: 0.01, 24: 0.05}, 0.1, 24),  # in whatever order
        ({12: 0.3, 24: 0.05, 48: 0.01, 168: 0.0}, 0.05, 24),  # at the tolerance is within it
        ({12: 0.3, 24: 0.05, 48: 0.01, 168: 0.0}, 0.0, 168),
        ({12: 0.3, 24: 0.05, 48: 0.01}, 0.0, None),  # the ladder ends before the window does
        ({12: 0.3, 168: 0.0, 336: 0.0}, 0.0, 168),  # beyond the window nothing is gained
        ({12: 0.01, 24: 0.2, 48: 0.05}, 0.1, 48),  # the shortest is good by accident
        ({12: 0.0, 24: 0.0}, 0.0, 12),
        ({12: math.inf, 24: 0.2}, 0.5, 24),
        ({12: math.nan, 24: math.nan}, 0.5, None),
    ],
)
def test_the_rule(shares: dict[int, float], tolerance: float, expected: int | None) -> None:
    assert next_horizon(shares, tolerance) == expected


def test_when_to_measure_and_what_is_in_force() -> None:
    horizon = Horizon((48, 12, 24, 24), tolerance=0.1, every=5)
    assert horizon.ladder == (12, 24, 48)
    assert horizon.steps is None and horizon.due(0)
    horizon.observe(0, dict.fromkeys(horizon.ladder, math.nan))  # says nothing: measure again
    assert horizon.steps is None and horizon.due(1)
    horizon.observe(1, {12: 0.2, 24: 0.05, 48: 0.0})
    assert horizon.steps == 24
    assert [step for step in range(2, 8) if horizon.due(step)] == [6, 7]
    horizon.observe(7, {12: 0.01, 24: 0.0, 48: 0.0})
    assert horizon.steps == 12
    horizon.observe(12, dict.fromkeys(horizon.ladder, math.nan))
    assert horizon.steps == 12
    horizon.observe(13, {12: 0.9, 24: 0.8, 48: 0.7})
    assert horizon.steps is None
    assert [(row["step"], row["steps"]) for row in horizon.history] == [
        (0, None),
        (1, 24),
        (7, 12),
        (12, 12),
        (13, None),
    ]
    assert horizon.history[0]["neglected"] == {} and horizon.history[1]["neglected"][24] == 0.05


def test_a_resumed_horizon_goes_on() -> None:
    horizon = Horizon((12, 24), every=5)
    horizon.observe(3, {12: 0.2, 24: 0.05})
    buffer = io.BytesIO()
    torch.save(horizon.state_dict(), buffer)
    buffer.seek(0)
    resumed = Horizon((12, 24), every=5)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    for each in (horizon, resumed):
        assert each.steps == 24
        assert [step for step in range(12) if each.due(step)] == [8, 9, 10, 11]
        each.observe(8, {12: 0.02, 24: 0.01})
    assert resumed.history == horizon.history


def test_a_measured_step_trains_by_everything_and_the_next_one_within_the_tolerance() -> None:
    net = network(2)
    horizon = Horizon((2, 4, 8), tolerance=0.2)
    x, hx = example(net, True)
    loss_at_end(net, x, hx).backward()
    whole = gradients(net)
    with Measurement(net, horizon.ladder) as measurement:
        loss_at_end(net, x, hx).backward()
    close(gradients(net), whole)
    horizon.observe(0, measurement.neglected())
    assert horizon.steps in (2, 4, 8)
    net.isolate(steps=horizon.steps)
    loss_at_end(net, x, hx).backward()
    used = gradients(net)
    assert 0 < norm([u - w for u, w in zip(used, whole, strict=True)]) <= 0.2 * norm(whole)
    cosine = sum(float((u * w).sum()) for u, w in zip(used, whole, strict=True)) / norm(used) / norm(whole)
    assert math.acos(cosine) <= math.asin(0.2)


def test_what_cannot_be_is_refused_by_name() -> None:
    net = network()
    x, _ = example(net, False)
    with pytest.raises(InputError, match="at least one"):
        checked_ladder([])
    with pytest.raises(InputError, match="ladder: 0 time steps"):
        Measurement(net, (12, 0))
    for tolerance in (-0.1, 1.0, math.nan):
        with pytest.raises(InputError, match=f"tolerance={tolerance}"):
            Horizon(tolerance=tolerance)
    with pytest.raises(InputError, match="every=0"):
        Horizon(every=0)
    with pytest.raises(InputError, match=r"measured at \[3\] time steps, but the ladder is \[12, 24\]"):
        Horizon((12, 24)).observe(0, {3: 0.1})
    with pytest.raises(InputError, match="bidirectional"):
        Measurement(nn.LSTM(5, 7, bidirectional=True))
    net.isolate(steps=3)
    with pytest.raises(InputError, match=r"steps=3.*call isolate\(\) before"):
        Measurement(net).attach()
    net.isolate()
    measurement = Measurement(net)
    with measurement, pytest.raises(InputError, match="attached already"):
        measurement.attach()
    measurement.detach()  # harmless
    with Measurement(net), pytest.raises(InputError, match="packed sequences"):
        net(pack_sequence([torch.randn(3, 5, dtype=torch.float64)]))
    with Measurement(net), pytest.raises(InputError, match="not memory"):
        net(x, memory=x)


# credit left out


def credit_gradient(net: LSTM, x: Tensor, hx: States | None, asked: dict[str, object]) -> Tensor:
    """The weight gradient of one forward and backward with this credit, as one vector."""
    net.zero_grad()
    net.isolate(**asked)  # type: ignore[arg-type]
    y, (h, c) = net(x, hx)
    (y.sin().sum() + h.square().sum() + c.cos().sum()).backward()
    net.isolate()
    return torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])


@pytest.mark.parametrize("with_states", [False, True])
@pytest.mark.parametrize("asked", [{"credit": "cell"}, {"credit": "none"}, {"credit": "cell", "part": (0, 3)}], ids=str)
@pytest.mark.parametrize("batch_first", [False, True])
def test_what_credit_neglects_is_the_difference_of_the_two_gradients(
    batch_first: bool, asked: dict[str, object], with_states: bool
) -> None:
    net = network(batch_first=batch_first)
    x, hx = example(net, with_states)
    whole, without = credit_gradient(net, x, hx, {}), credit_gradient(net, x, hx, asked)
    with CreditMeasurement(net, **asked) as measurement:  # type: ignore[arg-type]
        trained = credit_gradient(net, x, hx, {})
    assert torch.equal(trained, whole)
    expected = float((whole - without).norm() / whole.norm())
    assert measurement.neglected() == pytest.approx(expected, rel=1e-12)
    assert net.isolated.nothing and "forward" not in vars(net)


def test_credit_of_several_lstms_and_several_forwards_adds_up() -> None:
    """Two forwards of each, one of them not read by the loss: sums, as gradients are, and each LSTM counts once."""
    nets = [network(), network(1)]
    nets[1].load_state_dict({name: 0.5 * p for name, p in nets[1].state_dict().items()})
    x = [example(nets[0], False, steps)[0] for steps in (T, 6)]

    def gradient(credit: str) -> Tensor:
        parts = []
        for net in nets:
            net.zero_grad()
            net.isolate(credit=credit)  # type: ignore[arg-type]
            sum(net(one)[0].square().sum() for one in x).backward()  # type: ignore[union-attr]
            net.isolate()
            parts += [p.grad.flatten() for p in net.parameters() if p.grad is not None]
        return torch.cat(parts)

    whole, without = gradient("full"), gradient("cell")
    with CreditMeasurement(nets) as measurement:
        for net in nets:
            net(x[0])  # nobody reads it
            sum(net(one)[0].square().sum() for one in x).backward()  # type: ignore[union-attr]
    assert measurement.neglected() == pytest.approx(float((whole - without).norm() / whole.norm()), rel=1e-12)


def test_a_measurement_of_credit_is_of_whole_steps() -> None:
    net = network()
    with CreditMeasurement(net) as measurement, torch.no_grad():
        net(example(net, False)[0])
    assert math.isnan(measurement.neglected())  # without a graph nothing is measured
    with CreditMeasurement(net) as measurement, pytest.raises(InputError, match="attached already"):
        measurement.attach()
    net.isolate(layer=0)
    with pytest.raises(InputError, match="a measured step is a whole one, call isolate"):
        CreditMeasurement(net).attach()
    assert "forward" not in vars(net)
