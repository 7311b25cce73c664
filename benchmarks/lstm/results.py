"""From blocks to what is reported: a row a condition, as JSON and as a table."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.lstm.conditions import Condition, Group, Shape
from benchmarks.lstm.limits import limit
from benchmarks.lstm.protocol import Block, Crew, Rules, Summary, floor, summarise
from benchmarks.lstm.record import Measured

from isotrain.files import write_text

NONE = "–"


@dataclass(frozen=True)
class Row:
    """One condition at one shape. Milliseconds a step; speed-ups are ratios of medians, > 1 = faster."""

    shape: Shape
    condition: Condition
    summary: Summary
    x_stock: float | None
    x_tuned: float | None
    x_full: float | None  # over the same method with nothing isolated
    limit: float | None  # of x_full, by FLOP count
    memory: float | None  # MiB
    missing: str  # why there are no times; "" = there are

    @property
    def ms(self) -> float | None:
        return None if self.summary.seconds is None else 1e3 * self.summary.seconds.median

    @property
    def share_of_limit(self) -> float | None:
        return None if self.x_full is None or self.limit is None else self.x_full / self.limit


def floors(groups: Sequence[Group], measured: Mapping[str, Measured]) -> dict[str, dict[str, float]]:
    """Group -> worker -> the kernel's floor, from what was read up to and with that group."""
    seen: dict[str, list[Block]] = {}
    found = {}
    for group in groups:
        known = measured.get(str(group.shape), Measured())
        for name, block in known.all():
            seen.setdefault(group[name].worker, []).append(block)
        found[str(group.shape)] = {worker: floor(blocks) for worker, blocks in seen.items()}
    return found


def rows(group: Group, measured: Measured, floor_of: Mapping[str, float], rules: Rules, crew: Crew) -> dict[str, Row]:
    """Condition -> row, in the group's order."""
    summaries = {
        c.name: summarise(measured.of(c.name), floor_of.get(c.worker, 0.0), rules, crew) for c in group.conditions
    }
    return {c.name: _row(group.shape, c, summaries, measured) for c in group.conditions}


def _row(shape: Shape, condition: Condition, summaries: Mapping[str, Summary], measured: Measured) -> Row:
    def times_faster_than(other: str) -> float | None:
        mine, theirs = summaries[condition.name].seconds, summaries[other].seconds if other in summaries else None
        return None if mine is None or theirs is None else theirs.median / mine.median

    summary = summaries[condition.name]
    return Row(
        shape,
        condition,
        summary,
        x_stock=times_faster_than("stock"),
        x_tuned=times_faster_than("tuned"),
        x_full=times_faster_than(condition.full) if condition.full else None,
        limit=limit(shape, condition) if condition.full else None,
        memory=(measured.memory or {}).get(condition.name),
        missing=measured.absent.get(condition.name, summary.missing),
    )


@dataclass(frozen=True)
class Outcome:
    """A whole run: what it was, and what it measured."""

    facts: Mapping[str, Any]  # hardware, settings and so on
    wanted: Sequence[Group]
    known: Mapping[str, Measured]  # by shape
    rules: Rules
    crew: Crew

    def table(self) -> list[dict[str, Row]]:
        """The rows of every group, in order."""
        floor_of = floors(self.wanted, self.known)
        found = []
        for group in self.wanted:
            key = str(group.shape)
            found.append(rows(group, self.known.get(key, Measured()), floor_of[key], self.rules, self.crew))
        return found


def write_json(path: Path, outcome: Outcome) -> None:
    """Facts, rows and every block, a line each: small differences stay small differences of the file."""
    known = outcome.known.items()
    block_lines = [
        _json({"shape": shape, "round": number, "condition": name, **asdict(block)})
        for shape, measured in known
        for number, blocks in enumerate(measured.rounds)
        for name, block in blocks.items()
    ]
    lists = {
        "absent": [_json({"shape": shape, **measured.absent}) for shape, measured in known if measured.absent],
        "memory": [
            _json({"shape": shape, **_rounded(measured.memory)}) for shape, measured in known if measured.memory
        ],
        "rows": [_json(_as_dict(row)) for found in outcome.table() for row in found.values()],
        "blocks": block_lines,
    }
    parts = [f'"{key}": {_json(value)}' for key, value in outcome.facts.items()]
    parts += [f'"{key}": {_list(lines)}' for key, lines in lists.items()]
    write_text(path, "{\n" + ",\n".join(parts) + "\n}\n")


