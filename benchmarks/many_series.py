"""Memory and time against the number of buildings: python -m benchmarks.many_series [--buildings 10 36 100 300 1000].

Simulates one building of four years; each building of a pool is that one with another scale and other noise, and its
table exists only while its windows are made. Then `rich` trains so many steps on the pool and validates once. Windowing
and training have a process each, whose memory is sampled; anonymous memory is its own, the rest are pages of files, the
libraries among them, which the system takes back when it needs them. Seconds are of the processor. It needs 17 MB of
disk a building in the folder of temporary files, and removes them. Writes NAME.json, NAME.md and NAME.png.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from isotrain.config import CompareView, Ingest, WindowView, load
from isotrain.config.ingest import Simulated

if TYPE_CHECKING:
    import pandas as pd

    from isotrain.data.windows import Facts

METHOD = "rich"
EVERY = 0.02  # s, between two samples of the memory
GIB = 2**30


class Memory(TypedDict):
    """Of a process, GiB: the largest that was sampled."""

    anonymous: float
    resident: float  # pages of files included


class Row(TypedDict):
    """What so many buildings take."""

    buildings: int
    hours: int  # of all of them
    disk: float  # GiB
    windowing_seconds: float  # of the processor, the simulation left out
    windowing: Memory
    load_seconds: float  # until the first step: arrays mapped or copied, network made
    step_ms: float  # median
    validation_seconds: float
    origins_validated: int
    training: Memory


def tables(buildings: int, hours: int) -> "tuple[Iterator[tuple[pd.DataFrame, Facts]], list[Facts]]":
    """Tidy tables of so many buildings, made one at a time, and the facts of all."""
    from isotrain.data.ingest import ingest

    tidy = ingest(Ingest(simulated=Simulated(seed=0, hours=hours)), Path())
    target = tidy.facts["target"]
    about: list[Facts] = [{**tidy.facts, "name": f"building-{k}"} for k in range(buildings)]

    def made() -> "Iterator[tuple[pd.DataFrame, Facts]]":
        for k, facts in enumerate(about):
            rng = np.random.default_rng(k)
            load_ = tidy.frame[target] * (1 + 0.05 * rng.standard_normal(hours)) * rng.lognormal()
            yield tidy.frame.assign(**{target: load_}), facts

    return made(), about


@contextmanager
def sampled() -> Iterator[Memory]:
    """The memory of this process from here on."""
    found: Memory = {"anonymous": 0.0, "resident": 0.0}
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(EVERY):
            status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            for name, key in (("anonymous", "RssAnon"), ("resident", "VmRSS")):
                found[name] = max(found[name], int(status[key].split()[0]) * 1024 / GIB)  # type: ignore[literal-required]

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def make(buildings: int, hours: int, folder: Path) -> dict[str, Any]:
    """Windows of so many buildings in ``folder``."""
    from isotrain.data.windowing import make_all

    made, about = tables(buildings, hours)
    window = load(view=WindowView).window
    spent = 0.0

    def timed() -> "Iterator[tuple[pd.DataFrame, Facts]]":
        nonlocal spent
        while True:
            before = time.process_time()
            one = next(made, None)
            spent += time.process_time() - before
            if one is None:
                return
            yield one

    with sampled() as memory:
        began = time.process_time()
        make_all(timed(), about, window, folder)
        seconds = time.process_time() - began - spent
    disk = sum(path.stat().st_size for path in folder.iterdir()) / GIB
    return {"buildings": buildings, "hours": buildings * hours, "disk": disk,
            "windowing_seconds": seconds, "windowing": memory}  # fmt: skip


def train(folder: Path, steps: int) -> dict[str, Any]:
    """So many steps on the windows in ``folder``, and one validation."""
    import pytorch_lightning as pl

    from isotrain.data.windows import Windows
    from isotrain.training.fit import Fit, Loop, prepare_process

    changes = {"training.steps": steps, "training.validate_every": steps}
    settings = load(view=CompareView, overrides={f"methods.{METHOD}.{key}": value for key, value in changes.items()}
    ).settings(METHOD)  # fmt: skip
    prepare_process(settings)
    spent: list[float] = []
    stamps: list[float] = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            stamps.append(time.process_time())

        def on_train_batch_end(self, *_: Any) -> None:
            stamps.append(time.process_time())

        def on_validation_start(self, *_: Any) -> None:
            spent.append(time.process_time())

        def on_validation_end(self, *_: Any) -> None:
            spent.append(time.process_time())

    with sampled() as memory:
        began = time.process_time()
        loop = Loop(Fit(settings, 0, Windows.load(folder), Path()))
        ready = time.process_time() - began
        loop.run(Watch())
    return {
        "load_seconds": ready,
        "step_ms": 1e3 * float(np.median(np.subtract(stamps[1::2], stamps[::2]))),
        "validation_seconds": spent[1] - spent[0],
        "origins_validated": len(loop.module.validation),
        "training": memory,
    }


def measure(buildings: int, hours: int, steps: int) -> Row:
    """Both in processes of their own."""

    def own(*words: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "benchmarks.many_series", "--only", *words]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    with tempfile.TemporaryDirectory() as folder:
        found = own("make", str(buildings), str(hours), folder) | own("train", folder, str(steps))
    return Row(**found)  # type: ignore[typeddict-item]


def write(rows: Sequence[Row], hours: int, steps: int, name: Path) -> None:
    """The table, what it is made of, and the picture."""
    from isotrain.training.machine import commit, hardware

    about = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": commit(), "hardware": hardware(), "steps": steps,
             "hours": hours, "method": METHOD}  # fmt: skip
    name.parent.mkdir(parents=True, exist_ok=True)
    name.with_suffix(".json").write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")
    name.with_suffix(".md").write_text(page(rows, about, name.name))
    _draw(rows, name.with_suffix(".png"))


def page(rows: Sequence[Row], about: dict[str, Any], name: str) -> str:
    """The table as Markdown."""
    head = (
        "| buildings | hours | on disk | windowing | its memory | resident | until the first step | step | validation "
        "| its origins | memory of training | resident |\n" + "| ---: " * 12 + "|"
    )
    lines = [
        f"| {row['buildings']:,} | {row['hours'] / 1e6:.2g} million | {row['disk']:.2f} GiB "
        f"| {row['windowing_seconds']:.1f} s | {row['windowing']['anonymous']:.2f} GiB "
        f"| {row['windowing']['resident']:.2f} GiB | {row['load_seconds']:.1f} s | {row['step_ms']:.1f} ms "
        f"| {row['validation_seconds']:.1f} s | {row['origins_validated']:,} | {row['training']['anonymous']:.2f} GiB "
        f"| {row['training']['resident']:.2f} GiB |"
        for row in rows
    ]
    hardware = about["hardware"]
    return f"""# Memory and time against the number of buildings

