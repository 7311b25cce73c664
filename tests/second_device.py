"""A device beside the CPU, for machines that have none: it computes on the CPU and refuses what a GPU would refuse.

A tensor on it wraps one of the CPU. As on CUDA an operation on tensors of both devices is an error, but for copies,
tensors without dimensions, and indices. torch does not forget a device again: tests use it in a process of their own.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

DEVICE = torch.device("privateuseone", 0)
OPERATIONS = torch.library.Library("_", "IMPL")
COPIES, INDEXED = ("copy_", "_to_copy"), ("index", "index_put", "index_put_", "_index_put_impl_")


WAITS = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "unique")
_quiet = False


@contextmanager
def quiet() -> Iterator[None]:
    """No operation may wait for the device, or copy from one to the other."""
    global _quiet
    _quiet = True
    try:
        yield
    finally:
        _quiet = False


class There(Tensor):
    """A tensor of the second device; ``raw`` has its numbers."""

    raw: Tensor

    @staticmethod
    def __new__(cls, raw: Tensor) -> "There":
        like = {"strides": raw.stride(), "storage_offset": raw.storage_offset(), "dtype": raw.dtype, "device": DEVICE}
        made = Tensor._make_wrapper_subclass(cls, raw.shape, **like)
        made.raw = raw
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return run(func, args, kwargs or {})


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation ``func`` on whichever device its tensors or its keyword ``device`` say."""
    name = func.overloadpacket.__name__
    checked = [args[0], *args[2:]] if name in INDEXED else [] if name in COPIES else [args, kwargs]
    given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    there = {id(one.raw): one for one in given if isinstance(one, There)}
    beside = [one for one in tree_leaves(checked) if isinstance(one, Tensor) and not isinstance(one, There)]
    if there and (wrong := [tuple(one.shape) for one in beside if one.dim()]):
        raise RuntimeError(f"{name} of tensors on the device and on the CPU, the latter of shape {wrong[0]}")
    goal = kwargs.get("device")
    to_there = goal is not None and torch.device(goal).type == DEVICE.type
    if _quiet and (there or to_there):
        mixed = any(not isinstance(one, There) and one.dim() for one in given) or (name == "_to_copy" and not to_there)
        counts = name in INDEXED and any(one.dtype == torch.bool for one in tree_leaves(args[1]) if one is not None)
        if name in WAITS or mixed or counts:
            raise RuntimeError(f"{name} waits for the device")
    raw_args, raw_kwargs = tree_map(lambda one: one.raw if isinstance(one, There) else one, (args, kwargs))
    if to_there:
        raw_kwargs["device"] = "cpu"
    answer = CELLS.get(name, func)(*raw_args, **raw_kwargs)
    if not to_there and (goal is not None or not there or (name == "copy_" and not isinstance(args[0], There))):
        return args[0] if name == "copy_" else answer

    def wrapped(one: Any) -> Any:
        return there[id(one)] if id(one) in there else There(one) if isinstance(one, Tensor) else one

    return tree_map(wrapped, answer)


def cell(of_x: Tensor, of_h: Tensor, c: Tensor, *biases: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """A step of an LSTM as such devices are asked for it: h, c and the gates."""
    gates = of_x + of_h + sum(bias for bias in biases if bias is not None)
    i, f, g, o = gates.chunk(4, 1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    c = f * c + i * g
    return o * c.tanh(), c, torch.cat([i, f, g, o], 1)


def cell_backward(
    dh: Tensor | None, dc: Tensor | None, before: Tensor, c: Tensor, gates: Tensor, bias: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Its backward: the gradients of the sums, of the cell before and of a bias."""
    i, f, g, o = gates.chunk(4, 1)
    dh = torch.zeros_like(c) if dh is None else dh
    whole = dh * o * (1 - c.tanh().square()) + (0 if dc is None else dc)
    into = (whole * g * i * (1 - i), whole * before * f * (1 - f), whole * i * (1 - g * g), dh * c.tanh() * o * (1 - o))
    sums = torch.cat(into, 1)
    return sums, whole * f, sums.sum(0) if bias else None


CELLS = {"_thnn_fused_lstm_cell": cell, "_thnn_fused_lstm_cell_backward_impl": cell_backward}


class Numbers(TorchFunctionMode):
    """Numbers become a tensor on the CPU, which is moved: torch else fills the memory of a device from within."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.new_tensor:
            device = kwargs.pop("device", args[0].device)
            return torch.tensor(args[1], **{"dtype": args[0].dtype, **kwargs}).to(device)
        if func in (torch.tensor, torch.as_tensor) and not isinstance(args[0], Tensor):
            device = kwargs.pop("device", None)
            return func(*args, **kwargs).to(device)
        return func(*args, **kwargs)


class Watched(TorchDispatchMode):
    """Makes tensors on the second device, and counts the operations on each."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = Numbers()
        self.here: Counter[str] = Counter()
        self.there: Counter[str] = Counter()

    def __enter__(self) -> Any:
        self._numbers.__enter__()
        return super().__enter__()

    def __exit__(self, *problem: Any) -> None:
        super().__exit__(*problem)
        self._numbers.__exit__(*problem)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tree_leaves((args, kwargs or {}))
        on = self.there if any(isinstance(one, There) for one in given) else self.here
        on[func.overloadpacket.__name__] += 1
        return run(func, args, kwargs or {})


class Module(_DummyBackendModule):
    """What autocast asks of a device."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def register() -> None:
    """Make torch know the device, where autocast changes no type."""
    _setup_privateuseone_for_python_backend("beside", backend_module=Module())
    OPERATIONS.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
