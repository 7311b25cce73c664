"""Selection: the right share of the cost, a growing set, ties always the same, and no more change than allowed."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from isotrain.errors import InputError
from isotrain.isolation.selection import select

Scores = dict[str, Tensor]

values = st.lists(st.integers(-3, 3), min_size=1, max_size=40)
scores = st.dictionaries(
    st.text("abc", min_size=1, max_size=3), values.map(lambda v: torch.tensor(v).double()), min_size=1, max_size=4
)
fractions = st.floats(0, 1)
scopes = st.sampled_from(["local", "global"])
pairs = st.tuples(fractions, fractions).map(sorted)


@st.composite
def situations(draw: st.DrawFn, endless: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (some +inf if ``endless``), whole costs (some 0), and the present choice, of one set of zones."""
    n = draw(st.integers(1, 25))

    def numbers(elements: st.SearchStrategy[float]) -> Tensor:
        return torch.tensor(draw(st.lists(elements, min_size=n, max_size=n)), dtype=torch.double)

    ranks = st.integers(-3, 3).map(float)
    score = numbers(st.one_of(ranks, st.just(math.inf)) if endless else ranks)
    return score, numbers(st.integers(0, 5).map(float)), numbers(st.sampled_from([0.0, 1.0])).bool()


def isolated(active: dict[str, Tensor]) -> Tensor:
    return ~torch.cat(list(active.values()))


def rounded(share: float, n: int) -> int:
    return math.floor(share * n + 0.5)


# By score alone -----------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(scores=scores, fraction=fractions)
def test_the_right_share(scores: Scores, fraction: float) -> None:
    for name, active in select(scores, fraction, "local").items():
        assert active.dtype == torch.bool
        assert int((~active).sum()) == rounded(fraction, len(scores[name]))
    everything = isolated(select(scores, fraction, "global"))
    assert int(everything.sum()) == rounded(fraction, len(everything))


@settings(max_examples=100, deadline=None)
@given(scores=scores, pair=pairs, scope=scopes)
def test_a_larger_fraction_isolates_all_that_a_smaller_one_does(scores: Scores, pair: list[float], scope: str) -> None:
    few, many = (isolated(select(scores, fraction, scope)) for fraction in pair)
    assert not (few & ~many).any()


@settings(max_examples=100, deadline=None)
@given(scores=scores, fraction=fractions)
def test_lowest_scores_go_first_and_among_equals_the_lowest_index(scores: Scores, fraction: float) -> None:
    for name, active in select(scores, fraction).items():
        order = sorted(range(len(active)), key=lambda i, name=name: (float(scores[name][i]), i))
        gone = int((~active).sum())
        assert (~active).nonzero().flatten().tolist() == sorted(order[:gone])


def test_half_is_rounded_up() -> None:
    assert int((~select({"a": torch.zeros(5)}, 0.5)["a"]).sum()) == 3
    assert int((~select({"a": torch.zeros(1)}, 0.49)["a"]).sum()) == 0
    assert select({}, 0.5, "global") == {}


def test_an_endless_score_stays_active_and_its_cost_counts() -> None:
    score = {"a": torch.tensor([math.inf, 1.0, -math.inf, 2.0])}
    assert isolated(select(score, 0.5)).tolist() == [False, True, True, False]
    assert isolated(select(score, 1.0)).tolist() == [False, True, True, True]


# By cost ------------------------------------------------------------------------------------------------


def test_cost_by_hand() -> None:
    """In order of score the costs are 4, 1, 3 and 2; their middles stand at 2, 4.5, 6.5 and 9 of 10."""
    score, cost = {"a": torch.tensor([3.0, 1.0, 0.0, 2.0])}, {"a": torch.tensor([2.0, 1.0, 4.0, 3.0])}
    for fraction, expected in [
        (0.19, []),
        (0.2, [2]),
        (0.44, [2]),
        (0.45, [1, 2]),
        (0.65, [1, 2, 3]),
        (0.9, [0, 1, 2, 3]),
    ]:
        active = select(score, fraction, cost=cost)["a"]
        assert (~active).nonzero().flatten().tolist() == expected


def test_global_scope_shares_one_purse() -> None:
    score = {"a": torch.tensor([0.0, 5.0]), "b": torch.tensor([1.0])}
    cost = {"a": torch.tensor([1.0, 1.0]), "b": torch.tensor([8.0])}
    assert isolated(select(score, 0.5, "global", cost=cost)).tolist() == [True, False, True]
    assert isolated(select(score, 0.49, "global", cost=cost)).tolist() == [True, False, False]
    assert isolated(select(score, 0.5, "local", cost=cost)).tolist() == [True, False, True]


