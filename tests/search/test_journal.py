"""The journal: whole lines, whatever happened to the writer before."""

import json
import logging
import multiprocessing
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from isotrain.search.storage import WholeLinesBackend


def entries(path: Path) -> list[object]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("length", [1, 17, 5000])
def test_a_line_cut_short_is_removed_by_the_next_writer(
    length: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "journal.log"
    backend = WholeLinesBackend(path)
    backend.append_logs([{"n": 0, "padding": "x" * 9000}])
    whole = path.read_bytes()
    path.write_bytes(whole + b"y" * length)
    with caplog.at_level(logging.WARNING):
        WholeLinesBackend(path).append_logs([{"n": 1}])
    assert path.read_bytes() == whole + b'{"n":1}\n'
    assert f"{length} bytes" in caplog.text
    assert list(backend.read_logs(1)) == [{"n": 1}]


def test_it_is_optunas_own_format(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    study = optuna.create_study(study_name="s", storage=JournalStorage(WholeLinesBackend(path)))
    study.tell(study.ask(), 1.0)
    other = optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(path))))
    assert other.trials == study.trials


def append(path: str, who: int) -> None:
    backend = WholeLinesBackend(Path(path))
    for n in range(50):
        backend.append_logs([{"who": who, "n": n}])


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.starmap(append, [(str(path), who) for who in range(4)])
    seen = sorted((entry["who"], entry["n"]) for entry in entries(path))
    assert seen == [(who, n) for who in range(4) for n in range(50)]
