"""The baselines of a report: fitted on as many cores as the fits have, tracked like them, their forecasts kept."""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import isotrain.baselines
import isotrain.data.windows
import isotrain.forecast.forecasts
from isotrain.baselines import BASELINES, RESTORED, Score, file_of, score
from isotrain.config.sections import Tracking
from isotrain.data.windows import Windows
from isotrain.files import read_json, reading, replacing, sha256, sha256_text, write_json
from isotrain.training.machine import alone
from isotrain.training.tracking import ABOUT, FIT, log_series, noted, series_tags, tracked

log = logging.getLogger(__name__)
FINAL = {"seconds": "final/train_seconds"}  # key of a row -> metric
ERRORS = ("val_mae", "val_relative", "test_mae", "test_rmse", "test_mase", "test_relative")
FINAL |= {key: f"final/{key}" for key in ("parameters", *ERRORS)}


def run_baselines(
    names: Sequence[str], windows: Windows, folder: str | Path, tracking: Tracking, threads: int
) -> list[Score]:
    """Fit and score the baselines ``names`` on ``threads`` cores (0: all); the rows of ``baselines.json``, in order.

    Each leaves ``<folder>/<name>/forecasts.npz``, beside it the file of what was fitted if it can be published, and an
    MLflow run. Where LightGBM is not installed its baselines are left out, with a warning. What was fitted already, on
    the same windows and by the same code, is not fitted again; the file is written after each fit, so that an
    interruption loses one at most.
    """
    folder, common = Path(folder), common_key(windows, threads)
    path = folder / "baselines.json"
    with reading(path, "remove it: they are fitted again"):
        finished: dict[str, Score] = {row["name"]: row for row in read_json(path)["baselines"]} if path.exists() else {}
    rows: dict[str, Score] = {}
    for name in names:
        if name.startswith("lightgbm") and find_spec("lightgbm") is None:
            log.warning("baseline %s is left out: LightGBM is not installed (pip install lightgbm)", name)
            continue
        key = sha256_text(f"{name} {common}")
        if name in finished and finished[name].get("key") == key and (folder / name / "forecasts.npz").exists():
            log.info("baseline %s: fitted already", name)
            rows[name] = finished[name]
            continue
        with alone(), on_cores(threads):
            rows[name] = {**_run(name, windows, folder / name, tracking, key), "key": key}
        write_json(path, {"baselines": list((finished | rows).values())})
    write_json(path, {"baselines": list(rows.values())})
    return list(rows.values())


def common_key(windows: Windows, threads: int) -> str:
    """What decides every baseline: the windows, the code that fits and scores, and the cores."""
    package = Path(isotrain.baselines.__file__).parent
    read = [Path(module.__file__ or "") for module in (isotrain.data.windows, isotrain.forecast.forecasts)]
    code = [sha256(path) for path in [*sorted(package.glob("*.py")), *read]]
    return sha256_text(" ".join([digest(windows), *code, str(threads)]))


def digest(windows: Windows) -> str:
    """Hexadecimal SHA-256 of the arrays and of what describes them."""
    found = hashlib.sha256(json.dumps(windows.meta, sort_keys=True).encode())
    for field in fields(windows):
        if field.name != "meta":
            found.update(np.ascontiguousarray(getattr(windows, field.name)).data)
    return found.hexdigest()


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """``count`` cores for this process, where the system can (0: all): times then compare with those of the fits."""
    if count == 0 or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _run(name: str, windows: Windows, folder: Path, tracking: Tracking, key: str) -> Score:
    tags = {
        "kind": "baseline",
        "study": tracking.study,
        "method": name,
        "role": "baseline",
        **series_tags(windows.meta),
        FIT: key,
        ABOUT: noted("A forecast without a network, scored on the same hours as the fits.", windows.meta),
    }
    with tracked(tracking.experiment, tracking.uri, name, tags) as run:
        run.dataset(windows.meta)
        row, arrays, fitted = score(name, BASELINES[name], windows)
        if name in RESTORED:
            with replacing(folder / file_of(name)) as draft:
                draft.write_bytes(fitted.file)
        with replacing(folder / "forecasts.npz") as draft, draft.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]  # numpy's stubs take the names for its one flag
        run.once({FINAL[key]: v for key, v in row.items() if key in FINAL and isinstance(v, int | float)})
        run.artifacts(folder)
        log_series(run, tags[ABOUT], row["by_series"])
    seen = "none (refit)" if row["val_mae"] is None else f"{row['val_mae']:.3f}"
    log.info("baseline %s: val MAE %s, test MAE %.3f kW, %.1f s", name, seen, row["test_mae"], row["seconds"])
    return row
