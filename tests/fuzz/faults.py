"""What kills, full and read-only disks and a second command do to a small study, as a table: `make faults`.

Each case disturbs a command, calls the same command again, and compares with one that nothing disturbed: the arrays of
the windows, the weights of every fit. The commands are the stages, and `dvc repro` over all of them. What needs a small
file system of its own is done on a tmpfs where this user may mount one.
"""

import argparse
import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    "training": {"steps": 800, "stretch": 100, "stretches": 2, "validate_every": 20, "accelerator": "cpu"},
    "runtime": {"threads": 1},
    "compare": {"methods": ["tuned", "autonomous-75"], "seeds": [0]},
}
STAGES = {
    "ingest": ["data/raw", "data/tidy", "reports/data"],
    "window": ["data/tidy", "data/windows"],
    "train": ["data/windows", "results/runs"],
}
REPRO = "dvc repro"
CODE = ("src", "pipelines", "dvc.yaml")  # what DVC asks for in its project
OTHER_DISK = "/dev/shm"  # a file system that is not the project's, for temporary files
DISK = 96 * 2**20  # bytes of the small file system
ROOMS = (0, 4096, 65_536, 524_288)  # bytes that are left on it
LIMITS = (0, 500, 5000, 50_000)  # bytes that a file may have, where nothing can be mounted
Disturb = Callable[[Path], str]


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


