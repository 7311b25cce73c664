"""How a command ends: one line for what its user can correct, a traceback for a defect of the program."""

import errno
import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from isotrain.errors import InputError, Lines, holds_secret, masked, passing, run_as_command
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


def test_what_a_refusal_undoes_follows_its_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise InputError("params.yaml: window.history = 0 is too small")

    monkeypatch.setattr("sys.argv", ["command"])
    with pytest.raises(SystemExit):
        run_as_command(main, on_refusal=lambda: "; it is 168 again")
    assert capsys.readouterr().err == "error: params.yaml: window.history = 0 is too small; it is 168 again\n"


def test_an_interrupt_is_one_line_that_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sys.argv", ["command"])
    with pytest.raises(SystemExit) as caught:
        run_as_command(main)
    assert caught.value.code == 130
    assert capsys.readouterr().err == "stopped: the same command goes on from here\n"


@pytest.mark.parametrize("watched", [True, False])
def test_progress_is_one_line_where_somebody_watches_and_a_log_elsewhere(watched: bool) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return watched

    screen = Screen()
    lines = Lines(screen)
    logger = logging.getLogger("isotrain.errors")
    logger.addHandler(lines)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        passing("fit 1 of 2")
        passing("fit 2 of 2")
        logger.info("done")
        passing("report")
        lines.end()
    finally:
        logger.removeHandler(lines)
        logger.setLevel(level)
    plain = "fit 1 of 2\nfit 2 of 2\ndone\nreport\n"
    assert screen.getvalue() == ("fit 1 of 2\r\x1b[Kfit 2 of 2\r\x1b[Kdone\nreport\n" if watched else plain)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EDQUOT, errno.ELOOP])
def test_what_the_system_refuses_is_one_line_that_names_the_file(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending(monkeypatch, OSError(number, os.strerror(number), "results/runs")) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "results/runs" in message and os.strerror(number) in message


@pytest.mark.parametrize("defect", [KeyError("a"), OSError("no number"), OSError(errno.ECHILD, "no child")])
def test_our_own_defects_keep_their_traceback(defect: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["command"])

    def main() -> None:
        raise defect

    with pytest.raises(type(defect)):
        run_as_command(main)


ADDRESSES = [
    "postgres://me:hunter2@host/db",
    "postgresql+psycopg://me:hunter2@host:5432/db",
    "https://:hunter2@host/a.csv",
    "HTTPS://me:hunter2@host",
    "s3://bucket/a.csv?x=1&Token=hunter2&y=2",
    "https://host/a.csv?sig=hunter2",
    "mysql://a%40b:hunter2%2F@host",
    "postgresql://me:hunter2/x@y'z@host/db",
    "https://host/a,postgres://me:hunter2@host",
    "https://host/a.csv?X-Amz-Security-Token=hunter2",
    "https://host:80/a.csv?key=hunter2",
    "https://host/a.csv#token=hunter2",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_password_is_printed_logged_or_left_in_a_traceback(address: str) -> None:
    program = f"""
import logging
from isotrain.errors import InputError, run_as_command
def main():
    logging.getLogger("any").warning("opening %s", {address!r})
    raise KIND("cannot open " + {address!r})
run_as_command(main)
"""
    for kind in ("InputError", "RuntimeError"):
        command = [sys.executable, "-c", program.replace("KIND", kind)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = done.stderr.replace(repr(address), "")  # the program's own line, as a traceback quotes it
        assert done.returncode and "cannot open" in said and "opening" in said
        assert "hunter2" not in done.stderr and "***" in done.stderr


@pytest.mark.parametrize(
    "plain",
    [
        "https://host/a.csv?x=1",
        "postgresql://me@host/db",
        "sqlite:///a/b:c.db",
        "a: b@c",
        "http://host:8080/a@b.csv",
        "http://host:8080",
        "https://host/a:b@c",
    ],
)
def test_what_is_no_password_stays(plain: str) -> None:
    assert masked(plain) == plain and not holds_secret(plain)


@pytest.mark.parametrize("part", ["x", "://", "://a:", "?token", "a:b@", "?", "://1"])
def test_no_text_takes_long_to_mask(part: str) -> None:
    """Of quadratic cost, the longest file of settings would take hours, and end by the test's time limit."""
    masked(part * (2**20 // len(part)))
    masked("@" + part * (2**20 // len(part)) + "@")


def test_a_message_is_at_most_a_screen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(monkeypatch, InputError("x" * 10**6)) == 2
    assert len(capsys.readouterr().err) < 2100


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
