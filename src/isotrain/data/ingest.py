"""The stage ``ingest``: a raw series in, an hourly table without gaps and the facts about it out."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from isotrain import files
from isotrain.config.ingest import AUTO, SIMULATED, STORED_UNIT, Ingest
from isotrain.data import simulate
from isotrain.data.repair import repair
from isotrain.data.schema import TIME, Flag, check_hourly, check_tidy, flag_column
from isotrain.data.source import read_hourly
from isotrain.data.windows import AGAIN, Facts
from isotrain.errors import InputError

log = logging.getLogger(__name__)
BROUGHT_IN = "source.txt"  # in the raw folder: the name of the file that `make reproduce DATA=...` brought in last


@dataclass(frozen=True)
class Tidy:
    """A repaired series. Loads in kW, temperature in degC, solar flux in W/m2."""

    frame: pd.DataFrame  # what series.parquet holds: time (UTC), each column, its flags
    raw: pd.DataFrame  # hourly values before repair: the same rows, UTC index
    facts: Facts  # what series.json holds


def ingest(settings: Ingest, raw_folder: Path) -> Tidy:
    """Read or simulate the series, check, flag and repair it. Writes nothing.

    ``raw_folder`` is where a ``settings.source`` without a folder of its own is looked for. Raises
    :class:`InputError` naming file, line, column and remedy.
    """
    settings = settings.model_copy(update={"source": source_of(settings.source, raw_folder)})
    columns = list(settings.columns)
    if settings.source == SIMULATED:
        name, hourly = SIMULATED, _simulated(settings)
        digest = hashlib.sha256(np.ascontiguousarray(hourly.to_numpy()).tobytes()).hexdigest()
    else:
        path = _locate(settings.source, raw_folder)
        name, hourly, digest = path.name, read_hourly(settings, path), files.sha256(path)
    hourly = hourly[columns]
    check_hourly(hourly, columns)
    values, flags = repair(hourly, settings)
    frame = values.join(flags.rename(columns=flag_column)).reset_index(names=TIME)
    check_tidy(frame, columns)
    kinds = {name: column.kind.removeprefix("sub_") for name, column in settings.columns.items()}
    facts: Facts = {
        "source": name,
        "simulated": settings.source == SIMULATED,
        "rows": len(frame),
        "sha256": digest,
        "ingest": settings.model_dump(mode="json"),
        "target": settings.target,
        "unit": STORED_UNIT[settings.columns[settings.target].kind],
        "time_zone": settings.time_zone,
        "country": settings.country,
        "columns": {name: {"unit": STORED_UNIT[kind], "kind": kind} for name, kind in kinds.items()},
        "flags": {
            name: {flag.name.lower(): int((flags[name] == flag).sum()) for flag in Flag if flag != Flag.OK}
            for name in settings.columns
        },
        "hours_before_start": len(hourly) - len(values),
    }
    return Tidy(frame, hourly.loc[values.index], facts)


def write(tidy: Tidy, folder: Path) -> None:
    """Write ``series.parquet`` and ``series.json``; on any failure what was there before stays as it was."""
    parquet, facts = folder / "series.parquet", folder / "series.json"
    with files.replacing(parquet) as table_draft, files.replacing(facts) as facts_draft:
        tidy.frame.to_parquet(table_draft, index=False)
        files.write_json(facts_draft, tidy.facts)


def read(folder: Path) -> tuple[pd.DataFrame, Facts]:
    """What :func:`write` wrote; :class:`InputError` if a file of it is damaged, or lacks something."""
    with files.reading(folder, AGAIN):
        frame, facts = pd.read_parquet(folder / "series.parquet"), dict(files.read_json(folder / "series.json", AGAIN))
        missing = sorted(Facts.__required_keys__ - facts.keys())
        names = [] if missing else list(facts["columns"])
        missing += sorted({TIME, *names, *map(flag_column, names)} - {*frame})
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
    return frame, cast(Facts, facts)


def source_of(source: str, raw_folder: Path) -> str:
    """``source``, or where it says ``auto`` the file that was brought in last, else ``simulated``."""
    if source != AUTO:
        return source
    brought = raw_folder / BROUGHT_IN
    if not brought.exists():
        return SIMULATED
    with files.reading(brought, "remove it, or write the name of a file beside it there"):
        name = files.read_plain(brought).decode("utf-8").strip()
        if Path(name).name != name or name in ("", ".."):
            raise ValueError(f"{name[:80]!r} is no name of a file")
    return name


def _locate(source: str, raw_folder: Path) -> Path:
    """The file meant: a bare name lies in ``raw_folder``, else it is a path from the project's folder."""
    path = Path(source)
    if path.parent == Path():
        return raw_folder / path
    if raw_folder.resolve() not in path.resolve().parents:
        log.warning("%s lies outside %s: DVC will not notice when it changes", path, raw_folder)
    return path


def _simulated(settings: Ingest) -> pd.DataFrame:
    made = simulate.building(settings.simulated)
    unknown = [name for name in settings.columns if name not in made.columns]
    if unknown:
        raise InputError(
            f"the simulated building has no column {', '.join(unknown)}; it has {', '.join(map(str, made))}: "
            "correct ingest.columns or set ingest.source to a file"
        )
    return made
