"""What ingest found in many series, on one page: a row for each, the worst first, with a drawing of it."""

import heapq
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pandas as pd

from isotrain import files
from isotrain.data.ingest import Tidy
from isotrain.data.schema import TIME, Flag, flag_column
from isotrain.report.data_report import SHOWN, report

DRAWN = 5  # of the worst series: a figure takes as long as reading four files
WIDE, HIGH, STRIP = 280, 34, 5  # of a drawing, in its units; STRIP: at its foot, for the flagged days
MARKED = 1 / 12  # share of a drawing's step from which on it is marked as flagged
DAY = 86_400  # s
ODD = "These do not look like the others. They are in, as they are:"
CSS = """
body { margin: 1.5rem; color: #1d2125; font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .4em; } p, ul { max-width: 60rem; margin: .5em 0; } li { margin: .2em 0; }
.out { border-left: 4px solid #d55e00; background: #fdf3ec; padding: .3em 1em; margin: .6em 0; }
.odd { border-left: 4px solid #e69f00; background: #fdf8ec; padding: .3em 1em; margin: .6em 0; }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums; margin-top: 1em; }
th, td { padding: .15em .6em; border-bottom: 1px solid #e6e9eb; white-space: nowrap; text-align: right; }
th { position: sticky; top: 0; background: #fff; border-bottom: 2px solid #b9c0c5; vertical-align: bottom; }
.l { text-align: left; } .z { color: #9aa1a7; } td.s { padding: 0 0 0 .6em; } th.s { padding: 0 0 0 .6em; }
svg { display: block; width: 280px; height: 34px; } .y { position: relative; height: 1.5em; width: 280px; }
.y span { position: absolute; } .c { stroke: #0072b2; fill: none; } .f { stroke: #d55e00; stroke-width: 4; }
@media print { body { margin: 0; font-size: 9pt; } table { font-size: 6.5pt; } th { position: static; } }
"""


@dataclass(frozen=True)
class Row:
    """One series of the overview."""

    name: str
    simulated: bool
    about: Mapping[str, str | float | None]
    hours: int
    first: pd.Timestamp  # hour, by the building's clock
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

    def __init__(self, folder: Path) -> None:
        self.rows: list[Row] = []
        self._folder = folder
        self._worst: list[tuple[float, int, Tidy]] = []  # a heap, the least of them first

    def note(self, tidy: Tidy) -> None:
        """Take down what the page says of a series, and write its own report, without a figure."""
        self.rows.append(row_of(tidy))
        report(tidy, self._folder / tidy.facts["name"], drawn=False)
        entry = (self.rows[-1].flagged, -len(self.rows), tidy)
        heapq.heappush(self._worst, entry)
        if len(self._worst) > DRAWN:
            heapq.heappop(self._worst)

    def write(self, left_out: Mapping[str, str], remarks: Mapping[str, Sequence[str]]) -> None:
        """Write ``index.html``, ``data_report.md`` and ``data_report.json``, and the figures of the worst series."""
        rows = sorted(self.rows, key=lambda row: (-row.flagged, row.name))
        for _, _, tidy in self._worst:
            report(tidy, self._folder / tidy.facts["name"])
        files.write_text(self._folder / "index.html", page(rows, left_out, remarks))
        files.write_text(self._folder / "data_report.md", words(rows, left_out, remarks))
        entries = {"series": [_entry(row) for row in rows], "left_out": dict(left_out), "remarks": dict(remarks)}
        files.write_json(self._folder / "data_report.json", entries)


def row_of(tidy: Tidy) -> Row:
    """What the overview says of a series."""
    facts, target = tidy.facts, tidy.facts["target"]
    flags = tidy.frame[flag_column(target)].to_numpy()
    times, zone = tidy.frame[TIME], facts["time_zone"]
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
        times.iloc[0].tz_convert(zone).tz_localize(None),
        times.iloc[-1].tz_convert(zone).tz_localize(None),
        float(np.mean(load[good])) if good.any() else math.nan,
        facts["flagged"]["whole"],
        {flag.label: facts["flags"][target][flag.name.lower()] / facts["rows"] for flag in SHOWN},
        means.astype(np.float32),
        (1 - sound / hours).astype(np.float32),
    )


