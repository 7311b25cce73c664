"""Nothing after an origin reaches what is read at it: the raw file is spoilt from the origin on, and nothing moves.

The whole way is run: a file as measured, checks and repair, statistics, every feature.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from isotrain.config import Ingest, Window
from isotrain.config.ingest import Column, File, Simulated
from isotrain.data import simulate
from isotrain.data.features import FEATURES, Family
from isotrain.data.ingest import Tidy, ingest
from isotrain.data.signals import Known, Past, Signals
from isotrain.data.windowing import apply_statistics, make_windows
from isotrain.data.windows import Windows

HOURS = 24 * 200
START = datetime(2017, 9, 15)  # both changes of the clock, a year's end, the closure of the building
TRAINED = int(0.6 * HOURS)
COLUMNS = {
    "TGBT": Column(kind="load"),
    "T1": Column(kind="sub_load"),
    "AirTemp": Column(kind="temperature"),
    "Global_Solar_Flux": Column(kind="solar"),
}
Values = NDArray[np.float64]
# from the last row before the origin, the number of hours and a generator to what is measured from the origin on
SPOIL: dict[str, Callable[[Values, int, np.random.Generator], Values | float]] = {
    "noise": lambda last, n, rng: rng.normal(20, 40, (n, len(COLUMNS))).round(2),
    "missing": lambda last, n, rng: np.nan,
    "zeros": lambda last, n, rng: 0.0,
    "constant": lambda last, n, rng: 31.4,
    "stuck": lambda last, n, rng: np.tile(last, (n, 1)),
    "some missing": lambda last, n, rng: np.where(rng.random((n, len(COLUMNS))) < 0.5, np.nan, 25.0),
}
HOW, SEED, HORIZON = st.sampled_from(sorted(SPOIL)), st.integers(0, 2**32 - 1), st.sampled_from([1, 24, 30])
quick = settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass(frozen=True)
class World:
    """The building's file as measured, and a way through the ingest for it and for spoilt copies of it."""

    raw: pd.DataFrame
    folder: Path

    def tidy(self, raw: pd.DataFrame, limits: Tidy | None = None) -> Tidy:
        """``limits``: whose limits of faults count; else they are derived from the training part of ``raw``."""
        path = self.folder / "series.csv"
        raw.to_csv(path, index_label="time")
        checks = Ingest(**limits.facts["ingest"]).checks if limits else {}
        read = Ingest(source=str(path), columns=COLUMNS, file=File(time_column="time"), checks=checks, most_flagged=1.0)
        made = ingest(read, self.folder, parts(24))
        assert len(made.frame) == HOURS
        return made

    def spoilt(self, origin: int, how: str, seed: int, limits: Tidy | None = None) -> Tidy:
        raw = self.raw.copy()
        raw.iloc[origin:] = SPOIL[how](raw.iloc[origin - 1].to_numpy(), HOURS - origin, np.random.default_rng(seed))
        return self.tidy(raw, limits)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    raw = simulate.building(Simulated(seed=5, start=START, hours=HOURS))
    return World(raw[list(COLUMNS)], tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def clean(world: World) -> Tidy:
    return world.tidy(world.raw)


def parts(horizon: int) -> Window:
    return Window(history=48, horizon=horizon, train=0.6, validation=0.2, stride=1)


def read_at(windows: Windows, origin: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Every number that a forecast from ``origin``, or from any origin before it, can read."""
    for name in ("inputs", "origin", "recent", "level", "spread", "target"):
        yield name, getattr(windows, name)[:origin]
    for name in ("ahead", "lags"):
        yield name, getattr(windows, name)[: origin + windows.meta["horizon"]]


def leaks(one: Windows, other: Windows, origin: int) -> set[str]:
    """The columns that differ in a bit in some row that is read at ``origin`` or before."""
    found = set()
    for (name, a), (_, b) in zip(read_at(one, origin), read_at(other, origin), strict=True):
        assert a.dtype == np.float32 and a.shape == b.shape
        differs = (a.view(np.int32) != b.view(np.int32)).any(axis=0)
        names = one.names(name) if a.ndim == 2 else [name]
        found |= {f"{name}.{column}" for column, wrong in zip(names, np.atleast_1d(differs), strict=True) if wrong}
    return found


@quick
@given(origin=st.integers(TRAINED, HOURS - 24), how=HOW, seed=SEED, horizon=HORIZON)
def test_what_is_read_after_the_training_part_knows_nothing_of_its_future(
    world: World, clean: Tidy, origin: int, how: str, seed: int, horizon: int
) -> None:
    before = make_windows(clean.frame, clean.facts, parts(horizon))
    spoilt = world.spoilt(origin, how, seed)
    after = make_windows(spoilt.frame, spoilt.facts, parts(horizon))
    assert leaks(before, after, origin) == set()
    assert before.meta["columns"] == after.meta["columns"]
    for fitted in ("statistics", "mase_scale", "origins"):
        assert before.series[0][fitted] == after.series[0][fitted]
    assert clean.facts["limits"] == spoilt.facts["limits"]
    assert not np.array_equal(before.target[origin:], after.target[origin:])  # the future was spoilt indeed


@quick
@given(origin=st.integers(1, TRAINED - 1), how=HOW, seed=SEED, horizon=HORIZON)
def test_inside_the_training_part_only_scaling_and_limits_know_the_future(
    world: World, clean: Tidy, origin: int, how: str, seed: int, horizon: int
) -> None:
    before = make_windows(clean.frame, clean.facts, parts(horizon))
    spoilt = world.spoilt(origin, how, seed, limits=clean)
    after = apply_statistics(spoilt.frame, spoilt.facts, before.meta)
    assert leaks(before, after, origin) == set()


@quick
@given(origin=st.integers(TRAINED, HOURS - 30), how=HOW, seed=SEED, horizon=HORIZON)
def test_of_what_is_known_ahead_no_hour_after_the_last_one_forecast_is_known(
    world: World, origin: int, how: str, seed: int, horizon: int
) -> None:
    """Spoilt from an hour on: what is not known ahead is as it was, what is known ahead differs from that hour on."""
    clean, spoilt = ahead_known(world.tidy(world.raw)), ahead_known(world.spoilt(origin, how, seed))
    before, after = (make_windows(one.frame, one.facts, parts(horizon)) for one in (clean, spoilt))
    assert leaks(before, after, origin) <= {"ahead.AirTemp", "ahead.AirTemp_mean_24h"}
    assert leaks(before, after, origin - horizon) == set()  # its last target hour is the one before ``origin``
    assert before.series[0]["statistics"] == after.series[0]["statistics"]


@pytest.mark.parametrize("column", ["TGBT", "T1", "AirTemp", "Global_Solar_Flux"])
def test_of_one_column_known_ahead_the_future_reaches_its_own_features_alone(
    world: World, clean: Tidy, column: str
) -> None:
    origin = TRAINED + 500
    other = clean.frame.copy()
    other.loc[origin:, column] += 3.0
    one, two = (make_windows(frame, ahead_known(clean).facts, parts(24)) for frame in (clean.frame, other))
    found = leaks(one, two, origin)
    assert found == ({"ahead.AirTemp", "ahead.AirTemp_mean_24h"} if column == "AirTemp" else set())
    assert leaks(one, two, origin - 24) == set()


def an_hour_too_late(s: Signals) -> dict[str, Known]:
    return {"an_hour_too_late": replace(s.ahead["AirTemp"], values=np.append(s.ahead["AirTemp"].values[1:], 0.0))}


def test_a_feature_that_looks_beyond_what_is_known_ahead_is_found(clean: Tidy) -> None:
    origin = TRAINED + 500
    other = clean.frame.copy()
    other.loc[origin:, "AirTemp"] += 3.0
    declared = (*FEATURES, Family("ahead", "leak", an_hour_too_late))
    one, two = (make_windows(frame, ahead_known(clean).facts, parts(24), declared) for frame in (clean.frame, other))
    assert leaks(one, two, origin - 24) == {"ahead.an_hour_too_late"}


def ahead_known(tidy: Tidy) -> Tidy:
    """The same series, its temperature declared known ahead."""
    section = tidy.facts["ingest"]
    columns = {**section["columns"], "AirTemp": {**section["columns"]["AirTemp"], "ahead": "known"}}
    return replace(tidy, facts=tidy.facts | {"ingest": {**section, "columns": columns}})


def tomorrow(s: Signals) -> dict[str, Past]:
    return {"next_hour": replace(s.load, values=np.append(s.load.values[1:], 0.0))}


def centred(s: Signals) -> dict[str, Past]:
    mean = pd.Series(s.load.values).rolling(5, center=True, min_periods=1).mean()
    return {"centred_mean": replace(s.load, values=mean.to_numpy())}


def whole_mean(s: Signals) -> dict[str, Past]:
    return {"deviation": replace(s.load, values=s.load.values - s.load.values.mean())}


def half_a_day_before(s: Signals) -> dict[str, Known]:
    """Known half a day ahead, but claimed to be known a whole one."""
    values = np.concatenate([np.zeros(12), s.load.values, np.zeros(s.load.horizon - 12)])
    return {"half_a_day_before": Known(values, s.load.horizon)}


@pytest.mark.parametrize(
    ("family", "column"),
    [
        (Family("inputs", "leak", tomorrow), "inputs.next_hour"),
        (Family("origin", "leak", centred), "origin.centred_mean"),
        (Family("recent", "leak", whole_mean), "recent.deviation"),
        (Family("lags", "leak", half_a_day_before), "lags.half_a_day_before"),
    ],
)
@pytest.mark.parametrize("how", sorted(SPOIL))
def test_a_feature_that_looks_ahead_is_found(world: World, clean: Tidy, family: Family, column: str, how: str) -> None:
    origin = TRAINED + 500
    spoilt = world.spoilt(origin, how, 1)
    one, other = (make_windows(t.frame, t.facts, parts(24), (*FEATURES, family)) for t in (clean, spoilt))
    assert leaks(one, other, origin) == {column}
