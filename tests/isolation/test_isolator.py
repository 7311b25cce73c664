"""The isolator in plain PyTorch loops: on any network, at no cost between selections, and what it keeps of the past."""

import copy
import io
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from isotrain.errors import InputError
from isotrain.forecast.encoders import ENCODERS
from isotrain.isolation import CRITERIA, MASKED, Isolator, MaskedAdam, Policy, Schedule, isolate
from isotrain.isolation.saving import saving
from isotrain.lstm import LSTM


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))


def constant(fraction: float = 0.5, start: float = 0.0) -> Any:
    return Schedule("constant", fraction=fraction, start=start)


def batches(count: int) -> Tensor:
    return torch.randn(count, 16, 5, generator=torch.Generator().manual_seed(3))


def train(isolator: Isolator, model: nn.Module, data: Tensor, first: int = 0, of: int | None = None) -> None:
    for step, x in enumerate(data, first):
        isolator.optimiser.zero_grad()
        loss = (model(x).squeeze(-1) - x.sum(-1).sin()).square().mean()
        loss.backward()
        isolator.before_step(step, of or len(data), loss=loss)
        isolator.optimiser.step()


def policy_of(zone: str, criterion: str, schedule: Schedule, mode: str = "masked", **settings: Any) -> Policy:
    return Policy(zone, mode, criterion, schedule, **settings)


def isolator_of(model: nn.Module, policy: Policy, optimiser: Any = None) -> Isolator:
    return Isolator(model, optimiser or MaskedAdam(model.parameters(), lr=1e-2), policy)


class Count(TorchDispatchMode):
    """Counts every operation on a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("criterion", ["random", "update_norm", "plateau"])
def test_between_selections_nothing_is_computed(criterion: str) -> None:
    model = network()
    isolator = isolator_of(model, policy_of("weight", criterion, constant(), every=4))
    train(isolator, model, batches(5))
    with Count() as count:
        isolator.before_step(5, 20)
    assert count.calls == 0
    with Count() as count:
        isolator.before_step(8, 20)
    assert count.calls > 0


@pytest.mark.parametrize("zone", ["weight", "row", "column", "tile", "unit", "layer"])
@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("count", ["zones", "weights", "flops"])
def test_isolated_weights_of_a_plain_network_stay(zone: str, scope: str, count: str) -> None:
    model = network()
    before = copy.deepcopy(model)
    policy = policy_of(zone, "magnitude", constant(), scope=scope, count=count, tile=(2, 2), churn=0.0)
    isolator = isolator_of(model, policy)
    train(isolator, model, batches(6))
    still = sum(int((p == q).sum()) for p, q in zip(model.parameters(), before.parameters(), strict=True))
    assert still == sum(m.isolated_weights(isolator.active[m.name]) for m in isolator.maps)
    assert 0.2 < isolator.isolated_share < 0.8


@pytest.mark.parametrize("name", sorted(MASKED))
def test_every_masked_optimiser_is_driven(name: str) -> None:
    model = network()
    before = copy.deepcopy(model)
    isolator = isolator_of(
        model, policy_of("row", "snip", constant(), churn=0.0), MASKED[name](model.parameters(), lr=1e-2)
    )
    train(isolator, model, batches(3))
    moved, trained = 0, 0
    for p, q in zip(model.parameters(), before.parameters(), strict=True):
        active = isolator.optimiser.active(p)  # type: ignore[attr-defined]
        assert torch.equal(p[~active], q[~active])
        moved, trained = moved + int((p != q)[active].sum()), trained + int(active.sum())
    assert moved > 0.5 * trained  # Adadelta's first steps may round to nothing


def test_a_layer_of_a_plain_network_gets_no_gradient_and_is_thawed_at_the_end() -> None:
    model, masked = network(), network()
    exact, control = (
        policy_of("layer", "depth", constant(1 / 3, start=0.25), mode=m, every=1) for m in ("exact", "masked")
    )
    isolator = isolator_of(model, exact)
    train(isolator, model, batches(8))
    train(isolator_of(masked, control), masked, batches(8))
    assert [p.grad is None for p in model.parameters()] == [True, True, False, False, False, False]
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), masked.parameters(), strict=True))
    isolator.finish()
    assert all(p.requires_grad for p in model.parameters())


class Last(nn.Module):
    """The states of a recurrent module."""

    def __init__(self, recurrent: nn.RNNBase) -> None:
        super().__init__()
        self.recurrent = recurrent

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.recurrent(x)[0]
        return answer


class States(nn.Module):
    """The states of an encoder of the forecaster."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.encoder = ENCODERS[name](5, 6, 2, 12, "auto")

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder.states(x)


