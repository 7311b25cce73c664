"""Criteria: one score a zone. The zones of LOWEST score are isolated first; +inf stays active whatever the fraction.

A criterion is a function of a :class:`ZoneView`, which lays out the weights of one zone map as vectors, so that the
arithmetic is written a weight at a time and then reduced by zone: ``view.mean(view.weight.abs())``. All are means over
the zone, or ratios of sums, so that zones of unequal size can be compared. Each costs a few passes over the weights at
a selection, and nothing between selections.

*Absorbing*, below: an isolated zone has the lowest score there is, and comes back only when the fraction falls.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import log
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from isotrain.errors import InputError
from isotrain.isolation.settings import CRITERIA as NAMES
from isotrain.isolation.settings import Registry
from isotrain.isolation.zonemap import ZoneMap


@dataclass(frozen=True, eq=False)
class ZoneView:
    """What a criterion sees of one zone map.

    Attributes:
        zone: the zone number of each weight.
        depth: the position of each zone in order of depth, 0 nearest the input.
        weight, grad, exp_avg, exp_avg_sq: of each weight. The gradient is that of the coming step, *before* any
            clipping; the moments m and v are those after the last step. Zero where there is none yet.
        updates: the t of Adam's bias correction of each weight.
        betas, eps: Adam's settings for these weights.
        generator: for criteria that draw at random; saved with the run.
        known: the zones whose gradient was really computed; elsewhere its zeros are no observation. None: all.
        memory: belongs to this zone map alone; a criterion may keep tensors in it from one selection to the next,
            and they are saved with the run.
        max_exp_avg_sq: the largest v so far of each weight, if Adam divides by that (``amsgrad``).
    """

    zone: Int[Tensor, " weights"]
    depth: Int[Tensor, " zones"]
    weight: Float[Tensor, " weights"]
    grad: Float[Tensor, " weights"]
    exp_avg: Float[Tensor, " weights"]
    exp_avg_sq: Float[Tensor, " weights"]
    updates: Float[Tensor, " weights"]
    betas: tuple[float, float]
    eps: float
    generator: torch.Generator
    known: Bool[Tensor, " zones"] | None = None
    memory: dict[str, Tensor] = field(default_factory=dict)
    max_exp_avg_sq: Float[Tensor, " weights"] | None = None

    def sum(self, weights: Float[Tensor, " weights"]) -> Float[Tensor, " zones"]:
        """The sum over each zone, in double precision."""
        return self.zeros().index_add_(0, self.zone, weights.double())

    def mean(self, weights: Float[Tensor, " weights"]) -> Float[Tensor, " zones"]:
        """The mean over each zone: comparable between zones of unequal size. Summed in double precision."""
        return self.sum(weights) / torch.bincount(self.zone, minlength=len(self.depth))

    def zeros(self) -> Float[Tensor, " zones"]:
        """A zero for each zone, in double precision and on the device of the weights."""
        return torch.zeros(len(self.depth), dtype=torch.double, device=self.weight.device)


Criterion = Callable[[ZoneView], Float[Tensor, " zones"]]


def needs(*, moments: bool = False, remembers: bool = False) -> Callable[[Criterion], Criterion]:
    """Write on a criterion what its caller must provide.

    Args:
        moments: an optimiser that keeps Adam's moments.
        remembers: a call at every selection, also while nothing is isolated, and the same ``memory`` each time.
    """

    def mark(criterion: Criterion) -> Criterion:
        criterion.__dict__.update(moments=moments, remembers=remembers)
        return criterion

    return mark


def view_of(
    zone_map: ZoneMap,
    parameters: Mapping[str, Tensor],
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
    known: Bool[Tensor, " zones"] | None = None,
    memory: dict[str, Tensor] | None = None,
) -> ZoneView:
    """The view of a zone map, given the parameters by name and the optimiser that trains them.

    Args:
        zone_map: of any kind that has weights.
        parameters: all that ``zone_map`` names, perhaps more.
        optimiser: any; moments that it does not keep are zero.
        generator, known, memory: as in :class:`ZoneView`. What is in ``memory`` is moved to the device of the weights.

    Raises:
        InputError: the optimiser does not train these parameters.
    """
    chosen = {name: parameters[name] for name in zone_map.shapes}
    states: dict[str, dict[str, Any]] = {name: optimiser.state.get(p, {}) for name, p in chosen.items()}
    device = next(iter(chosen.values())).device
    memory = {} if memory is None else memory
    memory.update({name: kept.to(device) for name, kept in memory.items()})

    def gather(key: str) -> Tensor:
        return zone_map.gather({name: state.get(key, torch.zeros_like(chosen[name])) for name, state in states.items()})

    def updates(name: str) -> Tensor:  # single precision whatever the weights': bfloat16 cannot count to 257
        count = states[name].get("updates", states[name].get("step", 0))
        return torch.as_tensor(count, device=device).float()

    settings = _settings(zone_map, next(iter(chosen.values())), optimiser)
    return ZoneView(
        zone=zone_map.numbers().to(device),
        depth=zone_map.depth.to(device),
        weight=zone_map.gather({name: p.detach() for name, p in chosen.items()}),
        grad=zone_map.gather({name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in chosen.items()}),
        exp_avg=gather("exp_avg"),
        exp_avg_sq=gather("exp_avg_sq"),
        updates=zone_map.gather({name: updates(name) for name in chosen}),
        betas=settings.get("betas", (0.0, 0.0)),
        eps=settings.get("eps", 0.0),
        generator=generator,
        known=None if known is None else known.to(device),
        memory=memory,
        max_exp_avg_sq=gather("max_exp_avg_sq") if settings.get("amsgrad", False) else None,
    )


def _settings(zone_map: ZoneMap, parameter: Tensor, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    for group in optimiser.param_groups:
        if any(p is parameter for p in group["params"]):
            return group
    raise InputError(
        f"zones {zone_map.name!r}: {type(optimiser).__name__} does not train them; give it their parameters, "
        "or name other modules"
    )


def random(view: ZoneView) -> Float[Tensor, " zones"]:
    """Numbers drawn at each selection: the control that every other criterion has to beat."""
    return torch.rand(len(view.depth), generator=view.generator).to(view.depth.device)


def magnitude(view: ZoneView) -> Float[Tensor, " zones"]:
    """Mean of |w|: small weights first.

    The order of magnitude pruning (Han et al., arXiv 1506.02626), although isolated weights stay what they are
    instead of becoming zero. Isolated zones keep their score; they come back when others shrink below them.
    """
    return view.mean(view.weight.abs())


def snip(view: ZoneView) -> Float[Tensor, " zones"]:
    """Mean of |w g|: to first order, how much the loss would change if a weight were removed.

    SNIP (Lee et al., arXiv 1810.02340; its division by the total changes no order); Molchanov et al. (arXiv
    1611.06440) for filters. |w g| is averaged, not |the mean of w g|: within a zone w g of both signs cancels,
    and a zone of strong opposed effects would pass for idle. The mean and not the sum, for zones of unequal size.
    An isolated zone is judged like any other where its gradient is computed (mode ``masked``); elsewhere it is zero,
    and the choice absorbing.
    """
    return view.mean((view.weight.double() * view.grad.double()).abs())


@needs(moments=True)
def fisher(view: ZoneView) -> Float[Tensor, " zones"]:
    """Mean of v_hat = v / (1 - beta2^t): Adam's running mean of the squared gradient.

    FISH mask (Sung et al., arXiv 2111.09839) trains the weights of largest empirical Fisher information, the mean of
    g² over *examples*. v is made of squares of minibatch means, where noise counts less, by the size of the batch.
    Isolated zones: v stands still, decays or is zero, as the optimiser's ``moments`` says.
    """
    return view.mean(_corrected(view)[1])


@needs(moments=True)
def update_norm(view: ZoneView) -> Float[Tensor, " zones"]:
    """Root mean square of Adam's own update m_hat / (sqrt(v_hat) + eps), learning rate left out.

    Kingma and Ba, arXiv 1412.6980, last line of algorithm 1: how far the last step moved the weights. A
    weight that was never updated has m = 0 and scores 0. Isolated zones: m and v stand still (the score too), both
    decay (m faster: absorbing) or are zero (absorbing), as the optimiser's ``moments`` says.
    """
    return view.mean(_update(*_corrected(view, _largest(view)), view.eps).square()).sqrt()


def depth(view: ZoneView) -> Float[Tensor, " zones"]:
    """FreezeOut's order (Brock et al., arXiv 1706.04983, section 2): the layers nearest the input go first.

    With ``scope="local"`` and zones smaller than a layer all the zones of a map tie: it is meant for layers,
    or for ``scope="global"``.
    """
    return view.depth.double()


P1, ALPHA, BETA = 0.8, 0.05, 0.05
HEADS, TAILS = log(2 * P1), log(2 * (1 - P1))
DIRECTION, PLATEAU = log((1 - BETA) / ALPHA), log(BETA / (1 - ALPHA))


@needs(remembers=True)
def plateau(view: ZoneView) -> Float[Tensor, " zones"]:
    """The selection at which a zone was found to have no direction; +inf while undecided, or when it has one.

    So the zones isolated first are those found first. After each decision the test of that zone starts again, and its
    verdict is the last one: where the gradients of isolated zones are computed (mode ``masked``) a zone may regain
    its direction and come back; elsewhere the state of an isolated zone stands still. Keeps one gradient a weight and
    two numbers a zone.

    It is a sequential test, zone by zone: can the mean gradient still be told from zero?

    **The coin.** At each selection a zone tosses c = the sign of <g, g'>, the inner product of its gradient with
    that of the selection before.

    **Under the null** - the mean gradient is zero, and the minibatch noise symmetric and fresh, that is, given all
    that came before, g and -g are equally likely - the coins are fair and independent. Proof: given the past, g' is
    fixed, so <g, g'> and <-g, g'> = -<g, g'> are equally likely, and heads has probability 1/2 (less if zero is
    possible, which counts as tails). The earlier coins are functions of that same past, so this one does not depend on
    them, although successive pairs share a gradient. Nothing is asked of the noise's law: it may change from selection
    to selection, as it does while the network trains.

    **With a direction** heads is likelier. For g = mu + noise of standard deviation s in each of n weights, n large,
    its probability is about Phi(x / sqrt(n + 2 x)) with x = |mu|² / s²: large zones see weak directions. Here coins
    that share a gradient are not quite independent, and the error rate beta below is one of design: simulated with
    Gaussian noise, a direction is missed in 0.05 of the tests with 1 to 20 weights, and in 0.04 with 100 and more,
    instead of in 0.036.

    **The test** is Wald's sequential probability ratio test (Annals of Mathematical Statistics 16, 1945) of p = 1/2
    against p = p1. Heads adds log(2 p1) to the logarithm of the likelihood ratio, tails log(2 (1 - p1)); at or below
    log(beta / (1 - alpha)) the zone is on a plateau, at or above log((1 - beta) / alpha) it has a direction. Then

        P(direction | none)        <= alpha / (1 - beta)
        P(plateau | heads has p1)  <= beta / (1 - alpha)

    and, with p1 = 0.8 and alpha = beta = 0.05 (conventions, not measured to be best), exactly, by enumeration: 0.037
    and 0.036, with 13.8 selections to a decision on average without a direction and 15.8 with one. (Wald's
    approximations, which leave out the overshoot: 11.9 and 13.7.) A direction too weak for p1 is decided either way, at
    p = 0.65 about evenly.

    The rates hold for one test. Each zone is tested again and again, so over a long training each active zone is
    sometimes taken for a plateau: at most one test in twenty of a zone that has a direction.
    """
    memory = view.memory
    last, observed = recall_gradient(view, "plateau")
    product = view.sum(view.grad.double() * last.double())
    ratio = _toss(memory.get("plateau.ratio", view.zeros()), product > 0, observed)

    score = memory.get("plateau", torch.full_like(ratio, torch.inf))
    count = memory.get("plateau.count", torch.zeros((), dtype=torch.double)).to(ratio.device)
    score = torch.where(ratio >= DIRECTION, torch.inf, score)
    score = torch.where(ratio <= PLATEAU, score.minimum(count), score)  # the first of several verdicts counts
    memory["plateau"], memory["plateau.count"] = score, count + 1
    memory["plateau.ratio"] = torch.where((ratio >= DIRECTION) | (ratio <= PLATEAU), 0.0, ratio)
    return torch.where(product.isnan(), product, score)


def _toss(
    ratio: Float[Tensor, " zones"], heads: Bool[Tensor, " zones"], observed: Bool[Tensor, " zones"]
) -> Float[Tensor, " zones"]:
    """The logarithm of the likelihood ratio after one more coin; zones that were not observed toss none."""
    return ratio + torch.full_like(ratio, TAILS).masked_fill(heads, HEADS) * observed


def recall_gradient(view: ZoneView, criterion: str) -> tuple[Float[Tensor, " weights"], Bool[Tensor, " zones"]]:
    """Remember this selection's gradient; return that of the one before, and the zones of which both are known.

    Each ``criterion`` has a memory of its own, since it reads it once a selection. A zone whose gradient was not
    computed keeps what is remembered of it.
    """
    known = torch.ones_like(view.depth, dtype=torch.bool) if view.known is None else view.known
    last = view.memory.get(f"{criterion}.gradient", torch.zeros_like(view.grad))
    seen = view.memory.get(f"{criterion}.seen", torch.zeros_like(known))
    view.memory[f"{criterion}.gradient"] = torch.where(known[view.zone], view.grad, last)
    view.memory[f"{criterion}.seen"] = seen | known
    return last, seen & known


# every name of the settings that is a function here
CRITERIA: Registry[Criterion] = Registry({name: globals()[name] for name in NAMES if name != "neglected"})


def neglected_update(view: ZoneView, active: Bool[Tensor, " zones"]) -> tuple[float, float]:
    """How much of the coming Adam update falls on isolated zones: the sums of u² over their weights, and over all.

    u is the update that each weight would make if nothing were isolated, learning rate and weight decay left out
    (Kingma and Ba, arXiv 1412.6980, algorithm 1), with the present gradient taken into m and v:
    m_hat / (sqrt(v_hat) + eps). The share of the norm is the root of their ratio, the sums of several maps
    added up before. Where a gradient was not computed (``view.known``) u is what momentum alone would do.
    """
    beta1, beta2 = view.betas
    g, t = view.grad.double(), view.updates.double() + 1
    m = beta1 * view.exp_avg.double() + (1 - beta1) * g
    v = beta2 * view.exp_avg_sq.double() + (1 - beta2) * g.square()
    largest = v if view.max_exp_avg_sq is None else torch.maximum(v, view.max_exp_avg_sq.double())
    squares = view.sum(_update(m / _bias(beta1, t), largest / _bias(beta2, t), view.eps).square())
    return float(squares[~active.to(squares.device)].sum()), float(squares.sum())


def _largest(view: ZoneView) -> Tensor:
    return view.exp_avg_sq if view.max_exp_avg_sq is None else view.max_exp_avg_sq


def _corrected(
    view: ZoneView, second: Tensor | None = None
) -> tuple[Float[Tensor, " weights"], Float[Tensor, " weights"]]:
    """m_hat and v_hat, in double precision; ``second`` takes the place of v."""
    beta1, beta2 = view.betas
    t = view.updates.clamp(min=1).double()
    return view.exp_avg / _bias(beta1, t), (view.exp_avg_sq if second is None else second) / _bias(beta2, t)


def _bias(beta: float, t: Float[Tensor, " weights"]) -> Float[Tensor, " _weights"] | float:
    """1 - beta^t; one number where t is the same for all, which it mostly is: powers are slow."""
    low, high = (float(end) for end in t.aminmax())
    return 1 - beta**low if low == high else 1 - beta**t


def _update(m_hat: Tensor, v_hat: Tensor, eps: float) -> Tensor:
    return _ratio(m_hat, v_hat.sqrt() + eps)


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """0 where the divisor is 0 (no gradient so far); what is not a number stays so."""
    return torch.where(below == 0, 0.0, above / below)
