"""The plain PyTorch loop printed on the method card runs, and isolates what it says."""

import re
from importlib.resources import files

import torch
from torch import Tensor, nn


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, 4, 2)


def loss(model: Model, batch: Tensor) -> Tensor:
    return model.lstm(batch)[0].square().mean()


def test_the_loop_without_lightning() -> None:
    card = files("isotrain.isolation").joinpath("CARD.md").read_text(encoding="utf-8")
    (loop,) = [code for code in re.findall(r"```python\n(.*?)```", card, re.DOTALL) if "for step" in code]
    names = {"torch": torch, "model": Model(), "loss": loss, "batches": torch.randn(25, 5, 3, 2)}
    exec(loop, names)
    optimiser = names["optimiser"]
    for p in names["model"].parameters():  # type: ignore[attr-defined]
        assert float(optimiser.active(p).float().mean()) == 0.5  # type: ignore[attr-defined]
