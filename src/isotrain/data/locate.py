"""Which files ``ingest.source`` means: files, folders, zip files and patterns; a member of a zip file is a path too.

``archive.zip/member.csv`` names a member. It is read where it is: nothing is unpacked to the disk.
"""

import fnmatch
import logging
import zipfile
from collections.abc import Sequence
from pathlib import Path

from isotrain.errors import InputError
from isotrain.files import reading

log = logging.getLogger(__name__)
BROUGHT_IN = "source.txt"  # in the raw folder: the name of the file that `make reproduce DATA=...` brought in last
TABLES = (".csv", ".txt", ".tsv", ".tab", ".dat", ".asc")  # endings of what is read from a folder or a zip file
SHOWN = 5  # names that a line of the log or of an error lists


def located(source: str | Sequence[str], raw_folder: Path) -> list[Path]:
    """The files meant: a bare name lies in ``raw_folder``, else it is a path from the project's folder.

    A folder or a zip file stands for the tables in it, in the order of their names; what else lies there is left out
    and said. A name with ``*``, ``?`` or ``[`` that is no file itself is a pattern. Raises :class:`InputError` if
    nothing is found.
    """
    found: list[Path] = []
    for name in [source] if isinstance(source, str) else source:
        path = Path(name)
        if path.parent == Path():
            path = raw_folder / path
        elif raw_folder.resolve() not in path.resolve().parents:
            log.warning("%s lies outside %s: DVC will not notice when it changes", path, raw_folder)
        if set(path.name) & set("*?[") and not path.exists():
            found += [table for one in _fitting(path) for table in tables_of(one)]
        else:
            found += tables_of(path)
    if len(found) > len(set(found)):
        twice = sorted({str(path) for path in found if found.count(path) > 1})
        raise InputError(f"ingest.source names a file twice: {named(twice)}")
    return found


def archive_of(path: Path) -> Path | None:
    """The zip file that ``path`` is, or lies in; ``None`` if there is none."""
    return next((part for part in (path, *path.parents) if part.suffix.lower() == ".zip" and part.is_file()), None)


def members(archive: Path) -> list[Path]:
    """The files in a zip file, each as a path below it."""
    with reading(archive, "give the path of a whole zip file"), zipfile.ZipFile(archive) as packed:
        return [archive / name for name in packed.namelist() if not name.endswith("/")]


def exists(path: Path) -> bool:
    """Whether ``path`` is a file, or names a member of a zip file."""
    if path.is_file():
        return True
    archive = archive_of(path)
    return archive is not None and path in members(archive)


def content_of(path: Path, most: int = -1) -> bytes:
    """The bytes of a file or of a member of a zip file, the first ``most`` of them alone if that is not negative."""
    archive = None if path.is_file() else archive_of(path)
    if archive is None:
        with path.open("rb") as stream:
            return stream.read(most)
    with (
        reading(path, "pack it again, without a password"),
        zipfile.ZipFile(archive) as packed,
        packed.open(path.relative_to(archive).as_posix()) as member,
    ):
        return member.read(most)


def named(names: Sequence[str]) -> str:
    """``names`` in words, no more than a few of them."""
    shown = ", ".join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"


def _fitting(pattern: Path) -> list[Path]:
    """What fits the last part of ``pattern``, in a folder or in a zip file."""
    archive = archive_of(pattern.parent)
    near = pattern.parent.glob(pattern.name) if archive is None else members(archive)
    fitting = sorted(one for one in near if archive is None or fnmatch.fnmatchcase(str(one), str(pattern)))
    fitting = [one for one in fitting if archive or one.is_file()]
    if not fitting:
        raise InputError(f"no file fits the pattern {pattern}: correct ingest.source")
    return fitting


def tables_of(path: Path) -> list[Path]:
    """``path``, or the tables in it where it is a folder or a zip file."""
    if path.is_dir():
        inside = [one for one in path.rglob("*") if one.is_file()]
    elif path.is_file() and archive_of(path) == path:
        inside = members(path)
    else:
        return [path]
    tables: list[Path] = []
    others: list[Path] = []
    for one in sorted(inside):
        parts = one.relative_to(path).parts
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
        table = one.suffix.lower() in TABLES and not hidden and parts != (BROUGHT_IN,)
        (tables if table else others).append(one)
    if others:
        log.info("%s: left out, for they are no tables (%s): %s", path, ", ".join(TABLES),
                 named([str(one.relative_to(path)) for one in others]))  # fmt: skip
    if not tables:
        raise InputError(f"{path} holds no table ({', '.join(TABLES)}): correct ingest.source")
    return tables
