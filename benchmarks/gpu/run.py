"""Training on a GPU: the gpu tests, a table of training steps, and whole trainings to equal error, in nine minutes.

Each method of the whole trainings has its own learning rate, chosen before by one training with each of RATES on a seed
that is not timed, by the validation error alone: the same small budget for all.

    make bench-gpu                               the python that has a CUDA build of torch: PYTHON=/path/to/python3
    python -m benchmarks.gpu.run --help

Needs torch; what pytest, Lightning and matplotlib are needed for is left out, and said, where they are not installed.
Interrupt it when you like: every finished row is kept in a .partial file, and the same command goes on from there.
"""

import argparse
import datetime
import importlib.util
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from benchmarks.gpu.steps import SHAPES, TINY, measure, ways
from benchmarks.lstm.conditions import parse_shape

from isotrain.lstm.credit import scan

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
NONE = "no CUDA device: nothing was measured, and the tables of docs/gpu.md stay 'not measured'"
METHODS = ("tuned", "stock", "credit-none", "credit-thawed", "isolated", "small")
SEEDS, WIDTHS = (0, 1, 2), {"simulated": (256, 64), "Drahi-X": (256,)}
RATES, CHOOSING = (0.005, 0.015, 0.045), 100  # peaks of the one-cycle schedule, and the seed on which one is chosen
TESTS = (
    *(f"tests/lstm/test_{name}.py" for name in ("gpu", "credit", "backends", "reference")),
    "tests/test_graphed.py",
    "tests/adapt/test_device.py",
)
NAMES = ("passed", "failed", "errors", "skipped")
# seconds of each on an H100 as they were estimated, without one; share of the time after which none is begun
COST = {"tests": 120.0, "step": 1.0, "rate": 2.0, "training": 2.0}
UNTIL = {"tests": 1.0, "step": 0.65, "rate": 0.99, "training": 0.99}
Row = dict[str, Any]


class Job(NamedTuple):
    """Something to measure: one of COST, the key of its row, and the work."""

    kind: str
    key: str
    work: Callable[[], Row]


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    asked = _parser().parse_args(words)
    if asked.device == "cuda" and not torch.cuda.is_available():
        print(NONE)
        return
    if asked.device == "cpu":
        torch.set_num_threads(1)
    end = time.monotonic() + asked.seconds
    facts = _facts(asked)
    path = asked.output / f"gpu-{_slug(facts['device'])}"
    kept = Kept(path.with_name(path.name + ".partial"), facts)
    wanted = _jobs(asked, kept.rows)
    left = [job for job in wanted if job.key not in kept.rows]
    print(f"{facts['device']}, torch {facts['torch']}: {asked.seconds:.0f} s at most; {estimated(left)}", flush=True)
    for job in left:
        last = 1.0 if asked.no_fits and job.kind == "step" else UNTIL[job.kind]
        if time.monotonic() < end - (1 - last) * asked.seconds:
            kept.once(job)
    write(path, {"facts": facts, "rows": kept.rows})
    if all(job.key in kept.rows for job in wanted):
        kept.path.unlink(missing_ok=True)
    else:
        print("not everything was measured: the same command goes on where it stopped")


def _jobs(asked: argparse.Namespace, rows: dict[str, Row]) -> list[Job]:
    """What is to be measured, in order; ``rows``: what was, when a job is begun."""
    found = [Job("tests", "tests", partial(run_tests, min(150.0, 0.3 * asked.seconds)))] if asked.tests else []
    for shape in [parse_shape(text) for text in asked.shapes] or (TINY if asked.tiny else SHAPES):
        for way in ways(shape):
            work = partial(measure, shape, way, asked.device, asked.block)
            found.append(Job("step", f"{shape} {way.name}", work))
    return found + ([] if asked.no_fits else _trainings(asked, rows))


def estimated(jobs: Sequence[Job]) -> str:
    """How long ``jobs`` may take, in words."""
    count = {kind: sum(job.kind == kind for job in jobs) for kind in COST}
    parts = [f"{kind} {many} x {COST[kind]:g}" for kind, many in count.items() if many]
    whole = sum(COST[kind] * many for kind, many in count.items())
    return f"estimated for an H100, not measured: {whole:.0f} s ({', '.join(parts) or 'nothing is left'})"