NETWORKS: dict[str, Any] = {  # what makes one, and the parameters of its lower half
    "a stack of nn.LSTM": (lambda: Last(nn.LSTM(5, 6, 2)), ("_l0",)),
    "a stack of nn.GRU in two directions": (lambda: Last(nn.GRU(5, 6, 2, bidirectional=True)), ("_l0",)),
    "gru": (lambda: States("gru"), ("gru.0.",)),
    "tcn": (lambda: States("tcn"), ("widen", "blocks.0.", "blocks.1.")),  # dilations 1, 2, 1, 2
    "attention": (lambda: States("attention"), ("encoder.widen", "blocks.0.")),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_isolated_lower_layers_get_no_gradient_and_the_others_that_of_the_whole_backward(name: str) -> None:
    """In double precision against autograd on a network of which nothing is isolated; what lies below has no graph."""
    make, below = NETWORKS[name]
    torch.manual_seed(0)
    model, whole = make().double(), make().double()
    policy = policy_of("layer", "depth", constant(start=0.5), mode="exact", every=2, modules=["*"])
    isolator = isolator_of(model, policy)
    optimiser: Any = isolator.optimiser
    lower = {key: p for key, p in model.named_parameters() if any(part in key for part in below)}
    graphs: dict[str, bool] = {}
    for key, module in model.named_modules():
        own = [f"{key}.{name}" for name, _ in module.named_parameters(recurse=False)]
        if own and all(one in lower for one in own):
            module.register_forward_hook(lambda _, __, y, key=key: graphs.update({key: _first(y).requires_grad}))
    kept: dict[str, list[Tensor]] = {}
    for step, x in enumerate(torch.randn(8, 3, 20, 5, dtype=torch.float64)):
        whole.load_state_dict(model.state_dict())
        for one in (model, whole):
            one.zero_grad()
            one(x).sin().sum().backward()
        assert set(graphs.values()) <= {step <= 4}
        for key, p in whole.named_parameters():
            found = model.get_parameter(key).grad
            if step > 4 and key in lower:
                assert found is None, key
            else:
                torch.testing.assert_close(found, p.grad, rtol=1e-12, atol=1e-12)
        isolator.before_step(step, 8)
        optimiser.step()
        if step == 3:  # the last step in which they move
            kept = {key: [x.detach().clone() for x in (p, *optimiser.state[p].values())] for key, p in lower.items()}
    assert 0 < len(lower) < len(list(model.parameters()))
    for key, p in lower.items():
        now = [p.detach(), *optimiser.state[p].values()]
        assert all(torch.equal(a, b) for a, b in zip(kept[key], now, strict=True)), key
    isolator.finish()
    assert all(p.requires_grad for p in model.parameters())


def _first(answer: Any) -> Tensor:
    first: Tensor = answer[0] if isinstance(answer, tuple) else answer
    return first


def test_what_did_not_train_before_isolation_does_not_train_after_it() -> None:
    model = network()
    bias = model.get_parameter("0.bias").requires_grad_(False)
    isolator = isolator_of(model, policy_of("layer", "depth", constant(1 / 3), mode="exact"))
    isolator.before_step(0, 2)
    isolator.finish()
    assert not bias.requires_grad and model.get_parameter("0.weight").requires_grad


def test_thaw_and_churn_hold_what_they_promise() -> None:
    model = network()
    kept = isolator_of(
        model, policy_of("weight", "random", Schedule("cyclic", fraction=0.5, start=0.0), every=1, thaw=False)
    )
    seen = []
    for first in range(12):
        train(kept, model, batches(1), first, 12)
        seen.append(torch.cat(list(kept.active.values())).clone())
    assert all((later <= earlier).all() for earlier, later in pairwise(seen))
    assert 0 < (~seen[-1]).float().mean() <= 0.5

    model = network()
    slow = isolator_of(model, policy_of("weight", "random", constant(), every=1, churn=0.1))
    train(slow, model, batches(6))
    assert slow.history[0]["churn"] == pytest.approx(0.5, abs=0.02)
    assert all(0 < entry["churn"] <= 2 * 0.1 + 0.02 for entry in slow.history[1:])  # one thawed, one isolated


def test_a_schedule_waits_for_the_loss_to_stop_improving() -> None:
    model = network()
    schedule = Schedule("plateau", fraction=0.5, start=0.2, patience=2, least=0.01)
    isolator = isolator_of(model, policy_of("row", "random", schedule, every=1, churn=0.0))
    losses = [1.0, 0.8, 0.6, 0.4, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]
    for step, loss in enumerate(losses):
        train_step(isolator, model)
        isolator.before_step(step, len(losses), loss=torch.tensor(loss))
    assert [entry["step"] for entry in isolator.history] == [6]  # the last two no better than the best before
    with pytest.raises(InputError, match="waits for a plateau of the loss: hand it in"):
        isolator_of(model, policy_of("row", "random", schedule)).before_step(0, 10)


def train_step(isolator: Isolator, model: nn.Module) -> None:
    isolator.optimiser.zero_grad()
    model(batches(1)[0]).square().mean().backward()
    isolator.optimiser.step()


@pytest.mark.parametrize("criterion", sorted(CRITERIA))
@pytest.mark.parametrize("shape", ["constant", "plateau"])
def test_saved_and_loaded_in_the_middle_it_is_the_same_run(criterion: str, shape: str) -> None:
    """Through torch.save and torch.load(weights_only=True), between two selections."""
    data, fraction = batches(18), 0.4
    schedule = Schedule(shape, fraction=fraction, start=0.1, patience=1, least=0.5)
    policy = policy_of("row", criterion, schedule, every=2, scope="global")
    whole = network()
    one = isolator_of(whole, policy)
    train(one, whole, data)

    half = network()
    first = isolator_of(half, policy)
    train(first, half, data[:11], 0, 18)
    file = io.BytesIO()
    torch.save((half.state_dict(), first.optimiser.state_dict(), first.state_dict()), file)
    file.seek(0)
    states = torch.load(file, weights_only=True)
    resumed = network(seed=1)
    second = isolator_of(resumed, policy)
    resumed.load_state_dict(states[0])
    second.optimiser.load_state_dict(states[1])
    second.load_state_dict(states[2])
    second.start()
    train(second, resumed, data[11:], 11, 18)

    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), resumed.parameters(), strict=True))
    timeless = [[{k: v for k, v in entry.items() if k != "seconds"} for entry in i.history] for i in (one, second)]
    assert timeless[0] == timeless[1]
    assert len(one.record.entries) == len(second.record.entries) == len(one.history)
    if criterion != "plateau":  # which isolates nothing before it has decided
        assert one.history


