"""The benchmark of adapting: its meters are those that it names, and each part that it times is done."""

import sys
from pathlib import Path

import benchmarks.adapting as benchmark
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_meter_is_adapted_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(benchmark, "PARENT", {"model.hidden": 4, "training.steps": 2, "training.validate_every": 2})
    monkeypatch.setattr(benchmark, "PARENTS_WEEKS", 30)
    monkeypatch.setattr(benchmark.tempfile, "TemporaryDirectory", lambda: Kept(tmp_path))
    monkeypatch.setattr(sys, "argv", ["adapting", "--meters", "2", "--weeks", "6"])
    benchmark.main()
    names = {path.stem for path in (tmp_path / "meters").iterdir()}
    assert len(names) == 2
    assert {path.name for path in (tmp_path / "adapted-meters").iterdir()} == {*names, ".claims"}
    assert {path.name for path in (tmp_path / "again").iterdir()} == names
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("2 meters with 6 weeks each: ")
    assert [line.split(":")[0].strip() for line in said[2:]] == [
        "reading and repairing",
        "features",
        "states remembered",
        "choosing and fitting",
        "writing",
    ]


class Kept:
    """A folder that stays."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> str:
        return str(self.path)

    def __exit__(self, *_: object) -> None:
        pass
