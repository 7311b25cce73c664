"""The simulated building is reproducible, adds up, has the real one's faults, and is about as hard to forecast."""

import numpy as np
import pandas as pd
import pytest

from isotrain.config.ingest import PROFILES, Ingest, Simulated
from isotrain.data.repair import repair
from isotrain.data.schema import Flag
from isotrain.data.simulate import CLOSURE, ZONES, building, presence


@pytest.fixture(scope="module")
def made() -> pd.DataFrame:
    return building(Simulated())


@pytest.fixture(scope="module")
def repaired(made: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    return repair(made, Ingest())


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not() -> None:
    short = Simulated(hours=1000)
    assert building(short).to_numpy().tobytes() == building(short).to_numpy().tobytes()
    other = building(short.model_copy(update={"seed": 1}))
    assert building(short)["TGBT"].corr(other["TGBT"]) < 0.99


def test_the_columns_are_those_of_the_default_configuration(made: pd.DataFrame) -> None:
    assert set(made) == set(Ingest().columns)
    assert len(made) == 26_304
    assert made.index[0] == pd.Timestamp("2017-01-01", tz="UTC")


def test_the_whole_is_its_zones_and_some_four_kilowatts_more(made: pd.DataFrame) -> None:
    healthy = made[made["TGBT"] > 3]
    rest = healthy["TGBT"] - healthy[ZONES].sum(axis=1)
    stuck = healthy.index[len(healthy) * 27 // 40 : len(healthy) * 29 // 40]  # one zone stands still there
    assert rest.drop(stuck).min() > -0.1
    assert rest.mean() == pytest.approx(3.97, abs=0.6)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_faults_of_the_real_series_are_there(seed: int) -> None:
    settings = Ingest(simulated=Simulated(seed=seed), checks=PROFILES["drahix"])
    _, flags = repair(building(settings.simulated), settings)
    counts = {name: flags[name].value_counts() for name in flags}
    assert counts["T1"][Flag.STUCK] == 57
    assert 4 <= counts["TGBT"][Flag.OUTAGE] <= 32
    assert counts["TGBT"][Flag.GAP] == 6  # three autumn nights
    assert counts["AirTemp"][Flag.GAP] == 14
    assert counts["AirTemp"][Flag.IMPOSSIBLE] == 1
    assert 0.4 < counts["Global_Solar_Flux"][Flag.OFFSET] / len(flags) < 0.55
    assert sum(count.get(Flag.IMPOSSIBLE, 0) for count in counts.values()) == 1


def test_naive_errors_are_within_a_fifth_of_the_real_ones(repaired: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """The real ones, in kW: same hour yesterday 6.53, last week 7.28, the hour before 3.17 (docs/simulator.md)."""
    load = repaired[0]["TGBT"]
    for lag, real in ((24, 6.53), (168, 7.28), (1, 3.17)):
        assert load.diff(lag).abs().mean() == pytest.approx(real, rel=0.2)
    assert load.mean() == pytest.approx(35.0, rel=0.1)
    assert load.std() == pytest.approx(17.2, rel=0.1)


def test_cold_and_heat_both_cost(repaired: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    table = repaired[0].iloc[: 26_304 * 3 // 4]
    cold, hot = table[table["AirTemp"] < 15], table[table["AirTemp"] > 23]
    assert -3 < np.polyfit(cold["AirTemp"], cold["TGBT"], 1)[0] < -1.5
    assert np.polyfit(hot["AirTemp"], hot["TGBT"], 1)[0] > 1


def test_people_follow_the_clock_of_paris() -> None:
    """The first arrival of a working day moves by an hour of UTC at each change of clocks; holidays are empty."""
    hours = pd.date_range("2019-01-01", "2019-12-31", freq="h", tz="UTC")
    people = pd.Series(presence(hours), index=hours)
    daily = people.groupby(hours.strftime("%m-%d"))
    first = daily.idxmax().dt.hour
    assert first["03-29"] - first["04-01"] == 1
    assert first["10-28"] - first["10-25"] == 1
    most = daily.max()
    assert most["05-01"] < 0.2 < most["05-31"] < 0.5 < most["05-02"]


@pytest.mark.parametrize("hours", [26_304, 4_032])
def test_the_closure_begins_before_the_test_part_and_ends_inside_it(hours: int) -> None:
    share = np.arange(hours) / hours
    people = np.interp(share, *CLOSURE)
    test = people[share >= 0.8]
    assert people[share < 0.775].min() == 1.0
    assert 0.05 < (test < 0.2).mean() < 0.5
    assert (test > 0.5).mean() > 0.3


def test_weather_persists_from_day_to_day(made: pd.DataFrame) -> None:
    air = made["AirTemp"].where(made["AirTemp"] > -20)
    daily = air.resample("D").mean()
    anomaly = daily - daily.rolling(31, center=True, min_periods=1).mean()
    assert 0.5 < anomaly.autocorr(1) < 0.85
    assert anomaly.autocorr(7) < 0.3
    month = pd.DatetimeIndex(air.index).month
    assert air[month == 7].mean() - air[month == 1].mean() > 12
