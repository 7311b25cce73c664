"""What befalls the array of cluster/search.sbatch on a real SLURM: nothing is lost, nothing counts twice."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.slurm import Slurm, until
from tests.search.light_study import ROOT, Account, LightStudy, light_study

pytestmark = pytest.mark.slow
OUTAGE = float(os.environ.get("ISOTRAIN_OUTAGE", "3"))  # s; the recorded table takes 20


def submit(slurm: Slurm, study: LightStudy, *words: str, **asked: Any) -> str:
    """The job number of an array of two workers."""
    place = [f"--export=ALL,ISOTRAIN_ENVIRONMENT={sys.prefix}", "--partition=main", "--mem=100", "--time=10"]
    environment = {**study.environment(**asked), "ISOTRAIN_WORKER": " ".join(["python", *study.command[1:]])}
    script = ROOT / "cluster" / "search.sbatch"
    return slurm.submit("--array=0-1", *place, *words, script, env=environment, cwd=study.folder)


def task_of(study: LightStudy, job: str, trial: int) -> str:
    """The task whose worker runs ``trial``."""
    process = study.process(trial)
    scripts = {task: (study.folder / f"slurm-{task}.out").read_text() for task in (f"{job}_0", f"{job}_1")}
    return next(task for task, text in scripts.items() if f"worker {process} begins" in text)


@pytest.fixture
def study(tmp_path: Path) -> LightStudy:
    """An empty study in a journal."""
    return light_study(tmp_path)


def test_a_worker_killed_outright_is_replaced(slurm: Slurm, study: LightStudy, account: Account) -> None:
    job = submit(slurm, study, seconds=0.5)
    until(lambda: len(study.ran("begin")) > 4)
    os.kill(study.process(study.ran("begin")[-1]), signal.SIGKILL)
    account.before(study)
    states = slurm.wait(job)
    account.after(study, workers=2, says="ended with status 137")
    assert set(states.values()) == {"COMPLETED"}


def test_pre_empted_and_queued_again(slurm: Slurm, study: LightStudy, account: Account) -> None:
    job = submit(slurm, study, seconds=0.5, trial_3="long", trial_4="long")
    until(lambda: {3, 4} <= set(study.ran("begin")))
    account.before(study)
    urgent = slurm.submit("--partition=urgent", "--nodes=3", "--exclusive", "--wrap=sleep 1", cwd=study.folder)
    slurm.wait(urgent)
    states = slurm.wait(job)
    after = account.after(study, workers=2, says="given back")
    assert set(states.values()) == {"COMPLETED"}
    assert after.again >= 2
    assert study.said().count("queued again") >= 2


def test_queued_again_by_hand(slurm: Slurm, study: LightStudy, account: Account) -> None:
    job = submit(slurm, study, seconds=0.5, trial_3="long")
    until(lambda: 3 in study.ran("begin"))
    account.before(study)
    slurm.command("scontrol", "requeue", task_of(study, job, 3))
    states = slurm.wait(job)
    account.after(study, workers=2, says="asked to stop")
    assert set(states.values()) == {"COMPLETED"}


def test_a_node_is_drained_then_lost(slurm: Slurm, study: LightStudy, account: Account) -> None:
    job = submit(slurm, study, seconds=0.5, trial_3="long")
    until(lambda: 3 in study.ran("begin"))
    account.before(study)
    node = slurm.fields(task_of(study, job, 3))["NodeList"]
    slurm.set_node(node, "drain")
    slurm.set_node(node, "down")
    try:
        states = slurm.wait(job)
    finally:
        slurm.set_node(node, "resume")
    account.after(study, workers=2, says="asked to stop")
    assert set(states.values()) == {"COMPLETED"}


def test_the_time_is_over(slurm: Slurm, tmp_path: Path, account: Account) -> None:
    study = light_study(tmp_path, trials=6)
    job = submit(slurm, study, "--time=1", "--signal=B:USR1@59", trial_2="long")  # SLURM checks every 30 s
    until(lambda: 2 in study.ran("begin"))
    account.before(study)
    states = slurm.wait(job, 120)
    account.after(study, workers=2, says="the time is nearly over")
    assert set(states.values()) == {"COMPLETED"}


def test_the_folder_is_out_of_reach_for_a_while(slurm: Slurm, study: LightStudy, account: Account) -> None:
    job = submit(slurm, study, seconds=0.5)
    until(lambda: len(study.ran("begin")) > 4)
    account.before(study)
    away = study.home.rename(study.home.with_name("away"))
    time.sleep(OUTAGE)
    away.rename(study.home)
    states = slurm.wait(job, 60 + OUTAGE)
    account.after(study, workers=2, says="storage answers again")
    assert set(states.values()) == {"COMPLETED"}


def test_the_disk_is_full(slurm: Slurm, small_disk: Path, account: Account) -> None:
    study = light_study(small_disk.parent)
    states = slurm.wait(submit(slurm, study, trial_5="disk"))
    account.before(study)
    assert set(states.values()) == {"FAILED"}
    assert "No space left on device" in study.said()
    for ballast in study.home.rglob("ballast-*"):
        ballast.unlink()
    states = slurm.wait(submit(slurm, study))
    account.after(study, workers=2, says="No space left on device")
    assert set(states.values()) == {"COMPLETED"}


def test_trials_that_go_wrong(slurm: Slurm, study: LightStudy, account: Account) -> None:
    wrong = {"trial_2": "raise", "trial_4": "nan", "trial_6": "memory", "trial_8": "killed"}
    states = slurm.wait(submit(slurm, study, **wrong))
    after = account.after(study, workers=2, says="out of memory")
    assert set(states.values()) == {"COMPLETED"}
    assert after.failed == 3 and after.again >= 1

    again = slurm.wait(submit(slurm, study))  # a finished study ends an array at once
    assert set(again.values()) == {"COMPLETED"}
    assert study.count() == after
