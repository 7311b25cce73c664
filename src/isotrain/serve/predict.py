"""From a file or a table of the series to the forecast of the hours after its last one."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from isotrain.baselines import RESTORED
from isotrain.config import Ingest
from isotrain.data.repair import repair
from isotrain.data.schema import TIME, Flag, flag_column
from isotrain.data.source import read_hourly
from isotrain.data.windowing import NEXT, apply_statistics
from isotrain.data.windows import Provenance
from isotrain.errors import InputError
from isotrain.files import reading
from isotrain.forecast.bundle import TRAIN_AGAIN, Bundle
from isotrain.forecast.intervals import working_hours

log = logging.getLogger(__name__)
HOUR = pd.Timedelta(hours=1)
COVERAGE = 0.8  # of the interval, by default
MOST_REPAIRED = 0.25  # share of the hours of the target that a forecast reads; above it there is nothing to start from
FAR = 4.0  # standard deviations of the training part
SERIES = "series"  # the column that says of which series a row is, where there are many
Ends = NDArray[np.float64]


def read_series(bundle: Bundle, path: Path) -> pd.DataFrame:
    """The tidy hourly table of the CSV ``path``, read and repaired as the series that the forecaster was trained on.

    Columns: time (UTC), each quantity in stored units (kW, degC, W/m2), its flags. For a forecaster that reads columns
    known ahead, the rows after the last value of the target are the future (:func:`past_and_future`). Raises
    :class:`InputError` naming file, line and column.
    """
    try:
        hourly = read_hourly(bundle.ingest, path)
        last = hourly[bundle.ingest.target].last_valid_index() if bundle.ahead else None
        past = hourly.loc[:last]  # all of it where nothing is read ahead, or nothing was measured
        future = _future(hourly.iloc[len(past) :], bundle, path)
        values, flags = repair(past, bundle.ingest)
    except InputError as problem:
        raise InputError(f"{problem} (the forecaster reads {_description(bundle.ingest)})") from None
    table = values.join(flags.rename(columns=flag_column)).reset_index(names=TIME)
    table.attrs["source"] = str(path)
    _warn_of_what_is_missing(table, bundle)
    check_recent(table, bundle)
    return with_future(table, future.reset_index(names=TIME)) if bundle.ahead else table


def _future(hourly: pd.DataFrame, bundle: Bundle, path: Path) -> pd.DataFrame:
    """The columns known ahead of the rows ``hourly`` (raw, in stored units) after the last value of the target.

    Nothing here can be repaired. Raises :class:`InputError` for a value that the limits of its column exclude.
    """
    found = hourly[bundle.ahead].copy()
    for name in bundle.ahead:
        check = bundle.ingest.check(name)
        low, high = (
            end if limit is None else limit for limit, end in ((check.lowest, -np.inf), (check.highest, np.inf))
        )
        if (wrong := (found[name] < low) | (found[name] > high)).any():
            first = int(wrong.to_numpy().argmax())
            raise InputError(
                f"{path}: {name} is {found[name].iloc[first]:g} at {found.index[first]:%Y-%m-%d %H:%M} UTC, an "
                f"hour to be forecast; its limits are {low:g} and {high:g}: correct it, and check its unit"
            )
        if bundle.ingest.columns[name].kind == "solar":  # as repaired: a slight offset below zero at night is 0
            found[name] = found[name].clip(lower=0.0)
    return found


def with_future(table: pd.DataFrame, future: pd.DataFrame) -> pd.DataFrame:
    """``table`` (tidy), and after it the rows of ``future``, in which all but the columns known ahead are empty."""
    joined = pd.concat([table, future], ignore_index=True) if len(future) else table
    joined.attrs.update(table.attrs)
    return joined


def past_and_future(table: pd.DataFrame, target: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A table up to the last value of ``target``, and the rows after it: a repaired past has no empty hour."""
    end = int(table[target].notna().to_numpy().nonzero()[0][-1]) + 1
    return table.iloc[:end], table.iloc[end:]


def end_known_ahead(table: pd.DataFrame, bundle: Bundle) -> pd.DataFrame:
    """``table`` (tidy, measured to its end) with its last hours as the future, so that the forecast begins before them.

    Unchanged for a forecaster that reads nothing known ahead.
    """
    if not bundle.ahead:
        return table
    start = len(table) - bundle.meta["horizon"]
    return with_future(table.iloc[:start], table.iloc[start:][[TIME, *bundle.ahead]])


def check_recent(table: pd.DataFrame, bundle: Bundle) -> None:
    """Refuse a table whose last hours are mostly repaired; warn, by number, where they are unlike the training part.

    Raises:
        InputError: more than :data:`MOST_REPAIRED` of the hours of the target that the forecast reads are missing or
            faulty.
    """
    source, target, recent = table.attrs["source"], bundle.ingest.target, table.tail(bundle.needed_hours)
    good = recent[flag_column(target)].isin([Flag.OK, Flag.OFFSET])
    if (missing := int((~good).sum())) > MOST_REPAIRED * len(recent):
        raise InputError(
            f"{source}: of the last {len(recent)} h of {target}, which the forecast reads, {missing} are missing or "
            f"faulty; more than {MOST_REPAIRED:.0%} leave nothing to forecast from: bring in a file that has them, and "
            "check its unit and column"
        )
    low, middle, high = bundle.load_ranges[0]
    usual = float(recent.loc[good, target].median())
    if not low <= usual <= high:
        log.warning(
            "%s: half of the last %d h of %s exceed %.3g kW; the forecaster was trained on %.3g to %.3g kW (98 %% of "
            "the hours), %.3g in the middle: is this the load that it knows, in its unit?",
            source, len(recent), target, usual, low, high, middle,
        )  # fmt: skip
    for column in bundle.series["statistics"]["weather"]:
        if column["name"] in recent:
            mean = float(recent[column["name"]].mean())
            if abs(mean - column["mean"]) > FAR * column["std"]:
                log.warning(
                    "%s: the mean of the last %d h of %s is %.3g; over the training part it was %.3g, with a standard "
                    "deviation of %.3g: is its unit right?",
                    source, len(recent), column["name"], mean, column["mean"], column["std"],
                )  # fmt: skip


