"""The report of a study: one page, its figures, and the same as JSON."""

import base64
import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import markdown

from isotrain.compare.accuracy import AVERAGE, Best, Coverage, Entry, categories, coverages, entries_of, telling
from isotrain.compare.comparison import Comparison, Settings
from isotrain.compare.results import Baseline, Run, check_comparable
from isotrain.compare.statistics import Interval
from isotrain.data.locate import named
from isotrain.data.windows import Windows, flagged_line
from isotrain.errors import InputError
from isotrain.files import write_json, write_text
from isotrain.report.drawing import save
from isotrain.report.figures import draw_all, fans, save_figure
from isotrain.report.isolation import draw_run
from isotrain.report.tables import (
    accuracy_table,
    category_table,
    cell,
    coverage_table,
    difference_table,
    differences,
    entries,
    kilowatts,
    lead_table,
    method_table,
    month_table,
    run_entry,
    series_table,
)
from isotrain.report.words import (
    QUESTION,
    Verdict,
    answer,
    budget_lines,
    headed,
    masked_lines,
    notes,
    verdicts,
    weaknesses,
    with_ahead,
)

CSS = """
:root { color-scheme: light; }
body { margin: 0; background: #f4f5f6; color: #1d2125; font: 16px/1.55 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 1.5rem clamp(1rem, 4vw, 3rem) 4rem; background: #fff; }
h1 { font-size: clamp(1.4rem, 4vw, 2rem); line-height: 1.2; margin: .6em 0; }
h2 { font-size: 1.2rem; margin: 2.2em 0 .6em; padding-bottom: .25em; border-bottom: 1px solid #dde1e4; }
h3 { font-size: 1rem; margin: 1.6em 0 .5em; }
blockquote { margin: 1em 0; padding: .1em 1.1em; border-left: 4px solid #0072b2; background: #f1f6fa; }
img { display: block; max-width: 100%; height: auto; margin: 1.2em auto; }
.table { overflow-x: auto; margin: 1em 0; }
table { border-collapse: collapse; font-size: .77rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35em .45em; border-bottom: 1px solid #e6e9eb; white-space: nowrap; }
th { border-bottom: 2px solid #b9c0c5; vertical-align: bottom; white-space: normal; }
tbody tr:hover { background: #f7f9fa; }
code { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: .92em; background: #eef1f3;
       padding: .05em .3em; border-radius: 3px; }
pre { overflow-x: auto; background: #eef1f3; padding: .6em .8em; border-radius: 3px; font-size: .85rem; }
pre code { background: none; padding: 0; }
li { margin: .35em 0; }
p, li { max-width: 60rem; }
@media print {
  body { background: #fff; font-size: 10pt; } main { max-width: none; padding: 0; }
  h2, h3 { break-after: avoid; } img, table { break-inside: avoid; } .table { overflow: visible; }
  pre { white-space: pre-wrap; } table { font-size: 6.5pt; } th, td { padding: .25em .35em; white-space: normal; }
}
"""


MOST = 20  # series in the table of tradeoff.md


