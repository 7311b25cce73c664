"""How many times a sample each matrix of a network is multiplied by: measured by running the network once."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

# the uses of the module (and of what is in it, by name) over the whole batch, and the samples if it knows them
Counted = tuple[dict[str, int], int | None]


def count_uses(module: nn.Module, *inputs: Any) -> dict[str, int]:
    """The uses a sample of the matrices of each submodule that the run goes through, by dotted name.

    A recurrent module uses its matrices once a time step (of packed sequences their mean length), a linear one once
    a position, a convolution once a position of its output (transposed: of its input), an embedding once a look-up;
    an attention its input projections once a position of query, key and value (the mean of the three lengths) and
    its output projection once a position of the query. Calls add up, and fractions are rounded up.

    A sample is found, not told: recurrent modules, convolutions and attentions know their batch, and the smallest
    that one of them sees counts, since folding a dimension into the batch makes it larger; where none knows, the
    first dimension of the first input. An error there scales all uses alike, and no share depends on it.

    The network runs in evaluation mode without gradient. Its training modes and the state of the random numbers are
    as before afterwards. A module whose weights are used without calling it (by a function) is not seen.

    Args:
        module: the network.
        inputs: as its ``forward`` takes them, on its device.

    Raises whatever the network raises on these inputs.
    """
    total: dict[str, int] = {}
    batches: list[int] = []

    def hook_of(name: str, counts: Callable[[nn.Module, list[Any], Any], Counted]) -> Callable[..., None]:
        def hook(part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            given = inspect.signature(part.forward).bind(*args, **kwargs).arguments
            uses, batch = counts(part, list(given.values()), output)
            for inner, times in uses.items():
                whose = f"{name}.{inner}".strip(".")
                total[whose] = total.get(whose, 0) + times
            batches.extend([] if batch is None else [batch])

        return hook

    training = {part: part.training for part in module.modules()}
    devices = {p.device for p in module.parameters() if p.device.type == "cuda"}
    handles = [
        part.register_forward_hook(hook_of(name, counts), with_kwargs=True)
        for name, part in module.named_modules()
        for base, counts in _COUNTS.items()
        if isinstance(part, base)
    ]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices):
            module.eval()
            module(*inputs)
    finally:
        for handle in handles:
            handle.remove()
        for part, mode in training.items():
            part.training = mode
    samples = min(batches) if batches else _first_dimension(inputs)
    return {name: -(-times // samples) for name, times in total.items()}


def _first_dimension(inputs: tuple[Any, ...]) -> int:
    return next((len(x) for x in inputs if isinstance(x, Tensor) and x.dim()), 1)


def _positions(x: Tensor) -> int:
    """Of vectors along the last dimension."""
    return math.prod(x.shape[:-1])


def _recurrent(module: nn.Module, given: list[Any], output: Any) -> Counted:
    assert isinstance(module, nn.RNNBase)
    x = given[0]
    if isinstance(x, PackedSequence):
        return {"": len(x.data)}, int(x.batch_sizes[0])
    return {"": _positions(x)}, 1 if x.dim() == 2 else x.shape[0 if module.batch_first else 1]


def _linear(module: nn.Module, given: list[Any], output: Any) -> Counted:
    return {"": _positions(given[0])}, 1 if given[0].dim() == 1 else None


def _convolution(module: nn.Module, given: list[Any], output: Tensor) -> Counted:
    assert isinstance(module, Convolution)
    x = given[0] if module.transposed else output
    places = len(module.kernel_size)
    batch = x.shape[0] if x.dim() == places + 2 else 1
    return {"": batch * math.prod(x.shape[-places:])}, batch


def _attention(module: nn.Module, given: list[Any], output: Any) -> Counted:
    assert isinstance(module, nn.MultiheadAttention)
    query, key, value = (_positions(x) for x in given[:3])
    batch = 1 if given[0].dim() == 2 else given[0].shape[0 if module.batch_first else 1]
    return {"": -(-(query + key + value) // 3), "out_proj": query}, batch  # which it applies without calling it


def _embedding(module: nn.Module, given: list[Any], output: Any) -> Counted:
    return {"": given[0].numel()}, None


Convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_COUNTS: dict[type[nn.Module] | tuple[type[nn.Module], ...], Callable[[nn.Module, list[Any], Any], Counted]] = {
    nn.RNNBase: _recurrent,
    nn.Linear: _linear,
    Convolution: _convolution,
    nn.MultiheadAttention: _attention,
    (nn.Embedding, nn.EmbeddingBag): _embedding,
}
