"""Storage that is not to be had is one line of every command, and its password is in none of them."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from tests.search.light_study import light_study

from isotrain.errors import InputError
from isotrain.search.storage import patiently, reachable
from isotrain.search.study import open_study, place

NOWHERE = "postgresql://me:hunter2@127.0.0.1:1/none"  # a port at which nobody listens


@pytest.mark.parametrize("command", ["status", "confirm", "sync"])
def test_a_database_that_cannot_be_reached_is_one_line(command: str, tmp_path: Path) -> None:
    study = light_study(tmp_path)
    words = [sys.executable, "-m", "isotrain.cli", "search", command, "--params", str(study.params)]
    environment = os.environ | {"ISOTRAIN_STUDY_URL": NOWHERE}
    ended = subprocess.run(
        words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2 and ended.stdout == ""
    assert ended.stderr.count("\n") == 1 and ended.stderr.startswith("error: the study's storage cannot be reached")
    assert "hunter2" not in ended.stderr and "ISOTRAIN_STUDY_URL" in ended.stderr
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"hunter2" not in written


@pytest.mark.parametrize("planted", ["a pipe", "a folder", "a file for the study's folder"])
def test_what_lies_in_place_of_the_journal_is_refused_at_once(planted: str, tmp_path: Path) -> None:
    at = place(light_study(tmp_path, patience=1000).params)
    at.folder.parent.mkdir(parents=True, exist_ok=True)
    if planted == "a file for the study's folder":
        at.folder.write_text("")
    else:
        at.folder.mkdir()
        os.mkfifo(at.folder / "journal.log") if planted == "a pipe" else (at.folder / "journal.log").mkdir()
    for create in (True, False):
        with pytest.raises(InputError), reachable():
            patiently(partial(open_study, at, create=create), at.search.patience, "opening the study")


@pytest.mark.parametrize(
    "url", ["postgres://me:hunter2@h/d", "postgresql://me:hunter2@h:x/d", "hunter2", "mysql://h/d"]
)
def test_an_address_of_no_postgresql_is_refused_by_name(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISOTRAIN_STUDY_URL", url)
    with pytest.raises(InputError, match=r"ISOTRAIN_STUDY_URL = .*: write postgresql://user@host/database") as caught:
        open_study(place(light_study(tmp_path).params))
    assert ":hunter2" not in str(caught.value)
