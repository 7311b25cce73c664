"""Trains chosen points of the front again, on seeds that no trial used, beside the methods that they would replace.

The best of many noisy trials looks better than it is (the winner's curse). So what a search found counts only when it
was trained again with other seeds, and its seconds were measured alone on the machine as those of every other method.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from isotrain.compare.results import Run, check_comparable, read_run
from isotrain.compare.searched import Point, Searched
from isotrain.config import Settings
from isotrain.data.windows import Windows, data_key
from isotrain.errors import InputError
from isotrain.search.results import importances, outline, reproduce, tally
from isotrain.search.study import Place, open_study
from isotrain.training.fits import fit_in_child, import_everything, is_current

log = logging.getLogger(__name__)
SEED = 0  # of the command that trains a point again: one of compare.seeds


def confirm(methods: Mapping[str, Settings], seeds: Sequence[int], windows: Path, folder: Path) -> None:
    """Fit each of ``methods`` (name -> settings) with each of ``seeds``, every method of one seed before the next.

    The results lie in ``<folder>/confirm/<name>-<seed>``. A result that is there for the same settings, data, code and
    machine is kept, so a call that was cut short goes on where it stopped. Every fit has a process of its own, forked
    from this one, as some switches of stock hold for a whole process. Raises :class:`InputError` as the fit does.
    """
    series = Windows.load(windows)
    import_everything()
    from isotrain.training.outbox import send

    try:
        for seed in seeds:
            for name, settings in methods.items():
                out = folder / "confirm" / f"{name}-{seed}"
                if is_current(out, settings, seed, data_key(series.meta)):
                    log.info("%s: kept", out)
                else:
                    named = settings.tracking.model_copy(update={"study": folder.name})
                    fit_in_child(settings.model_copy(update={"tracking": named}), seed, series, out)
    finally:
        send()


def confirmed_runs(names: Sequence[str], seeds: Sequence[int], folder: Path) -> tuple[Run, ...]:
    """The fits of ``names`` and ``seeds`` that are in ``folder``, as :func:`confirm` left them.

    Raises :class:`~isotrain.errors.InputError` if they have different data or hardware, or are damaged.
    """
    places = [folder / "confirm" / f"{name}-{seed}" for name in names for seed in seeds]
    runs = tuple(read_run(place) for place in places if (place / "result.json").exists())
    try:
        if runs:
            check_comparable(runs)
    except InputError as problem:
        remedy = f"in a search: remove {folder / 'confirm'}, then run `isotrain search confirm`"
        raise InputError(f"{problem}; {remedy}") from None
    return runs


def found(place: Place) -> Searched:
    """What the study of ``place`` found so far, with the points that were trained again.

    Raises :class:`~isotrain.errors.InputError` if there is no study, or if fits of different hardware were confirmed.
    """
    study = open_study(place, create=False)
    counted = tally(study.get_trials(deepcopy=False), place.search.retries)
    seen = outline(place, study, counted)
    counting = {point.number for point in seen.points if point.counts}
    names = [point.name for point in seen.points] + place.search.against
    return replace(
        seen,
        points=tuple(replace(point, command=_command(place, point)) for point in seen.points),
        importances=importances(study, [t for t in counted.finished if t.number in counting], place.objectives),
        confirmed=confirmed_runs(names, place.search.fresh_seeds, place.folder),
    )


def confirm_best(place: Place) -> None:
    """Train the chosen points of the front again, beside ``search.against``, on ``search.fresh_seeds``.

    Fits that were finished before are kept. Raises as :func:`confirm` does.
    """
    study = open_study(place, create=False)
    counted = tally(study.get_trials(deepcopy=False), place.search.retries)
    chosen = outline(place, study, counted).chosen(place.search.winners)
    methods = {point.name: _settings(place, point) for point in chosen}
    methods |= {name: place.space.methods.settings(name) for name in place.search.against}
    confirm(methods, place.search.fresh_seeds, place.windows, place.folder)


def _settings(place: Place, point: Point) -> Settings:
    return place.space.settings(point.settings).model_copy(update={"method": point.name})


def _command(place: Place, point: Point) -> str:
    return reproduce(_settings(place, point), place.space.methods, SEED)