@settings(max_examples=200, deadline=None)
@given(situation=situations(endless=True), fraction=fractions)
def test_cost_against_exact_fractions(situation: tuple[Tensor, Tensor, Tensor], fraction: float) -> None:
    score, cost, _ = situation
    assume(len(cost.unique()) > 1)  # equal costs are counted, see the next test
    asked, spent, expected = fraction * float(cost.sum()), Fraction(0), []
    for zone in sorted(range(len(score)), key=lambda i: (float(score[i]), i)):
        price = float(cost[zone])
        spent += Fraction(price)
        if spent <= Fraction(asked + price / 2) and price > 0 and score[zone] < math.inf:
            expected.append(zone)
    active = select({"a": score}, fraction, cost={"a": cost})["a"]
    assert (~active).nonzero().flatten().tolist() == sorted(expected)


@settings(max_examples=100, deadline=None)
@given(scores=scores, fraction=fractions, price=st.floats(1e-9, 1e9), scope=scopes)
@example(scores={"a": torch.zeros(3)}, fraction=math.nextafter(0.5, 0), price=0.1, scope="local")
def test_equal_costs_are_no_costs(scores: Scores, fraction: float, price: float, scope: str) -> None:
    cost = {name: torch.full_like(score, price) for name, score in scores.items()}
    assert torch.equal(isolated(select(scores, fraction, scope, cost=cost)), isolated(select(scores, fraction, scope)))


@pytest.mark.parametrize("scale", [0.1, 1 / 3, 1e-20, 7.7e15])
def test_the_unit_of_the_cost_does_not_matter(scale: float) -> None:
    """At fractions where a zone's middle is met exactly, so that any rounding would show."""
    score, cost = torch.arange(7.0), torch.tensor([3, 1, 4, 1, 5, 9, 2]).double()
    for twice in range(51):
        whole, scaled = (select({"a": score}, twice / 50, cost={"a": cost * by})["a"] for by in (1.0, scale))
        assert torch.equal(whole, scaled)


def test_what_costs_nothing_stays_active() -> None:
    score, cost = {"a": torch.tensor([0.0, 1.0, 2.0])}, {"a": torch.tensor([0.0, 1.0, 1.0])}
    for fraction, expected in [(0.0, []), (0.5, [1]), (1.0, [1, 2])]:
        assert isolated(select(score, fraction, cost=cost)).nonzero().flatten().tolist() == expected
    assert not isolated(select(score, 1.0, cost={"a": torch.zeros(3)})).any()


# With a present choice ----------------------------------------------------------------------------------


def test_churn_by_hand() -> None:
    """Ten zones, of which 0 to 4 are isolated; the best five are now 3, 4, 5, 6 and 7."""
    score = {"a": torch.tensor([9.0, 8.0, 7.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])}
    before = {"a": torch.arange(10) >= 5}
    for churn, expected in [
        (0.0, [0, 1, 2, 3, 4]),
        (0.04, [0, 1, 2, 3, 4]),  # rounds to none
        (0.1, [1, 2, 3, 4, 5]),  # the worst goes, the best outside comes
        (0.2, [2, 3, 4, 5, 6]),
        (0.3, [3, 4, 5, 6, 7]),
        (1.0, [3, 4, 5, 6, 7]),
    ]:
        active = select(score, 0.5, before=before, churn=churn)["a"]
        assert (~active).nonzero().flatten().tolist() == expected
    fewer = select(score, 0.3, before=before, churn=0.0)["a"]
    assert (~fewer).nonzero().flatten().tolist() == [2, 3, 4]
    more = select(score, 0.7, before=before, churn=0.0)["a"]
    assert (~more).nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_no_thaw_by_hand() -> None:
    score = {"a": torch.tensor([math.inf, 8.0, 1.0, 0.0])}
    before = {"a": torch.tensor([False, False, True, True])}
    for fraction, expected in [(0.0, [0, 1]), (0.5, [0, 1]), (0.75, [0, 1, 3]), (1.0, [0, 1, 2, 3])]:
        active = select(score, fraction, before=before, thaw=False)["a"]
        assert (~active).nonzero().flatten().tolist() == expected
    assert isolated(select(score, 0.5, before=before)).tolist() == [False, False, True, True]


@settings(max_examples=200, deadline=None)
@given(situation=situations(), fraction=fractions, churn=fractions)
def test_what_churn_promises(situation: tuple[Tensor, Tensor, Tensor], fraction: float, churn: float) -> None:
    score, _, before = situation
    n, had = len(score), int((~before).sum())
    active = select({"a": score}, fraction, before={"a": before}, churn=churn)["a"]
    assert int((~active).sum()) == rounded(fraction, n)
    thawed, stayed = ~before & active, ~before & ~active
    assert int(thawed.sum()) <= max(rounded(churn, n), had - rounded(fraction, n))
    if thawed.any() and stayed.any():
        assert score[thawed].min() >= score[stayed].max()


@settings(max_examples=200, deadline=None)
@given(situation=situations(endless=True), fraction=fractions, use_cost=st.booleans())
def test_without_churn_the_choice_only_grows_or_shrinks(
    situation: tuple[Tensor, Tensor, Tensor], fraction: float, use_cost: bool
) -> None:
    score, cost, before = situation
    now = ~select({"a": score}, fraction, before={"a": before}, churn=0.0, cost={"a": cost} if use_cost else None)["a"]
    may = score < math.inf
    held = ~before & (may & (cost > 0) if use_cost else may)
    assert not (held & ~now).any() or not (now & ~held).any()
    assert not (now & ~may).any()


