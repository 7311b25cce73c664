"""What a kill, a full disk and a second command do to the stages of a small study, as a table: `make faults`.

Each case disturbs a stage, calls the same command again, and compares with a stage that nothing disturbed: the arrays
of the windows, the weights of every fit. python -m tests.fuzz.faults [--times 8]
"""

import argparse
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

ROOT = Path(__file__).parents[2]
SMALL: dict[str, dict[str, Any]] = {
    "ingest": {"source": "simulated", "simulated": {"hours": 3360}},
    "window": {"history": 48, "train": 0.6, "validation": 0.2},
    "model": {"hidden": 6, "decoder": 8},
    "training": {"steps": 400, "stretch": 100, "stretches": 2, "validate_every": 5, "accelerator": "cpu"},
    "compare": {"methods": ["tuned", "autonomous-75"], "seeds": [0]},
}
STAGES = {
    "ingest": ["data/raw", "data/tidy", "reports/data"],
    "window": ["data/tidy", "data/windows"],
    "train": ["data/windows", "results/runs"],
}


def project(folder: Path) -> Path:
    """A folder with the settings of a small study."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, changes in SMALL.items():
        for key, value in changes.items():
            both = isinstance(value, dict) and isinstance(values[section].get(key), dict)
            values[section][key] = values[section][key] | value if both else value
    (folder / "data" / "raw").mkdir(parents=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    return folder


def start(folder: Path, stage: str, limit: int | None = None, **environment: str) -> subprocess.Popen[str]:
    """The stage's script, as DVC would call it; ``limit``: bytes that a file may have, as on a disk that is full."""

    def narrow() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        [sys.executable, str(ROOT / "pipelines" / f"{stage}.py"), *STAGES[stage], "params.yaml"],
        cwd=folder, env=os.environ | environment, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        preexec_fn=narrow, start_new_session=True,
    )  # fmt: skip


def end(process: subprocess.Popen[str], seconds: float = 300) -> tuple[int, str]:
    """Its status and what it said; TimeoutExpired after ``seconds``."""
    said = process.communicate(timeout=seconds)[1]
    return process.returncode, said


def outcome(folder: Path, stage: str) -> dict[str, np.ndarray]:
    """Every number that decides what comes after the stage."""
    if stage == "train":
        found = {}
        for path in sorted((folder / "results" / "runs").glob("*/model.ckpt")):
            state = torch.load(path, weights_only=True)["state_dict"]
            found |= {f"{path.parent.name}/{name}": value.numpy() for name, value in state.items()}
        return found
    if stage == "window":
        with np.load(folder / "data" / "windows" / "windows.npz") as arrays:
            return dict(arrays)
    return {"series": np.frombuffer((folder / "data" / "tidy" / "series.parquet").read_bytes(), np.uint8)}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k], equal_nan=True) for k in one)


class Faults:
    """Undisturbed stages, and copies of what each starts from."""

    def __init__(self, scratch: Path) -> None:
        self.scratch, self.rng = scratch, random.Random(0)
        self.before: dict[str, Path] = {}
        self.expected: dict[str, dict[str, np.ndarray]] = {}
        self.seconds: dict[str, float] = {}
        folder = project(scratch / "whole")
        for stage in STAGES:
            self.before[stage] = Path(shutil.copytree(folder, scratch / f"before-{stage}"))
            began = time.monotonic()
            status, said = end(start(folder, stage))
            assert status == 0, said
            self.seconds[stage] = time.monotonic() - began
            self.expected[stage] = outcome(folder, stage)

    def case(self, stage: str, disturb: Callable[[Path], str]) -> str:
        """right, wrong, or what went wrong, after the same command was called once more."""
        folder = Path(shutil.copytree(self.before[stage], self.scratch / "one"))
        try:
            said = disturb(folder)
            if "Traceback" in said:
                return "traceback"
            status, said = end(start(folder, stage))
            if status:
                return "refused for ever" if "Traceback" not in said else "traceback"
            return "right" if same(outcome(folder, stage), self.expected[stage]) else "wrong"
        except subprocess.TimeoutExpired:
            return "hang"
        finally:
            shutil.rmtree(folder)

    def killed(self, stage: str, **environment: str) -> Callable[[Path], str]:
        def disturb(folder: Path) -> str:
            process = start(folder, stage, **environment)
            time.sleep(self.rng.uniform(0.3, 1.0) * self.seconds[stage])
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return ""

        return disturb

    def full(self, stage: str) -> Callable[[Path], str]:
        def disturb(folder: Path) -> str:
            status, said = end(start(folder, stage, limit=self.rng.choice([0, 500, 5000, 50_000])))
            one_line = status == 0 or said.strip().splitlines()[-1].startswith("error: ")
            return said if one_line else f"Traceback {said}"

        return disturb

    def twice(self, stage: str) -> Callable[[Path], str]:
        def disturb(folder: Path) -> str:
            both = [start(folder, stage), start(folder, stage)]
            return "".join(end(process)[1] for process in both)

        return disturb


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--times", type=int, default=8)
    times = asked.parse_args().times
    bad = False
    print("| stage | fault | times | what came of it |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as scratch:
        faults = Faults(Path(scratch))
        for stage in STAGES:
            kinds = {
                "killed at a random moment": (faults.killed(stage), times),
                "killed, temporary files on another file system": (faults.killed(stage, TMPDIR="/dev/shm"), times // 2),
                "no room for its files": (faults.full(stage), times // 2),
                "two at once": (faults.twice(stage), times // 4),
            }
            for what, (disturb, count) in kinds.items():
                found = [faults.case(stage, disturb) for _ in range(count)]
                bad |= any(one != "right" for one in found)
                shown = ", ".join(f"{found.count(one)} {one}" for one in dict.fromkeys(found))
                print(f"| {stage} | {what} | {count} | {shown} |", flush=True)
    sys.exit(bad)


if __name__ == "__main__":
    main()