def test_neglected_share_of_the_update() -> None:
    """By hand, for plain rows: Adam's coming update of every weight, and that of the isolated ones."""
    torch.manual_seed(0)
    model = nn.Linear(3, 4, bias=False)
    optimiser = MaskedAdam(model.parameters(), lr=1e-2)
    isolator = isolator_of(
        model,
        policy_of("row", "magnitude", Schedule("linear", fraction=0.75, start=0.0), every=1, modules=[""]),
        optimiser,
    )
    for step in range(3):
        optimiser.zero_grad()
        model(batches(step + 1)[step, :, :3]).square().mean().backward()
        state = {name: value.clone() for name, value in optimiser.state.get(model.weight, {}).items()}
        isolator.before_step(step, 4)
        if step < 2:
            optimiser.step()
    g, p = model.weight.grad, model.weight
    assert g is not None
    m, v = state["exp_avg"], state["exp_avg_sq"]
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    update = m / (1 - 0.9**3) / ((v / (1 - 0.999**3)).sqrt() + 1e-8)
    isolated = ~optimiser.active(p)
    expected = (update[isolated].square().sum() / update.square().sum()).sqrt()
    assert isolator.history[-1]["step"] == 2
    assert isolator.history[-1]["neglected"] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("zone", "mode", "isolated", "kept"),
    [
        ("unit", "exact", 0.75, (2 + 0.25) / 3),
        ("unit", "cut", 0.75, (1 + 0.25 + 0.0625) / 3),
        ("unit", "autonomous", 0.75, (0.5 + 0.0625) / 3),
        ("layer", "exact", 0.5, 2 / 3),
        ("step", "exact", 0.75, 1.5 / 3),
        ("credit", "cell", 1.0, 2 / 3),
        ("credit", "none", 0.5, 2.5 / 3),
        ("unit", "masked", 0.75, 1.0),
        ("unit", "exact", 0.0, 1.0),
    ],
)
def test_saving(zone: str, mode: str, isolated: float, kept: float) -> None:
    assert saving(zone, mode, isolated) == pytest.approx(1 - kept)


