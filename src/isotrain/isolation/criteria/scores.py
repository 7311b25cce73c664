"""Criteria: one score a zone. The zones of LOWEST score are isolated first; +inf stays active whatever the fraction.

A criterion is a function of a :class:`ZoneView`, which lays out the arcs of one zone map as vectors, so that
the arithmetic is written a weight at a time and then reduced by zone: ``view.mean(view.weight.abs())``. All
are means over the zone, or ratios of sums, so that zones of unequal size can be compared. Each costs a few
passes over the arcs at a look, and nothing between looks. Those that keep something from one look to the next
are in ``histories.py`` and ``plateau.py``.

*Absorbing*, below: an isolated zone has the lowest score there is, and comes back only when the fraction falls.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from isotrain.isolation.criteria.histories import distance, movement, plasticity, stability
from isotrain.isolation.criteria.plateau import plateau
from isotrain.isolation.criteria.views import Criterion, ZoneView, needs


def random(view: ZoneView) -> Float[Tensor, " zones"]:
    """Lots, drawn anew at each selection: the control that every other criterion has to beat."""
    return torch.rand(len(view.depth), generator=view.generator).to(view.depth.device)


def magnitude(view: ZoneView) -> Float[Tensor, " zones"]:
    """Mean of |w|: small weights first.

    The order of magnitude pruning (Han et al., arXiv 1506.02626), although isolated weights stay what they are
    instead of becoming zero. Isolated zones keep their score; they come back when others shrink below them.
    """
    return view.mean(view.weight.abs())


def grad_norm(view: ZoneView) -> Float[Tensor, " zones"]:
    """Root mean square of the gradient of this minibatch.

    AutoFreeze (Liu et al., arXiv 2102.01386) freezes by the norm of gradients too, by how it changes over a longer
    interval. An isolated zone is judged like any other where its gradient is computed (mode ``masked``); elsewhere
    it is zero, and the choice absorbing.
    """
    return view.mean(view.grad.double().square()).sqrt()


def snip(view: ZoneView) -> Float[Tensor, " zones"]:
    """Mean of |w g|: to first order, how much the loss would change if a weight were removed.

    SNIP (Lee et al., arXiv 1810.02340; its division by the total changes no order); Molchanov et al. (arXiv
    1611.06440) for filters. |w g| is averaged, not |the mean of w g|: within a zone w g of both signs cancels,
    and a zone of strong opposed effects would pass for idle. The mean and not the sum, for zones of unequal size.
    Isolated zones: as for :func:`grad_norm`.
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


@needs(moments=True)
def snr(view: ZoneView) -> Float[Tensor, " zones"]:
    """Sum of m_hat² over sum of v_hat: the share of the gradient's power that its running mean keeps.

    The square of the signal-to-noise ratio m_hat / sqrt(v_hat) of Kingma and Ba (arXiv 1412.6980, section 2.1), over
    the zone as a whole: strong gradients count more. (The mean of m_hat² / v_hat would be ``update_norm``'s order.)
    About (1 - beta1) / (1 + beta1) for pure noise, 1 for a steady gradient, 0 without any. Isolated zones: as for
    :func:`update_norm`.
    """
    m_hat, v_hat = _corrected(view)
    return _ratio(view.sum(m_hat.square()), view.sum(v_hat))


def depth(view: ZoneView) -> Float[Tensor, " zones"]:
    """FreezeOut's order (Brock et al., arXiv 1706.04983, section 2): the layers nearest the input go first.

    With ``scope="local"`` and zones smaller than a layer all the zones of a map tie: it is meant for layers,
    or for ``scope="global"``.
    """
    return view.depth.double()


CRITERIA: dict[str, Criterion] = {
    "random": random,
    "magnitude": magnitude,
    "grad_norm": grad_norm,
    "snip": snip,
    "fisher": fisher,
    "update_norm": update_norm,
    "snr": snr,
    "movement": movement,
    "distance": distance,
    "plateau": plateau,
    "stability": stability,
    "depth": depth,
    "plasticity": plasticity,
}


def neglected(view: ZoneView, active: Bool[Tensor, " zones"]) -> tuple[float, float]:
    """How much of the coming Adam update falls on isolated zones: the sums of u² over their arcs, and over all arcs.

    u is the update that each arc would make if nothing were isolated, learning rate and weight decay left out
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


def _corrected(view: ZoneView, second: Tensor | None = None) -> tuple[Float[Tensor, " arcs"], Float[Tensor, " arcs"]]:
    """m_hat and v_hat, in double precision; ``second`` takes the place of v."""
    beta1, beta2 = view.betas
    t = view.updates.clamp(min=1).double()
    return view.exp_avg / _bias(beta1, t), (view.exp_avg_sq if second is None else second) / _bias(beta2, t)


def _bias(beta: float, t: Float[Tensor, " arcs"]) -> Float[Tensor, " _arcs"] | float:
    """1 - beta^t; one number where t is the same for all, which it mostly is: powers are slow."""
    low, high = (float(end) for end in t.aminmax())
    return 1 - beta**low if low == high else 1 - beta**t


def _update(m_hat: Tensor, v_hat: Tensor, eps: float) -> Tensor:
    return _ratio(m_hat, v_hat.sqrt() + eps)


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """0 where the divisor is 0 (no gradient so far); what is not a number stays so."""
    return torch.where(below == 0, 0.0, above / below)
