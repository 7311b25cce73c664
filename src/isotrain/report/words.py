"""What the figures say, in sentences computed from them: the answer, a verdict a method, how it was measured.

Every sentence that may be quoted carries a short mark of what weakens it (:func:`mark`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from statistics import median
from typing import Any

from isotrain.compare.comparison import Comparison, Method, Rival, seconds_to_target
from isotrain.compare.results import Budget, Caution, Run, cautions, machine_drift, short_commit
from isotrain.compare.statistics import Interval
from isotrain.data.windows import PERFECT
from isotrain.report.tables import cell, kilowatts, three_digits

RIVALS: dict[Rival, str] = {  # the controls that isolate nothing and must be beaten
    "kernels": "the same network on our kernels",
    "smaller": "a smaller network whose step costs as much",
    "shorter": "a training stopped at the same time",
}
CLOSE = 0.1  # share of a budget by which a control may miss it without a word


@dataclass(frozen=True)
class Verdict:
    """``pays`` is ``None`` where the seeds do not decide, or where there is nothing to compare with."""

    method: Method
    pays: bool | None
    text: str
    speedup: Interval | None  # against tuned


def weaknesses(comparison: Comparison) -> list[Caution]:
    """Everything that weakens what the fits say, a simulated series first."""
    data = comparison.runs[0].data
    simulated = Caution("SIMULATED series", "The series is SIMULATED: this says nothing about a real building.")
    ahead = data.get("ahead", "")
    perfect = Caution(
        ahead, f"With {ahead}: measured values stand in for a forecast, whose own errors would add to these."
    )
    return [simulated] * data["simulated"] + [perfect] * (PERFECT in ahead) + cautions(comparison.runs)


def headed(data: Mapping[str, Any], title: str) -> str:
    """The heading of a page on the series ``data``: simulated or not, how many, and what was known ahead."""
    marked = f"SIMULATED series. {title}" if data["simulated"] else title
    marked += f", {data['series']} series" if data.get("series", 1) > 1 else ""
    return f"# {marked}, with {data['ahead']}" if data.get("ahead") else f"# {marked}"


def with_ahead(blocks: Sequence[str], data: Mapping[str, Any]) -> list[str]:
    """``blocks`` of Markdown with what was known ahead in a line below every table and every picture."""
    if not data.get("ahead"):
        return list(blocks)
    shown = ("|", "![")
    return [f"{block}\n\n*With {data['ahead']}.*" if block.startswith(shown) else block for block in blocks]


def mark(comparison: Comparison) -> str:
    """The end of a sentence that may be quoted: :func:`weaknesses` in a few words, or nothing."""
    found = [caution.mark for caution in weaknesses(comparison)]
    return f" (Caution: {'; '.join(found)}.)" if found else ""


def verdicts(comparison: Comparison, differences: Mapping[str, Interval]) -> list[Verdict]:
    """One a method under test: it pays if the interval against tuned and every control run is above 1."""
    return [_judge(comparison, method, differences.get(method.name)) for method in comparison.isolated()]


def _judge(comparison: Comparison, method: Method, difference: Interval | None) -> Verdict:
    name, tuned = f"`{method.name}`", comparison.tuned(method.regime)
    to_tuned = comparison.speedup(method, tuned)
    if tuned is None or to_tuned is None:
        why = "has no tuned reference with a target and a common seed in its regime, so it cannot be judged."
        return Verdict(method, None, f"{name} {why}{mark(comparison)}", None)
    reached = sum(math.isfinite(seconds) for seconds in method.to_target.values())
    parts = [f"{name} reaches the target with {reached} of {len(method.seeds)} seeds"]
    rivals = [(kind, rival) for kind, rival in comparison.rivals(method.regime) if rival.name != tuned.name]
    compared = {rival.name: s for _, rival in rivals if (s := comparison.speedup(method, rival))}
    kinds = {kind for kind, rival in rivals if rival.name in compared}
    speedups = {tuned.name: to_tuned} | compared
    if reached:
        parts += [_against(rival, s) for rival, s in speedups.items()]
    margin = comparison.settings.tolerance * comparison.figure(tuned, lambda run: run.test_mae).median
    if difference:
        parts.append(_accuracy(tuned.name, difference, margin))
    parts += elsewhere(comparison, method)
    absent = "; ".join(text for kind, text in RIVALS.items() if kind not in kinds)
    worse = difference is not None and difference.low > margin
    if worse or any(s.median <= 1 for s in speedups.values()):
        pays, end = False, "**Isolation does not pay here.**"
    elif not kinds & {"smaller", "shorter"}:
        pays, end = None, "**Undecided**: no control of equal cost was run in this regime."
    elif all(s.low > 1 for s in speedups.values()):
        missing = f" (not run in this regime: {absent})" if absent else ""
        pays, end = True, f"**It pays here**, against {joined([f'`{rival}`' for rival in speedups])}{missing}."
    else:
        pays, end = None, "**Undecided**: an interval includes no gain, so more seeds are needed."
    return Verdict(method, pays, f"{'; '.join(parts)}. {end}{mark(comparison)}", to_tuned)


def _against(rival: str, s: Interval) -> str:
    if s.median == math.inf:
        return f"sooner than `{rival}`, which misses it"
    if s.median == -math.inf:
        return f"not comparable with `{rival}` at the median, which it misses"
    pace = "faster than" if s.median > 1 else "slower than" if s.median < 1 else "as fast as"
    low = "missed" if math.isinf(s.low) else f"{s.low:.2f}"
    high = "unbounded" if math.isinf(s.high) else f"{s.high:.2f}"
    noise = ", which includes equal" if s.low <= 1 <= s.high and s.low < s.high else ""
    return f"{pace} `{rival}`: {s.median:.2f} times its speed ({low} to {high}{noise})"


def _accuracy(tuned: str, d: Interval, margin: float) -> str:
    """``margin``: kW up to which two errors count as equal, as on the way to the target."""
    if d.low > 0:
        clear = "clearly worse" if d.low > margin else "worse, by no more than the tolerance"
    else:
        clear = "clearly better" if d.high < 0 else "no clear difference"
    return f"test MAE {d.median:+.3f} kW against `{tuned}` ({d.low:+.3f} to {d.high:+.3f}: {clear})"


def elsewhere(comparison: Comparison, method: Method) -> list[str]:
    """How soon tuned reaches the same error in the other regime: that may save more than isolating does."""
    target, lines = comparison.targets[method.regime], []
    for regime in comparison.targets:
        other = comparison.tuned(regime)
        if regime != method.regime and target is not None and other is not None:
            soon = median(seconds_to_target(run, target) for run in other.runs)
            if math.isfinite(soon):
                text = f"`{other.name}`, {regime} and isolating nothing, reaches this error in {three_digits(soon)} s"
                lines.append(text)
    return lines


def joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


QUESTION = (
    "Which parts of the network may be left out of training, and does leaving them out save time "
    "without costing accuracy?"
)


def masked_lines(comparison: Comparison) -> list[str]:
    """The controls that compute every gradient and drop some afterwards."""
    lines = []
    for method in comparison.masked():
        line = f"`{method.name}` is a control: masking gradients that were computed **saves nothing**"
        tuned = comparison.tuned(method.regime)
        if tuned and tuned.name != method.name:
            ratio = median(r.step_ms_median for r in method.runs) / median(r.step_ms_median for r in tuned.runs)
            line += f" (a step takes {ratio:.2f} times as long as with `{tuned.name}`)"
            if ratio < 0.9:
                line += "; that it was faster here has another cause, so check the timing before trusting it"
        lines.append(f"{line}.{mark(comparison)}")
    return lines


def budget_lines(comparison: Comparison) -> list[str]:
    """For each control with a budget: the measured seconds that it was derived from, and how near its own came."""
    return [
        f"{_budget(method, method.budget)}{mark(comparison)}"
        for method in comparison.methods
        if method.budget is not None
    ]


def _budget(method: Method, budget: Budget) -> str:
    seconds = [run.train_seconds / (1 if budget.kind == "time" else run.steps) for run in method.runs]
    off = median(seconds) / budget.seconds - 1
    near = f"{100 * abs(off):.0f} % {'more' if off > 0 else 'less'}" if round(100 * off) else "the same"
    far = " **That is no control of equal cost.**" if abs(off) > CLOSE else ""
    what = "training time" if budget.kind == "time" else "mean step"
    return (
        f"The budget of `{method.name}` is the {what} of `{budget.of}`, measured as {_duration(budget.seconds)}; "
        f"its own is {_duration(median(seconds))}, {near}.{far}"
    )


def _duration(seconds: float) -> str:
    return f"{three_digits(seconds)} s" if seconds >= 1 else f"{three_digits(1000 * seconds)} ms"


def answer(comparison: Comparison, judged: Sequence[Verdict]) -> str:
    """Two to four sentences for the top of the page, with their :func:`mark`."""
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
    return " ".join([first, *_software(comparison)]) + mark(comparison)


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
        f"Commit of the code: {', '.join(sorted({short_commit(run.commit) for run in runs}))}.",
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
        *_of_many(runs[0].data.get("series", 1)),
        *_pairs(comparison),
        *(caution.text for caution in weaknesses(comparison)),
    ]
    if not runs[0].data["simulated"]:
        lines.append(
            "The test part was seen while the forecaster was designed, and COVID months lie in it: its errors "
            "are optimistic and unlike ordinary years; compare methods with one another rather than with other work."
        )
    return lines


def _of_many(series: int) -> list[str]:
    """How errors of several series are put together."""
    if series == 1:
        return []
    return [
        f"Errors in kW are means over the hours of all {series} series, so that large ones decide them. A relative "
        "error divides each error by the standard deviation of its series over the training part. A week of all series "
        "is one block of the bootstrap: they share weather and holidays, so they are not counted as independent."
    ]


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
    if s.median == -math.inf:
        return f"Even the best of them, `{method.name}`, misses the target."
    own, tuned = comparison.seconds_to_target(method), comparison.tuned(method.regime)
    theirs = comparison.seconds_to_target(tuned) if tuned else None
    assert own is not None and theirs is not None and tuned is not None
    if math.isfinite(own.median + theirs.median + s.median):
        text = (
            f"`{method.name}` reaches the validation error of `{tuned.name}` in {three_digits(own.median)} s against "
            f"{three_digits(theirs.median)} s, {s.median:.2f} times its speed"
        )
    else:
        text = f"`{method.name}` reaches the target {_against(tuned.name, s)}"
    maes = [comparison.figure(side, lambda run: run.test_mae).median for side in (method, tuned)]
    if all(math.isfinite(mae) for mae in maes):
        text += f", with a test MAE of {kilowatts(maes[0])} kW against {kilowatts(maes[1])} kW"
    text += "."
    better = [
        f"`{control.name}`"
        for _, control in comparison.rivals(method.regime)
        if control.name != tuned.name and (rival := comparison.speedup(method, control)) and rival.median <= 1
    ]
    if better:
        text += f" But {joined(better)} reaches it at least as soon without isolating anything."
    return " ".join([text, *(f"{sentence[0].upper()}{sentence[1:]}." for sentence in elsewhere(comparison, method))])


def _software(comparison: Comparison) -> list[str]:
    for regime in comparison.targets:
        stock, tuned = comparison.stock(regime), comparison.tuned(regime)
        gain = comparison.speedup(tuned, stock) if tuned and stock else None
        if tuned and stock and gain and math.isfinite(gain.median) and not tuned.isolates:
            return [
                f"For scale: `{tuned.name}` alone, which isolates nothing, is {gain.median:.2f} times as fast as "
                f"`{stock.name}`."
            ]
    return []


def _pairs(comparison: Comparison) -> list[str]:
    """Speed-ups that have no number, and why."""
    lines = []
    for method in comparison.methods:
        for reference in (comparison.stock(method.regime), comparison.tuned(method.regime)):
            if reference is None or reference.name == method.name:
                continue
            if method.refit or reference.refit or comparison.targets[method.regime] is None:
                continue
            s = comparison.speedup(method, reference)
            if s is None:
                lines.append(f"`{method.name}` shares no seed with `{reference.name}`: no speed-up.")
            elif s.median == math.inf:
                lines.append(f"`{method.name}` reaches the target, `{reference.name}` does not: unbounded speed-up.")
    return lines


def _speed(verdict: Verdict) -> float:
    return verdict.speedup.median if verdict.speedup else -math.inf