def test_what_cannot_work_is_refused_by_name() -> None:
    model = network()
    with pytest.raises(InputError, match=r"optimiser SGD cannot leave weights out; use .*MaskedAdam, or masked\(SGD\)"):
        isolator_of(model, policy_of("row", "snip", constant()), torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(InputError, match="criterion='update_norm' reads Adam's moments, and MaskedSGD keeps none"):
        isolator_of(model, policy_of("row", "update_norm", constant()), MASKED["sgd"](model.parameters(), lr=0.1))
    with pytest.raises(InputError, match=r"MaskedAdam does not hold 0\.weight, 0\.bias"):
        isolator_of(model, policy_of("row", "snip", constant()), MaskedAdam(model[4].parameters()))  # type: ignore[index]
    with pytest.raises(InputError, match=r"fraction=1\.0 would isolate all"):
        isolator_of(model, policy_of("row", "snip", constant(1.0)))
    with pytest.raises(InputError, match="cannot isolate in 'lstm': LSTM has no isolate"):
        isolator_of(nn.ModuleDict({"lstm": nn.LSTM(2, 3)}), policy_of("unit", "snip", constant(), mode="exact"))


def test_exact_units_of_our_lstm_in_a_plain_loop() -> None:
    torch.manual_seed(0)
    model = LSTM(5, 8)
    isolator = isolator_of(model, policy_of("unit", "fisher", constant(), mode="exact", every=2))
    for step, x in enumerate(batches(5)):
        isolator.optimiser.zero_grad()
        model(x[:, None])[0].square().mean().backward()
        isolator.before_step(step, 5)
        isolator.optimiser.step()
        if step == 3:
            gone = (~isolator.active["l0"]).nonzero().flatten()
            assert model.weight_hh_l0.grad is not None
            assert not model.weight_hh_l0.grad.reshape(4, 8, 8)[:, gone].any()
    assert not model.isolated.nothing
    isolator.finish()
    assert model.isolated.nothing


def states(lstm: nn.Module, optimizer: MaskedAdam, unit: int) -> list[Tensor]:
    """Every weight of a hidden unit, and both of its moments, in all layers."""
    kept = []
    for p in lstm.parameters():
        for value in (p.detach(), optimizer.state[p]["exp_avg"], optimizer.state[p]["exp_avg_sq"]):
            kept.append(value.reshape(4, 8, -1)[:, unit].clone())
    return kept


@pytest.mark.parametrize("mode", ["exact", "cut", "autonomous"])
@pytest.mark.parametrize("layers", [1, 2])
def test_one_call_isolates_units_in_the_network_and_in_its_optimiser(mode: str, layers: int) -> None:
    torch.manual_seed(0)
    lstm = LSTM(5, 8, layers)
    optimizer = MaskedAdam(lstm.parameters(), lr=1e-2, weight_decay=0.1)

    def step() -> None:
        optimizer.zero_grad()
        lstm(batches(1)[0][:, None])[0].square().mean().backward()
        optimizer.step()

    step()
    isolate(lstm, optimizer, units=range(3), mode=mode)
    isolated, active = states(lstm, optimizer, 2), states(lstm, optimizer, 5)
    for _ in range(3):
        step()
    assert all(torch.equal(before, now) for before, now in zip(isolated, states(lstm, optimizer, 2), strict=True))
    assert all(not torch.equal(before, now) for before, now in zip(active, states(lstm, optimizer, 5), strict=True))
    isolate(lstm, optimizer)
    step()
    assert all(not torch.equal(before, now) for before, now in zip(isolated, states(lstm, optimizer, 2), strict=True))
    assert lstm.isolated.nothing


def test_one_call_isolates_layers_and_time_steps() -> None:
    lstm = LSTM(5, 8, 2)
    optimizer = MaskedAdam(lstm.parameters())
    isolate(lstm, optimizer, layer=0)
    assert [bool(optimizer.active(p).any()) for p in lstm.parameters()] == [False] * 4 + [True] * 4
    isolate(lstm, optimizer, steps=3)
    assert all(optimizer.active(p).all() for p in lstm.parameters())
    assert lstm.isolated.steps == 3
    with pytest.raises(InputError, match="optimiser SGD cannot leave weights out"):
        isolate(lstm, torch.optim.SGD(lstm.parameters(), lr=0.1), layer=0)
    with pytest.raises(InputError):
        isolate(lstm, optimizer, units=[8])
    assert lstm.isolated.steps == 3  # nothing was changed
