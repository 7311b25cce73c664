"""Find faults and repair them from the past alone.

A value at hour t depends on raw values up to t only: what replaces a fault is what a forecaster running at
that hour could have put there. Flags may know better: they say, in hindsight, which hours are no truth.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from isotrain.config.ingest import Check, Ingest
from isotrain.data.schema import Flag
from isotrain.errors import InputError

Values = npt.NDArray[np.float64]
Hours = npt.NDArray[np.bool_]

DAY, WEEK = 24, 168  # hours
HOLD = 3  # hours for which the last weather reading is better than yesterday's


@dataclass(frozen=True)
class Faults:
    """Faults of one column, (hours,) each. ``replace`` is known at the hour, ``flags`` in hindsight."""

    replace: Hours
    flags: npt.NDArray[np.int8]
    start: int  # first hour with a measurement


def repair(hourly: pd.DataFrame, settings: Ingest) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Repaired values (float64, no NaN) and flags (int8), (hours, columns) each, once the target has started.

    ``hourly``: raw values in stored units on the full grid. A limit that ``settings.checks`` leave out is not checked:
    :func:`isotrain.data.limits.derive` says them all. Raises :class:`InputError` if the target never measures anything.
    """
    hourly = from_start(hourly, settings)
    meter_off = _meter_off(hourly, settings)
    values, flags = {}, {}
    for name, column in settings.columns.items():
        check = settings.check(name)
        raw = hourly[name].to_numpy()
        load = column.kind in ("load", "sub_load")
        faults = find_faults(raw, check, load=load, off=meter_off & load)
        flags[name] = faults.flags
        floored = np.maximum(raw, 0.0) if column.kind == "solar" else raw
        values[name] = fill(floored, faults, check.before_start, load=load)
        if column.kind == "solar":
            flags[name][(faults.flags == Flag.OK) & (raw < 0)] = Flag.OFFSET
    return pd.DataFrame(values, index=hourly.index), pd.DataFrame(flags, index=hourly.index)


def from_start(hourly: pd.DataFrame, settings: Ingest) -> pd.DataFrame:
    """The rows of ``hourly`` from the first on at which the target measures something."""
    started = np.flatnonzero(hourly[settings.target].to_numpy() > 0)
    if not len(started):
        raise InputError(f"the target {settings.target} never exceeds 0 kW: choose another ingest.target")
    return hourly.iloc[started[0] :]


def find_faults(raw: Values, check: Check, *, load: bool, off: Hours) -> Faults:
    """Faults of one column ``raw`` (hours,). ``off`` (hours,): a meter in front of it was off.

    A load has not started before it exceeds 0, anything else before it reads a number.
    """
    gap = np.isnan(raw)
    begun = np.logical_or.accumulate(raw > 0 if load else ~gap)
    start = int(begun.argmax()) if begun.any() else len(raw)
    lowest = -np.inf if check.lowest is None else check.lowest
    impossible = (raw < lowest) | (raw > (np.inf if check.highest is None else check.highest))
    impossible |= _spikes(np.where(impossible, np.nan, raw), check.jump)
    outage = off | (raw < check.outage_below) if check.outage_below is not None else off
    so_far, in_all = equal_hours(raw, check.stuck_above)
    limit = len(raw) + 1 if check.stuck_hours is None else check.stuck_hours
    flags = np.select(
        [~begun, gap, impossible, outage, in_all >= limit],
        [Flag.NOT_STARTED, Flag.GAP, Flag.IMPOSSIBLE, Flag.OUTAGE, Flag.STUCK],
        Flag.OK,
    )
    replace = ~begun | gap | impossible | outage | (so_far >= limit)
    return Faults(replace, flags.astype(np.int8), start)


def fill(raw: Values, faults: Faults, before_start: float, *, load: bool) -> Values:
    """``raw`` (hours,) with the faulty hours replaced, each from hours before it that are already repaired.

    A load takes the same hour a week ago, else yesterday, else the last value. Weather keeps its last reading
    for 3 h, then takes the same hour yesterday. Before the start there is no past: ``before_start``.
    """
    values = raw.copy()
    good = np.maximum.accumulate(np.where(faults.replace, -1, np.arange(len(raw))))
    for t in np.flatnonzero(faults.replace):
        held = not load and good[t] >= faults.start and t - good[t] <= HOLD
        sources = (good[t],) if held else (t - WEEK, t - DAY, t - 1) if load else (t - DAY, t - 1)
        past = next((s for s in sources if s >= faults.start), None)
        values[t] = before_start if past is None else values[past]
    return values


def _meter_off(hourly: pd.DataFrame, settings: Ingest) -> Hours:
    """Hours (hours,) at which a whole-building meter reads as good as nothing: so do the zones behind it."""
    off = np.zeros(len(hourly), dtype=bool)
    for name, column in settings.columns.items():
        check, raw = settings.check(name), hourly[name].to_numpy()
        if column.kind == "load" and check.outage_below is not None:
            off |= (raw < check.outage_below) & (raw >= (-np.inf if check.lowest is None else check.lowest))
    return off


def _spikes(raw: Values, jump: float | None) -> Hours:
    """Values (hours,) further than ``jump`` from each of the two before; real jumps last longer."""
    spikes = np.zeros(len(raw), dtype=bool)
    if jump is not None:
        one, two = np.abs(raw[2:] - raw[1:-1]), np.abs(raw[2:] - raw[:-2])
        spikes[2:] = (one > jump) & (two > jump)
    return spikes


def equal_hours(raw: Values, above: float | None) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """At each hour, how many equal values in a row up to it, and how long the run is in all; (hours,) each.

    Missing values and those not over ``above`` are in no run (0).
    """
    counted = ~np.isnan(raw) if above is None else raw > above
    same = np.zeros(len(raw), dtype=bool)
    same[1:] = raw[1:] == raw[:-1]
    first = np.flatnonzero(~same)
    run = np.cumsum(~same) - 1
    lengths = np.diff(np.append(first, len(raw)))
    so_far = np.arange(len(raw)) - first[run] + 1
    return np.where(counted, so_far, 0), np.where(counted, lengths[run], 0)
