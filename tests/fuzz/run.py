"""Thousands of inputs made wrong on purpose, and what the program does with each, as a table: `make fuzz`.

python -m tests.fuzz.run [--inputs 10000]
"""

import argparse
import logging
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import optuna
import pandas as pd
import torch
import yaml
from tests.fuzz import mutations
from tests.fuzz.mutations import RIGHT, WRONG, Input
from tests.serve.small_forecaster import READ, make

from isotrain.config import load
from isotrain.config.ingest import Check, Column, Ingest, Simulated
from isotrain.data.ingest import ingest, write
from isotrain.data.simulate import building
from isotrain.data.source import read_hourly
from isotrain.data.windows import Windows
from isotrain.errors import LONGEST, InputError
from isotrain.forecast.bundle import load_bundle
from isotrain.search.status import status
from isotrain.search.storage import reachable
from isotrain.search.study import open_study, place
from isotrain.serve.predict import predict, read_series

ROOT = Path(__file__).parents[2]
HANG = 10  # s
BUNDLE = ("forecaster.json", "model.ckpt", "residuals.npz")
FATES = ("right", "refused", "traceback", "hang", "half-written", "wrong, accepted", "right, refused")
SHARES = {"csv": 0.4, "params.yaml": 0.3, "forecast": 0.1, "bundle": 0.1, "windows": 0.05, "journal": 0.05}
Use = Callable[[Input, Path], None]  # raises InputError, or AssertionError where what is right is read wrongly


class Hang(BaseException):
    """Longer than :data:`HANG` seconds."""


@contextmanager
def limited() -> Any:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANG)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fate(use: Use, given: Input, folder: Path) -> tuple[str, str]:
    """What became of one input, and what was said."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "out").mkdir()
    try:
        with limited():
            use(given, folder)
    except InputError as problem:
        said = str(problem)
        if any((folder / "out").iterdir()) or list(folder.rglob("*.part")):
            return "half-written", said
        if len(said) > 4 * LONGEST:
            return "traceback", f"a message of {len(said)} characters"
        return ("right, refused" if given.label == RIGHT else "refused"), said
    except Hang:
        return "hang", ""
    except Exception:  # noqa: BLE001  # every other one is what is looked for
        return "traceback", traceback.format_exc()
    return ("wrong, accepted" if given.label == WRONG else "right"), ""


class Fuzzer:
    """Originals of every kind, made once in ``scratch``, and how each is used."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        columns = {"TGBT": Column(kind="load"), "T1": Column(kind="sub_load"), "AirTemp": Column(kind="temperature")}
        self.ingest = Ingest(source="series.csv", columns=columns, checks={"load": Check(lowest=0.0, highest=500.0)})
        hourly = building(Simulated(seed=3, start="2019-06-01", hours=28 * 24))[list(columns)].iloc[:240]
        self.csv = hourly.rename_axis("Date and time (UTC)").round(2).to_csv().encode()
        self.yaml = small_params()
        tidy = ingest(Ingest(simulated=Simulated(seed=1, hours=24 * 7 * 12)), Path())
        (scratch / "bundle").mkdir()
        fitted = make(tidy, scratch / "bundle", "plain")
        self.bundle = {name: (scratch / "bundle" / name).read_bytes() for name in BUNDLE}
        self.forecaster = load_bundle(scratch / "bundle")
        recent = tidy.raw[READ].iloc[-400:].round(2)
        self.recent = recent.reset_index(names="Date and time (UTC)").to_csv(index=False).encode()
        (scratch / "windows").mkdir()
        fitted.windows.save(scratch / "windows")
        self.windows = {path.name: path.read_bytes() for path in sorted((scratch / "windows").iterdir())}
        self.study(scratch)

    def study(self, scratch: Path) -> None:
        """A journal with a few trials, and what the commands on it need."""
        home = scratch / "study"
        home.mkdir()
        values = yaml.safe_load(small_params())
        values["paths"] = {"windows": str(scratch / "windows"), "search": "search"}
        values["search"] |= {"study": "fuzz", "url": None, "sampler": "random", "known": [], "against": ["native"]}
        (home / "params.yaml").write_text(yaml.safe_dump(values))
        self.place = place(home / "params.yaml")
        study = open_study(self.place)
        for n in range(4):
            trial = study.ask()
            self.place.space.suggest(trial)
            study.tell(trial, [float(n), 4.0 - n])
        self.home, self.journal = home, (self.place.folder / "journal.log").read_bytes()

    def input(self, kind: str, number: int) -> Input:
        if kind == "csv":
            return mutations.csv_input(self.csv, number)
        if kind == "params.yaml":
            return mutations.yaml_input(self.yaml, number)
        if kind == "forecast":
            return mutations.csv_input(self.recent, number)
        if kind == "journal":
            return mutations.journal_input(self.journal, number)
        return mutations.folder_input(self.bundle if kind == "bundle" else self.windows, number, kind)

    def use(self, kind: str) -> Use:
        return {
            "csv": self.use_csv,
            "params.yaml": self.use_yaml,
            "forecast": self.use_forecast,
            "bundle": self.use_bundle,
            "windows": self.use_windows,
            "journal": self.use_journal,
        }[kind]

    def use_csv(self, given: Input, folder: Path) -> None:
        (folder / "series.csv").write_bytes(given.content)
        read = read_hourly(self.ingest, folder / "series.csv")
        if given.label == RIGHT:
            np.testing.assert_allclose(read[list(self.ingest.columns)].to_numpy(), mutations.values(self.csv))
        write(ingest(self.ingest, folder), folder / "out")
        pd.read_parquet(folder / "out" / "series.parquet")

    def use_yaml(self, given: Input, folder: Path) -> None:
        (folder / "params.yaml").write_bytes(given.content)
        found = load(folder / "params.yaml")
        if given.label == RIGHT:
            (folder / "original.yaml").write_text(self.yaml)
            assert found == load(folder / "original.yaml")

    def use_forecast(self, given: Input, folder: Path) -> None:
        (folder / "recent.csv").write_bytes(given.content)
        answer = predict(self.forecaster, read_series(self.forecaster, folder / "recent.csv"))
        assert np.isfinite(answer["forecast_kw"]).all()

    def use_bundle(self, given: Input, folder: Path) -> None:
        self._folder(given, folder)
        bundle = load_bundle(folder)
        bundle.intervals(0.8)

    def use_windows(self, given: Input, folder: Path) -> None:
        self._folder(given, folder)
        Windows.load(folder)

    def use_journal(self, given: Input, folder: Path) -> None:
        (self.place.folder / "journal.log").write_bytes(given.content)
        with reachable():
            status(self.place)
            open_study(self.place)

    def _folder(self, given: Input, folder: Path) -> None:
        for name, content in given.files.items():
            (folder / name).write_bytes(content)


