"""From the tidy table to arrays: inputs an hour, parts in time order, statistics of the training part only."""

from typing import Any

import numpy as np
import pandas as pd

from isotrain.config import Window
from isotrain.data.calendar import calendar_features
from isotrain.data.windows import DAY, LEVEL_HOURS, PARTS, Windows, daily_lags
from isotrain.errors import InputError


def make_windows(table: pd.DataFrame, facts: dict[str, Any], settings: Window) -> Windows:
    """Split, scale and add the calendar. ``table`` and ``facts`` are ``series.parquet`` and ``series.json``.

    Scaling uses the training part only. Raises :class:`InputError` when the parts are too short for the window.
    """
    target, zone, country = facts["target"], facts["time_zone"], facts["country"]
    hours = pd.DatetimeIndex(table["time"])
    origins = split(len(table), settings)
    train = slice(0, origins["train"][1] + settings.horizon - 1)
    load = table[target]
    scale = float(load[train].std())
    if not scale > 0:
        raise InputError(f"{facts['source']}: {target} is constant over the training part: there is nothing to learn")
    level, spread = trailing_level(load)
    ahead = pd.date_range(hours[0], periods=len(hours) + settings.horizon, freq="h")
    calendar = calendar_features(ahead, zone, country)
    weather = [c for c, about in facts["columns"].items() if not about["kind"].endswith("load")]
    inputs = encoder_inputs(load, level, scale, table[weather], train).join(
        calendar.iloc[: len(table)].set_axis(table.index)
    )
    yesterday = (load - load.shift(DAY))[train].abs().mean()
    meta = {
        **{key: facts[key] for key in ("source", "simulated", "rows", "sha256", "target", "unit", "time_zone")},
        **{key: getattr(settings, key) for key in ("history", "horizon", "stride")},
        "scale": scale,
        "mase_scale": float(yesterday),
        "origins": {part: list(bounds) for part, bounds in origins.items()},
        "inputs": list(inputs.columns),
        "calendar": list(calendar.columns),
    }
    return Windows(
        inputs=inputs.to_numpy(np.float32),
        calendar=calendar.to_numpy(np.float32),
        target=load.to_numpy(np.float32),
        truth=load.where(table[f"{target}__flag"] == 0).to_numpy(np.float32),
        level=level.to_numpy(np.float32),
        spread=spread.to_numpy(np.float32),
        time=hours.as_unit("s").asi8,
        meta=meta,
    )


def split(rows: int, settings: Window) -> dict[str, tuple[int, int]]:
    """First and one-past-last origin of each part.

    The purge: an origin belongs to a part only if *all* its target hours do, so no hour is a target in two
    parts. The histories of the first validation and test origins reach back, as they do in use.
    """
    first_target = max(settings.history, *daily_lags(settings.horizon))  # every origin has its whole past
    ends = [int(rows * settings.train), int(rows * (settings.train + settings.validation)), rows]
    starts = [first_target, ends[0], ends[1]]
    parts = {part: (start, end - settings.horizon + 1) for part, start, end in zip(PARTS, starts, ends, strict=True)}
    for part, (start, end) in parts.items():
        if end <= start:
            raise InputError(
                f"the {part} part has no room for window.history of {settings.history} h and window.horizon of "
                f"{settings.horizon} h in a series of {rows} h: shorten the window or give a longer series"
            )
    return parts


def trailing_level(load: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Mean and standard deviation (kW) of the week that ends with each hour, shorter at the very beginning."""
    week = load.rolling(LEVEL_HOURS, min_periods=1)
    return week.mean(), week.std().fillna(0.0)


def encoder_inputs(
    load: pd.Series, level: pd.Series, scale: float, weather: pd.DataFrame, train: slice
) -> pd.DataFrame:
    """The plain inputs: load relative to its trailing level, and standardised weather if there is any."""
    columns = {"load": (load - level) / scale}
    for name, values in weather.items():
        mean, std = values[train].mean(), values[train].std()
        columns[str(name)] = (values - mean) / (std if std > 0 else 1.0)
    return pd.DataFrame(columns)


def describe(windows: Windows) -> dict[str, Any]:
    """The sizes of things, for the log."""
    sizes = {part: len(windows.origins(part)) for part in PARTS}
    return {"inputs": windows.inputs.shape[1], **{f"{part}_origins": n for part, n in sizes.items()}}
