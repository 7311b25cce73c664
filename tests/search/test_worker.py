"""Workers on both storages: created once, every trial counted once, wherever a process dies."""

import contextlib
import multiprocessing
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import create_engine, text
from tests.search.counting import Count, count
from tests.search.light_study import light_study, name_series

from isotrain.errors import InputError
from isotrain.search import worker
from isotrain.search.study import Place, open_study, place, sampler
from isotrain.search.worker import Diverged, Job, Outcome, Report, work

WRITES = (
    "create_new_study",
    "set_study_user_attr",
    "create_new_trial",
    "set_trial_param",
    "set_trial_user_attr",
    "set_trial_state_values",
)
Make = Callable[..., Place]


@pytest.fixture(params=["journal", "postgresql"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes places of new studies on each storage."""
    url = request.getfixturevalue("postgres").url if request.param == "postgresql" else None

    def one(**search: Any) -> Place:
        name = f"s{uuid.uuid4().hex[:8]}"
        asked = {"study": name, "url": url, "known": ["native"], **search}
        return place(light_study(tmp_path / name, **asked).params)

    return one


def objective(job: Job, report: Report) -> Outcome:
    settings = job.settings
    fraction = settings.isolation.schedule.fraction if settings.isolation else 0.0
    error = 5 + fraction**2
    for step in range(3):
        report(step, error, float(step))
    return Outcome((error, 10 - fraction), {"val_mae": error})


def in_processes(number: int, target: Callable[..., object], *words: object) -> None:
    running = [multiprocessing.get_context("fork").Process(target=target, args=words) for _ in range(number)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0] * number


def trials_of(at: Place) -> list[FrozenTrial]:
    return open_study(at, create=False).trials


def counted(at: Place) -> Count:
    return count(trials_of(at), at.search.retries)


def age_signs_of_life(at: Place) -> None:
    """As if an hour had passed since the last of them."""
    for lease in (at.folder / "leases").iterdir():
        os.utime(lease, (time.time() - 3600,) * 2)
    if at.url:
        with create_engine(at.url).begin() as connection:
            connection.execute(text("update trial_heartbeats set heartbeat = heartbeat - interval '1 hour'"))


def test_many_processes_create_one_study(make: Make) -> None:
    at = make()
    in_processes(8 if at.url is None else 4, open_study, at)
    assert [trial.user_attrs["known"] for trial in trials_of(at)] == ["native"]


def test_workers_side_by_side_overshoot_by_less_than_one_each(make: Make) -> None:
    at = make(trials=12)
    in_processes(3, work, at, objective)
    result = counted(at)
    assert (result.open, result.twice, result.again) == (0, 0, 0)
    assert 12 <= result.done < 15
    assert trials_of(at)[0].params == at.space.point("native")
    assert {trial.user_attrs["seed"] for trial in trials_of(at)} == set(range(result.done))


class Killed(BaseException):
    """The process ends here, as if killed."""


class Crash:
    """Kills at the ``at``-th write to the storage: before it is done, or just after."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, after: bool) -> None:
        self._left, self._after = at, after
        for kind in (JournalStorage, _CachedStorage):
            for name in WRITES:
                patch.setattr(kind, name, self._deadly(getattr(kind, name)))

    def _deadly(self, write: Callable[..., object]) -> Callable[..., object]:
        def call(*words: Any, **more: Any) -> object:
            self._left -= 1
            if self._left == 0 and not self._after:
                raise Killed
            answer = write(*words, **more)
            if self._left == 0:
                raise Killed
            return answer

        return call


@pytest.mark.parametrize("storage", ["journal", "postgresql"])
@pytest.mark.slow
def test_wherever_a_worker_is_killed_every_trial_counts_once(
    storage: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = request.getfixturevalue("postgres").url if storage == "postgresql" else None
    at = place(light_study(tmp_path, url=url, known=["native"], trials=2).params)
    for write in range(1, 22, 20 if url else 3):
        for after in (False, True):
            name = f"s{uuid.uuid4().hex[:8]}"
            search = at.search.model_copy(update={"study": name})
            here = replace(at, search=search, folder=at.folder / name)
            kill_at(write, after, here)
            open_study(here)
            age_signs_of_life(here)
            kill_at(2, after, here)  # once more, while it recovers
            work(here, objective)  # gives a sign of life to what died before its first
            age_signs_of_life(here)
            work(replace(here, search=search.model_copy(update={"trials": 4})), objective)
            result = counted(here)
            assert (result.open, result.twice, result.failed) == (0, 0, 0), f"write {write}: {result}"
            assert result.done == result.asked


def kill_at(write: int, after: bool, at: Place) -> None:
    """A worker that dies at its ``write``-th write, if it gets so far."""
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
        Crash(patch, write, after)
        work(at, objective)


def test_another_study_under_the_same_name_is_refused(make: Make) -> None:
    at = make()
    open_study(at)
    wider = light_study(at.folder / "w", study=at.search.study, space={"training.rise": {"low": 0.1, "high": 0.3}})
    other = replace(place(wider.params), folder=at.folder, search=at.search)
    with pytest.raises(InputError, match=r"space\.training\.rise = None, now .*give search\.study another name"):
        open_study(other)
    name_series(at.windows, "another")
    with pytest.raises(InputError, match=r"series = \w{64}, now \w{64}"):
        open_study(at)


def test_a_study_that_is_not_there_is_said_so(make: Make) -> None:
    at = make()
    with pytest.raises(InputError, match="start it with `make search`"):
        open_study(at, create=False)
    (at.windows / "windows.json").unlink()
    with pytest.raises(InputError, match="dvc repro window"):
        open_study(at)


def test_a_worker_whose_trials_all_fail_gives_up(make: Make) -> None:
    def fails(_: Job, __: Report) -> Outcome:
        raise RuntimeError("no good")

    at = make(failures=3)
    with pytest.raises(InputError, match=r"3 trials in a row have failed .* RuntimeError: no good"):
        work(at, fails)
    assert counted(at).failed == 3
    assert "Traceback" in (at.folder / "trials" / "0" / "log").read_text()


def test_settings_that_do_not_go_together_fail_the_trial_with_the_reason(make: Make) -> None:
    at = make(space={"isolation.schedule.stop": {"low": 0.0, "high": 0.1}}, failures=1, known=[])
    with pytest.raises(InputError, match=r"start = 0\.25 comes after stop"):
        work(at, objective)


def test_what_ends_without_a_number_has_failed_and_is_not_repeated(make: Make) -> None:
    def odd(job: Job, _: Report) -> Outcome:
        if job.number % 2:
            raise Diverged("the loss is no number")
        return Outcome((float("nan"), 1.0), {})

    at = make(trials=4)
    work(at, odd)
    assert (counted(at).failed, counted(at).again) == (4, 0)
    assert [trial.user_attrs["why"] for trial in trials_of(at)][:2] == [
        "diverged: the objectives are (nan, 1.0)",
        "diverged: the loss is no number",
    ]


def test_one_objective_is_pruned_by_the_study(make: Make) -> None:
    def slower(job: Job, report: Report) -> Outcome:
        for step in range(3):
            report(step, float(job.number), 1.0)
        return Outcome((1.0,), {})

    at = make(objectives="time-to-target", target=5.0, trials=8, startup=2)
    assert work(at, slower) == "8 of 8 trials are finished"
    assert {trial.state for trial in trials_of(at)} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_every_ended_trial_is_handed_on_once(make: Make) -> None:
    at, ended = make(trials=3), []
    work(at, objective, on_finished=ended.append)
    assert [(trial.number, trial.state) for trial in ended] == [(n, TrialState.COMPLETE) for n in range(3)]
    assert ended == trials_of(at)


def test_a_trial_that_others_end_while_it_is_prepared_is_let_go(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Storage was away for longer than the lease: others took this worker for dead. It goes on with the next trial."""
    at, ran, note = make(trials=4), [], worker._note

    def late(trial: optuna.Trial, attrs: Any) -> None:
        if trial.number == 1 and "overrides" in attrs:
            trial.study.tell(trial.number, state=TrialState.FAIL)
        note(trial, attrs)

    def counted(job: Job, report: Report) -> Outcome:
        ran.append(job.number)
        return objective(job, report)

    monkeypatch.setattr(worker, "_note", late)
    assert work(at, counted) == "4 of 4 trials are finished"
    assert ran == [0, 2, 3, 4]  # 1 was queued again, and counts once


def test_the_hours_end_a_study(make: Make) -> None:
    assert "h are over" in work(make(trials=None, hours=1e-9), objective)


def test_workers_do_not_sample_the_same_points(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    at, seen = make(sampler="tpe"), set()
    for pid in (1, 2):
        monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
        study = optuna.create_study(sampler=sampler(at.search))
        seen.add(study.ask().suggest_float("x", 0, 1))
    assert len(seen) == 2
