"""Criteria that remember: they compare this look with earlier ones, and must be called at every look.

What they keep is in ``view.memory``: at most one tensor as large as the weights, and a few numbers a zone.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from isotrain.isolation.criteria.views import ZoneView, needs

REFRESH = 5
"""Looks from one reference snapshot of :func:`plasticity` to the next: a convention, not measured to be best."""


@needs(remembers=True)
def movement(view: ZoneView) -> Float[Tensor, " zones"]:
    """Mean of S = - sum over the looks of w g: low where weights are driven towards zero.

    Movement pruning (Sanh et al., arXiv 2005.07683; its learning rate is left out). A descent step
    moves w by -g: where w g > 0 it shrinks |w| and S falls, where w g < 0 it grows |w| and S rises. The
    paper sums over every step, here over the looks only. Keeps one number a zone. Isolated zones go on being
    counted where their gradient is computed; elsewhere their score stands still.
    """
    before = view.memory.get("movement", view.zeros())
    view.memory["movement"] = before - view.mean(view.weight.double() * view.grad.double())
    return view.memory["movement"].clone()


@needs(remembers=True)
def distance(view: ZoneView) -> Float[Tensor, " zones"]:
    """Root mean square of w - w0: low where weights are still near those of the first look.

    DropBack (Golub et al., arXiv 1806.06949) trains the weights that went furthest, and puts the others *back* to
    their initial values; here they stay where they are. Keeps a copy of the weights. The score of an isolated
    zone stands still: it comes back only if the active ones return towards their start, which is rare.
    """
    initial = view.memory.setdefault("distance.initial", view.weight)
    return view.mean((view.weight.double() - initial.double()).square()).sqrt()


@needs(remembers=True)
def stability(view: ZoneView) -> Float[Tensor, " zones"]:
    """Cosine of the angle between a zone's gradients at two successive looks: low where the direction is noise.

    Two independent minibatches: a mean gradient mu under noise of total variance s² has a cosine of about
    mu² / (mu² + s²). The gradient and not Adam's m, although m is less noisy: m stands still while a zone is
    isolated, and would look perfectly steady; and any optimiser has a gradient. Keeps one gradient an arc.

    +inf until a zone has shown two gradients; 0 if one of them is zero. A zone of n arcs scatters by about
    1 / sqrt(n), and one of a single arc scores -1 or 1. Isolated zones: judged anew where their gradient is
    computed; elsewhere they keep their score.
    """
    last, observed = recall_gradient(view, "stability")
    g, last = view.grad.double(), last.double()
    norms = (view.sum(g.square()) * view.sum(last.square())).sqrt()
    cosine = torch.where(norms == 0, 0.0, view.sum(g * last) / norms)
    before = view.memory.get("stability", torch.full_like(cosine, torch.inf))
    view.memory["stability"] = torch.where(observed, cosine, before)
    return view.memory["stability"].clone()


@needs(remembers=True)
def plasticity(view: ZoneView) -> Float[Tensor, " zones"]:
    """How far a zone's weights went from a reference, relative to their size: 2 |w - r| / (|w| + |r|).

    The reference is refreshed every :data:`REFRESH` looks, and the score is of the last whole period; +inf before.
    After Egeria (Wang et al., arXiv 2201.06227), which freezes the layers whose *activations* have stopped
    changing against those of a reference copy of the network. That needs another forward pass; this compares
    weights, is blind to what the next layers make of them, and costs nothing between looks. Keeps a copy of
    the weights. An isolated zone that stood still for a period scores 0: absorbing, as in Egeria.
    """
    memory, w = view.memory, view.weight
    looks = memory.get("plasticity.looks", torch.zeros((), dtype=torch.long))
    memory["plasticity.looks"] = looks + 1
    if int(looks) % REFRESH == 0:
        r = memory.get("plasticity.reference")
        if r is not None:
            gap, sizes = _norm(view, w.double() - r.double()), _norm(view, w) + _norm(view, r)
            memory["plasticity"] = torch.where(sizes == 0, 0.0, 2 * gap / sizes)
        memory["plasticity.reference"] = w
    return memory.get("plasticity", torch.full_like(view.zeros(), torch.inf)).clone()


def recall_gradient(view: ZoneView, criterion: str) -> tuple[Float[Tensor, " arcs"], Bool[Tensor, " zones"]]:
    """Remember this look's gradient; return that of the look before, and the zones of which both are known.

    Each ``criterion`` has a memory of its own, since it reads it once a look. A zone whose gradient was not computed
    keeps what is remembered of it.
    """
    known = torch.ones_like(view.depth, dtype=torch.bool) if view.known is None else view.known
    last = view.memory.get(f"{criterion}.gradient", torch.zeros_like(view.grad))
    seen = view.memory.get(f"{criterion}.seen", torch.zeros_like(known))
    view.memory[f"{criterion}.gradient"] = torch.where(known[view.zone], view.grad, last)
    view.memory[f"{criterion}.seen"] = seen | known
    return last, seen & known


def _norm(view: ZoneView, arcs: Float[Tensor, " arcs"]) -> Float[Tensor, " zones"]:
    return view.sum(arcs.double().square()).sqrt()
