"""The encoders that can take the LSTM's place, and all of them by name.

Legend: B stretches, L hours of a stretch, H hidden units, F inputs of an hour.
"""

from jaxtyping import Float
from torch import Tensor, nn

from isotrain.forecast.encoder import Encoder, LSTMEncoder, ZeroedEncoder
from isotrain.lstm.backends import Backend

KERNEL = 3  # hours that one convolution sees


class GRUEncoder(Encoder):
    """``torch.nn.GRU``."""

    def __init__(self, inputs: int, hidden: int, layers: int, history: int, backend: Backend = "auto") -> None:
        super().__init__(inputs, hidden, layers, history, backend)
        self.gru = nn.GRU(inputs, hidden, layers, batch_first=True)

    def states(self, x: Float[Tensor, "B L F"]) -> Float[Tensor, "B L H"]:
        answer: Tensor = self.gru(x)[0]
        return answer


class TCNEncoder(Encoder):
    """A temporal convolution: residual causal convolutions whose steps double until they span the history.

    Bai, Kolter and Koltun, "An empirical evaluation of generic convolutional and recurrent networks for sequence
    modeling" (2018), with one convolution a block. ``layers`` is the number of convolutions at each dilation.
    """

    def __init__(self, inputs: int, hidden: int, layers: int, history: int, backend: Backend = "auto") -> None:
        super().__init__(inputs, hidden, layers, history, backend)
        self.widen = nn.Linear(inputs, hidden)
        dilations = [1]
        while 1 + layers * (KERNEL - 1) * sum(dilations) < history:
            dilations.append(2 * dilations[-1])
        self.dilations = dilations * layers
        self.blocks = nn.ModuleList(nn.Conv1d(hidden, hidden, KERNEL, dilation=d) for d in self.dilations)

    def states(self, x: Float[Tensor, "B L F"]) -> Float[Tensor, "B L H"]:
        z = self.widen(x).transpose(1, 2)
        for block, dilation in zip(self.blocks, self.dilations, strict=True):
            past = nn.functional.pad(z, ((KERNEL - 1) * dilation, 0))  # zeros before the first hour
            z = z + nn.functional.gelu(block(past))
        return z.transpose(1, 2)


ENCODERS: dict[str, type[Encoder]] = {
    "lstm": LSTMEncoder,
    "gru": GRUEncoder,
    "tcn": TCNEncoder,
    "zeroed": ZeroedEncoder,
}
