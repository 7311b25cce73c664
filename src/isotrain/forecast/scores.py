"""Errors of a forecast over known hours, in kW (MASE has no unit)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def scores(forecast: Floats, truth: Floats, mase_scale: float) -> dict[str, Any]:
    """MAE, RMSE, MASE and MAE of each lead; both arrays (origins, leads) in kW, ``truth`` NaN where unknown.

    ``mase_scale``: MAE of "same hour yesterday" over the training part (Hyndman and Koehler 2006, with m = 24),
    so a MASE below 1 beats that forecast on its own ground. A NaN forecast gives NaN scores.
    """
    known = ~np.isnan(truth)
    error = np.where(known, forecast - np.nan_to_num(truth), 0.0).astype(np.float64)
    mae = np.abs(error).sum() / known.sum()
    return {
        "mae": float(mae),
        "rmse": float(np.sqrt((error**2).sum() / known.sum())),
        "mase": float(mae / mase_scale),
        "mae_by_lead": [float(x) for x in np.abs(error).sum(0) / known.sum(0)],
    }