Simulated buildings of {about["hours"]:,} hours each; `{about["method"]}`, {about["steps"]} steps and one validation.
Written by `python -m benchmarks.many_series` ({about["date"]}, commit {about["commit"]}) on {hardware["cpu"]},
{hardware["memory_gb"]} GB, torch {hardware["torch"]}. Seconds are of the processor, on a machine that other programs
used too: rough. Memory is the largest that was sampled; "resident" counts pages of files besides, the libraries and the
arrays among them, which the system takes back when it needs them.

{head}
{chr(10).join(lines)}

![memory and seconds against the number of buildings]({name}.png)
"""


def _draw(rows: Sequence[Row], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    memory, seconds = figure.subplots(1, 2)
    at = [row["buildings"] for row in rows]
    for stage in ("windowing", "training"):
        for kind, line in (("anonymous", "-o"), ("resident", "--o")):
            own = "own" if kind == "anonymous" else "with pages of files"
            memory.plot(at, [row[stage][kind] for row in rows], line, label=f"{stage}, {own}")  # type: ignore[literal-required]
    memory.axhline(4, color="0.6", linewidth=1)
    memory.set(xlabel="buildings", ylabel="GiB", xscale="log", title="Largest memory", ylim=(0, None))
    memory.legend(fontsize=8)
    seconds.plot(at, [row["windowing_seconds"] for row in rows], "-o", label="windowing, s")
    seconds.plot(at, [row["validation_seconds"] for row in rows], "-o", label="one validation, s")
    seconds.plot(at, [row["step_ms"] for row in rows], "-o", label="a step, ms")
    seconds.set(xlabel="buildings", xscale="log", yscale="log", title="Seconds of the processor")
    seconds.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--buildings", type=int, nargs="+", default=[10, 36, 100, 300, 1000])
    words.add_argument("--hours", type=int, default=4 * 8766, help="of each building; default: four years")
    words.add_argument("--steps", type=int, default=100)
    words.add_argument(
        "--name", type=Path, default=Path("docs/results/many-series"), help="of the files, without ending"
    )
    words.add_argument("--only", nargs="+", help=argparse.SUPPRESS)
    asked = words.parse_args()
    if asked.only:
        stage, *rest = asked.only
        found = (
            make(int(rest[0]), int(rest[1]), Path(rest[2])) if stage == "make" else train(Path(rest[0]), int(rest[1]))
        )
        print(json.dumps(found))
        return
    rows: list[Row] = []
    for buildings in asked.buildings:
        rows.append(measure(buildings, asked.hours, asked.steps))
        print(json.dumps(rows[-1]), flush=True)
        write(rows, asked.hours, asked.steps, asked.name)


if __name__ == "__main__":
    main()
