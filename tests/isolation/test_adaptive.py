"""The callbacks that measure, the adaptive horizon and the adaptive credit, in real Lightning training."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from isotrain.errors import InputError
from isotrain.isolation import AdaptiveCredit, AdaptiveHorizon, Policy, Schedule, callback_of
from isotrain.lstm import LSTM

TIME = 16


class Forecaster(pl.LightningModule):
    """Learns the input ``lag`` steps before the last."""

    def __init__(self, lag: int = 0, lstm: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = lstm or LSTM(2, 8, batch_first=True, backend="torch")
        self.head = nn.Linear(8, 1)
        self.x = torch.randn(20, 6, TIME, 2, generator=torch.Generator().manual_seed(1))
        self.lag = lag
        self.steps_seen: list[int | None] = []
        self.credit_seen: list[str] = []

    def training_step(self, _: Tensor, batch_idx: int) -> Tensor:
        self.steps_seen.append(self.lstm.isolated.steps)
        self.credit_seen.append(*(self.lstm.isolated.credit or ("full",)))
        x = self.x[batch_idx]
        y = self.lstm(x)[0][:, -1]
        return (self.head(y)[:, 0] - x[:, TIME - 1 - self.lag, 0]).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def horizon(tolerance: float = 0.1, ladder: tuple[int, ...] = (2, 4), every: int = 20) -> AdaptiveHorizon:
    policy = Policy("step", "exact", "neglected", steps=1, tolerance=tolerance, every=every)
    return AdaptiveHorizon(policy, window=TIME, ladder=ladder)


def fit(model: Forecaster, *callbacks: pl.Callback, steps: int = 8, resume: Path | None = None, **more: Any) -> None:
    quiet = ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing")
    settings: dict[str, Any] = dict.fromkeys(quiet, False) | {"accelerator": "cpu", "max_steps": steps} | more
    pl.Trainer(callbacks=list(callbacks), **settings).fit(
        model, DataLoader(TensorDataset(torch.arange(20))), ckpt_path=resume
    )


@pytest.mark.slow
def test_it_measures_on_time_and_isolates_what_it_found_in_between() -> None:
    model, callback = Forecaster(), horizon(0.3, (2, 4, 8), 3)
    fit(model, callback)
    assert [entry["step"] for entry in callback.history] == [0, 3, 6]
    chosen = [entry["steps"] for entry in callback.history]
    assert model.steps_seen == [None, chosen[0], chosen[0], None, chosen[1], chosen[1], None, chosen[2]]
    for entry in callback.history:
        within = [int(k) for k, share in entry["neglected"].items() if share <= 0.3]
        assert entry["steps"] == min(within)
        assert entry["share"] == 1 - entry["steps"] / TIME
    assert model.lstm.isolated.steps is None  # thawed at the end
    assert "forward" not in vars(model.lstm)


@pytest.mark.slow
def test_tolerance_0_is_ordinary_training() -> None:
    plain, measured = Forecaster(lag=3), Forecaster(lag=3)
    fit(plain)
    fit(measured, horizon(0.0, (2, 4), 2))
    for a, b in zip(plain.parameters(), measured.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_with_accumulation_it_measures_whole_optimiser_steps() -> None:
    model, callback = Forecaster(), horizon(0.5, (2, 4), 2)
    fit(model, callback, steps=3, accumulate_grad_batches=2)
    assert [entry["step"] for entry in callback.history] == [0, 2]
    assert model.steps_seen[:2] == [None, None]
    assert model.steps_seen[4:6] == [None, None]
    assert None not in model.steps_seen[2:4]


def test_resumed_in_the_middle_it_is_the_same_run(tmp_path: Path) -> None:
    def callback() -> AdaptiveHorizon:
        return horizon(0.4, (2, 4, 8), 3)

    whole, first = Forecaster(lag=2), callback()
    keep = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=5, save_top_k=-1, filename="{step}")
    fit(whole, first, keep, steps=10, enable_checkpointing=True)
    resumed, second = Forecaster(lag=2), callback()
    fit(resumed, second, steps=10, resume=tmp_path / "step=5.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert [e["neglected"] for e in first.history] == [e["neglected"] for e in second.history]


def test_a_failing_step_leaves_the_lstm_as_it_was() -> None:
    class Failing(Forecaster):
        def training_step(self, _: Tensor, batch_idx: int) -> Tensor:
            raise RuntimeError("on purpose")

    model = Failing()
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(model, horizon())
    assert "forward" not in vars(model.lstm)


def test_other_lstms_are_refused_by_name() -> None:
    model = Forecaster(lstm=nn.LSTM(2, 8, batch_first=True))
    with pytest.raises(InputError, match=r"'lstm' is a LSTM: criterion 'neglected' needs isotrain\.lstm\.LSTM"):
        fit(model, horizon())


def test_no_horizon_is_shorter_than_asked() -> None:
    policy = Policy("step", "exact", "neglected", steps=3)
    assert AdaptiveHorizon(policy, window=8, ladder=(2, 3, 6, 12)).horizon.ladder == (3, 6, 8)
    with pytest.raises(InputError, match="criterion='depth' measures no horizon"):
        AdaptiveHorizon(Policy("step"), window=8)


def credit(tolerance: float, every: int = 2, **schedule: Any) -> AdaptiveCredit:
    chosen = Schedule(**{"fraction": 1.0, "start": 0.0, **schedule})
    callback = callback_of(
        Policy("credit", "cell", "neglected", chosen, tolerance=tolerance, every=every), window=TIME, seed=0
    )
    assert isinstance(callback, AdaptiveCredit)
    return callback


def test_credit_comes_back_when_too_much_is_neglected() -> None:
    """Three measurements above the tolerance: from then on everything trains, and nothing is measured any more."""
    model, callback = Forecaster(lag=3), credit(0.001)
    fit(model, callback, steps=8)
    assert [entry["step"] for entry in callback.history] == [0, 2, 4]
    assert all(entry["neglected"] > 0.001 for entry in callback.history)
    assert [entry["share"] for entry in callback.history] == [1.0, 1.0, 0.0]
    assert model.credit_seen == ["full", "cell", "full", "cell", "full", "full", "full", "full"]
    assert model.lstm.isolated.nothing and "forward" not in vars(model.lstm)


def test_credit_stays_away_as_long_as_little_is_neglected_and_comes_back_at_the_stop() -> None:
    model, callback = Forecaster(lag=3), credit(1.0, every=3, start=0.25, stop=0.75)
    fit(model, callback, steps=8)
    assert [entry["step"] for entry in callback.history] == [2, 5]
    assert model.credit_seen == ["full", "full", "full", "cell", "cell", "full", "full", "full"]
    without_end = Forecaster(lag=3)
    fit(without_end, credit(1.0, every=3), steps=8)
    assert without_end.credit_seen == ["full", "cell", "cell"] * 2 + ["full", "cell"]


@pytest.mark.slow
@pytest.mark.parametrize("tolerance", [0.001, 1.0])
def test_adaptive_credit_resumed_in_the_middle_is_the_same_run(tmp_path: Path, tolerance: float) -> None:
    whole, first = Forecaster(lag=2), credit(tolerance)
    keep = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    fit(whole, first, keep, steps=10, enable_checkpointing=True)
    for at in (3, 6):
        resumed, second = Forecaster(lag=2), credit(tolerance)
        fit(resumed, second, steps=10, resume=tmp_path / f"step={at}.ckpt")
        assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
        assert [e["neglected"] for e in first.history] == [e["neglected"] for e in second.history]
