"""How often each matrix is used, against counts by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from isotrain.isolation.uses import count_uses
from isotrain.lstm import LSTM

B, T = 5, 7


@pytest.mark.parametrize(
    ("module", "inputs", "uses"),
    [
        (nn.LSTM(3, 2, batch_first=True), [(B, T, 3)], {"": T}),
        (nn.LSTM(3, 2, 2, bidirectional=True), [(T, B, 3)], {"": T}),
        (nn.GRU(3, 2), [(T, 3)], {"": T}),
        (nn.RNN(3, 2), [(T, B, 3)], {"": T}),
        (LSTM(3, 2, batch_first=True, backend="reference"), [(B, T, 3)], {"": T}),
        (nn.Linear(3, 2), [(B, 3)], {"": 1}),
        (nn.Linear(3, 2), [(3,)], {"": 1}),
        (nn.Linear(3, 2), [(B, T, 4, 3)], {"": T * 4}),
        (nn.Conv1d(3, 2, 3), [(B, 3, T)], {"": T - 2}),
        (nn.Conv1d(3, 2, 3), [(3, T)], {"": T - 2}),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), [(B, 4, 8, 6)], {"": 4 * 3}),
        (nn.Conv3d(1, 2, 2), [(B, 1, 3, 4, 5)], {"": 2 * 3 * 4}),
        (nn.ConvTranspose2d(3, 2, 3, stride=2), [(B, 3, 4, 5)], {"": 4 * 5}),
        (nn.MultiheadAttention(4, 2, batch_first=True), [(B, T, 4)] * 3, {"": T, "out_proj": T}),
        (nn.MultiheadAttention(4, 2), [(T, B, 4), (10, B, 4), (10, B, 4)], {"": 9, "out_proj": T}),
        (nn.MultiheadAttention(4, 2), [(T, 4)] * 3, {"": T, "out_proj": T}),
    ],
)
def test_one_module_by_hand(module: nn.Module, inputs: list[tuple[int, ...]], uses: dict[str, int]) -> None:
    assert count_uses(module, *(torch.randn(shape) for shape in inputs)) == uses


def test_embeddings_and_packed_sequences() -> None:
    assert count_uses(nn.Embedding(9, 3), torch.zeros(B, T, dtype=torch.long)) == {"": T}
    assert count_uses(nn.EmbeddingBag(9, 3), torch.zeros(B, T, dtype=torch.long)) == {"": T}
    packed = pack_sequence([torch.randn(n, 3) for n in (6, 4, 2)])
    assert count_uses(nn.LSTM(3, 2), packed) == {"": 4}
    assert count_uses(nn.LSTM(3, 2), pack_sequence([torch.randn(n, 3) for n in (6, 5)])) == {"": 6}  # 5.5


class Mixed(nn.Module):
    """Time first, a head applied at every step and once more, frames folded into the batch, one part unused."""

    def __init__(self) -> None:
        super().__init__()
        self.frame, self.lstm, self.head = nn.Conv1d(1, 3, 2), nn.LSTM(3, 2), nn.Linear(2, 1)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        steps, batch, _ = x.shape
        frames = self.frame(x.reshape(steps * batch, 1, -1)).mean(-1).reshape(steps, batch, 3)
        states, _ = self.lstm(input=frames)
        return self.head(states).sum(0) + self.head(states[-1])


def test_calls_add_up_and_the_sample_is_found() -> None:
    assert count_uses(Mixed(), torch.randn(T, B, 4)) == {"frame": 3 * T, "lstm": T, "head": T + 1}


def test_a_transformer_whose_fast_path_calls_no_submodule() -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    uses = count_uses(nn.TransformerEncoder(layer, 2), torch.randn(B, T, 4))
    inner = ("self_attn", "self_attn.out_proj", "linear1", "linear2")
    assert uses == {f"layers.{i}.{name}": T for i in range(2) for name in inner}


class Failing(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        super().forward(input)
        raise RuntimeError("no")


@pytest.mark.parametrize("last", [nn.Linear, Failing])
def test_nothing_is_left_behind(last: Callable[[int, int], nn.Module]) -> None:
    """Training modes, statistics, random numbers, hooks: as before, also where the network fails."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), last(4, 1))
    model[2].eval()
    modes = [part.training for part in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    x = torch.randn(B, 3)
    torch.set_rng_state(random)
    if last is Failing:
        with pytest.raises(RuntimeError, match="no"):
            count_uses(model, x)
    else:
        count_uses(model, x)
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(part._forward_hooks for part in model.modules())


class Noisy(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input + torch.randn_like(input))


def test_random_numbers_drawn_by_the_network_are_given_back() -> None:
    model, random = Noisy(3, 2), torch.get_rng_state()
    assert count_uses(model, torch.ones(B, 3)) == {"": 1}
    assert torch.equal(torch.get_rng_state(), random)
