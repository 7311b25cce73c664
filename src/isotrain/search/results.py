"""What a study's trials amount to: its budget, its front, the importance of its parameters, as plain values."""

import json
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import optuna
from optuna import Study
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from isotrain.compare.searched import Importance, Point, Searched, history
from isotrain.config import MethodsView, Search, Settings, decisive
from isotrain.data.windows import read_meta
from isotrain.search.recovery import lost, settled, why
from isotrain.search.study import Place
from isotrain.training.tracking import learnt

GROWTH = 1.001  # a hypervolume that grows by less stands still


def spent(study: optuna.Study, search: Search) -> str | None:
    """Why the study is over, or None. A trial and its repeats count as one; a running trial is not finished."""
    finished = settled(study.get_trials(deepcopy=False), search.retries)
    if search.trials is not None and len(finished) >= search.trials:
        return f"{len(finished)} of {search.trials} trials are finished"
    hours = hours_since(study.user_attrs["began"])
    if search.hours is not None and hours >= search.hours:
        return f"{hours:.2f} of {search.hours:g} h are over"
    if search.stall is not None and stalled(finished, search.startup, search.stall):
        return f"the hypervolume has not grown by 0.1 % in {search.stall} trials"
    return None


def stalled(finished: Sequence[FrozenTrial], startup: int, count: int) -> bool:
    """Whether the last ``count`` trials, in the order of finishing, left the hypervolume where it was.

    A trial that failed or ended early adds no area, but is counted. Before ``startup`` trials have values the answer is
    False: the corner of the hypervolume comes from these trials.
    """
    points = [_values(trial) for trial in finished]
    volumes = history(points, startup)
    return len(volumes) > count and 0 < volumes[-1] < GROWTH * volumes[-1 - count]


def hours_since(began: str) -> float:
    """Hours since ``began``, an attribute of the study."""
    return (datetime.now(UTC) - datetime.fromisoformat(began)).total_seconds() / 3600


def _values(trial: FrozenTrial) -> tuple[float, float] | None:
    if trial.state != TrialState.COMPLETE or trial.user_attrs.get("early"):
        return None
    return trial.values[0], trial.values[-1]


@dataclass(frozen=True)
class Tally:
    """The trials of a study by what became of them; a trial and its repeats count once, by the last of them.

    ``pruned``: on the way to a target. ``failed``: for good, why -> number. ``again``: to be queued again.
    ``repeated``: trials that repeat another.
    """

    finished: tuple[FrozenTrial, ...]  # in the order in which they did
    pruned: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)
    running: int = 0
    waiting: int = 0
    again: int = 0
    repeated: int = 0

    @property
    def ended(self) -> int:
        """What the budget counts: finished, pruned and failed for good."""
        return len(self.finished) + self.pruned + sum(self.failed.values())


def tally(trials: Sequence[FrozenTrial], retries: int) -> Tally:
    """Count ``trials``, all of a study; one that lost its worker is repeated at most ``retries`` times."""
    states = Counter(trial.state for trial in trials)
    ended = settled(trials, retries)
    return Tally(
        finished=tuple(trial for trial in ended if trial.state == TrialState.COMPLETE),
        pruned=sum(trial.state == TrialState.PRUNED for trial in ended),
        failed=Counter(_kind(why(trial)) for trial in ended if trial.state == TrialState.FAIL),
        running=states[TrialState.RUNNING],
        waiting=states[TrialState.WAITING],
        again=len(lost(trials, retries)),
        repeated=sum(trial.user_attrs.get("again_of") is not None for trial in trials),
    )


def points(finished: Sequence[FrozenTrial]) -> tuple[Point, ...]:
    """The trials of :attr:`Tally.finished` as points."""
    return tuple(_point(trial) for trial in finished)


def reproduce(point: Settings, methods: MethodsView, seed: int) -> str:
    """The command that trains ``point`` once, as the method ``isolated`` with ``seed``.

    That method runs the sections of params.yaml as they stand, so the command sets only the values that differ from
    them. Run it in the project's folder; as every ``dvc exp run`` it leaves params.yaml changed.
    """
    wanted, isolated = decisive(point), decisive(methods.whole_settings("isolated"))
    if point.isolation is None:
        wanted["isolation.schedule.fraction"] = 0.0
    wanted |= {"compare.methods": ["isolated"], "compare.seeds": [seed]}
    words = [f"-S '{path}={_word(value)}'" for path, value in wanted.items() if value != isolated.get(path)]
    return " ".join(["dvc exp run", *words, "train"])


