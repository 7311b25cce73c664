"""The page of results: tables and figures from results.json, and nothing that is not in it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from experiments.criteria.fits import CRITERIA, DRAWN_ONCE, SCHEDULES

from isotrain.compare.statistics import Interval, median_interval
from isotrain.report.drawing import GREY, PALETTE, STYLE, new_figure, save

CONFIDENCE, RESAMPLES = 0.9, 2000
SMALLER, LARGER = "better than random", "worse than random"
Rows = Sequence[dict[str, Any]]


def write(results: dict[str, Any], out: Path) -> None:
    """criteria.md, errors.png and rankings.png in ``out``."""
    zones = list(results["rankings"])
    errors(results, zones, out / "errors.png")
    rankings(results, zones, out / "rankings.png")
    parts = [_head(results), *(_table(results["rows"], zone) for zone in zones), _foot(results, zones)]
    (out / "criteria.md").write_text("\n".join(parts), encoding="utf-8")


def difference(
    rows: Rows, zone: str, criterion: str | None, schedule: str, error: str = "val_mae", control: str = "random"
) -> list[float]:
    """Error less that of the control on the same schedule with the same seed (kW), a value a seed."""
    own, random = (_by_seed(rows, zone, c, schedule, error) for c in (criterion, control))
    return [own[seed] - random[seed] for seed in sorted(random)]


def verdict(interval: Interval) -> str:
    if interval.high < 0:
        return SMALLER
    return LARGER if interval.low > 0 else ""


def _by_seed(rows: Rows, zone: str, criterion: str | None, schedule: str, error: str) -> dict[int, float]:
    schedule = "constant" if criterion is None else schedule  # without isolation there is no schedule
    chosen = [r for r in rows if (r["zone"], r["criterion"], r["schedule"]) == (zone, criterion, schedule)]
    return {row["seed"]: row[error] for row in chosen}


def _interval(values: Sequence[float]) -> Interval:
    return median_interval(values, CONFIDENCE, RESAMPLES)


def _head(results: dict[str, Any]) -> str:
    data, hardware = results["data"], results["hardware"]
    source = "a **simulated** series" if data["simulated"] else "the Drahi-X series"
    return f"""# Is any criterion better than random zones?

Forecaster of params.yaml on {source} ({data["target"]}, {data["rows"]} hours), streamed, equal steps, isolated
zones masked: {100 * results["fraction"]:.0f} % of the zones of each LSTM layer, from a tenth of the training on
(`constant`) or grown until six tenths (`cubic`); chosen anew every 5 steps. {results["seeds"]} seeds.
{results["date"]}, {hardware["cpu"]}. `python -m experiments.criteria.run`; every figure below is in results.json.
"""


def _table(rows: Rows, zone: str) -> str:
    lines = [
        f"\n## Zones: {zone}s\n",
        "Errors: MAE in kW, median over seeds. Differences to `random` are those of the same seed and schedule: "
        f"median [{100 * CONFIDENCE:.0f} % bootstrap].\n",
        "| criterion | "
        + " | ".join(f"{s}: val | less random | test less random | isolated | churn" for s in SCHEDULES)
        + " |",
        "| --- |" + " --- |" * (5 * len(SCHEDULES)),
    ]
    for criterion in (None, *CRITERIA):
        cells = [criterion or "*nothing isolated*"]
        for schedule in SCHEDULES:
            cells.append(f"{np.median(_values(rows, zone, criterion, schedule)):.3f}")
            cells += [_cell(rows, zone, criterion, schedule, error) for error in ("val_mae", "test_mae")]
            share = np.mean(list(_by_seed(rows, zone, criterion, schedule, "share").values()))
            cells.append(f"{100 * share:.0f} %" if criterion else "")
            churn = [v for v in _by_seed(rows, zone, criterion, schedule, "churn").values() if v is not None]
            cells.append(f"{100 * np.mean(churn):.0f} %" if churn else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(rows: Rows, zone: str, criterion: str | None, schedule: str, error: str) -> str:
    if criterion == "random":
        return ""
    i = _interval(difference(rows, zone, criterion, schedule, error))
    text = f"{i.median:+.3f} [{i.low:+.3f}, {i.high:+.3f}]"
    return f"**{text}**" if verdict(i) else text


def _values(rows: Rows, zone: str, criterion: str | None, schedule: str) -> list[float]:
    return list(_by_seed(rows, zone, criterion, schedule, "val_mae").values())


def _foot(results: dict[str, Any], zones: Sequence[str]) -> str:
    parts = ["\n**Bold**: the interval excludes 0. On validation:\n"]
    parts += [_count(results["rows"], zones, control) for control in ("random", DRAWN_ONCE)]
    parts.append(f"""
