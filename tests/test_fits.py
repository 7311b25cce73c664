"""All fits of a study: each in a process of its own, nothing twice, nothing lost, budgets as they were measured."""

import errno
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from isotrain.config import CompareView, load
from isotrain.data.windows import OfSeries, Windows
from isotrain.errors import InputError
from isotrain.files import read_json, write_json
from isotrain.training import fits
from isotrain.training.fits import WIDTHS, in_child, run_fits

ROOT = Path(__file__).parents[1]
SMALL: dict[str, object] = {
    "window.history": 48,
    "model.hidden": 32,
    "model.decoder": 8,
    "training.steps": 20,
    "training.stretches": 2,
    "training.stretch": 100,
    "training.origins": 4,
    "training.validate_every": 10,
    "training.accelerator": "cpu",
    "compare.methods": ["tuned", "native", "isolated"],
    "compare.seeds": [0],
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One store for all tests: making one takes longer than a small fit."""
    return f"sqlite:///{tmp_path_factory.mktemp('runs')}/mlflow.db"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, windows: Windows, store: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setattr("isotrain.training.fit.alone", nullcontext)
    monkeypatch.setattr(fits, "REPEATS", 0)  # a busy machine decides nothing here
    windows.save(tmp_path / "windows")


def study(**changes: object) -> CompareView:
    overrides = SMALL | {key.replace("__", "."): value for key, value in changes.items()}
    return load(ROOT / "params.yaml", view=CompareView, overrides=overrides)


def finished(runs: Path = Path("runs")) -> dict[str, str]:
    return {
        path.parent.name: read_json(path)["finished_at"] + read_json(path)["key"] for path in runs.glob("*/result.json")
    }


def test_what_is_there_is_not_run_again_and_what_changed_alone_is() -> None:
    run_fits(study(), "windows", "runs")
    first = finished()
    assert set(first) == {"tuned-0", "native-0", "isolated-0"}
    stamps = {name: Path(f"runs/{name}/model.ckpt").stat().st_mtime_ns for name in first}

    def again() -> set[str]:
        return {name for name in stamps if Path(f"runs/{name}/model.ckpt").stat().st_mtime_ns != stamps[name]}

    run_fits(study(), "windows", "runs")
    assert again() == set()
    run_fits(study(isolation__schedule__start=0.5), "windows", "runs")
    assert again() == {"isolated-0"}


def test_other_windows_of_the_same_series_are_another_study(windows: Windows) -> None:
    one = ["tuned"]
    run_fits(study(compare__methods=one, search__base="tuned"), "windows", "runs")
    first = finished()
    series: list[OfSeries] = [{**one, "mase_scale": 2 * one["mase_scale"]} for one in windows.series]
    replace(windows, meta={**windows.meta, "series": series}).save("windows")
    run_fits(study(compare__methods=one, search__base="tuned"), "windows", "runs")
    assert finished() != first


def test_another_role_is_written_into_the_result_and_nothing_is_trained() -> None:
    one = ["tuned"]
    run_fits(study(compare__methods=one, search__base="tuned"), "windows", "runs")
    key = finished()
    run_fits(study(compare__methods=one, methods__tuned__role="control"), "windows", "runs")
    assert finished() == key
    assert read_json("runs/tuned-0/result.json")["role"] == "control"


def test_a_result_that_cannot_be_read_is_made_again() -> None:
    run_fits(study(compare__methods=["tuned"]), "windows", "runs")
    Path("runs/tuned-0/result.json").write_text('{"key": ')
    run_fits(study(compare__methods=["tuned"]), "windows", "runs")
    assert read_json("runs/tuned-0/result.json")["method"] == "tuned"


def test_budgets_come_from_what_was_measured_in_this_study() -> None:
    names = ["small", "short", "native", "isolated"]
    run_fits(study(compare__methods=names, compare__reference_tuned__streamed="native"), "windows", "runs")
    tested, small, short = (read_json(f"runs/{name}-0/result.json") for name in ("isolated", "small", "short"))
    native = read_json("runs/native-0/result.json")
    steps = round(tested["train_seconds"] / (native["train_seconds"] / native["steps"]))
    assert short["budget"]["time"] == "isolated"
    assert short["steps"] == short["budget"]["steps"] == max(1, steps)
    assert short["budget"]["seconds"] == tested["train_seconds"]
    assert small["budget"]["step"] == "isolated"
    assert small["params"]["model.hidden"] == small["budget"]["hidden"]
    assert small["budget"]["hidden"] % WIDTHS == 0 and WIDTHS <= small["budget"]["hidden"] <= 32
    assert small["budget"]["goal_ms"] == pytest.approx(1e3 * tested["train_seconds"] / tested["steps"])
    before = finished()
    run_fits(study(compare__methods=names, compare__reference_tuned__streamed="native"), "windows", "runs")
    assert finished() == before


@pytest.mark.parametrize("content", ["garbage", "[1]", ""])
def test_damaged_budgets_are_one_line(content: str) -> None:
    Path("runs").mkdir()
    Path("runs/budgets.json").write_text(content)
    with pytest.raises(InputError, match=r"runs/budgets\.json cannot be read.*remove it"):
        run_fits(study(), "windows", "runs")


def test_what_a_child_refuses_is_refused_here_and_a_dead_child_is_named() -> None:
    def refuse() -> None:
        raise InputError("the file is not there: put it there")

    with pytest.raises(InputError, match="put it there"):
        in_child(refuse)
    with pytest.raises(RuntimeError, match="ended with status -9"):
        in_child(lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert in_child(lambda: 41 + 1) == 42


@pytest.mark.slow
def test_a_killed_study_loses_the_fit_at_work_and_no_other(tmp_path: Path) -> None:
    values = study(training__steps=100_000, compare__methods=["tuned"])
    run_fits(study(compare__methods=["native"], search__base="native"), "windows", "runs")
    before = finished()
    write_json(tmp_path / "long.json", {**SMALL, "training.steps": 100_000, "compare.methods": ["native", "tuned"]})
    code = (
        "import sys, json; from isotrain.config import CompareView, load; from isotrain.training.fits import run_fits\n"
        f"view = load({str(ROOT / 'params.yaml')!r}, view=CompareView, overrides=json.load(open('long.json')))\n"
        "run_fits(view, 'windows', 'long')\n"
    )
    assert values.training.steps == 100_000
    worker = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
    deadline = time.monotonic() + 120
    while not children.read_text().split():
        assert time.monotonic() < deadline and worker.poll() is None
        time.sleep(0.1)
    (child,) = children.read_text().split()
    worker.kill()
    worker.wait()
    while Path(f"/proc/{child}").exists():
        assert time.monotonic() < deadline, "the fit outlived the process that waited for it"
        time.sleep(0.1)
    assert finished() == before
    assert finished(tmp_path / "long") == {}


def test_a_fit_during_which_the_machine_was_slower_is_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    run_fits(study(), "windows", "runs")
    monkeypatch.setattr(fits, "REPEATS", 2)
    slow = Path("runs/tuned-0/result.json")
    write_json(slow, {**read_json(slow), "machine_seconds": 10.0})
    Path("runs/isolated-0/result.json").unlink()
    before = {name: Path(f"runs/{name}-0/model.ckpt").stat().st_mtime_ns for name in ("tuned", "native")}
    run_fits(study(), "windows", "runs")
    after = {name: Path(f"runs/{name}-0/model.ckpt").stat().st_mtime_ns for name in ("tuned", "native")}
    assert after["tuned"] != before["tuned"]
    assert read_json(slow)["machine_seconds"] < 10.0


def test_a_full_disk_in_the_process_of_a_fit_is_one_in_its_parent() -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "results/runs/x")

    with pytest.raises(OSError, match="results/runs/x") as caught:
        in_child(full)
    assert caught.value.errno == errno.ENOSPC


def test_a_ctrl_c_while_a_process_is_made_is_not_lost() -> None:
    """What Python calls around a fork swallows exceptions: one was raised there, and the study went on."""
    armed = [True]

    def press() -> None:
        if armed:
            armed.clear()
            os.kill(os.getpid(), signal.SIGINT)
            signal.getsignal(signal.SIGINT)  # a call, in which a signal that is not held back would be acted upon

    os.register_at_fork(before=press)
    with pytest.raises(KeyboardInterrupt):
        in_child(lambda: None)
    assert in_child(lambda: 5) == 5  # nothing stays held back
