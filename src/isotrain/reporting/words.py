"""What the figures say, in sentences computed from them: the answer, a verdict a method, how it was measured."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from statistics import median

from isotrain.reporting.tables import cell, three_digits
from isotrain.reporting.verdicts import RIVALS, Verdict, elsewhere, joined
from isotrain.tradeoff.comparison import Comparison
from isotrain.tradeoff.results import Run, check_comparable, machine_drift

QUESTION = (
    "Which parts of the network may be left out of training, and does leaving them out save time "
    "without costing accuracy?"
)


def masked_lines(comparison: Comparison) -> list[str]:
    """The controls that compute every gradient and drop some afterwards."""
    lines = []
    for method in comparison.masked():
        line = f"`{method.name}` is a control: masking gradients that were computed **saves nothing**"
        if tuned := comparison.tuned(method.regime):
            ratio = median(r.step_ms_median for r in method.runs) / median(r.step_ms_median for r in tuned.runs)
            line += f" (a step takes {ratio:.2f} times as long as with `{tuned.name}`)"
            if ratio < 0.9:
                line += "; that it was faster here has another cause, so look at the timing before trusting it"
        lines.append(line + ".")
    return lines


def answer(comparison: Comparison, judged: Sequence[Verdict]) -> str:
    """Two to four sentences for the top of the page."""
    winners = [v for v in judged if v.pays]
    open_ones = [v for v in judged if v.pays is None and v.speedup]
    if judged and all(v.speedup is None for v in judged):
        first = "There is no tuned reference to compare with, so these fits do not answer it."
    elif not judged:
        first = "No isolated method was run, so there is nothing to answer yet."
    elif winners:
        best = max(winners, key=_speed)
        names = ", ".join(f"`{v.method.name}`" for v in winners)
        first = f"Yes, for {names}. {_summary(comparison, best)}"
    elif open_ones:
        best = max(open_ones, key=_speed)
        first = f"These seeds do not decide it. {_summary(comparison, best)}"
    else:
        best = max(judged, key=_speed)
        first = f"Isolation does not pay here. {_summary(comparison, best)}"
    return " ".join([first, *_software(comparison), *_caveat(comparison)])


def notes(comparison: Comparison) -> list[str]:
    """How it was measured and what weakens it."""
    runs, settings = comparison.runs, comparison.settings
    seeds = sorted({run.seed for run in runs})
    hardware = "; ".join(
        f"{key.replace('_', ' ')} {cell(str(value or 'none'))}" for key, value in runs[0].hardware.items()
    )
    machine = [run.machine_seconds for run in runs]
    percent = f"{100 * settings.confidence:g} %"
    lines = [
        f"Hardware: {hardware}.",
        _when(runs),
        f"The fixed reference computation around each fit took {three_digits(min(machine))} to "
        f"{three_digits(max(machine))} s (largest over smallest {machine_drift(runs):.2f}).",
        f"Seeds: {len(seeds)} ({', '.join(map(str, seeds))}).",
        "Training seconds exclude validation and logging and include everything else: selection, packing, and "
        "compiling after the first use.",
    ]
    for regime, target in comparison.targets.items():
        names = ", ".join(f"`{m.name}`" for m in comparison.methods if m.regime == regime)
        reference = comparison.tuned(regime)
        goal = (
            f"target {target:.3f} kW, the median best validation MAE of `{reference.name}` (of an even number "
            f"of seeds the higher middle value, one that occurred) plus a tolerance of {100 * settings.tolerance:g} %"
            if target is not None and reference
            else "no target: its tuned reference is absent or diverged, so seconds to target and speed-ups are too"
        )
        lines.append(f"Regime {regime}: {names}; {goal}.")
        if comparison.stock(regime) is None:
            lines.append(f"Regime {regime}: its stock reference was not run, so there is no speed-up against stock.")
    lines += [
        "Time to target: training seconds at the first validation at or below the target, nothing interpolated; "
        "never reaching it counts as infinite. In the JSON null stands for infinite, missed or absent.",
        f"Brackets hold {percent} percentile bootstrap intervals of the median over seeds ({settings.bootstrap} "
        "resamples, seeded generator). With three seeds or fewer such an interval is the range of the seeds. "
        "Speed-ups are ratios of times to target, paired by seed.",
        f"Differences in test MAE: {percent} paired week-block bootstrap over the common origins, errors averaged "
        "over seeds; it speaks of other weeks, not of other seeds.",
        *_pairs(comparison),
        *check_comparable(runs),
    ]
    if not runs[0].data["simulated"]:
        lines.append(
            "The test part was looked at while the forecaster was designed, and COVID months lie in it: its errors "
            "are optimistic and unlike ordinary years; compare methods with one another rather than with other work."
        )
    return lines


def _when(runs: Sequence[Run]) -> str:
    """The dates of the fits, and whether they really ran one at a time and interleaved."""
    spans = sorted(((_at(r.started_at), _at(r.finished_at), r) for r in runs), key=lambda span: span[:2])
    text = f"Fits made from {spans[0][0]:%Y-%m-%d %H:%M} to {max(end for _, end, _ in spans):%Y-%m-%d %H:%M} UTC"
    overlaps = [f"{a.name} and {b.name}" for (_, end, a), (start, _, b) in pairwise(spans) if start < end]
    if overlaps:
        some = ", ".join(overlaps[:3]) + (f" and {len(overlaps) - 3} more pairs" if len(overlaps) > 3 else "")
        return f"{text}. Some ran side by side and disturbed each other's times: {some}."
    seeds = [run.seed for _, _, run in spans]
    order = ", every method of one seed before the next seed" if seeds == sorted(seeds) else ""
    return f"{text}, one at a time{order}."


def _at(stamp: str) -> datetime:
    return datetime.fromisoformat(stamp).astimezone(UTC)


def _summary(comparison: Comparison, verdict: Verdict) -> str:
    """The best method of its kind in a sentence, and what beats it in another."""
    method, s = verdict.method, verdict.speedup
    if s is None:
        return verdict.text
    if math.isinf(s.median):
        return f"Even the best of them, `{method.name}`, misses the target." if s.median < 0 else verdict.text
    own, tuned = comparison.seconds_to_target(method), comparison.tuned(method.regime)
    theirs = comparison.seconds_to_target(tuned) if tuned else None
    mae = comparison.figure(method, lambda run: run.test_mae).median
    assert own is not None and theirs is not None and tuned is not None
    text = (
        f"`{method.name}` reaches the validation error of `{tuned.name}` in {three_digits(own.median)} s against "
        f"{three_digits(theirs.median)} s, {s.median:.2f} times its speed, with a test MAE of {mae:.2f} kW against "
        f"{comparison.figure(tuned, lambda run: run.test_mae).median:.2f} kW."
    )
    better = [
        f"`{control.name}`"
        for kind in RIVALS
        if (control := comparison.control(kind, method.regime))
        and (rival := comparison.speedup(method, control))
        and rival.median <= 1
    ]
    if better:
        text += f" But {joined(better)} reaches it at least as soon without isolating anything."
    return " ".join([text, *(f"{sentence[0].upper()}{sentence[1:]}." for sentence in elsewhere(comparison, method))])


def _software(comparison: Comparison) -> list[str]:
    for regime in comparison.targets:
        stock, tuned = comparison.stock(regime), comparison.tuned(regime)
        gain = comparison.speedup(tuned, stock) if tuned and stock else None
        if tuned and stock and gain and math.isfinite(gain.median):
            return [
                f"For scale: `{tuned.name}` alone, which isolates nothing, is {gain.median:.2f} times as fast as "
                f"`{stock.name}`."
            ]
    return []


def _caveat(comparison: Comparison) -> list[str]:
    if comparison.runs[0].data["simulated"]:
        return ["The series is SIMULATED: this says nothing about a real building."]
    return []


def _pairs(comparison: Comparison) -> list[str]:
    """Speed-ups that have no number, and why."""
    lines = []
    for method in comparison.methods:
        for reference in (comparison.stock(method.regime), comparison.tuned(method.regime)):
            if reference is None or method.refit or comparison.targets[method.regime] is None:
                continue
            s = comparison.speedup(method, reference)
            if s is None:
                lines.append(f"`{method.name}` shares no seed with `{reference.name}`: no speed-up.")
            elif s.median == math.inf:
                lines.append(f"`{method.name}` reaches the target, `{reference.name}` does not: unbounded speed-up.")
    return lines


def _speed(verdict: Verdict) -> float:
    return verdict.speedup.median if verdict.speedup else -math.inf