def use_one_thread() -> None:
    """Torch on one core, for the whole process: at a single window several cores only wait for each other."""
    torch.set_num_threads(1)


@dataclass(frozen=True)
class NextHours:
    """The K hours after the last row of a table."""

    time: pd.DatetimeIndex  # (K,), UTC
    forecast: NDArray[np.float64]  # (K,), kW
    working: NDArray[np.bool_]  # (K,)

    def interval(self, bundle: Bundle, coverage: float) -> tuple[Ends, Ends]:
        """Lower and upper ends (K,), kW; NaN for a forecaster that was trained on the validation part.

        No lower end is below what the series' checks call possible, such as 0 kW.
        """
        intervals = bundle.intervals(coverage)
        if intervals is None:
            return np.full(self.forecast.shape, np.nan), np.full(self.forecast.shape, np.nan)
        low, high = intervals.around(self.forecast[None], self.working[None])
        lowest = bundle.ingest.check(bundle.ingest.target).lowest
        return low[0] if lowest is None else np.maximum(low[0], lowest), high[0]


def next_hours(bundle: Bundle, table: pd.DataFrame) -> NextHours:
    """Forecast the hours after the last value of the target in ``table``, such as :func:`read_series` gives.

    Raises :class:`InputError` if a column is missing, the history too short, or what must be known ahead is missing.
    """
    past, future = past_and_future(table, bundle.meta["target"])
    facts: Provenance = {
        "source": table.attrs.get("source", "the table"),
        "simulated": False,
        "rows": len(past),
        "sha256": "",
        "ingest": bundle.series["ingest"],
        "name": bundle.series["name"],  # a baseline of its own for each series is found by it
        "about": bundle.series["about"],
    }
    recent = past.tail(bundle.needed_hours).reset_index(drop=True)  # no feature looks further back
    windows = apply_statistics(recent, facts, bundle.meta, **bundle.reads, future=future)
    origins = windows.origins(NEXT)
    answers = [bundle.network(windows).forecast(torch.from_numpy(origins)).numpy()] if bundle.settings else []
    for name, content in bundle.baselines.items():
        with reading(bundle.folder / name, TRAIN_AGAIN):
            answers.append(RESTORED[Path(name).stem](windows, content)(origins))
    forecast = np.stack(answers).mean(axis=0, dtype=np.float64)[0]
    hours = pd.date_range(past[TIME].iloc[-1] + HOUR, periods=len(forecast), freq="h")
    return NextHours(hours, forecast, working_hours(windows, origins)[0])


def predict(bundle: Bundle, table: pd.DataFrame, coverage: float = COVERAGE) -> pd.DataFrame:
    """:func:`next_hours` as a table, one row a lead.

    ``time_utc`` and ``time_local`` (start of the hour, ISO 8601 with offset), ``lead_h`` (1 = the first of
    them), ``forecast_kw``, ``low_kw`` and ``high_kw`` (:meth:`NextHours.interval`). Raises :class:`InputError`
    as :func:`next_hours` does, and for a ``coverage`` that is no share or too close to 1 for the validation part.
    """
    answer = next_hours(bundle, table)
    low, high = answer.interval(bundle, coverage)
    if bundle.residuals is None:
        log.warning(
            "no intervals: this forecaster was trained on the validation part, so it has no validation errors; take "
            "those of the same method trained without that part (--errors-of)"
        )
    return pd.DataFrame(
        {
            "time_utc": [stamp.isoformat() for stamp in answer.time],
            "time_local": [stamp.isoformat() for stamp in answer.time.tz_convert(bundle.series["time_zone"])],
            "lead_h": np.arange(1, len(answer.time) + 1),
            "forecast_kw": answer.forecast,
            "low_kw": low,
            "high_kw": high,
        }
    )


def in_one(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The ``tables`` of several series below each other, the name of the series in the first column."""
    named = [table.assign(**{SERIES: name})[[SERIES, *table]] for name, table in tables.items()]
    return pd.concat(named, ignore_index=True)


def _description(ingest: Ingest) -> str:
    """The columns that a file must have, as it must head them."""
    about = ", ".join(f"{ingest.heading(key)!r} in {_unit(ingest, key)}" for key in ingest.columns)
    return f"{ingest.file.time_column.strip()!r}, {about}, a row every {ingest.file.step_minutes} minutes"


def _unit(ingest: Ingest, key: str) -> str:
    column = ingest.columns[key]
    return column.unit or column.stored_unit


def _warn_of_what_is_missing(table: pd.DataFrame, bundle: Bundle) -> None:
    """Warn of the last hours that are repaired values: a forecast that starts from them is less certain."""
    for key in bundle.ingest.columns:
        good = np.flatnonzero(table[flag_column(key)].isin([Flag.OK, Flag.OFFSET]))
        missing = len(table) - 1 - int(good[-1]) if len(good) else len(table)
        if missing:
            log.warning("%s: the last %d h of %s are missing or faulty, repaired", table.attrs["source"], missing, key)
