"""What a study goes through, provoked on real workers and real storage: nothing is lost, nothing counts twice."""

import os
import signal
import time
import uuid
from pathlib import Path

import pytest
from optuna.trial import TrialState
from tests.cluster.slurm import until
from tests.search.light_study import Account, LightStudy, light_study, workers
from tests.search.postgres import Postgres

pytestmark = pytest.mark.slow
TRIALS = 12
OUTAGE = float(os.environ.get("ISOTRAIN_OUTAGE", "3"))  # s; the recorded table takes 20


@pytest.fixture(params=["journal", "postgresql"])
def study(request: pytest.FixtureRequest, tmp_path: Path) -> LightStudy:
    """An empty study on each storage."""
    return at(request.param, request, tmp_path)


def at(storage: str, request: pytest.FixtureRequest, folder: Path) -> LightStudy:
    """An empty study in the journal of a folder, or in PostgreSQL."""
    url = request.getfixturevalue("postgres").url if storage == "postgresql" else None
    return light_study(folder, study=f"light-{uuid.uuid4().hex[:8]}", url=url, trials=TRIALS)


def test_killed_in_mid_trial(study: LightStudy, account: Account) -> None:
    with workers(study, 2, seconds=0.3, trial_3="long") as running:
        until(lambda: 3 in study.ran("begin"))
        victim, other = sorted(running, key=lambda worker: worker.pid != study.process(3))
        victim.kill()
        account.before(study)
        assert other.wait(60) == 0
    account.after(study, workers=2, says="(vanished) is queued again")


def test_all_killed_then_started_again(study: LightStudy, account: Account) -> None:
    with workers(study, 2, trial_3="long", trial_4="long") as running:
        until(lambda: {3, 4} <= set(study.ran("begin")))
        for worker in running:
            worker.kill()
    account.before(study)
    with workers(study, 1) as (worker,):
        assert worker.wait(60) == 0
    after = account.after(study, workers=2, says="(vanished) is queued again")
    assert after.again == 2


@pytest.mark.parametrize("word", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT], ids=lambda word: word.name)
def test_asked_to_leave_in_mid_trial(word: signal.Signals, tmp_path: Path, account: Account) -> None:
    study = light_study(
        tmp_path, trials=TRIALS, lease=60
    )  # longer than the test: what is given back waits for no lease
    with workers(study, 2, trial_3="long", trial_4="long") as running:
        until(lambda: {3, 4} <= set(study.ran("begin")))
        account.before(study)
        for worker in running:
            worker.send_signal(word)
            worker.send_signal(word)  # SLURM signals every process of a job, and the job's script passes it on
        assert [worker.wait(20) for worker in running] == [0, 0]
    assert not [trial for trial in study.trials() if trial.state == TrialState.RUNNING]
    with workers(study, 1) as (worker,):
        assert worker.wait(60) == 0
    assert account.after(study, workers=2, says="given back").again == 2


def test_a_worker_that_stood_still_longer_than_its_lease_counts_once(study: LightStudy, account: Account) -> None:
    with workers(study, 2, trial_3="slow") as running:
        until(lambda: 3 in study.ran("begin"))
        still, other = sorted(running, key=lambda worker: worker.pid != study.process(3))
        still.send_signal(signal.SIGSTOP)
        account.before(study)
        assert other.wait(60) == 0
        still.send_signal(signal.SIGCONT)
        assert still.wait(60) == 0
    account.after(study, workers=2, says="is queued again")


def test_the_folder_is_out_of_reach_for_a_while(tmp_path: Path, account: Account) -> None:
    study = light_study(tmp_path, trials=TRIALS)
    with workers(study, 2, seconds=0.3) as running:
        until(lambda: len(study.ran("begin")) > 4)
        account.before(study)
        away = study.home.rename(study.home.with_name("away"))
        time.sleep(OUTAGE)
        away.rename(study.home)
        assert [worker.wait(60 + OUTAGE) for worker in running] == [0, 0]
    account.after(study, workers=2, says="storage answers again")


def test_postgresql_is_down_for_a_while(
    request: pytest.FixtureRequest, postgres: Postgres, tmp_path: Path, account: Account
) -> None:
    study = at("postgresql", request, tmp_path)
    with workers(study, 2, seconds=0.3) as running:
        until(lambda: len(study.ran("begin")) > 4)
        account.before(study)
        postgres.stop()
        time.sleep(OUTAGE)
        postgres.start()
        assert [worker.wait(60 + OUTAGE) for worker in running] == [0, 0]
    account.after(study, workers=2, says="storage answers again")


def test_storage_that_never_answers_ends_the_worker(tmp_path: Path) -> None:
    study = light_study(tmp_path, trials=TRIALS, patience=1)
    with workers(study, 1) as (worker,):
        until(lambda: study.ran("begin"))
        study.home.rename(tmp_path / "away")
        assert worker.wait(60) not in (0, None)


def test_the_disk_is_full(small_disk: Path, account: Account) -> None:
    study = light_study(small_disk.parent, trials=TRIALS)
    with workers(study, 2, trial_5="disk") as running:
        statuses = [worker.wait(60) for worker in running]
    account.before(study)
    assert all(statuses), "a worker went on as if nothing had been"
    assert "No space left on device" in study.said()
    for ballast in study.home.rglob("ballast-*"):
        ballast.unlink()
    with workers(study, 1) as (worker,):
        assert worker.wait(60) == 0
    account.after(study, workers=2, says="No space left on device")


def test_trials_that_go_wrong(study: LightStudy, account: Account) -> None:
    wrong = {"trial_2": "raise", "trial_4": "nan", "trial_6": "memory", "trial_8": "killed"}
    with workers(study, 2, **wrong) as running:
        statuses = sorted(worker.wait(60) for worker in running)
    assert statuses == [-signal.SIGKILL, 0]
    after = account.after(study, workers=2, says="out of memory")
    assert after.failed == 3 and after.again >= 1
    why = {trial.number: trial.user_attrs.get("why", "") for trial in study.trials()}
    assert "asked to raise" in why[2] and "nan" in why[4] and "asked to run out" in why[6]
    assert sorted(set(study.ran())) == sorted(set(range(len(why))) - {2, 4, 6, 8})


def test_a_trial_that_kills_every_worker_ends(tmp_path: Path, account: Account) -> None:
    study = light_study(tmp_path, trials=4, retries=1, lease=1)
    statuses = []
    while 0 not in statuses:
        assert len(statuses) < 5
        with workers(study, 1, retries_0="killed") as (worker,):
            statuses.append(worker.wait(60))
            account.before(study)
    assert statuses == [-signal.SIGKILL, -signal.SIGKILL, 0]
    assert account.after(study, workers=3, says="(vanished) is queued again").failed == 1
