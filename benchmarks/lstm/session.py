"""One run: groups of conditions in turn, in two processes, every round kept as it ends."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing

from benchmarks.lstm.conditions import REFERENCES, Group, Regime
from benchmarks.lstm.memory import Meter
from benchmarks.lstm.protocol import Block, Crew, Rules, contamination, due, order
from benchmarks.lstm.record import Record
from benchmarks.lstm.results import floors, rows
from benchmarks.lstm.worker import Absent, Worker

Workers = Mapping[str, Worker]  # "stock", "prepared"


class Session:
    """What is to be timed, by which rules, and what is known so far."""

    def __init__(self, wanted: Sequence[Group], record: Record, rules: Rules, crew: Crew, regime: Regime) -> None:
        self.wanted, self.record, self.rules, self.crew, self.regime = wanted, record, rules, crew, regime

    def time_all(self, workers: Workers) -> None:
        """Every round that the record does not hold yet."""
        for group in self.wanted:
            self._time(group, workers)

    def weigh_all(self) -> None:
        """Peak memory of what was timed, where there is more than the references."""
        with closing(Meter()) as meter:
            for group in self.wanted:
                key, known = str(group.shape), self.record.of(str(group.shape))
                if known.memory is not None or len(group.conditions) <= len(REFERENCES):
                    continue
                start = time.monotonic()
                names = [c.name for c in group.conditions if known.of(c.name)]
                peaks = {
                    name: meter.mebibytes(group.shape, group[name], self.regime, self.crew.threads) for name in names
                }
                self.record.add_memory(key, peaks)
                _say(group, f"memory of {len(names)} conditions, {time.monotonic() - start:.1f} s")

    def _time(self, group: Group, workers: Workers) -> None:
        key, known = str(group.shape), self.record.of(str(group.shape))
        steps: dict[str, int] = {}
        while names := self._due(group):
            start = time.monotonic()
            absent: dict[str, str] = {}
            for name in (name for name in names if name not in steps):
                try:
                    steps[name] = workers[group[name].worker].open(group.shape, group[name], self.rules)
                except Absent as reason:
                    absent[name] = str(reason)
            blocks = {}
            for name in order([name for name in names if name in steps], key, len(known.rounds)):
                try:
                    blocks[name] = workers[group[name].worker].block(name, steps[name])
                except Absent as reason:
                    absent[name] = str(reason)
            self.record.add_round(key, blocks, absent)
            for missing in dict.fromkeys(absent.values()):
                without = ", ".join(name for name, why in absent.items() if why == missing)
                _say(group, f"{without}: {missing}")
            seconds = time.monotonic() - start
            _say(group, f"round {len(known.rounds)}: {self._verdicts(group, blocks)}, {seconds:.1f} s")
        if steps:
            for worker in workers.values():
                worker.clear()

    def _due(self, group: Group) -> list[str]:
        known, floor_of = self.record.of(str(group.shape)), self._floor_of(group)
        names = [c.name for c in group.conditions if c.name not in known.absent]
        found = rows(group, known, floor_of, self.rules, self.crew)
        good = {name: row.summary.good for name, row in found.items()}
        return due(names, good, len(known.rounds), self.rules)

    def _verdicts(self, group: Group, blocks: Mapping[str, Block]) -> str:
        floor_of = self._floor_of(group)
        verdicts = [contamination(b, floor_of[group[name].worker], self.rules, self.crew) for name, b in blocks.items()]
        bad = Counter(verdict for verdict in verdicts if verdict is not None)
        why = f" ({', '.join(f'{reason} {count}' for reason, count in bad.items())})" if bad else ""
        return f"{len(blocks)} blocks, {sum(bad.values())} contaminated{why}"

    def _floor_of(self, group: Group) -> dict[str, float]:
        return floors(self.wanted, self.record.groups)[str(group.shape)]


def _say(group: Group, text: str) -> None:
    print(f"{group.shape.label}: {text}", flush=True)
