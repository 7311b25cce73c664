"""Points run again: every seed of every method in a process of its own, and nothing twice."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from isotrain.config import Settings, load
from isotrain.data.windows import Windows, data_key, read_meta
from isotrain.errors import InputError
from isotrain.files import read_json, write_json
from isotrain.search.confirm import confirm, confirmed_runs
from isotrain.training.fits import is_current

ROOT = Path(__file__).parents[2]
TINY = {
    "model.hidden": 8, "model.decoder": 8, "training.steps": 3, "training.stretches": 2, "training.stretch": 72,
    "training.validate_every": 3,
}  # fmt: skip


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, windows: Windows) -> Iterator[Path]:
    """A folder with windows, and a point that was run with one seed; the working folder is the project's."""
    folder = tmp_path_factory.mktemp("project")
    windows.save(folder / "windows")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        confirm({"search-3": settings()}, [1000], folder / "windows", folder / "study")
        yield folder


def settings(**changes: object) -> Settings:
    """A fit of seconds, under the name of a point."""
    dotted = TINY | {key.replace("__", "."): value for key, value in changes.items()}
    view = load(ROOT / "params.yaml", overrides={"window.history": 48, **dotted})
    return view.settings("native").model_copy(update={"method": "search-3"})


def test_a_point_is_run_once_a_seed(project: Path) -> None:
    folder, windows = project / "study", project / "windows"
    first = folder / "confirm" / "search-3-1000" / "result.json"
    made = first.stat().st_mtime_ns
    confirm({"search-3": settings()}, [1000, 1001], windows, folder)
    runs = confirmed_runs(["search-3", "never-run"], [1000, 1001], folder)
    assert [(run.method, run.seed) for run in runs] == [("search-3", 1000), ("search-3", 1001)]
    assert first.stat().st_mtime_ns == made


def test_a_result_counts_for_its_own_settings_and_series(project: Path) -> None:
    out, windows = project / "study" / "confirm" / "search-3-1000", project / "windows"
    data = data_key(read_meta(windows / "windows.json"))
    assert is_current(out, settings(), 1000, data)
    assert not is_current(out, settings(), 1001, data)
    assert not is_current(out, settings(training__learning_rate=0.02), 1000, data)
    assert not is_current(out, settings(), 1000, "0" * 64)
    assert not is_current(project / "nowhere", settings(), 1000, data)
    other = read_json(out / "result.json")
    other["hardware"]["cpu"] = "another"
    write_json(project / "study" / "confirm" / "elsewhere-1000" / "result.json", other | {"method": "elsewhere"})
    with pytest.raises(InputError, match=r"different hardware .*isotrain search confirm"):
        confirmed_runs(["search-3", "elsewhere"], [1000, 1001], project / "study")


def test_a_fit_that_fails_stops_the_confirmation(project: Path) -> None:
    broken = settings().model_copy(update={"training": settings().training.model_copy(update={"stretch": 20})})
    with pytest.raises(InputError, match=r"training\.stretch of 20 h"):
        confirm({"search-3": broken}, [1000], project / "windows", project / "study")
