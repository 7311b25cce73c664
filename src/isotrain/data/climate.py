"""What is usual at a time of year: a smooth mean by day of the year. The only seasonal thing a forecaster is told."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

DAYS = 366
SMOOTH = 21  # days, centred, around the year


def climatology(values: NDArray[np.float64], local: pd.DatetimeIndex) -> list[float]:
    """The usual value on each of the 366 days of a year, from hourly ``values`` at the hours ``local``.

    Days that never occur are interpolated around the year.
    """
    known = pd.Series(values).groupby(local.day_of_year.to_numpy()).mean()
    daily = np.interp(np.arange(1, DAYS + 1), known.index.to_numpy(), known.to_numpy(), period=DAYS)
    around = np.concatenate([daily[-(SMOOTH // 2) :], daily, daily[: SMOOTH // 2]])
    smooth = np.convolve(around, np.full(SMOOTH, 1 / SMOOTH), mode="valid")
    return [float(value) for value in smooth]


def usual(climate: list[float], local: pd.DatetimeIndex) -> NDArray[np.float64]:
    """(hours,): :func:`climatology`'s value for the day of each hour of ``local``."""
    values: NDArray[np.float64] = np.array(climate)[local.day_of_year.to_numpy() - 1]
    return values
