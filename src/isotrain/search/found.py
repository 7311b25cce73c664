"""A study as plain values for the report, and its best points run again."""

from dataclasses import replace

from isotrain.config import Settings, flatten
from isotrain.config.params import METHOD_SECTIONS
from isotrain.search.confirm import confirm, confirmed_runs
from isotrain.search.front import reproduce, tally
from isotrain.search.importance import importances
from isotrain.search.outline import outline
from isotrain.search.study import Place, open_study
from isotrain.tradeoff.searched import Point, Searched

SEED = 0  # of the command that does a point again: one of compare.seeds


def found(place: Place) -> Searched:
    """What the study of ``place`` found so far, with the points that were run again.

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
    """Run the chosen points of the front again, beside ``search.against``, on ``search.fresh_seeds``.

    Raises as :func:`~isotrain.search.confirm.confirm` does, which also keeps what was run before.
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
    sections = flatten(place.space.methods.model_dump(include=set(METHOD_SECTIONS)))
    return reproduce(_settings(place, point), sections, SEED)
