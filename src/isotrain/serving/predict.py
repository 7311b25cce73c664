"""From a file or a table of the series to the forecast of the hours after its last one. Pandas in, pandas out."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from isotrain.config import Ingest
from isotrain.data.repair import repair
from isotrain.data.schema import TIME, Flag, flag_column
from isotrain.data.source import read_hourly
from isotrain.data.windowing import NEXT, apply_statistics
from isotrain.errors import InputError
from isotrain.forecast.intervals import working_hours
from isotrain.serving.bundle import Bundle

log = logging.getLogger(__name__)
HOUR = pd.Timedelta(hours=1)


def read_series(bundle: Bundle, path: Path) -> pd.DataFrame:
    """The tidy hourly table of the CSV ``path``, read and repaired as the series that the forecaster was trained on.

    Columns: time (UTC), each quantity in stored units (kW, degC, W/m2), its flags. Raises :class:`InputError`
    naming file, line and column.
    """
    try:
        values, flags = repair(read_hourly(bundle.ingest, path), bundle.ingest)
    except InputError as problem:
        raise InputError(f"{problem} (the forecaster reads {_description(bundle.ingest)})") from None
    table = values.join(flags.rename(columns=flag_column)).reset_index(names=TIME)
    table.attrs["source"] = str(path)
    _warn_of_what_is_missing(table, bundle)
    return table


def predict(bundle: Bundle, table: pd.DataFrame, coverage: float = 0.8) -> pd.DataFrame:
    """Forecast the hours after the last row of ``table``, a tidy table such as :func:`read_series` gives.

    One row a lead: ``time_utc`` and ``time_local`` (start of the hour, ISO 8601 with offset), ``lead_h`` (1 = the
    hour after the last row), ``forecast_kw``, ``low_kw`` and ``high_kw`` (the interval of ``coverage``; NaN for a
    forecaster without validation part). Raises :class:`InputError` if a column is missing or the history too short.
    """
    source = table.attrs.get("source", "the table")
    facts = {"source": source, "simulated": False, "rows": len(table), "sha256": ""}
    recent = table.tail(bundle.needed_hours).reset_index(drop=True)  # no feature looks further back
    model = bundle.settings.model
    windows = apply_statistics(recent, facts, bundle.meta, inputs=model.inputs, leave_out=model.leave_out)
    origins = windows.origins(NEXT)
    forecast = bundle.network(windows).forecast(torch.from_numpy(origins)).numpy()
    intervals = bundle.intervals(coverage)
    if intervals is None:
        log.warning("no intervals: this forecaster was trained on the validation part, so no errors are left to take")
        low = high = np.full(forecast.shape, np.nan)
    else:
        low, high = intervals.around(forecast, working_hours(windows, origins))
    hours = pd.date_range(table[TIME].iloc[-1] + HOUR, periods=forecast.shape[1], freq="h")
    return pd.DataFrame(
        {
            "time_utc": [stamp.isoformat() for stamp in hours.tz_convert("UTC")],
            "time_local": [stamp.isoformat() for stamp in hours.tz_convert(bundle.meta["time_zone"])],
            "lead_h": np.arange(1, forecast.shape[1] + 1),
            "forecast_kw": forecast[0].astype(np.float64),
            "low_kw": low[0].astype(np.float64),
            "high_kw": high[0].astype(np.float64),
        }
    )


def _description(ingest: Ingest) -> str:
    """The columns that a file must have, as it must head them."""
    about = ", ".join(f"{ingest.heading(key)!r} in {_unit(ingest, key)}" for key in ingest.columns)
    return f"{ingest.file.time_column.strip()!r}, {about}, a row every {ingest.file.step_minutes} minutes"


def _unit(ingest: Ingest, key: str) -> Any:
    column = ingest.columns[key]
    return column.unit or {"temperature": "degC", "solar": "W/m2"}.get(column.kind, "kW")


def _warn_of_what_is_missing(table: pd.DataFrame, bundle: Bundle) -> None:
    """Say which of the last hours are repairs: a forecast that starts from them is worth less."""
    for key in bundle.ingest.columns:
        good = np.flatnonzero(table[flag_column(key)].isin([Flag.OK, Flag.OFFSET]))
        missing = len(table) - 1 - int(good[-1]) if len(good) else len(table)
        if missing:
            log.warning("%s: the last %d h of %s are missing or faulty, repaired", table.attrs["source"], missing, key)
