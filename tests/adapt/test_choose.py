"""The rule, held against cases whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from isotrain.adapt.candidates import CANDIDATES, Ground
from isotrain.adapt.choose import KEPT, Tried, best, choose, gained, held_out
from isotrain.data.windows import Windows
from isotrain.forecast.network import Forecaster
from isotrain.forecast.series import Series


@pytest.mark.parametrize(
    ("weeks", "gains", "chosen"),
    [
        (12, [(0.01, 0.02), (-0.01, 0.001)], KEPT),  # neither is sure
        (12, [(0.05, 0.02), (0.09, 0.04)], "1"),
        (12, [(0.05, 0.02), (0.09, 0.05)], "0"),  # the other gains more, but not for sure
        (12, [(0.04, 0.02)], KEPT),  # twice its standard error is not more than that
        (12, [], KEPT),
        (13, [(0.05, 0.03), (0.09, 0.03)], "0"),  # the first changes most
        (13, [(-0.02, 0.03), (0.09, 0.03)], "0"),  # it may have lost by chance
        (13, [(-0.03, 0.03), (0.001, 0.03)], "1"),
        (13, [(-0.04, 0.03), (-0.04, 0.03)], KEPT),
        (13, [], KEPT),
    ],
)
def test_the_rule(weeks: int, gains: list[tuple[float, float]], chosen: str) -> None:
    found = best([Tried(str(i), 1.0, gain, doubt) for i, (gain, doubt) in enumerate(gains)], weeks)
    assert (found.name if found else KEPT) == chosen


def test_of_a_candidate_the_strength_that_gains_most_is_taken() -> None:
    tried = [Tried("0", 0.5, -0.01, 0.02), Tried("0", 1.0, -0.005, 0.05), Tried("1", 1.0, 0.1, 0.01)]
    assert best(tried, 13) == tried[1]


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


@pytest.mark.parametrize(
    ("weeks", "truth", "low", "high"),
    [
        (8, 0.0, 0.01, 0.06),  # t with 12 degrees of freedom exceeds two at one time in thirty
        (20, 0.0, 0.78, 0.89),  # it exceeds minus one at five times in six
        (20, -3.0, 0.01, 0.06),  # what loses three standard errors in truth
    ],
)
def test_how_often_a_candidate_is_taken(weeks: int, truth: float, low: float, high: float) -> None:
    """One candidate, whose true gain is so many standard errors."""
    rng = np.random.default_rng(1)
    hours, taken = np.arange(13 * 168), 0
    for _ in range(600):
        gains = 0.1 * (rng.normal(size=13) + truth / 13**0.5)
        trial = gained(np.ones(len(hours)), 1 - np.repeat(gains, 168), hours, 13)
        taken += best([Tried("0", 1.0, *trial)], weeks) is not None
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


def test_what_changes_less_is_not_tried_where_what_changes_most_is_taken(net: Forecaster) -> None:
    """The trial of a part costs a training, so that the order saves time."""
    asked = []

    def with_note(name: str):  # type: ignore[no-untyped-def]
        def fit(of, parts, chosen):  # type: ignore[no-untyped-def]
            asked.append(name)
            return lambda _: {}

        return replace(CANDIDATES[name], fit=fit)

    first = net.series.history + 500
    ground = Ground.of(net, first, first + 13 * 168)
    choice = choose(ground, first, first + 13 * 168, {name: with_note(name) for name in CANDIDATES})
    assert choice.name == KEPT  # a gain of nothing is not more than a standard error of nothing
    assert asked == [*CANDIDATES][::-1]
    asked.clear()
    better = {**{name: with_note(name) for name in CANDIDATES}, "decoder": CANDIDATES["readout"]}
    assert choose(ground, first, first + 13 * 168, better).name == "decoder"
    assert asked == []
