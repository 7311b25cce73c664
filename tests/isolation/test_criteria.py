"""Every criterion against NumPy in float64, on a tiny LSTM that is really trained, look after look."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from isotrain.errors import InputError
from isotrain.isolation.criteria import CRITERIA, REFRESH, Criterion, ZoneView, needs, neglected, view_of
from isotrain.isolation.optimisers import MaskedAdam
from isotrain.isolation.zones import ZoneMap, zones

BETAS, EPS = (0.8, 0.95), 1e-3
LOOKS = 2 * REFRESH + 2


@dataclass
class Watched:
    """What NumPy saw at each look (weights and gradients before that step), and what the criterion said."""

    zone: np.ndarray
    weights: list[np.ndarray] = field(default_factory=list)
    grads: list[np.ndarray] = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)
    views: list[ZoneView] = field(default_factory=list)
    amsgrad: bool = False

    def sum(self, arcs: np.ndarray) -> np.ndarray:
        return np.bincount(self.zone, weights=arcs)

    def mean(self, arcs: np.ndarray) -> np.ndarray:
        return self.sum(arcs) / np.bincount(self.zone)

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
    """Train a step between two looks, every step a fresh minibatch; nothing is isolated."""
    torch.manual_seed(0)
    lstm = nn.LSTM(2, 3, dtype=torch.double)
    parameters = dict(lstm.named_parameters())
    optimiser = MaskedAdam(parameters.values(), lr=0.05, betas=BETAS, eps=EPS, amsgrad=amsgrad)
    (zone_map,) = zones(lstm, kind)
    generator, memory = torch.Generator().manual_seed(7), dict[str, Tensor]()
    seen = Watched(zone_map.numbers().numpy(), amsgrad=amsgrad)
    for _ in range(LOOKS):
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


# The formulas of the docstrings, at look k (from 0), before step k + 1.
Formula = Callable[[Watched, int], np.ndarray]


def stability(s: Watched, k: int) -> np.ndarray:
    if k == 0:
        return np.full(s.zone.max() + 1, np.inf)
    g, h = s.grads[k], s.grads[k - 1]
    return s.sum(g * h) / np.sqrt(s.sum(g * g) * s.sum(h * h))


def plasticity(s: Watched, k: int) -> np.ndarray:
    if k < REFRESH:
        return np.full(s.zone.max() + 1, np.inf)
    w, r = s.weights[k // REFRESH * REFRESH], s.weights[(k // REFRESH - 1) * REFRESH]
    return 2 * np.sqrt(s.sum((w - r) ** 2)) / (np.sqrt(s.sum(w**2)) + np.sqrt(s.sum(r**2)))


def snr(s: Watched, k: int) -> np.ndarray:
    m, v = s.moments(k)
    return s.sum(m**2) / s.sum(v) if k else s.sum(m)


FORMULAS: dict[str, Formula] = {
    "magnitude": lambda s, k: s.mean(abs(s.weights[k])),
    "grad_norm": lambda s, k: np.sqrt(s.mean(s.grads[k] ** 2)),
    "snip": lambda s, k: s.mean(abs(s.weights[k] * s.grads[k])),
    "fisher": lambda s, k: s.mean(s.moments(k)[1]),
    "update_norm": lambda s, k: np.sqrt(s.mean(s.update(k) ** 2)),
    "snr": snr,
    "movement": lambda s, k: sum(-s.mean(s.weights[j] * s.grads[j]) for j in range(k + 1)),
    "distance": lambda s, k: np.sqrt(s.mean((s.weights[k] - s.weights[0]) ** 2)),
    "stability": stability,
    "depth": lambda s, k: np.zeros(s.zone.max() + 1),
    "plasticity": plasticity,
}


@pytest.mark.parametrize("kind", ["arc", "gate", "unit", "layer"])
@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_formula(name: str, kind: str) -> None:
    seen = watch(CRITERIA[name], kind)
    for k in range(LOOKS):
        assert seen.scores[k].dtype == np.float64
        np.testing.assert_allclose(seen.scores[k], FORMULAS[name](seen, k), rtol=1e-11, atol=1e-15)


def test_every_criterion_has_its_truth() -> None:
    """random is drawn (below); plateau has a file of its own."""
    assert set(CRITERIA) == set(FORMULAS) | {"random", "plateau"}


def test_update_norm_divides_by_the_largest_v_under_amsgrad() -> None:
    seen = watch(CRITERIA["update_norm"], amsgrad=True)
    for k in range(LOOKS):
        np.testing.assert_allclose(seen.scores[k], FORMULAS["update_norm"](seen, k), rtol=1e-11, atol=1e-15)
    assert not np.allclose(seen.scores[-1], watch(CRITERIA["update_norm"]).scores[-1], rtol=1e-6)


def test_random_is_drawn_anew_and_again_from_the_same_seed() -> None:
    seen = watch(CRITERIA["random"])
    draw = torch.Generator().manual_seed(7)
    assert [score.tolist() for score in seen.scores] == [torch.rand(3, generator=draw).tolist() for _ in range(LOOKS)]


# Zones of a few arcs, worked out by hand ----------------------------------------------------------------


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
    """Zone 0 has one arc, zone 1 three of the same size, two of them with w g of the other sign."""
    view = hand([2.0, 2.0, -2.0, 2.0], [3.0, 3.0, 3.0, -3.0], [0, 1, 1, 1])
    for name, expected in [("magnitude", 2.0), ("grad_norm", 3.0), ("snip", 6.0)]:
        assert CRITERIA[name](view).tolist() == [expected, expected]


def test_movement_is_low_where_weights_go_to_zero() -> None:
    """A descent step moves w by -g: the first weight shrinks, the second grows."""
    assert CRITERIA["movement"](hand([1.0, 1.0], [0.5, -0.5], [0, 1])).tolist() == [-0.5, 0.5]


def test_moments_by_hand() -> None:
    """After one update with g = 2 and g = 0: m = 1, v = 1, m_hat = 2, v_hat = 4; nothing is 0/0 at epsilon 0."""
    once = {"exp_avg": torch.tensor([1.0, 0.0]), "exp_avg_sq": torch.tensor([1.0, 0.0]), "updates": torch.ones(2)}
    view = hand([1.0, 1.0], [0.0, 0.0], [0, 1], **once)
    assert CRITERIA["fisher"](view).tolist() == [4.0, 0.0]
    assert CRITERIA["update_norm"](view).tolist() == [1.0, 0.0]
    assert CRITERIA["snr"](view).tolist() == [1.0, 0.0]


def test_stability_of_opposite_parallel_and_absent_gradients() -> None:
    memory: dict[str, Tensor] = {}
    first = hand([1.0] * 4, [1.0, 2.0, 3.0, 0.0], [0, 1, 2, 3], memory=memory)
    assert CRITERIA["stability"](first).tolist() == [torch.inf] * 4
    known = torch.tensor([True, True, False, True])
    second = hand([1.0] * 4, [5.0, -1.0, 0.0, 1.0], [0, 1, 2, 3], memory=memory, known=known)
    assert CRITERIA["stability"](second).tolist() == [1.0, -1.0, torch.inf, 0.0]
    third = hand([1.0] * 4, [5.0, -1.0, -2.0, 1.0], [0, 1, 2, 3], memory=memory)
    assert CRITERIA["stability"](third).tolist() == [1.0, 1.0, -1.0, 1.0]  # the third against its 3.0 of two looks ago


def test_a_zone_that_stands_still_is_not_plastic() -> None:
    memory: dict[str, Tensor] = {}
    for look in range(REFRESH + 1):
        score = CRITERIA["plasticity"](hand([1.0 + look, 0.0, 7.0], [0.0] * 3, [0, 1, 2], memory=memory))
    assert score.tolist() == pytest.approx([2 * REFRESH / (REFRESH + 2), 0.0, 0.0])


@pytest.mark.parametrize("name", sorted(set(CRITERIA) - {"random", "depth", "plateau"}))
def test_what_is_not_a_number_gives_no_score(name: str) -> None:
    """From the second look on, where every criterion but plasticity has one: select refuses it."""
    memory: dict[str, Tensor] = {}
    nan = torch.full((1,), torch.nan)
    for _ in range(REFRESH + 1):
        view = hand([torch.nan], [torch.nan], [0], exp_avg=nan, exp_avg_sq=nan, updates=torch.ones(1), memory=memory)
        score = CRITERIA[name](view)
    assert bool(score.isnan().all())


# What a caller is told, and what it keeps ---------------------------------------------------------------


def test_what_each_needs_is_written_on_it() -> None:
    def marked(what: str) -> set[str]:
        return {name for name, criterion in CRITERIA.items() if getattr(criterion, what, False)}

    assert marked("moments") == {"fisher", "update_norm", "snr"}
    assert marked("remembers") == {"movement", "distance", "plateau", "stability", "plasticity"}

    @needs(remembers=True)
    def own(view: ZoneView) -> Tensor:
        return view.mean(view.weight)

    assert (getattr(own, "moments"), getattr(own, "remembers")) == (False, True)  # noqa: B009


@pytest.mark.parametrize("name", sorted(name for name in CRITERIA if getattr(CRITERIA[name], "remembers", False)))
def test_memory_can_be_saved_in_the_middle(name: str) -> None:
    """Only tensors, which a careful torch.load takes; the looks after it go on as if nothing had happened."""
    draw = torch.Generator().manual_seed(0)
    looks = [torch.randn(2, 8, generator=draw).tolist() for _ in range(30)]
    whole, half, other = (dict[str, Tensor]() for _ in range(3))

    def score(look: int, memory: dict[str, Tensor]) -> list[float]:
        return CRITERIA[name](hand(*looks[look], list(range(8)), memory=memory)).tolist()

    expected = [score(look, whole) for look in range(30)]
    for look in range(7):
        score(look, half)
    buffer = io.BytesIO()
    torch.save(half, buffer)
    buffer.seek(0)
    other.update(torch.load(buffer, weights_only=True))
    assert [score(look, other) for look in range(7, 30)] == expected[7:]
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
    stranger = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    with pytest.raises(InputError, match="zones 'l0': SGD does not train them"):
        view_of(zone_map, dict(lstm.named_parameters()), stranger, torch.Generator())


# What falls on isolated zones ---------------------------------------------------------------------------


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("active", [[True, False, True], [True] * 3, [False] * 3])
def test_neglected_is_the_step_that_adam_is_about_to_make(amsgrad: bool, active: list[bool]) -> None:
    seen = watch(CRITERIA["depth"], amsgrad=amsgrad)
    for k, view in enumerate(seen.views):
        isolated, whole = neglected(view, torch.tensor(active))
        squares = seen.sum(seen.update(k + 1) ** 2)
        assert isolated == pytest.approx(squares[~np.array(active)].sum(), rel=1e-11)
        assert whole == pytest.approx(squares.sum(), rel=1e-11)
        if k + 1 < LOOKS and not amsgrad:  # and that step was made, at a rate of 0.05
            step = (seen.weights[k + 1] - seen.weights[k]) / 0.05
            assert whole == pytest.approx((step**2).sum(), rel=1e-9)
