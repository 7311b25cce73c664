"""Many series adapted to, each once: in one process, or in several that share the work by locks on files."""

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from isotrain.adapt.adapt import DRAFT, Adapted, adapt, device_of, read_new
from isotrain.config.sections import Tracking
from isotrain.data.ingest import named_by_file
from isotrain.data.locate import exists, named
from isotrain.errors import InputError
from isotrain.files import try_lock
from isotrain.forecast.bundle import ABOUT, Bundle
from isotrain.lstm import runtime
from isotrain.training.tracking import ABOUT as DESCRIPTION
from isotrain.training.tracking import series_tags, tracked

log = logging.getLogger(__name__)
PAUSE = 0.5  # s between two looks at series that other processes are at


def adapt_all(
    bundle: Bundle, paths: Sequence[Path], out: Path, series: str | None, model: str, tracking: Tracking | None
) -> list[Path]:
    """Adapt ``bundle`` to each of ``paths``, in the folder ``out / NAME``, NAME being the file's without its ending.

    What is there already stays. A process that is killed leaves nothing half-written: the same command, or another
    process that runs it meanwhile, takes its series up. The others are adapted to before :class:`InputError` names
    those that cannot be. Returns the folders that this process wrote.

    Args:
        bundle: the forecaster, which stays as it is.
        paths: the files, each one series.
        out: where the new forecasters go.
        series: which of the series of ``bundle`` the files are written as; its first if it is None.
        model: what names the forecaster in the runs.
        tracking: where runs go; None: nowhere.
    """
    goals = {path: out / name for name, path in named_by_file(paths).items()}
    if missing := [str(path) for path in paths if not exists(path)]:
        raise InputError(f"{named(missing)} does not exist")
    runtime.prepare(keep_allocator=True, flush_denormals=True, threads=1)
    if device_of(bundle) == "cuda":
        log.info("adapting on %s", torch.cuda.get_device_name())
    if others := list(bundle.baselines):
        log.warning("the network alone is adapted, without what %s averages with it: %s", bundle.folder, named(others))
    there = [goal for goal in goals.values() if (goal / ABOUT).is_file()]
    if there:
        log.info("%d of %d are there already", len(there), len(goals))
    written: list[Path] = []
    refused: list[str] = []
    left = [path for path in paths if goals[path] not in there]
    while left:
        for path in list(left):
            with ExitStack() as stack:
                if not _claimed(goals[path], stack):
                    continue
                left.remove(path)
                if (goals[path] / ABOUT).is_file():  # by another process, since
                    continue
                try:
                    adapted = adapt(bundle, read_new(bundle, path, series))
                    adapted.save(goals[path])
                except InputError as problem:
                    refused.append(str(problem))
                    continue
                written.append(goals[path])
                for line in adapted.words.splitlines():
                    log.info(line)
                if tracking is not None:
                    _note(adapted, model, tracking)
        if left:
            time.sleep(PAUSE)
    if tracking is not None and written:
        from isotrain.training.outbox import send  # MLflow takes a second to import

        send()
    log.info(
        "%s: %d adapted, %d there already, %d refused",
        out,
        len(written),
        len(paths) - len(written) - len(refused),
        len(refused),
    )
    if refused:
        raise InputError("; ".join(refused))
    return written


def _claimed(goal: Path, stack: ExitStack) -> bool:
    """Whether this process, until ``stack`` ends, is the one to write ``goal``; what a killed one held is free."""
    folder = goal.parent / ".claims"
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / goal.name, os.O_RDWR | os.O_CREAT, 0o644)
    stack.callback(os.close, lock)
    if not try_lock(lock, fcntl.LOCK_EX):
        return False
    for draft in goal.parent.glob(f".{goal.name}.*{DRAFT}"):  # of a process that was killed
        shutil.rmtree(draft, ignore_errors=True)
    return True


def _note(adapted: Adapted, model: str, tracking: Tracking) -> None:
    """A run of the adapting, which names its parent."""
    lineage, c = adapted.lineage, adapted.choice
    tags = {
        "kind": "adapted",
        "study": tracking.study,
        "method": adapted.parent.name,
        "parent": model,
        "parent.weights_sha256": lineage["parent_weights_sha256"],
        "thawed": c.name,
        DESCRIPTION: adapted.words,
        **series_tags(adapted.windows.meta),
    }
    with tracked(tracking.experiment, tracking.uri, f"adapted-{adapted.name}", tags) as run:
        run.params({key: lineage[key] for key in ("thawed", "strength", "weeks", "weeks_held_out", "sha256", "rows")})
        run.dataset(adapted.windows.meta)
        run.once({"final/gain": c.gain, **{f"gain/{one.name.replace(' ', '-')}": one.gain for one in c.shown}})