@settings(max_examples=200, deadline=None)
@given(situation=situations(endless=True), pair=pairs, churn=st.sampled_from([0.0, 1.0]), thaw=st.booleans())
def test_a_larger_fraction_isolates_more_whatever_is_isolated_now(
    situation: tuple[Tensor, Tensor, Tensor], pair: list[float], churn: float, thaw: bool
) -> None:
    score, cost, before = situation
    few, many = (
        ~select({"a": score}, f, cost={"a": cost}, before={"a": before}, thaw=thaw, churn=churn)["a"] for f in pair
    )
    assert not (few & ~many).any()


@settings(max_examples=200, deadline=None)
@given(situation=situations(endless=True), pair=pairs, churn=fractions)
def test_and_with_equal_costs_at_any_churn(
    situation: tuple[Tensor, Tensor, Tensor], pair: list[float], churn: float
) -> None:
    score, _, before = situation
    few, many = (~select({"a": score}, f, before={"a": before}, churn=churn)["a"] for f in pair)
    assert not (few & ~many).any()


@settings(max_examples=200, deadline=None)
@given(situation=situations(endless=True), fraction=fractions, use_cost=st.booleans())
def test_full_churn_forgets_the_present_choice(
    situation: tuple[Tensor, Tensor, Tensor], fraction: float, use_cost: bool
) -> None:
    score, cost, before = situation
    price = {"a": cost} if use_cost else None
    free = select({"a": score}, fraction, cost=price)["a"]
    assert torch.equal(select({"a": score}, fraction, cost=price, before={"a": before}, churn=1.0)["a"], free)
    assert torch.equal(select({"a": score}, fraction, cost=price, before={"a": free}, churn=0.0)["a"], free)


@settings(max_examples=100, deadline=None)
@given(situation=situations(endless=True), fraction=fractions)
def test_a_little_churn_gets_to_the_best_choice_in_time(
    situation: tuple[Tensor, Tensor, Tensor], fraction: float
) -> None:
    """One exchange a check, at most as many checks as zones."""
    score, _, active = situation
    for _ in range(len(score)):
        active = select({"a": score}, fraction, before={"a": active}, churn=1 / len(score))["a"]
    assert torch.equal(active, select({"a": score}, fraction)["a"])


@settings(max_examples=200, deadline=None)
@given(situation=situations(endless=True), fraction=fractions, churn=fractions)
def test_without_thaw_nothing_comes_back(
    situation: tuple[Tensor, Tensor, Tensor], fraction: float, churn: float
) -> None:
    score, _, before = situation
    now = ~select({"a": score}, fraction, before={"a": before}, thaw=False, churn=churn)["a"]
    assert not (~before & ~now).any()
    possible = int((~before | (score < math.inf)).sum())
    assert int(now.sum()) == max(int((~before).sum()), min(rounded(fraction, len(score)), possible))
    joined = now & before
    if joined.any() and (~now).any():
        assert score[joined].max() <= score[~now].min()


def test_churn_is_counted_over_all_in_global_scope() -> None:
    score = {"a": torch.tensor([9.0, 9.0]), "b": torch.tensor([0.0, 0.0])}
    before = {"a": torch.tensor([False, False]), "b": torch.tensor([True, True])}
    assert isolated(select(score, 0.5, "global", before=before, churn=0.25)).tolist() == [True, False, True, False]
    assert isolated(select(score, 0.5, "global", before=before, churn=0.5)).tolist() == [False, False, True, True]


# Errors -------------------------------------------------------------------------------------------------


def test_bad_use_is_refused_by_name() -> None:
    two = {"a": torch.zeros(2)}
    with pytest.raises(InputError, match=r"zones 'lstm.l0': a score is not a number"):
        select({"lstm.l0": torch.tensor([1.0, float("nan")])}, 0.5)
    for value in (-0.1, 1.5, float("nan")):
        with pytest.raises(InputError, match=f"fraction={value} .* in \\[0, 1\\]"):
            select(two, value)
        with pytest.raises(InputError, match=f"churn={value} is outside \\[0, 1\\]"):
            select(two, 0.5, churn=value)
    with pytest.raises(InputError, match="scope='layer' is unknown: choose one of local, global"):
        select(two, 0.5, "layer")
    for price in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="zones 'a': a cost is negative or not finite"):
            select(two, 0.5, cost={"a": torch.tensor([1.0, price])})
    with pytest.raises(InputError, match="cost: 3 entries for the 2 zones of 'a'"):
        select(two, 0.5, cost={"a": torch.ones(3)})
    with pytest.raises(InputError, match="before: 0 entries for the 2 zones of 'a'"):
        select(two, 0.5, before={"b": torch.ones(2).bool()})
