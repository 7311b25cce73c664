"""The baselines of a report: fitted on the cores that the fits had, tracked like them, their forecasts kept."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from isotrain.baselines import BASELINES, score
from isotrain.config.sections import Tracking
from isotrain.data.windows import Windows
from isotrain.files import replacing, write_json
from isotrain.training.machine import alone
from isotrain.training.tracking import tracked

log = logging.getLogger(__name__)
ERRORS = ("val_mae", "test_mae", "test_rmse", "test_mase")


def run_baselines(
    names: Sequence[str], windows: Windows, report: Path, tracking: Tracking, threads: int | None = None
) -> list[dict[str, Any]]:
    """Fit and score the baselines ``names`` on at most ``threads`` cores; the rows of ``baselines.json``, written.

    Each leaves ``baselines/<name>/forecasts.npz`` below ``report``, named in its row, and an MLflow run.
    """
    with alone(), on_cores(threads):
        rows = [_run(name, windows, report / "baselines" / name, tracking) for name in names]
    write_json(report / "baselines.json", {"baselines": rows})
    return rows


@contextmanager
def on_cores(count: int | None) -> Iterator[None]:
    """At most ``count`` cores for this process, where the system can: times then compare with those of the fits."""
    if count is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _run(name: str, windows: Windows, folder: Path, tracking: Tracking) -> dict[str, Any]:
    tags = {"kind": "baseline", "baseline": name, "data.source": str(windows.meta["source"])}
    with tracked(tracking.experiment, tracking.uri, name, tags) as run:
        run.dataset(windows.meta)
        row, arrays = score(name, BASELINES[name], windows)
        with replacing(folder / "forecasts.npz") as draft, draft.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]  # numpy's stubs take the names for its one flag
        final = {"train_seconds": row["seconds"], "parameters": row["parameters"], **{key: row[key] for key in ERRORS}}
        run.metrics({f"final/{key}": value for key, value in final.items() if value is not None})
        run.artifacts(folder)
    seen = "none (refit)" if row["val_mae"] is None else f"{row['val_mae']:.3f}"
    log.info("baseline %s: val MAE %s, test MAE %.3f kW, %.1f s", name, seen, row["test_mae"], row["seconds"])
    return row | {"folder": str(folder)}
