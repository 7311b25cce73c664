"""Any torch optimiser that keeps its state a weight, made to update the active weights and no others.

A step gathers the active weights of each parameter into a smaller tensor, with their gradients and their state, lets
the optimiser's own step run on these, and scatters the answer back. So "some active" *is* that optimiser on the
sub-tensor alone, bit for bit, and a step with everything active is the optimiser's own.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor
from torch.optim import Optimizer

from isotrain.errors import InputError
from isotrain.isolation.settings import one_of


@dataclass(frozen=True, eq=False)
class ActiveSet:
    """Which weights of a tensor are active: as a mask, and as rows of the tensor viewed as a matrix.

    ``rows`` is worked out once, so that a step neither counts a mask nor waits for a device. Where whole rows
    of the tensor are active or isolated together the matrix keeps them whole (several times faster to
    gather); otherwise each weight is a row of its own.
    """

    mask: Bool[Tensor, "..."]
    height: int
    rows: Int[Tensor, " active_rows"]

    @classmethod
    def of(cls, mask: Bool[Tensor, "..."]) -> "ActiveSet":
        by_row = mask.reshape(mask.shape[0] if mask.dim() else 1, -1)
        if not torch.equal(by_row.all(1), by_row.any(1)):
            by_row = mask.reshape(-1, 1)
        return cls(mask, by_row.shape[0], by_row.all(1).nonzero().squeeze(1))

    def take(self, other: "ActiveSet") -> bool:
        """Become ``other`` in place if it has as many rows: a recorded step finds them where they lay. Else False."""
        if (self.height, self.rows.shape) != (other.height, other.rows.shape):
            return False
        self.mask.copy_(other.mask)
        self.rows.copy_(other.rows)
        return True

    def gather(self, whole: Shaped[Tensor, "..."]) -> Shaped[Tensor, "active_rows width"]:
        return whole.reshape(self.height, -1).index_select(0, self.rows)

    def scatter(self, part: Shaped[Tensor, "active_rows width"], whole: Shaped[Tensor, "..."]) -> None:
        """Write ``part`` over the active weights of ``whole``, in place."""
        matrix = whole.reshape(self.height, -1)
        matrix.index_copy_(0, self.rows, part)
        if matrix.data_ptr() != whole.data_ptr():  # reshape copies a tensor that is not contiguous
            whole.copy_(matrix.reshape(whole.shape))


def full_mask(param: Tensor, active: Tensor | None) -> Bool[Tensor, "..."]:
    """A boolean copy of ``active`` in the shape of ``param`` and on its device; None is all True.

    Raises:
        InputError: ``active`` is not boolean, or does not broadcast.
    """
    if active is None:
        return torch.ones(param.shape, dtype=torch.bool, device=param.device)
    if active.dtype != torch.bool:
        raise InputError(f"active has type {active.dtype}; give a boolean tensor, True where updated")
    try:
        wide = active.broadcast_to(param.shape)
    except RuntimeError:
        raise InputError(
            f"active of shape {tuple(active.shape)} does not broadcast to a parameter of shape "
            f"{tuple(param.shape)}; give one entry a weight, or a shape that stretches to it"
        ) from None
    return wide.to(param.device).clone(memory_format=torch.contiguous_format)


class Masked(Optimizer):
    """Put before a torch optimiser among the bases of a class: ``class MaskedSGD(Masked, torch.optim.SGD)``.

    The optimiser's state may hold tensors in the shape of the parameter (an entry a weight) and scalars (one for all
    of them); a scalar tensor must be called ``"step"``. State that is first made in a step begins at zero for the
    weights isolated in that step, or where ``starts`` says.

    Args:
        params, *args, **settings: of the optimiser.
        moments: what becomes of the state of an isolated weight. ``"hold"`` keeps it; ``"reset"`` puts it back to
            what it was before the first step, at the moment of isolation.

    Attributes:
        changes: how often other weights were isolated than a step recorded before (a CUDA graph) can follow: it follows
            where as many rows are active as before.

    Raises:
        InputError: an unknown ``moments``, or ``differentiable=True``.
    """

    policies: ClassVar[tuple[str, ...]] = ("hold", "reset")
    starts: ClassVar[dict[str, str]] = {}  # name of a state tensor -> the setting with its first value; else zero
    kept: ClassVar[tuple[str, ...]] = (
        "moments",
        "changes",
        "_sets",
        "_step_supports_amp_scaling",
    )  # by copies and pickles

    def __init__(self, params: Any, *args: Any, moments: str = "hold", **settings: Any) -> None:
        one_of(self.policies)(f"{type(self).__name__}: moments", moments)
        if settings.get("differentiable"):
            raise InputError(f"{type(self).__name__}: differentiable=True cannot be masked; leave it out")
        self.moments = moments
        self.changes = 0
        self._sets: dict[Tensor, ActiveSet] = {}  # only parameters of which something is isolated
        super().__init__(params, *args, **settings)

    def set_active(self, param: Tensor, active: Tensor | None) -> None:
        """From the next step on update only these weights of ``param``; None updates all of them.

        Args:
            param: a parameter of this optimiser.
            active: True where updated; broadcast to the shape of ``param``, and copied.

        Raises:
            InputError: ``param`` is not in the optimiser, or ``active`` is not boolean or does not broadcast.
        """
        old, new = self.active(param), full_mask(param, active)
        if self.state.get(param):
            self._change(param, old, new)
        known = self._sets.get(param)
        if bool(new.all()):
            self._sets.pop(param, None)
            self.changes += known is not None
            return
        chosen = ActiveSet.of(new)
        if known is None or not known.take(chosen):
            self._sets[param] = chosen
            self.changes += 1

    def active(self, param: Tensor) -> Bool[Tensor, "..."]:
        """The weights of ``param`` that are updated: a copy, in its shape.

        Raises:
            InputError: ``param`` is not in the optimiser.
        """
        if not any(param is known for group in self.param_groups for known in group["params"]):
            raise InputError(
                f"{type(self).__name__}: a parameter of shape {tuple(param.shape)} is not in this optimiser; "
                "pass one of those that it was built with"
            )
        chosen = self._sets.get(param)
        return torch.ones_like(param, dtype=torch.bool) if chosen is None else chosen.mask.clone()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step. The closure, if any, runs first: Lightning computes the gradients in it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._sets:
            self._step_active()
        else:
            self._update()
        return loss

    def _step_active(self) -> None:
        shown: list[list[Tensor]] = []  # to the optimiser, group by group
        masked: list[tuple[Tensor, ActiveSet, dict[str, Any]]] = []
        parts: dict[Tensor, Tensor] = {}
        try:
            for group in self.param_groups:
                shown.append([])
                for p in group["params"]:
                    chosen = self._sets.get(p)
                    if chosen is None:
                        shown[-1].append(p)
                        continue
                    masked.append((p, chosen, group))
                    self._prepare(p, chosen, group)
                    if len(chosen.rows):
                        parts[p] = self._gather(p, chosen)
                        shown[-1].append(parts[p])
            with self._only(shown):
                self._update()
        finally:
            states = {p: self.state.pop(part) for p, part in parts.items()}
        for p, chosen, group in masked:
            self._rest(p, chosen, group)
            if p in parts:
                self._scatter(p, parts[p], states[p], chosen)

    def _update(self) -> None:
        """The optimiser's own step on the groups as they stand, without torch's hooks: those run around ours."""
        if self.param_groups:
            step: Any = super().step
            function = step.__func__
            while hasattr(function, "hooked"):
                function = function.__wrapped__
            function(self)

    def _prepare(self, p: Tensor, chosen: ActiveSet, group: dict[str, Any]) -> None:
        """For an optimiser to add to: before a step, for a parameter of which something is isolated."""

    def _rest(self, p: Tensor, chosen: ActiveSet, group: dict[str, Any]) -> None:
        """For an optimiser to add to: what a step does to isolated weights; the active ones are overwritten after."""

    def _change(self, p: Tensor, old: Bool[Tensor, "..."], new: Bool[Tensor, "..."]) -> None:
        """The active set of ``p``, which has been updated before, goes from ``old`` to ``new``."""
        if self.moments == "reset":
            for name, value in self._by_weight(p).items():
                value.masked_fill_(old & ~new, self._start(name))

    def _by_weight(self, p: Tensor) -> dict[str, Tensor]:
        """The state of ``p`` that has an entry a weight."""
        return {name: value for name, value in self.state[p].items() if _is_by_weight(name, value, p.shape)}

    def _start(self, name: str) -> float:
        return float(self.defaults[self.starts[name]]) if name in self.starts else 0.0

    def _gather(self, p: Tensor, chosen: ActiveSet) -> Tensor:
        """The active weights of ``p`` with their gradient and state: what the optimiser takes for the parameter."""
        part = chosen.gather(p)
        if p.grad is not None:
            if p.grad.is_sparse:
                raise InputError(
                    f"{type(self).__name__}: a parameter of shape {tuple(p.shape)} has a sparse gradient and isolated "
                    "weights; build its embedding with sparse=False"
                )
            part.grad = chosen.gather(p.grad)
        shape, state = p.shape, self.state.get(p, {})
        self.state[part] = {
            name: chosen.gather(value) if _is_by_weight(name, value, shape) else value for name, value in state.items()
        }
        return part

    def _scatter(self, p: Tensor, part: Tensor, state: dict[str, Any], chosen: ActiveSet) -> None:
        chosen.scatter(part, p)
        if not state:
            return
        own, shape = self.state[p], part.shape
        for name, value in state.items():
            if not _is_by_weight(name, value, shape):
                own[name] = value
                continue
            if own.get(name) is None:  # the step has just made it
                own[name] = torch.full_like(p, self._start(name), dtype=value.dtype)
            chosen.scatter(value, own[name])

    @contextmanager
    def _only(self, params: Sequence[list[Tensor]]) -> Iterator[None]:
        """The groups hold these parameters for a while; a group that is left with none does not exist meanwhile."""
        groups, whole = self.param_groups, [group["params"] for group in self.param_groups]
        try:
            for group, chosen in zip(groups, params, strict=True):
                group["params"] = chosen
            self.param_groups = [group for group in groups if group["params"]]
            yield
        finally:
            self.param_groups = groups
            for group, before in zip(groups, whole, strict=True):
                group["params"] = before

    def state_dict(self) -> dict[str, Any]:
        """As torch's, with ``"active"`` among the state of each parameter of which something is isolated."""
        saved = super().state_dict()
        saved["state"] = {key: dict(value) for key, value in saved["state"].items()}
        for key, p in self._numbered(saved):
            if p in self._sets:
                saved["state"].setdefault(key, {})["active"] = self._sets[p].mask.clone()
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up state and active sets; a state of the torch optimiser loads as all active."""
        own = {key: dict(value) for key, value in state_dict["state"].items()}
        masks = {key: value.pop("active") for key, value in own.items() if "active" in value}
        super().load_state_dict({**state_dict, "state": {key: value for key, value in own.items() if value}})
        self.changes += 1
        self._sets = {
            p: ActiveSet.of(full_mask(p, masks[key])) for key, p in self._numbered(state_dict) if key in masks
        }

    def _numbered(self, saved: dict[str, Any]) -> list[tuple[Any, Tensor]]:
        keys = [key for group in saved["param_groups"] for key in group["params"]]
        return list(zip(keys, (p for group in self.param_groups for p in group["params"]), strict=True))

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {name: getattr(self, name) for name in self.kept if hasattr(self, name)}


def _is_by_weight(name: str, value: Any, shape: torch.Size) -> bool:
    return name != "step" and isinstance(value, Tensor) and value.shape == shape
