"""The sequential test for a plateau: Wald's rules by hand, its error rates by enumeration and by simulation."""

import math
from collections.abc import Callable, Iterator
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import Tensor

from isotrain.isolation.criteria import ALPHA, BETA, CRITERIA, P1, ZoneView

plateau = CRITERIA["plateau"]
HEADS, TAILS = math.log(P1 / 0.5), math.log((1 - P1) / 0.5)
UPPER, LOWER = math.log((1 - BETA) / ALPHA), math.log(BETA / (1 - ALPHA))


def view(grad: Tensor, zone: Tensor, memory: dict[str, Tensor], known: Tensor | None = None) -> ZoneView:
    none = torch.zeros_like(grad)
    depth = torch.zeros(int(zone.max()) + 1, dtype=torch.long)
    return ZoneView(
        zone, depth, none, grad, none, none, none, (0.9, 0.999), 1e-8, torch.Generator(), known=known, memory=memory
    )


# The rules ----------------------------------------------------------------------------------------------


def test_by_hand() -> None:
    """Four tails in a row end a test (4 log 0.4 < log(1/19)), so do seven heads (7 log 1.6 > log 19)."""
    memory: dict[str, Tensor] = {}
    zone = torch.tensor([0, 1, 1])
    scores = []
    for check in range(9):  # zone 0 turns at each check; zone 1 never does, although one of its weights does
        turn = (-1.0) ** check
        scores.append(plateau(view(torch.tensor([turn, turn, 2.0]), zone, memory)).tolist())
    endless = [math.inf, math.inf]
    assert scores == [endless] * 4 + [[4.0, math.inf]] * 5  # found at check 4, that is at the fourth coin
    for _ in range(8):  # now zone 0 goes straight on: 4 tails since check 4, a second verdict, then heads
        now = plateau(view(torch.tensor([1.0, 1.0, 2.0]), zone, memory)).tolist()
    assert now == endless


def reference(grads: list[list[Tensor]], known: list[Tensor]) -> Iterator[list[float]]:
    """The same rules, zone by zone and number by number; ``grads[check][zone]``."""
    n = len(grads[0])
    last: list[Tensor | None] = [None] * n
    ratio, score = [0.0] * n, [math.inf] * n
    for check, row in enumerate(grads):
        for k, g in enumerate(row):
            if not known[check][k]:
                continue
            before, last[k] = last[k], g
            if before is None:
                continue
            ratio[k] += HEADS if float((g * before).sum()) > 0 else TAILS
            if ratio[k] >= UPPER:
                ratio[k], score[k] = 0.0, math.inf
            elif ratio[k] <= LOWER:
                ratio[k], score[k] = 0.0, min(score[k], float(check))
        yield list(score)


def test_zone_by_zone() -> None:
    """Zones of 1 to 6 weights, some with a direction, some gradients not computed (zero there, and no observation)."""
    draw = torch.Generator().manual_seed(0)
    sizes = torch.arange(40) % 6 + 1
    zone = torch.repeat_interleave(torch.arange(40), sizes)
    mean = torch.where(zone % 2 == 0, 1.5, 0.0)
    known = [torch.rand(40, generator=draw) < 0.8 for _ in range(80)]
    flat = [(mean + torch.randn(len(zone), generator=draw)) * known[check][zone] for check in range(80)]
    expected = list(reference([list(g.split(sizes.tolist())) for g in flat], known))
    memory: dict[str, Tensor] = {}
    scores = [plateau(view(g, zone, memory, known[check])).tolist() for check, g in enumerate(flat)]
    assert scores == expected
    finite = np.isfinite(scores)
    assert (finite[:-1] & ~finite[1:]).any()  # some regained a direction
    assert finite[-1].any()
    assert not finite[-1].all()


def test_an_isolated_zone_without_gradients_keeps_its_state() -> None:
    memory: dict[str, Tensor] = {}
    zone = torch.tensor([0])
    for check in range(3):
        plateau(view(torch.tensor([(-1.0) ** check]), zone, memory))
    kept = {name: value.clone() for name, value in memory.items()}
    for _ in range(20):
        assert plateau(view(torch.zeros(1), zone, memory, torch.tensor([False]))).tolist() == [math.inf]
    assert kept.pop("plateau.count") == memory.pop("plateau.count") - 20
    assert all(torch.equal(memory[name], value) for name, value in kept.items())


def test_a_zone_without_any_gradient_has_no_direction_and_a_diverged_one_no_score() -> None:
    memory: dict[str, Tensor] = {}
    for _ in range(5):
        score = plateau(view(torch.zeros(1), torch.tensor([0]), memory))
    assert score.tolist() == [4.0]
    assert bool(plateau(view(torch.full((1,), torch.nan), torch.tensor([0]), memory)).isnan().all())


# Error rates --------------------------------------------------------------------------------------------


