"""What ingest found: a table and a figure for the reader who is about to trust the series."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from isotrain import files
from isotrain.data.ingest import Tidy
from isotrain.data.limits import NO_SUCH
from isotrain.data.schema import TIME, Flag, flag_column
from isotrain.data.windows import ahead_words, flagged_line
from isotrain.report.drawing import GREY, PALETTE, new_figure, save, with_words

SHOWN = (
    Flag.GAP,
    Flag.STUCK,
    Flag.OUTAGE,
    Flag.IMPOSSIBLE,
    Flag.NOT_STARTED,
)  # the night offset would fill it
COLOUR = {  # colour-blind readers can distinguish them (Okabe and Ito)
    Flag.GAP: "#56B4E9",
    Flag.STUCK: "#CC79A7",
    Flag.OUTAGE: "#D55E00",
    Flag.IMPOSSIBLE: "#000000",
    Flag.NOT_STARTED: "#999999",
}
LOAD = PALETTE[0]
AROUND = pd.Timedelta(days=3)  # shown before and after a repaired stretch
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
UNITS = {"degC": "°C", "W/m2": "W/m²"}


def report(tidy: Tidy, folder: Path, *, drawn: bool = True) -> None:
    """Write ``data_report.md``, and ``series.png`` if it is to be ``drawn``, into ``folder``.

    Both say so if the series is simulated.
    """
    if drawn:
        save(figure(tidy), folder / "series.png")
    files.write_text(folder / "data_report.md", page(tidy, drawn=drawn))


def page(tidy: Tidy, *, drawn: bool = True) -> str:
    """The report's text, Markdown; with the picture only if it is ``drawn``."""
    facts, hours = tidy.facts, tidy.frame[TIME]
    simulated = facts["simulated"]
    title = "SIMULATED series, as ingested" if simulated else f"Series {facts['source']}, as ingested"
    words = ahead_words(facts)
    ahead = f"\nForecasts of it read columns at the hours forecast: {words}." if words else ""
    origin = (
        "**This series is SIMULATED: no building was measured.** What is learnt on it says nothing about a real one."
        if simulated
        else f"Source: `{facts['source']}`, SHA-256 `{facts['sha256']}`."
    )
    late = facts["hours_before_start"]
    picture = f"![{title}](series.png)\n\n" if drawn else ""
    return f"""# {title}

{origin}

{facts["rows"]:,} hours from {hours.iloc[0]:%Y-%m-%d %H:%M} to {hours.iloc[-1]:%Y-%m-%d %H:%M} UTC; \
{late:,} hours before the target's first measurement were left out.
The target is {facts["target"]} in {facts["unit"]}; the building keeps the time of {facts["time_zone"]}.{ahead}

{picture}## Columns

"Before" is the hourly value as read, "after" is what models see.

{_table(_column_rows(tidy))}

## Flagged hours

Flagged hours are repaired from earlier hours alone and do not count as truth when a forecast is scored. A
stuck sensor is noticed only after some equal hours, so the first of them keep their value; the flag covers
all. An offset is a solar flux slightly below zero at night, set to 0.

{_table(_flag_rows(tidy))}

Of the target {facts["target"]}, missing or faulty: {flagged_line(facts["flagged"])}.

## Limits

What lies beyond a limit is flagged. A limit that `ingest.checks` do not set is derived from the training part, with its
most extreme hours left out; `docs/data.md` has the rules. Loads in kW, stuck_hours in hours.

{_table(_limit_rows(tidy), right=(2,))}
"""


