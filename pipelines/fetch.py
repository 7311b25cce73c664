"""Not a stage: bring a CSV, a zip file (path or URL) or a folder into data/raw under DVC, as what the study reads."""

import os
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from isotrain.config import load
from isotrain.config.reader import read_yaml
from isotrain.data.ingest import BROUGHT_IN
from isotrain.errors import InputError, holds_secret, masked, run_as_command
from isotrain.files import same_content, write_text


def main(source: str, params: str) -> None:
    chosen = load(params)
    raw = Path(chosen.paths.raw)
    goal = raw / name_of(source)
    named = chosen.ingest.source
    own = goal.name in ([named] if isinstance(named, str) else named)
    if own and same_content(goal, Path(source)):
        print(f"{params} reads {goal} already")  # isotrain inspect --write brought it in
        return
    if goal.resolve() != Path(source).resolve():
        refuse_to_replace(goal, source)
        again = ["--force"] if goal.exists() else []
        # DVC reads a relative path from the folder of the goal on
        local = Path(source).exists() and not Path(source).is_absolute()
        origin = os.path.relpath(Path(source).resolve(), raw.resolve()) if local else source
        words = ["import-url", *again, "--", origin, str(goal)]
        if goal.is_dir():  # into which DVC would import a second one
            words = ["update", "--", f"{goal}.dvc"]
        if subprocess.run([sys.executable, "-m", "dvc", *words], check=False).returncode:
            raise InputError(f"{source} could not be fetched, DVC says above why: check the address")
    write_text(raw / BROUGHT_IN, goal.name + "\n")
    if chosen.ingest.source != "auto":
        raise InputError(f"{goal} is there, and {params} reads {chosen.ingest.source}: set ingest.source to auto")
    if chosen.ingest.series == "one" and (goal.is_dir() or goal.suffix.lower() == ".zip"):
        print("its tables are taken for one series; if each of them is one, set ingest.series to each")
    print(f"the study reads {goal} from now on; remove {raw / BROUGHT_IN} to go back to the simulated series")


def name_of(source: str) -> str:
    """The name that the file of ``source`` gets in data/raw; :class:`InputError` if there is none that can be used."""
    if not source.isprintable():
        raise InputError(f"{source!r} holds a character that cannot be printed: correct it")
    try:
        address = urlsplit(source)
    except ValueError as problem:  # brackets that hold no IPv6 address
        raise InputError(f"{masked(source)} is no address ({problem}): correct it") from None
    if holds_secret(source) or "@" in address.netloc:  # a token may stand in the place of the user
        shown = re.sub(r"(?<=://)[^/]*@", "***@", masked(source))
        raise InputError(f"{shown} holds a password, which DVC would keep in git: fetch the file yourself")
    remote = address.scheme in ("http", "https")
    folder = not remote and Path(source).is_dir()
    if not remote and not folder and not Path(source).is_file():
        raise InputError(f"{source} is neither a file nor an http(s) address, nor a folder")
    name = PurePosixPath(unquote(address.path)).name if remote else Path(source).name
    fine = re.fullmatch(r"\w[\w .,+()-]{0,127}", name) and not name.endswith((" ", "."))
    refused = (".dvc",) if folder else ("", ".dvc")
    if not fine or Path(name).suffix.lower() in refused or name == BROUGHT_IN:
        raise InputError(
            f"{source} names no file that can lie in data/raw ({name!r}): the last part must be a name such as "
            "series.csv; fetch the file yourself and give its path"
        )
    return name


def refuse_to_replace(goal: Path, source: str) -> None:
    """:class:`InputError` unless ``goal`` is free, or was brought in from ``source`` before."""
    note = goal.with_name(f"{goal.name}.dvc")
    if not goal.exists() and not goal.is_symlink() and not note.exists():
        return
    known = ""
    if note.is_file() and goal.is_dir() == Path(source).is_dir():
        known = str((read_yaml(note).get("deps") or [{}])[0].get("path", ""))
    if known == source or (known and (goal.parent / known).resolve() == Path(source).resolve()):
        return
    came = f"came from {known}" if known else "was put there by hand"
    raise InputError(
        f"{goal} is there already and {came}, so that {source} is no newer version of it: give the new file another "
        "name, or remove the old one"
    )


if __name__ == "__main__":
    run_as_command(main)
