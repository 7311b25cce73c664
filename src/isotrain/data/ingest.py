"""The stage ``ingest``: a raw series in, an hourly table without gaps and the facts about it out."""

import fnmatch
import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import ValidationError

from isotrain import files
from isotrain.config import Ingest, Window
from isotrain.config.ingest import AUTO, ENERGY, POWER, SIMULATED
from isotrain.data import simulate
from isotrain.data.limits import NO_SUCH, SAID, derive
from isotrain.data.locate import BROUGHT_IN, content_of, located, named
from isotrain.data.repair import from_start, repair
from isotrain.data.schema import TIME, Flag, check_hourly, check_tidy, flag_column
from isotrain.data.source import about_of, read_hourly
from isotrain.data.windows import AGAIN, Facts, flagged_line, shares_of
from isotrain.errors import InputError, passing

log = logging.getLogger(__name__)
PARTS = Window()  # of params.yaml, unless said otherwise
MANY = "many.json"  # in the folder of tidy tables: which series there are, where they are many
MONTH = 28 * 24  # hours
FEW = 5  # series below which a category tells nothing about the unit of another of it
THOUSAND = (316.0, 3162.0)  # 1,000 times or divided by the root of 10: what a wrong unit makes of a median


@dataclass(frozen=True)
class Tidy:
    """A repaired series. Loads in kW, temperature in degC, solar flux in W/m2."""

    frame: pd.DataFrame  # what series.parquet holds: time (UTC), each column, its flags
    raw: pd.DataFrame  # hourly values before repair: the same rows, UTC index
    facts: Facts  # what series.json holds


def ingest(settings: Ingest, raw_folder: Path, window: Window = PARTS) -> Tidy:
    """Read or simulate the one series, find its limits, flag and repair what lies beyond them. Writes nothing.

    ``raw_folder`` is where a ``settings.source`` without a folder of its own is looked for; limits come from the
    training part of ``window``. Raises :class:`InputError` naming file, line, column and remedy, or the limits that
    flag more of the target than ``settings.most_flagged``.
    """
    if settings.series == "each":
        raise InputError("ingest.series: each describes many series, and one is asked for: set it to one")
    source = source_of(settings.source, raw_folder)
    settings = settings.model_copy(update={"source": source})
    tidy = _tidy(settings, [] if source == SIMULATED else located(source, raw_folder), window)
    for column, of_column in tidy.facts["limits"].items():
        derived = {limit: found for limit, found in of_column.items() if found["reason"] not in (SAID, NO_SUCH)}
        words = [
            f"{limit} {found['value']:.4g} ({found['reason']})"
            for limit, found in derived.items()
            if found["value"] is not None
        ]
        if words:
            log.info("limits of %s: %s", column, "; ".join(words))
    log.info("missing or faulty: %s of %s", flagged_line(tidy.facts["flagged"]), settings.target)
    return tidy


def _tidy(settings: Ingest, paths: list[Path], window: Window, number: int = 0) -> Tidy:
    """The series of ``settings``, whose files are ``paths``; without any a simulated one, the ``number``-th of many."""
    columns = list(settings.columns)
    if paths:
        source, name = ", ".join(path.name for path in paths), paths[0].stem
        about, hourly = about_of(paths[0], settings.file, settings.about), read_hourly(settings, paths)
        digests = [hashlib.sha256(content_of(path)).hexdigest() for path in paths]
        digest = digests[0] if len(digests) == 1 else files.sha256_text(" ".join(sorted(digests)))
    else:
        source, name = SIMULATED, simulated_name(number) if number else SIMULATED
        hourly, about = _simulated(settings, number)
        digest = hashlib.sha256(np.ascontiguousarray(hourly.to_numpy()).tobytes()).hexdigest()
    if unsaid := [settings.about[fact] for fact, value in about.items() if value is None]:
        log.info("%s: nothing says %s", name, ", ".join(unsaid))
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
        "first_hour": frame[TIME].iloc[0].isoformat(),
        "source": source,
        "simulated": not paths,
        "rows": len(frame),
        "sha256": digest,
        "ingest": settings.model_dump(mode="json"),
        "name": name,
        "about": about,
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
    _stop_if_mostly_flagged(
        flags[settings.target].to_numpy(), hourly[settings.target].to_numpy(), facts, settings, ends
    )
    return Tidy(frame, hourly, facts)


