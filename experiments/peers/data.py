"""The series as the peers read them: a long table of every hour, written by the project's own environment."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from experiments.published_series import ONE_BUILDING, drammen, drammen_numbers, located

from isotrain.config import Window
from isotrain.data.calendar import calendar_features
from isotrain.data.ingest import Tidy, ingest
from isotrain.data.schema import TIME, flag_column
from isotrain.data.windowing import make_windows
from isotrain.data.windows import Windows
from isotrain.files import replacing, write_json

HORIZON = 24
DRAMMEN_PARTS = {"validation": "2021-04-01", "test": "2021-07-01", "end": "2022-03-18 23:00"}  # UTC


def read(section: dict[str, Any], data: Path) -> Tidy:
    """A series, checked and repaired; many missing hours are no reason to leave it out."""
    with tempfile.TemporaryDirectory() as folder:
        settings = located(section, data, Path(folder)).model_copy(update={"most_flagged": 1.0})
        return ingest(settings, Path(settings.source).parent)


def drahix_windows(data: Path) -> Windows:
    """The project's own windows, whose parts and origins are the peers' too."""
    tidy = read(ONE_BUILDING["drahix"], data)
    return make_windows(tidy.frame, tidy.facts, Window())


def hours_of(tidy: Tidy, name: str, weather: list[str], last: str | None = None) -> pd.DataFrame:
    """unique_id, ds (UTC), y (repaired, never NaN), truth (NaN where it was not measured), calendar and weather.

    With ``last``, up to that hour: where the series ends before, y and weather are those of a week ago, and no truth.
    """
    target = tidy.facts["target"]
    frame = tidy.frame.set_index(TIME)
    frame["truth"] = frame[target].where(frame[flag_column(target)] == 0)
    if last is not None:
        frame = frame.reindex(pd.date_range(frame.index[0], pd.Timestamp(last, tz="UTC"), freq="h"))
        for column in (target, *weather):
            while (gaps := frame[column].isna()).any():
                frame.loc[gaps, column] = frame[column].shift(168)[gaps]
    calendar = calendar_features(pd.DatetimeIndex(frame.index), tidy.facts["time_zone"], tidy.facts["country"])
    table = pd.DataFrame(
        {"unique_id": name, "ds": pd.DatetimeIndex(frame.index).tz_localize(None), "y": frame[target].to_numpy()}
    )
    columns = [frame[["truth", *weather]].reset_index(drop=True), calendar.reset_index(drop=True)]
    return pd.concat([table, *columns], axis=1).astype(
        {"y": np.float32, **dict.fromkeys(["truth", *weather], np.float32)}
    )


def prepare(name: str, data: Path, folder: Path) -> None:
    """Write ``NAME.parquet`` and ``NAME.json`` (the covariates, and where the parts begin and end) into ``folder``."""
    if name == "drahix":
        weather = ["AirTemp", "Global_Solar_Flux"]
        tidy = read(ONE_BUILDING["drahix"], data)
        table = hours_of(tidy, name, weather)
        origins = make_windows(tidy.frame, tidy.facts, Window()).series[0]["origins"]
        first, last = origins["test"]
        parts = {"validation": str(table.ds[origins["validation"][0]]), "test": str(table.ds[first])}
        parts |= {"scored": parts["test"], "end": str(table.ds[last - 1 + HORIZON - 1])}
    else:
        weather = ["Tout", "SolGlob"]
        numbers = drammen_numbers(data)
        last_hour = DRAMMEN_PARTS["end"]
        table = pd.concat(
            [hours_of(read(drammen(number), data), str(number), weather, last_hour) for number in numbers]
        )
        scored = pd.Timestamp(DRAMMEN_PARTS["test"])  # the first target: its origin at the last lead is earlier
        test = scored - pd.Timedelta(hours=HORIZON - 1)
        parts = {**DRAMMEN_PARTS, "scored": str(scored), "test": str(test)}
    known = [column for column in table if column not in ("unique_id", "ds", "y", "truth", *weather)]
    with replacing(folder / f"{name}.parquet") as draft:
        table.to_parquet(draft, index=False)
    write_json(folder / f"{name}.json", {"known": known, "past": weather, **parts})
