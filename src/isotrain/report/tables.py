"""The comparison as entries for JSON and as tables for people."""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from isotrain.compare.accuracy import Coverage, Entry, categories
from isotrain.compare.comparison import Comparison, Method
from isotrain.compare.results import Run
from isotrain.compare.statistics import Interval, mae_difference
from isotrain.data.windows import Windows
from isotrain.forecast.forecasts import read_forecasts
from isotrain.forecast.intervals import DAY_TYPES

PLAIN = ("isolated_fraction", "val_mae", "test_mae", "test_rmse", "test_mase", "train_seconds")
LEADS = (1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 36, 48, 72, 96, 120, 144, 168)  # of the table, as far as they go
NOTHING = {"median": None, "low": None, "high": None}


def figures_of(comparison: Comparison, method: Method) -> dict[str, Interval | None]:
    """Every figure of ``method`` by the name that it has in tradeoff.json; ``None`` where it does not exist."""
    plain: dict[str, Interval | None] = {name: comparison.figure(method, attrgetter(name)) for name in PLAIN}
    if method.refit:
        plain["val_mae"] = None
    return plain | {
        "step_ms": comparison.figure(method, lambda run: 1000 * run.train_seconds / run.steps),
        "seconds_to_target": comparison.seconds_to_target(method),
        "speedup_vs_stock": comparison.speedup(method, comparison.stock(method.regime)),
        "speedup_vs_tuned": comparison.speedup(method, comparison.tuned(method.regime)),
    }


def entries(comparison: Comparison) -> list[dict[str, Any]]:
    """``methods`` of tradeoff.json: infinite and absent values are null."""
    return [
        {"name": method.name, "seeds": len(method.seeds)}
        | {name: value.as_json() if value else NOTHING for name, value in figures_of(comparison, method).items()}
        for method in comparison.methods
    ]


def run_entry(method: Method, run: Run) -> dict[str, Any]:
    """One fit of ``runs`` in tradeoff.json."""
    names = ("regime", "started_at", "finished_at", "commit", "diverged", "parameters", "steps")
    seconds = method.to_target[run.seed]
    values = {name: getattr(run, name) for name in (*PLAIN, "step_ms_median", "machine_seconds")}
    return (
        {"method": run.method, "seed": run.seed}
        | {name: getattr(run, name) for name in names}
        | {name: value if math.isfinite(value) else None for name, value in values.items()}
        | {"seconds_to_target": seconds if math.isfinite(seconds) else None}
    )


def method_table(comparison: Comparison, regime: str) -> str:
    """The figures of every method of ``regime``, with the intervals in brackets."""
    head = ["method", "seeds", "isolated, %", "ms a step", "training, s", "to target, s", "× stock", "× tuned"]
    head += ["val. MAE, kW", "test MAE, kW", "test RMSE, kW", "test MASE"]
    rows = []
    for method in comparison.methods:
        if method.regime == regime:
            f = figures_of(comparison, method)
            share = comparison.figure(method, lambda run: 100 * run.isolated_fraction)
            cells = [f"`{method.name}`", str(len(method.seeds)), _share(share)]
            cells += [seconds(f["step_ms"]), seconds(f["train_seconds"])]
            cells += [seconds(f["seconds_to_target"]), times(f["speedup_vs_stock"]), times(f["speedup_vs_tuned"])]
            rows.append(cells + [error(f[name]) for name in ("val_mae", "test_mae", "test_rmse", "test_mase")])
    return table(head, rows)


