"""Every criterion against NumPy in float64, on a tiny LSTM that is really trained, check after check."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from isotrain.errors import InputError
from isotrain.isolation.criteria import CRITERIA, Criterion, ZoneView, needs, neglected_update, view_of
from isotrain.isolation.optimisers import MaskedAdam
from isotrain.isolation.zonemap import ZoneMap
from isotrain.isolation.zones import zones

BETAS, EPS = (0.8, 0.95), 1e-3
SELECTIONS = 12


@dataclass
class Watched:
    """What NumPy saw at each check (weights and gradients before that step), and what the criterion said."""

    zone: np.ndarray
    weights: list[np.ndarray] = field(default_factory=list)
    grads: list[np.ndarray] = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)
    views: list[ZoneView] = field(default_factory=list)
    amsgrad: bool = False

    def sum(self, weights: np.ndarray) -> np.ndarray:
        return np.bincount(self.zone, weights=weights)

    def mean(self, weights: np.ndarray) -> np.ndarray:
        return self.sum(weights) / np.bincount(self.zone)

    def moments(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """m_hat and v_hat after so many steps, by algorithm 1 from the gradients (largest v so far with amsgrad)."""
        m = v = largest = np.zeros_like(self.grads[0])
        for g in self.grads[:steps]:
            m, v = BETAS[0] * m + (1 - BETAS[0]) * g, BETAS[1] * v + (1 - BETAS[1]) * g**2
            largest = np.maximum(largest, v)
        t = max(1, steps)
        return m / (1 - BETAS[0] ** t), (largest if self.amsgrad else v) / (1 - BETAS[1] ** t)

    def update(self, steps: int) -> np.ndarray:
        m, v = self.moments(steps)
        return m / (np.sqrt(v) + EPS)


def watch(criterion: Criterion, kind: str = "unit", amsgrad: bool = False) -> Watched:
    """Train a step between two selections, every step a fresh minibatch; nothing is isolated."""
    torch.manual_seed(0)
    lstm = nn.LSTM(2, 3, dtype=torch.double)
    parameters = dict(lstm.named_parameters())
    optimiser = MaskedAdam(parameters.values(), lr=0.05, betas=BETAS, eps=EPS, amsgrad=amsgrad)
    (zone_map,) = zones(lstm, kind)
    generator, memory = torch.Generator().manual_seed(7), dict[str, Tensor]()
    seen = Watched(zone_map.numbers().numpy(), amsgrad=amsgrad)
    for _ in range(SELECTIONS):
        optimiser.zero_grad()
        (lstm(torch.randn(5, 4, 2, dtype=torch.double))[0] - 0.5).square().mean().backward()
        seen.weights.append(flat(zone_map, parameters))
        seen.grads.append(flat(zone_map, {name: p.grad for name, p in parameters.items()}))
        view = view_of(zone_map, parameters, optimiser, generator, memory=memory)
        seen.views.append(view)
        seen.scores.append(criterion(view).numpy().copy())
        optimiser.step()
    return seen


def flat(zone_map: ZoneMap, tensors: Mapping[str, Any]) -> np.ndarray:
    return np.concatenate([tensors[name].detach().numpy().reshape(-1) for name in zone_map.zone]).copy()


# The formulas of the docstrings, at check k (from 0), before step k + 1.
Formula = Callable[[Watched, int], np.ndarray]


FORMULAS: dict[str, Formula] = {
    "magnitude": lambda s, k: s.mean(abs(s.weights[k])),
    "snip": lambda s, k: s.mean(abs(s.weights[k] * s.grads[k])),
    "fisher": lambda s, k: s.mean(s.moments(k)[1]),
    "update_norm": lambda s, k: np.sqrt(s.mean(s.update(k) ** 2)),
    "depth": lambda s, k: np.zeros(s.zone.max() + 1),
}


@pytest.mark.parametrize("kind", ["weight", "gate", "unit", "layer"])
@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_formula(name: str, kind: str) -> None:
    seen = watch(CRITERIA[name], kind)
    for k in range(SELECTIONS):
        assert seen.scores[k].dtype == np.float64
        np.testing.assert_allclose(seen.scores[k], FORMULAS[name](seen, k), rtol=1e-11, atol=1e-15)


def test_every_criterion_has_its_truth() -> None:
    """random is drawn (below); plateau has a file of its own."""
    assert set(CRITERIA) == set(FORMULAS) | {"random", "plateau"}


def test_update_norm_divides_by_the_largest_v_under_amsgrad() -> None:
    seen = watch(CRITERIA["update_norm"], amsgrad=True)
    for k in range(SELECTIONS):
        np.testing.assert_allclose(seen.scores[k], FORMULAS["update_norm"](seen, k), rtol=1e-11, atol=1e-15)
    assert not np.allclose(seen.scores[-1], watch(CRITERIA["update_norm"]).scores[-1], rtol=1e-6)


def test_random_is_drawn_each_time_and_again_from_the_same_seed() -> None:
    seen = watch(CRITERIA["random"])
    draw = torch.Generator().manual_seed(7)
    assert [score.tolist() for score in seen.scores] == [
        torch.rand(3, generator=draw).tolist() for _ in range(SELECTIONS)
    ]


# Zones of a few weights, worked out by hand ----------------------------------------------------------------


def hand(w: list[float], g: list[float], zone: list[int], **more: Any) -> ZoneView:
    n, none = max(zone) + 1, torch.zeros(len(w))
    return ZoneView(
        zone=torch.tensor(zone),
        depth=torch.zeros(n, dtype=torch.long),
        weight=torch.tensor(w),
        grad=torch.tensor(g),
        **{"exp_avg": none, "exp_avg_sq": none, "updates": none, "betas": (0.5, 0.75), "eps": 0.0} | more,
        generator=torch.Generator(),
    )


def test_means_do_not_favour_small_zones_and_opposite_signs_do_not_cancel() -> None:
    """Zone 0 has one weight, zone 1 three of the same size, two of them with w g of the other sign."""
    view = hand([2.0, 2.0, -2.0, 2.0], [3.0, 3.0, 3.0, -3.0], [0, 1, 1, 1])
    for name, expected in [("magnitude", 2.0), ("snip", 6.0)]:
        assert CRITERIA[name](view).tolist() == [expected, expected]


def test_moments_by_hand() -> None:
    """After one update with g = 2 and g = 0: m = 1, v = 1, m_hat = 2, v_hat = 4; nothing is 0/0 at epsilon 0."""
    once = {"exp_avg": torch.tensor([1.0, 0.0]), "exp_avg_sq": torch.tensor([1.0, 0.0]), "updates": torch.ones(2)}
    view = hand([1.0, 1.0], [0.0, 0.0], [0, 1], **once)
    assert CRITERIA["fisher"](view).tolist() == [4.0, 0.0]
    assert CRITERIA["update_norm"](view).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("name", sorted(set(CRITERIA) - {"random", "depth", "plateau"}))
def test_what_is_not_a_number_gives_no_score(name: str) -> None:
    """select refuses it."""
    nan = torch.full((1,), torch.nan)
    view = hand([torch.nan], [torch.nan], [0], exp_avg=nan, exp_avg_sq=nan, updates=torch.ones(1))
    assert bool(CRITERIA[name](view).isnan().all())


# What a caller must provide, and what it keeps ---------------------------------------------------------------


def test_what_each_needs_is_written_on_it() -> None:
    def marked(what: str) -> set[str]:
        return {name for name, criterion in CRITERIA.items() if getattr(criterion, what, False)}

    assert marked("moments") == {"fisher", "update_norm"}
    assert marked("remembers") == {"plateau"}

    @needs(remembers=True)
    def own(view: ZoneView) -> Tensor:
        return view.mean(view.weight)

    assert (getattr(own, "moments"), getattr(own, "remembers")) == (False, True)  # noqa: B009


@pytest.mark.parametrize("name", sorted(name for name in CRITERIA if getattr(CRITERIA[name], "remembers", False)))
def test_memory_can_be_saved_in_the_middle(name: str) -> None:
    """Only tensors, which a careful torch.load takes; the selections after it go on as if nothing had happened."""
    draw = torch.Generator().manual_seed(0)
    selections = [torch.randn(2, 8, generator=draw).tolist() for _ in range(30)]
    whole, half, other = (dict[str, Tensor]() for _ in range(3))

    def score(k: int, memory: dict[str, Tensor]) -> list[float]:
        return CRITERIA[name](hand(*selections[k], list(range(8)), memory=memory)).tolist()  # type: ignore[call-arg]

    expected = [score(k, whole) for k in range(30)]
    for k in range(7):
        score(k, half)
    buffer = io.BytesIO()
    torch.save(half, buffer)
    buffer.seek(0)
    other.update(torch.load(buffer, weights_only=True))
    assert [score(k, other) for k in range(7, 30)] == expected[7:]
    assert score(29, {}) != expected[29]  # it does remember


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.RMSprop, torch.optim.Adam])
def test_a_view_of_any_optimiser(make: type[torch.optim.Optimizer]) -> None:
    """Before and after its first step; moments that it does not keep are zero."""
    lstm = nn.LSTM(2, 3)
    parameters = dict(lstm.named_parameters())
    optimiser = make(parameters.values(), lr=0.1)  # type: ignore[call-arg]
    (zone_map,) = zones(lstm, "unit")
    for step in range(2):
        view = view_of(zone_map, parameters, optimiser, torch.Generator())
        assert bool(view.exp_avg.any()) == (step > 0 and make is torch.optim.Adam)
        assert bool(view.grad.any()) == (step > 0)
        assert view.known is None
        assert view.memory == {}
        lstm(torch.ones(5, 2))[0].sum().backward()
        optimiser.step()


def test_a_view_does_not_change_with_the_weights() -> None:
    lstm = nn.LSTM(2, 3)
    parameters = dict(lstm.named_parameters())
    (zone_map,) = zones(lstm, "layer")
    view = view_of(zone_map, parameters, MaskedAdam(parameters.values()), torch.Generator())
    before = view.weight.clone()
    with torch.no_grad():
        for p in parameters.values():
            p.add_(1.0)
    assert torch.equal(view.weight, before)


def test_updates_are_counted_beyond_what_the_weights_type_can_count() -> None:
    """bfloat16 has no 1001."""
    linear = nn.Linear(2, 3, bias=False, dtype=torch.bfloat16)
    optimiser = MaskedAdam(linear.parameters())
    linear.weight.grad = torch.ones_like(linear.weight)
    optimiser.step()
    optimiser.state[linear.weight]["step"].fill_(1001)
    (zone_map,) = zones(linear, "layer", modules=[""])
    view = view_of(zone_map, dict(linear.named_parameters()), optimiser, torch.Generator())
    assert view.updates.tolist() == [1001.0] * 6


def test_an_optimiser_of_other_weights_is_refused() -> None:
    lstm = nn.LSTM(2, 3)
    (zone_map,) = zones(lstm, "unit")
    other = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    with pytest.raises(InputError, match="zones 'l0': SGD does not train them"):
        view_of(zone_map, dict(lstm.named_parameters()), other, torch.Generator())


# What falls on isolated zones ---------------------------------------------------------------------------


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("active", [[True, False, True], [True] * 3, [False] * 3])
def test_neglected_is_the_step_that_adam_is_about_to_make(amsgrad: bool, active: list[bool]) -> None:
    seen = watch(CRITERIA["depth"], amsgrad=amsgrad)
    for k, view in enumerate(seen.views):
        isolated, whole = neglected_update(view, torch.tensor(active))
        squares = seen.sum(seen.update(k + 1) ** 2)
        assert isolated == pytest.approx(squares[~np.array(active)].sum(), rel=1e-11)
        assert whole == pytest.approx(squares.sum(), rel=1e-11)
        if k + 1 < SELECTIONS and not amsgrad:  # and that step was made, at a rate of 0.05
            step = (seen.weights[k + 1] - seen.weights[k]) / 0.05
            assert whole == pytest.approx((step**2).sum(), rel=1e-9)
