"""The forecaster: causal to the last operation, the same in both regimes, a plain skip before training."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from isotrain.data.windows import Windows
from isotrain.errors import InputError
from isotrain.forecast.encoders import ENCODERS, LSTMEncoder
from isotrain.forecast.network import Forecaster
from isotrain.forecast.series import Series
from isotrain.forecast.stretches import Stretches

SIZES = {"hidden": 6, "layers": 2, "decoder": 8, "dropout": 0.2, "state_dropout": 0.3}
SETS = ("plain", "rich")


def forecaster(windows: Windows, encoder: str = "lstm", inputs: str = "plain") -> Forecaster:
    torch.manual_seed(0)
    net = Forecaster(Series(windows, inputs), **SIZES, encoder=encoder)
    with torch.no_grad():  # away from the start, where the decoder answers zero
        for p in net.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return net.eval()


def windowed(origins: list[int], history: int) -> Stretches:
    start = torch.tensor(origins) - history
    return Stretches(start, torch.full((len(origins), 1), history), history)


def spoilt_from(windows: Windows, origin: int, by: float = np.nan) -> Windows:
    """Everything that is not known at ``origin`` replaced by NaN, or another value."""
    known_ahead = origin + windows.meta["horizon"]
    first = dict.fromkeys(("inputs", "origin", "recent", "target", "truth", "level", "spread"), origin)
    poisoned = {}
    for name, row in {**first, "ahead": known_ahead, "lags": known_ahead}.items():
        poisoned[name] = getattr(windows, name).copy()
        poisoned[name][row:] = by
    return dataclasses.replace(windows, **poisoned)


@pytest.mark.parametrize("inputs", SETS)
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("origin", [1000, 2500])
def test_nothing_unknown_at_the_origin_reaches_its_forecast(
    windows: Windows, origin: int, encoder: str, inputs: str
) -> None:
    """In a long stretch too, where later hours are run as well. An attention multiplies them by 0: NaN would stay."""
    history = windows.meta["history"]
    spoilt = spoilt_from(windows, origin, 1e6 if encoder == "attention" else np.nan)
    inside = Stretches(torch.tensor([origin - history]), torch.tensor([[history]]), history + 60)
    for at in (windowed([origin], history), inside):
        clean = forecaster(windows, encoder, inputs)(at)
        answer = forecaster(spoilt, encoder, inputs)(at)
        assert answer.isfinite().all()
        assert torch.equal(clean, answer)


@settings(deadline=None, max_examples=20)
@given(hour=st.integers(1, 79), encoder=st.sampled_from(list(ENCODERS)), seed=st.integers(0, 99))
def test_no_state_depends_on_a_later_input(hour: int, encoder: str, seed: int) -> None:
    torch.manual_seed(seed)
    net, x = ENCODERS[encoder](3, 5, 2, 48, "auto").eval(), torch.randn(80, 3)
    every_hour = Stretches(torch.zeros(1, dtype=torch.int64), torch.arange(1, 81)[None], 80)
    other = torch.cat([x[:hour], torch.randn(80 - hour, 3)])
    before, after = net(Inputs(x), every_hour), net(Inputs(other), every_hour)
    torch.testing.assert_close(before[:, :hour], after[:, :hour], rtol=0, atol=0)
    assert encoder == "zeroed" or not torch.equal(before[:, hour:], after[:, hour:])


class Inputs(Series):
    """What an encoder reads of a series, and nothing else of it."""

    def __init__(self, inputs: Tensor) -> None:
        torch.nn.Module.__init__(self)
        self.inputs, self.chosen = inputs, {}


@pytest.mark.parametrize("encoder", ["lstm", "gru", "tcn", "attention"])
@pytest.mark.parametrize(("history", "layers"), [(24, 1), (48, 2), (168, 1)])
def test_a_state_sees_the_whole_history(encoder: str, history: int, layers: int) -> None:
    """In double precision, and with open gates: an LSTM forgets fast when it is new."""
    torch.manual_seed(0)
    net = ENCODERS[encoder](1, 8, layers, history, "torch").double()
    with torch.no_grad():
        for name, p in net.named_parameters():
            if "bias" in name:
                p.add_(1.0)
    x = torch.randn(history, 1, dtype=torch.float64, requires_grad=True)
    net(Inputs(x), Stretches(torch.tensor([0]), torch.tensor([[history]]), history))[0, 0, 0].backward()
    assert x.grad is not None and x.grad[0].abs() > 0


@pytest.mark.parametrize(("history", "layers"), [(1, 1), (24, 1), (24, 2), (25, 3), (2, 4)])
def test_what_an_attention_gives_in_a_stretch_it_gives_in_a_window(history: int, layers: int) -> None:
    """So a state depends on the last ``history`` hours alone. In double precision; 6 units have 2 heads, not 4."""
    torch.manual_seed(0)
    net, x = ENCODERS["attention"](3, 6, layers, history, "torch").double(), torch.randn(60, 3, dtype=torch.float64)
    origins = torch.tensor([[history, history + 1, 40, 60]])
    stretch = net(Inputs(x), Stretches(torch.tensor([0]), origins, 60))[0]
    windows = net(Inputs(x), windowed(origins[0].tolist(), history))[:, 0]
    torch.testing.assert_close(stretch, windows, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(stretch, net.states(x[None])[0, origins[0] - 1], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(stretch[2], stretch[3])


def test_an_attention_is_the_formula_of_its_paper() -> None:
    """Softmax of scaled products, heads beside each other, written out hour by hour; scores fall with age."""
    torch.manual_seed(0)
    net, x = ENCODERS["attention"](3, 8, 1, 5, "torch").double(), torch.randn(9, 3, dtype=torch.float64)
    block, z = net.blocks[0], net.widen(x)
    key, value = block.key_value(z).chunk(2, -1)
    heads = []
    for head, slope in enumerate((1 / 4, 1 / 16, 1 / 64, 1 / 256)):
        own = slice(2 * head, 2 * head + 2)
        score = torch.stack([block.query(z[8])[own] @ key[j, own] / 2**0.5 - slope * (8 - j) for j in range(4, 9)])
        heads.append(score.softmax(0) @ value[4:, own])
    middle = nn.functional.layer_norm(z[8] + block.mix(torch.cat(heads)), (8,))
    last = nn.functional.layer_norm(middle + block.narrow(nn.functional.gelu(block.widen(middle))), (8,))
    torch.testing.assert_close(net.states(x[None])[0, 8], last, rtol=1e-12, atol=1e-12)


def test_the_last_hours_before_an_origin_alone_get_a_gradient(windows: Windows) -> None:
    """Streamed: the loss of each origin goes back through its last hours, from states that a whole run agrees with."""
    net = forecaster(windows)
    history, inputs = windows.meta["history"], net.series.inputs
    at = Stretches(torch.tensor([300, 900]), torch.tensor([[history, history + 30], [history + 4, history + 9]]), 260)
    encoder = net.encoder.train()
    assert isinstance(encoder, LSTMEncoder)
    whole = encoder(net.series, at)
    encoder.lstm.isolate(steps=3)
    for renew in (0, 5):
        encoder.remember_over(net.series.ends["train"], warm=history, renew=renew)
        torch.testing.assert_close(encoder(net.series, at), whole, rtol=1e-3, atol=1e-4)
        reached = inputs.clone().requires_grad_()
        encoder(Inputs(reached), at).sum().backward()
        assert reached.grad is not None
        hours = reached.grad.any(1).nonzero().flatten().tolist()
        assert hours == sorted({int(origin) - back for origin in at.origins.flatten() for back in (1, 2, 3)})


def test_states_of_the_series_are_those_of_the_weights_they_were_made_with(windows: Windows) -> None:
    encoder = forecaster(windows).encoder.train()
    assert isinstance(encoder, LSTMEncoder)
    inputs = Inputs(torch.randn(1200, encoder.lstm.input_size))
    encoder.remember_over([(0, 1200)], warm=48, renew=3)
    encoder.lstm.isolate(credit="none")
    at = Stretches(torch.tensor([100]), torch.tensor([[300, 400]]), 420)
    seen = []
    for step in range(7):
        encoder.before_step(step)
        seen.append(encoder(inputs, at).detach())
        made_with = encoder.made_with
        assert made_with is not None
        if step % 3 == 0:  # anew, with the weights of now
            assert all(torch.equal(p, then) for p, then in zip(encoder.lstm.parameters(), made_with, strict=True))
        with torch.no_grad():
            for p in encoder.lstm.parameters():
                p.mul_(0.9)
        if step == 4:
            resumed = copy.deepcopy(encoder)
            resumed._trajectory = None  # a checkpoint keeps the weights alone
            assert torch.equal(resumed(inputs, at), encoder(inputs, at))
    assert len({float(states.sum()) for states in seen}) == 7


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_stretch_forecasts_as_its_windows_do(windows: Windows, encoder: str) -> None:
    net, history = forecaster(windows, encoder), windows.meta["history"]
    stretch = Stretches(torch.tensor([700]), torch.tensor([[history]]), history + 30)
    torch.testing.assert_close(net(stretch), net(windowed([700 + history], history)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("inputs", SETS)
def test_untrained_it_forecasts_the_mean_of_yesterday_and_last_week(windows: Windows, inputs: str) -> None:
    net = Forecaster(Series(windows, inputs), **SIZES).eval()
    answer = net(windowed([900], windows.meta["history"]))[0, 0]
    hours = 900 + np.arange(24)
    expected = (windows.target[hours - 24] + windows.target[hours - 168]) / 2
    np.testing.assert_allclose(answer.detach().numpy(), expected, rtol=1e-4)


def test_with_nothing_but_a_level_it_forecasts_the_level(windows: Windows) -> None:
    """No lag left: before training, the trailing week's mean."""
    lags = {column["group"] for column in windows.meta["columns"]["lags"]}
    net = Forecaster(Series(windows, "plain", sorted(lags)), **SIZES).eval()
    answer = net(windowed([900], windows.meta["history"]))
    assert (answer == float(windows.level[899])).all()


