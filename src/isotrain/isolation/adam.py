"""Adam (Kingma and Ba, arXiv 1412.6980, algorithm 1) that moves the active weights and no others.

The active weights of a parameter are gathered into a smaller tensor, Adam runs on that tensor, and the answer
is scattered back. With ``variant="torch"`` and ``correction="global"`` the Adam that runs is torch's own
function: "some active" *is* ``torch.optim.Adam`` on the sub-tensor, bit for bit, and "all active" is
``torch.optim.Adam``. CARD.md beside this file gives each combination of settings by formula.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.optim.adam import Adam, adam

from isotrain.errors import InputError
from isotrain.isolation.active import ActiveSet, full_mask

MOMENTS = ("hold", "decay", "reset")
CORRECTIONS = ("global", "per_weight")
VARIANTS = ("torch", "tf15")


class MaskedAdam(Adam):
    """``torch.optim.Adam`` with, for each parameter, a set of weights that are left as they are.

    Args:
        params, lr, betas, eps, weight_decay, amsgrad, foreach, maximize, fused, decoupled_weight_decay: as in
            :class:`torch.optim.Adam`; the last is AdamW's coupling (arXiv 1711.05101).
        moments: of isolated weights. ``"hold"`` keeps m and v; ``"decay"`` multiplies them by beta1 and beta2
            at each step (a gradient of zero) while the weight stays; ``"reset"`` zeroes them on isolation.
        correction: the t of the bias correction. ``"global"``: the steps in which any weight of the parameter
            was updated; ``"per_weight"``: the updates of each weight.
        variant: where epsilon stands. ``"torch"``: beside sqrt(v_hat), as in algorithm 1; ``"tf15"``: beside
            sqrt(v), as in TensorFlow 1.5 (the paper's "epsilon hat", end of its section 2).

    Raises:
        InputError: an unknown ``moments``, ``correction`` or ``variant``.
    """

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
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        for name, value, known in (
            ("moments", moments, MOMENTS),
            ("correction", correction, CORRECTIONS),
            ("variant", variant, VARIANTS),
        ):
            if value not in known:
                raise InputError(f"MaskedAdam: {name}={value!r} is unknown; choose one of {', '.join(known)}")
        self.moments, self.correction, self.variant = moments, correction, variant
        self._sets: dict[Tensor, ActiveSet] = {}  # only parameters of which something is isolated
        super().__init__(
            params,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            amsgrad=amsgrad,
            foreach=foreach,
            maximize=maximize,
            fused=fused,
            decoupled_weight_decay=decoupled_weight_decay,
        )
        if (moments, correction, variant) != ("hold", "global", "torch"):
            # Only torch's fused kernel skips a step whose gradient overflowed; GradScaler skips the others.
            self._step_supports_amp_scaling = False

    def set_active(self, param: Tensor, active: Tensor | None) -> None:
        """From the next step on update only these weights of ``param``; None updates all of them.

        Args:
            param: a parameter of this optimiser.
            active: True where updated; broadcast to the shape of ``param``, and copied.

        Raises:
            InputError: ``param`` is not in the optimiser, or ``active`` is not boolean or does not broadcast.
        """
        old = self.active(param)
        new = full_mask(param, active)
        if self.moments == "reset" and self.state.get(param):
            self._reset(param, old & ~new)
        if bool(new.all()):
            self._sets.pop(param, None)
        else:
            self._sets[param] = ActiveSet.of(new)

    def active(self, param: Tensor) -> Bool[Tensor, "..."]:
        """The weights of ``param`` that are updated: a copy, in its shape. InputError for a stranger."""
        if not any(param is known for group in self.param_groups for known in group["params"]):
            raise InputError(
                f"MaskedAdam: a parameter of shape {tuple(param.shape)} is not in this optimiser; "
                "pass one of those that it was built with"
            )
        chosen = self._sets.get(param)
        if chosen is None:
            return torch.ones_like(param, dtype=torch.bool)
        return chosen.mask.clone()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step. The closure, if any, runs first: Lightning computes the gradients in it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        # torch's way of creating the state of parameters seen for the first time; its lists are not needed.
        self._init_group(group, *([] for _ in range(6)))  # type: ignore[no-untyped-call]
        parts = []
        for p in group["params"]:
            chosen = self._sets.get(p)
            if p.grad is not None and (chosen is None or len(chosen.rows)):
                parts.append((p, chosen, self._gather(p, chosen)))
            if chosen is not None and self.moments == "decay" and self.state.get(p):
                # After the gather: the active weights are overwritten by the scatter below.
                self.state[p]["exp_avg"].mul_(group["betas"][0])
                self.state[p]["exp_avg_sq"].mul_(group["betas"][1])

        plain = [(p, part) for p, _, part in parts if self.variant == "torch" and "updates" not in part]
        self._torch_update(plain, group)
        for p, _, part in parts:
            if self.variant != "torch" or "updates" in part:
                _update(part, self.state[p]["step"].add_(1), group, self.variant)

        for p, chosen, part in parts:
            if chosen is not None:
                for name, whole in self._tensors(p).items():
                    chosen.scatter(part[name], whole)

    def _tensors(self, p: Tensor) -> dict[str, Tensor]:
        """What a step changes: the weights and the state that has an entry a weight."""
        return {"param": p} | {name: value for name, value in self.state[p].items() if name != "step"}

    def _gather(self, p: Tensor, chosen: ActiveSet | None) -> dict[str, Tensor]:
        if chosen is not None:
            self._count_updates(p)
        assert p.grad is not None
        whole = self._tensors(p) | {"grad": p.grad}
        return whole if chosen is None else {name: chosen.gather(value) for name, value in whole.items()}

    def _torch_update(self, plain: list[tuple[Tensor, dict[str, Tensor]]], group: dict[str, Any]) -> None:
        """torch's own function on the gathered tensors, with the switches its optimiser would give it."""
        if not plain:
            return
        adam(
            [part["param"] for _, part in plain],
            [part["grad"] for _, part in plain],
            [part["exp_avg"] for _, part in plain],
            [part["exp_avg_sq"] for _, part in plain],
            [part["max_exp_avg_sq"] for _, part in plain if group["amsgrad"]],
            [self.state[p]["step"] for p, _ in plain],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            has_complex=any(part["param"].is_complex() for _, part in plain),
            grad_scale=getattr(self, "grad_scale", None),
            found_inf=getattr(self, "found_inf", None),
            **{name: group[name] for name in _SWITCHES},
        )

    def _count_updates(self, p: Tensor) -> None:
        """Start counting the updates of each weight. Until now they were equal: those of the parameter."""
        state = self.state[p]
        if self.correction == "per_weight" and state and "updates" not in state:
            state["updates"] = torch.full_like(p, int(state["step"]), dtype=torch.int32)

    def _reset(self, p: Tensor, newly_isolated: Tensor) -> None:
        self._count_updates(p)
        for name, value in self._tensors(p).items():
            if name != "param":
                value.masked_fill_(newly_isolated, 0)

    def state_dict(self) -> dict[str, Any]:
        """As torch's, with ``"active"`` (and ``"updates"``) beside the moments where there are any."""
        saved = super().state_dict()
        saved["state"] = {key: dict(value) for key, value in saved["state"].items()}
        for key, p in self._numbered(saved):
            if p in self._sets:
                saved["state"].setdefault(key, {})["active"] = self._sets[p].mask
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up moments, counts and active sets; a state of ``torch.optim.Adam`` loads as all active."""
        own = {key: dict(value) for key, value in state_dict["state"].items()}
        masks = {key: value.pop("active") for key, value in own.items() if "active" in value}
        super().load_state_dict({**state_dict, "state": {key: value for key, value in own.items() if value}})
        self._sets = {}
        for key, p in self._numbered(state_dict):
            if key in masks:
                self._sets[p] = ActiveSet.of(full_mask(p, masks[key]))
            counts = self.state[p].pop("updates", None) if p in self.state else None
            if counts is not None and self.correction == "per_weight":  # torch cast them to the weights' type
                self.state[p]["updates"] = own[key]["updates"].to(p.device, copy=True)

    def _numbered(self, saved: dict[str, Any]) -> list[tuple[Any, Tensor]]:
        keys = [key for group in saved["param_groups"] for key in group["params"]]
        return list(zip(keys, (p for group in self.param_groups for p in group["params"]), strict=True))

    def __getstate__(self) -> dict[str, Any]:
        names = ("moments", "correction", "variant", "_sets", "_step_supports_amp_scaling")
        return super().__getstate__() | {name: getattr(self, name) for name in names if hasattr(self, name)}


_SWITCHES = (
    *("lr", "weight_decay", "eps", "amsgrad", "maximize", "foreach", "capturable", "differentiable", "fused"),
    "decoupled_weight_decay",
)


def _update(part: dict[str, Tensor], step: Tensor, group: dict[str, Any], variant: str) -> None:
    """Algorithm 1 written out, in place: for a t of each weight's own, or for TensorFlow's epsilon.

    With c1 = 1 - beta1^t and c2 = 1 - beta2^t::

        torch   w -= lr / c1 * m / (sqrt(v) / sqrt(c2) + eps)
        tf15    w -= lr * sqrt(c2) / c1 * m / (sqrt(v) + eps)
    """
    w, m, v = part["param"], part["exp_avg"], part["exp_avg_sq"]
    g = -part["grad"] if group["maximize"] else part["grad"]
    (beta1, beta2), lr, decay = group["betas"], group["lr"], group["weight_decay"]
    if decay and group["decoupled_weight_decay"]:
        w.mul_(1 - lr * decay)
    elif decay:
        g = g.add(w, alpha=decay)
    m.lerp_(g, 1 - beta1)
    v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
    if group["amsgrad"]:
        v = torch.maximum(part["max_exp_avg_sq"], v, out=part["max_exp_avg_sq"])

    c1: Tensor | float
    c2: Tensor | float
    if "updates" in part:  # powers in double precision: 1 - 0.999^t loses four digits in single
        t = part["updates"].add_(1).double()
        c1, c2 = (1 - beta1**t).to(w.dtype), (1 - beta2**t).to(w.dtype)
    else:
        c1, c2 = 1 - beta1 ** step.item(), 1 - beta2 ** step.item()
    if variant == "tf15":
        w.sub_(lr * c2**0.5 / c1 * m / (v.sqrt() + group["eps"]))
    else:
        w.sub_(lr / c1 * m / (v.sqrt() / c2**0.5 + group["eps"]))