`{DRAWN_ONCE}`: the first draw stays. Isolated: mean share of the arcs over all steps; `plateau`, `stability` and
`plasticity` isolate nothing before they know, so they train more. Churn: share of the zones that changed state at a
selection, after the first.

![Differences to random zones, a dot a seed](errors.png)

![Rank correlation between criteria on one trained network](rankings.png)
""")
    return "\n".join(parts)


def _count(rows: Rows, zones: Sequence[str], control: str) -> str:
    names = [c for c in CRITERIA if c not in ("random", DRAWN_ONCE)]
    judged = {
        f"{c} ({z}s, {s})": verdict(_interval(difference(rows, z, c, s, control=control)))
        for z in zones
        for c in names
        for s in SCHEDULES
    }
    better, worse = ([name for name, found in judged.items() if found == what] for what in (SMALLER, LARGER))
    chance = len(judged) * (1 - CONFIDENCE) / 2
    return (
        f"- against `{control}`, of {len(judged)} comparisons {len(better)} are better and {len(worse)} worse (if no "
        f"criterion mattered, some {chance:.0f} of each by chance). Better: {', '.join(better) or 'none'}. "
        f"Worse: {', '.join(worse) or 'none'}."
    )


def errors(results: dict[str, Any], zones: Sequence[str], path: Path) -> None:
    """A dot a seed: validation error less that of random zones; the bar is the median's interval."""
    shown = (*CRITERIA[1:], None)
    with mpl.rc_context(STYLE):
        title = "Validation error less that of random zones, same seed and schedule"
        figure, grid = new_figure(
            11, 3.6 * len(zones) + 0.6, title, len(zones), len(SCHEDULES), sharex="row", sharey=True
        )
        for i, zone in enumerate(zones):
            for j, schedule in enumerate(SCHEDULES):
                axes = grid[i, j]
                for y, criterion in enumerate(reversed(shown)):
                    values = difference(results["rows"], zone, criterion, schedule)
                    interval = _interval(values)
                    colour = {SMALLER: PALETTE[2], LARGER: PALETTE[1]}.get(verdict(interval), GREY)
                    axes.plot(values, [y] * len(values), "o", color=colour, alpha=0.4, markersize=4)
                    axes.plot([interval.low, interval.high], [y, y], color=colour, linewidth=2)
                    axes.plot(interval.median, y, "|", color=colour, markersize=12, markeredgewidth=2.5)
                axes.axvline(0, color="black", linewidth=1)
                axes.set_yticks(range(len(shown)), [c or "nothing isolated" for c in reversed(shown)])
                axes.set_title(f"{zone}s, {schedule}")
                axes.set_xlabel("kW; left of 0: better than random")
        save(figure, path)


def rankings(results: dict[str, Any], zones: Sequence[str], path: Path) -> None:
    """Spearman's rank correlation of every two criteria, mean over the layers."""
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure, grid = new_figure(
            6.2 * len(zones), 5.6, "Do criteria agree? Rank correlation on one trained network", 1, len(zones)
        )
        for axes, zone in zip(grid[0], zones, strict=True):
            names = results["rankings"][zone]["names"]
            matrix = np.array(results["rankings"][zone]["correlation"], dtype=float)
            picture = axes.imshow(matrix, vmin=-1, vmax=1, cmap="RdBu_r")
            axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
            axes.set_yticks(range(len(names)), names)
            axes.set_title(f"{zone}s")
            for (y, x), value in np.ndenumerate(matrix):
                if np.isfinite(value):
                    axes.text(
                        x,
                        y,
                        f"{value:.1f}",
                        ha="center",
                        va="center",
                        fontsize=7,
                        color="white" if abs(value) > 0.6 else "black",
                    )
        figure.colorbar(picture, ax=grid[0].tolist(), shrink=0.7, label="Spearman's rank correlation")
        save(figure, path)
