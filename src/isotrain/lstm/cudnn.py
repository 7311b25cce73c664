"""Which of cuDNN's LSTM kernels torch takes, and sizes at which it takes the fast ones.

cuDNN has *persistent* kernels, which keep the recurrent weights on the chip from step to step, and standard ones, which
read them again at each. torch asks for persistent ones by the rules of its ``aten/src/ATen/native/cudnn/RNN.cpp``,
written out in :func:`kernels`. An LSTM with more inputs or units, all of whose new weights are 0, is the same LSTM: the
new units stay 0 and so do the gradients of their weights. :func:`padded` uses that, for a reference that is fair.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from isotrain.lstm.precision import enter, leave, product_type

Algorithm = Literal["persistent", "persistent for few units", "standard"]
States = tuple[Tensor, Tensor]
Run = Callable[[Tensor, States, list[Tensor]], tuple[Tensor, States]]
FEW_FORWARD, FEW_BACKWARD = 192, 128  # units, in any type
WIDTH, MOST_UNITS = 128, 1024  # of persistent kernels in float16
ROWS, MOST_ROWS = 8, 128


@dataclass(frozen=True)
class Gpu:
    """What torch's rules ask of a GPU: compute capability and multiprocessors."""

    major: int = 9
    minor: int = 0
    processors: int = 132

    @classmethod
    def here(cls) -> "Gpu":
        """The current CUDA device."""
        found = torch.cuda.get_device_properties(torch.cuda.current_device())
        return cls(found.major, found.minor, found.multi_processor_count)


H100 = Gpu()


@dataclass(frozen=True)
class Kernels:
    """What runs an LSTM, and which rules decided it."""

    forward: Algorithm
    backward: Algorithm
    why: str


def kernels(
    hidden: int, inputs: int, batch: int, *, layers: int = 1, dtype: torch.dtype = torch.float16, gpu: Gpu = H100
) -> Kernels:
    """The kernels that torch takes for an LSTM in one direction; ``layers``: of one module.

    Example:
        >>> kernels(256, 7, 64).why
        'standard: 7 inputs are no multiple of 128'
        >>> kernels(256, 128, 64).forward
        'persistent'
    """
    missing = _persistent_lacks(hidden, inputs, batch, layers, dtype, gpu)
    few_units = dtype != torch.float64 and gpu.major >= 6
    found: list[Algorithm] = [
        "persistent for few units" if few_units and hidden <= most else "standard" if missing else "persistent"
        for most in (FEW_FORWARD, FEW_BACKWARD)
    ]
    if found[1] == "persistent for few units":
        return Kernels(found[0], found[1], f"{hidden} units: at most {FEW_BACKWARD}, in any type")
    first = f"forward of at most {FEW_FORWARD} units in any type, backward " if found[0] != found[1] else ""
    why = f"standard: {missing}" if missing else "persistent: float16 and all sizes fit"
    return Kernels(found[0], found[1], first + why)


def _persistent_lacks(hidden: int, inputs: int, batch: int, layers: int, dtype: torch.dtype, gpu: Gpu) -> str:
    """Why the persistent kernels for more units are not taken; empty if they are."""
    old = gpu.major < 8 or gpu.minor == 6 or gpu.processors < 98  # 7.x has rules of its own, not written out here
    lacks = (
        (dtype != torch.float16, f"{str(dtype).removeprefix('torch.')} is not float16"),
        (layers > 1, f"{layers} layers in one module"),
        (hidden > MOST_UNITS, f"{hidden} units are more than {MOST_UNITS}"),
        (bool(hidden % WIDTH), f"{hidden} units are no multiple of {WIDTH}"),
        (bool(inputs % WIDTH), f"{inputs} inputs are no multiple of {WIDTH}"),
        (bool(batch % ROWS), f"a batch of {batch} is no multiple of {ROWS}"),
        (batch > MOST_ROWS, f"a batch of {batch} is larger than {MOST_ROWS}"),
        (old, f"the GPU (compute capability {gpu.major}.{gpu.minor}, {gpu.processors} processors) is not of that kind"),
    )
    return next((why for does, why in lacks if does), "")


def padded(run: Run, x: Tensor, hx: States, weights: Sequence[Tensor], *, units: bool = False) -> tuple[Tensor, States]:
    """One layer by ``run``, with inputs and batch, and with ``units`` those too, at sizes of the persistent kernels.

    Args:
        run: computes a layer of x (T, B, I), states (1, B, H) each, and weights (weight_ih, weight_hh, biases if any).
        x, hx, weights: of the layer as it is.

    A batch over 128 is run in pieces, whose weight gradients autograd adds. Returns what ``run`` does, at the sizes
    of the layer as it is.
    """
    hidden, inputs, batch = hx[0].shape[-1], x.shape[-1], x.shape[1]
    wide = _up(hidden, WIDTH) if units else hidden
    w_ih, w_hh, *biases = weights
    weights = [_widen(w_ih, hidden, wide, _up(inputs, WIDTH) - inputs), _widen(w_hh, hidden, wide, wide - hidden)]
    weights += [_widen(bias[:, None], hidden, wide, 0)[:, 0] for bias in biases]
    rows = _up(batch, ROWS) - batch
    x = pad(x, (0, _up(inputs, WIDTH) - inputs, 0, rows))
    h, c = (pad(state, (0, wide - hidden, 0, rows)) for state in hx)
    pieces = zip(x.split(MOST_ROWS, 1), h.split(MOST_ROWS, 1), c.split(MOST_ROWS, 1), strict=True)
    found = [run(one.contiguous(), (h.contiguous(), c.contiguous()), list(weights)) for one, h, c in pieces]
    y = torch.cat([y for y, _ in found], 1)
    last = [torch.cat([states[k] for _, states in found], 1)[:, :batch, :hidden] for k in (0, 1)]
    return y[:, :batch, :hidden], (last[0], last[1])


def in_type(run: Run, x: Tensor, hx: States, weights: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, States]:
    """``run`` with everything in ``dtype``, whatever autocast would do: see :mod:`isotrain.lstm.precision`."""
    own = weights[0].dtype
    with torch.autocast(x.device.type, enabled=False):
        states = (enter(hx[0], dtype), enter(hx[1], dtype))
        y, (h, c) = run(enter(x, dtype), states, [enter(weight, dtype) for weight in weights])
        return leave(y, own), (leave(h, own), leave(c, own))


def widens(hidden: int, dtype: torch.dtype) -> bool:
    """Whether a layer of ``hidden`` units needs more inputs and rows, and no more units, for the persistent kernels."""
    return dtype == torch.float16 and FEW_BACKWARD < hidden <= MOST_UNITS and not hidden % WIDTH


def tuned(run: Run, x: Tensor, hx: States, weights: Sequence[Tensor], *, alone: bool) -> tuple[Tensor, States]:
    """``run`` in the type that is asked for, and at sizes of the persistent kernels where that costs no more units.

    ``alone``: it computes one layer in one direction, time first.
    """
    dtype = product_type(x, weights[0])
    if alone and widens(hx[0].shape[-1], dtype):
        return in_type(lambda *of: padded(run, *of), x, hx, weights, dtype)
    return in_type(run, x, hx, weights, dtype)


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _widen(weight: Tensor, hidden: int, wide: int, columns: int) -> Tensor:
    """(4H, K) to (4 wide, K + columns), the new ones 0."""
    if wide == hidden:
        return pad(weight, (0, columns))
    return pad(weight.unflatten(0, (4, hidden)), (0, columns, 0, wide - hidden)).flatten(0, 1)