class Kept:
    """Finished rows, each a line of a file: an interrupted run goes on after the last."""

    def __init__(self, path: Path, facts: Row) -> None:
        self.path = path
        self.rows: dict[str, Row] = {}
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        if found and found[0] == facts:
            self.rows = {one["key"]: one["row"] for one in found[1:]}
            print(f"going on after {len(self.rows)} rows of {path.name}")
        else:
            found = []
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = [facts, *found[1:]]  # a line that a kill cut short is gone
        path.write_text("".join(json.dumps(one) + "\n" for one in whole), encoding="utf-8")

    def once(self, job: Job) -> None:
        """Do ``job``, keep its row, print it."""
        start = time.monotonic()
        row = job.work()
        row |= {"kind": job.kind, "took": round(time.monotonic() - start, 2)}
        self.rows[job.key] = row
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": job.key, "row": row}) + "\n")
        print(f"{job.key}: {_short(row)} ({row['took']:.1f} s)", flush=True)


# The tests -----------------------------------------------------------------------------------------------------------


def run_tests(seconds: float, marker: str = "gpu", files: Sequence[str] = TESTS) -> Row:
    """``pytest -m gpu`` in a process of its own: how many passed, and what failed."""
    if importlib.util.find_spec("pytest") is None:
        return {"said": "not run: pytest is not installed"}
    words = [sys.executable, "-m", "pytest", "-q", "-m", marker, "-o", "addopts=", "-p", "no:cacheprovider"]
    words += ["--continue-on-collection-errors", "--tb=line", *files]
    try:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
        text, late = done.stdout + done.stderr, ""
    except subprocess.TimeoutExpired as problem:
        text, late = (problem.stdout or b"").decode(errors="replace"), f"; stopped after {seconds:.0f} s"
    lines = text.strip().splitlines()
    dots = "".join(line.split()[0] for line in lines if re.fullmatch(r"[.FEsx]+( *\[ *\d+%\])?", line))
    words = [f"{dots.count(mark)} {word}" for mark, word in zip(".FEs", NAMES, strict=True)]
    failed = [line[:200] for line in lines if line.startswith(("FAILED", "ERROR", "E "))]
    return {"said": ", ".join(words) + late, "failed": failed[:40]}


# Whole trainings -----------------------------------------------------------------------------------------------------


def _trainings(asked: argparse.Namespace, rows: dict[str, Row]) -> list[Job]:
    """On the simulated building, and on the real series where there is one: first those that choose rates."""
    named = os.environ.get("ISOTRAIN_REAL_SERIES")
    real = Path(named) if named else next((ROOT.parent / "shared" / "data").glob("DrahiX*.csv"), None)
    files = {"simulated": None, **({"Drahi-X": real} if real and not asked.tiny else {})}
    wide = {"simulated": (6,)} if asked.tiny else WIDTHS
    methods, seeds = (METHODS[:2], SEEDS[:1]) if asked.tiny else (METHODS, SEEDS)
    found = []
    for number in range(max(map(len, wide.values()))):  # what matters most of each series first
        for series, file in files.items():
            for width in wide[series][number : number + 1]:
                of = partial(train, asked, series, file, width)
                for method in methods:
                    for rate in RATES:
                        work = partial(of, method, CHOOSING, rate)
                        found.append(Job("rate", f"rate {series} {width} {method} {rate:g}", work))
                for seed in seeds:
                    for method in methods:
                        work = partial(timed, rows, of, series, width, method, seed)
                        found.append(Job("training", f"training {series} {width} {method} {seed}", work))
    return found


def chosen_rate(rows: Iterable[Row], series: str, width: int, method: str) -> float | None:
    """The rate with the least validation error of those tried on the seed CHOOSING; None where all failed."""
    tried = {
        row["rate"]: min((error for _, error in row["curve"] if math.isfinite(error)), default=math.inf)
        for row in rows
        if row.get("kind") == "rate"
        and "curve" in row
        and (row["series"], row["width"], row["method"]) == (series, width, method)
    }
    return min(tried, key=lambda rate: tried[rate], default=None)


def timed(
    rows: Mapping[str, Row], of: Callable[[str, int, float], Row], series: str, width: int, method: str, seed: int
) -> Row:
    """The training of ``method`` by ``of`` with the rate that was chosen for it."""
    rate = chosen_rate(rows.values(), series, width, method)
    if rate is None:
        return {"series": series, "width": width, "method": method, "seed": seed, "error": "no rate could be chosen"}
    return of(method, seed, rate)


_WINDOWS: dict[str, Any] = {}


