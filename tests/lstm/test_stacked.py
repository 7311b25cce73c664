"""Networks stacked into one are each what they are alone."""

from typing import Any

import pytest
import torch
from torch import nn

from isotrain.errors import InputError
from isotrain.isolation import MaskedAdam
from isotrain.lstm import LSTM
from isotrain.lstm.stacked import StackedLSTM

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("credit", ["full", "cell", "none"])
@pytest.mark.parametrize(("layers", "bias", "given"), [(1, True, False), (2, False, True), (3, True, True)])
def test_stacked_networks_are_each_what_it_is_alone(credit: Any, layers: int, bias: bool, given: bool) -> None:
    torch.manual_seed(0)
    alone = [LSTM(3, 7, layers, bias, backend="reference").double() for _ in range(4)]
    stacked = StackedLSTM(alone, credit)
    x = torch.randn(9, 4, 5, 3).double().requires_grad_()
    states = [torch.randn(layers, 4, 5, 7).double() for _ in range(2)] if given else None
    y, (h, c) = stacked(x, states)
    (y.sin().sum() + h.square().sum() + c.cos().sum()).backward()
    assert x.grad is not None
    for n, lstm in enumerate(alone):
        lstm.isolate(credit=credit)
        own = x.detach()[:, n].requires_grad_()
        expected = lstm(own, None if states is None else (states[0][:, n], states[1][:, n]))
        (expected[0].sin().sum() + expected[1][0].square().sum() + expected[1][1].cos().sum()).backward()
        for ours, theirs in ((y[:, n], expected[0]), (h[:, n], expected[1][0]), (c[:, n], expected[1][1])):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(x.grad[:, n], own.grad, rtol=1e-9, atol=1e-12)
        for name, p in lstm.named_parameters():
            torch.testing.assert_close(stacked.get_parameter(name).grad[n], p.grad, rtol=1e-9, atol=1e-12)


def test_a_training_of_many_is_the_trainings_of_each() -> None:
    """A loss that is the sum of theirs, one Adam for all: a weight's update reads its own gradient alone."""
    torch.manual_seed(1)
    alone = [nn.LSTM(2, 5).double() for _ in range(3)]
    stacked = StackedLSTM(alone)
    x, target = torch.randn(6, 3, 4, 2).double(), torch.randn(6, 3, 4, 5).double()
    for part, inputs, goal in [(stacked, x, target), *((m, x[:, n], target[:, n]) for n, m in enumerate(alone))]:
        optimiser = MaskedAdam(part.parameters(), 0.01)
        for _ in range(5):
            optimiser.zero_grad()
            (part(inputs)[0] - goal).abs().sum().backward()
            optimiser.step()
    copies = [nn.LSTM(2, 5).double() for _ in range(3)]
    stacked.copy_to(copies)
    for ours, theirs in zip(copies, alone, strict=True):
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("lstms", "options", "message"),
    [
        ([nn.LSTM(3, 4), nn.LSTM(3, 5)], {}, "2 LSTMs of 2 shapes cannot be stacked"),
        ([], {}, "0 LSTMs of 0 shapes cannot be stacked"),
        ([nn.LSTM(3, 4, bidirectional=True)], {}, "two directions, projections or dropout"),
        ([nn.LSTM(3, 4, 2, dropout=0.5)], {}, "two directions, projections or dropout"),
        ([nn.LSTM(3, 4)], {"credit": "half"}, "credit 'half' is unknown: use one of full, cell, none"),
    ],
)
def test_what_cannot_be_stacked_is_refused(lstms: Any, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        StackedLSTM(lstms, **options)
