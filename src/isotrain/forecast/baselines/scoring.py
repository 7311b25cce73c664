"""A baseline fitted, timed and scored, with its forecasts for paired comparisons."""

import time
from typing import Any

import numpy as np

from isotrain.data.windows import Windows
from isotrain.forecast.baselines.fitted import Baseline, Values
from isotrain.forecast.scores import scores


def score(name: str, baseline: Baseline, windows: Windows) -> tuple[dict[str, Any], dict[str, Values]]:
    """Its row of ``baselines.json`` and the arrays of its ``forecasts.npz``, laid out as those of a fit.

    ``seconds`` is the time of the fit, everything chosen on validation included. ``val_mae`` is ``None`` after a
    refit, which has seen the validation part. Errors in kW, MASE without unit.
    """
    start = time.perf_counter()
    fitted = baseline(windows)
    seconds = time.perf_counter() - start
    row: dict[str, Any] = {"name": name, "seconds": seconds, "parameters": fitted.parameters, "refit": fitted.refit}
    arrays: dict[str, Values] = {}
    for part, prefix in (("test", ""), ("validation", "val_")):
        origins = windows.origins(part)
        answer, truth = fitted(origins), windows.targets(origins)
        found = scores(answer, truth, windows.meta["mase_scale"])
        values = {"origins": origins, "prediction": answer, "truth": truth, "time": windows.time[origins]}
        if part == "test":
            row |= {f"test_{key}": found[key] for key in ("mae", "rmse", "mase")}
            row["mae_by_lead"] = found["mae_by_lead"]
        else:
            row["val_mae"] = None if fitted.refit else found["mae"]
        if part == "test" or not fitted.refit:
            arrays |= {f"{prefix}{key}": np.asarray(value) for key, value in values.items()}
    return row, arrays
