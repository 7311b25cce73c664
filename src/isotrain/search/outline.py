"""A study as plain values, as far as a look at its trials tells."""

from collections.abc import Sequence

from optuna import Study
from optuna.trial import FrozenTrial

from isotrain.files import read_json
from isotrain.search.front import Tally, points
from isotrain.search.study import Place
from isotrain.tradeoff.searched import Searched


def outline(place: Place, study: Study, counted: Tally) -> Searched:
    """What the study found so far: no command, no importance, nothing that was run again."""
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


def _hosts(trials: Sequence[FrozenTrial]) -> tuple[str, ...]:
    """The machines that ``trials`` ran on."""
    workers = [str(trial.user_attrs.get("worker", "")) for trial in trials]
    return tuple(sorted({worker.partition(":")[0] for worker in workers if worker}))
