"""From tidy tables to arrays: features of every hour, parts in time order, statistics of the training part only."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from isotrain.config import Window
from isotrain.data.features import FEATURES, Family, compute
from isotrain.data.schema import TIME, flag_column
from isotrain.data.signals import fit_statistics, signals
from isotrain.data.windows import (
    DAY,
    LEVEL_HOURS,
    PARTS,
    Facts,
    Fitted,
    Meta,
    OfSeries,
    Provenance,
    Windows,
    known_ahead,
    needed_hours,
    save_all,
)
from isotrain.errors import InputError

log = logging.getLogger(__name__)
REPORTED = 10  # series between two lines of the log
NEXT = "next"  # the part that holds the one origin just after a series that goes on


def make_windows(table: pd.DataFrame, facts: Facts, settings: Window, declared: Sequence[Family] = FEATURES) -> Windows:
    """Split one series, fit what scales on the training part, compute all features.

    ``table`` and ``facts`` are ``series.parquet`` and ``series.json``. Raises :class:`InputError` when the parts
    are too short for the window or the target is constant.
    """
    ends = settings.ends(table[TIME].iloc[0], len(table))
    if not ends[0]:
        raise InputError(f"{facts['name']} has no hour before {settings.train}, the end of the training part")
    trained = table.iloc[: ends[0]]
    load = trained[facts["target"]]
    fitted: Fitted = {
        "target": facts["target"],
        "unit": facts["unit"],
        "time_zone": facts["time_zone"],
        "country": facts["country"],
        "history": settings.history,
        "horizon": settings.horizon,
        "stride": settings.stride,
        "statistics": fit_statistics(trained, facts),
        "mase_scale": float((load - load.shift(DAY)).abs().mean()),
    }
    made = _windows(table, facts, fitted, declared)
    origins = split(ends, settings, needed_hours(made.meta))
    made.series[0]["origins"] = {part: list(bounds) for part, bounds in origins.items()}
    return made


def make_all(
    tables: Iterable[tuple[pd.DataFrame, Facts]], about: Sequence[Facts], settings: Window, folder: Path
) -> Meta:
    """Windows of many series in ``folder``, made one at a time; returns what ``windows.json`` holds.

    ``about`` holds the facts of all series, in the order of ``tables``; those that ``settings.only`` does not mean are
    passed over. A series whose parts are too short for the window is left out with a warning where ``ingest.broken``
    says ``leave_out``, else :class:`InputError` names all of these, before any features are computed.
    """
    about = [facts for facts in about if wanted(facts, settings.only)] or _none_of(about, settings.only)
    refused: dict[str, str] = {}
    for facts in about if len(about) > 1 else ():  # of one series the remedy below says nothing
        try:
            ends = settings.ends(pd.Timestamp(facts["first_hour"]), facts["rows"])
            split(ends, settings, settings.history + LEVEL_HOURS)  # at the least: features may reach further back
        except InputError as problem:
            refused[facts["name"]] = str(problem)
    stops = len(refused) == len(about) or any(one["ingest"].get("broken") == "stop" for one in about)
    if refused and stops:
        words = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        raise InputError(f"{words}. To go on without such series: ingest.broken: leave_out")
    for name, reason in refused.items():
        log.warning("%s is left out: %s", name, reason)
    kept = {one["name"]: one["rows"] for one in about if one["name"] not in refused}

    def made() -> Iterator[Windows]:
        seen = 0
        for table, facts in tables:
            if facts["name"] in kept:
                yield make_windows(table, facts, settings)
                seen += 1
                if len(kept) > 1 and (seen % REPORTED == 0 or seen == len(kept)):
                    log.info("windows: %d of %d series", seen, len(kept))

    return save_all(made(), folder, list(kept.values()))


def wanted(facts: Facts, only: Mapping[str, str]) -> bool:
    """Whether the series has all the facts ``only``, each a pattern such as ``School``; ``name`` is one of them."""
    own = {"name": facts["name"], **facts["about"]}
    return all(fnmatch(str(own.get(fact)), pattern) for fact, pattern in only.items())


def _none_of(about: Sequence[Facts], only: Mapping[str, str]) -> NoReturn:
    """:class:`InputError` that says which facts there are."""
    there = {fact: sorted({str(one["about"].get(fact)) for one in about})[:10] for fact in only if fact != "name"}
    known = "; ".join(f"{fact}: {', '.join(values)}" for fact, values in there.items())
    raise InputError(
        f"window.only = {dict(only)} fits none of the {len(about)} series ({known or 'none has such a name'})"
    )


def apply_statistics(
    table: pd.DataFrame,
    facts: Provenance,
    meta: Meta,
    *,
    inputs: str = "rich",
    leave_out: Sequence[str] = (),
    future: pd.DataFrame | None = None,
) -> Windows:
    """The features of a new ``table`` (n hours) by the statistics of ``meta``, a trained forecaster's for one series.

    Its one origin, ``windows.origins("next")``, is n: the first hour after the table. ``future`` has a row for each of
    the hours from there on (``time``, and the columns that are known ahead); rows beyond the horizon do not matter, nor
    does any of it where nothing known ahead is read. Raises :class:`InputError` if a column is missing, the table has
    fewer hours than the features of ``inputs`` look back over, or a value that must be known ahead is missing.
    """
    one = meta["series"][0]
    wanted = [meta["target"], *(about["name"] for about in one["statistics"]["weather"])]
    if missing := [name for name in wanted if name not in table]:
        raise InputError(
            f"{facts['source']} lacks {', '.join(missing)}, which the forecaster was trained on: it needs "
            f"{', '.join(wanted)}"
        )
    needed = needed_hours(meta, inputs, leave_out)
    if len(table) < needed:
        raise InputError(
            f"{facts['source']} has {len(table)} h of history; {inputs} inputs look back over {needed} h: "
            "give a longer series"
        )
    made = described(table, facts, meta, _next_hours(table, future, facts, meta, leave_out))
    made.series[0]["origins"] = {NEXT: [len(table), len(table) + 1]}
    return made


def described(table: pd.DataFrame, facts: Provenance, meta: Meta, future: pd.DataFrame | None = None) -> Windows:
    """The features of ``table`` by the statistics of ``meta``, of one series; the caller fills in the origins.

    Without ``future``, what is known ahead of the hours after the table repeats its last value.
    """
    one = meta["series"][0]
    fitted: Fitted = {
        "target": meta["target"],
        "unit": meta["unit"],
        "time_zone": one["time_zone"],
        "country": one["country"],
        "history": meta["history"],
        "horizon": meta["horizon"],
        "stride": meta["stride"],
        "statistics": one["statistics"],
        "mase_scale": one["mase_scale"],
    }
    made = _windows(table, facts, fitted, FEATURES, future)
    made.series[0]["number"] = one["number"]
    return made


def _next_hours(
    table: pd.DataFrame, future: pd.DataFrame | None, facts: Provenance, meta: Meta, leave_out: Sequence[str]
) -> pd.DataFrame | None:
    """The columns known ahead in each of the ``horizon`` hours after ``table``; None if nothing reads them."""
    if not (names := known_ahead(meta, leave_out)):
        return None
    first = table[TIME].iloc[-1] + pd.Timedelta(hours=1)
    hours = pd.date_range(first, periods=meta["horizon"], freq="h", name=TIME)
    given = pd.DataFrame(columns=[TIME]) if future is None else future
    found = given.set_index(TIME).reindex(index=hours, columns=names).astype(np.float64)
    missing = [
        f"{name} at {len(without)} of them, the first {without[0]:%Y-%m-%d %H:%M} UTC"
        for name in names
        if len(without := hours[~np.isfinite(found[name])])
    ]
    if missing:
        raise InputError(
            f"{facts['source']} lacks values that the forecaster reads at the {len(hours)} h that it forecasts, "
            f"{hours[0]:%Y-%m-%d %H:%M} to {hours[-1]:%Y-%m-%d %H:%M} UTC: {'; '.join(missing)}. Add a row for each of "
            f"these hours after the last value of {meta['target']}: {', '.join(names)} as forecast, {meta['target']} "
            "empty"
        )
    return found


def split(ends: Sequence[int], settings: Window, first: int) -> dict[str, tuple[int, int]]:
    """First and one-past-last origin of each part, which end at ``ends``; ``first``: the first with its whole past.

    The purge: an origin belongs to a part only if *all* its target hours do, so no hour is a target in two
    parts. The histories of the first validation and test origins reach back, as they do in use.
    """
    starts = [first, ends[0], ends[1]]
    parts = {part: (start, end - settings.horizon + 1) for part, start, end in zip(PARTS, starts, ends, strict=True)}
    for part, (start, end) in parts.items():
        if end <= start:
            raise InputError(
                f"the {part} part has no room for a past of {first} h (window.history of {settings.history} h and what "
                f"its features look back over) and window.horizon of {settings.horizon} h in a series of {ends[-1]} h: "
                "shorten the window or give a longer series"
            )
    return parts


def describe(windows: Windows) -> dict[str, Any]:
    """For the log: how many columns and origins there are, and which groups of features lack columns for weather."""
    sizes = {part: len(windows.origins(part)) for part in PARTS}
    return {
        "columns": {array: len(columns) for array, columns in windows.meta["columns"].items()},
        **{f"{part}_origins": n for part, n in sizes.items()},
        **{f"left_out_without_{kind}": ", ".join(groups) for kind, groups in windows.meta["left_out"].items()},
    }


def _windows(
    table: pd.DataFrame,
    facts: Provenance,
    fitted: Fitted,
    declared: Sequence[Family],
    future: pd.DataFrame | None = None,
) -> Windows:
    """Everything but the origins, which the caller fills in: they depend on the reach of the features."""
    s = signals(table, fitted, future)
    features = compute(s, declared)
    target = fitted["target"]
    one: OfSeries = {
        "name": facts["name"],
        "number": 0,
        "about": facts["about"],
        "source": facts["source"],
        "sha256": facts["sha256"],
        "ingest": facts["ingest"],
        "first": 0,
        "rows": facts["rows"],
        "time_zone": fitted["time_zone"],
        "country": fitted["country"],
        "statistics": fitted["statistics"],
        "mase_scale": fitted["mase_scale"],
        "origins": {},
    }
    meta: Meta = {
        "source": facts["source"],
        "simulated": facts["simulated"],
        "rows": facts["rows"],
        "sha256": facts["sha256"],
        "target": target,
        "unit": fitted["unit"],
        "history": fitted["history"],
        "horizon": fitted["horizon"],
        "stride": fitted["stride"],
        "columns": features.columns,
        "groups": features.groups,
        "left_out": features.left_out,
        "series": [one],
    }
    return Windows(
        **features.arrays,
        target=table[target].to_numpy(np.float32),
        truth=table[target].where(table[flag_column(target)] == 0).to_numpy(np.float32),
        level=s.level.values.astype(np.float32),
        spread=s.spread.values.astype(np.float32),
        time=pd.DatetimeIndex(table[TIME]).as_unit("s").asi8,
        meta=meta,
    )