def dvc_project(folder: Path) -> Path:
    """The same, with the code and DVC's own files: what `dvc repro` needs."""
    project(folder)
    skip = shutil.ignore_patterns("__pycache__")
    for name in CODE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name, **({"ignore": skip} if copy is shutil.copytree else {}))  # type: ignore[operator]
    words = [sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"]
    subprocess.run(words, cwd=folder, check=True)
    return folder


def start(folder: Path, what: str, limit: int | None = None, **environment: str) -> subprocess.Popen[str]:
    """A stage's script as DVC would call it, or `dvc repro`; ``limit``: bytes that a file may have."""

    def narrow() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    if what == REPRO:
        words = [sys.executable, "-m", "dvc", "repro", "train"]
        ours = {"PYTHONPATH": str(folder / "src"), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    else:
        words = [sys.executable, str(ROOT / "pipelines" / f"{what}.py"), *STAGES[what], "params.yaml"]
        ours = {}
    return subprocess.Popen(
        words, cwd=folder, env=os.environ | ours | environment, text=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, preexec_fn=narrow, start_new_session=True,
    )  # fmt: skip


def end(process: subprocess.Popen[str], seconds: float = 300) -> tuple[int, str]:
    """Its status and what it said; TimeoutExpired after ``seconds``."""
    said = process.communicate(timeout=seconds)[1]
    return process.returncode, said


def outcome(folder: Path, what: str) -> dict[str, np.ndarray]:
    """Every number that decides what comes after the command."""
    if what == REPRO:
        return outcome(folder, "ingest") | outcome(folder, "window") | outcome(folder, "train")
    if what == "train":
        found = {}
        for path in sorted((folder / "results" / "runs").glob("*/model.ckpt")):
            state = torch.load(path, weights_only=True)["state_dict"]
            found |= {f"{path.parent.name}/{name}": value.numpy() for name, value in state.items()}
        return found
    if what == "window":
        return {path.stem: np.load(path) for path in sorted((folder / "data" / "windows").glob("*.npy"))}
    return {"series": np.frombuffer((folder / "data" / "tidy" / "series.parquet").read_bytes(), np.uint8)}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k], equal_nan=True) for k in one)


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """``folder`` on a file system of :data:`DISK` bytes; PermissionError to who may not mount one."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    mounted = subprocess.run(words, capture_output=True, text=True, check=False)
    if mounted.returncode:
        folder.rmdir()
        raise PermissionError(mounted.stderr.strip())
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()


def may_mount(scratch: Path) -> bool:
    try:
        with small_disk(scratch / "mount"):
            return True
    except (PermissionError, FileNotFoundError) as problem:
        print(f"no small file system can be mounted ({problem}): files are limited instead, read-only is left out")
        return False


class Faults:
    """Undisturbed commands, and copies of what each starts from."""

    def __init__(self, scratch: Path) -> None:
        self.scratch, self.rng = scratch, random.Random(0)
        self.before: dict[str, Path] = {}
        self.expected: dict[str, dict[str, np.ndarray]] = {}
        self.seconds: dict[str, float] = {}
        folder = project(scratch / "whole")
        for stage in STAGES:
            self.before[stage] = Path(shutil.copytree(folder, scratch / f"before-{stage}"))
            self._undisturbed(stage, folder)
        self.before[REPRO] = dvc_project(scratch / "before-dvc")
        self._undisturbed(REPRO, Path(shutil.copytree(self.before[REPRO], scratch / "whole-dvc")))
        parts = [self.expected[stage] for stage in STAGES]
        assert same(self.expected[REPRO], parts[0] | parts[1] | parts[2]), "DVC makes what the stages make"

    def _undisturbed(self, what: str, folder: Path) -> None:
        began = time.monotonic()
        status, said = end(start(folder, what))
        assert status == 0, said
        self.seconds[what] = time.monotonic() - began
        self.expected[what] = outcome(folder, what)

    def case(self, what: str, disturb: Disturb, disk: bool = False) -> str:
        """right, wrong, or what went wrong, after the same command was called once more."""
        folder = self.scratch / "one"
        with small_disk(folder) if disk else contextlib.nullcontext():
            shutil.copytree(self.before[what], folder, dirs_exist_ok=True)
            try:
                return self._after(what, folder, disturb(folder))
            except subprocess.TimeoutExpired:
                return "hang"
            finally:
                if not disk:
                    shutil.rmtree(folder)

    def _after(self, what: str, folder: Path, said: str) -> str:
        if "Traceback" in said:
            print(said[-2000:], file=sys.stderr)
            return "traceback"
        status, said = end(start(folder, what))
        if status:
            print(said[-2000:], file=sys.stderr)
            return "refused for ever" if "Traceback" not in said else "traceback"
        if not same(outcome(folder, what), self.expected[what]):
            return "wrong"
        left = list((folder / "results").rglob("*.part"))  # the folders of the other stages are emptied by DVC
        return "right, with a draft left behind" if left else "right"

    def killed(self, what: str, alone: bool = False, **environment: str) -> Disturb:
        """At a random moment, with its children or ``alone``: then they go on while the command is called again."""

        def disturb(folder: Path) -> str:
            process = start(folder, what, **environment)
            time.sleep(self.rng.uniform(0.15, 1.0) * self.seconds[what])
            if alone:
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return ""

        return disturb

    def full(self, what: str) -> Disturb:
        """The disk is full after a little, and is not when the command is called again."""

        def disturb(folder: Path) -> str:
            ballast, stat = folder / "ballast", os.statvfs(folder)
            ballast.write_bytes(bytes(max(0, stat.f_bavail * stat.f_frsize - self.rng.choice(ROOMS))))
            said = self._refused(end(start(folder, what)))
            ballast.unlink()
            return said

        return disturb

    def limited(self, what: str) -> Disturb:
        return lambda folder: self._refused(end(start(folder, what, limit=self.rng.choice(LIMITS))))

    def read_only(self, what: str) -> Disturb:
        def disturb(folder: Path) -> str:
            subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
            said = self._refused(end(start(folder, what)))
            subprocess.run(["mount", "-o", f"remount,rw,size={DISK}", folder], check=True)
            return said

        return disturb

    def twice(self, what: str) -> Disturb:
        def disturb(folder: Path) -> str:
            both = [start(folder, what), start(folder, what)]
            return "".join(end(process)[1] for process in both)

        return disturb

    @staticmethod
    def _refused(ended: tuple[int, str]) -> str:
        """What was said; a refusal whose last line is none of ours counts as a traceback."""
        status, said = ended
        lines = [line for line in said.strip().splitlines() if line]
        ours = status == 0 or any(line.startswith(("error: ", "ERROR: ")) for line in lines[-2:])
        return said if ours else f"Traceback {said}"


def kinds(faults: Faults, what: str, times: int, mounts: bool) -> dict[str, tuple[Disturb, int, bool]]:
    """What is done to a command: the fault -> how, how often, and whether on a small disk."""
    few = max(1, times // 2)
    found: dict[str, tuple[Disturb, int, bool]] = {
        "killed at a random moment": (faults.killed(what), times, False),
        "killed, temporary files on another file system": (faults.killed(what, TMPDIR=OTHER_DISK), few, False),
    }
    if what == REPRO:
        found["dvc alone killed, its stage goes on"] = (faults.killed(what, alone=True), times, False)
    if mounts:
        found["a full disk"] = (faults.full(what), times, True)
        found["a read-only disk"] = (faults.read_only(what), 1, True)
    else:
        found["a limit on the size of its files"] = (faults.limited(what), times, False)
    found["two at once"] = (faults.twice(what), 1, False)
    return found


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--times", type=int, default=4, help="of each fault")
    asked.add_argument("--minutes", type=float, default=10, help="after which no case is begun")
    words = asked.parse_args()
    began, bad = time.monotonic(), False
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{scratch}/mlflow.db"  # to make one takes longer than a stage
        mounts, faults = may_mount(Path(scratch)), Faults(Path(scratch))
        print(", ".join(f"{what} {seconds:.0f} s" for what, seconds in faults.seconds.items()), file=sys.stderr)
        print("| command | fault | times | what came of it |\n| --- | --- | --- | --- |", flush=True)
        for what in (*STAGES, REPRO):
            for kind, (disturb, count, disk) in kinds(faults, what, words.times, mounts).items():
                found: Counter[str] = Counter()
                while sum(found.values()) < count and time.monotonic() - began < 60 * words.minutes:
                    found[faults.case(what, disturb, disk)] += 1
                bad |= set(found) != {"right"}
                shown = ", ".join(f"{times} {one}" for one, times in found.items()) or "no time was left"
                print(f"| {what} | {kind} | {sum(found.values())} | {shown} |", flush=True)
    print(f"\n{time.monotonic() - began:.0f} s, {time.strftime('%Y-%m-%d')}")
    sys.exit(bad)


if __name__ == "__main__":
    main()
