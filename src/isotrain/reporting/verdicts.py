"""One verdict a method under test, computed from the figures: does isolating pay, and against whom."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from isotrain.reporting.tables import three_digits
from isotrain.tradeoff.comparison import Comparison, Method
from isotrain.tradeoff.statistics import Interval
from isotrain.tradeoff.target import seconds_to_target

RIVALS = ("native", "small", "short")  # nothing isolated: our own kernels, and two that cost about as little


@dataclass(frozen=True)
class Verdict:
    """``pays`` is ``None`` where the seeds do not decide, or where there is nothing to compare with."""

    method: Method
    pays: bool | None
    text: str
    speedup: Interval | None  # against tuned


def verdicts(comparison: Comparison, differences: Mapping[str, Interval]) -> list[Verdict]:
    """One a method under test: it pays if the interval against tuned and every control run is above 1."""
    return [_judge(comparison, method, differences.get(method.name)) for method in comparison.isolated()]


def _judge(comparison: Comparison, method: Method, difference: Interval | None) -> Verdict:
    name, tuned = f"`{method.name}`", comparison.tuned(method.regime)
    to_tuned = comparison.speedup(method, tuned)
    if tuned is None or to_tuned is None:
        why = "has no tuned reference with a target and a common seed in its regime"
        return Verdict(method, None, f"{name} {why}, so it cannot be judged.", None)
    reached = sum(math.isfinite(seconds) for seconds in method.to_target.values())
    parts = [f"{name} reaches the target with {reached} of {len(method.seeds)} seeds"]
    rivals = [tuned, *(c for kind in RIVALS if (c := comparison.control(kind, method.regime)))]
    speedups = {rival.name: s for rival in rivals if (s := comparison.speedup(method, rival))}
    absent = [f"`{kind}`" for kind in RIVALS if comparison.control(kind, method.regime) is None]
    if reached:
        parts += [_against(rival, s) for rival, s in speedups.items()]
    margin = comparison.settings.tolerance * comparison.figure(tuned, lambda run: run.test_mae).median
    if difference:
        parts.append(_accuracy(tuned.name, difference, margin))
    parts += elsewhere(comparison, method)
    missing = f" ({joined(absent)} was not run in this regime)" if absent else ""
    worse = difference is not None and difference.low > margin
    if worse or any(s.median <= 1 for s in speedups.values()):
        pays, end = False, "**Isolation does not pay here.**"
    elif len(absent) == len(RIVALS):
        pays, end = None, f"**Undecided**: no control of equal cost ({joined(absent)}) was run in this regime."
    elif all(s.low > 1 for s in speedups.values()):
        pays, end = True, f"**It pays here**, against {joined([f'`{rival}`' for rival in speedups])}{missing}."
    else:
        pays, end = None, "**Undecided**: an interval includes no gain, so more seeds are needed."
    return Verdict(method, pays, f"{'; '.join(parts)}. {end}", to_tuned)


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