def figure(tidy: Tidy) -> Figure:
    """The target over the years and over a typical week, the hours flagged, and one repaired stretch in close-up."""
    stretch = longest_repair(tidy)
    heights = [3.0, 2.0, 0.5 + 0.2 * len(tidy.facts["columns"]), 2.6][: 4 if stretch else 3]
    what = "SIMULATED series (no building was measured)" if tidy.facts["simulated"] else tidy.facts["source"]
    what = with_words(what, ahead_words(tidy.facts))
    drawn, grid = new_figure(10, sum(heights) + 1.2, what, len(heights), height_ratios=heights)
    rows = grid[:, 0]
    _draw_target(rows[0], tidy)
    _draw_week(rows[1], tidy)
    _draw_flags(rows[2], tidy)
    rows[2].sharex(rows[0])
    if stretch:
        _draw_repair(rows[3], tidy, *stretch)
    for axes in rows:
        axes.spines[["top", "right"]].set_visible(False)
        if axes is rows[1]:
            continue
        locator = AutoDateLocator(tz="UTC")  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz="UTC"))  # type: ignore[no-untyped-call]
    return drawn


def longest_repair(tidy: Tidy) -> tuple[str, pd.Timestamp, pd.Timestamp] | None:
    """Column, first and last hour of the longest flagged run, the target's if it has one; else ``None``."""
    target = tidy.facts["target"]
    for names in ([target], tidy.facts["columns"]):
        runs = [(run[1], name, run[0]) for name in names if (run := _longest_run(_repaired(tidy, name)))]
        if runs:
            length, name, start = max(runs)
            times = tidy.frame[TIME]
            return name, times.iloc[start], times.iloc[start + length - 1]
    return None


def _draw_target(axes: Axes, tidy: Tidy) -> None:
    target, unit = tidy.facts["target"], _unit(tidy, tidy.facts["target"])
    days = tidy.frame.set_index(TIME)[target].resample("D").agg(["mean", "min", "max"])
    axes.fill_between(days.index, days["min"], days["max"], color=LOAD, alpha=0.2, lw=0, label="range of the day")
    axes.plot(days.index, days["mean"], color=LOAD, lw=0.9, label="mean of the day")
    axes.margins(x=0.01)
    axes.set(ylabel=f"{target} ({unit})", ylim=(0, None))
    _head(axes, f"{target} after repair")


def _draw_week(axes: Axes, tidy: Tidy) -> None:
    """Mean and range of each hour of the week on the building's clock: where night and weekend lie tells its zone."""
    target, zone = tidy.facts["target"], tidy.facts["time_zone"]
    load = tidy.frame.set_index(TIME)[target].tz_convert(zone)
    hours = pd.DatetimeIndex(load.index)
    week = load.groupby(24 * hours.day_of_week + hours.hour).quantile(np.array([0.1, 0.5, 0.9])).unstack()
    axes.fill_between(week.index, week[0.1], week[0.9], color=LOAD, alpha=0.2, lw=0, label="8 of 10 weeks")
    axes.plot(week.index, week[0.5], color=LOAD, lw=1.2, label="median")
    axes.set_xticks(range(0, 7 * 24, 12), [f"{day} {hour}" for day in DAYS for hour in ("0 h", "12 h")], fontsize=8)
    axes.set(ylabel=f"{target} ({_unit(tidy, target)})", ylim=(0, None), xlim=(0, 7 * 24 - 1))
    _head(axes, f"The typical week, on the clock of {zone}")


def _draw_flags(axes: Axes, tidy: Tidy) -> None:
    names = list(tidy.facts["columns"])
    times = tidy.frame[TIME]
    for flag in SHOWN:
        marked = [(row, times[tidy.frame[flag_column(name)] == flag]) for row, name in enumerate(names)]
        count = sum(len(hours) for _, hours in marked)
        if not count:
            continue
        style = {"ls": "", "marker": "|", "ms": 9, "mew": 1.6, "color": COLOUR[flag]}
        for row, hours in marked:
            axes.plot(hours, np.full(len(hours), row), **style)  # type: ignore[arg-type]
        axes.plot([], [], **style, label=flag.label)  # type: ignore[arg-type]
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="y", color="#EEEEEE")
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    _head(axes, "Hours flagged (night offsets left out)")