def html_page(text: str, folder: Path) -> str:
    """``text`` (Markdown, its first line the title) as a whole page, its images below ``folder`` within it.

    A drawing (SVG) is taken where one lies beside the picture (PNG) that ``text`` names.
    """
    title = text.splitlines()[0].lstrip("# ")
    body = markdown.markdown(text, extensions=["tables"])
    body = body.replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")
    body = re.sub(r'src="([^":]+)\.png"', lambda match: f'src="{_embedded(folder / match[1])}"', body)
    return (
        '<!DOCTYPE html>\n<html lang="en-GB">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _embedded(image: Path) -> str:
    drawing = image.with_name(f"{image.name}.svg")
    kind, path = ("svg+xml", drawing) if drawing.exists() else ("png", image.with_name(f"{image.name}.png"))
    return f"data:image/{kind};base64," + base64.b64encode(path.read_bytes()).decode("ascii")


CAPTIONS = {
    "learning_curves": "Validation error against training time, one line a seed",
    "isolated_share": "Share of the weights, or of the time steps, isolated as training goes on",
    "forecasts": "Forecasts of the tuned reference and of the best isolated method beside the truth",
    "error_by_lead": "Test error at each lead",
    "error_by_month": "Test error in each month",
    "error_by_series": "Test error of each series, in its own standard deviation",
    "fans": "Forecasts with intervals of three coverages beside the truth",
    "phases": "Where the training seconds went",
}


def write_report(
    runs: Sequence[Run],
    baselines: Sequence[Baseline],
    folder: str | Path,
    settings: Settings,
    windows: Windows | None = None,
    published: Best | None = None,
) -> Path:
    """Write tradeoff.json, .md and .html, metrics.json and figures/ into ``folder``; the path of the HTML page.

    With the ``windows`` that the runs forecast it also says how well their intervals hold. ``published``: what
    `isotrain forecast` uses, named in the first lines.
    Raises :class:`~isotrain.errors.InputError` if there is no run, if the runs' data or hardware differ, or if a
    forecast cannot be read. The JSON comes last: where it lies, everything else does too.
    """
    folder = Path(folder)
    if not runs:
        raise InputError("there is no fit to report: run `dvc repro train` first")
    check_comparable(runs)
    comparison = Comparison(runs, settings)
    found = differences(comparison)
    accuracy = entries_of(comparison, baselines, published, windows)
    shown = telling(accuracy, settings.against)
    drawn = draw_all(comparison, accuracy, folder / "figures", windows)
    covered = coverages(comparison, baselines, windows, settings.coverage, published) if windows else []
    if windows and (figure := fans(comparison, windows)):
        save_figure(figure, folder / "figures", "fans")
        drawn.append("fans")
    judged = verdicts(comparison, found)
    isolation = _draw_isolation(comparison, folder)
    first = [] if published is None else [_published(published, comparison, baselines)]
    if windows:
        first.append(f"**The hours.** Missing or faulty, and so never scored: {flagged_line(windows.flagged())}.")
    for name, most in (("tradeoff.md", MOST), ("tradeoff.html", None)):
        series = _series(shown, accuracy, covered, windows, most) if windows and shown else []
        text = _markdown(comparison, accuracy, covered, found, judged, drawn, isolation, first, series)
        write_text(folder / name, text if most else html_page(text, folder))
    write_json(folder / "metrics.json", _metrics(comparison, published))
    contract = _contract(comparison, baselines, accuracy, covered, judged)
    write_json(folder / "tradeoff.json", {**contract, "published": _figures(published)})
    return folder / "tradeoff.html"


def _draw_isolation(comparison: Comparison, folder: Path) -> list[str]:
    """``figures/isolation-<method>.png`` of the first seed of each method under test; the methods drawn."""
    drawn = []
    for method in comparison.isolated():
        if figure := draw_run(method.runs[0].folder):
            save(figure, folder / "figures" / f"isolation-{method.name}.png")
            drawn.append(method.name)
    return drawn


def _contract(
    comparison: Comparison,
    baselines: Sequence[Baseline],
    accuracy: Sequence[Entry],
    covered: Sequence[Coverage],
    judged: Sequence[Verdict],
) -> dict[str, Any]:
    first = comparison.runs[0]
    unit = first.data.get("unit", "kW")
    return {
        "answer": answer(comparison, judged),
        "verdicts": [{"method": v.method.name, "pays": v.pays, "text": v.text} for v in judged],
        "warnings": [{"mark": caution.mark, "text": caution.text} for caution in weaknesses(comparison)],
        "data": {
            **{key: first.data[key] for key in ("simulated", "rows", "sha256")},
            "source": _source(first),
            "ahead": first.data.get("ahead", ""),
            "series": first.data.get("series", 1),
        },
        "hardware": dict(first.hardware),
        "target": {"metric": "val_mae", "value": comparison.targets.get("streamed"), "unit": unit},
        "methods": entries(comparison),
        "baselines": [{"name": b.name, "test_mae": b.test_mae, "test_rmse": b.test_rmse} for b in baselines],
        "accuracy": {"against": _against(accuracy, comparison), "forecasts": [entry.as_json() for entry in accuracy]},
        "intervals": {"nominal": comparison.settings.coverage, "forecasts": [row.as_json() for row in covered]},
        "targets_by_regime": comparison.targets,
        "runs": [run_entry(method, run) for method in comparison.methods for run in method.runs],
        "notes": notes(comparison),
    }


def _metrics(comparison: Comparison, published: Best | None) -> dict[str, Any]:
    """Medians for `dvc metrics`, what is published, and which series: so that `dvc metrics diff` says where two are not
    comparable."""
    data, names = comparison.runs[0].data, ("val_mae", "test_mae", "train_seconds", "seconds_to_target")
    series = {"source": _source(comparison.runs[0]), "hours": data["rows"], "sha256": str(data["sha256"])[:12]}
    series["ahead"] = data.get("ahead", "")
    methods = {entry["name"]: {name: entry[name]["median"] for name in names} for entry in entries(comparison)}
    return {"series": series, **methods} | ({} if published is None else {"published": _figures(published)})


def _figures(published: Best | None) -> dict[str, Any] | None:
    if published is None:
        return None
    seed = published.network.seed if published.network else None
    return {"name": published.name, "seed": seed, "val_mae": published.val_mae, "test_mae": published.mae}


def _published(best: Best, comparison: Comparison, baselines: Sequence[Baseline]) -> str:
    """What `isotrain forecast` uses, beside the best of each kind."""
    kinds = {
        "network": {method.name for method in comparison.methods},
        "fitted baseline": {baseline.name for baseline in baselines},
        "average": {name for name in best.candidates if name.startswith(AVERAGE)},
    }
    others = []
    for kind, names in kinds.items():
        ranked = [name for name in best.candidates if name in names]
        if ranked and best.name not in names:
            others.append(f"{kilowatts(best.candidates[ranked[0]])} kW of the best {kind} (`{ranked[0]}`)")
    against = f", against {' and '.join(others)}" if others else ""
    return (
        f"> **What is published.** `isotrain forecast` uses **{best.description}**: of all {len(best.candidates)} "
        f"candidates it has the least validation MAE, {kilowatts(best.val_mae)} kW{against}. Its test MAE, which the "
        f"choice did not read, is {kilowatts(best.mae)} kW."
    )


def _markdown(
    comparison: Comparison,
    accuracy: Sequence[Entry],
    covered: Sequence[Coverage],
    found: dict[str, Interval],
    judged: Sequence[Verdict],
    drawn: Sequence[str],
    isolation: Sequence[str],
    first: Sequence[str],
    series: Sequence[str],
) -> str:
    data = comparison.runs[0].data
    title = "Isolation: training time against forecast accuracy"
    blocks = [headed(data, title)]
    blocks += [f"**The question.** {QUESTION}", f"> **The answer.** {answer(comparison, judged)}"]
    blocks += first
    if weak := weaknesses(comparison):
        blocks.append(f"> **Before believing it.** {' '.join(caution.text for caution in weak)}")
    blocks += ["![Training time against test error of every method](figures/tradeoff.png)", "## The figures"]
    blocks.append(f"Data: {cell(_source(comparison.runs[0]))}, {data['rows']:,} hours. {_reading(comparison)}")
    for regime, target in comparison.targets.items():
        goal = "no target" if target is None else f"target: validation MAE {target:.3f} kW"
        blocks += [f"### {regime.capitalize()} training ({goal})", method_table(comparison, regime)]
    blocks += _accuracy(comparison, accuracy)
    blocks += series
    blocks += _intervals(comparison, covered) if covered else []
    blocks += ["### What each method is", _bullets(_legend(comparison))]
    blocks += ["## Verdicts", _bullets([v.text for v in judged] + masked_lines(comparison))]
    if budgets := budget_lines(comparison):
        blocks += ["### What limited the controls", _bullets(budgets)]
    if found:
        blocks += ["### Against the tuned reference, week by week", difference_table(comparison, found)]
    if isolation:
        blocks += ["## What was isolated when", "The first seed of each method under test."]
        blocks += [f"![What {name} isolated when](figures/isolation-{name}.png)" for name in isolation]
    blocks.append("## The other figures")
    blocks += [f"![{caption}](figures/{name}.png)" for name, caption in CAPTIONS.items() if name in drawn]
    blocks += ["## How it was measured", _bullets(notes(comparison))]
    return "\n\n".join(with_ahead(blocks, data)) + "\n"


def _accuracy(comparison: Comparison, accuracy: Sequence[Entry]) -> list[str]:
    """Every forecast on the same origins, then by lead and by month."""
    against = _against(accuracy, comparison)
    percent = f"{100 * comparison.settings.confidence:g} %"
    reading = (
        "Training seconds of a baseline are those of its fit, with whatever it chooses on validation; of an ensemble "
        "those of all its seeds. Forecasts refitted on the validation part have no validation error (–)."
    )
    if against:
        pairs = "The last two columns pair" if any(e.relative for e in accuracy) else "The last column pairs"
        reading += (
            f" {pairs} each forecast with `{against}` on the same hours ({percent} week-block bootstrap; "
            "bold: the interval excludes 0)."
        )
    return [
        "## Accuracy",
        reading,
        accuracy_table(accuracy, against),
        "### Error by lead",
        lead_table(accuracy),
        "### Error by month (UTC)",
        month_table(accuracy),
    ]


def _series(
    shown: Sequence[Entry], accuracy: Sequence[Entry], covered: Sequence[Coverage], windows: Windows, most: int | None
) -> list[str]:
    """Errors by category, and of each series; of ``most`` series, or of all."""
    blocks = []
    if categories(windows):
        about = "Means over the series of each category, each in its own standard deviation; in brackets how many."
        blocks += ["### Error by category", about, category_table(accuracy, windows)]
    count = len(shown[0].by_series)
    which = f"The {most} worst of {count} series" if most and most < count else f"All {count} series, the worst first"
    reading = f"{which}, by the relative error of {cell(shown[0].name)}."
    reading += " All stand in tradeoff.html and tradeoff.json." if most and most < count else ""
    if without := [one["name"] for one in windows.series if one["name"] not in shown[0].by_series]:
        reading += f" No hour of the test part can be scored of {cell(named(without))}."
    if any(row.by_series for row in covered):
        reading += (
            " The last column: the share of its test hours inside the interval that its own validation errors give."
        )
    return [*blocks, "### Error by series", reading, series_table(shown, covered, windows, most)]


def _intervals(comparison: Comparison, covered: Sequence[Coverage]) -> list[str]:
    reading = (
        f"Intervals of nominal coverage {100 * comparison.settings.coverage:g} %, from the validation errors by lead "
        "and day type (split conformal). On validation every other week is judged by the limits of the weeks between; "
        "the test part comes later and may have drifted. Methods: the first seed."
    )
    if any(row.by_series for row in covered):
        reading += " Each series by its own errors; in brackets the least and the largest share among the series."
    return ["### Forecast intervals", reading, coverage_table(covered)]


def _against(accuracy: Sequence[Entry], comparison: Comparison) -> str | None:
    """The baseline that all are compared with, if it was scored."""
    wanted = comparison.settings.against
    return wanted if any(e.kind == "baseline" and e.name == wanted for e in accuracy) else None


def _reading(comparison: Comparison) -> str:
    percent = f"{100 * comparison.settings.confidence:g} %"
    return (
        f"Medians over the seeds, in brackets the {percent} interval (the range, up to three seeds). "
        "“× stock” and “× tuned”: how many times sooner the target is reached than by that reference."
    )


def _legend(comparison: Comparison) -> list[str]:
    about = comparison.settings.about
    return [
        f"`{m.name}` ({m.role}, {m.regime}): {cell(about.get(m.name, 'not described'))}" for m in comparison.methods
    ]


def _source(run: Run) -> str:
    """The name of the series, without the folders of the machine that it lay in."""
    return Path(run.data["source"]).name


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) if lines else "No such method was run."
