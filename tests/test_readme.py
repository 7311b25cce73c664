"""Every Python example in README.md runs, and does what is written beside it."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

EXAMPLES = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text("utf-8"), re.DOTALL)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, 4, 2)


def loss(model: Model, batch: Tensor) -> Tensor:
    return model.lstm(batch)[0].square().mean()


def run(words: str, **names: Any) -> dict[str, Any]:
    """The one example that contains ``words``, run; what it has defined."""
    (example,) = [code for code in EXAMPLES if words in code]
    exec(example, names)
    return names


def test_there_is_an_example_of_each_way() -> None:
    assert len(EXAMPLES) == 2


def test_parts_of_an_lstm_are_isolated_and_thawed() -> None:
    torch.manual_seed(0)
    left = run("isolate(lstm, optimizer")
    lstm, optimizer = left["lstm"], left["optimizer"]
    assert lstm.isolated.nothing
    assert all(bool(optimizer.active(p).all()) for p in lstm.parameters())
    assert left["y"].shape == (1, 168, 64)


def test_zones_are_chosen_by_a_criterion_on_a_schedule() -> None:
    isolator = run("Isolator(", model=Model(), loss=loss, batches=torch.randn(50, 5, 3, 2))["isolator"]
    assert isolator.isolated_share == 0.5
    assert isolator.history[-1]["step"] == 40
