"""What an hourly table holds on its way in and on its way out, and the codes of its flags."""

from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from isotrain.errors import InputError

if TYPE_CHECKING:
    from pandera.pandas import DataFrameSchema

TIME = "time"


class Flag(IntEnum):
    """What was found wrong with one value; where 0, the tidy value is the raw one."""

    OK = 0
    GAP = 1  # missing
    STUCK = 2  # the same value for too many hours; covers the run from its first hour, in hindsight
    OUTAGE = 3  # the meter was off and left a tiny value
    IMPOSSIBLE = 4  # outside physical limits, or a spike
    OFFSET = 5  # a solar sensor slightly below zero at night; set to 0
    NOT_STARTED = 6  # nothing measured yet

    @property
    def label(self) -> str:
        """Its name as people read it."""
        return self.name.lower().replace("_", " ")


def flag_column(column: str) -> str:
    """Name of the flag column that goes with ``column``."""
    return f"{column}__flag"


def check_hourly(table: pd.DataFrame, columns: list[str]) -> None:
    """Hourly values as read: full UTC grid, one float64 column each of ``columns``, NaN allowed.

    Raises :class:`InputError` naming the first column and hour at fault.
    """
    import pandera.pandas as pa

    _validate(
        pa.DataFrameSchema(
            {name: pa.Column(np.float64, nullable=True) for name in columns}, index=_grid(), strict=True
        ),
        table,
    )


def check_tidy(table: pd.DataFrame, columns: list[str]) -> None:
    """The table to be written: ``time``, finite float64 ``columns``, an int8 flag column each.

    Raises :class:`InputError` naming the first column and hour at fault.
    """
    import pandera.pandas as pa

    finite = pa.Check(lambda values: np.isfinite(values), name="finite")
    values: dict[str, Any] = {name: pa.Column(np.float64, checks=finite) for name in columns}
    flags = {flag_column(name): pa.Column(np.int8, checks=pa.Check.isin([*Flag])) for name in columns}
    _validate(pa.DataFrameSchema(values | flags, index=_grid(), strict=True), table.set_index(TIME))


def _grid() -> Any:
    import pandera.pandas as pa

    hourly = pa.Check(lambda time: bool((time.diff().iloc[1:] == pd.Timedelta(hours=1)).all()), name="hourly")
    return pa.Index(pd.DatetimeTZDtype("us", "UTC"), checks=hourly, name=TIME)


def _validate(schema: "DataFrameSchema", table: pd.DataFrame) -> None:
    from pandera.errors import SchemaError

    try:
        schema.validate(table)
    except SchemaError as problem:
        raise InputError(f"the hourly table is not what it should be: {problem}") from problem
