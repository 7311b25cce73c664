"""The stage ``ingest``: a raw series in, an hourly table without gaps and the facts about it out."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from isotrain import files
from isotrain.config import Ingest, Window
from isotrain.config.ingest import AUTO, SIMULATED
from isotrain.data import simulate
from isotrain.data.limits import NO_SUCH, SAID, derive
from isotrain.data.repair import from_start, repair
from isotrain.data.schema import TIME, Flag, check_hourly, check_tidy, flag_column
from isotrain.data.source import read_hourly
from isotrain.data.windows import AGAIN, Facts, flagged_line, shares_of
from isotrain.errors import InputError

log = logging.getLogger(__name__)
PARTS = Window()  # of params.yaml, unless said otherwise
BROUGHT_IN = "source.txt"  # in the raw folder: the name of the file that `make reproduce DATA=...` brought in last


@dataclass(frozen=True)
class Tidy:
    """A repaired series. Loads in kW, temperature in degC, solar flux in W/m2."""

    frame: pd.DataFrame  # what series.parquet holds: time (UTC), each column, its flags
    raw: pd.DataFrame  # hourly values before repair: the same rows, UTC index
    facts: Facts  # what series.json holds


def ingest(settings: Ingest, raw_folder: Path, window: Window = PARTS) -> Tidy:
    """Read or simulate the series, find its limits, flag and repair what lies beyond them. Writes nothing.

    ``raw_folder`` is where a ``settings.source`` without a folder of its own is looked for; limits come from the
    training part of ``window``. Raises :class:`InputError` naming file, line, column and remedy, or the limits that
    flag more of the target than ``settings.most_flagged``.
    """
    source = source_of(settings.source, raw_folder)
    settings = settings.model_copy(update={"source": source})
    columns = list(settings.columns)
    if source == SIMULATED:
        name, hourly = SIMULATED, _simulated(settings)
        digest = hashlib.sha256(np.ascontiguousarray(hourly.to_numpy()).tobytes()).hexdigest()
    else:
        paths = located(source, raw_folder)
        name, hourly = ", ".join(path.name for path in paths), read_hourly(settings, paths)
        digests = [files.sha256(path) for path in paths]
        digest = digests[0] if len(digests) == 1 else files.sha256_text(" ".join(sorted(digests)))
    hourly = hourly[columns]
    check_hourly(hourly, columns)
    late = len(hourly)
    hourly = from_start(hourly, settings)
    late -= len(hourly)
    settings, limits = derive(hourly, settings, window.ends(hourly.index[0], len(hourly))[0])
    values, flags = repair(hourly, settings)
    frame = values.join(flags.rename(columns=flag_column)).reset_index(names=TIME)
    check_tidy(frame, columns)
    kinds = {name: column.kind.removeprefix("sub_") for name, column in settings.columns.items()}
    ends = window.ends(frame[TIME].iloc[0], len(frame))
    facts: Facts = {
        "name": Path(name.split(", ")[0]).stem,
        "about": {},
        "first_hour": frame[TIME].iloc[0].isoformat(),
        "source": name,
        "simulated": source == SIMULATED,
        "rows": len(frame),
        "sha256": digest,
        "ingest": settings.model_dump(mode="json"),
        "target": settings.target,
        "unit": settings.columns[settings.target].stored_unit,
        "time_zone": settings.time_zone,
        "country": settings.country,
        "columns": {
            name: {"unit": column.stored_unit, "kind": kinds[name]} for name, column in settings.columns.items()
        },
        "flags": {
            name: {flag.name.lower(): int((flags[name] == flag).sum()) for flag in Flag if flag != Flag.OK}
            for name in settings.columns
        },
        "limits": limits,
        "flagged": shares_of((flags[settings.target] != Flag.OK).to_numpy(), ends),
        "hours_before_start": late,
    }
    for column, of_column in limits.items():
        derived = {limit: found for limit, found in of_column.items() if found["reason"] not in (SAID, NO_SUCH)}
        words = [
            f"{limit} {found['value']:.4g} ({found['reason']})"
            for limit, found in derived.items()
            if found["value"] is not None
        ]
        if words:
            log.info("limits of %s: %s", column, "; ".join(words))
    log.info("missing or faulty: %s of %s", flagged_line(facts["flagged"]), settings.target)
    _stop_if_mostly_flagged(
        flags[settings.target].to_numpy(), hourly[settings.target].to_numpy(), facts, settings, ends
    )
    return Tidy(frame, hourly, facts)


def _stop_if_mostly_flagged(
    flags: npt.NDArray[np.int8], raw: npt.NDArray[np.float64], facts: Facts, settings: Ingest, ends: list[int]
) -> None:
    """:class:`InputError` where faults, gaps apart, cover more of the target than allowed, in the whole or in a part.

    Gaps are no matter of limits: of those a warning says how many there are.
    """
    faults = np.isin(flags, [Flag.STUCK, Flag.OUTAGE, Flag.IMPOSSIBLE])
    most = settings.most_flagged
    shares = shares_of(faults, ends)
    gaps = shares_of(flags == Flag.GAP, ends)
    if max(gaps.values()) > most:
        log.warning("%s: hours of %s without a value: %s", facts["source"], settings.target, flagged_line(gaps))
    part = max(shares, key=shares.__getitem__)
    if shares[part] <= most:
        return
    where = "" if part == "whole" else f" of the {part} part"
    raise InputError(
        f"{facts['source']}: {shares[part]:.0%} of the hours{where} of the target {settings.target} are flagged as "
        f"faults, ingest.most_flagged allows {most:.0%}. Likeliest causes: {_causes(flags, raw, facts, settings)}"
    )


def _causes(flags: npt.NDArray[np.int8], raw: npt.NDArray[np.float64], facts: Facts, settings: Ingest) -> str:
    """The three likeliest causes, by what was flagged most, each with its setting."""
    target, check = settings.target, settings.check(settings.target)
    unit, above = settings.columns[target].unit or "kW", raw > (np.inf if check.highest is None else check.highest)
    limits = facts["limits"][target]
    own = f"ingest.checks.{target}"

    def of(limit: str) -> str:
        return f"{limit} = {limits[limit]['value']:g} ({limits[limit]['reason']})"

    stuck, outage, impossible = (flags == flag for flag in (Flag.STUCK, Flag.OUTAGE, Flag.IMPOSSIBLE))
    found: list[tuple[int, str]] = []
    if (count := int((impossible & above).sum())) > 0:
        smaller = {"kW": "W", "MW": "kW", "kWh": "Wh", "MWh": "kWh"}.get(unit)
        wrong = f"the unit may be {smaller}, set ingest.columns.{target}.unit; or " if smaller else ""
        found.append((count, f"{of('highest')} flags {{}}: {wrong}set {own}.highest"))
    if (count := int((impossible & ~above).sum())) > 0:
        sign = -settings.columns[target].sign
        found.append(
            (count, f"{of('lowest')} flags {{}}: if the file counts consumption as negative, set "
             f"ingest.columns.{target}.sign: {sign}; if the building feeds in, set {own}.lowest")
        )  # fmt: skip
    if outage.any():
        loads = [name for name, column in settings.columns.items() if column.kind == "load" and name != target]
        behind = f"; or give {', '.join(loads)} the kind sub_load, if it is not the main meter" if loads else ""
        below = of("outage_below") if limits["outage_below"]["value"] is not None else "the outage of the main meter"
        found.append(
            (int(outage.sum()), f"{below} flags {{}}: set {own}.outage_below: null if it is often idle{behind}")
        )
    if stuck.any():
        found.append(
            (int(stuck.sum()), f"{of('stuck_hours')} flags {{}}: a coarse meter, or a load that is often idle, repeats "
             f"its values: set {own}.stuck_hours higher, or null")
        )  # fmt: skip
    found.sort(key=lambda cause: -cause[0])
    words = [text.format(f"{count / len(flags):.0%}") for count, text in found]
    words += [f"the limits fit another building: set {own} or ingest.checks: auto"] if settings.checks else []
    words += [
        "the wrong column: set ingest.target and ingest.columns",
        "so it is meant: set ingest.most_flagged higher",
    ]
    return "; ".join(f"({number}) {text}" for number, text in enumerate(words[:3], 1))


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


def source_of(source: str | list[str], raw_folder: Path) -> str | list[str]:
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


def located(source: str | list[str], raw_folder: Path) -> list[Path]:
    """The files meant: a bare name lies in ``raw_folder``, else it is a path from the project's folder.

    A name with ``*``, ``?`` or ``[`` that is no file itself is a pattern. Raises :class:`InputError` if it fits none.
    """
    found: list[Path] = []
    for name in [source] if isinstance(source, str) else source:
        path = Path(name)
        if path.parent == Path():
            path = raw_folder / path
        elif raw_folder.resolve() not in path.resolve().parents:
            log.warning("%s lies outside %s: DVC will not notice when it changes", path, raw_folder)
        if set(path.name) & set("*?[") and not path.is_file():
            fitting = sorted(one for one in path.parent.glob(path.name) if one.is_file())
            if not fitting:
                raise InputError(f"no file fits the pattern {path}: correct ingest.source")
            found += fitting
        else:
            found.append(path)
    if len(found) > len(set(found)):
        raise InputError(f"ingest.source names a file twice: {', '.join(map(str, found))}")
    return found


def _simulated(settings: Ingest) -> pd.DataFrame:
    made = simulate.building(settings.simulated)
    unknown = [name for name in settings.columns if name not in made.columns]
    if unknown:
        raise InputError(
            f"the simulated building has no column {', '.join(unknown)}; it has {', '.join(map(str, made))}: "
            "correct ingest.columns or set ingest.source to a file"
        )
    return made
