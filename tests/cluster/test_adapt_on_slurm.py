"""The array of cluster/adapt.sbatch on a real SLURM, its tasks killed: each meter is adapted to once, none is lost."""

import os
import random
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.slurm import Slurm, until
from tests.serve.small_forecaster import READ, TIME_COLUMN, make

from isotrain.config import Ingest
from isotrain.config.ingest import Simulated
from isotrain.data.ingest import ingest
from isotrain.forecast.bundle import load_bundle

ROOT = Path(__file__).parents[2]
METERS = 8
SLOWLY = """
import os, sys, time
import isotrain.adapt.many as many
first = many.read_new
def slowly(*words):
    print(f"process {os.getpid()} reads", flush=True)
    time.sleep(0.5)
    return first(*words)
many.read_new = slowly
from isotrain.cli import main
sys.argv[1:1] = ["adapt"]
main()
"""


def processes(folder: Path) -> Iterator[int]:
    """Those that said that they are at work and live."""
    for path in folder.glob("slurm-*.out"):
        for number in re.findall(r"process (\d+) reads", path.read_text()):
            if Path(f"/proc/{number}").exists():
                yield int(number)


@pytest.mark.slow
def test_each_meter_is_adapted_to_once_though_tasks_are_killed(slurm: Slurm, tmp_path: Path) -> None:
    tidy = ingest(Ingest(simulated=Simulated(seed=1, hours=24 * 7 * 10)), Path())
    (tmp_path / "parent").mkdir()
    make(tidy, tmp_path / "parent", "plain")
    (tmp_path / "meters").mkdir()
    raw = tidy.raw[READ].reset_index(names=TIME_COLUMN)
    for number in range(METERS):
        raw.assign(TGBT=raw["TGBT"] * (1 + number)).to_csv(tmp_path / "meters" / f"{number}.csv", index=False)
    (tmp_path / "slowly.py").write_text(SLOWLY)
    words = [
        "--array=0-1",
        f"--export=ALL,ISOTRAIN_ENVIRONMENT={sys.prefix}",
        "--partition=main",
        "--mem=100",
        "--time=10",
    ]
    asked = ["--model", "parent", "--csv", "meters", "--out", "made"]
    environment = {"ISOTRAIN_ADAPT": "python slowly.py", "PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT / "src"))}
    job = slurm.submit(*words, ROOT / "cluster" / "adapt.sbatch", *asked, env=environment, cwd=tmp_path)
    chance = random.Random(0)
    for _ in range(2):
        until(lambda: list(processes(tmp_path)), 120)
        os.kill(chance.choice(list(processes(tmp_path))), signal.SIGKILL)
    states = slurm.wait(job, 300)
    said = "".join(path.read_text() for path in tmp_path.glob("slurm-*.out"))
    assert set(states.values()) == {"COMPLETED"}, said
    assert {path.name for path in (tmp_path / "made").iterdir()} == {*map(str, range(METERS)), ".claims"}
    for number in range(METERS):
        load_bundle(tmp_path / "made" / str(number))
        assert len(re.findall(rf"^{number}: (?:thawed|nothing)", said, re.MULTILINE)) == 1, said
