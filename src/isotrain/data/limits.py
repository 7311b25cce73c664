"""What counts as a fault, derived from the training part of each column; docs/data.md says the rules in words.

A limit is to lose nothing that may be genuine: it stands far outside of what the column usually does. Quantiles are
taken with the extreme hours left out, so that the faults of the training part itself move no limit.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd

from isotrain.config.ingest import Check, Ingest
from isotrain.data.repair import equal_hours
from isotrain.data.windows import Limit
from isotrain.errors import InputError

Values = npt.NDArray[np.float64]

SAID = "set in ingest.checks"  # the reason of a limit that was not derived
NO_SUCH = "not for this kind of column"  # the reason of a check that its rule does not know
ENOUGH = 168  # hours of readings below which nothing can be said about a column
LEFT_OUT, FEWEST_LEFT_OUT = 0.001, 8  # share, and number, of extreme hours that a quantile leaves out
FAR = 3.0  # times the quantile: no load goes there
NEAR_ZERO = 5.0  # a meter that is off reads less than this part of its lowest hours
COMMON = 0.002  # share of the hours from which on a negative load is no fault
OFTEN = 0.01  # share of the hours from which on a load of zero is its usual night
USUAL_RUNS = 5  # as many runs of equal hours make their length usual
YEAR = 365 * 24  # hours
HOTTER = 25.0  # K beyond what less than a year has shown
SUNLIGHT = 1400.0  # W/m2; more than this reaches no sensor on the ground
DUSK = 20.0  # W/m2; up to here sensors do repeat their values


Found = dict[str, tuple[float | None, str]]


def derive(hourly: pd.DataFrame, settings: Ingest, trained: int) -> tuple[Ingest, dict[str, dict[str, Limit]]]:
    """``settings`` with every limit of every column stated, and each limit with its reason.

    What ``settings.checks`` say stands; the rest is found in the first ``trained`` rows of ``hourly`` (raw
    values in stored units, from the start of the target on) and knows no later one.

    Raises :class:`InputError` if a limit that was set does not fit the others.
    """
    seen = hourly.iloc[:trained]
    checks, stated = {}, {}
    for name, column in settings.columns.items():
        said = settings.check(name)
        found = _RULES[column.kind](seen[name].to_numpy(np.float64))
        limits: dict[str, Limit] = {}
        for limit in Check.model_fields:
            value, reason = found.get(limit, (0.0 if limit == "before_start" else None, NO_SUCH))
            if limit in said.model_fields_set:
                value, reason = getattr(said, limit), SAID
            limits[limit] = {"value": value, "reason": reason}
        low, high = limits["lowest"]["value"], limits["highest"]["value"]
        if low is not None and high is not None and low >= high:
            raise InputError(
                f"ingest.checks of {name}: lowest = {low:g} must lie below highest = {high:g} "
                f"({limits['highest']['reason']}): set both"
            )
        checks[name] = Check.model_validate({limit: known["value"] for limit, known in limits.items()})
        stated[name] = limits
    return settings.model_copy(update={"checks": checks}), stated


def _load(raw: Values) -> Found:
    """A meter of a whole building: it may be off, which the loads behind it share."""
    found = _sub_load(raw, at_least=6)
    x = np.sort(raw[np.isfinite(raw)])
    if len(x) < ENOUGH:
        return found
    nights, middle = float(np.quantile(x, 0.01)), float(np.median(x))
    if nights < 0.1 * middle or found["lowest"][0] != 0.0:
        found["outage_below"] = None, f"its lowest hours, {nights:.3g}, lie near zero as a part of normal use"
        return found
    candidates = np.append(x[x < nights / NEAR_ZERO], x[x >= nights / NEAR_ZERO][0])  # the last one is genuine
    wide = np.maximum(FAR * candidates[:-1], candidates[:-1] + FAR * _resolution(x))
    gaps = np.flatnonzero(candidates[1:] >= wide)
    if not len(gaps):
        found["outage_below"] = (
            None,
            f"no hours near zero stand apart from the others: the 1 % quantile is {nights:.3g}",
        )
        return found
    low, high = candidates[gaps[-1]], candidates[gaps[-1] + 1]
    found["outage_below"] = (
        _rounded((low + high) / 2),
        f"between {gaps[-1] + 1} h of at most {low:.3g} and the lowest genuine one, {high:.3g}",
    )
    return found


def _sub_load(raw: Values, at_least: int = 24) -> Found:
    """A meter of a part of a building, which may be quiet for a day."""
    started = np.logical_or.accumulate(raw > 0)
    x = raw[started & np.isfinite(raw)]
    used, fed_in = x[x > 0], -x[x < 0]
    if len(x) < ENOUGH or not len(used):
        return _unknown(len(x))
    top, share = _quantile(used)
    found: Found = {"highest": (_rounded(FAR * top), f"{FAR:g} x the {share} quantile of what is used, {top:.3g}")}
    if len(fed_in) > COMMON * len(x):
        low, share = _quantile(fed_in)
        found["lowest"] = _rounded(-FAR * low), f"{FAR:g} x the {share} quantile of what is fed in, {low:.3g}"
    else:
        found["lowest"] = 0.0, f"{len(fed_in)} of {len(x)} h lie below"
    zeros = float((x == 0).mean())
    if zeros > OFTEN and not len(fed_in):
        found["stuck_above"] = 0.0, f"zero is usual: {zeros:.1%} of the hours"
    return found | {"stuck_hours": _stuck(raw, found.get("stuck_above", (None, ""))[0], at_least=at_least)}


def _temperature(raw: Values) -> Found:
    x = raw[np.isfinite(raw)]
    if len(x) < ENOUGH:
        return _unknown(len(x))
    low, high = np.quantile(x, [0.005, 0.995])
    beyond = (high - low) / 2 if len(x) >= YEAR else max((high - low) / 2, HOTTER)
    why = "half their distance" if len(x) >= YEAR else f"{beyond:.3g} K, for less than a year is known,"
    steps = np.abs(np.diff(raw))
    steps = steps[np.isfinite(steps)]  # none if it is measured at every third hour only
    jump, share = _quantile(steps) if len(steps) else (0.0, "")
    return {
        "lowest": (_rounded(low - beyond), f"{why} below the 0.5 % quantile, {low:.3g}"),
        "highest": (_rounded(high + beyond), f"{why} above the 99.5 % quantile, {high:.3g}"),
        "jump": (_rounded(FAR * jump), f"{FAR:g} x the {share} quantile of the change in an hour, {jump:.3g}")
        if jump > 0
        else (None, "no check: it hardly changes, or no two hours in a row are known"),
        "stuck_hours": _stuck(raw, None, at_least=6),
        "before_start": (_rounded(np.median(x)), "the median"),
    }


def _solar(raw: Values) -> Found:
    x = raw[np.isfinite(raw)]
    if len(x) < ENOUGH:
        return _unknown(len(x))
    offset = min(float(np.quantile(x, 0.01)), 0.0)
    return {
        "lowest": (min(_rounded(2 * offset), -3.0), f"2 x the 1 % quantile, {offset:.3g}, or -3"),
        "highest": (SUNLIGHT, "more sunlight reaches no sensor"),
        "stuck_above": (DUSK, "night and dusk do repeat"),
        "stuck_hours": _stuck(raw, DUSK, at_least=4),
    }


def _other(raw: Values) -> Found:
    x = raw[np.isfinite(raw)]
    if len(x) < ENOUGH:
        return _unknown(len(x))
    low, high = np.quantile(x, [LEFT_OUT, 1 - LEFT_OUT])
    beyond = FAR * (high - low) if high > low else FAR * float(np.ptp(x))
    middle = _rounded(np.median(x)), "the median"
    if not beyond:
        return {"before_start": middle}
    return {
        "lowest": (_rounded(low - beyond), f"{FAR:g} x the distance of the 0.1 and 99.9 % quantiles below, {low:.3g}"),
        "highest": (_rounded(high + beyond), f"{FAR:g} x their distance above, {high:.3g}"),
        "before_start": middle,
    }


_RULES: dict[str, Callable[[Values], Found]] = {
    "load": _load,
    "sub_load": _sub_load,
    "temperature": _temperature,
    "solar": _solar,
    "other": _other,
}


def _unknown(hours: int) -> Found:
    why = f"no check: the training part has {hours} readings, too few to derive it from"
    return dict.fromkeys(("lowest", "highest", "stuck_hours"), (None, why))


def _quantile(x: Values) -> tuple[float, str]:
    """The value that all but some extreme hours of ``x`` stay below, and which quantile that is, in words."""
    share = max(LEFT_OUT, min(FEWEST_LEFT_OUT / len(x), 0.5))
    return float(np.quantile(x, 1 - share, method="lower")), f"{100 * (1 - share):.4g} %"


def _stuck(raw: Values, above: float | None, *, at_least: int) -> tuple[float | None, str]:
    """Three times the length that several runs of equal hours reach: a coarse meter, or a quiet load, does repeat."""
    so_far, in_all = equal_hours(raw, above)
    runs = np.sort(in_all[so_far == 1])[::-1]
    if len(runs) < USUAL_RUNS:
        return None, "no check: it hardly ever changes"
    several = max(USUAL_RUNS, math.ceil(LEFT_OUT * len(runs)))
    usual = int(runs[several - 1])
    words = f"{FAR:g} x what {several} of {len(runs)} runs of equal values last, {usual} h, and {at_least} h at least"
    resolution = _resolution(raw[np.isfinite(raw)])
    return max(at_least, int(FAR) * usual), f"{words}; the meter resolves {resolution:.3g}"


def _resolution(x: Values) -> float:
    """The smallest difference between two distinct values of ``x``."""
    steps = np.diff(np.unique(x.round(9)))
    return float(steps.min()) if len(steps) else 0.0


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
