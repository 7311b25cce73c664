"""Time a training step of the LSTM by every method; write a table, the blocks and a figure.

    python -m benchmarks.lstm.run              ten to fifteen minutes
    python -m benchmarks.lstm.run --quick      about two

Start it from the repository root, on a machine with nothing else to do. Interrupt it when you like: every finished
round is kept in a .partial file beside the results, and the same command goes on from there.
"""

import argparse
import datetime
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.lstm import step
from benchmarks.lstm.conditions import QUICK, SHAPES, Group, conditions, groups, parse_shape
from benchmarks.lstm.figure import draw
from benchmarks.lstm.load import CORES
from benchmarks.lstm.protocol import Crew, Rules
from benchmarks.lstm.record import Record
from benchmarks.lstm.results import Outcome, markdown, read_json, write_json
from benchmarks.lstm.session import Session, Workers
from benchmarks.lstm.worker import Worker

import isotrain.lstm
from isotrain.errors import InputError
from isotrain.files import sha256, sha256_text, write_text
from isotrain.training.machine import alone, commit, hardware

RESULTS = Path(__file__).parents[1] / "results"


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    asked = _parser().parse_args(words)
    try:
        if asked.redraw:
            redraw(asked.redraw)
        else:
            run(asked)
    except InputError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: the finished rounds are kept; the same command goes on from there", file=sys.stderr)
        sys.exit(130)


def run(asked: argparse.Namespace) -> None:
    """Time what is asked for, or what is left of it, and write the results."""
    rules = Rules(asked.rounds, min(asked.least, asked.rounds), asked.rounds, asked.block, asked.tolerance)
    crew = Crew(asked.threads or len(CORES), len(CORES))
    wanted = _wanted(asked)
    machine = hardware() | {"threads": crew.threads}
    path = asked.output / _name(asked, machine["cpu"], crew)
    with alone(), _workers(crew, asked.regime) as workers:
        facts = {
            "hardware": machine,
            "commit": commit(),
            "timed_code": _timed_code(),
            "settings": {"regime": asked.regime, "threads": crew.threads, "rules": asdict(rules)},
            "runtime": {name: worker.settings for name, worker in workers.items()},
            "groups": {str(group.shape): [c.name for c in group.conditions] for group in wanted},
        }
        record = Record(path.with_name(path.name + ".partial"), facts, asked.restart)
        session = Session(wanted, record, rules, crew, asked.regime)
        session.time_all(workers)
        if not asked.no_memory:
            session.weigh_all()
    date = datetime.date.today().isoformat()
    _write(path, Outcome(facts | {"date": date}, wanted, record.groups, rules, crew))
    record.remove()


def redraw(path: Path) -> None:
    """Write table and figure again, from the blocks of a results file."""
    facts, known = read_json(path)
    settings, regime = facts["settings"], facts["settings"]["regime"]
    wanted = [
        Group(shape, tuple(c for c in conditions(shape, regime) if c.name in names))
        for shape, names in ((parse_shape(text), names) for text, names in facts["groups"].items())
    ]
    crew = Crew(settings["threads"], facts["hardware"]["cores"])
    _write(
        path.with_name(path.name.removesuffix(".json")), Outcome(facts, wanted, known, Rules(**settings["rules"]), crew)
    )


def _write(path: Path, outcome: Outcome) -> None:
    write_json(_with(path, ".json"), outcome)
    write_text(_with(path, ".md"), markdown(outcome))
    draw(outcome, _with(path, ".png"))
    print("written: " + ", ".join(str(_with(path, end)) for end in (".json", ".md", ".png")))


def _with(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)  # with_suffix would cut a name at its first dot


@contextmanager
def _workers(crew: Crew, regime: Any) -> Iterator[Workers]:
    with closing(Worker(False, crew.threads, regime)) as stock, closing(Worker(True, crew.threads, regime)) as prepared:
        yield {"stock": stock, "prepared": prepared}


def _wanted(asked: argparse.Namespace) -> tuple[Group, ...]:
    shapes = [parse_shape(text) for text in asked.shapes] or (QUICK if asked.quick else SHAPES)
    growth = not (asked.quick or asked.shapes or asked.no_growth)
    return groups(tuple(dict.fromkeys(shapes)), growth, asked.only, asked.regime)


def _timed_code() -> str:
    """What tells whether rounds of another day timed the same thing: a commit elsewhere changes nothing."""
    package = Path(isotrain.lstm.__file__).parent
    sources = sorted(path for end in ("py", "cpp", "h") for path in package.rglob(f"*.{end}"))
    return sha256_text("".join(sha256(path) for path in (*sources, Path(step.__file__))))[:12]


def _name(asked: argparse.Namespace, cpu: str, crew: Crew) -> str:
    """A run of something else than the default never replaces the default's results."""
    slug = re.sub(r"[^a-z0-9]+", "-", cpu.lower()).strip("-")
    parts = ["lstm", slug]
    parts += [asked.regime] if asked.regime != "windowed" else []
    parts += [f"{crew.threads}-threads"] if crew.threads != crew.cores else []
    parts += ["quick"] if asked.quick else []
    parts += ["part"] if asked.shapes or asked.only or asked.no_growth else []
    return "-".join(parts)


def _parser() -> argparse.ArgumentParser:
    rules = Rules()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two shapes, no growth")
    parser.add_argument("--shapes", nargs="+", default=[], metavar="HxL[xTxB]", help="these only, as in 150x5x96x500")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="conditions that begin so, and references"
    )
    parser.add_argument(
        "--regime", choices=("windowed", "streamed"), default="windowed", help="where the loss is taken"
    )
    parser.add_argument("--threads", type=int, default=0, help="default: every core")
    parser.add_argument("--rounds", type=int, default=rules.rounds)
    parser.add_argument("--least", type=int, default=rules.least, help="good blocks that a figure needs")
    parser.add_argument("--block", type=float, default=rules.block_seconds, help="seconds of a block")
    parser.add_argument("--tolerance", type=float, default=rules.tolerance, help="of the reference kernel")
    parser.add_argument("--no-growth", action="store_true", help="without the references at other T, B and H")
    parser.add_argument("--no-memory", action="store_true", help="without peak memory")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder")
    parser.add_argument("--restart", action="store_true", help="throw an unfinished run away")
    parser.add_argument(
        "--redraw", type=Path, metavar="JSON", help="only write table and figure of these results again"
    )
    return parser


if __name__ == "__main__":
    main()
