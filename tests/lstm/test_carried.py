"""States remembered over a series against the LSTM run over it, and training that starts from them."""

import pytest
import torch

from isotrain.data.windows import Windows
from isotrain.errors import InputError
from isotrain.forecast.network import Forecaster, Series
from isotrain.forecast.stretches import Stretches
from isotrain.lstm import LSTM
from isotrain.lstm.memory import carried_states, start_at


def test_each_row_is_the_state_before_its_hour_warmed_up_over_the_hours_before() -> None:
    torch.manual_seed(0)
    lstm, series = LSTM(3, 20, 2, batch_first=True), torch.randn(500, 3)
    h, c = carried_states(lstm, series, warm=30)
    assert h.shape == c.shape == (501, 2, 20)
    assert not h[0].any() and not c[0].any()
    width = -(-500 // 64)
    for hour in (1 * width + 40, 333, 500):
        begin = (hour - 1) // width * width - 30  # where its lane started, from zero
        _, states = lstm(series[None, begin:hour])
        for ours, theirs in zip((h, c), states, strict=True):
            torch.testing.assert_close(ours[hour], theirs[:, 0], rtol=1e-5, atol=1e-6)
    looked_up = start_at((h, c), torch.tensor([7, 333]))
    assert torch.equal(looked_up[0][:, 1], h[333]) and torch.equal(looked_up[1][:, 0], c[7])


def test_what_is_remembered_in_lanes_is_what_one_run_remembers_but_for_the_warm_up() -> None:
    torch.manual_seed(0)
    lstm, series = LSTM(3, 20, 2), torch.randn(700, 3)
    lstm.isolate(units=range(12), mode="autonomous")
    once = lstm.remember(series)
    far = [(once - lstm.remember(series, warm=warm))[100:].abs().max() for warm in (0, 4, 16, 64)]
    assert far[0] > far[1] > far[2] > far[3]
    assert far[3] < 1e-4
    assert not lstm.remember(series, warm=64)[0].any()


def test_other_precisions_are_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"native.*float64"):
        carried_states(LSTM(3, 4).double(), torch.randn(9, 3, dtype=torch.float64), warm=2)


def test_a_forecaster_starts_late_and_close_to_where_it_would_have_been(windows: Windows) -> None:
    torch.manual_seed(0)
    net = Forecaster(Series(windows), hidden=16, layers=2, decoder=8, dropout=0.0)
    at = Stretches(torch.tensor([200, 300, 411]), torch.full((3, 1), 48), 48)
    torch.nn.init.normal_(net.decoder.out.weight)
    whole = net(at)
    net.encoder.lstm.isolate(steps=12, mode="autonomous")
    late = net(at)
    torch.testing.assert_close(late, whole, rtol=1e-3, atol=1e-3)
    assert not torch.equal(late, whole)
    late.sum().backward()
    carried = {name: p.grad.clone() for name, p in net.encoder.lstm.named_parameters()}
    net.zero_grad()
    net.encoder.lstm.isolate(steps=12)
    net(at).sum().backward()
    for name, p in net.encoder.lstm.named_parameters():
        assert (carried[name] - p.grad).norm() < 1e-2 * p.grad.norm(), name
    with torch.no_grad():  # fresh weights and a new order: the states are run again
        net.encoder.lstm.weight_hh_l0.mul_(0.5)
    net.encoder.lstm.isolate(steps=12, mode="autonomous")
    renewed = net(at)
    net.eval()
    torch.testing.assert_close(renewed, net(at), rtol=1e-3, atol=1e-3)
