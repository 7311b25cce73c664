"""A sequential test, zone by zone: can the mean gradient still be told from zero?

**The coin.** At each look a zone tosses c = the sign of <g, g'>, the inner product of its gradient with that of the
look before.

**Under the null** - the mean gradient is zero, and the minibatch noise symmetric and fresh, that is, given all
that came before, g and -g are equally likely - the coins are fair and independent. Proof: given the past, g' is
fixed, so <g, g'> and <-g, g'> = -<g, g'> are equally likely, and heads has probability 1/2 (less if zero is
possible, which counts as tails). The earlier coins are functions of that same past, so this one owes them nothing,
although successive pairs share a gradient. Nothing is asked of the noise's law: it may change from look to look,
as it does while the network trains.

**With a direction** heads is likelier. For g = mu + noise of standard deviation s in each of n arcs, n large, its
probability is about Phi(x / sqrt(n + 2 x)) with x = |mu|² / s²: large zones see weak directions. Here coins that share
a gradient are not quite independent, and the error rate beta below is one of design: simulated with Gaussian noise,
a direction is missed in 0.05 of the tests with 1 to 20 arcs, and in 0.04 with 100 and more, instead of in 0.036.

**The test** is Wald's sequential probability ratio test (Annals of Mathematical Statistics 16, 1945) of p = 1/2 against
p = p1. Heads adds log(2 p1) to the logarithm of the likelihood ratio, tails log(2 (1 - p1)); at or below
log(beta / (1 - alpha)) the zone is on a plateau, at or above log((1 - beta) / alpha) it has a direction. Then

    P(direction | none)        <= alpha / (1 - beta)
    P(plateau | heads has p1)  <= beta / (1 - alpha)

and, with p1 = 0.8 and alpha = beta = 0.05 (conventions, not measured to be best), exactly, by enumeration: 0.037 and
0.036, with 13.8 looks to a decision on average without a direction and 15.8 with one. (Wald's approximations,
which leave out the overshoot: 11.9 and 13.7.) A direction too weak for p1 is decided either way, at p = 0.65 about
evenly.

The rates hold for one test. Each zone is tested again and again, so over a long training each active zone is
sometimes taken for a plateau: at most one test in twenty of a zone that has a direction.
"""

from math import log

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from isotrain.isolation.criteria.histories import recall_gradient
from isotrain.isolation.criteria.views import ZoneView, needs

P1, ALPHA, BETA = 0.8, 0.05, 0.05
HEADS, TAILS = log(2 * P1), log(2 * (1 - P1))
DIRECTION, PLATEAU = log((1 - BETA) / ALPHA), log(BETA / (1 - ALPHA))


@needs(remembers=True)
def plateau(view: ZoneView) -> Float[Tensor, " zones"]:
    """The look at which a zone was found to have no direction; +inf while undecided, or when it has one.

    So the zones isolated first are those found first. After each decision the test of that zone starts again, and its
    verdict is the last one: where the gradients of isolated zones are computed (mode ``masked``) a zone may regain
    its direction and come back; elsewhere the state of an isolated zone stands still. Keeps one gradient an arc and
    two numbers a zone. See the head of this file for the mathematics, its assumptions and its error rates.
    """
    memory = view.memory
    last, observed = recall_gradient(view, "plateau")
    product = view.sum(view.grad.double() * last.double())
    ratio = _toss(memory.get("plateau.ratio", view.zeros()), product > 0, observed)

    score = memory.get("plateau", torch.full_like(ratio, torch.inf))
    look = memory.get("plateau.looks", torch.zeros((), dtype=torch.double)).to(ratio.device)
    score = torch.where(ratio >= DIRECTION, torch.inf, score)
    score = torch.where(
        ratio <= PLATEAU, score.minimum(look), score
    )  # first come: the first of several verdicts counts
    memory["plateau"], memory["plateau.looks"] = score, look + 1
    memory["plateau.ratio"] = torch.where((ratio >= DIRECTION) | (ratio <= PLATEAU), 0.0, ratio)
    return torch.where(product.isnan(), product, score)


def _toss(
    ratio: Float[Tensor, " zones"], heads: Bool[Tensor, " zones"], observed: Bool[Tensor, " zones"]
) -> Float[Tensor, " zones"]:
    """The logarithm of the likelihood ratio after one more coin; zones that were not observed toss none."""
    return ratio + torch.full_like(ratio, TAILS).masked_fill(heads, HEADS) * observed