def small_params() -> str:
    """params.yaml with a few of its methods: reading all of them takes longer than all else."""
    text = (ROOT / "params.yaml").read_text()
    values = yaml.safe_load(text)
    keep = ("tuned", "stock", "native", "isolated", "autonomous-75", "small")
    values["methods"] = {name: values["methods"][name] for name in keep}
    references = {"reference_stock": {"streamed": "stock"}, "reference_tuned": {"streamed": "tuned"}}
    values["compare"] |= {"methods": [*keep], **references}
    values["search"] |= {"against": ["native"], "known": ["native"]}
    return yaml.safe_dump(values, sort_keys=False)


def fuzz(inputs: int, scratch: Path, on_bad: Callable[[str, int, Input, str, str], None]) -> dict[str, Counter[str]]:
    """Use ``inputs`` of all kinds; kind -> fate -> how many."""
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    torch.set_num_threads(1)
    fuzzer = Fuzzer(scratch)
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in SHARES}
    for kind, share in SHARES.items():
        for number in range(max(1, round(inputs * share))):
            given = fuzzer.input(kind, number)
            found, said = fate(fuzzer.use(kind), given, scratch / "one")
            counts[kind][found] += 1
            if found not in ("right", "refused"):
                on_bad(kind, number, given, found, said)
    logging.disable(logging.NOTSET)
    return counts


def as_table(counts: dict[str, Counter[str]]) -> str:
    rows = [["inputs", *FATES, "in all"]]
    rows += [[kind, *(str(count[one]) for one in FATES), str(sum(count.values()))] for kind, count in counts.items()]
    whole = sum(counts.values(), Counter())
    rows.append(["in all", *(str(whole[one]) for one in FATES), str(sum(whole.values()))])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--inputs", type=int, default=10_000)
    words = asked.parse_args()
    bad: list[str] = []

    def on_bad(kind: str, number: int, given: Input, found: str, said: str) -> None:
        bad.append(f"{kind} {number} ({given.what}): {found}\n{said.strip()[-600:]}")

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        counts = fuzz(words.inputs, Path(scratch), on_bad)
    print("\n\n".join(bad[:40]), file=sys.stderr)
    print(as_table(counts))
    print(f"\n{words.inputs} inputs in {time.monotonic() - began:.0f} s, {time.strftime('%Y-%m-%d')}")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
