"""A trial is the training that a fit is, judged on validation alone; real trainings of a tiny network."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from optuna import TrialPruned
from tests.search.real_study import job, tiny_place

from isotrain.data.windows import Windows
from isotrain.errors import InputError
from isotrain.files import read_json
from isotrain.search.objective import Rule, objective
from isotrain.search.study import Place
from isotrain.search.worker import Diverged, Outcome
from isotrain.training.fit import Fit, Loop

LAYER = {
    "model__layers": 2,
    "isolation__zone": "layer",
    "isolation__criterion": "depth",
    "isolation__schedule__fraction": 0.5,
}


def silent(*_: Any) -> None:
    """A report to nobody."""


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is timed here: no waiting for what is."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield
    torch.set_flush_denormal(False)  # a process-wide setting, which other tests would feel


@pytest.fixture
def here(tmp_path: Path, windows: Windows) -> Place:
    return tiny_place(tmp_path, windows)


@pytest.mark.parametrize("changes", [{}, LAYER])
def test_a_trial_is_the_training_of_a_fit(here: Place, windows: Windows, changes: dict[str, Any]) -> None:
    reported: list[tuple[int, float, float]] = []
    one = job(here, seed=3, **changes)
    outcome = objective(here)(one, lambda *row: reported.append(row))
    errors: list[float] = []
    Loop(Fit(one.settings, 3, windows, one.out), lambda row: errors.append(row["val_mae"])).run()
    assert [error for _, error, _ in reported] == errors
    assert outcome.values[0] == min(errors)
    assert [step for step, _, _ in reported] == [10, 20, 30]
    seconds = [taken for _, _, taken in reported]
    assert seconds == sorted(seconds) and seconds[0] > 0


def test_what_a_trial_leaves(here: Place) -> None:
    outcome = objective(here)(job(here, number=7, **LAYER), silent)
    folder = here.folder / "trials" / "7"
    assert [path.name for path in folder.iterdir()] == ["result.json"]
    result = read_json(folder / "result.json")
    assert tuple(result["values"]) == outcome.values == (outcome.attrs["val_mae"], outcome.attrs["seconds"])
    assert result["params"]["isolation.zone"] == "layer"
    assert [row["step"] for row in result["history"]] == [10, 20, 30]
    assert outcome.attrs["steps"] == 30 and outcome.attrs["isolated_fraction"] > 0 and not outcome.attrs["early"]
    assert result["history"][-1]["seconds"] == pytest.approx(outcome.values[1])
    assert {step["kind"] for step in result["quiet"]} >= {"other", "after"}
    assert all(step["step"] >= 3 and step["seconds"] > 0 for step in result["quiet"])


def test_the_test_part_is_not_looked_at(tmp_path: Path, windows: Windows) -> None:
    """With its truth and its inputs taken away a trial is the same, to the bit."""
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    first = windows.ranges("test")[0][0]
    blind = windows.truth.copy()
    blind[first:] = np.nan
    cut = Windows(**{**{name: getattr(windows, name) for name in windows.__dataclass_fields__}, "truth": blind})
    errors = [
        objective(place)(job(place, **LAYER), silent).values[0]
        for place in (tiny_place(tmp_path / "whole", windows), tiny_place(tmp_path / "cut", cut))
    ]
    assert errors[0] == errors[1]


def test_a_training_that_diverges_is_said_to(here: Place) -> None:
    with pytest.raises(Diverged, match="diverged at step 10"):
        objective(here)(job(here, training__learning_rate=1e30, training__clip=0.0), silent)


def test_what_a_report_raises_ends_the_trial_and_frees_the_machine(here: Place) -> None:
    def prune(*_: Any) -> None:
        raise TrialPruned

    run = objective(here)
    with pytest.raises(TrialPruned):
        run(job(here), prune)
    assert run(job(here), silent).attrs["steps"] == 30  # the lock was released


def test_time_to_target_is_the_cost_up_to_the_first_validation_that_reaches_it(
    tmp_path: Path, windows: Windows
) -> None:
    def outcome(target: float, name: str) -> Outcome:
        (tmp_path / name).mkdir()
        here = tiny_place(tmp_path / name, windows, objectives="time-to-target", target=target)
        return objective(here)(job(here), silent)

    easy, hard = outcome(1e9, "easy"), outcome(1e-9, "hard")
    history = read_json(tmp_path / "easy/results/search/isolation/trials/0/result.json")["history"]
    assert easy.values == (history[0]["seconds"],) and 0 < easy.values[0] < easy.attrs["seconds"]
    assert hard.values == (math.inf,)


def test_a_hopeless_trial_ends_early_with_the_seconds_of_a_whole_one(
    tmp_path: Path, windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tiny_place(tmp_path, windows, early_stop=True)
    whole = objective(here)(job(here, number=0), silent)
    monkeypatch.setattr(Rule, "hopeless", lambda *_: True)
    early = objective(here)(job(here, number=1), silent)
    assert early.attrs["early"] and early.attrs["steps"] == 10
    assert early.values[1] == pytest.approx(3 * early.attrs["step_ms"] * 10 / 1e3)
    assert read_json(here.folder / "trials/1/result.json")["values"][0] >= whole.values[0]


def test_a_base_that_trains_on_validation_is_refused(tmp_path: Path, windows: Windows) -> None:
    here = tiny_place(tmp_path, windows, base="rich-refit")
    with pytest.raises(InputError, match=r"rich-refit.*refit"):
        objective(here)
