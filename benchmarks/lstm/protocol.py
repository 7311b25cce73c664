"""How times are taken so that they can be compared: turns, blocks, what spoils a block, what is reported.

Nothing here knows torch, processes or files.

A block is a few steps of one condition. In a round every condition has one block, in an order of its own, so that
slow changes of the machine fall on all of them. A block is contaminated, and left out, when one of these holds:

- *kernel*: a fixed small computation, timed just before and just after the block, took longer than
  ``1 + tolerance`` times its floor. The floor is what a tenth of all readings of that process stay below: its
  running minimum, made safe against one lucky reading.
- *others*: other processes used the CPUs that the block may run on, by more than ``busy`` of the block's wall-clock
  time, beyond what cores that the block leaves idle can carry. Linux counts in ticks of 10 ms: some are forgiven.
- *stolen*: the hypervisor ran something else on those CPUs, by the same measure.
- *switches*: the block's threads were taken off their CPU more than ``switches`` times a second each.

The four look at different things on purpose: the kernel sees a lower clock and a shared cache but only one core, the
counters of the system see every core but nothing of its speed.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

TICK = 0.01  # s, Linux' unit of CPU time
PHASES = ("forward", "backward", "optimiser")
Step = Callable[[], tuple[float, float, float]]  # runs one training step; the seconds of its phases


@dataclass(frozen=True)
class Rules:
    """How much is timed, and what counts."""

    rounds: int = 5
    least: int = 3  # fewer good blocks than this: no number
    extra: int = 5  # further rounds for conditions that lack good blocks
    block_seconds: float = 0.25
    tolerance: float = 0.10
    busy: float = 0.05
    switches: float = 75.0


@dataclass(frozen=True)
class Load:
    """The process and its machine at one moment; all but ``switches`` in seconds."""

    wall: float
    own: float  # CPU time of this process
    busy: float  # CPU time of everybody, on the CPUs that this process may use
    stolen: float
    switches: int


@dataclass(frozen=True)
class Block:
    """What one block measured; the phases in seconds a step."""

    steps: int
    forward: float
    backward: float
    optimiser: float
    kernel_before: float
    kernel_after: float
    wall: float
    others: float  # CPU seconds
    stolen: float  # CPU seconds
    switches: int

    @property
    def seconds(self) -> float:
        """Of one step."""
        return self.forward + self.backward + self.optimiser


@dataclass(frozen=True)
class Crew:
    """What a block ran on."""

    threads: int
    cores: int


@dataclass(frozen=True)
class Figure:
    """A median and its range."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """What is reported of a condition: either figures (seconds), or why there are none."""

    good: int
    rejected: Mapping[str, int]  # reason -> blocks
    seconds: Figure | None
    phases: Mapping[str, float]  # medians
    missing: str = ""


def steps_of_a_block(seconds_a_step: float, rules: Rules) -> int:
    """As many steps as fill a block, at least 2."""
    return max(2, math.ceil(rules.block_seconds / max(seconds_a_step, 1e-9)))


def measure(step: Step, steps: int, kernel: Callable[[], float], load: Callable[[], Load]) -> Block:
    """Run one block."""
    before = kernel()
    start = load()
    totals = [0.0, 0.0, 0.0]
    for _ in range(steps):
        for index, seconds in enumerate(step()):
            totals[index] += seconds
    end = load()
    forward, backward, optimiser = (total / steps for total in totals)
    return Block(
        steps,
        forward,
        backward,
        optimiser,
        kernel_before=before,
        kernel_after=kernel(),
        wall=end.wall - start.wall,
        others=max((end.busy - start.busy) - (end.own - start.own), 0.0),
        stolen=end.stolen - start.stolen,
        switches=end.switches - start.switches,
    )


def order(names: Sequence[str], group: str, number: int) -> list[str]:
    """The turns of one round: shuffled, so that nobody always follows the same neighbour; the same in every run."""
    turns = list(names)
    random.Random(f"{group}/{number}").shuffle(turns)
    return turns


def floor(blocks: Iterable[Block]) -> float:
    """What the reference kernel takes on an undisturbed machine; infinite without a reading."""
    readings = sorted(reading for block in blocks for reading in (block.kernel_before, block.kernel_after))
    return readings[len(readings) // 10] if readings else math.inf


def contamination(block: Block, floor: float, rules: Rules, crew: Crew) -> str | None:
    """Why the block does not count; None = it does."""
    ticks = 2 * TICK * math.sqrt(crew.cores)  # a counter a core, each wrong by up to a tick at both ends
    allowed = rules.busy * block.wall + ticks
    idle = max(crew.cores - crew.threads, 0) * block.wall
    if max(block.kernel_before, block.kernel_after) > (1 + rules.tolerance) * floor:
        return "kernel"
    if block.others - idle > allowed:
        return "others"
    if block.stolen > allowed:
        return "stolen"
    # 5: a block of a tenth of a second is no measure of a rate
    if block.switches > 5 + rules.switches * crew.threads * block.wall:
        return "switches"
    return None


def due(names: Sequence[str], good: Mapping[str, int], done: int, rules: Rules) -> list[str]:
    """Who takes part in the next round after ``done`` rounds; nobody = finished."""
    if done < rules.rounds:
        return list(names)
    if done < rules.rounds + rules.extra:
        return [name for name in names if good.get(name, 0) < rules.least]
    return []


def summarise(blocks: Sequence[Block], floor: float, rules: Rules, crew: Crew) -> Summary:
    """Median, least and greatest over the good blocks; no number from fewer than ``rules.least`` of them."""
    verdicts = [contamination(block, floor, rules, crew) for block in blocks]
    good = [block for block, verdict in zip(blocks, verdicts, strict=True) if verdict is None]
    rejected = dict(Counter(verdict for verdict in verdicts if verdict is not None))
    if len(good) < rules.least:
        why = ", ".join(f"{reason} {count}" for reason, count in rejected.items())
        counted = f"{len(good)} of {len(blocks)} blocks undisturbed" + (f" ({why})" if why else "")
        return Summary(len(good), rejected, None, {}, f"{counted}, {rules.least} needed")
    seconds = [block.seconds for block in good]
    phases = {phase: median(getattr(block, phase) for block in good) for phase in PHASES}
    return Summary(len(good), rejected, Figure(median(seconds), min(seconds), max(seconds)), phases)
