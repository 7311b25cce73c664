"""What is remembered is what would be computed."""

from itertools import pairwise

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from isotrain.adapt.candidates import design, train
from isotrain.adapt.memory import Draw, Equations, Remembered
from isotrain.adapt.monthly import Monthly
from isotrain.forecast.encoders import Encoder
from isotrain.forecast.network import Forecaster
from isotrain.forecast.series import Series
from isotrain.forecast.stretches import Stretches

FIRST = 600


class Again(Encoder):
    """The isolated encoder without memory: run again over the stretches of every step."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(0, 0, 0, 0, "torch")
        self.encoder = (encoder,)

    def forward(self, series: Series, at: Stretches) -> Float[Tensor, "B M H"]:
        with torch.no_grad():
            return self.encoder[0](series, at)


def test_forecasts_from_memory_are_those_of_the_encoder(net: Forecaster) -> None:
    origins = torch.arange(FIRST, FIRST + 400)
    direct = net.forecast(origins)
    net.encoder = Remembered(net.encoder, net.series, FIRST, FIRST + 400)
    torch.testing.assert_close(net.forecast(origins), direct, rtol=1e-5, atol=1e-4)
    with pytest.raises(IndexError, match="before origin 600"):
        net.forecast(origins - 1)


def test_grown_month_by_month_it_is_the_same_and_new_hours_alone_are_run(net: Forecaster) -> None:
    whole = Remembered(net.encoder, net.series, FIRST, FIRST + 1000)
    grown = Remembered(net.encoder, net.series, FIRST, FIRST + 300)
    for last in (300, 301, 640, 1000):
        before = grown.ran
        grown.grow(net.series, FIRST + last)
        new = grown.last - FIRST
        assert new == last
        assert grown.ran - before <= (48 + 168) * (4 if before else 99), "more than the new weeks were run"
    torch.testing.assert_close(grown.kept, whole.kept, rtol=1e-5, atol=1e-6)


def test_training_with_memory_is_training_without_it(net: Forecaster) -> None:
    encoder, start = net.encoder, {name: p.clone() for name, p in net.state_dict().items()}
    draw = Draw(FIRST, FIRST + 700, net.series.history, count=4, origins=5, seed=3)
    found = []
    for isolated in (Remembered(encoder, net.series, FIRST, FIRST + 700), Again(encoder)):
        net.encoder = isolated
        net.load_state_dict({name: p for name, p in start.items() if not name.startswith("encoder.")})
        found.append(train(net, draw, steps=12, bf16=False))
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-4, atol=1e-5)
        assert not torch.equal(value, start[name]), name


def test_draws_stay_within_the_origins_and_reach_all_of_them() -> None:
    draw = Draw(100, 100 + 168 + 40, history=48, count=64, origins=8, seed=0)
    seen = torch.cat([draw(step).origins.flatten() for step in range(40)])
    assert seen.unique().tolist() == list(range(100, 308))
    assert torch.equal(draw(3).origins, draw(3).origins)


@pytest.mark.parametrize("forget", [1.0, 0.7])
def test_updated_month_by_month_the_solution_is_that_from_scratch(forget: float) -> None:
    rng = torch.Generator().manual_seed(0)
    months = [torch.randn(40 + 5 * i, 6, generator=rng, dtype=torch.float64) for i in range(5)]
    truth = [
        x @ torch.arange(6.0, dtype=torch.float64) + torch.randn(len(x), generator=rng, dtype=torch.float64)
        for x in months
    ]
    weights = [torch.rand(len(x), generator=rng, dtype=torch.float64) for x in months]
    known = Equations.empty(6)
    for x, y, w in zip(months, truth, weights, strict=True):
        known.add(x, y, w, forget)
    discounted = torch.cat([w * forget ** (len(months) - 1 - i) for i, w in enumerate(weights)])
    x, y = torch.cat(months), torch.cat(truth)
    rows = sum(len(one) * forget ** (len(months) - 1 - i) for i, one in enumerate(months))
    size = ((discounted[:, None] * x**2).sum(0) / rows).sqrt()
    penalty = 3.0
    root = discounted.sqrt()[:, None]  # ridge as rows of a plain least-squares problem
    scratch = torch.linalg.lstsq(
        torch.cat([root * x, penalty**0.5 * size.diag()]),
        torch.cat([root * y[:, None], torch.zeros(6, 1, dtype=torch.float64)]),
    ).solution[:, 0]
    torch.testing.assert_close(known.solve(penalty), scratch, rtol=1e-9, atol=1e-9)


def test_month_by_month_is_as_adapting_at_once(net: Forecaster) -> None:
    """Without forgetting, what four months added one after the other are is what they are together."""
    first, ends = FIRST, [FIRST + 168 * weeks for weeks in (6, 7, 8, 10)]
    monthly = Monthly.of(net, first, ends[0], forget=1.0)
    monthly.adapt(ends[0])
    for end in ends[1:]:
        stepwise = monthly.adapt(end)
    whole = monthly.sums("whole")
    rows = [design(monthly.ground, torch.arange(first, ends[0], 5))]
    rows += [design(monthly.ground, torch.arange(begin, end)) for begin, end in pairwise(ends)]
    known = Equations.empty(rows[0].x.shape[1])
    for one in rows:
        known.add(one.x.double(), one.y.double(), one.weights(one.y).double())
    assert whole.known is not None
    torch.testing.assert_close(whole.known.gram, known.gram, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(whole.known.side, known.side, rtol=1e-4, atol=1e-3)
    assert whole.added == known.rows
    assert stepwise.weeks == 10
    assert stepwise.held_out == 2


def test_the_trial_of_the_decoder_is_what_was_trained_before_the_weeks_held_out(
    net: Forecaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[int, int]] = []
    starts: list[float] = []

    def train(ground, parts, encoder, seed, steps):  # type: ignore[no-untyped-def]
        moved = ground.net.decoder.out.weight.detach() - ground.parent["decoder.out.weight"]
        starts.append(float(moved.abs().sum()))
        trained.append((parts[-1][1], steps))
        found = {"decoder.out.weight": ground.net.decoder.out.weight.detach() + 0.01}
        ground.use({})
        return lambda strength: found

    monkeypatch.setattr("isotrain.adapt.monthly.trained", train)
    monkeypatch.setattr("isotrain.adapt.choose.best", lambda tried, _: tried[-1])
    monthly = Monthly.of(net, FIRST, FIRST + 168 * 13, names=["decoder"])
    monthly.adapt(FIRST + 168 * 13)
    held_out = FIRST + 168 * 10 - 24 + 1
    assert trained == [(held_out, 60), (FIRST + 168 * 13, 20)]  # the trial and, on from there, the fit
    monthly.adapt(FIRST + 168 * 16)
    assert trained[2:] == [(FIRST + 168 * 16, 20)]  # the fit alone, on from the month before
    assert starts[0] == 0 and starts[0] < starts[1] < starts[2]
    assert monthly._trained[0][0] <= FIRST + 168 * 12 - 24 + 1
