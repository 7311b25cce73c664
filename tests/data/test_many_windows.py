"""Windows of many series: each lies in the arrays as if it were alone, and nothing reaches from one into the next."""

from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch

from isotrain.baselines import BASELINES, RESTORED
from isotrain.config import Ingest, Window
from isotrain.config.ingest import Simulated
from isotrain.data.ingest import Tidy, ingest
from isotrain.data.windowing import make_all, make_windows
from isotrain.data.windows import AHEAD, ARRAYS, PARTS, Windows
from isotrain.errors import InputError
from isotrain.forecast.encoders import LSTMEncoder
from isotrain.forecast.forecasts import scores
from isotrain.forecast.network import Forecaster, for_one_series
from isotrain.forecast.series import Series
from isotrain.forecast.stretches import Sampler, cover

SPLIT = Window(history=48, horizon=24, train=0.6, validation=0.2, stride=5)
HOURS = (24 * 7 * 20, 24 * 7 * 16, 24 * 7 * 23)


@pytest.fixture(scope="module")
def tidies() -> list[Tidy]:
    """Three series of different lengths, sizes and beginnings."""
    made = []
    for number, hours in enumerate(HOURS):
        tidy = ingest(Ingest(simulated=Simulated(seed=number, hours=hours)), Path())
        frame = tidy.frame.assign(TGBT=tidy.frame["TGBT"] * (1 + 3 * number))
        made.append(Tidy(frame, tidy.raw, {**tidy.facts, "name": f"meter-{number}", "sha256": f"{number}"}))
    return made


@pytest.fixture(scope="module")
def alone(tidies: list[Tidy]) -> list[Windows]:
    return [make_windows(tidy.frame, tidy.facts, SPLIT) for tidy in tidies]


