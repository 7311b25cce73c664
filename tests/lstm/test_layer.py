"""The drop-in LSTM against torch.nn.LSTM, and its truncated backward against a cell written out by hand."""

import copy
import io

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from isotrain.errors import InputError
from isotrain.lstm import LSTM

SHAPES = [  # batch, steps, inputs, hidden, layers
    (3, 10, 5, 7, 2),
    (1, 1, 1, 1, 1),
    (1, 6, 4, 3, 3),
    (4, 1, 2, 5, 2),
]


def pair(inputs: int, hidden: int, layers: int, batch_first: bool = True) -> tuple[LSTM, nn.LSTM]:
    torch.manual_seed(0)
    ours = LSTM(inputs, hidden, layers, batch_first=batch_first).double()
    stock = nn.LSTM(inputs, hidden, layers, batch_first=batch_first).double()
    stock.load_state_dict(ours.state_dict())
    return ours, stock


def gradients(net: nn.Module, x: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> dict[str, Tensor | None]:
    net.zero_grad()
    y, (h, c) = net(x, hx)
    (y.sin().sum() + h.square().sum() + c.cos().sum()).backward()
    return {name: p.grad for name, p in net.named_parameters()}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batch_first", [True, False])
def test_nothing_isolated_is_stock_bit_for_bit(shape: tuple[int, ...], batch_first: bool) -> None:
    batch, steps, inputs, hidden, layers = shape
    ours, stock = pair(inputs, hidden, layers, batch_first)
    x = torch.randn((batch, steps, inputs) if batch_first else (steps, batch, inputs), dtype=torch.float64)
    for a, b in zip((ours(x)[0], *ours(x)[1]), (stock(x)[0], *stock(x)[1]), strict=True):
        assert torch.equal(a, b)
    expected = gradients(stock, x)
    for name, gradient in gradients(ours, x).items():
        assert torch.equal(gradient, expected[name]), name


@pytest.mark.parametrize("isolated", [[0], [1], [2], [0, 1], [0, 2], [1, 2]])
def test_isolated_layers_get_no_gradient_and_the_others_the_right_one(isolated: list[int]) -> None:
    ours, stock = pair(5, 7, 3)
    x = torch.randn(4, 9, 5, dtype=torch.float64)
    hx = (torch.randn(3, 4, 7, dtype=torch.float64), torch.randn(3, 4, 7, dtype=torch.float64))
    expected = gradients(stock, x, hx)
    ours.isolate(layer=isolated)
    for a, b in zip((ours(x, hx)[0], *ours(x, hx)[1]), (stock(x, hx)[0], *stock(x, hx)[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    for name, gradient in gradients(ours, x, hx).items():
        if int(name[-1]) in isolated:
            assert gradient is None, name
        else:
            torch.testing.assert_close(gradient, expected[name], rtol=1e-10, atol=1e-12)


def test_an_isolated_layer_still_passes_the_gradient_to_what_feeds_it() -> None:
    ours, stock = pair(5, 7, 2)
    ours.isolate(layer=1)
    answers = []
    for net in (ours, stock):
        x = torch.linspace(-1, 1, 3 * 9 * 5, dtype=torch.float64).reshape(3, 9, 5).requires_grad_()
        net(x)[0].sin().sum().backward()
        answers.append(x.grad)
    torch.testing.assert_close(*answers, rtol=1e-10, atol=1e-12)


def by_hand(net: nn.LSTM, x: Tensor, cut: int) -> Tensor:
    """(B, T, H) of one layer, the graph cut before step ``cut``: the standard LSTM equations, one step at a time."""
    h = c = x.new_zeros(len(x), net.hidden_size)
    outputs = []
    for t in range(x.shape[1]):
        if t == cut:
            h, c, outputs = h.detach(), c.detach(), [y.detach() for y in outputs]
        gates = x[:, t] @ net.weight_ih_l0.T + net.bias_ih_l0 + h @ net.weight_hh_l0.T + net.bias_hh_l0
        i, f, g, o = gates.chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs, 1)


@pytest.mark.parametrize("steps", [1, 4, 9, 10, 50])
def test_steps_is_the_backward_through_the_last_steps_only(steps: int) -> None:
    ours, stock = pair(5, 7, 1)
    x = torch.randn(3, 10, 5, dtype=torch.float64)
    y = by_hand(stock, x, cut=max(10 - steps, 0))
    y.sin().sum().backward()
    ours.isolate(steps=steps)
    answer = ours(x)[0]
    answer.sin().sum().backward()
    torch.testing.assert_close(answer, y, rtol=1e-12, atol=1e-12)
    for name, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, stock.get_parameter(name).grad, rtol=1e-10, atol=1e-12)


def test_thawing_brings_stock_back_and_evaluation_never_left_it() -> None:
    ours, stock = pair(5, 7, 2)
    x = torch.randn(3, 10, 5, dtype=torch.float64)
    ours.isolate(layer=0, steps=3)
    ours.eval()
    assert torch.equal(ours(x)[0], stock(x)[0])
    ours.train()
    ours.isolate()
    expected = gradients(stock, x)
    assert all(torch.equal(g, expected[name]) for name, g in gradients(ours, x).items())


def test_unbatched_input_and_dropout_between_groups_of_layers() -> None:
    ours, stock = pair(5, 7, 2)
    ours.isolate(layer=0)
    x = torch.randn(10, 5, dtype=torch.float64)
    torch.testing.assert_close(ours(x)[0], stock(x)[0])
    assert ours(x)[1][0].shape == stock(x)[1][0].shape
    wet = LSTM(5, 7, 2, batch_first=True, dropout=0.5)
    wet.isolate(layer=0)
    torch.manual_seed(1)
    first, second = wet(x.float())[0], wet(x.float())[0]
    assert not torch.equal(first, second)


def test_copies_and_files_keep_weights_and_what_is_isolated() -> None:
    ours, _ = pair(5, 7, 2)
    ours.isolate(layer=0, steps=3)
    twin = copy.deepcopy(ours)
    assert (twin.isolated.layers, twin.isolated.steps) == (frozenset({0}), 3)
    buffer = io.BytesIO()
    torch.save(ours.state_dict(), buffer)
    buffer.seek(0)
    nn.LSTM(5, 7, 2).load_state_dict(torch.load(buffer, weights_only=True))


@pytest.mark.parametrize("batch", [1, 30])  # on either side of the size from which our own kernels pay
def test_bf16_computes_in_bf16_stays_near_and_answers_as_the_parameters_are(batch: int) -> None:
    torch.manual_seed(0)
    half, full = LSTM(5, 32, batch_first=True, compute="bf16"), LSTM(5, 32, batch_first=True)
    full.load_state_dict(half.state_dict())
    x = torch.randn(batch, 10, 5)
    answer, truth = (torch.cat([y.flatten(), h.flatten(), c.flatten()]) for y, (h, c) in (half(x), full(x)))
    assert answer.dtype == torch.float32
    error = ((answer - truth).norm() / truth.norm()).item()
    assert 1e-4 < error < 1e-2  # below it would not have been bf16


def test_bf16_of_packed_sequences_answers_as_the_parameters_are() -> None:
    packed = pack_sequence([torch.randn(3, 5), torch.randn(2, 5)])
    y, (h, c) = LSTM(5, 7, compute="bf16")(packed)
    assert y.data.dtype == h.dtype == c.dtype == torch.float32


def test_what_cannot_be_is_refused_by_name() -> None:
    ours, _ = pair(5, 7, 2)
    with pytest.raises(InputError, match=r"layers \[2\]: the LSTM has layers 0 to 1"):
        ours.isolate(layer=2)
    with pytest.raises(InputError, match="all 2 layers"):
        ours.isolate(layer=[0, 1])
    with pytest.raises(InputError, match="steps = 0"):
        ours.isolate(steps=0)
    with pytest.raises(InputError, match="backend 'cudnn' does not exist: use one of auto, native, torch, reference"):
        LSTM(5, 7, backend="cudnn")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="compute 'fp8' does not exist: use one of fp32, bf16, fp16"):
        LSTM(5, 7, compute="fp8")  # type: ignore[arg-type]
    ours.isolate(layer=0)
    with pytest.raises(InputError, match="packed sequences"):
        ours(pack_sequence([torch.randn(3, 5, dtype=torch.float64)]))