@dataclass(frozen=True)
class Summary:
    """What is compared between series."""

    target: str
    unit: str  # of the target, in the file
    median: float  # of the target's measured hours, kW
    first: pd.Timestamp
    last: pd.Timestamp
    empty: list[str]  # parts of it without an hour that can be trusted
    pool: tuple[str, ...]  # the facts about the building that are words, such as its category


class Many:
    """The series of ``ingest.source`` where every file is one, read one after the other as they are iterated over.

    One at a time is in memory. ``left_out`` and ``remarks`` are complete when the iteration has ended.

    Example:
        >>> from isotrain.config.ingest import Simulated
        >>> made = Ingest(series="each", simulated=Simulated(hours=24 * 42, series=2))
        >>> [(tidy.facts["name"], tidy.facts["rows"]) for tidy in ingest_all(made, Path())]
        [('building-001', 1008), ('building-002', 1008)]
    """

    def __init__(self, settings: Ingest, raw_folder: Path, window: Window) -> None:
        source = source_of(settings.source, raw_folder)
        paths: dict[str, list[Path]]
        if source == SIMULATED:
            paths = {simulated_name(number): [] for number in range(1, settings.simulated.series + 1)}
        else:
            paths = {name: [path] for name, path in named_by_file(located(source, raw_folder)).items()}
        self.names = list(paths)  # of all files, in their order
        self.left_out: dict[str, str] = {}  # name -> why its file cannot be used
        self.remarks: dict[str, list[str]] = {}  # name -> what looks wrong beside the others
        for pattern in settings.overrides:
            if not fnmatch.filter(self.names, pattern):
                raise InputError(
                    f"ingest.overrides.{pattern} fits none of the {len(self.names)} series ({named(self.names)}): "
                    "correct the pattern, or remove it"
                )
        self._broken, self._window = settings.broken, window
        self._found = {
            name: (_described(settings, name, of_name, raw_folder), of_name) for name, of_name in paths.items()
        }

    def __iter__(self) -> Iterator[Tidy]:
        """Every series that can be used.

        Raises :class:`InputError`, after the last of them, that names the files which cannot, unless
        ``ingest.broken`` is ``leave_out``; and if there is none that can.
        """
        self.left_out, self.remarks, summaries = {}, {}, {}
        for number, (name, (settings, paths)) in enumerate(self._found.items(), start=1):
            if len(self.names) > 1:
                passing(f"series {number} of {len(self.names)}: {name}")
            try:
                tidy = _tidy(settings, paths, self._window, number)
                _stop_without_a_month(tidy)
            except InputError as problem:
                log.warning("%s: cannot be used: %s", name, problem)
                self.left_out[name] = str(problem)
                continue
            summaries[name] = _summary(tidy)
            yield tidy
        if self.left_out and (self._broken == "stop" or not summaries):
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.left_out.items())
            raise InputError(
                f"{len(self.left_out)} of {len(self.names)} series cannot be used ({', '.join(self.left_out)}): mend "
                "their files, say in ingest.overrides what differs in them, or set ingest.broken to leave_out. "
                f"{reasons}"
            )
        self.remarks = remarks_on(summaries)
        for name, of_name in self.remarks.items():
            for remark in of_name:
                log.warning("%s: %s", name, remark)


def ingest_all(settings: Ingest, raw_folder: Path, window: Window = PARTS) -> Many:
    """Every series of ``settings.source`` as :func:`ingest` gives it of its file alone, read when it is iterated over.

    Raises :class:`InputError` at once for two files of one name and for an override that fits no series.
    """
    return Many(settings, raw_folder, window)


def _described(settings: Ingest, name: str, paths: Sequence[Path], raw_folder: Path) -> Ingest:
    """The settings of one of many series; :class:`InputError` where the overrides that fit it go not together."""
    source = [path.name if path.parent == raw_folder else str(path) for path in paths] or [SIMULATED]
    try:
        return settings.of(name, source[0])
    except ValidationError as problem:
        why = problem.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(f"what ingest.overrides say of {name} does not fit together: {why}") from None


