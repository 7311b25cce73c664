"""The optimisers that can leave weights out, by name.

Each is torch's of the same name, takes the same arguments and ``moments="hold"|"reset"`` (Adam: see
:class:`MaskedAdam`). What each remembers of an isolated weight under ``"hold"``:

============  ==================================================================================================
``sgd``       the momentum buffer, if there is momentum. Zero for a weight that was never updated
``adagrad``   the sum of its squared gradients; ``step``, which is the parameter's, counts for ``lr_decay``
``rmsprop``   the mean of its squared gradients; with ``centered`` and ``momentum`` two more
``adadelta``  the means of its squared gradients and of its squared moves
``adam(w)``   m and v; the step count t is the parameter's
============  ==================================================================================================
"""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from isotrain.errors import InputError
from isotrain.isolation.optimisers.adam import MaskedAdam
from isotrain.isolation.optimisers.masking import Masked


class MaskedSGD(Masked, torch.optim.SGD):
    """``torch.optim.SGD``: momentum, dampening, Nesterov.

    torch begins a momentum buffer with the whole first gradient, at the parameter's first step. A weight that was
    isolated then begins from zero when it is thawed: with ``dampening`` its first gradient is dampened too.
    """


class MaskedAdagrad(Masked, torch.optim.Adagrad):
    """``torch.optim.Adagrad``; ``"reset"`` goes back to ``initial_accumulator_value``."""

    starts: ClassVar[dict[str, str]] = {"sum": "initial_accumulator_value"}


class MaskedRMSprop(Masked, torch.optim.RMSprop):
    """``torch.optim.RMSprop``: plain, centred, with momentum."""


class MaskedAdadelta(Masked, torch.optim.Adadelta):
    """``torch.optim.Adadelta``."""


class MaskedAdamW(MaskedAdam):
    """:class:`MaskedAdam` with AdamW's decoupled weight decay, and the weight decay of ``torch.optim.AdamW``."""

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, **{**settings, "decoupled_weight_decay": True})


_MASKED: dict[type[Optimizer], type[Masked]] = {
    torch.optim.SGD: MaskedSGD,
    torch.optim.Adagrad: MaskedAdagrad,
    torch.optim.RMSprop: MaskedRMSprop,
    torch.optim.Adadelta: MaskedAdadelta,
    torch.optim.Adam: MaskedAdam,
    torch.optim.AdamW: MaskedAdamW,
}
MASKED: dict[str, type[Masked]] = {base.__name__.lower(): kind for base, kind in _MASKED.items()}


def masked(base: type[Optimizer]) -> type[Masked]:
    """The class that masks a torch optimiser: ``masked(torch.optim.SGD)`` is :class:`MaskedSGD`.

    Raises:
        InputError: none is written for ``base``; the error says how to write it.
    """
    if base not in _MASKED:
        name = base.__name__
        raise InputError(
            f"{name} has no masked form; choose one of {', '.join(known.__name__ for known in _MASKED)}, or, if the "
            f"state that it keeps begins at zero, write class Masked{name}(Masked, {name}) at the top of a module"
        )
    return _MASKED[base]
