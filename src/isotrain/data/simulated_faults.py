"""The faults of the real series, put into a made-up one: gaps, pseudo-outages, a stuck zone, a spike."""

import numpy as np
import numpy.typing as npt
import pandas as pd

HOURS_PER_OUTAGE = 6000  # the real series has eight in 42,481 h
LONGEST_OUTAGE = 8  # hours
STUCK_HOURS = 57  # one zone stands still, as over the weekend to 2020-06-22 in the real series
STUCK_SLOT = 28
SLOTS = 40  # faults are drawn one a slot, so that they do not overlap


def spoil(rng: np.random.Generator, table: pd.DataFrame, *, target: str, zones: list[str]) -> None:
    """Put faults into ``table`` (hours, columns; UTC index), in place. Loads in kW."""
    slots = iter(rng.permutation(np.delete(np.arange(1, SLOTS), STUCK_SLOT - 1)))

    def place(length: int) -> pd.Index:
        slot = len(table) / SLOTS
        start = int(next(slots) * slot + rng.uniform(0, max(slot - length, 1)))
        return table.index[start : start + length]

    loads = [target, *zones]
    stuck = table.index[len(table) * STUCK_SLOT // SLOTS :][:STUCK_HOURS]
    table.loc[stuck, zones[0]] = table[zones[0]].to_numpy()[table.index.get_indexer(stuck)[0]]
    for _ in range(max(1, round(len(table) / HOURS_PER_OUTAGE))):
        left = rng.uniform([0.04, *[0.0] * len(zones)], [0.26, *[0.03] * len(zones)])
        table.loc[place(int(rng.integers(1, LONGEST_OUTAGE + 1))), loads] = left.round(2)
    for column in ("Global_Solar_Flux", "Direct_Solar_Flux", "Diffuse_Solar_Flux"):
        table.loc[place(2), column] = np.nan
    table.loc[place(14), "AirTemp"] = np.nan
    table.loc[place(1), "AirTemp"] = -27.02
    table.loc[_clock_set_back(pd.DatetimeIndex(table.index)), loads] = np.nan


def _clock_set_back(hours: pd.DatetimeIndex) -> npt.NDArray[np.bool_]:
    """00h and 01h UTC of October's last Sunday, the autumn change: absent from the real loads."""
    return np.asarray((hours.month == 10) & (hours.day > 24) & (hours.day_of_week == 6) & (hours.hour < 2))