def overrides(trial: FrozenTrial) -> dict[str, Any]:
    """Dotted path -> value that ``trial`` ran with: its attribute ``overrides``, or its parameters if it has none."""
    noted = trial.user_attrs.get("overrides")
    return dict(json.loads(noted) if noted else trial.params)


def _point(trial: FrozenTrial) -> Point:
    noted, values = trial.user_attrs, tuple(trial.values)
    return Point(
        number=trial.number,
        values=values,
        val_mae=float(noted.get("val_mae", values[0])),
        seconds=float(noted.get("seconds", values[-1])),
        settings=overrides(trial),
        known=noted.get("known"),
        early=bool(noted.get("early")),
    )


def _kind(why: str) -> str:
    """The reason of a failure without the details after the colon."""
    return why.partition(":")[0]


def _word(value: Any) -> str:
    """``value`` as Hydra and YAML 1.1 read it; for YAML 1.1, 1e-05 is text and 1.0e-05 a number."""
    if isinstance(value, str):
        return value
    word = json.dumps(value)
    return word if "." in word or not isinstance(value, float) else word.replace("e-", ".0e-")


FEWEST = 20  # trials below which no importance is given
BEST = 0.25  # share of the trials that is compared with all: Optuna's own tenth is too few of some forty
SHUFFLES = 20
SEED = 20260


def importances(study: optuna.Study, trials: Sequence[FrozenTrial], names: Sequence[str]) -> tuple[Importance, ...]:
    """The importance of the parameters for each objective in ``names``; none with fewer than 20 ``trials`` that count.

    Conditional PED-ANOVA (Watanabe, Bansal and Hutter, IJCAI 2023; its conditional form is what Optuna computes):
    how much the distribution of a parameter among the best quarter of the trials differs from that among all trials.
    The shares of all parameters sum to 1. ``chance``, in the same unit, is the largest of 20 draws in which the values
    were assigned to the trials at random: a parameter that does not exceed it may not matter at all.
    """
    if len(trials) < FEWEST:
        return ()
    return tuple(_importance(study, trials, name, at) for at, name in enumerate(names))


def _importance(study: optuna.Study, trials: Sequence[FrozenTrial], name: str, at: int) -> Importance:
    values = np.array([trial.values[at] for trial in trials])
    numbers, random = [trial.number for trial in trials], np.random.default_rng(SEED)
    found = _divergences(study, dict(zip(numbers, values, strict=True)))
    draws = [_divergences(study, dict(zip(numbers, random.permutation(values), strict=True))) for _ in range(SHUFFLES)]
    whole = sum(found.values()) or 1.0
    share = {path: value / whole for path, value in found.items()}
    return Importance(name, len(trials), share, {path: max(draw[path] for draw in draws) / whole for path in share})


def _divergences(study: optuna.Study, values: dict[int, float]) -> dict[str, float]:
    """Parameter -> how far apart its two distributions are; a trial without a value in ``values`` is left out."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # imports scikit-learn: 3 s

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*to achieve low `target`")  # a low objective is good here
        warnings.simplefilter("ignore", ExperimentalWarning)  # of normalize
        return get_param_importances(
            study,
            evaluator=PedAnovaImportanceEvaluator(target_quantile=BEST),
            target=lambda trial: values.get(trial.number, float("nan")),
            normalize=False,
        )


def outline(place: Place, study: Study, counted: Tally) -> Searched:
    """What the study found so far, without commands, importances and the points that were trained again."""
    meta = learnt(read_meta(place.windows / "windows.json"))
    return Searched(
        study=study.study_name,
        objectives=tuple(place.objectives),
        sampler=place.search.sampler,
        began=str(study.user_attrs.get("began", "")),
        points=points(counted.finished),
        startup=place.search.startup,
        data={key: meta[key] for key in ("source", "simulated", "rows", "sha256", "ahead", "series")},
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
