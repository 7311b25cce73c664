"""A study as plain values for the report, and its best points run again."""

from collections.abc import Sequence
from dataclasses import replace

from optuna import Study
from optuna.trial import FrozenTrial

from isotrain.config import Settings, flatten
from isotrain.config.params import METHOD_SECTIONS
from isotrain.files import read_json
from isotrain.search.confirm import confirm, confirmed_runs
from isotrain.search.front import Tally, points, reproduce, tally
from isotrain.search.importance import importances
from isotrain.search.study import Place, open_study
from isotrain.tradeoff.searched import Point, Searched

SEED = 0  # of the command that does a point again: one of compare.seeds


def outline(place: Place, study: Study, counted: Tally) -> Searched:
    """What the study found so far, without anything that takes longer than a look."""
    meta = read_json(place.windows / "windows.json")
    return Searched(
        study=study.study_name,
        objectives=tuple(place.objectives),
        sampler=place.search.sampler,
        began=str(study.user_attrs.get("began", "")),
        points=points(counted.finished),
        startup=place.search.startup,
        data={key: meta[key] for key in ("source", "simulated", "rows", "sha256")},
        pruned=counted.pruned,
        failed=counted.failed,
        repeated=counted.repeated,
        hosts=_hosts(counted.finished),
        against=tuple(place.search.against),
    )


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


def _hosts(trials: Sequence[FrozenTrial]) -> tuple[str, ...]:
    """The machines that ``trials`` ran on."""
    workers = [str(trial.user_attrs.get("worker", "")) for trial in trials]
    return tuple(sorted({worker.partition(":")[0] for worker in workers if worker}))