def simulated_name(number: int) -> str:
    """The name of a simulated building among many."""
    return f"building-{number:03d}"


def named_by_file(paths: Sequence[Path]) -> dict[str, Path]:
    """The series' names, each that of its file without the ending; :class:`InputError` for two of one name."""
    found: dict[str, Path] = {}  # by the name without its capitals, which some disks do not tell apart
    for path in paths:
        if not path.stem.isprintable() or path.stem in ("..", MANY):
            raise InputError(f"{path}: a series cannot be named so: give the file another name")
        if (same := found.setdefault(path.stem.casefold(), path)) != path:
            raise InputError(f"{same} and {path} have one name, and a series is named by its file: rename one")
    return {path.stem: path for path in found.values()}


def _stop_without_a_month(tidy: Tidy) -> None:
    """:class:`InputError` unless some 28 days in a row have half of the target's hours."""
    target = tidy.facts["target"]
    good = (tidy.frame[flag_column(target)] == Flag.OK).to_numpy().cumsum()
    most = int((good[MONTH:] - good[:-MONTH]).max(initial=good[min(MONTH, len(good)) - 1]))
    if most < MONTH / 2:
        raise InputError(
            f"{tidy.facts['source']} has no usable month: of the best 28 days in a row {most} h of {target} are "
            f"measured and without a fault, {MONTH // 2} are needed: take the file out, or fetch a longer one"
        )


def _summary(tidy: Tidy) -> Summary:
    facts, settings = tidy.facts, tidy.facts["ingest"]
    good = tidy.frame[flag_column(facts["target"])] == Flag.OK
    return Summary(
        facts["target"],
        settings["columns"][facts["target"]]["unit"] or "kW",
        float(tidy.frame[facts["target"]][good].median()),
        tidy.frame[TIME].iloc[0],
        tidy.frame[TIME].iloc[-1],
        [part for part, share in facts["flagged"].items() if share >= 1.0],
        tuple(value for value in facts["about"].values() if isinstance(value, str)),
    )


def remarks_on(series: Mapping[str, Summary]) -> dict[str, list[str]]:
    """What looks wrong: a median about a thousand times off those of others, a part without truth, a period of its own.

    A median is held against those of the same category, where there are enough, else against all others.
    """
    found: dict[str, list[str]] = {}
    first, last = (np.array([getattr(one, end).value for one in series.values()]) for end in ("first", "last"))
    medians = np.array([one.median for one in series.values()])
    pools = np.unique([str(one.pool) for one in series.values()], return_inverse=True)[1]
    for number, (name, one) in enumerate(series.items()):
        others = np.arange(len(series)) != number
        alike = others & (pools == pools[number])
        pool = medians[alike if alike.sum() >= FEW else others]
        if len(pool) >= 2 and (middle := float(np.median(pool))) > 0 and one.median > 0:
            times = one.median / middle
            if any(THOUSAND[0] <= ratio <= THOUSAND[1] for ratio in (times, 1 / times)):
                found.setdefault(name, []).append(_of_thousand(name, one, middle, times))
        if one.empty:
            parts = " and ".join(one.empty)
            found.setdefault(name, []).append(f"no hour of its parts {parts} is measured and without a fault")
        apart = int(((first[number] > last) | (last[number] < first))[others].sum())
        if others.sum() >= 2 and apart > others.sum() / 2:
            found.setdefault(name, []).append(
                f"it was measured from {one.first:%Y-%m-%d} to {one.last:%Y-%m-%d}, and {apart} of the {others.sum()} "
                "other series have no hour in common with it"
            )
    return found


def _shown(load: float) -> str:
    return f"{load:,.0f}" if load >= 1000 else f"{load:.3g}"


def _of_thousand(name: str, one: Summary, middle: float, times: float) -> str:
    kinds = [list(ENERGY), list(POWER)]
    units = next(kind for kind in kinds if one.unit in kind)
    at = units.index(one.unit) + (1 if times < 1 else -1)
    hint = "correct its unit by ingest.overrides"
    if 0 <= at < len(units):
        hint = (
            f"if its file counts {units[at]}, set ingest.overrides: "
            f"{{{name}: {{columns: {{{one.target}: {{unit: {units[at]}}}}}}}}}"
        )
    return (
        f"the median of {one.target} is {_shown(one.median)} kW, that of the others like it {_shown(middle)} kW, about "
        f"{'1,000 times' if times > 1 else '1/1,000'} of it: {hint}; nothing is corrected by itself"
    )


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
    if (folder / MANY).is_file():
        _forget(folder)


