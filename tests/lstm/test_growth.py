"""A grown network: the old units as they were, the fresh ones as torch.nn.LSTM makes and trains them."""

import copy

import pytest
import torch
from torch import Tensor, nn

from isotrain.errors import InputError
from isotrain.lstm import LSTM
from isotrain.lstm.growth import grown

INPUTS, OLD, NEW = 3, 10, 15
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def network(layers: int) -> LSTM:
    """With weights as large as a trained network's."""
    torch.manual_seed(0)
    net = LSTM(INPUTS, OLD, layers, backend="torch").double()
    for p in net.parameters():
        nn.init.normal_(p, std=0.4)
    return net


def series(steps: int = 20, batch: int = 4) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(steps, batch, INPUTS).double()


def rows(units: range, hidden: int) -> Tensor:
    """The gate rows of these units."""
    return (torch.arange(4)[:, None] * hidden + torch.tensor(units)).flatten()


def gradients(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
    y, (h, _) = net(x)
    (y.sin().sum() + h.square().sum()).backward()
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_old_units_do_what_they_did(layers: int) -> None:
    small, x = network(layers), series()
    before = copy.deepcopy(small.state_dict())
    big = grown(small, NEW - OLD, torch.Generator().manual_seed(0))
    (y, (h, c)), (y_before, (h_before, c_before)) = big(x), small(x)
    for ours, expected in ((y, y_before), (h, h_before), (c, c_before)):
        assert ours.shape[-1] == NEW
        torch.testing.assert_close(ours[..., :OLD], expected, **EXACT)
        assert ours[..., OLD:].all()
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())


@pytest.mark.parametrize("layers", [1, 3])
def test_old_units_are_an_autonomous_zone_already(layers: int) -> None:
    small, x = network(layers), series(batch=1)
    big = grown(small, NEW - OLD)
    before = copy.deepcopy(big.state_dict())
    big.isolate(units=range(OLD), mode="autonomous")
    assert all(torch.equal(value, before[name]) for name, value in big.state_dict().items())  # nothing to cut
    torch.testing.assert_close(big.remember(x[:, 0])[1:, -OLD:], small(x)[0][:, 0].detach(), **EXACT)


@pytest.mark.parametrize("layers", [1, 3])
def test_fresh_units_get_their_gradient_and_old_ones_none(layers: int) -> None:
    """Against nn.LSTM's own, of the rows of the fresh units: no path leads from them through an old one."""
    big, x = grown(network(layers), NEW - OLD, torch.Generator().manual_seed(0)), series()
    big.isolate(units=range(OLD), mode="autonomous")
    stock = nn.LSTM(INPUTS, NEW, layers).double()
    stock.load_state_dict(big.state_dict())
    found, right = gradients(big, x), gradients(stock, x)
    fresh, old = rows(range(OLD, NEW), NEW), rows(range(OLD), NEW)
    assert found.keys() == right.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient[fresh], right[name][fresh], **EXACT)
        assert not gradient[old].any() and right[name][old].any()


def test_fresh_weights_are_drawn_as_nn_lstm_draws_them() -> None:
    def grow(seed: int) -> LSTM:
        return grown(LSTM(30, 16, 2), 84, torch.Generator().manual_seed(seed))

    def fresh(net: LSTM) -> list[Tensor]:
        return [weight.detach().view(4, 100, -1)[:, 16:].flatten() for weight in net.parameters()]

    for weights in fresh(grow(0)):
        assert weights.abs().max() <= 0.1  # 1 / sqrt(100)
        assert weights.mean().abs() < 5 * 0.1 / (3 * len(weights)) ** 0.5
        assert weights.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.15)
    assert all(torch.equal(a, b) for a, b in zip(fresh(grow(0)), fresh(grow(0)), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(fresh(grow(0)), fresh(grow(1)), strict=True))


def test_a_generator_of_its_own_leaves_torchs_alone() -> None:
    small = LSTM(3, 10)
    after = []
    for generator in (torch.Generator(), None):
        torch.manual_seed(7)
        grown(small, 5, generator)
        after.append(torch.rand(3))
    torch.manual_seed(7)
    expected = torch.rand(3)
    assert torch.equal(after[0], expected) and not torch.equal(after[1], expected)


def test_a_grown_network_is_of_the_same_kind() -> None:
    small = LSTM(3, 10, 2, batch_first=True, dropout=0.25, backend="reference", compute="bf16").double().eval()
    small.isolate(layer=0)
    big = grown(small, 5)
    assert (big.input_size, big.hidden_size, big.num_layers) == (3, 15, 2)
    assert (big.batch_first, big.dropout, big.backend, big.compute) == (True, 0.25, "reference", "bf16")
    assert (big.weight_hh_l1.dtype, big.training, big.isolated.nothing) == (torch.float64, False, True)
    assert all(p.requires_grad for p in big.parameters())
    big.load_state_dict(nn.LSTM(3, 15, 2).state_dict())


@pytest.mark.parametrize("extra", [0, -3])
def test_growing_by_nothing_is_refused(extra: int) -> None:
    with pytest.raises(InputError, match=f"extra = {extra}: an LSTM grows by at least 1 unit"):
        grown(LSTM(3, 10), extra)
