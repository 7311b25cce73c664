"""What a search found, in sentences computed from it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from isotrain.compare.comparison import best_validation
from isotrain.compare.results import Run
from isotrain.compare.searched import Point, Searched
from isotrain.compare.statistics import Interval, mae_difference, median_interval
from isotrain.forecast.forecasts import read_forecasts
from isotrain.report.tables import cell
from isotrain.report.words import joined


@dataclass(frozen=True)
class Rules:
    """How points are compared: intervals of ``confidence`` from ``bootstrap`` resamples.

    Values that differ by up to ``tolerance``, a share, are equal.
    """

    confidence: float = 0.9
    bootstrap: int = 2000
    tolerance: float = 0.005

    def interval(self, values: Sequence[float]) -> Interval:
        """The median of ``values``, one for each seed, with its interval."""
        return median_interval(values, self.confidence, self.bootstrap)


@dataclass(frozen=True)
class Again:
    """A point as the search measured it and as it was on fresh seeds; ``runs`` are the fits that did not diverge.

    ``val_mae`` is the best validation error of a fit, as in the search; ``test_mae`` the test error at its end (kW).
    """

    point: Point
    runs: tuple[Run, ...]
    diverged: int
    val_mae: Interval
    test_mae: Interval
    seconds: Interval

    def as_json(self) -> dict[str, Any]:
        """All fields as values of JSON."""
        figures = {name: getattr(self, name).as_json() for name in ("val_mae", "test_mae", "seconds")}
        seen = {"trial": self.point.number, "searched": {"val_mae": self.point.val_mae, "seconds": self.point.seconds}}
        return seen | {"seeds": [run.seed for run in self.runs], "diverged": self.diverged} | figures


@dataclass(frozen=True)
class Duel:
    """A point against a rival on common seeds: ``ratio`` of training seconds, ``difference`` in test MAE (kW)."""

    point: Point
    rival: str
    ratio: Interval
    difference: Interval | None
    verdict: str  # beats it | is beaten | trades | undecided

    def as_json(self) -> dict[str, Any]:
        """All fields as values of JSON."""
        difference = self.difference.as_json() if self.difference else None
        named = {"trial": self.point.number, "rival": self.rival, "verdict": self.verdict}
        return named | {"seconds_ratio": self.ratio.as_json(), "test_mae_difference": difference}


def again(found: Searched, rules: Rules) -> list[Again]:
    """The points that were trained again, the fastest in the search first; not those whose fits all diverged."""
    return [one for point in found.again if (one := _again(found, point, rules))]


def duels(found: Searched, rules: Rules) -> list[Duel]:
    """Every point that was trained again, against every method that was trained beside it."""
    return [duel for point in found.again for rival in found.against if (duel := _duel(found, point, rival, rules))]


def verdict(ratio: Interval, difference: Interval | None, margin: float, tolerance: float) -> str:
    """What a point does against a rival, in one or two words.

    The point beats the rival if one of time and accuracy is clearly better (the whole interval is) and the other at
    worst equal (the whole interval within ``margin`` kW, or ``tolerance`` of the time); the other way round it is
    beaten. Clearly better in one and clearly worse in the other is a trade; all else is undecided.
    """
    if difference is None:
        return "undecided"
    faster, slower = ratio.high < 1, ratio.low > 1
    better, worse = difference.high < 0, difference.low > 0
    if (faster and difference.high <= margin) or (better and ratio.high <= 1 + tolerance):
        return "beats it"
    if (slower and difference.low >= -margin) or (worse and ratio.low >= 1 - tolerance):
        return "is beaten"
    return "trades" if (faster and worse) or (slower and better) else "undecided"


def curse(rows: Sequence[Again], of: Callable[[Again], float]) -> float:
    """The median of ``of`` over the points that were trained again."""
    return median(of(row) for row in rows)


def rise_in_error(row: Again) -> float:
    """Validation MAE (kW) on fresh seeds less the value that the search measured."""
    return row.val_mae.median - row.point.val_mae


def change_of_seconds(row: Again) -> float:
    """Measured seconds, alone on the machine, divided by the seconds that the search estimated."""
    return row.seconds.median / row.point.seconds


def _again(found: Searched, point: Point, rules: Rules) -> Again | None:
    runs = found.runs_of(point.name)
    well = tuple(run for run in runs if not run.diverged)
    if not well:
        return None
    return Again(
        point,
        well,
        diverged=len(runs) - len(well),
        val_mae=rules.interval([best_validation(run.history) for run in well]),
        test_mae=rules.interval([run.test_mae for run in well]),
        seconds=rules.interval([run.train_seconds for run in well]),
    )


def _duel(found: Searched, point: Point, rival: str, rules: Rules) -> Duel | None:
    own, other = ({run.seed: run for run in found.runs_of(name)} for name in (point.name, rival))
    seeds = sorted(own.keys() & other.keys())
    if not seeds:
        return None
    ratio = rules.interval([own[seed].train_seconds / other[seed].train_seconds for seed in seeds])
    if any(own[seed].diverged or other[seed].diverged for seed in seeds):
        return Duel(point, rival, ratio, None, "undecided")
    mine, theirs = ([read_forecasts(side[seed].folder) for seed in seeds] for side in (own, other))
    difference = mae_difference(mine, theirs, rules.confidence, rules.bootstrap)
    margin = rules.tolerance * median(other[seed].test_mae for seed in seeds)
    return Duel(point, rival, ratio, difference, verdict(ratio, difference, margin, rules.tolerance))


def isolates(runs: Sequence[Run]) -> bool:
    """Whether these fits isolated anything."""
    return any(run.isolated_fraction > 0 for run in runs)


def finite(value: float) -> float | None:
    """``value``, or ``None`` for what JSON cannot say."""
    return value if math.isfinite(value) else None


QUESTION = "Which settings of isolation give the best forecasts for the training time that they cost?"


def answer(found: Searched, rows: Sequence[Again], fought: Sequence[Duel]) -> str:
    """The sentence at the top of the page. Only results on fresh seeds call anything better."""
    if not found.front:
        return "No trial has finished yet, so there is no answer."
    if not fought:
        return (
            f"Open. The front has {len(found.front)} points, but none was trained again on fresh seeds beside another "
            f"method, so nothing here is called better than anything else.{_of_the_series(found)}"
        )
    said = [_against(rival, [duel for duel in fought if duel.rival == rival]) for rival in found.against]
    compared = f"Of {len(rows)} points of the front trained again on fresh seeds, {'; '.join(filter(None, said))}."
    return f"{compared} {_what_isolates(rows, fought)}{_of_the_series(found)}"


def cursed(rows: Sequence[Again]) -> str:
    """How far the values that the search measured for the chosen points can be believed."""
    rise, change = curse(rows, rise_in_error), curse(rows, change_of_seconds)
    worse = sum(rise_in_error(row) > 0 for row in rows)
    return (
        "The best of many noisy trials tends to seem better than it is. "
        f"On fresh seeds {worse} of {len(rows)} points have a larger validation MAE than the search measured "
        f"({rise:+.3f} kW, median over the points); their seconds, each "
        f"fit alone on the machine, are {change:.2f} times those that the search estimated "
        f"(from {min(map(change_of_seconds, rows)):.2f} to {max(map(change_of_seconds, rows)):.2f})."
    )


def notes(found: Searched, rules: Rules) -> list[str]:
    """How the study searched and measured, and what weakens its result."""
    failed = ", ".join(f"{number} {cell(why)}" for why, number in sorted(found.failed.items()))
    early = sum(point.early for point in found.points)
    lines = [
        f"Study {cell(found.study)}, sampler {found.sampler}, begun {found.began or 'at an unknown time'}; objectives: "
        f"{', '.join(found.objectives)}, minimised.",
        f"Trials: {len(found.points)} finished"
        + (f", {early} of them stopped early" if early else "")
        + (f"; {found.pruned} pruned" if found.pruned else "")
        + f"; {sum(found.failed.values())} failed" + (f" ({failed})" if failed else "")
        + f"; {found.repeated} were repeats of trials whose worker had died or was asked to stop.",
        "Seconds of a trial are estimated from step costs measured in quiet moments (docs/search.md); seconds on fresh "
        "seeds are measured over whole fits, each alone on the machine, validation and logging excluded.",
        "The validation MAE is the best of a training, the test MAE that of its end.",
    ]  # fmt: skip
    if len(found.hosts) > 1:
        lines.append(
            f"Trials ran on {len(found.hosts)} machines ({', '.join(map(cell, found.hosts))}): their seconds compare "
            "only as far as these machines are equally fast."
        )
    if found.reference:
        corner = " and ".join(f"{n} {v:.4g}" for n, v in zip(found.objectives, found.reference, strict=False))
        lines.append(
            f"Hypervolume: the area that the front dominates within {corner}, a tenth beyond the worst of the first "
            f"{found.startup} trials."
        )
    if found.confirmed:
        lines += _confirmation(found, rules)
    return lines


def _confirmation(found: Searched, rules: Rules) -> list[str]:
    seeds = sorted({run.seed for run in found.confirmed})
    hardware = "; ".join(
        f"{k.replace('_', ' ')} {cell(str(v or 'none'))}" for k, v in found.confirmed[0].hardware.items()
    )
    dates = sorted(run.started_at[:16].replace("T", " ") for run in found.confirmed)
    percent = f"{100 * rules.confidence:g} %"
    return [
        f"Fresh seeds: {', '.join(map(str, seeds))}; fits from {dates[0]} to {dates[-1]} UTC, every method of one seed "
        "before the next.",
        f"Hardware of these fits: {hardware}.",
        f"Brackets: {percent} bootstrap intervals of the median over seeds; with three seeds or fewer their range. "
        f"Differences in test MAE: {percent} paired week-block bootstrap over common hours, thus about other weeks.",
        f"A point beats a rival if one of time and test MAE is clearly better (the whole interval is) and the other at "
        f"worst equal (the whole interval within {100 * rules.tolerance:g} %); clearly better in one and clearly worse "
        "in the other is a trade.",
        "Several points are compared with several rivals, so a few of many verdicts may be chance.",
    ]


def _against(rival: str, fought: Sequence[Duel]) -> str:
    if not fought:
        return ""
    beating = [str(duel.point.number) for duel in fought if duel.verdict == "beats it"]
    beaten = sum(duel.verdict == "is beaten" for duel in fought)
    if beating:
        return f"{len(beating)} beat{'s' if len(beating) == 1 else ''} `{rival}` (trial {joined(beating)})"
    return f"none beats `{rival}`" + (f", which beats {beaten}" if beaten else "")


def _what_isolates(rows: Sequence[Again], fought: Sequence[Duel]) -> str:
    """Whether the winners isolate anything: a front may consist of small networks that isolate nothing."""
    isolating = {row.point.number for row in rows if isolates(row.runs)}
    winners = {duel.point.number for duel in fought if duel.verdict == "beats it"}
    if not winners:
        return f"Of these points {len(isolating)} isolate something."
    return f"Points that beat something: {len(winners)}, of which {len(winners & isolating)} isolate something."


def _of_the_series(found: Searched) -> str:
    simulated = " The series is SIMULATED: the result says nothing about a real building." * found.data["simulated"]
    ahead = found.data.get("ahead", "")
    return f"{simulated} All of it with {ahead}." if ahead else simulated
