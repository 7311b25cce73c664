"""One network of each kind, half of its zones isolated in every way it can be: the invariants of training hold."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from isotrain.isolation import MaskedAdam
from isotrain.isolation.zones import kinds_of, zones


class LastState(nn.Module):
    """The last output of a recurrent module, (B, T, F) -> (B, hidden)."""

    def __init__(self, recurrent: nn.RNNBase) -> None:
        super().__init__()
        self.recurrent = recurrent

    def forward(self, x: Tensor) -> Tensor:
        return self.recurrent(x)[0][:, -1]


class Block(nn.Module):
    """An attention block with its normalisations, (B, T, 4) -> (B, T, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True, add_bias_kv=True)
        self.before, self.after, self.linear = nn.LayerNorm(4), nn.LayerNorm(4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x)
        x = x + self.attention(y, y, y)[0]
        return x + torch.tanh(self.linear(self.after(x)))


def _recurrent(module: nn.RNNBase, width: int = 3) -> nn.Module:
    return nn.Sequential(LastState(module), nn.Linear(width, 2))


def _series() -> Tensor:
    return torch.randn(6, 5, 4)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "lstm": (lambda: _recurrent(nn.LSTM(4, 3, 2, batch_first=True)), _series),
    "gru": (lambda: _recurrent(nn.GRU(4, 3, batch_first=True)), _series),
    "rnn": (lambda: _recurrent(nn.RNN(4, 3, batch_first=True)), _series),
    "bidirectional": (lambda: _recurrent(nn.LSTM(4, 3, batch_first=True, bidirectional=True), 6), _series),
    "mlp": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)), lambda: torch.randn(6, 4)),
    "conv1d": (
        lambda: nn.Sequential(nn.Conv1d(4, 6, 3), nn.Tanh(), nn.Conv1d(6, 2, 3, groups=2), nn.Flatten()),
        lambda: torch.randn(6, 4, 5),
    ),
    "conv2d": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3),
            nn.BatchNorm2d(4),
            nn.Tanh(),
            nn.ConvTranspose2d(4, 2, 2),
            nn.Flatten(),
            nn.Linear(32, 2),
        ),
        lambda: torch.randn(6, 2, 5, 5),
    ),
    "attention": (lambda: nn.Sequential(Block(), nn.Flatten(), nn.Linear(20, 2)), _series),
    "embedding": (
        lambda: nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 2)),
        lambda: torch.randint(9, (6, 5)),
    ),
}
CASES = [
    (name, kind)
    for name, (build, _) in NETWORKS.items()
    for kind in dict.fromkeys(kind for part in build().modules() for kind in kinds_of(part))
    if kind not in ("step", "credit")
]


class Oracle:
    """``torch.optim.Adam`` on a copy of the active weights of one parameter, alone."""

    def __init__(self, p: Tensor, active: Tensor) -> None:
        self.p, self.active = p, active
        self.first = p.detach().clone()
        self.part = nn.Parameter(p.detach()[active].clone())
        self.adam = torch.optim.Adam([self.part], lr=1e-2)

    def step(self) -> None:
        assert self.p.grad is not None
        self.part.grad = self.p.grad[self.active].clone()
        self.adam.step()

    def check(self) -> None:
        now = self.p.detach()
        assert torch.equal(now[~self.active], self.first[~self.active])
        torch.testing.assert_close(now[self.active], self.part.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_half_of_the_zones_isolated(name: str, kind: str) -> None:
    torch.manual_seed(0)
    build, draw = NETWORKS[name]
    model = build().double()
    parameters = dict(model.named_parameters())
    masks = {key: torch.ones_like(p, dtype=torch.bool) for key, p in parameters.items()}
    optimiser = MaskedAdam(parameters.values(), lr=1e-2)
    isolated = 0
    for zone_map in zones(model, kind, modules=["*"], tile=(2, 3)):
        active = torch.randperm(zone_map.count) >= zone_map.count / 2
        isolated += zone_map.isolated_weights(active)
        for key, mask in zone_map.expand(active).items():
            optimiser.set_active(parameters[key], mask)
            masks[key] = mask.broadcast_to(parameters[key].shape)
    assert isolated == sum(int((~mask).sum()) for mask in masks.values()) > 0
    oracles = {key: Oracle(p, masks[key]) for key, p in parameters.items()}

    x, losses = draw(), []
    x = x.double() if x.is_floating_point() else x
    for _ in range(4):
        optimiser.zero_grad()
        loss = model(x).sub(1).square().mean()
        loss.backward()
        losses.append(loss.item())
        for oracle in oracles.values():
            oracle.step()
        optimiser.step()
        for oracle in oracles.values():
            oracle.check()
    assert losses[-1] < losses[0] < float("inf")
    for key, p in parameters.items():
        trained = masks[key] & (p.grad != 0)
        assert not torch.eq(p, oracles[key].first)[trained].any(), key


def test_the_cases_are_all_that_there_are() -> None:
    """Every network is divided in every kind that one of its modules has; together they have every kind but steps."""
    assert {kind for _, kind in CASES} == {
        *("weight", "row", "column", "tile", "gate", "unit", "channel", "kernel", "layer")
    }  # fmt: skip
