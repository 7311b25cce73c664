"""The rule, held against cases whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from isotrain.adapt.candidates import CANDIDATES, Ground
from isotrain.adapt.choose import KEPT, Tried, best, choose, gained, held_out
from isotrain.data.windows import Windows
from isotrain.forecast.network import Forecaster, Series


@pytest.mark.parametrize(
    ("weeks", "gains", "chosen"),
    [
        (20, [(0.01, 0.02), (-0.01, 0.001)], KEPT),  # neither is sure
        (20, [(0.05, 0.02), (0.06, 0.04)], "1"),
        (20, [(0.05, 0.02), (0.06, 0.07)], "0"),  # the other gains more, but not for sure
        (20, [(0.02, 0.02)], KEPT),  # as much as its standard error is not more
        (12, [(0.05, 0.03)], KEPT),
        (13, [(0.05, 0.03)], "0"),
        (12, [(0.05, 0.02)], "0"),
        (25, [(0.001, 0.02)], KEPT),
        (26, [(0.001, 0.02)], "0"),
        (26, [(0.0, 0.0)], KEPT),
        (20, [], KEPT),
    ],
)
def test_the_rule(weeks: int, gains: list[tuple[float, float]], chosen: str) -> None:
    found = best([Tried(str(i), 1.0, gain, doubt) for i, (gain, doubt) in enumerate(gains)], weeks)
    assert (found.name if found else KEPT) == chosen


def test_a_standard_error_is_that_of_blocks_not_of_hours() -> None:
    rng = np.random.default_rng(0)
    weekly = rng.normal(size=13)
    gain, doubt = gained(np.ones(13 * 168), 1 - np.repeat(weekly, 168), np.arange(13 * 168), 13)
    assert gain == pytest.approx(weekly.mean())
    assert doubt == pytest.approx(weekly.std(ddof=1) / 13**0.5)


def test_hours_without_truth_count_for_nothing() -> None:
    parent, other = np.ones(5 * 168), np.full(5 * 168, 0.9)
    parent[200:600], other[200:600] = np.nan, np.nan
    gain, doubt = gained(parent, other, np.arange(5 * 168), 5)
    assert gain == pytest.approx(0.1)
    assert doubt == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(("weeks", "low", "high"), [(8, 0.01, 0.06), (20, 0.11, 0.22)])
def test_where_nothing_gains_the_parent_is_seldom_left(weeks: int, low: float, high: float) -> None:
    """One candidate that gains nothing is taken as often as t with 12 degrees of freedom exceeds two, and one."""
    rng = np.random.default_rng(1)
    hours, taken = np.arange(13 * 168), 0
    for _ in range(600):
        other = 1 - 0.1 * np.repeat(rng.normal(size=13), 168)
        taken += best([Tried("0", 1.0, *gained(np.ones(len(hours)), other, hours, 13))], weeks) is not None
    assert low < taken / 600 < high


def test_the_choice_knows_no_later_hour_and_no_hour_twice(windows: Windows) -> None:
    """Spoiling the truth after the last origin's leads changes nothing; what is held out is not fitted."""
    first, last = 550, 550 + 6 * 168
    answers = []
    for spoil in (False, True):
        truth = windows.truth.copy()
        if spoil:
            truth[last - 1 + 24 :] = 1e6
        torch.manual_seed(0)
        net = Forecaster(
            Series(replace(windows, truth=truth), "rich"), hidden=5, layers=1, decoder=7, dropout=0.1, remember=None
        )
        torch.nn.init.normal_(net.decoder.out.weight, std=0.1)
        answers.append(choose(Ground.of(net, first, last), first, last))
    one, other = answers
    assert (one.name, one.strength, one.tried) == (other.name, other.strength, other.tried)
    assert all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())
    assert one.origins[0] == last - held_out(6) * 168
    assert [tried.name for tried in one.shown] == [name for name, c in CANDIDATES.items() if c.tried(6)]


def test_what_is_fitted_for_the_choice_ends_before_the_weeks_held_out(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    candidate = CANDIDATES["readout"]

    def fit(of, parts, chosen):  # type: ignore[no-untyped-def]
        seen.append((list(parts), chosen))
        return candidate.fit(of, parts, chosen)

    first, last = ground.memory.first, ground.memory.last
    monkeypatch.setattr("isotrain.adapt.choose.best", lambda tried, _: tried[2])
    choose(ground, first, last, {"readout": replace(candidate, fit=fit)})
    start = last - held_out(7) * 168
    assert seen[0] == ([(first, start - 24 + 1)], None)
    assert seen[1][0] == [(first, start - 24 + 1), (start - 24 + 1, last)]
    assert seen[1][1] == candidate.tried(7)[2]
