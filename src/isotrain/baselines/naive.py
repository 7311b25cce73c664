"""Forecasts that repeat a known hour: nothing is fitted."""

import numpy as np
from numpy.typing import NDArray

from isotrain.baselines.fitted import Baseline, Fitted, Forecast, Origins
from isotrain.data.windows import DAY, Windows

NONE = -1  # no such hour


def same_hour(days: int) -> Baseline:
    """The same hour ``days`` days before, or the last such day that is known at the origin."""

    def fit(windows: Windows) -> Fitted:
        leads = np.arange(windows.meta["horizon"])
        back = days * DAY * (leads // (days * DAY) + 1)
        return Fitted(lambda origins: windows.target[origins[:, None] + leads - back])

    return fit


def same_day_type(windows: Windows) -> Fitted:
    """The same local hour of the last known day of the same kind: working or not.

    The local hour, not 24 hours before: the two differ after a clock change. Where the series holds no such hour
    yet, the level of the week.
    """
    hours = np.arange(len(windows.ahead))
    before = previous_alike(local_hour(windows) + DAY * working(windows) + 2 * DAY * windows.series_at(hours))
    leads = np.arange(windows.meta["horizon"])

    def answer(origins: Origins) -> Forecast:
        limit = origins[:, None]
        hours = before[limit + leads]
        while (unknown := hours >= limit).any():
            hours = np.where(unknown, before[hours], hours)
        level = windows.level[origins - 1][:, None]
        return np.where(hours == NONE, level, windows.target[hours])

    return Fitted(answer)


def previous_alike(kind: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of the last earlier entry of equal ``kind`` for each entry, -1 if there is none."""
    order = np.argsort(kind, kind="stable")
    same = kind[order][1:] == kind[order][:-1]
    before = np.full(len(kind), NONE)
    before[order[1:][same]] = order[:-1][same]
    return before


def local_hour(windows: Windows) -> NDArray[np.int64]:
    """Hour of the building's clock, 0 to 23, of each hour (n + K,), read back from the calendar."""
    angle = np.arctan2(_calendar(windows, "sin_1_per_day"), _calendar(windows, "cos_1_per_day"))
    hour: NDArray[np.int64] = np.round(angle / (2 * np.pi) * DAY).astype(np.int64) % DAY
    return hour


def hour_of_week(windows: Windows) -> NDArray[np.int64]:
    """Local hour of the week, 0 to 167, of each hour (n + K,)."""
    days = np.stack([_calendar(windows, f"weekday_{day}") for day in range(7)])
    answer: NDArray[np.int64] = days.argmax(0) * DAY + local_hour(windows)
    return answer


def working(windows: Windows) -> NDArray[np.int64]:
    """1 on working days, 0 on others, of each hour (n + K,)."""
    return _calendar(windows, "working").astype(np.int64)


def _calendar(windows: Windows, name: str) -> NDArray[np.float32]:
    return windows.ahead[:, windows.names("ahead").index(name)]
