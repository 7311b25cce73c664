"""Selection: scores and a fraction in, the active zones out."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Real
from torch import Tensor

from isotrain.errors import InputError

SCOPES = ("local", "global")


def select(
    scores: Mapping[str, Real[Tensor, " _zones"]], fraction: float, scope: str = "local"
) -> dict[str, Bool[Tensor, " _zones"]]:
    """Isolate the share ``fraction`` of the zones, those of LOWEST score first; True in the answer is active.

    Exactly ``floor(fraction * n + 1/2)`` (a half is rounded up) of n zones are isolated: of each entry of
    ``scores`` on its own (``scope="local"``), or of all of them taken together (``"global"``). Among equal
    scores the zone that comes first is isolated first: the same scores always give the same answer, and a
    larger fraction isolates all that a smaller one does.

    Raises:
        InputError: a fraction outside [0, 1], an unknown scope, or a score that is not a number.
    """
    if not 0.0 <= fraction <= 1.0:
        raise InputError(f"fraction={fraction} of the zones cannot be isolated; give a number in [0, 1]")
    if scope not in SCOPES:
        raise InputError(f"scope={scope!r} is unknown; choose one of {', '.join(SCOPES)}")
    for name, score in scores.items():
        if bool(score.isnan().any()):
            raise InputError(
                f"zones {name!r}: a score is not a number; look for NaN in its weights, gradients or moments "
                "(a diverged training: lower the learning rate or clip the gradient)"
            )
    if scope == "local":
        return {name: _active(score, fraction) for name, score in scores.items()}
    if not scores:
        return {}
    together = _active(torch.cat(list(scores.values())), fraction)
    parts = torch.split(together, [score.numel() for score in scores.values()])
    return dict(zip(scores, parts, strict=True))


def _active(score: Tensor, fraction: float) -> Tensor:
    isolated = math.floor(fraction * score.numel() + 0.5)
    order = torch.sort(score, stable=True).indices
    active = torch.ones_like(score, dtype=torch.bool)
    active[order[:isolated]] = False
    return active