def accuracy_table(accuracy: Sequence[Entry], against: str | None) -> str:
    """Every forecast: what it costs, how wrong it is, and by how much less or more than the baseline ``against``."""
    head = ["forecast", "seeds", "parameters", "training, s", "val. MAE, kW", "test MAE, kW", "test RMSE, kW"]
    several = any(e.relative for e in accuracy)
    head += ["relative test MAE"] * several
    if against:
        head += [f"s to the val. MAE of {cell(against)}", f"test MAE less {cell(against)}'s, kW"]
        head += [f"relative, less {cell(against)}'s"] * several
    rows = []
    for e in accuracy:
        cells = [cell(e.name), _count(e.seeds), _count(e.parameters), seconds(e.seconds)]
        cells += [error(value) for value in (e.val_mae, e.test_mae, e.test_rmse)]
        cells += [relative(e.relative)] * several
        if against:
            cells += [seconds(e.to_reference), _signed(e.difference)] + [_signed(e.relative_difference)] * several
        rows.append(cells)
    return table(head, rows)


def series_table(shown: Sequence[Entry], covered: Sequence[Coverage], windows: Windows, most: int | None = None) -> str:
    """A row a series, the largest relative error of the first of ``shown`` first, ``most`` of them or all."""
    first = shown[0]
    scales = {one["name"]: one["statistics"]["scale"] for one in windows.series}
    category = {name: one for one, names in categories(windows).items() for name in names}
    inside = next((c.by_series for c in covered if c.name == first.name), {})
    head = [
        "series",
        *(["category"] if category else []),
        "standard deviation, kW",
        f"test MAE of {cell(first.name)}, kW",
    ]
    head += [f"relative, {cell(e.name)}" for e in shown] + ["inside, %"] * bool(inside)
    rows = []
    for name in sorted(first.by_series, key=lambda name: -first.by_series[name]["relative"])[:most]:
        cells = [cell(name), *([cell(category[name])] if category else [])]
        cells += [kilowatts(scales[name]), kilowatts(first.by_series[name]["mae"])]
        cells += [f"{e.by_series[name]['relative']:.3f}" if name in e.by_series else "–" for e in shown]
        rows.append(cells + ([_percent(inside[name]["test"])] if inside else []))
    return table(head, rows, left=(0, 1) if category else (0,))


def category_table(accuracy: Sequence[Entry], windows: Windows) -> str:
    """Relative test MAE in each category; ensembles follow their method and are left out."""
    found = categories(windows)
    head = ["relative test MAE, in", *(f"{cell(category)} ({len(names)})" for category, names in found.items())]
    rows = [
        [cell(e.name), *(f"{e.by_category[c]['relative']:.3f}" if c in e.by_category else "–" for c in found)]
        for e in accuracy
        if e.by_category and e.kind != "ensemble"
    ]
    return table(head, rows)


def lead_table(accuracy: Sequence[Entry]) -> str:
    """Test MAE at some leads; ensembles follow their method and are left out."""
    known = [e for e in accuracy if e.by_lead and e.kind != "ensemble"]
    leads = [lead for lead in LEADS if any(len(e.by_lead) >= lead for e in known)]
    rows = [
        [cell(e.name), *(kilowatts(e.by_lead[k - 1]) if k <= len(e.by_lead) else "–" for k in leads)] for e in known
    ]
    return table(["test MAE, kW, at lead", *(f"{lead} h" for lead in leads)], rows)


def month_table(accuracy: Sequence[Entry]) -> str:
    """Test MAE in each month; ensembles follow their method and are left out."""
    known = [e for e in accuracy if e.by_month and e.kind != "ensemble"]
    months = sorted({month for e in known for month in e.by_month})
    rows = [[cell(e.name), *(kilowatts(e.by_month[m]) if m in e.by_month else "–" for m in months)] for e in known]
    return table(["test MAE, kW, in", *months], rows)


def differences(comparison: Comparison) -> dict[str, Interval]:
    """Isolated method -> its test MAE less that of the tuned reference of its regime (kW), where both finished."""
    found = {}
    for method in comparison.isolated():
        tuned = comparison.tuned(method.regime)
        sides = [[run for run in side.runs if not run.diverged] for side in (method, tuned) if side]
        if len(sides) == 2 and all(sides):
            own, reference = ([read_forecasts(run.folder) for run in side] for side in sides)
            settings = comparison.settings
            if difference := mae_difference(own, reference, settings.confidence, settings.bootstrap):
                found[method.name] = difference
    return found


