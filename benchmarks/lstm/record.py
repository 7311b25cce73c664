"""What a run has measured so far, on disk after every round, so that it can be interrupted and taken up again."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.lstm.protocol import Block

from isotrain.errors import InputError


@dataclass
class Measured:
    """Of one group."""

    rounds: list[dict[str, Block]] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)  # condition -> why it has no figures
    memory: dict[str, float | None] | None = None  # MiB; None = not asked yet

    def of(self, name: str) -> list[Block]:
        """The blocks of one condition."""
        return [blocks[name] for blocks in self.rounds if name in blocks]

    def all(self) -> Iterator[tuple[str, Block]]:
        for blocks in self.rounds:
            yield from blocks.items()


class Record:
    """A file of JSON lines: what the run is, then a line a round.

    A line counts when its end is there: what an interruption left of the last one is cut off, and that round is
    timed again. Raises :class:`InputError` if the file belongs to another run; only the commit may be another.
    """

    def __init__(self, path: Path, run: Mapping[str, Any], restart: bool = False) -> None:
        self.path = path
        self.groups: dict[str, Measured] = {}
        if restart:
            path.unlink(missing_ok=True)
        lines = _whole_lines(path)
        if not lines:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append({"run": run})
            return
        _require_same(path, json.loads(lines[0])["run"], json.loads(json.dumps(run)))
        for line in lines[1:]:
            self._read(json.loads(line))

    def of(self, group: str) -> Measured:
        """What is known of a group."""
        return self.groups.setdefault(group, Measured())

    def add_round(self, group: str, blocks: Mapping[str, Block], absent: Mapping[str, str]) -> None:
        """Keep one round."""
        line = {
            "group": group,
            "round": len(self.of(group).rounds),
            "blocks": {name: asdict(block) for name, block in blocks.items()},
            "absent": dict(absent),
        }
        self._append(line)
        self._read(line)

    def add_memory(self, group: str, memory: Mapping[str, float | None]) -> None:
        """Keep the peaks of a group."""
        line = {"group": group, "memory": dict(memory)}
        self._append(line)
        self._read(line)

    def remove(self) -> None:
        """The run is finished and its results are written."""
        self.path.unlink()

    def _read(self, line: Mapping[str, Any]) -> None:
        group = self.of(line["group"])
        if "memory" in line:
            group.memory = dict(line["memory"])
        elif line["round"] == len(group.rounds):  # else it is there already
            group.rounds.append({name: Block(**block) for name, block in line["blocks"].items()})
            group.absent |= line["absent"]

    def _append(self, line: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def _whole_lines(path: Path) -> list[str]:
    """The lines that have an end; the rest is cut off, else the next line would be glued to it."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        with path.open("r+b") as stream:
            stream.truncate(len(whole))
    return whole.decode("utf-8").splitlines()


def _require_same(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    differ = sorted(key for key in (old.keys() | new.keys()) - {"commit"} if old.get(key) != new.get(key))
    if differ:
        raise InputError(
            f"{path} is an unfinished run that differs in {', '.join(differ)}: repeat that run to finish it, "
            "or add --restart to throw it away"
        )
