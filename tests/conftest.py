"""What several folders of tests share."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault(
    "OPENBLAS_NUM_THREADS", "1"
)  # read when numpy is loaded; two threads wait in a loop for each other

import pytest
import torch

from isotrain.config import Ingest, Window
from isotrain.config.ingest import Simulated
from isotrain.data.ingest import ingest, ingest_all, read_all, read_facts, write_all
from isotrain.data.windowing import make_all, make_windows
from isotrain.data.windows import Windows

GIVEN = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: of the processes none is left alone with a long one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def own_locks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is locked for the whole machine (its cores, its time, its stores) is locked for this process's tests alone.

    Else the tests would wait for those of the other process, or for a study that runs beside them, or be refused.
    """
    tmp_path_factory.getbasetemp()  # stays where it is
    before = os.environ.get("TMPDIR")
    folder = tempfile.mkdtemp(prefix="isotrain-tests-")
    Path(folder).chmod(0o1777)  # as the system's: PostgreSQL runs as another user
    os.environ["TMPDIR"], tempfile.tempdir = folder, None
    yield
    os.environ.pop("TMPDIR")
    if before is not None:
        os.environ["TMPDIR"] = before
    tempfile.tempdir = None
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def own_runtime() -> Iterator[None]:
    """What a training in this process set for the process (threads, cores, denormals) does not outlive its test.

    One thread: the networks are small, two would mostly wait for each other.
    """
    torch.set_num_threads(1)
    yield
    torch.set_flush_denormal(False)
    if GIVEN and os.sched_getaffinity(0) != GIVEN:
        for task in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(task.name), GIVEN)


@pytest.fixture(autouse=True)
def _levels_of_loggers() -> Iterator[None]:
    """A command quiets some loggers for its whole process, which here goes on with other tests."""
    yield
    for name, logger in logging.Logger.manager.loggerDict.items():
        if name.startswith("isotrain.") and isinstance(logger, logging.Logger):
            logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def real_series() -> Path:
    """The real hourly Drahi-X series; tests that need it are skipped where it is not to be had."""
    named = os.environ.get("ISOTRAIN_REAL_SERIES")
    shared = Path(__file__).parents[2] / "shared" / "data"
    path = Path(named) if named else next(shared.glob("*.csv"), None)
    if path is None or not path.is_file():
        pytest.skip("no real series: set ISOTRAIN_REAL_SERIES to its file, or put it into ../shared/data")
    return path


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``tidy`` and ``windows`` of three simulated buildings, twenty weeks each."""
    folder = tmp_path_factory.mktemp("pool")
    about = {"category": "building_category"}
    simulated = Simulated(seed=1, hours=24 * 7 * 20, series=3)
    many = ingest_all(Ingest(source="simulated", series="each", simulated=simulated, about=about), Path())
    write_all(many, folder / "tidy")
    split = Window(history=48, horizon=24, train=0.6, validation=0.2, stride=1)
    make_all(read_all(folder / "tidy"), read_facts(folder / "tidy"), split, folder / "windows")
    return folder


@pytest.fixture(scope="session")
def windows() -> Windows:
    """Twenty weeks of the simulated building, ready for forecasting."""
    settings = Ingest(simulated=Simulated(seed=1, hours=24 * 7 * 20))
    tidy = ingest(settings, Path())
    split = Window(history=48, horizon=24, train=0.6, validation=0.2, stride=1)
    return make_windows(tidy.frame, tidy.facts, split)