def train(
    asked: argparse.Namespace, series: str, file: Path | None, width: int, method: str, seed: int, rate: float
) -> Row:
    """One training: seconds and validation error at each validation."""
    row: Row = {"series": series, "width": width, "method": method, "seed": seed, "rate": rate}
    if missing := [
        name for name in ("pytorch_lightning", "pandas", "mlflow") if importlib.util.find_spec(name) is None
    ]:
        return row | {"error": f"not run: {', '.join(missing)} not installed"}
    try:
        from isotrain.config import IngestView, MethodsView, WindowView, load
        from isotrain.data.ingest import ingest
        from isotrain.data.windowing import make_windows
        from isotrain.training.fit import Fit, Loop, prepare_process

        params = ROOT / "params.yaml"
        if series not in _WINDOWS:
            hours = {"ingest.simulated.hours": 24 * 7 * 20} if asked.tiny else {}
            source = {"ingest.source": str(file), "ingest.checks": "drahix"} if file else {"ingest.source": "simulated"}
            read = ingest(load(params, view=IngestView, overrides={**source, **hours}).ingest, Path())
            _WINDOWS[series] = make_windows(read.frame, read.facts, load(params, view=WindowView).window)
        short = {"training.steps": 20, "training.validate_every": 10, "training.stretches": 2} if asked.tiny else {}
        of_width = {"model.hidden": width} if method != "small" else {"model.hidden": max(width // 4, 4)}
        settings = load(params, view=MethodsView).settings(
            method,
            {
                "training.accelerator": asked.device,
                "training.learning_rate": rate,
                "runtime.fp16": method != "stock",
                **of_width,
                **short,
            },
        )
        prepare_process(settings)
        loop = Loop(Fit(settings, seed, _WINDOWS[series], Path()))
        loop.run()
        row["curve"] = [[round(r["train_seconds"], 4), r["val_mae"]] for r in loop.clock.rows]
        graphed = getattr(loop.module, "graphed", None)
        row |= {"ms": loop.clock.step_ms_median, "recorded": graphed.recorded if graphed else 0}
    except Exception as problem:  # noqa: BLE001 - as a row of the table
        row["error"] = f"{type(problem).__name__}: {problem}"[:300]
    return row


def to_equal_error(rows: Sequence[Row], tolerance: float = 0.01) -> list[Row]:
    """For each series, width and method: median seconds to the error of ``tuned``; infinite where it is missed.

    The error is the median over the seeds of the least validation error of ``tuned`` at that width, and ``tolerance``
    above.
    """
    found = []
    good = [row for row in rows if "curve" in row and row.get("kind") != "rate"]
    for series, width in dict.fromkeys((row["series"], row["width"]) for row in good):
        here = [row for row in good if (row["series"], row["width"]) == (series, width)]
        best = [min(error for _, error in row["curve"]) for row in here if row["method"] == "tuned"]
        if not best:
            continue
        target = statistics.median(best) * (1 + tolerance)
        for method in dict.fromkeys(row["method"] for row in here):
            curves = [row["curve"] for row in here if row["method"] == method]
            reached = [next((s for s, error in curve if error <= target), math.inf) for curve in curves]
            found.append(
                {"series": series, "width": width, "method": method, "seeds": len(curves), "target": target,
                 "rate": next((row["rate"] for row in here if row["method"] == method), None),
                 "seconds": statistics.median(reached), "whole": statistics.median(curve[-1][0] for curve in curves)}
            )  # fmt: skip
    return found


# Results -------------------------------------------------------------------------------------------------------------


def write(path: Path, results: Row) -> None:
    """The results as JSON, a table and, where matplotlib is, a figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ends = {".json": json.dumps(results, indent=1) + "\n", ".md": markdown(results)}
    for end, text in ends.items():
        path.with_name(path.name + end).write_text(text, encoding="utf-8")
    written = list(ends)
    if importlib.util.find_spec("matplotlib"):
        draw(results, path.with_name(path.name + ".png"))
        written.append(".png")
    print("written: " + ", ".join(path.name + end for end in written) + f" in {path.parent}")


def speedups(results: Row) -> dict[str, list[Row]]:
    """Rows of each shape, with ``speedup``: how much faster than the fastest that leaves nothing out."""
    by_shape: dict[str, list[Row]] = {}
    for row in results["rows"].values():
        if "shape" in row:
            by_shape.setdefault(row["shape"], []).append(dict(row))
    for rows in by_shape.values():
        reference = min((row["ms"] for row in rows if row["ms"] and row["way"].startswith("tuned")), default=None)
        for row in rows:
            row["speedup"] = reference / row["ms"] if reference and row["ms"] else None
    return by_shape


def markdown(results: Row) -> str:
    """The tables."""
    facts, rows = results["facts"], results["rows"]
    lines = [
        f"# Training on {facts['device']}", "",
        f"torch {facts['torch']}, CUDA {facts['cuda']}, cuDNN {facts['cudnn']}, Triton {facts['triton'] or 'missing'}, "
        f"{facts['date']}, commit {facts['commit']}. Command: `make bench-gpu`.", "",
        f"The tests marked gpu: {rows.get('tests', {}).get('said', 'not run')}.",
        f"Seconds that it took: {_took(rows.values())}.", "",
        *(f"- `{line}`" for line in rows.get("tests", {}).get("failed", [])),
        "## Steps", "",
        "Streamed: the loss reads every 7th hour of the last half. `x tuned`: against the fastest of the tuned ways.",
        "Launches are the host's, kernels the GPU's, in one step.", "",
    ]  # fmt: skip
    for shape, found in speedups(results).items():
        lines += ["", f"### {parse_shape(shape).label}", "", "| way | ms | x tuned | launches | kernels | MiB | |"]
        lines += ["| --- | ---: | ---: | ---: | ---: | ---: | --- |"]
        for row in found:
            numbers = [_number(row.get(key)) for key in ("ms", "speedup", "launches", "kernels", "memory_mib")]
            lines.append(f"| `{row['way']}` | {' | '.join(numbers)} | {row.get('error') or row['label']} |")
        lines += ["", *(f"- `{row['way']}`, cuDNN's kernels: {row['rule']}" for row in found if row.get("rule"))]
        lines += [f"- `{row['way']}`, longest: {'; '.join(row['longest'])}" for row in found if row.get("longest")]
    lines += ["", "## Seconds to the error of tuned", ""]
    lines += [
        f"Learning rate of each method: of {', '.join(f'{rate:g}' for rate in RATES)} the one with the least",
        f"validation error on seed {CHOOSING}, which is not timed; * marks the least and the greatest.",
        "",
    ]
    ended = to_equal_error(list(rows.values()))
    if ended:
        lines += [
            "| series | units | method | rate | seeds | s to the error | s in all |",
            "| --- | ---: | --- | ---: | ---: | ---: | ---: |",
        ]
    for row in ended:
        reached = "missed" if math.isinf(row["seconds"]) else f"{row['seconds']:.3g}"
        rate = f"{row['rate']:g}{' *' if row['rate'] in (RATES[0], RATES[-1]) else ''}"
        cells = [row["series"], row["width"], f"`{row['method']}`", rate, row["seeds"], reached, f"{row['whole']:.3g}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    problems = sorted(
        {row["error"] for row in rows.values() if "curve" not in row and "series" in row and "error" in row}
    )
    lines += [f"- {problem}" for problem in problems] if problems or ended else ["Not measured."]
    return "\n".join(lines) + "\n"


def draw(results: Row, path: Path) -> None:
    """A bar for each shape and way: how much faster than tuned."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = {shape: [row for row in rows if row["speedup"]] for shape, rows in speedups(results).items()}
    found = {shape: rows for shape, rows in found.items() if rows}
    figure = Figure(figsize=(9, 1 + 0.22 * sum(len(rows) + 1 for rows in found.values())), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    place, marks, names = 0.0, [], []
    for shape, rows in found.items():
        for row in rows:
            tuned = row["way"].startswith("tuned")
            axes.barh(place, row["speedup"], color="#999999" if tuned else "#0072B2")
            marks.append(place)
            names.append(f"{parse_shape(shape).label}: {row['way']}")
            place -= 1
        place -= 0.7
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(marks, names, fontsize=7)
    axes.set_xlabel("times as fast as the fastest way that leaves nothing out (grey)")
    axes.set_title(f"A training step of an LSTM on {results['facts']['device']}", loc="left", fontsize=10)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _took(rows: Iterable[Row]) -> str:
    found = [row for row in rows if "took" in row]
    sums = {kind: sum(row["took"] for row in found if row["kind"] == kind) for kind in COST}
    return ", ".join(f"{kind} {spent:.0f}" for kind, spent in sums.items() if spent) or "not known"


def _short(row: Row) -> str:
    if row.get("error") or "said" in row:
        return str(row.get("error") or row["said"])
    if "curve" in row:
        return f"{row['curve'][-1][0]:.2f} s, least error {min(error for _, error in row['curve']):.3f}"
    return f"{row['ms']:.3f} ms"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _facts(asked: argparse.Namespace) -> Row:
    head = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    here = asked.device == "cuda"
    return {
        "device": torch.cuda.get_device_name() if here else f"cpu {platform.machine()}",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if here else None,
        "triton": kernels.triton.__version__ if here and (kernels := scan()) is not None else None,
        "commit": head.stdout.strip() or "none",
        "date": datetime.date.today().isoformat(),
        "regime": "streamed",
    }


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=520, help="after which no further row is begun (520)")
    parser.add_argument("--shapes", nargs="+", default=[], metavar="HxLxTxB", help="these only, as in 256x1x168x64")
    parser.add_argument("--no-tests", dest="tests", action="store_false", help="leave the tests marked gpu out")
    parser.add_argument("--no-fits", action="store_true", help="leave the whole trainings out")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try the command itself")
    parser.add_argument("--tiny", action="store_true", help="two small shapes, one short training")
    parser.add_argument("--block", type=float, default=0.25, help="seconds that a step is timed for (0.25)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    return parser


if __name__ == "__main__":
    main()