def page(rows: Sequence[Row], left_out: Mapping[str, str], remarks: Mapping[str, Sequence[str]]) -> str:
    """The overview, as a page that needs no other file; ``rows`` in their order."""
    first, last = min(row.first for row in rows).normalize(), max(row.last for row in rows).normalize()
    step = max(1, math.ceil(((last - first).days + 1) / WIDE))  # days
    facts, kinds = list(rows[0].about), _kinds(rows)
    sides = ["l", *("l" if any(isinstance(row.about[fact], str) for row in rows) else "" for fact in facts)]
    head = [_cell(text, "th", side) for text, side in zip_longest(_heads(facts, kinds), sides, fillvalue="")]
    head.append(f'<th class="s">{_years(first, last, step)}')
    body = []
    for row in rows:
        link = f'<a href="{quote(row.name)}/data_report.md">{html.escape(row.name)}</a>'
        cells = [_cell(text, "td", side) for text, side in zip_longest(_cells(row), sides[1:], fillvalue="")]
        cells += [_cell(_percent(share), "td", "" if share else "z") for share in _shares(row, kinds)]
        body.append(f'<tr><td class="l">{link}{"".join(cells)}<td class="s">{drawing(row, first, step)}')
    means = "days" if step == 1 else f"{step} days"
    about = [
        *_introduction(rows),
        f"Drawn are means of {means}, each series from 0 to its own highest; below, in red, where over {MARKED:.0%} "
        "of the hours are flagged. A name leads to the series' own report.",
    ]
    notes = [
        _box("out", _left_out_line(rows, left_out), [*left_out.items()]),
        _box("odd", ODD, [(name, remark) for name, of_name in remarks.items() for remark in of_name]),
    ]
    text = "".join(f"<p>{html.escape(line)}</p>\n" for line in about)
    return (
        '<!DOCTYPE html>\n<html lang="en-GB"><head><meta charset="utf-8">\n'
        f"<title>{_title(rows)}</title>\n<style>{CSS}</style></head>\n<body>\n<h1>{_title(rows)}</h1>\n"
        f"{''.join(notes)}{text}<table>\n<thead><tr>{''.join(head)}</tr></thead>\n<tbody>\n"
        + "\n".join(body)
        + "\n</tbody></table>\n</body></html>\n"
    )


def words(rows: Sequence[Row], left_out: Mapping[str, str], remarks: Mapping[str, Sequence[str]]) -> str:
    """The same without the drawings, Markdown."""
    facts, kinds = list(rows[0].about), _kinds(rows)
    lines = [f"# {_title(rows)}", ""]
    if left_out:
        lines += [_left_out_line(rows, left_out), "", *(f"- **{n}**: {reason}" for n, reason in left_out.items()), ""]
    if remarks:
        lines += [ODD, "", *(f"- **{n}**: {remark}" for n, of_name in remarks.items() for remark in of_name), ""]
    lines += [*_introduction(rows), "The few worst have a figure beside their own report.", ""]
    head = _heads(facts, kinds)
    lines += [f"| {' | '.join(head)} |", f"|{' --- |' * (1 + len(facts))}{' ---: |' * (len(head) - 1 - len(facts))}"]
    for row in rows:
        cells = [f"[{row.name}]({quote(row.name)}/data_report.md)", *_cells(row), *map(_percent, _shares(row, kinds))]
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def drawing(row: Row, first: pd.Timestamp, step: int) -> str:
    """The series as SVG: means of ``step`` days from ``first`` on, from 0 to its own highest, flagged ones marked."""
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


def _introduction(rows: Sequence[Row]) -> list[str]:
    simulated = ["These series are SIMULATED: no building was measured."] if rows[0].simulated else []
    return [
        *simulated,
        "One row a series, the largest share of flagged hours of the target first. A flagged hour is missing or "
        "faulty: it is repaired from earlier hours alone and is no truth when a forecast is scored. Days are those of "
        "the building's clock; the mean is over the hours without a flag.",
    ]


def _left_out_line(rows: Sequence[Row], left_out: Mapping[str, str]) -> str:
    return f"{len(left_out)} of {len(rows) + len(left_out)} series could not be used and are left out:"


def _box(kind: str, title: str, items: Sequence[tuple[str, str]]) -> str:
    listed = "".join(f"<li><b>{html.escape(name)}</b>: {html.escape(text)}</li>" for name, text in items)
    return f'<div class="{kind}"><p>{title}</p><ul>{listed}</ul></div>\n' if items else ""


def _years(first: pd.Timestamp, last: pd.Timestamp, step: int) -> str:
    """The years above the drawings, each where its January is."""
    starts = [max(first, pd.Timestamp(year, 1, 1)) for year in range(first.year, last.year + 1)]
    return '<div class="y">' + "".join(
        f'<span style="left:{(start - first).days // step}px">{start.year}</span>' for start in starts
        if start == first or ((start - first).days // step > 40 and (last - start).days // step > 40)
    ) + "</div>"  # fmt: skip


def _cell(text: str, tag: str = "td", kind: str = "") -> str:
    return f"<{tag}{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}>{html.escape(text)}"


def _kinds(rows: Sequence[Row]) -> list[str]:
    """The kinds of flags that some series has."""
    return [kind for kind in rows[0].flags if any(row.flags[kind] for row in rows)]


def _heads(facts: Sequence[str], kinds: Sequence[str]) -> list[str]:
    named = [fact.replace("_", " ") for fact in facts]
    return ["name", *named, "hours", "first day", "last day", "mean, kW", "flagged", *kinds]


def _cells(row: Row) -> list[str]:
    mean = "" if math.isnan(row.mean) else f"{row.mean:,.0f}" if row.mean >= 100 else f"{row.mean:#.3g}"
    facts = [
        "" if fact is None else f"{fact:,.10g}" if isinstance(fact, float) else fact for fact in row.about.values()
    ]
    return [*facts, f"{row.hours:,}", f"{row.first:%Y-%m-%d}", f"{row.last:%Y-%m-%d}", mean]


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