def _draw_repair(axes: Axes, tidy: Tidy, name: str, first: pd.Timestamp, last: pd.Timestamp) -> None:
    near = tidy.frame[TIME].between(first - AROUND, last + AROUND).to_numpy()
    times, repaired = tidy.frame[TIME][near], _repaired(tidy, name)[near]
    axes.plot(times, tidy.frame[name][near], color=LOAD, lw=1.8, label="after repair")
    axes.plot(times, tidy.raw[name].to_numpy()[near], color=GREY, lw=1, ls=(0, (3, 1.5)), label="as read")
    after = tidy.frame[name][near].where(repaired)
    axes.plot(times, after, ls="", marker="o", ms=4.5, color="#D55E00", label="repaired hour")
    axes.set(ylabel=f"{name} ({_unit(tidy, name)})", xlabel="Time (UTC)")
    axes.margins(x=0.01)
    hours = int((last - first) / pd.Timedelta(hours=1)) + 1
    _head(axes, f"The longest repair of {name}: {hours} h from {first:%Y-%m-%d %H}h")


def _head(axes: Axes, title: str) -> None:
    """Title to the left and legend, if there is anything in it, to the right above the axes."""
    axes.set_title(title, loc="left", fontsize=11)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        above = {"bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.3, "frameon": False}
        axes.legend(handles, labels, loc="lower right", ncols=len(handles), fontsize=9.5, **above)


def _repaired(tidy: Tidy, name: str) -> np.ndarray:
    """Hours (hours,) flagged with anything but the night offset."""
    return np.asarray(tidy.frame[flag_column(name)].isin([*SHOWN]))


def _longest_run(marked: np.ndarray) -> tuple[int, int] | None:
    """Position and length of the longest run of True, the first of several; ``None`` without any."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], marked.astype(int), [0]])))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return None
    longest = int(np.argmax(ends - starts))
    return int(starts[longest]), int(ends[longest] - starts[longest])


def _column_rows(tidy: Tidy) -> list[list[str]]:
    head = ["column", "unit", "rows", "first hour", "last hour"]
    head += [f"{what} {when}" for when in ("before", "after") for what in ("min", "median", "max")]
    rows = [head]
    for name in tidy.facts["columns"]:
        read = tidy.raw[name].dropna()
        ends = [f"{hour:%Y-%m-%d %H:%M}" for hour in (read.index.min(), read.index.max())] if len(read) else ["", ""]
        rows.append([name, _unit(tidy, name), f"{len(read):,}", *ends, *_spread(read), *_spread(tidy.frame[name])])
    return rows


def _spread(values: pd.Series) -> list[str]:
    """Minimum, median and maximum, empty where there is no value."""
    numbers = (values.min(), values.median(), values.max())
    return [f"{number:.2f}" if len(values) else "" for number in numbers]


def _flag_rows(tidy: Tidy) -> list[list[str]]:
    kinds = [flag for flag in Flag if flag != Flag.OK]
    counts = {name: tidy.facts["flags"][name] for name in tidy.facts["columns"]}
    rows = [[name, *(f"{count[kind.name.lower()]:,}" for kind in kinds)] for name, count in counts.items()]
    return [["column", *(kind.label for kind in kinds)], *rows]


def _limit_rows(tidy: Tidy) -> list[list[str]]:
    return [["column", "limit", "value", "reason"]] + [
        [name, limit, "none" if found["value"] is None else f"{found['value']:g}", found["reason"]]
        for name, limits in tidy.facts["limits"].items()
        for limit, found in limits.items()
        if found["reason"] != NO_SUCH
    ]


def _table(rows: list[list[str]], right: Sequence[int] | None = None) -> str:
    """Markdown; numbers, that is all but the first column unless ``right`` says which, to the right."""
    numbers = range(1, len(rows[0])) if right is None else right
    rule = ["---:" if position in numbers else "---" for position in range(len(rows[0]))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [rows[0], rule, *rows[1:]])


def _unit(tidy: Tidy, name: str) -> str:
    unit = str(tidy.facts["columns"][name]["unit"])
    return UNITS.get(unit, unit)
