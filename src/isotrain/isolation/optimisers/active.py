"""The active weights of one tensor: how they are taken out of it, and put back."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from isotrain.errors import InputError


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
