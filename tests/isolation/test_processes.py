"""Two processes isolate the same zones, though each would choose its own."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

PROGRAM = """
import os, sys
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from isotrain.isolation import Isolation, MaskedAdam, Policy, Schedule
from isotrain.lstm import LSTM

zone, mode, criterion, shape, strategy, folder = sys.argv[1:]

class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.lstm = LSTM(3, 4, 2, batch_first=True, backend="torch" if zone == "layer" else "auto")
        self.head = nn.Linear(4, 1)

    def training_step(self, batch, _):
        return (self.head(self.lstm(batch[0])[0][:, -1]) - batch[0].sum((1, 2))[:, None]).square().mean()

    def configure_optimizers(self):
        return MaskedAdam(self.parameters(), lr=1e-2)

model = Model()
rank = int(os.environ.get("LOCAL_RANK", 0))
schedule = Schedule(shape, fraction=0.5, start=0.0, patience=1, least=0.5)
isolation = Isolation(Policy(zone, mode, criterion, schedule, every=1), seed=rank + 1)  # each rank draws its own
data = TensorDataset(torch.randn(40, 6, 3, generator=torch.Generator().manual_seed(1)))
quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
trainer = pl.Trainer(accelerator="cpu", devices=2, strategy=strategy, max_steps=6, **quiet)
trainer.callbacks.append(isolation)
trainer.fit(model, DataLoader(data, batch_size=5))
history = [{key: entry[key] for key in ("step", "fraction", "share", "churn")} for entry in isolation.history]
torch.save((isolation.isolator.active, dict(model.state_dict()), history), f"{folder}/{rank}.pt")
"""


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    script = folder / "program.py"
    script.write_text(PROGRAM)
    return subprocess.run(
        [sys.executable, str(script), *words, str(folder)], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("unit", "exact", "random", "plateau", "ddp"),
        ("layer", "exact", "random", "constant", "ddp_find_unused_parameters_true"),
    ],
)
def test_every_process_isolates_the_same_zones(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = run(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    (active, weights, history), (other_active, other_weights, other_history) = (
        torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)
    )
    assert history == other_history
    assert len(history) > 1
    assert all(torch.equal(active[name], other_active[name]) for name in active)
    assert any(not choice.all() for choice in active.values())
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)


@pytest.mark.slow
def test_layers_without_gradient_are_refused_where_processes_would_wait_for_it(tmp_path: Path) -> None:
    done = run(tmp_path, "layer", "exact", "random", "constant", "ddp")
    assert done.returncode != 0
    assert "strategy='ddp_find_unused_parameters_true', or mode='masked'" in done.stderr
