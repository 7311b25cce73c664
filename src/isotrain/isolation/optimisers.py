"""Adam (Kingma and Ba, arXiv 1412.6980, algorithm 1) and other optimisers that can leave weights out.

Each is torch's of the same name, takes the same arguments and ``moments="hold"|"reset"`` (Adam: see
:class:`MaskedAdam`). With ``variant="torch"`` and ``correction="global"`` Adam is torch's own on the active weights
(:mod:`.masking`), bit for bit; the other settings are written out here, and CARD.md gives each combination by formula.
What each remembers of an isolated weight under ``"hold"``:

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
from jaxtyping import Bool
from torch import Tensor
from torch.optim import Adam, Optimizer

from isotrain.errors import InputError
from isotrain.isolation.masking import ActiveSet, Masked
from isotrain.isolation.settings import MOMENTS, Policy, Registry, check


class MaskedAdam(Masked, Adam):
    """``torch.optim.Adam`` with, for each parameter, a set of weights that are left as they are.

    Args:
        params, lr, betas, eps, weight_decay, amsgrad, foreach, maximize, capturable, fused, decoupled_weight_decay: as
            in :class:`torch.optim.Adam`; the last is AdamW's coupling (arXiv 1711.05101). ``capturable``: counts and
            corrections are tensors, so that a CUDA graph can hold the step; with ``fused`` on a CPU too.
        moments: of isolated weights. ``"hold"`` keeps m and v; ``"decay"`` multiplies them by beta1 and beta2
            at each step (a gradient of zero); ``"reset"`` zeroes them on isolation; ``"mean"`` keeps them and, on
            thaw, replaces them by their means over the weights of the parameter that were active until then.
        correction: the t of the bias correction. ``"global"``: the steps of the parameter; ``"per_weight"``: the
            updates of each weight.
        variant: ``"torch"``: epsilon beside sqrt(v_hat), as in algorithm 1, and t counts the steps that updated any
            weight of the parameter. ``"lazy"`` and ``"tf15"``: epsilon beside sqrt(v), as in TensorFlow 1.5 (the
            paper's "epsilon hat", end of its section 2), and t goes on while a parameter is isolated. They differ
            under ``"decay"``: with ``"lazy"`` (TensorFlow's LazyAdam) isolated weights stay, with ``"tf15"`` (its
            sparse apply) **they move by what is left of their momentum**.

    Raises:
        InputError: an unknown ``moments``, ``correction`` or ``variant``.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(3))
        >>> optimiser = MaskedAdam([weight], lr=0.1)
        >>> optimiser.set_active(weight, torch.tensor([True, False, True]))
        >>> weight.grad = torch.ones(3)
        >>> optimiser.step()
        >>> [round(value, 3) for value in weight.tolist()]
        [-0.1, 0.0, -0.1]
    """

    policies: ClassVar[tuple[str, ...]] = MOMENTS
    kept: ClassVar[tuple[str, ...]] = (*Masked.kept, "correction", "variant")

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        moments: str = "hold",
        correction: str = "global",
        variant: str = "torch",
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        check(Policy, "correction", correction)
        check(Policy, "variant", variant)
        self.correction, self.variant = correction, variant
        super().__init__(
            params,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            amsgrad=amsgrad,
            moments=moments,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            fused=fused,
            decoupled_weight_decay=decoupled_weight_decay,
        )
        if moments == "decay" or (correction, variant) != ("global", "torch"):
            # Only torch's fused kernel skips a step whose gradient overflowed; GradScaler skips the others.
            self._step_supports_amp_scaling = False

    def _prepare(self, p: Tensor, chosen: ActiveSet, group: dict[str, Any]) -> None:
        if len(chosen.rows) or self.variant != "torch":
            self._begin(p, group)
            self._count_updates(p)

    def _update(self) -> None:
        """torch's own Adam where that is what the settings ask for, and the formulas of :func:`_adam` elsewhere."""
        if self.variant == "torch" and self.correction == "global":
            super()._update()
            return
        plain: list[list[Tensor]] = []
        for group in self.param_groups:
            plain.append([])
            for p in group["params"]:
                if self.variant == "torch" and "updates" not in self.state.get(p, {}):
                    plain[-1].append(p)  # nothing of it was ever isolated: each weight's count is the parameter's
                elif p.grad is not None:
                    self._begin(p, group)
                    _adam(p, p.grad, self.state[p], group, self.variant)
        with self._only(plain):
            super()._update()

    def _rest(self, p: Tensor, chosen: ActiveSet, group: dict[str, Any]) -> None:
        state = self.state.get(p)
        if not state:
            return
        if self.variant != "torch" and (p.grad is None or not len(chosen.rows)):  # no update has counted this step
            state["step"].add_(1)
        if self.moments == "decay":
            beta1, beta2 = group["betas"]
            state["exp_avg"].mul_(beta1)
            state["exp_avg_sq"].mul_(beta2)
            if self.variant == "tf15":
                _move(p, state, group, *_corrections(_count(state["step"], group), group["betas"]), "tf15")

    def _change(self, p: Tensor, old: Bool[Tensor, "..."], new: Bool[Tensor, "..."]) -> None:
        if self.moments in ("reset", "mean") and not torch.equal(old, new):
            self._count_updates(p)
        super()._change(p, old, new)
        if self.moments == "mean" and bool(old.any()):
            for value in self._by_weight(p).values():
                mean = value[old].double().mean()
                value[new & ~old] = (mean if value.is_floating_point() else (mean + 0.5).floor()).to(value.dtype)

    def _begin(self, p: Tensor, group: dict[str, Any]) -> None:
        """The state of a parameter before its first step, as torch makes it."""
        state = self.state[p]
        if not state:
            on_device = group["fused"] or group["capturable"]
            state["step"] = torch.zeros((), dtype=torch.float32, device=p.device) if on_device else torch.zeros(())
            for name in ("exp_avg", "exp_avg_sq", *["max_exp_avg_sq"] * group["amsgrad"]):
                state[name] = torch.zeros_like(p)

    def _count_updates(self, p: Tensor) -> None:
        """Start counting the updates of each weight. Until now they were equal: those of the parameter."""
        state = self.state[p]
        if self.correction == "per_weight" and "updates" not in state:
            state["updates"] = torch.full_like(p, int(state["step"]), dtype=torch.int32)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up moments, counts and active sets; a state of ``torch.optim.Adam`` loads as all active."""
        super().load_state_dict(state_dict)
        for key, p in self._numbered(state_dict):
            counts = self.state[p].pop("updates", None) if p in self.state else None
            if counts is not None and self.correction == "per_weight":  # torch cast them to the weights' type
                self.state[p]["updates"] = state_dict["state"][key]["updates"].to(p.device, copy=True)


def _adam(w: Tensor, g: Tensor, state: dict[str, Tensor], group: dict[str, Any], variant: str) -> None:
    """Algorithm 1 written out, in place: for a t of each weight's own, or for TensorFlow's epsilon."""
    m, v = state["exp_avg"], state["exp_avg_sq"]
    (beta1, beta2), lr, decay = group["betas"], group["lr"], group["weight_decay"]
    g = -g if group["maximize"] else g
    if decay and group["decoupled_weight_decay"]:
        w.mul_(1 - lr * decay)
    elif decay:
        g = g.add(w, alpha=decay)
    m.lerp_(g, 1 - beta1)
    v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
    if group["amsgrad"]:
        torch.maximum(state["max_exp_avg_sq"], v, out=state["max_exp_avg_sq"])
    step = state["step"].add_(1)
    if "updates" in state:  # powers in double precision: 1 - 0.999^t loses four digits in single
        c1, c2 = (c.to(w.dtype) for c in _corrections(state["updates"].add_(1).double(), group["betas"]))
    else:
        c1, c2 = _corrections(_count(step, group), group["betas"])
    _move(w, state, group, c1, c2, variant)


def _corrections(t: Any, betas: tuple[float, float]) -> tuple[Any, Any]:
    return 1 - betas[0] ** t, 1 - betas[1] ** t


def _count(step: Tensor, group: dict[str, Any]) -> Any:
    """The step count in double precision, as a number if it is on the host: one on a device is not waited for."""
    return step.item() if step.device.type == "cpu" and not group["capturable"] else step.double()


def _move(w: Tensor, state: dict[str, Tensor], group: dict[str, Any], c1: Any, c2: Any, variant: str) -> None:
    """The last line of algorithm 1, in place, with c1 = 1 - beta1^t and c2 = 1 - beta2^t::

    torch        w -= lr / c1 * m / (sqrt(v) / sqrt(c2) + eps)
    lazy, tf15   w -= lr * sqrt(c2) / c1 * m / (sqrt(v) + eps)
    """
    m, lr, eps = state["exp_avg"], group["lr"], group["eps"]
    v = state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"]
    if variant == "torch":
        w.sub_(lr / c1 * m / (v.sqrt() / c2**0.5 + eps))
    else:
        w.sub_(lr * c2**0.5 / c1 * m / (v.sqrt() + eps))


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
MASKED: Registry[type[Masked]] = Registry({base.__name__.lower(): kind for base, kind in _MASKED.items()})


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
