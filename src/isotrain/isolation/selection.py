"""Selection: scores and a fraction in, the active zones out."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Real, Shaped
from torch import Tensor

from isotrain.errors import InputError
from isotrain.isolation.settings import Policy, check


def select(
    scores: Mapping[str, Real[Tensor, " _zones"]],
    fraction: float,
    scope: str = "local",
    *,
    cost: Mapping[str, Real[Tensor, " _zones"]] | None = None,
    before: Mapping[str, Bool[Tensor, " _zones"]] | None = None,
    thaw: bool = True,
    churn: float = 1.0,
) -> dict[str, Bool[Tensor, " _zones"]]:
    """Isolate zones of LOWEST score until they make up ``fraction`` of the cost; True in the answer is active.

    In order of score, a zone is isolated if the cost of those before it, and half of its own, is at most
    ``fraction`` of the total: the cost isolated is the asked one, rounded to whole zones. With equal costs that is
    exactly ``floor(fraction * n + 1/2)`` (a half is rounded up) of n zones. Among equal scores the zone that comes
    first is isolated first: the same scores always give the same answer.

    A score of +inf is never isolated. Nor is a zone that costs nothing, whatever its score: it would save nothing.

    With ``churn`` = 0 or 1, or with equal costs, a larger fraction isolates all that a smaller one does.

    Args:
        scores: one entry a zone map, a score a zone.
        fraction: of the cost, in [0, 1].
        scope: the fraction, and the churn, hold in each entry of ``scores`` (``"local"``), or in all of them taken
            together (``"global"``).
        cost: what each zone costs, finite and not negative; None: all the same.
        before: the present choice, True where active; None: everything. The next three lines need it.
        thaw: if False what is isolated stays isolated, whatever the fraction and the scores, +inf included.
        churn: the share of the zones that may be thawed to let others take their place, in [0, 1], rounded to whole
            zones: those of highest score. 1: the best choice by score, 0: no exchange. The
            zones thawed because the fraction fell are counted in, but never held back.

    Raises:
        InputError: a fraction or churn outside [0, 1], an unknown scope, a score that is not a number, a cost that is
            negative or not finite, or a cost or ``before`` that does not match the scores.
    """
    _check_arguments(scores, fraction, scope, churn)
    costs = _matched("cost", cost, scores)
    present = _matched("before", before, scores)
    for name, value in costs.items():
        if not bool((value.isfinite() & (value >= 0)).all()):
            raise InputError(f"zones {name!r}: a cost is negative or not finite; give numbers of 0 or more")
    groups = [[name] for name in scores] if scope == "local" else [list(scores)] if scores else []
    chosen: dict[str, Tensor] = {}
    for names in groups:
        score = torch.cat([scores[name] for name in names])
        price = torch.cat([costs[name].double() for name in names]) if costs else torch.ones_like(score).double()
        isolated = ~torch.cat([present[name] for name in names]) if present else torch.zeros_like(score).bool()
        active = ~_isolated(score, fraction, price, isolated, thaw, churn)
        chosen.update(zip(names, torch.split(active, [len(scores[name]) for name in names]), strict=True))
    return chosen


def _isolated(
    score: Real[Tensor, " zones"],
    fraction: float,
    cost: Real[Tensor, " zones"],
    before: Bool[Tensor, " zones"],
    thaw: bool,
    churn: float,
) -> Bool[Tensor, " zones"]:
    """Which zones are isolated, given those that are (``before``): those that keep their place first, then by score."""
    possible = ~score.isposinf() & (cost > 0)
    held = before & possible if thaw else before
    exchanged = math.floor(churn * len(score) + 0.5) if thaw else 0

    order = torch.sort(score, stable=True).indices
    rank = held[order].cumsum(0)  # among those held, from 1
    keeps = held[order] & (rank <= held.sum() - exchanged)
    order = torch.cat([order[keeps], order[~keeps]])

    isolated = torch.zeros_like(before)
    isolated[order] = _within(cost[order], fraction)
    return isolated & possible if thaw else isolated & possible | before


def _within(cost: Real[Tensor, " zones"], fraction: float) -> Bool[Tensor, " zones"]:
    """Which of the zones, taken in this order, fall within ``fraction`` of the total cost.

    Equal costs are counted, exactly. Whole numbers are added exactly too; for others two sums that ought to be equal
    differ by rounding, at most by n times the machine's precision of the total, and pass for equal.
    """
    if bool((cost == cost[:1]).all()):
        cost = torch.ones_like(cost)
    total = cost.sum()
    slack = 0.0 if bool((cost == cost.round()).all()) else len(cost) * torch.finfo(cost.dtype).eps * total
    return cost.cumsum(0) <= fraction * total + cost / 2 + slack


def _check_arguments(scores: Mapping[str, Tensor], fraction: float, scope: str, churn: float) -> None:
    if not 0.0 <= fraction <= 1.0:
        raise InputError(f"fraction={fraction} of the zones cannot be isolated; give a number in [0, 1]")
    check(Policy, "churn", churn)
    check(Policy, "scope", scope)
    for name, score in scores.items():
        if bool(score.isnan().any()):
            raise InputError(
                f"zones {name!r}: a score is not a number; look for NaN in its weights, gradients or moments "
                "(a diverged training: lower the learning rate or clip the gradient)"
            )


def _matched(
    what: str, given: Mapping[str, Shaped[Tensor, " _zones"]] | None, scores: Mapping[str, Shaped[Tensor, " _zones"]]
) -> dict[str, Tensor]:
    """What belongs to each entry of ``scores``, on its device; empty if nothing is given."""
    if given is None:
        return {}
    for name, score in scores.items():
        count = len(given[name]) if name in given else 0
        if count != len(score):
            raise InputError(f"{what}: {count} entries for the {len(score)} zones of {name!r}; give one a zone")
    return {name: given[name].to(score.device) for name, score in scores.items()}