def enumerated(p: float) -> tuple[float, float]:
    """P(plateau) and the mean number of coins of one test, if the coins are independent: every path, added up."""
    paths, found, coins = {(0, 0): 1.0}, 0.0, 0.0
    for n in range(1, 2000):
        longer: dict[tuple[int, int], float] = {}
        for (heads, tails), weight in paths.items():
            for h, t, w in ((heads + 1, tails, weight * p), (heads, tails + 1, weight * (1 - p))):
                ratio = h * HEADS + t * TAILS
                if LOWER < ratio < UPPER:
                    longer[h, t] = longer.get((h, t), 0.0) + w
                else:
                    found, coins = found + w * (ratio <= LOWER), coins + w * n
        paths = longer
    return found, coins


def test_the_rates_that_are_written_down() -> None:
    """In the head of plateau.py; and Wald's bounds hold."""
    none, with_one, weak = enumerated(0.5), enumerated(P1), enumerated(0.65)
    assert (1 - none[0], none[1]) == pytest.approx((0.037, 13.8), abs=0.05, rel=0.02)
    assert with_one == pytest.approx((0.036, 15.8), abs=0.05, rel=0.02)
    assert weak[0] == pytest.approx(0.55, abs=0.01)
    assert 1 - none[0] <= ALPHA / (1 - BETA)
    assert with_one[0] <= BETA / (1 - ALPHA)


def first_verdicts(gradient: Callable[[Tensor], Tensor], zone: Tensor, checks: int = 250) -> tuple[float, float, int]:
    """Of many zones: the share whose first verdict is plateau, the mean number of coins to it, how many got to one.

    ``gradient`` draws the next gradient from the last one. A test that starts again has a ratio of exactly 0.
    """
    memory: dict[str, Tensor] = {}
    g = gradient(torch.zeros(len(zone)))
    score = plateau(view(g, zone, memory))
    verdict, coins = torch.full_like(score, torch.nan), torch.zeros_like(score)
    for check in range(1, checks):
        g = gradient(g)
        score = plateau(view(g, zone, memory))
        now = (memory["plateau.ratio"] == 0) & verdict.isnan()
        verdict[now], coins[now] = score[now].isfinite().double(), float(check)
    done = ~verdict.isnan()
    return float(verdict[done].mean()), float(coins[done].mean()), int(done.sum())


def assert_rate(measured: float, expected: float, n: int) -> None:
    """Within four standard deviations of a binomial share."""
    assert abs(measured - expected) < 4 * math.sqrt(expected * (1 - expected) / n)


N = 2000


@pytest.mark.parametrize("weights", [1, 5])
@pytest.mark.parametrize("law", ["gaussian", "cauchy", "uneven"])
def test_without_a_direction(weights: int, law: str) -> None:
    """Symmetric noise of any law, its size changing from check to check: fair coins although pairs overlap."""
    draw = torch.Generator().manual_seed(1)
    zone = torch.arange(N).repeat_interleave(weights)

    def gradient(last: Tensor) -> Tensor:
        if law == "uneven":  # the more so, the larger the last gradient was
            return torch.randn(len(zone), generator=draw) * (1 + last.abs())
        noise = torch.randn(len(zone), generator=draw)
        return noise / torch.randn(len(zone), generator=draw) if law == "cauchy" else noise

    found, coins, n = first_verdicts(gradient, zone, checks=120)
    expected = enumerated(0.5)
    assert n >= 0.999 * N
    assert_rate(found, expected[0], n)
    assert 1 - found < ALPHA / (1 - BETA) + 4 * math.sqrt(ALPHA / n)
    assert coins == pytest.approx(expected[1], rel=0.05)


def test_with_the_direction_it_is_designed_for() -> None:
    """The gradient keeps its sign with probability p1, at each check anew."""
    draw = torch.Generator().manual_seed(2)

    def gradient(last: Tensor) -> Tensor:
        sign = torch.where(last < 0, -1.0, 1.0) * torch.where(torch.rand(N, generator=draw) < P1, 1.0, -1.0)
        return sign * torch.rand(N, generator=draw).add(0.1)

    found, coins, n = first_verdicts(gradient, torch.arange(N))
    expected = enumerated(P1)
    assert n >= 0.999 * N
    assert_rate(found, expected[0], n)
    assert coins == pytest.approx(expected[1], rel=0.05)


@pytest.mark.parametrize(("weights", "zones", "missed"), [(1, 4000, 0.05), (20, 1500, 0.05), (100, 600, 0.04)])
def test_with_a_mean_under_gaussian_noise(weights: int, zones: int, missed: float) -> None:
    """Coins that share a gradient are not quite independent: what is missed is measured, and written down."""
    z = NormalDist().inv_cdf(P1)
    x = z**2 + math.sqrt(z**4 + weights * z**2)  # solves x / sqrt(weights + 2 x) = z
    mean, draw = math.sqrt(x / weights), torch.Generator().manual_seed(3)
    zone = torch.arange(zones).repeat_interleave(weights)
    heads = []

    def gradient(last: Tensor) -> Tensor:
        g = mean + torch.randn(len(zone), generator=draw)
        heads.append(float(((g * last).reshape(zones, weights).sum(1) > 0).double().mean()))
        return g

    found, coins, n = first_verdicts(gradient, zone, checks=80)
    assert n >= 0.99 * zones
    assert_rate(found, missed, n)
    assert 12 < coins < 16
    if weights > 1:
        assert np.mean(heads[1:]) == pytest.approx(P1, abs=0.01)