def read(folder: Path) -> tuple[pd.DataFrame, Facts]:
    """What :func:`write` wrote; :class:`InputError` if a file of it is damaged, or lacks something, or holds many."""
    if (folder / MANY).is_file():
        raise InputError(f"{folder} holds {len(names(folder))} series, and one is asked for: set ingest.series to one")
    facts = _read_facts(folder)
    with files.reading(folder, AGAIN):
        frame = pd.read_parquet(folder / "series.parquet")
        _refuse_missing({TIME, *facts["columns"], *map(flag_column, facts["columns"])} - {*frame})
    return frame, facts


def write_all(series: Many, folder: Path, note: Callable[[Tidy], None] = lambda _: None) -> None:
    """Write every series into a folder of its name below ``folder``, and ``many.json``, which lists them, last of all.

    ``note`` is called with each. Where something fails ``many.json`` is absent, so that nothing looks whole.
    """
    if (folder / MANY).is_file():
        _forget(folder)
    for name in ("series.parquet", "series.json"):
        (folder / name).unlink(missing_ok=True)
    written = []
    for tidy in series:
        write(tidy, folder / tidy.facts["name"])
        note(tidy)
        written.append(tidy.facts["name"])
    files.write_json(folder / MANY, {"series": written, "left_out": series.left_out, "remarks": series.remarks})


def read_all(folder: Path) -> Iterator[tuple[pd.DataFrame, Facts]]:
    """The table and the facts of each series in ``folder``, one after the other, in their order."""
    return map(read, folders(folder).values())


def read_facts(folder: Path) -> list[Facts]:
    """The facts of each series in ``folder``, in their order; no table is read."""
    return [_read_facts(one) for one in folders(folder).values()]


def names(folder: Path) -> list[str]:
    """The names of the series in ``folder``, in their order."""
    if not (folder / MANY).is_file():
        return [_read_facts(folder)["name"]]
    found = files.read_json(folder / MANY, AGAIN)
    with files.reading(folder / MANY, AGAIN):
        listed = [str(name) for name in found["series"]]
        if not listed or any(Path(name).name != name or name in ("", "..") for name in listed):
            raise ValueError("it lists no series")
    return listed


def _forget(folder: Path) -> None:
    """Remove the many series in ``folder``; the list goes first, so that no half of them looks whole."""
    listed = names(folder)
    (folder / MANY).unlink()
    for name in listed:
        shutil.rmtree(folder / name, ignore_errors=True)


def folders(folder: Path) -> dict[str, Path]:
    """The name of each series in ``folder`` and the folder of its own, in their order."""
    many = (folder / MANY).is_file()
    return {name: folder / name if many else folder for name in names(folder)}


def _read_facts(folder: Path) -> Facts:
    with files.reading(folder, AGAIN):
        facts = dict(files.read_json(folder / "series.json", AGAIN))
        _refuse_missing(Facts.__required_keys__ - facts.keys())
    return cast(Facts, facts)


def _refuse_missing(missing: Set[str]) -> None:
    if missing:
        raise ValueError(f"it lacks {', '.join(sorted(missing))}")


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


def _simulated(settings: Ingest, number: int) -> tuple[pd.DataFrame, dict[str, str | float | None]]:
    """The simulated building, or the ``number``-th of many, and the facts about it that are asked for."""
    one = settings.simulated
    made, facts = simulate.one_of_many(one, number) if number else (simulate.building(one), {})
    unknown = [name for name in settings.columns if name not in made.columns]
    if unknown:
        raise InputError(
            f"the simulated building has no column {', '.join(unknown)}; it has {', '.join(map(str, made))}: "
            "correct ingest.columns or set ingest.source to a file"
        )
    return made, {name: facts.get(key) for name, key in settings.about.items()}
