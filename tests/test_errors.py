"""How a command ends: one line for what its user can correct, a traceback for a defect of the program."""

import errno
import json
from pathlib import Path

import pytest

from isotrain.errors import InputError, run_as_command
from isotrain.files import replacing, write_json


def ending(monkeypatch: pytest.MonkeyPatch, problem: Exception) -> object:
    def main() -> None:
        raise problem

    monkeypatch.setattr("sys.argv", ["command"])
    with pytest.raises(SystemExit) as caught:
        run_as_command(main)
    return caught.value.code


def test_bad_input_and_a_full_disk_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending(monkeypatch, InputError("a.csv, line 3: no number")) == 2
    assert capsys.readouterr().err == "error: a.csv, line 3: no number\n"
    assert ending(monkeypatch, OSError(errno.ENOSPC, "No space left on device", "out.npz")) == 2
    message = capsys.readouterr().err
    assert "out.npz" in message and "free some space" in message and message.count("\n") == 1


def test_our_own_defects_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["command"])

    def main() -> None:
        raise PermissionError(errno.EACCES, "denied")

    with pytest.raises(PermissionError):
        run_as_command(main)


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"x": 1})
    with pytest.raises(RuntimeError), replacing(path) as draft:
        draft.write_text("half")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"x": 1}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"x": float("nan")})
    assert json.loads(path.read_text()) == {"x": 1}