@pytest.fixture(scope="module")
def folder(tidies: list[Tidy], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    make_all(((t.frame, t.facts) for t in tidies), [t.facts for t in tidies], SPLIT, folder)
    return folder


@pytest.fixture(scope="module")
def together(folder: Path) -> Windows:
    return Windows.load(folder)


def test_each_series_is_what_it_is_alone(together: Windows, alone: list[Windows]) -> None:
    assert [one["name"] for one in together.series] == ["meter-0", "meter-1", "meter-2"]
    for index, single in enumerate(alone):
        only = together.only(index)
        for array in (*ARRAYS, "target", "truth", "level", "spread", "time"):
            np.testing.assert_array_equal(getattr(only, array), getattr(single, array))
        assert [{**one, "number": 0} for one in only.series] == single.series and only.meta["columns"] == single.meta[
            "columns"
        ]


def test_the_arrays_are_read_from_their_files_as_needed(together: Windows) -> None:
    assert all(isinstance(getattr(together, name), np.memmap) for name in Windows.array_names())


def test_no_window_reaches_into_another_series(together: Windows) -> None:
    history, horizon = together.meta["history"], together.meta["horizon"]
    for part in PARTS:
        origins = together.origins(part)
        of = together.series_at(origins - 1)
        for edge in (origins - history, origins - 1, origins + horizon - 1):
            np.testing.assert_array_equal(together.series_at(edge), of)
            first = np.array([one["first"] for one in together.series])[of]
            rows = np.array([one["rows"] for one in together.series])[of]
            assert ((first <= edge) & (edge < first + rows)).all()
    between = np.flatnonzero(together.time == together.time)  # every row
    inside = np.concatenate([np.arange(one["first"], one["first"] + one["rows"]) for one in together.series])
    empty = np.setdiff1d(between, inside)
    assert len(empty) == horizon * 2 and np.isnan(together.truth[empty]).all()


@pytest.mark.parametrize("regime", ["streamed", "windowed"])
def test_samples_stay_in_the_training_part_of_one_series_and_reach_all_of_it(together: Windows, regime: str) -> None:
    ranges = together.ranges("train")
    draw = Sampler(regime, ranges, history=48, stretch=100, count=64, origins=3, seed=0)
    seen: set[int] = set()
    for step in range(400):
        at = draw(step)
        of = together.series_at(at.start.numpy())
        assert (together.series_at(at.hours.numpy()) == of[:, None]).all()
        for index, origins in zip(of, at.origins.numpy(), strict=True):
            assert (ranges[index][0] <= origins).all() and (origins < ranges[index][1]).all()
        seen |= set(at.start.tolist())
    length = 100 if regime == "streamed" else 48
    possible = {start for first, last in ranges for start in range(first - 48, last - length)}
    assert seen <= possible and len(seen) > 0.9 * len(possible)


def test_a_series_too_short_for_a_stretch_is_never_drawn() -> None:
    draw = Sampler("streamed", [(60, 80), (500, 700)], history=48, stretch=100, count=8, origins=1, seed=0)
    assert all((draw(step).start >= 452).all() for step in range(50))


@pytest.mark.parametrize("regime", ["streamed", "windowed"])
def test_every_origin_is_covered_once_by_hours_of_its_own_series(together: Windows, regime: str) -> None:
    origins = torch.from_numpy(together.origins("test"))
    answered = []
    for at, position in cover(origins, regime, history=48):
        real = position >= 0
        torch.testing.assert_close(at.origins[real], origins[position[real]])
        first = together.series_at(at.start.numpy())
        of = together.series_at(at.origins.numpy() - 1)
        assert (of == first[:, None])[real.numpy()].all()
        answered += position[real].tolist()
    assert sorted(answered) == list(range(len(origins)))


def network(windows: Windows, remember: str | None = None) -> Forecaster:
    torch.manual_seed(0)
    net = Forecaster(Series(windows, "rich"), hidden=6, layers=1, decoder=5, dropout=0.0, remember=remember)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net


def test_a_network_forecasts_each_as_if_it_were_alone(together: Windows, alone: list[Windows]) -> None:
    """Also with a bias of each series, which is then added to that of all."""
    net = network(together)
    forecast = net.forecast(torch.from_numpy(together.origins("test")))
    parts = []
    for index, single in enumerate(alone):
        own = network(single)
        own.load_state_dict(for_one_series(net.state_dict(), index))
        parts.append(own.forecast(torch.from_numpy(single.origins("test"))))
    torch.testing.assert_close(forecast, torch.cat(parts), rtol=1e-5, atol=1e-4)
    assert net.decoder.of_series is not None and net.decoder.of_series.std() > 0


def test_columns_chosen_of_each_row_are_those_chosen_beforehand(
    together: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrays too large to copy are left where they are."""
    origins = torch.from_numpy(together.origins("test")[::7])
    copied = network(together).forecast(origins)
    monkeypatch.setattr("isotrain.forecast.series.COPIED", 0)
    mapped = network(together)
    assert mapped.series.inputs.data_ptr() == together.inputs.ctypes.data
    torch.testing.assert_close(mapped.forecast(origins), copied, rtol=0, atol=0)


def test_states_run_over_each_series_know_nothing_of_the_one_before(together: Windows, alone: list[Windows]) -> None:
    net = network(together, remember="train")
    encoder = net.encoder.train()
    assert isinstance(encoder, LSTMEncoder)
    encoder.lstm.isolate(credit="none")
    encoder.renew = 1
    for index, single in enumerate(alone):
        first = together.series[index]["first"]
        alike = network(single, remember="train")
        alike.load_state_dict(for_one_series(net.state_dict(), index))
        own = alike.encoder.train()
        assert isinstance(own, LSTMEncoder)
        for mine, theirs in zip(encoder._states(net.series), own._states(network(single).series), strict=True):
            torch.testing.assert_close(mine[:, first : first + theirs.shape[1]], theirs)


@pytest.mark.parametrize("name", ["same-hour-yesterday", "same-day-type", "ridge"])
def test_these_baselines_forecast_each_as_if_it_were_alone(name: str, together: Windows, alone: list[Windows]) -> None:
    forecast = BASELINES[name](together)(together.origins("test"))
    parts = [BASELINES[name](single)(single.origins("test")) for single in alone]
    np.testing.assert_allclose(forecast, np.concatenate(parts), rtol=1e-5)


def test_errors_of_each_series_are_those_it_has_alone(together: Windows, alone: list[Windows]) -> None:
    yesterday = BASELINES["same-hour-yesterday"]
    found = scores(together, together.origins("test"), yesterday(together)(together.origins("test")))
    each = [scores(one, one.origins("test"), yesterday(one)(one.origins("test"))) for one in alone]
    for name, mine in zip(found["by_series"], each, strict=True):
        assert {key: mine[key] for key in ("mae", "rmse", "mase", "relative")} == pytest.approx(
            found["by_series"][name]
        )
    hours = [np.isfinite(one.targets(one.origins("test"))).sum() for one in alone]
    for key in ("mae", "mase", "relative"):
        assert found[key] == pytest.approx(np.average([mine[key] for mine in each], weights=hours))


def test_parts_may_end_on_dates_the_same_for_all(tidies: list[Tidy], tmp_path: Path) -> None:
    dates = Window(history=48, horizon=24, train=date(2017, 3, 20), validation=date(2017, 4, 3))
    make_all(((t.frame, t.facts) for t in tidies), [t.facts for t in tidies], dates, tmp_path)
    made = Windows.load(tmp_path)
    for one in made.series:
        first_test = np.datetime64(int(made.time[one["origins"]["test"][0]]), "s")
        assert first_test == np.datetime64("2017-04-03")
        last_train = made.time[one["origins"]["train"][1] - 1 + 23]
        assert np.datetime64(int(last_train), "s") == np.datetime64("2017-03-19T23:00")


def test_a_series_without_a_part_is_named_and_stops_or_is_left_out(
    tidies: list[Tidy], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dates = Window(history=48, horizon=24, train=date(2017, 3, 20), validation=date(2017, 4, 26))
    pairs = [(t.frame, t.facts) for t in tidies]
    with pytest.raises(InputError, match=r"meter-1: the test part has no room.*ingest\.broken: leave_out"):
        make_all(iter(pairs), [t.facts for t in tidies], dates, tmp_path / "stops")
    kept = [(frame, {**facts, "ingest": {**facts["ingest"], "broken": "leave_out"}}) for frame, facts in pairs]
    make_all(iter(kept), [facts for _, facts in kept], dates, tmp_path / "goes on")
    assert [one["name"] for one in Windows.load(tmp_path / "goes on").series] == ["meter-0", "meter-2"]
    assert "meter-1 is left out" in caplog.text


def test_series_of_other_columns_are_refused_by_name(tidies: list[Tidy], tmp_path: Path) -> None:
    poor = {**tidies[1].facts, "columns": {"TGBT": tidies[1].facts["columns"]["TGBT"]}}
    pairs = [(tidies[0].frame, tidies[0].facts), (tidies[1].frame, poor)]
    with pytest.raises(InputError, match="meter-0 and meter-1 differ in what can be computed"):
        make_all(iter(pairs), [facts for _, facts in pairs], SPLIT, tmp_path)
    assert not list(tmp_path.glob("*.npy"))


def test_the_future_of_a_series_lies_in_its_own_rows(together: Windows) -> None:
    """The rows of ``ahead`` behind the end of a series are of its calendar, not of the next series."""
    first, second = together.series[:2]
    end = first["first"] + first["rows"]
    assert second["first"] == end + together.meta["horizon"]
    hour = together.names("ahead").index("cos_1_per_day")
    inside = together.ahead[end - 24 : end, hour]
    np.testing.assert_allclose(together.ahead[end : end + 24, hour], inside, atol=1e-6)
    assert set(AHEAD) == {"ahead", "lags"}


def test_the_series_of_a_category_alone(tidies: list[Tidy], tmp_path: Path) -> None:
    kinds = ["School", "Office", "School"]
    pairs = [(t.frame, {**t.facts, "about": {"category": kind}}) for t, kind in zip(tidies, kinds, strict=True)]
    facts = [facts for _, facts in pairs]
    make_all(iter(pairs), facts, SPLIT.model_copy(update={"only": {"category": "School"}}), tmp_path)
    assert [one["name"] for one in Windows.load(tmp_path).series] == ["meter-0", "meter-2"]
    with pytest.raises(InputError, match=r"fits none of the 3 series \(category: Office, School\)"):
        make_all(iter(pairs), facts, SPLIT.model_copy(update={"only": {"category": "Shop"}}), tmp_path / "none")


def test_pooled_trees_know_which_series_a_row_is_of(together: Windows) -> None:
    """One model of all; restored for one of them, it forecasts the same."""
    pytest.importorskip("lightgbm")
    fitted = BASELINES["lightgbm-quick"](together)
    whole = fitted(together.origins("test"))
    for index in range(3):
        only = together.only(index)
        assert only.series[0]["number"] == index
        own = RESTORED["lightgbm-quick"](only, fitted.file)(only.origins("test"))
        np.testing.assert_allclose(own, whole[together.series_at(together.origins("test") - 1) == index], rtol=1e-5)
