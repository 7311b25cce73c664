"""What `isotrain search status` says, of a real journal; and that it is quick to say it."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.search.made_up_study import failed, finished_like, run_trials, small_place

from isotrain.data.windows import Windows
from isotrain.errors import InputError
from isotrain.search.status import status
from isotrain.search.study import Place, open_study


@pytest.fixture
def at(tmp_path: Path, windows: Windows) -> Place:
    """A study of ten trials to be, in a folder of its own."""
    return small_place(tmp_path, windows)


def test_a_study_that_does_not_exist_is_said_to(at: Place) -> None:
    with pytest.raises(InputError, match=r"small is not in .*make search"):
        status(at)
    assert not at.folder.exists(), "the command creates nothing"


def test_every_trial_is_counted(at: Place) -> None:
    study = run_trials(at, 5)
    study.add_trial(failed(why="diverged: at step 3"))
    study.add_trial(failed(why="diverged: at step 7"))
    study.add_trial(failed(why="vanished", given_back=True))
    study.add_trial(finished_like(study.trials[1], again_of=7))
    study.ask().set_user_attr("worker", "there:2")
    lines = dict(line.split(maxsplit=1) for line in status(at).splitlines() if len(line.split()) > 1)
    assert lines["finished"] == "6" and lines["failed"] == "2 (2 diverged)" and lines["repeated"] == "1"
    assert lines["running"].startswith("1") and lines["waiting"] == "0"


def test_a_worker_without_signs_of_life_is_named(at: Place) -> None:
    study = open_study(at)
    trials = [study.ask(), study.ask()]
    (at.folder / "leases").mkdir(exist_ok=True)
    for trial, worker in zip(trials, ("here:1", "there:2"), strict=True):
        trial.set_user_attr("worker", worker)
        (at.folder / "leases" / str(trial.number)).touch()
    assert "running      2 on 2 workers\n" in status(at)
    later = datetime.now(UTC) + timedelta(seconds=at.search.lease + 5)
    assert "2 on 2 workers, 2 of them without a renewed lease for more than 60 s" in status(at, later)


def test_time_left_is_that_of_the_budget(at: Place) -> None:
    study = run_trials(at, 4)
    now = datetime.fromisoformat(study.user_attrs["began"]) + timedelta(minutes=30)
    said = status(at, now)
    assert "6 of 10 trials" in said and "1 h 30 min of 2 h" in said and "30 min" in said
    assert "0 min of 2 h" in status(at, datetime.now(UTC) + timedelta(hours=5))


def test_the_front_is_shown_with_its_settings(at: Place) -> None:
    run_trials(at, 6)
    said = status(at)
    assert "val_mae" in said.split("hypervolume")[1]
    front = [line.split() for line in said.split("settings\n")[1].splitlines()]
    numbers = [(float(mae), float(seconds)) for _, mae, seconds, *_ in front]
    assert numbers == sorted(numbers, reverse=True) and len(numbers) >= 2
    assert "native: hidden 64" in said, "in a trade-off without loss every trial lies on the front"


def test_before_the_first_trial(at: Place) -> None:
    open_study(at)
    said = status(at)
    assert "no trial has finished yet" in said and "waiting      1" in said and "from 4 finished trials on" in said


def test_status_reads_only(at: Place) -> None:
    run_trials(at, 3)
    before = {path: path.read_bytes() for path in at.folder.rglob("*") if path.is_file()}
    status(at)
    assert {path: path.read_bytes() for path in at.folder.rglob("*") if path.is_file()} == before


def test_status_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'mlflow', 'pytorch_lightning', 'matplotlib', 'sklearn'}"
    code = f"import sys, isotrain.search.status; print(sorted({heavy} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


HEAVY = ("torch", "optuna", "mlflow", "pandas", "numpy", "scipy", "sqlalchemy", "pydantic", "yaml", "pytorch_lightning")


@pytest.mark.parametrize("words", ["--help", "search --help", "search worker --help", "forecast --help", "serach"])
def test_help_and_a_mistyped_word_import_nothing_heavy(words: str) -> None:
    code = (
        "import sys\nfrom isotrain.cli import main\ntry:\n    main()\n"
        f"except SystemExit:\n    sys.exit(str(sorted(set({HEAVY}) & set(sys.modules))))"
    )
    ran = subprocess.run([sys.executable, "-c", code, *words.split()], capture_output=True, text=True, check=False)
    assert "usage: isotrain" in ran.stdout + ran.stderr
    assert ran.stderr.splitlines()[-1] == "[]"
