"""Made-up weather that persists from day to day as the real one does: temperature and three solar fluxes."""

import numpy as np
import numpy.typing as npt
import pandas as pd

Values = npt.NDArray[np.float64]

LATITUDE = np.radians(48.7)

# From aggregates of the SIRTA series (docs/simulator.md):
MEAN_TEMPERATURE, SEASON = 12.6, 8.3  # degC; yearly mean, half the range of monthly means
COLDEST_DAY = 18  # of the year
SWING = (1.3, 3.2)  # degC; half the daily range in winter, what summer adds, both under a clear sky
ANOMALY = 3.6  # degC; standard deviation of daily means about the season
ANOMALY_TOMORROW = 0.68  # its autocorrelation after 24 h; 0.78 for daily means
CLEARNESS_TOMORROW = 0.27  # autocorrelation of daily solar sums about the season
OFFSET, LARGEST_OFFSET = -0.7, -2.0  # W/m2; median and extreme of the fluxes at night


def persistent(rng: np.random.Generator, hours: int, tomorrow: npt.ArrayLike) -> Values:
    """Gaussian noise, (hours, k), mean 0, deviation 1, with autocorrelation ``tomorrow`` (k,) a day later."""
    memory = np.atleast_1d(np.asarray(tomorrow, dtype=np.float64)) ** (1 / 24)
    noise = rng.standard_normal((hours, len(memory)))
    noise[1:] *= np.sqrt(1 - memory**2)
    for t in range(1, hours):
        noise[t] += memory * noise[t - 1]
    return noise


def weather(rng: np.random.Generator, hours: pd.DatetimeIndex) -> pd.DataFrame:
    """AirTemp (degC) and three fluxes (W/m2, never negative), one row an hour of ``hours`` (UTC)."""
    anomaly, clouds, quick = persistent(rng, len(hours), (ANOMALY_TOMORROW, CLEARNESS_TOMORROW, 0.001)).T
    clear = 1 / (1 + np.exp(-(2.2 * clouds + 0.9 * quick + 0.35)))
    height = np.maximum(_sine_of_elevation(hours), 0.0)
    direct = 950 * clear**1.6 * np.exp(-0.12 / np.maximum(height, 0.05)) * (height > 0)
    diffuse = height**0.8 * (150 + 480 * clear * (1 - clear) + 60 * (1 - clear))
    smooth = pd.Series(anomaly).rolling(6, min_periods=1).mean().to_numpy()
    year = 2 * np.pi * (hours.day_of_year.to_numpy() - COLDEST_DAY) / 365.25
    summer = (1 - np.cos(year)) / 2
    day = -np.cos(2 * np.pi * (hours.hour.to_numpy() - 2.5) / 24)
    swing = (SWING[0] + SWING[1] * summer) * (0.4 + 1.2 * _day_mean(clear))
    temperature = MEAN_TEMPERATURE - SEASON * np.cos(year) + ANOMALY * smooth + swing * day
    return pd.DataFrame(
        {
            "Global_Solar_Flux": direct * height + diffuse,
            "Direct_Solar_Flux": direct,
            "Diffuse_Solar_Flux": diffuse,
            "AirTemp": temperature,
        },
        index=hours,
    )


def with_night_offset(rng: np.random.Generator, flux: Values) -> Values:
    """``flux`` (hours,) in W/m2 as a pyranometer shows it: slightly negative at night."""
    drift = persistent(rng, len(flux), 0.95)[:, 0]
    offset = np.maximum(OFFSET * np.exp(0.4 * drift), LARGEST_OFFSET)
    return np.asarray(flux + offset * np.exp(-flux / 20))


def _sine_of_elevation(hours: pd.DatetimeIndex) -> Values:
    """Of the sun, in the middle of the hour, at 2.2 degrees east."""
    declination = np.radians(-23.44) * np.cos(2 * np.pi * (hours.day_of_year.to_numpy() + 10) / 365.25)
    angle = 2 * np.pi * (hours.hour.to_numpy() + 0.5 - 12 + 2.2 / 15) / 24
    sine: Values = np.sin(LATITUDE) * np.sin(declination) + np.cos(LATITUDE) * np.cos(declination) * np.cos(angle)
    return sine


def _day_mean(values: Values) -> Values:
    """Mean of the 24 hours up to each hour."""
    return pd.Series(values).rolling(24, min_periods=1).mean().to_numpy()
