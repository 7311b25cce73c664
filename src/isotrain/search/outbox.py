"""Trials as MLflow runs: each is written down as a parcel, and sent when the tracking server can be reached.

In the study's folder ``outbox/<number>.json`` is a run still to be sent, ``sent/<number>.json`` names the run that
holds it. Whoever has something to send sends all that lies there, one process at a time.
"""

import fcntl
import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from isotrain.files import read_json, write_json
from isotrain.search.study import Place, open_study
from isotrain.training.tracking import SERIES, Parcel, TrackingError, log_parcel

log = logging.getLogger(__name__)
PAUSE = 60.0  # s after which a store that did not answer is tried again
FINAL = {
    "val_mae": "best_val_mae",
    "seconds": "train_seconds",
    "step_ms": "step_ms_mean",
    "isolated_fraction": "isolated_fraction",
    "parameters": "parameters",
}  # attribute of a trial -> metric final/..., as a fit names it
NOTED = ("worker", "seed", "known", "why", "again_of", "early")  # attributes that become tags


class Outbox:
    """Where a worker leaves its finished trials; called with each."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._outbox, self._sent = place.folder / "outbox", place.folder / "sent"
        self._warned = False
        self._not_before = 0.0

    def __call__(self, trial: FrozenTrial) -> None:
        self.write(trial)
        if time.monotonic() >= self._not_before:
            self.send()

    def write(self, trial: FrozenTrial) -> None:
        """Write the parcel of a finished trial."""
        write_json(self._outbox / f"{trial.number}.json", asdict(_parcel(self._place, trial)))

    def knows(self, trial: FrozenTrial) -> bool:
        """Whether the trial's parcel was written, or sent."""
        return any((folder / f"{trial.number}.json").exists() for folder in (self._sent, self._outbox))

    def waiting(self) -> list[Path]:
        """The parcels not sent, in the order of their trials."""
        return sorted(self._outbox.glob("[0-9]*.json"), key=lambda path: int(path.stem))

    def send(self) -> int:
        """Send what lies there unless another process does; returns how many. A store that fails is said once."""
        number, refused = 0, set[Path]()
        while todo := [path for path in self.waiting() if path not in refused]:
            with self._turn() as mine:
                if not mine:
                    return number
                for path in todo:
                    try:
                        number += self._send(path)
                    except TrackingError as problem:
                        if not problem.refused:
                            self._complain(problem)
                            return number
                        log.error("MLflow refuses %s, which stays there: %s", path, problem)
                        refused.add(path)
        return number  # asked again without the turn: what came meanwhile was left to us

    def _send(self, path: Path) -> bool:
        sent = self._sent / path.name
        try:
            parcel = Parcel(**read_json(path))
        except FileNotFoundError:  # another was faster, before our turn
            return False
        tracking = self._place.tracking
        run = log_parcel(tracking.experiment, tracking.uri, parcel)
        write_json(sent, {"run": run, "experiment": tracking.experiment, "name": parcel.name})
        path.unlink()
        if self._warned:
            log.info("the tracking server answers again")
        self._warned = False
        return True

    def _complain(self, problem: TrackingError) -> None:
        self._not_before = time.monotonic() + PAUSE
        if not self._warned:
            log.warning(
                "MLflow runs cannot be sent (%s): they wait in %s; `isotrain search sync` sends them",
                problem,
                self._outbox,
            )
        self._warned = True

    @contextmanager
    def _turn(self) -> Iterator[bool]:
        """Whether it is this process's turn to send."""
        self._sent.mkdir(parents=True, exist_ok=True)
        with (self._sent / ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True


def sync(place: Place) -> str:
    """Send every finished trial that is not sent yet, those whose worker died before it wrote a parcel too."""
    outbox = Outbox(place)
    for trial in open_study(place, create=False).get_trials(deepcopy=False):
        if trial.state.is_finished() and not outbox.knows(trial):
            outbox.write(trial)
    sent, left = outbox.send(), len(outbox.waiting())
    return f"{sent} runs sent, {left} left" + (f" in {place.folder / 'outbox'}" if left else "")


def _parcel(place: Place, trial: FrozenTrial) -> Parcel:
    attrs, study = trial.user_attrs, place.search.study
    result, meta = _result(place, trial), read_json(place.windows / "windows.json")
    tags = {name: str(attrs[name]) for name in NOTED if name in attrs}
    tags |= {
        "method": "search",
        "state": trial.state.name,
        "sampler": place.search.sampler,
        "git.commit": str(attrs.get("commit", "none")),
        "data.simulated": "yes" if meta["simulated"] else "no",
    }
    began = _ms(trial.datetime_start or trial.datetime_complete)
    return Parcel(
        name=f"{study}-{trial.number}",
        key={"study": study, "trial": str(trial.number), "trial.began": str(began)},  # studies may share a name
        tags=tags,
        series={key: meta[key] for key in SERIES},
        params=result.get("params") or json.loads(attrs.get("overrides", "{}")),
        metrics=[*_final(trial), *_history(result.get("history", []))],
        status="FAILED" if trial.state == TrialState.FAIL else "FINISHED",
        began=began,
        ended=_ms(trial.datetime_complete),
    )


def _result(place: Place, trial: FrozenTrial) -> dict[str, Any]:
    """``result.json`` of a trial that has one: others failed, or are of a light objective."""
    path = place.folder / "trials" / str(trial.number) / "result.json"
    return read_json(path) if path.exists() else {}


def _final(trial: FrozenTrial) -> list[tuple[str, float, int]]:
    """What the runs table sorts by; the trial's number too, as tags sort by their letters."""
    attrs, step = trial.user_attrs, int(trial.user_attrs.get("steps", 0))
    final = [(f"final/{metric}", float(attrs[name]), step) for name, metric in FINAL.items() if name in attrs]
    values = [(f"final/value_{n}", value, step) for n, value in enumerate(trial.values or []) if math.isfinite(value)]
    return [("trial", float(trial.number), step), *final, *values]


def _history(rows: list[dict[str, Any]]) -> list[tuple[str, float, int]]:
    names = {"val_mae": "val_mae", "train_loss": "train_loss", "seconds": "train_seconds"}
    return [(metric, float(row[name]), row["step"]) for row in rows for name, metric in names.items()]


def _ms(moment: datetime | None) -> int:
    assert moment is not None, "the trial has ended"
    return int(moment.timestamp() * 1000)
