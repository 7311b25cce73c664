"""What ingest found in many series, on one page: a row for each, the worst first, with a drawing of it."""

import heapq
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from isotrain import files
from isotrain.data.ingest import Many, Tidy
from isotrain.data.schema import TIME, Flag, flag_column
from isotrain.report.data_report import SHOWN, report

DETAILED = 5  # of the worst series: a figure of each takes as long as reading four files
WIDE, HIGH, STRIP = 280, 34, 5  # of a drawing, in its units; STRIP: at its foot, for the flagged days
MARKED = 1 / 12  # share of a drawing's step from which on it is marked as flagged
DAY = 86_400  # s
CSS = """
body { margin: 1.5rem; color: #1d2125; font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .4em; } p, ul { max-width: 60rem; margin: .5em 0; } li { margin: .2em 0; }
.out { border-left: 4px solid #d55e00; background: #fdf3ec; padding: .3em 1em; }
.odd { border-left: 4px solid #e69f00; background: #fdf8ec; padding: .3em 1em; }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums; margin-top: 1em; }
th, td { padding: .15em .6em; border-bottom: 1px solid #e6e9eb; white-space: nowrap; text-align: right; }
th { position: sticky; top: 0; background: #fff; border-bottom: 2px solid #b9c0c5; vertical-align: bottom; }
.l { text-align: left; } .z { color: #9aa1a7; } td.s { padding: 0 0 0 .6em; } th.s { padding: 0 0 0 .6em; }
svg { display: block; width: 280px; height: 34px; } .y { display: flex; position: relative; height: 1.5em; width: 280px; }
.y span { position: absolute; font-weight: normal; } .c { stroke: #0072b2; fill: none; } .f { stroke: #d55e00; stroke-width: 4; }
@media print { body { margin: 0; font-size: 9pt; } table { font-size: 6.5pt; } th { position: static; } }
"""


@dataclass(frozen=True)
class Row:
    """One series of the overview."""

    name: str
    simulated: bool
    about: Mapping[str, str | float | None]
    hours: int
    first: pd.Timestamp
    last: pd.Timestamp
    mean: float  # of the target's hours without a flag, kW; NaN without any
    flagged: float  # share of the target's hours
    flags: Mapping[str, float]  # of each kind, as a share of the target's hours
    days: npt.NDArray[np.float32]  # (days,), mean of the target, kW; NaN where no hour of it can be trusted
    marked: npt.NDArray[np.float32]  # (days,), share of the hours flagged


