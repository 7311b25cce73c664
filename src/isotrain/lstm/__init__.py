"""``torch.nn.LSTM`` that can leave layers, units, early time steps and credit through time out of the backward pass.

In: what ``nn.LSTM`` takes, and by :meth:`LSTM.isolate` what is not to be trained. Out: what ``nn.LSTM`` returns, and
gradients of the rest alone. Needs torch and nothing else; the kernels of our own are compiled by
``python -m isotrain.lstm.kernels``, and without them torch's do the work.

Open first: ``lstm.py`` (the class), then ``plan.py`` (what each way of isolating leaves out). ``backends.py`` decides
which code computes: ``kernels/`` (C++), torch's, or ``reference.py`` (the mathematics written out).
``credit.py`` gives torch's kernels a backward without credit, ``cudnn.py``, ``precision.py`` and ``graphs.py`` are for
GPUs (sizes, types, recorded steps), ``stacked.py`` runs many LSTMs of one shape as one, ``stack.py`` and ``memory.py``
are for units that can be known beforehand, ``horizon.py`` measures how far back a backward has to reach, ``runtime.py``
sets threads, allocator and denormals for a process.

Example:
    >>> import torch
    >>> from isotrain.lstm import LSTM
    >>> lstm = LSTM(input_size=3, hidden_size=8)
    >>> lstm.isolate(units=[0, 1, 2], mode="exact")
    >>> output, (h, c) = lstm(torch.randn(12, 4, 3))
    >>> output.sum().backward()
    >>> lstm.weight_hh_l0.grad[:3].any().item()              # the input gates of units 0 to 2
    False
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isotrain.lstm.lstm import LSTM

__all__ = ["LSTM"]


def __getattr__(name: str) -> object:  # so that importing a part imports no more of torch than it needs
    if name == "LSTM":
        from isotrain.lstm.lstm import LSTM

        return LSTM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
