"""What DVC experiments leave in params.yaml: a refused value is put back at once, the accepted ones when asked.

`dvc exp run -S path=value` writes the value before anything can check it. Git has the values from before: those of the
newest experiment, else those of the last commit. Everything else in the file, edited by hand or not, stays as it is.
"""

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from isotrain.config.params import flatten
from isotrain.config.reader import read_yaml
from isotrain.errors import InputError, run_as_command
from isotrain.files import write_text

PARAMS = "params.yaml"
KEPT = ("paths", "ingest", "tracking", "search")  # the series and how it is read, where results go, the study's budget
SET_PARAM = ("-S", "--set-param")
_ABSENT = object()


def run_stage(main: Callable[..., None]) -> None:
    """As :func:`isotrain.errors.run_as_command`, for a stage: what -S wrote does not outlive a refusal."""
    run_as_command(main, on_refusal=put_back)


def put_back() -> str:
    """Undo the `-S` of the `dvc exp run` that this process belongs to; what was done, in words, or nothing."""
    baseline = os.environ.get("DVC_EXP_BASELINE_REV")
    if not baseline or not (paths := _paths_set(_command_lines())):
        return ""
    before = _values_at(_newest_experiment(baseline) or baseline)
    _write({path: _at(before, path) for path in paths})
    said = ", ".join(_said(path, _at(before, path)) for path in paths)
    return f"; in {PARAMS} {said} again"


def reset() -> str:
    """Set back to the last commit what experiments change in params.yaml; returns what was changed, a line each.

    The sections of :data:`KEPT` stay as they are, and so does every key that the commit does not have, such as a method
    of one's own. Raises :class:`InputError` outside git, or where the commit has no params.yaml.
    """
    now, then = flatten(read_yaml(Path(PARAMS))), flatten(_values_at("HEAD"))
    changed = {
        path: value
        for path, value in then.items()
        if path.split(".")[0] not in KEPT and now.get(path, _ABSENT) != value
    }
    _write(changed)
    return "\n".join(f"{_said(path, value)} again" for path, value in changed.items())


def _said(path: str, value: Any) -> str:
    return f"{path} is {'not there' if value is _ABSENT else value}"


def _command_lines() -> list[list[str]]:
    """Of the processes that started this one."""
    import psutil

    found = []
    for process in psutil.Process().parents():
        try:
            found.append(process.cmdline())
        except psutil.Error:  # of another user, or gone
            break
    return found


def _paths_set(lines: list[list[str]]) -> list[str]:
    """The dotted paths of params.yaml that a command line of DVC among ``lines`` sets."""
    words = next((words for words in lines if any(Path(word).name == "dvc" for word in words[:4])), [])
    given = []
    for word, after in zip(words, [*words[1:], ""], strict=False):
        if word in SET_PARAM:
            given.append(after)
        elif word.startswith(SET_PARAM):
            given.append(word.removeprefix("--set-param=").removeprefix("-S"))
    paths = [one.partition("=")[0].lstrip("+~").removeprefix(f"{PARAMS}:") for one in given]
    return list(dict.fromkeys(path for path in paths if path and ":" not in path))


def _newest_experiment(baseline: str) -> str:
    """The commit of the last experiment that started from ``baseline``; empty if there is none."""
    folder = f"refs/exps/{baseline[:2]}/{baseline[2:]}"
    return _git("for-each-ref", "--sort=-committerdate", "--count=1", "--format=%(objectname)", folder).strip()


def _values_at(commit: str) -> dict[str, Any]:
    from dvc.utils.serialize import parse_yaml  # as DVC reads the file

    return dict(parse_yaml(_git("show", f"{commit}:./{PARAMS}"), PARAMS))


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"git {words[0]} cannot say what {PARAMS} was: {(done.stderr.splitlines() or ['?'])[0]}")
    return done.stdout


def _at(values: Any, path: str) -> Any:
    for key in path.split("."):
        if not isinstance(values, Mapping) or key not in values:
            return _ABSENT
        values = values[key]
    return values


def _write(changes: Mapping[str, Any]) -> None:
    """Write values by dotted path as DVC does, so that every other line stays as it is."""
    from dvc.utils.serialize import modify_yaml

    if not changes:
        return
    before = {*Path(PARAMS).read_text(encoding="utf-8").splitlines()}
    with modify_yaml(PARAMS) as values:
        for path, value in changes.items():
            *parents, key = path.split(".")
            section = values
            for parent in parents:
                section = section.setdefault(parent, {})
            if value is not _ABSENT:
                section[key] = value
            else:
                section.pop(key, None)
    # DVC leaves a comment in the column to which a longer value had moved it
    lines = Path(PARAMS).read_text(encoding="utf-8").splitlines()
    short = [line if line in before else re.sub(r"^([^'\"]*\S) {2,}#", r"\1 #", line) for line in lines]
    write_text(PARAMS, "\n".join(short) + "\n")
