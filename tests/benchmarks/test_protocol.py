"""The benchmark of the LSTM: whose turn it is, what is thrown away, what is reported. No time is taken here."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is no part of the installed package

from benchmarks.lstm import run as command
from benchmarks.lstm.conditions import GROWTH, SHAPES, Condition, Group, Shape, conditions, groups, parse_shape
from benchmarks.lstm.figure import draw
from benchmarks.lstm.limits import limit, products
from benchmarks.lstm.memory import peak
from benchmarks.lstm.protocol import (
    Block,
    Crew,
    Load,
    Rules,
    contamination,
    due,
    floor,
    measure,
    order,
    steps_of_a_block,
    summarise,
)
from benchmarks.lstm.record import Measured, Record
from benchmarks.lstm.results import Outcome, markdown, read_json, rows, write_json
from benchmarks.lstm.session import Session
from benchmarks.lstm.step import Training
from benchmarks.lstm.worker import Absent, Bench

from isotrain.errors import InputError

RULES = Rules(rounds=3, least=2, extra=2, tolerance=0.1)
CREW = Crew(threads=2, cores=2)
GOOD = Block(4, 0.02, 0.03, 0.001, 1e-3, 1e-3, wall=0.3, others=0.0, stolen=0.0, switches=0)


class FakeClock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = self.busy = 0.0

    def spend(self, seconds: float, by_others: float = 0.0) -> float:
        self.now += seconds
        self.busy += seconds + by_others
        return seconds

    def load(self) -> Load:
        return Load(self.now, self.now, self.busy, 0.0, 0)


# --- turns and blocks


def test_every_round_holds_every_condition_once_in_an_order_of_its_own() -> None:
    names = [c.name for c in conditions(Shape(64))]
    rounds = [order(names, "64x1", number) for number in range(6)]
    assert all(sorted(turns) == sorted(names) for turns in rounds)
    assert len({tuple(turns) for turns in rounds}) == 6
    assert rounds[2] == order(names, "64x1", 2)


def test_a_block_times_its_steps_and_nothing_else() -> None:
    clock = FakeClock()

    def step() -> tuple[float, float, float]:
        return clock.spend(0.2), clock.spend(0.3), clock.spend(0.1, by_others=0.05)

    block = measure(step, 4, kernel=lambda: clock.spend(0.001, by_others=9.0), load=clock.load)
    assert (block.forward, block.backward, block.optimiser) == pytest.approx((0.2, 0.3, 0.1))
    assert block.seconds == pytest.approx(0.6)
    assert (block.wall, block.others) == pytest.approx((2.4, 0.2))


def test_a_block_is_a_quarter_of_a_second_and_two_steps_at_least() -> None:
    assert steps_of_a_block(0.01, Rules(block_seconds=0.25)) == 25
    assert steps_of_a_block(1.7, Rules(block_seconds=0.25)) == 2


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        (GOOD, None),
        (replace(GOOD, kernel_before=1.2e-3), "kernel"),
        (replace(GOOD, kernel_after=1.2e-3), "kernel"),
        (replace(GOOD, kernel_after=1.05e-3), None),
        (replace(GOOD, others=0.1), "others"),
        (replace(GOOD, others=0.03), None),  # a tick at each end of two counters is no evidence
        (replace(GOOD, stolen=0.1), "stolen"),
        (replace(GOOD, switches=100), "switches"),
        (replace(GOOD, switches=20), None),
    ],
)
def test_what_spoils_a_block(spoilt: Block, reason: str | None) -> None:
    assert contamination(spoilt, 1e-3, RULES, CREW) == reason


def test_others_may_use_the_cores_that_a_block_leaves_idle() -> None:
    assert contamination(replace(GOOD, others=0.3), 1e-3, RULES, Crew(threads=1, cores=2)) is None
    assert contamination(replace(GOOD, others=0.5), 1e-3, RULES, Crew(threads=1, cores=2)) == "others"


def test_one_lucky_reading_of_the_kernel_spoils_no_other_block() -> None:
    blocks = [GOOD] * 9 + [replace(GOOD, kernel_before=0.1e-3)]
    assert floor(blocks) == 1e-3
    assert floor([replace(GOOD, kernel_after=2e-3)]) == 1e-3  # few readings: their minimum


def test_a_median_needs_enough_good_blocks() -> None:
    slow, bad = replace(GOOD, forward=0.06), replace(GOOD, others=1.0)
    enough = summarise([GOOD, slow, bad, GOOD], 1e-3, RULES, CREW)
    assert enough.seconds is not None
    assert vars(enough.seconds) == pytest.approx({"median": 0.051, "low": 0.051, "high": 0.091})
    assert enough.phases["backward"] == 0.03
    assert (enough.good, dict(enough.rejected)) == (3, {"others": 1})
    few = summarise([GOOD, bad, bad], 1e-3, RULES, CREW)
    assert (few.seconds, few.missing) == (None, "1 of 3 blocks undisturbed (others 2), 2 needed")


def test_further_rounds_are_for_those_that_lack_good_blocks_and_end() -> None:
    names = ["a", "b"]
    assert due(names, {}, 2, RULES) == names
    assert due(names, {"a": 2, "b": 1}, 3, RULES) == ["b"]
    assert due(names, {"a": 2, "b": 2}, 3, RULES) == []
    assert due(names, {}, 5, RULES) == []


# --- limits

WIDE = Shape(400)


def isolating(share: float = 0.0, **how: object) -> Condition:
    return Condition("x", "x", share=share, **how)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("condition", "units"),
    [
        (isolating(), 3),
        (isolating(0.75), 2 + 1 / 4),
        (isolating(0.75, mode="cut"), 1 + 1 / 4 + 1 / 16),
        (isolating(0.75, mode="autonomous"), 1 + 2 / 16),
        (isolating(0.75, mode="autonomous", memory=True), 2 / 4 + 1 / 16),
        (isolating(steps=42), 1 + 2 * 42 / 168),
        (isolating(steps=999), 3),
        (isolating(credit="cell"), 2),
        (isolating(credit="none"), 1 + 1 / 168),
        # 12 origins of 168 hours, from hour 84 on
        (isolating(credit="none", at_origins=True), 1 + 12 / 168 * (1 + 1)),
        (isolating(steps=4, at_origins=True), 1 + 48 / 168 * (1 + 2)),
    ],
)
def test_one_layer_in_units_of_its_forward_product(condition: Condition, units: float) -> None:
    assert products(WIDE, condition, inputs=0) / (4 * 400 * 400) == pytest.approx(units)
    assert limit(WIDE, condition, inputs=0) == pytest.approx(3 / units)


@pytest.mark.parametrize(
    ("condition", "units"),
    [
        # lower layer: forward 1, weights 1, states 1; upper: forward 2, weights 2, states 1, inputs 1
        (isolating(), 3 + 6),
        (isolating(lower=True), 1 + 2 + 2 + 1),
        (isolating(lower=True, memory=True), 2 + 2 + 1),
        (isolating(0.5), (1 + 0.5 + 1) + (2 + 1 + 1 + 1)),
        (isolating(0.5, mode="cut"), (1 + 0.5 + 0.25) + (2 + 1 + 0.25 + 0.25)),
        (isolating(0.5, mode="autonomous"), (0.25 + 0.5 + 0.5 + 0.25) + (0.5 + 1 + 1 + 0.25 + 0.25)),
        (isolating(0.5, mode="autonomous", memory=True), (0.5 + 0.5 + 0.25) + (1 + 1 + 0.25 + 0.25)),
        (isolating(steps=84), (1 + 1) + (2 + 2)),
        (isolating(credit="cell"), (1 + 1) + (2 + 2 + 1)),
    ],
)
def test_two_layers_in_units_of_the_lower_forward_product(condition: Condition, units: float) -> None:
    assert products(Shape(400, 2), condition, inputs=0) / (4 * 400 * 400) == pytest.approx(units)


def test_inputs_are_counted() -> None:
    """H = 8, D = 7: forward 4*8*15, weights the same, states 4*8*8; exact 50 %: weights 4*4*15."""
    assert products(Shape(8), isolating()) == 480 + 480 + 256
    assert products(Shape(8), isolating(0.5)) == 480 + 240 + 256


# --- what is timed


def test_conditions_that_would_isolate_nothing_are_left_out() -> None:
    def of(shape: Shape, **how: object) -> set[str]:
        return {c.name for c in conditions(shape, **how)}  # type: ignore[arg-type]

    assert {"lower", "lower-memory", "tuned-lower"} <= of(Shape(64, 2))
    assert not {name for name in of(Shape(64)) if "lower" in name}
    assert {name for name in of(Shape(150, 5, 24, 500)) if "steps" in name} == {"steps-12"}
    assert {name for name in of(Shape(64), regime="streamed") if "steps" in name} == {"steps-4"}
    assert {c.name for c in conditions(Shape(64), "streamed") if c.at_origins} == {"credit-none", "steps-4"}
    assert not any(c.at_origins for c in conditions(Shape(64)))
    assert {c.full for c in conditions(Shape(64, 2))} == {"", "native-bf16", "tuned"}


def test_no_shape_is_timed_twice() -> None:
    wanted = groups(SHAPES, growth=True)
    assert len({group.shape for group in wanted}) == len(wanted)
    assert {group.shape for group in wanted} == {*SHAPES, *GROWTH}
    small = groups(SHAPES[:1], growth=False, only=["exact-7"])
    assert [c.name for c in small[0].conditions] == ["stock", "tuned", "native-bf16", "exact-75"]


def test_words_that_mean_nothing_are_refused() -> None:
    assert parse_shape("150x5x96x500") == Shape(150, 5, 96, 500)
    assert parse_shape(str(Shape(64, 2))) == Shape(64, 2)
    for text in ("256", "256x0", "ax1", "256x1x168"):
        with pytest.raises(InputError, match="hidden x layers"):
            parse_shape(text)
    with pytest.raises(InputError, match="no condition begins with 'exat'"):
        groups(SHAPES, growth=False, only=["exat"])


# --- one step, one process

TINY = Shape(8, 2, 16, 3)
STOCK_KERNELS = [c for c in conditions(replace(TINY, length=32)) if c.backend != "native"]


@pytest.mark.parametrize("regime", ["windowed", "streamed"])
@pytest.mark.parametrize("condition", STOCK_KERNELS, ids=lambda c: c.name)
def test_a_step_trains_and_says_what_its_phases_took(condition: Condition, regime: str) -> None:
    training = Training(replace(TINY, length=32), condition, regime)  # type: ignore[arg-type]
    before = [p.detach().clone() for p in training.lstm.parameters()]
    assert all(seconds > 0 for seconds in training.step())
    moved = [not p.equal(old) for p, old in zip(training.lstm.parameters(), before, strict=True)]
    assert moved == [not condition.lower] * 4 + [True] * 4


@pytest.mark.parametrize("condition", [c for c in conditions(TINY) if c.backend == "native"], ids=lambda c: c.name)
def test_the_lstm_isolates_what_a_condition_names(condition: Condition) -> None:
    """On the reference backend, which every machine has: what it isolates stays, the rest moves."""
    training = Training(TINY, replace(condition, backend="reference", compute="fp32"))
    before = [p.detach().clone() for p in training.lstm.parameters()]
    training.step()
    active = TINY.hidden - condition.isolated_units(TINY.hidden)
    for number, (p, old) in enumerate(zip(training.lstm.parameters(), before, strict=True)):
        moved = (p != old).reshape(4, TINY.hidden, -1).any(-1).any(0)
        trains = not (condition.lower and number < 4)
        assert moved.tolist() == [trains] * active + [False] * (TINY.hidden - active)


def test_all_methods_get_the_same_batch_and_the_same_start() -> None:
    one, other = (Training(TINY, c) for c in STOCK_KERNELS[:2])
    assert one.x.equal(other.x)
    assert one.target.equal(other.target)
    assert all(a.equal(b) for a, b in zip(one.lstm.parameters(), other.lstm.parameters(), strict=True))


def test_a_worker_says_why_it_cannot_and_goes_on() -> None:
    bench = Bench("windowed")
    refused = Condition("refused", "refused", "torch", steps=0)
    kind, why = bench.answer("open", TINY, refused, RULES)
    assert (kind, why.split(" =")[0]) == ("absent", "not available: steps")
    kind, why = bench.answer("block", "never opened", 2)
    assert (kind, why) == ("absent", "failed: KeyError: 'never opened'")
    assert bench.answer("open", TINY, STOCK_KERNELS[0], replace(RULES, block_seconds=0.0)) == ("done", 2)
    kind, block = bench.answer("block", "stock", 2)
    assert (kind, block.steps) == ("done", 2)
    assert 0 < 2 * block.seconds <= block.wall


# --- interruption


class FakeWorker:
    """Answers as a worker would, and is interrupted before block ``stop``."""

    def __init__(self, stop: int | None = None) -> None:
        self.blocks, self.stop = 0, stop

    def open(self, shape: Shape, condition: Condition, rules: Rules) -> int:
        if condition.name == "exact-25":
            raise Absent("not available: too small")
        return 4

    def block(self, name: str, steps: int) -> Block:
        if self.blocks == self.stop:
            raise KeyboardInterrupt
        self.blocks += 1
        return GOOD

    def clear(self) -> None:
        pass


FEW = groups((Shape(64), Shape(256)), growth=False, only=["exact"])


def session(path: Path, stop: int | None = None, header: str = "same") -> tuple[Session, FakeWorker]:
    worker = FakeWorker(stop)
    timing = Session(FEW, Record(path, {"what": header}), RULES, CREW, "windowed")
    timing.time_all({"stock": worker, "prepared": worker})  # type: ignore[dict-item]
    return timing, worker


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "x.partial"
    present = len(FEW[0].conditions) - 1
    with pytest.raises(KeyboardInterrupt):
        session(path, stop=present + 2)  # in the middle of the second round
    with path.open("a") as stream:
        stream.write('{"group": "64x1x168x64", "round": 1, "blo')  # killed while it wrote
    resumed, worker = session(path)
    assert worker.blocks == present * (2 * RULES.rounds - 1)
    for group in FEW:
        known = resumed.record.of(str(group.shape))
        assert len(known.rounds) == RULES.rounds
        assert {name: len(known.of(name)) for name in ("stock", "exact-75", "exact-25")} == {
            "stock": 3,
            "exact-75": 3,
            "exact-25": 0,
        }
        assert known.absent == {"exact-25": "not available: too small"}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["group"], line["round"]) for line in lines[1:]] == [
        (str(group.shape), number) for group in FEW for number in range(RULES.rounds)
    ]
    assert session(path)[1].blocks == 0  # finished: nothing more to do


def test_a_round_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "x.partial"
    session(path)
    path.write_text(path.read_text() + path.read_text().splitlines(keepends=True)[1])
    assert len(Record(path, {"what": "same"}).of("64x1x168x64").rounds) == RULES.rounds


def test_a_partial_file_of_another_run_is_refused_and_can_be_thrown_away(tmp_path: Path) -> None:
    path = tmp_path / "x.partial"
    session(path)
    with pytest.raises(InputError, match=r"differs in what.*--restart"):
        session(path, header="other")
    assert not Record(path, {"what": "other"}, restart=True).of("64x1x168x64").rounds


def test_disturbed_rounds_are_repeated_for_who_lacks_blocks_only(tmp_path: Path) -> None:
    class Disturbed(FakeWorker):
        def block(self, name: str, steps: int) -> Block:
            self.blocks += 1
            return replace(GOOD, others=1.0) if name == "exact-75" else GOOD

    worker = Disturbed()
    timing = Session(FEW[:1], Record(tmp_path / "x.partial", {}), RULES, CREW, "windowed")
    timing.time_all({"stock": worker, "prepared": worker})  # type: ignore[dict-item]
    known = timing.record.of("64x1x168x64")
    assert (len(known.of("exact-75")), len(known.of("stock"))) == (5, 3)
    row = rows(FEW[0], known, {"stock": 1e-3, "prepared": 1e-3}, RULES, CREW)["exact-75"]
    assert (row.ms, row.missing) == (None, "0 of 5 blocks undisturbed (others 5), 2 needed")


# --- results


def made_up(speed: Callable[[Group, Condition], float], wanted: tuple[Group, ...]) -> Outcome:
    """An outcome in which a step takes ``speed`` milliseconds."""
    known = {}
    for group in wanted:
        milliseconds = {c.name: speed(group, c) for c in group.conditions}
        rounds = [
            {
                name: replace(GOOD, forward=0.4e-3 * ms * wobble, backward=0.6e-3 * ms)
                for name, ms in milliseconds.items()
            }
            for wobble in (1.0, 1.1, 0.95)
        ]
        known[str(group.shape)] = Measured(rounds, {}, dict.fromkeys(milliseconds, 100.0))
    facts = {
        "hardware": {"cpu": "Some CPU", "cores": 2, "torch": "2.0"},
        "commit": "abc",
        "settings": {"regime": "windowed", "threads": 2, "rules": vars(RULES)},
        "groups": {str(group.shape): [c.name for c in group.conditions] for group in wanted},
        "date": "2026-01-01",
    }
    return Outcome(facts, wanted, known, RULES, CREW)


def plausible(group: Group, condition: Condition) -> float:
    shape = group.shape
    whole = 22 * (shape.hidden / 256) ** 1.5 * shape.layers * shape.length / 168 * (0.3 + 0.7 * shape.batch / 64)
    if condition.backend == "native":
        return (3.3 if condition.compute == "fp32" else 1) * whole / (0.3 + 0.7 * limit(shape, condition))
    return whole * {"stock": 7.5, "tuned": 1.9, "torch": 1.9}[condition.backend] / limit(shape, condition) ** 0.6


def test_ratios_limits_and_shares(tmp_path: Path) -> None:
    speeds = {"stock": 160.0, "tuned": 40.0, "native-fp32": 60.0, "native-bf16": 20.0, "exact-75": 16.0}
    wanted = groups((Shape(256),), growth=False)
    outcome = made_up(lambda _, condition: speeds.get(condition.name, 10.0) - 1, wanted)  # the optimiser takes 1 ms
    row = outcome.table()[0]["exact-75"]
    assert row.ms == pytest.approx(16)
    assert (row.x_stock, row.x_tuned, row.x_full) == pytest.approx((10, 2.5, 1.25))
    assert row.limit == pytest.approx(3 / 2.25, rel=0.01)
    assert row.share_of_limit == pytest.approx(1.25 / row.limit)
    assert outcome.table()[0]["tuned"].limit is None


def test_json_keeps_every_block_and_reads_back(tmp_path: Path) -> None:
    outcome = made_up(plausible, groups((Shape(64, 2),), growth=False))
    outcome.known["64x2x168x64"].absent["lower"] = "not available: no"
    for blocks in outcome.known["64x2x168x64"].rounds:
        del blocks["lower"]
    write_json(tmp_path / "r.json", outcome)
    facts, known = read_json(tmp_path / "r.json")
    assert facts == dict(outcome.facts)
    again = replace(outcome, known=known)
    assert markdown(again) == markdown(outcome)
    assert "- No figure for lower: not available: no" in markdown(again)
    stored = json.loads((tmp_path / "r.json").read_text())
    assert len(stored["blocks"]) == sum(len(blocks) for blocks in known["64x2x168x64"].rounds)
    assert {row["condition"] for row in stored["rows"]} == {c.name for c in outcome.wanted[0].conditions}


def test_table_and_figure_are_written_again_from_the_blocks(tmp_path: Path) -> None:
    write_json(tmp_path / "r.json", made_up(plausible, groups((Shape(256), Shape(64, 2)), growth=True)))
    command.main(["--redraw", str(tmp_path / "r.json")])
    assert "| exact-87.5 |" in (tmp_path / "r.md").read_text()
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_the_figure_bears_a_run_without_figures(tmp_path: Path) -> None:
    outcome = made_up(plausible, groups((Shape(64, 2),), growth=False))
    outcome.known["64x2x168x64"].rounds.clear()
    draw(outcome, tmp_path / "empty.png")
    assert (tmp_path / "empty.png").stat().st_size > 0


def test_a_peak_is_measured_or_left_out() -> None:
    found = peak(TINY, STOCK_KERNELS[0], "windowed", torch.get_num_threads())
    assert found is None or found >= 0