def difference_table(comparison: Comparison, found: Mapping[str, Interval]) -> str:
    """:func:`differences` as a table."""
    percent = f"{100 * comparison.settings.confidence:g}"
    rows = [
        [f"`{name}`", f"{d.median:+.3f}", f"{d.low:+.3f} to {d.high:+.3f}", "yes" if d.low <= 0 <= d.high else "no"]
        for name, d in found.items()
    ]
    return table(["method", "difference in test MAE, kW", f"{percent} % interval", "includes 0?"], rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """A Markdown table; every column but those ``left`` is aligned to the right."""
    rule = [":--" if column in left else "--:" for column in range(len(head))]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *rows])


def cell(text: str) -> str:
    """``text`` as it stands: no HTML, no end of a table's cell."""
    return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ")


def error(value: Interval | None) -> str:
    """kW or a ratio of errors with two decimals, ``diverged`` where the median fit did."""
    return _bracketed(value, kilowatts, "diverged")


def relative(value: Interval | None) -> str:
    """An error in standard deviations of its series, ``diverged`` where the median fit did."""
    return _bracketed(value, "{:.3f}".format, "diverged")


def kilowatts(number: float) -> str:
    """A load or an error: two decimals in a building's range, three digits below it, whole kW from 1,000 on.

    >>> kilowatts(3.7812), kilowatts(0.09451), kilowatts(132131.94)
    ('3.78', '0.0945', '132,132')
    """
    size = abs(number)
    if 0 < size < 0.5:
        return f"{number:#.3g}"
    return f"{number:,.0f}" if size >= 1000 else f"{number:.2f}"


def three_digits(number: float) -> str:
    """``number`` with three significant digits, zeros kept: 50.0, 188, 0.0120."""
    return f"{number:#.3g}".removesuffix(".")


def seconds(value: Interval | None) -> str:
    """Seconds with three digits, ``missed`` where the median fit never reached the target."""
    return _bracketed(value, three_digits, "missed")


def times(value: Interval | None) -> str:
    """A speed-up: ``missed`` if the method did not reach the target, ``unbounded`` if only the reference did not."""
    if value is not None and value.median == math.inf:
        return "unbounded"
    return _bracketed(value, "{:.2f}".format, "missed")


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _signed(value: Interval | None) -> str:
    """A difference in kW with its interval, bold where the interval excludes 0."""
    if value is None:
        return "–"
    text = f"{value.median:+.3f} ({value.low:+.3f} to {value.high:+.3f})"
    return text if value.low <= 0 <= value.high else f"**{text}**"


def _share(value: Interval) -> str:
    return "0" if value.high == 0 else _bracketed(value, "{:.0f}".format, "")


def _bracketed(value: Interval | None, say: Callable[[float], str], absent: str) -> str:
    if value is None:
        return "–"
    if math.isinf(value.median):
        return absent
    middle, low, high = (
        say(v) if math.isfinite(v) else "∞" if v > 0 else "missed" for v in (value.median, value.low, value.high)
    )
    return middle if middle == low == high else f"{middle} ({low}–{high})"


def coverage_table(rows: Sequence[Coverage]) -> str:
    """Percent inside, by day type of the target hour on test."""
    head = ["inside, %", "validation", "test", *(f"test, {kind} days" for kind in DAY_TYPES), "mean width on test, kW"]
    lines = [
        [
            cell(r.name),
            _percent(r.validation["all"]) + _range(r, "validation"),
            _percent(r.test["all"]) + _range(r, "test"),
            *(_percent(r.test[key]) for key in DAY_TYPES),
            f"{r.width:.1f}",
        ]
        for r in rows
    ]
    return table(head, lines)


def _range(row: Coverage, part: str) -> str:
    """The least and the largest share among the series, where there are several."""
    shares = [share for one in row.by_series.values() if (share := one[part]) is not None]
    return f" ({_percent(min(shares))}–{_percent(max(shares))})" if shares else ""


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
