"""A trained LSTM with more units beside those that it has: a zone to train on something new, the old one isolated."""

import torch

from isotrain.errors import InputError
from isotrain.lstm.layer import LSTM


@torch.no_grad()
def grown(lstm: LSTM, extra: int, generator: torch.Generator | None = None) -> LSTM:
    """A new LSTM with ``extra`` fresh units in every layer. The old units do exactly what they did.

        big = grown(small, 64)
        big.isolate(units=range(small.hidden_size), mode="autonomous")   # they depend on the input alone: remember()

    Old units keep their indices and weights; no arc leads from a fresh unit into an old one, at first. Fresh units see
    the old ones, and their weights are drawn as ``nn.LSTM`` draws those of the new size. Nothing is isolated in the
    answer, and arcs that autonomous isolation has cut in ``lstm`` stay cut (:meth:`LSTM.mend` first, if that is not
    wanted). ``lstm`` is left as it is.

    Args:
        generator: of the fresh weights, on the CPU; None = torch's own.

    Raises :class:`InputError` for ``extra`` below 1.
    """
    if extra < 1:
        raise InputError(f"extra = {extra}: an LSTM grows by at least 1 unit")
    old, new = lstm.hidden_size, lstm.hidden_size + extra
    with torch.random.fork_rng(devices=()):  # nn.LSTM draws all its weights anew: these draws are thrown away
        big = LSTM(lstm.input_size, new, lstm.num_layers, lstm.batch_first, lstm.dropout, lstm.backend, lstm.compute)
    big.to(lstm.weight_hh_l0)  # its device and precision
    for name, weight in big.named_parameters():
        weight.copy_(torch.empty(weight.shape).uniform_(-(new**-0.5), new**-0.5, generator=generator))
        kept = lstm.get_parameter(name).view(4, old, -1)  # gate by gate
        rows = weight.view(4, new, -1)[:, :old]  # of the old units
        rows.zero_()
        rows[..., : kept.shape[-1]] = kept
    return big.train(lstm.training)