def test_an_origin_is_forecast_from_its_level(windows: Windows) -> None:
    """A load higher by a constant all the time is a forecast higher by it: the network sees differences alone."""
    higher = {name: getattr(windows, name) + np.float32(64) for name in ("lags", "recent", "target", "truth", "level")}
    at = windowed([900, 2000], windows.meta["history"])
    plain = forecaster(windows, inputs="rich")(at)
    torch.testing.assert_close(
        forecaster(dataclasses.replace(windows, **higher), inputs="rich")(at), plain + 64, rtol=0, atol=1e-3
    )


def test_state_zeroed_has_the_same_parameters_and_no_use_for_the_inputs(windows: Windows) -> None:
    zeroed = forecaster(windows, "zeroed")
    assert [p.shape for p in zeroed.parameters()] == [p.shape for p in forecaster(windows).parameters()]
    at = windowed([900], windows.meta["history"])
    others = dataclasses.replace(windows, inputs=np.flip(windows.inputs).copy())
    assert torch.equal(zeroed(at), forecaster(others, "zeroed")(at))
    assert not torch.equal(forecaster(windows)(at), forecaster(others)(at))


def test_the_input_sets_are_the_columns_that_the_windows_name(windows: Windows) -> None:
    groups = sorted({column["group"] for column in windows.meta["columns"]["ahead"]} - {"calendar"})
    plain, rich, less = Series(windows), Series(windows, "rich"), Series(windows, "rich", groups)
    assert not plain.origin.shape[1] and plain.lags.shape[1] == 2
    assert rich.origin.shape[1] and rich.recent.shape[1] > plain.recent.shape[1] == 10  # hours as they were
    assert torch.equal(less.ahead, torch.from_numpy(windows.calendar))
    with pytest.raises(InputError, match="nonsense"):
        Series(windows, "rich", ["nonsense"])


def test_nothing_to_read_is_refused(windows: Windows) -> None:
    groups = sorted({column["group"] for column in windows.meta["columns"]["inputs"]})
    with pytest.raises(InputError, match=r"model.leave_out.*leaves the encoder nothing to read"):
        Series(windows, "rich", groups)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_hour_after_the_series_can_be_forecast(windows: Windows, encoder: str) -> None:
    """The origin that matters in use; alone it is what it is beside others."""
    n, net = len(windows.target), forecaster(windows, encoder, "rich")
    alone = net.forecast(torch.tensor([n]), "windowed")
    torch.testing.assert_close(alone, net.forecast(torch.tensor([n])), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(alone[0], net.forecast(torch.arange(n - 30, n + 1), "windowed")[-1])
    assert alone.isfinite().all()


def test_the_series_is_not_saved_with_the_weights(windows: Windows) -> None:
    assert not any(name.startswith("series") for name in forecaster(windows).state_dict())