def read_json(path: Path) -> tuple[dict[str, Any], dict[str, Measured]]:
    """Facts and what was measured, as :func:`write_json` wrote them."""
    facts = json.loads(path.read_text(encoding="utf-8"))
    del facts["rows"]  # they follow from the blocks
    known: dict[str, Measured] = {shape: Measured() for shape in facts["groups"]}
    for line in facts.pop("absent"):
        known[line.pop("shape")].absent = line
    for line in facts.pop("memory"):
        known[line.pop("shape")].memory = line
    for line in facts.pop("blocks"):
        rounds = known[line.pop("shape")].rounds
        number, name = line.pop("round"), line.pop("condition")
        rounds.extend({} for _ in range(number + 1 - len(rounds)))
        rounds[number][name] = Block(**line)
    return facts, known


def _list(lines: Sequence[str]) -> str:
    return "[\n" + ",\n".join(lines) + "\n]"


def _as_dict(row: Row) -> dict[str, Any]:
    summary = row.summary
    times = {} if summary.seconds is None else {f"{k}_ms": 1e3 * v for k, v in asdict(summary.seconds).items()}
    return _rounded(
        {
            "shape": str(row.shape),
            "condition": row.condition.name,
            **times,
            **{f"{phase}_ms": 1e3 * seconds for phase, seconds in summary.phases.items()},
            "x_stock": row.x_stock,
            "x_tuned": row.x_tuned,
            "x_full": row.x_full,
            "limit": row.limit,
            "share_of_limit": row.share_of_limit,
            "memory_mib": row.memory,
            "good_blocks": summary.good,
            "rejected": dict(summary.rejected),
            "missing": row.missing,
        }
    )


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in values.items()}


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False)


def markdown(outcome: Outcome) -> str:
    """Every shape's table, after what is needed to read it."""
    facts = outcome.facts
    machine, settings = facts["hardware"], facts["settings"]
    lines = [
        "# A training step of an LSTM, by method",
        "",
        f"{machine['cpu']}, {settings['threads']} of {machine['cores']} cores; torch {machine['torch']}; "
        f"{facts['date']}; code {facts['commit']}; loss {settings['regime']}.",
        "",
        "Milliseconds a step: median (least to greatest) of undisturbed blocks; forward, backward and optimiser have "
        "medians of their own. Speed-ups are ratios of medians. *Limit*: how much faster than the same method with "
        "nothing isolated the count of matrix products allows; *reached*: the measured share of it. *Memory*: peak "
        "growth of the resident set. *Blocks*: good + rejected. See benchmarks/README.md.",
    ]
    for found in outcome.table():
        lines += _shape_table(list(found.values()))
    return "\n".join(lines) + "\n"


def _shape_table(found: Sequence[Row]) -> list[str]:
    head = ["method", "ms a step", "forward", "backward", "optimiser", "x stock", "x tuned", "limit", "reached"]
    head += ["memory, MiB", "blocks"]
    present = [row for row in found if row.ms is not None]
    lines = ["", f"## {found[0].shape.label}", ""]
    if present:
        lines += ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
        lines += ["| " + " | ".join(_cells(row)) + " |" for row in present]
    absent: dict[str, list[str]] = {}
    for row in found:
        if row.ms is None:
            absent.setdefault(row.missing, []).append(row.condition.name)
    lines += [""] if absent else []
    return lines + [f"- No figure for {', '.join(names)}: {reason}" for reason, names in absent.items()]


def _cells(row: Row) -> list[str]:
    assert row.summary.seconds is not None
    milliseconds = [1e3 * seconds for seconds in asdict(row.summary.seconds).values()]
    return [
        row.condition.name,
        f"{short(milliseconds[0])} ({short(milliseconds[1])} to {short(milliseconds[2])})",
        *(short(1e3 * row.summary.phases[phase]) for phase in ("forward", "backward", "optimiser")),
        *(times(value) for value in (row.x_stock, row.x_tuned, row.limit)),
        NONE if row.share_of_limit is None else f"{100 * row.share_of_limit:.0f} %",
        NONE if row.memory is None else f"{row.memory:.0f}",
        f"{row.summary.good} + {sum(row.summary.rejected.values())}",
    ]


def short(milliseconds: float) -> str:
    """Three significant digits, whole numbers from 100 on."""
    return f"{milliseconds:.0f}" if milliseconds >= 100 else f"{milliseconds:.3g}"


def times(value: float | None) -> str:
    """A speed-up: two digits after the point below 2, one below 10."""
    if value is None:
        return NONE
    return f"{value:.2f}" if value < 2 else f"{value:.1f}" if value < 10 else f"{value:.0f}"
