"""The forecasts of a fit or a baseline: scored, read and checked, averaged."""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from isotrain.data.windows import Windows
from isotrain.errors import InputError

HOUR = 3600  # seconds
ARRAYS = ("origins", "time", "prediction", "truth")
PREFIX = {"test": "", "validation": "val_"}  # of the names of a part's arrays


class Errors(TypedDict):
    """Errors of forecasts over some hours: kW, but for the MASE and the relative error."""

    mae: float
    rmse: float
    mase: float  # MAE over that of "same hour yesterday" over the training part, each series its own
    relative: float  # MAE, each series in its standard deviation over the training part


class Scores(Errors):
    """Errors of forecasts of a part."""

    mae_by_lead: list[float]
    by_series: dict[str, Errors]  # of each series; empty where there is one


def scores(windows: Windows, origins: npt.NDArray[np.int64], forecast: NDArray[Any]) -> Scores:
    """Errors of ``forecast`` (origins, leads), kW, over the hours whose truth is known.

    MASE: Hyndman and Koehler 2006, with m = 24, so a MASE below 1 is better than "same hour yesterday" was over the
    training part. A NaN forecast gives NaN scores, and so does a series of which no hour is known.
    """
    truth = windows.targets(origins)
    known = ~np.isnan(truth)
    error = np.where(known, forecast - np.nan_to_num(truth), 0.0).astype(np.float64)
    mase_scale, scale = windows.mase_scale_at(origins)[:, None], windows.scale_at(origins).astype(np.float64)[:, None]

    def errors(at: slice) -> Errors:
        e, count = np.abs(error[at]), known[at].sum()
        with np.errstate(invalid="ignore"):
            return {
                "mae": float(e.sum() / count),
                "rmse": float(np.sqrt((e**2).sum() / count)),
                "mase": float((e / mase_scale[at]).sum() / count),
                "relative": float((e / scale[at]).sum() / count),
            }

    bounds = np.searchsorted(origins - 1, [one["first"] for one in windows.series] + [len(windows.truth) + 1])
    several = len(windows.series) > 1
    return {
        **errors(slice(None)),
        "mae_by_lead": [float(x) for x in np.abs(error).sum(0) / known.sum(0)],
        "by_series": {
            one["name"]: errors(slice(first, last))
            for one, first, last in zip(windows.series, bounds, bounds[1:], strict=False)
            if several and known[first:last].any()
        },
    }


@dataclass(frozen=True)
class Forecasts:
    """Forecasts of a part, by ascending origin; K leads."""

    origins: npt.NDArray[np.int64]  # (m,), indices into the series
    time: npt.NDArray[np.int64]  # (m,), of the origins, seconds since 1970 UTC
    prediction: npt.NDArray[np.float64]  # (m, K), kW
    truth: npt.NDArray[np.float64]  # (m, K), kW, NaN where unknown


def read_forecasts(folder: Path, part: str = "test") -> Forecasts:
    """``<folder>/forecasts.npz``; :class:`InputError` if it is missing, damaged or uneven in its lengths."""
    path = folder / "forecasts.npz"
    try:
        with np.load(path) as arrays:
            origins, time, prediction, truth = (arrays[PREFIX[part] + name] for name in ARRAYS)
            order = np.argsort(origins)
            forecasts = Forecasts(
                origins=origins[order].astype(np.int64),
                time=time[order].astype(np.int64),
                prediction=prediction[order].astype(np.float64),
                truth=truth[order].astype(np.float64),
            )
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: run `dvc repro`") from None
    except (
        KeyError,
        IndexError,
        OSError,
        TypeError,
        ValueError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ) as e:
        raise InputError(f"{path} cannot be read ({e}): remove the folder and run `dvc repro`") from None
    if forecasts.truth.shape != forecasts.prediction.shape or len(np.unique(forecasts.origins)) < len(order):
        raise InputError(f"{path}: prediction and truth differ in shape, or an origin occurs twice")
    return forecasts


def of_series(forecasts: Forecasts, windows: Windows, index: int) -> Forecasts:
    """Those of the series ``index`` of ``windows`` alone; the origins stay rows of the arrays of all."""
    one = windows.series[index]
    own = slice(*np.searchsorted(forecasts.origins, [one["first"] + 1, one["first"] + one["rows"] + 1]))
    return Forecasts(*(getattr(forecasts, field.name)[own] for field in fields(Forecasts)))


def mean_forecast(members: Sequence[Forecasts]) -> Forecasts:
    """The ensemble: the mean of the members' forecasts at the origins that all of them have."""
    common = members[0].origins
    for member in members[1:]:
        common = np.intersect1d(common, member.origins)
    rows = [np.searchsorted(member.origins, common) for member in members]
    prediction = np.mean([member.prediction[at] for member, at in zip(members, rows, strict=True)], axis=0)
    first, at = members[0], rows[0]
    return Forecasts(common, first.time[at], prediction, first.truth[at])


def mae(forecasts: Forecasts) -> float:
    """Mean absolute error over the known hours, kW."""
    return float(np.nanmean(np.abs(forecasts.prediction - forecasts.truth)))


def rmse(forecasts: Forecasts) -> float:
    """Root of the mean squared error over the known hours, kW."""
    return float(np.sqrt(np.nanmean((forecasts.prediction - forecasts.truth) ** 2)))


def mae_by_lead(forecasts: Forecasts) -> list[float]:
    """MAE of each lead over the known hours, kW."""
    error = np.abs(forecasts.prediction - forecasts.truth)
    return [float(np.nanmean(column)) for column in error.T]


def mae_by_month(forecasts: Forecasts) -> dict[str, float]:
    """MAE (kW) over the known target hours of each month (UTC), ``2020-09`` and on."""
    error = np.abs(forecasts.prediction - forecasts.truth)
    hours = forecasts.time[:, None] + HOUR * np.arange(error.shape[1])
    months, at = np.unique(hours.astype("datetime64[s]").astype("datetime64[M]").ravel(), return_inverse=True)
    known = np.isfinite(error).ravel()
    total = np.bincount(at[known], error.ravel()[known], len(months))
    count = np.bincount(at[known], minlength=len(months))
    return {str(month): float(total[i] / count[i]) for i, month in enumerate(months) if count[i]}
