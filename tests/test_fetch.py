"""A file brought in: what it may be called, what it may replace, and that its address is never code."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pipelines import fetch

from isotrain.errors import InputError

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "path", ["", "/", "/.", "/..", "/a/..", "/.gitignore", "/x.dvc", "/source.txt", "/a%2F..", "/a%00.csv"]
)
def test_an_address_that_names_no_file_is_refused(path: str) -> None:
    with pytest.raises(InputError, match=r"names no file that can lie in data/raw|names no file"):
        fetch.name_of(f"http://localhost{path}")


@pytest.mark.parametrize(
    "source",
    [
        "ftp://host/a.csv",
        "--help",
        "a.csv",
        "s3://bucket/a.csv",
        "file:///etc/passwd",
        "http://[::1/a.csv",
        "http://host/a.csv\nb",
    ],
)
def test_what_is_neither_a_file_nor_an_address_is_refused(source: str) -> None:
    with pytest.raises(InputError, match=r"is neither a file nor an http|is no address|cannot be printed"):
        fetch.name_of(source)


@pytest.mark.parametrize(
    "address", ["http://me:hunter2@host/a.csv", "https://host/a.csv?token=hunter2", "https://hunter2@host/a.csv"]
)
def test_an_address_with_a_password_is_refused_without_showing_it(address: str) -> None:
    with pytest.raises(InputError, match="holds a password") as caught:
        fetch.name_of(address)
    assert "hunter2" not in str(caught.value)


def test_the_name_is_the_last_part_of_the_address() -> None:
    assert fetch.name_of("https://host/a/b/My%20series%20(2).csv?x=1") == "My series (2).csv"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a file of its own in data/raw; DVC is replaced by a copy that says what it did."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    raw = tmp_path / "data" / "raw"
    raw.mkdir(parents=True)
    (raw / "precious.csv").write_text("measured by hand")

    def run(words: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        assert "--" in words
        if "update" in words:
            goal = words[-1].removesuffix(".dvc")
            source = yaml.safe_load(Path(words[-1]).read_text())["deps"][0]["path"]
            shutil.rmtree(goal)
        else:
            source, goal = words[-2:]
        if Path(goal).is_dir() or (Path(goal).exists() and "--force" not in words):
            return subprocess.CompletedProcess(words, 1)
        given = Path(goal).parent / source  # as DVC does, from the folder of the goal on
        if given.is_dir():
            shutil.copytree(given, goal)
        else:
            Path(goal).write_text(given.read_text())
        Path(f"{goal}.dvc").write_text(f"deps:\n- path: {source}\nouts:\n- path: {Path(goal).name}\n")
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(subprocess, "run", run)
    return tmp_path


def test_nothing_is_replaced_but_by_a_newer_version_of_itself(project: Path) -> None:
    raw = project / "data" / "raw"
    mine, others = project / "mine" / "a.csv", project / "others" / "a.csv"
    for path in (mine, others):
        path.parent.mkdir()
        path.write_text(path.parent.name)
    fetch.main(str(mine), "params.yaml")
    assert ((raw / "a.csv").read_text(), (raw / "source.txt").read_text()) == ("mine", "a.csv\n")
    mine.write_text("mine, newer")
    fetch.main(str(mine), "params.yaml")
    assert (raw / "a.csv").read_text() == "mine, newer"
    with pytest.raises(InputError, match=r"a\.csv is there already and came from .*mine/a\.csv"):
        fetch.main(str(others), "params.yaml")
    precious = project / "others" / "precious.csv"
    precious.write_text("another")
    with pytest.raises(InputError, match=r"precious\.csv is there already and was put there by hand"):
        fetch.main(str(precious), "params.yaml")
    assert (raw / "precious.csv").read_text() == "measured by hand"
    assert (raw / "a.csv").read_text() == "mine, newer"


def test_a_file_of_the_folder_itself_becomes_the_series_as_it_is(project: Path) -> None:
    fetch.main("data/raw/precious.csv", "params.yaml")
    assert (project / "data/raw/precious.csv").read_text() == "measured by hand"
    assert (project / "data/raw/source.txt").read_text() == "precious.csv\n"
    assert not (project / "data/raw/precious.csv.dvc").exists()


def test_a_folder_or_a_link_in_its_place_is_not_replaced(project: Path) -> None:
    (project / "b.csv").write_text("new")
    (project / "data/raw/b.csv").symlink_to(project / "elsewhere")
    with pytest.raises(InputError, match="is there already"):
        fetch.main("b.csv", "params.yaml")
    (project / "c.csv").write_text("new")
    (project / "data/raw/c.csv").mkdir()
    with pytest.raises(InputError, match="is there already"):
        fetch.main("c.csv", "params.yaml")


def test_a_folder_is_brought_in_and_replaced_by_a_newer_version_of_itself_alone(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = project / "data" / "raw"
    for whose in ("mine", "others"):
        (project / whose / "meters").mkdir(parents=True)
        (project / whose / "meters" / "a.csv").write_text(whose)
    fetch.main("mine/meters", "params.yaml")
    assert (raw / "source.txt").read_text() == "meters\n" and (raw / "meters" / "a.csv").read_text() == "mine"
    assert "set ingest.series to each" in capsys.readouterr().out
    (project / "mine" / "meters" / "a.csv").write_text("newer")
    fetch.main("mine/meters", "params.yaml")
    assert (raw / "meters" / "a.csv").read_text() == "newer"
    with pytest.raises(InputError, match=r"meters is there already and came from .*mine/meters"):
        fetch.main("others/meters", "params.yaml")


@pytest.mark.parametrize("variable", ["DATA", "NAME"])
@pytest.mark.parametrize("given", ["as an argument", "in the environment"])
def test_make_hands_the_words_on_and_runs_none_of_them(variable: str, given: str, tmp_path: Path) -> None:
    """The recipes of `reproduce` and `record`, with a python that writes down what it was called with."""
    words = '$(shell touch a)`touch b`"; touch c; "\' $(touch d) $HOME #x.csv'
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\" > called\nexit 3\n")
    python.chmod(0o755)
    for name in ("Makefile", "constraints.txt", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / ".venv" / ".ready").touch()
    goal = {"DATA": "reproduce", "NAME": "record"}[variable]
    argument, environment = ([f"{variable}={words}"], {}) if given == "as an argument" else ([], {variable: words})
    subprocess.run(
        ["make", goal, *argument], cwd=tmp_path, env=os.environ | environment, capture_output=True, check=False
    )
    assert (tmp_path / "called").read_text().splitlines()[1] == words
    assert not any((tmp_path / name).exists() for name in "abcd")


def test_an_address_that_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    command = [sys.executable, ROOT / "pipelines" / "fetch.py", "http://127.0.0.1:1/a.csv", "params.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: http://127.0.0.1:1/a.csv could not be fetched")


def test_the_file_that_the_settings_name_is_there_already(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("source: auto", "source: precious.csv", 1))
    (project / "precious.csv").write_bytes((project / "data" / "raw" / "precious.csv").read_bytes())
    fetch.main("precious.csv", "params.yaml")
    assert "reads data/raw/precious.csv already" in capsys.readouterr().out
    (project / "precious.csv").write_text("another\n")
    with pytest.raises(InputError, match="put there by hand"):
        fetch.main("precious.csv", "params.yaml")
