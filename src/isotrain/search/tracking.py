"""Trials as MLflow runs: each is written to disk as a pending run, and sent when the tracking server can be reached.

The folder of a trial holds a file ``tracked`` once its pending run was written. By it ``isotrain search sync`` finds
the trials whose worker died after the end of the trial and before its pending run was written.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from isotrain.data.windows import read_meta
from isotrain.files import read_json, write_text
from isotrain.search.study import Place, open_study
from isotrain.training import outbox
from isotrain.training.tracking import CURVE, SERIES, PendingRun, dvc_tags, outbox_folder, series_tags, tracking_uri

PAUSE = 60.0  # s after which a store that did not answer is tried again
FINAL = {
    "val_mae": "best_val_mae",
    "seconds": "train_seconds",
    "step_ms": "step_ms_mean",
    "isolated_fraction": "isolated_fraction",
    "parameters": "parameters",
}  # attribute of a trial -> metric final/..., as a fit names it
NOTED = ("worker", "seed", "known", "why", "again_of", "early")  # attributes that become tags
HISTORY = {"val_mae": CURVE["val_mae"], "train_loss": CURVE["train_loss"], "seconds": CURVE["train_seconds"]}


class TrialTracking:
    """A worker calls it with each trial that ended: it writes the trial's pending run and sends all pending runs."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._not_before = 0.0

    def __call__(self, trial: FrozenTrial) -> None:
        self.write(trial)
        if time.monotonic() >= self._not_before:
            outbox.send()
            if outbox.pending():
                self._not_before = time.monotonic() + PAUSE

    def write(self, trial: FrozenTrial) -> None:
        """Write the pending run of a finished trial."""
        pending_run(self._place, trial).write(outbox_folder())
        write_text(self._note(trial), "")

    def knows(self, trial: FrozenTrial) -> bool:
        """Whether the pending run of the trial was written."""
        return self._note(trial).exists()

    def _note(self, trial: FrozenTrial) -> Path:
        return self._place.folder / "trials" / str(trial.number) / "tracked"


def sync(place: Place) -> str:
    """Send every pending run of the project, and every finished trial whose worker wrote no pending run."""
    tracking = TrialTracking(place)
    for trial in open_study(place, create=False).get_trials(deepcopy=False):
        if trial.state.is_finished() and not tracking.knows(trial):
            tracking.write(trial)
    sent, left = len(outbox.send()), len(outbox.pending())
    return f"{sent} runs sent, {left} left" + (f" in {outbox_folder()}" if left else "")


def pending_run(place: Place, trial: FrozenTrial) -> PendingRun:
    """A finished trial as a run of MLflow, without nested runs."""
    attrs, study = trial.user_attrs, place.search.study
    path = place.folder / "trials" / str(trial.number) / "result.json"
    result = read_json(path) if path.exists() else {}  # a trial that failed has none
    meta = read_meta(place.windows / "windows.json")
    began, ended = _ms(trial.datetime_start or trial.datetime_complete), _ms(trial.datetime_complete)
    params = result.get("params") or json.loads(attrs.get("overrides", "{}"))
    run = PendingRun(
        name=f"{study}-{trial.number}",
        experiment=place.tracking.experiment,
        uri=tracking_uri(place.tracking.uri),
        key={"study": study, "trial": str(trial.number), "trial.began": str(began)},  # study names repeat
        began=began,
        ended=ended,
        status="FAILED" if trial.state == TrialState.FAIL else "FINISHED",
        tags={name: str(attrs[name]) for name in NOTED if name in attrs}
        | {
            "kind": "trial",
            "method": "search",
            "state": trial.state.name,
            "sampler": place.search.sampler,
            "git.commit": str(attrs.get("commit", "none")),
        }
        | series_tags(meta)
        | dvc_tags(),
        params={path: str(value) for path, value in params.items()},
        series={key: value for key, value in meta.items() if key in SERIES},
    )
    for name, value in _final(trial):
        run.metric(name, value, 0, ended)  # a trial has it once: MLflow draws it as a bar
    for row in result.get("history", []):
        for column, name in HISTORY.items():
            run.metric(name, row[column], row["step"], ended)
    return run


def _final(trial: FrozenTrial) -> Iterator[tuple[str, float]]:
    """The metrics by which the table of runs can be sorted; the number of the trial too, since tags sort as text."""
    attrs: Mapping[str, Any] = trial.user_attrs
    yield "trial", trial.number
    for name, metric in FINAL.items():
        if name in attrs:
            yield f"final/{metric}", attrs[name]
    for n, value in enumerate(trial.values or []):
        if math.isfinite(value):
            yield f"final/value_{n}", value


def _ms(moment: datetime | None) -> int:
    assert moment is not None, "the trial has ended"
    return int(moment.timestamp() * 1000)