class Overview:
    """Notes the series as they are ingested, one at a time; writes the page when all are there.

    The few worst so far are kept whole, so that they can be drawn.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._worst: list[tuple[float, int, Tidy]] = []  # a heap, the least of them first

    def note(self, tidy: Tidy) -> None:
        """Take down what the page says of a series."""
        self.rows.append(row_of(tidy))
        entry = (self.rows[-1].flagged, -len(self.rows), tidy)
        (heapq.heappush if len(self._worst) < DETAILED else heapq.heappushpop)(self._worst, entry)

    def write(self, series: Many, folder: Path) -> None:
        """Write ``index.html``, ``data_report.md`` and ``.json`` into ``folder``, and below it the worst in detail."""
        rows = sorted(self.rows, key=lambda row: (-row.flagged, row.name))
        detailed = [tidy.facts["name"] for _, _, tidy in self._worst]
        for _, _, tidy in self._worst:
            report(tidy, folder / tidy.facts["name"])
        files.write_text(folder / "index.html", page(rows, series.left_out, series.remarks, detailed))
        files.write_text(folder / "data_report.md", words(rows, series.left_out, series.remarks, detailed))
        files.write_json(folder / "data_report.json", {
            "series": [_entry(row) for row in rows], "left_out": series.left_out, "remarks": series.remarks,
        })  # fmt: skip


def row_of(tidy: Tidy) -> Row:
    """What the overview says of a series."""
    facts, target = tidy.facts, tidy.facts["target"]
    flags = tidy.frame[flag_column(target)].to_numpy()
    times = tidy.frame[TIME]
    good = flags == Flag.OK
    load = np.where(good, tidy.frame[target].to_numpy(), np.nan)
    day = (pd.DatetimeIndex(times).as_unit("s").asi8 // DAY).astype(np.int64)
    day -= day[0]
    hours, sound = np.bincount(day), np.bincount(day, good)
    with np.errstate(invalid="ignore"):
        means = np.bincount(day, np.where(good, load, 0.0)) / sound
    return Row(
        facts["name"],
        facts["simulated"],
        facts["about"],
        facts["rows"],
        times.iloc[0],
        times.iloc[-1],
        float(np.mean(load[good])) if good.any() else math.nan,
        facts["flagged"]["whole"],
        {flag.label: facts["flags"][target][flag.name.lower()] / facts["rows"] for flag in SHOWN},
        means.astype(np.float32),
        (1 - sound / hours).astype(np.float32),
    )


def page(
    rows: Sequence[Row],
    left_out: Mapping[str, str],
    remarks: Mapping[str, Sequence[str]],
    detailed: Sequence[str] = (),
) -> str:
    """The overview as a page that needs no other file. ``rows`` in their order; ``detailed``: names with a report."""
    first, last = min(row.first for row in rows).normalize(), max(row.last for row in rows).normalize()
    step = max(1, math.ceil(((last - first).days + 1) / WIDE))  # days
    facts, kinds = list(rows[0].about), [kind for kind in rows[0].flags if any(row.flags[kind] for row in rows)]
    head = [_cell("name", "th", "l"), *(_cell(_words(fact), "th", _side(rows, fact)) for fact in facts)]
    head += [_cell(text, "th") for text in ("hours", "first day", "last day", "mean, kW", "flagged", *kinds)]
    head.append(f'<th class="s">{_years(first, last, step)}</th>')
    body = []
    for row in rows:
        name = html.escape(row.name)
        shown = f'<a href="{name}/data_report.md">{name}</a>' if row.name in detailed else name
        cells = [f'<td class="l">{shown}', *(_cell(_fact(row.about[fact]), "td", _side(rows, fact)) for fact in facts)]
        cells += [_cell(text) for text in _numbers(row)]
        cells += [_cell(_percent(share), "td", "" if share else "z") for share in _shares(row, kinds)]
        body.append(f'<tr>{"".join(cells)}<td class="s">{drawing(row, first, step)}')
    notes = [
        _box("out", _left_out_line(rows, left_out), [f"<b>{html.escape(n)}</b>: {html.escape(r)}" for n, r in left_out.items()]),
        _box("odd", "These do not look like the others; they are in, as they are:",
             [f"<b>{html.escape(n)}</b>: {html.escape(r)}" for n, of_name in remarks.items() for r in of_name]),
    ]  # fmt: skip
    text = "".join(f"<p>{html.escape(line)}</p>\n" for line in _introduction(rows, step, detailed))
    return (
        '<!DOCTYPE html>\n<html lang="en-GB"><head><meta charset="utf-8">\n'
        f"<title>{_title(rows)}</title>\n<style>{CSS}</style></head>\n<body>\n<h1>{_title(rows)}</h1>\n"
        f"{''.join(notes)}{text}<table>\n<thead><tr>{''.join(head)}</tr></thead>\n<tbody>\n"
        + "\n".join(body)
        + "\n</tbody></table>\n</body></html>\n"
    )


def words(
    rows: Sequence[Row],
    left_out: Mapping[str, str],
    remarks: Mapping[str, Sequence[str]],
    detailed: Sequence[str] = (),
) -> str:
    """The same without the drawings, Markdown."""
    facts, kinds = list(rows[0].about), [kind for kind in rows[0].flags if any(row.flags[kind] for row in rows)]
    lines = [f"# {_title(rows)}", ""]
    if left_out:
        lines += [_left_out_line(rows, left_out), "", *(f"- **{n}**: {reason}" for n, reason in left_out.items()), ""]
    if remarks:
        lines += ["These do not look like the others; they are in, as they are:", ""]
        lines += [*(f"- **{n}**: {remark}" for n, of_name in remarks.items() for remark in of_name), ""]
    lines += [*_introduction(rows, 1, detailed), ""]
    head = ["name", *map(_words, facts), "hours", "first day", "last day", "mean, kW", "flagged", *kinds]
    lines += [f"| {' | '.join(head)} |", f"|{' --- |' * (1 + len(facts))}{' ---: |' * (len(head) - 1 - len(facts))}"]
    for row in rows:
        shown = f"[{row.name}]({row.name}/data_report.md)" if row.name in detailed else row.name
        cells = [shown, *(_fact(row.about[fact]) for fact in facts), *_numbers(row)]
        lines.append(f"| {' | '.join([*cells, *map(_percent, _shares(row, kinds))])} |")
    return "\n".join(lines) + "\n"


def drawing(row: Row, first: pd.Timestamp, step: int) -> str:
    """The series as SVG: means of ``step`` days from ``first`` on, from 0 to its own highest; flagged ones marked below."""
    at = (np.arange(len(row.days)) + (row.first.normalize() - first).days) // step
    low = int(at[0])
    known = ~np.isnan(row.days)
    count = np.bincount(at - low, known)
    with np.errstate(invalid="ignore"):
        means = np.bincount(at - low, np.where(known, row.days, 0.0)) / count
    marked = np.bincount(at - low, row.marked) / np.bincount(at - low) >= MARKED
    top = float(np.nanmax(means)) if known.any() else 0.0
    room = HIGH - STRIP - 3
    heights = np.round(room + 1 - room * np.clip(means / top if top > 0 else means * 0, 0, 1))
    curve, pen = [], False
    for x, y in enumerate(heights, start=low):
        if np.isnan(y):
            pen = False
            continue
        curve.append(f"{'' if pen else 'M'}{x} {y:.0f}")
        pen = True
    edges = np.flatnonzero(np.diff(np.concatenate([[0], marked.astype(int), [0]])))
    strips = "".join(f"M{low + a} {HIGH - 3}h{b - a}" for a, b in zip(edges[::2], edges[1::2], strict=True))
    paths = f'<path class="c" d="{" ".join(curve)}"/>' if curve else ""
    paths += f'<path class="f" d="{strips}"/>' if strips else ""
    return f'<svg viewBox="0 0 {WIDE} {HIGH}">{paths}</svg>'


def _title(rows: Sequence[Row]) -> str:
    return f"{len(rows)} {'SIMULATED ' if rows[0].simulated else ''}series, as ingested"


def _introduction(rows: Sequence[Row], step: int, detailed: Sequence[str]) -> list[str]:
    lines = []
    if rows[0].simulated:
        lines.append("These series are SIMULATED: no building was measured.")
    lines.append(
        "One row a series, the largest share of flagged hours of the target first. A flagged hour is missing or faulty: "
        "it is repaired from earlier hours alone and is no truth when a forecast is scored. The mean is over the others."
    )
    if step > 1 or any(len(row.days) for row in rows):
        means = "days" if step == 1 else f"{step} days"
        lines.append(
            f"Drawn are means of {means}, each series from 0 to its own highest; red below: steps with over "
            f"{MARKED:.0%} of their hours flagged."
        )
    if detailed:
        lines.append(
            f"The {len(detailed)} worst have a report of their own, with every column and limit; "
            "`isotrain inspect FILE --picture` draws any other."
        )
    return lines


def _left_out_line(rows: Sequence[Row], left_out: Mapping[str, str]) -> str:
    return f"{len(left_out)} of {len(rows) + len(left_out)} files could not be used and are left out:"


def _box(kind: str, title: str, items: Sequence[str]) -> str:
    listed = "".join(f"<li>{item}</li>" for item in items)
    return f'<div class="{kind}"><p>{title}</p><ul>{listed}</ul></div>\n' if items else ""


def _years(first: pd.Timestamp, last: pd.Timestamp, step: int) -> str:
    """The years above the drawings, each where its January is."""
    starts = [max(first, pd.Timestamp(year, 1, 1, tz="UTC")) for year in range(first.year, last.year + 1)]
    return '<div class="y">' + "".join(
        f'<span style="left:{(start - first).days // step}px">{start.year}</span>' for start in starts
        if start == first or ((start - first).days // step > 40 and (last - start).days // step > 40)
    ) + "</div>"  # fmt: skip


def _cell(text: str, tag: str = "td", kind: str = "") -> str:
    return f"<{tag}{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}>{html.escape(text)}"


def _side(rows: Sequence[Row], fact: str) -> str:
    return "l" if any(isinstance(row.about[fact], str) for row in rows) else ""


def _words(name: str) -> str:
    return name.replace("_", " ")


def _fact(value: str | float | None) -> str:
    return "" if value is None else f"{value:,.10g}" if isinstance(value, float) else value


def _numbers(row: Row) -> list[str]:
    mean = "" if math.isnan(row.mean) else f"{row.mean:,.1f}" if row.mean >= 10 else f"{row.mean:.3g}"
    return [f"{row.hours:,}", f"{row.first:%Y-%m-%d}", f"{row.last:%Y-%m-%d}", mean]


def _shares(row: Row, kinds: Sequence[str]) -> list[float]:
    return [row.flagged, *(row.flags[kind] for kind in kinds)]


def _percent(share: float) -> str:
    return "0" if share == 0 else "< 0.01 %" if share < 0.0001 else f"{100 * share:.2f} %"


def _entry(row: Row) -> dict[str, Any]:
    return {
        "name": row.name, "about": dict(row.about), "hours": row.hours, "first": row.first.isoformat(),
        "last": row.last.isoformat(), "mean_kw": None if math.isnan(row.mean) else row.mean, "flagged": row.flagged,
        "flags": {kind.replace(" ", "_"): share for kind, share in row.flags.items()},
    }  # fmt: skip
