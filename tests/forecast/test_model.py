"""The forecaster: causal to the last operation, the same in both regimes, a plain skip before training."""

import dataclasses

import numpy as np
import pytest
import torch

from isotrain.data.windows import Windows, daily_lags
from isotrain.forecast.model import Forecaster, Series
from isotrain.forecast.stretches import Stretches

SIZES = {"hidden": 6, "layers": 2, "decoder": 8, "dropout": 0.2}


def forecaster(windows: Windows, encoder: str = "lstm") -> Forecaster:
    torch.manual_seed(0)
    net = Forecaster(Series(windows), **SIZES, encoder=encoder)
    with torch.no_grad():  # away from the start, where the decoder answers zero
        for p in net.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return net.eval()


def windowed(origins: list[int], history: int) -> Stretches:
    start = torch.tensor(origins) - history
    return Stretches(start, torch.full((len(origins), 1), history), history)


@pytest.mark.parametrize("origin", [400, 1000, 2500])
def test_nothing_after_the_origin_reaches_its_forecast(windows: Windows, origin: int) -> None:
    """Poison every measured value from the origin on; in a long stretch too, where later hours are run as well."""
    poisoned = {}
    for name in ("inputs", "target", "truth", "level", "spread"):
        values = getattr(windows, name).copy()
        values[origin:] = np.nan
        poisoned[name] = values
    spoilt = dataclasses.replace(windows, **poisoned)
    history = windows.meta["history"]
    at_end = windowed([origin], history)
    inside = Stretches(torch.tensor([origin - history]), torch.tensor([[history]]), history + 60)
    for at in (at_end, inside):
        clean, answer = forecaster(windows)(at), forecaster(spoilt)(at)
        assert answer.isfinite().all()
        assert torch.equal(clean, answer)


def test_a_stretch_forecasts_as_its_windows_do(windows: Windows) -> None:
    net, history = forecaster(windows), windows.meta["history"]
    stretch = Stretches(torch.tensor([700]), torch.tensor([[history]]), history + 30)
    torch.testing.assert_close(net(stretch), net(windowed([700 + history], history)), rtol=1e-5, atol=1e-5)


def test_untrained_it_forecasts_the_mean_of_yesterday_and_last_week(windows: Windows) -> None:
    net = Forecaster(Series(windows), **SIZES).eval()
    answer = net(windowed([900], windows.meta["history"]))[0, 0]
    hours = 900 + np.arange(24)
    expected = (windows.target[hours - 24] + windows.target[hours - 168]) / 2
    np.testing.assert_allclose(answer.detach().numpy(), expected, rtol=1e-4)


def test_state_zeroed_has_the_same_parameters_and_ignores_them(windows: Windows) -> None:
    zeroed = forecaster(windows, "zeroed")
    assert [p.shape for p in zeroed.parameters()] == [p.shape for p in forecaster(windows).parameters()]
    at = windowed([900], windows.meta["history"])
    before = zeroed(at)
    with torch.no_grad():
        zeroed.encoder.lstm.weight_hh_l0.fill_(9.0)
    assert torch.equal(before, zeroed(at))


def test_the_series_is_not_saved_with_the_weights(windows: Windows) -> None:
    assert not any(name.startswith("series") for name in forecaster(windows).state_dict())


def test_daily_lags_are_known_at_every_lead() -> None:
    assert daily_lags(24) == [24, 48, 72, 96, 120, 144, 168, 336]
    assert daily_lags(30)[0] == 48
