"""The page of a search, its tables, and the same as JSON."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isotrain.compare.comparison import best_validation
from isotrain.compare.results import Run, check_comparable
from isotrain.compare.searched import Point, Searched
from isotrain.compare.statistics import Interval
from isotrain.errors import InputError
from isotrain.files import write_json, write_text
from isotrain.report.page import html_page
from isotrain.report.search.figures import draw_all
from isotrain.report.search.words import (
    QUESTION,
    Again,
    Duel,
    Rules,
    again,
    answer,
    cursed,
    duels,
    finite,
    isolates,
    notes,
)
from isotrain.report.tables import cell, error, seconds, table, three_digits
from isotrain.report.words import headed, with_ahead


def front_table(found: Searched) -> str:
    """The front as the search measured it, the fastest point first, below the settings that all its points share."""
    shared = _shared(found.front)
    head = ["trial", "val. MAE, kW", "training, s", "known as", "settings"]
    rows = [
        [str(p.number), f"{p.val_mae:.3f}", three_digits(p.seconds), p.known or "–", _settings(p, shared)]
        for p in found.front
    ]
    common = ", ".join(f"`{path}` {cell(str(value))}" for path, value in shared.items())
    above = [f"Shared by all of them: {common}."] if shared else []
    return "\n\n".join([*above, table(head, rows, left=(0, 4))])


def commands(found: Searched) -> str:
    """The command that trains each point of the front again."""
    return "\n\n".join(f"Trial {point.number}:\n\n    {point.command}" for point in found.front)


def again_table(found: Searched, rows: Sequence[Again], rules: Rules) -> str:
    """The values that the search measured beside those on fresh seeds."""
    head = ["trial", "isolated, %", "val. MAE searched, kW", "on fresh seeds", "test MAE, kW", "seconds searched"]
    head += ["alone, fresh seeds", "seeds"]
    lines = []
    for row in rows:
        share = max(100 * run.isolated_fraction for run in row.runs)
        seeds = f"{len(row.runs)}" + (f", {row.diverged} diverged" if row.diverged else "")
        cells = [str(row.point.number), f"{share:.0f}", f"{row.point.val_mae:.3f}", _three(row.val_mae)]
        lines.append([*cells, _three(row.test_mae), three_digits(row.point.seconds), seconds(row.seconds), seeds])
    for name in found.against:
        runs = [run for run in found.runs_of(name) if not run.diverged]
        if runs:
            lines.append(_beside(name, runs, rules))
    return table(head, lines)


def duel_table(fought: Sequence[Duel]) -> str:
    """Every point against every rival, on common seeds."""
    head = ["trial", "against", "its seconds / the rival's", "its test MAE less the rival's, kW", "verdict"]
    said = {"beats it": "**beats it**"}
    rows = [
        [str(d.point.number), f"`{d.rival}`", error(d.ratio), _difference(d.difference), said.get(d.verdict, d.verdict)]
        for d in fought
    ]
    return table(head, rows, left=(0, 1, 4))


def importance_table(found: Searched) -> str:
    """Importances in percent beside those that chance reaches."""
    head = ["parameter", *(f"for {one.objective}, % (chance)" for one in found.importances)]
    first = found.importances[0]
    rows = [
        [
            f"`{cell(name)}`",
            *(f"{100 * one.share[name]:.0f} ({100 * one.chance[name]:.0f})" for one in found.importances),
        ]
        for name in sorted(first.share, key=lambda name: -first.share[name])
    ]
    return table(head, rows)


def contract(found: Searched, rows: Sequence[Again], fought: Sequence[Duel], notes: Sequence[str]) -> dict[str, Any]:
    """The content of ``search.json``."""
    return {
        "study": found.study,
        "data": dict(found.data),
        "objectives": list(found.objectives),
        "trials": {
            "finished": len(found.points),
            "pruned": found.pruned,
            "failed": dict(found.failed),
            "repeated": found.repeated,
        },
        "reference": list(found.reference) if found.reference else None,
        "hypervolume": list(found.hypervolumes),
        "front": [_entry(point) for point in found.front],
        "points": [_entry(point) for point in found.points],
        "importance": [
            {"objective": one.objective, "trials": one.trials, "share": dict(one.share), "chance": dict(one.chance)}
            for one in found.importances
        ],
        "confirmed": [row.as_json() for row in rows],
        "against": {name: [_fit(run) for run in found.runs_of(name)] for name in found.against},
        "duels": [duel.as_json() for duel in fought],
        "notes": list(notes),
    }


def _entry(point: Point) -> dict[str, Any]:
    measured = {"val_mae": finite(point.val_mae), "seconds": finite(point.seconds)}
    named = {"trial": point.number, "known": point.known, "early": point.early}
    return {**named, **measured, "settings": dict(point.settings), "command": point.command}


def _fit(run: Run) -> dict[str, Any]:
    names = ("seed", "test_mae", "train_seconds", "isolated_fraction")
    values = {name: getattr(run, name) for name in names} | {"val_mae": best_validation(run.history)}
    return {name: finite(value) for name, value in values.items()} | {"diverged": run.diverged}


def _beside(name: str, runs: Sequence[Run], rules: Rules) -> list[str]:
    figures = {key: [getattr(run, key) for run in runs] for key in ("test_mae", "train_seconds")}
    figures["val_mae"] = [best_validation(run.history) for run in runs]
    middle = {key: rules.interval(values) for key, values in figures.items()}
    share = f"{max(100 * run.isolated_fraction for run in runs):.0f}" if isolates(runs) else "0"
    cells = [f"`{name}`", share, "–", _three(middle["val_mae"]), _three(middle["test_mae"]), "–"]
    return [*cells, seconds(middle["train_seconds"]), str(len(runs))]


def _shared(points: Sequence[Point]) -> dict[str, Any]:
    """Dotted path -> value of the settings that are the same in all ``points``; empty for a single point."""
    if len(points) < 2:
        return {}
    first = points[0].settings
    return {path: value for path, value in first.items() if all(p.settings.get(path) == value for p in points)}


def _settings(point: Point, shared: Mapping[str, Any]) -> str:
    """The settings that ``point`` does not share, without the names of their sections, which the command has."""
    own = {path.rpartition(".")[2]: value for path, value in point.settings.items() if path not in shared}
    return ", ".join(f"{name} {cell(_short(value))}" for name, value in own.items())


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _three(value: Interval) -> str:
    return f"{value.median:.3f} ({value.low:.3f}–{value.high:.3f})"


def _difference(value: Interval | None) -> str:
    return "–" if value is None else f"{value.median:+.3f} ({value.low:+.3f} to {value.high:+.3f})"


CAPTIONS = {
    "importance": "Importance of each parameter for each objective, beside what chance reaches",
    "parallel": "Every trial across its parameters to its results",
    "hypervolume": "How the front grew with the trials",
}


def write_search_report(found: Searched, folder: str | Path, rules: Rules) -> Path:
    """Write search.json, .md, .html and search/ (figures) into ``folder``; the path of the HTML page.

    Raises :class:`~isotrain.errors.InputError` if no trial has finished, or if a forecast cannot be read.
    The JSON comes last: where it lies, everything else does too.
    """
    folder = Path(folder)
    if not found.front:
        raise InputError(f"study {found.study} has no finished trial to report: run `make search`, or wait for a trial")
    rows, fought = again(found, rules), duels(found, rules)
    drawn = draw_all(found, rows, folder / "search")
    write_text(folder / "search.md", _markdown(found, rows, fought, rules, drawn))
    write_text(folder / "search.html", html_page((folder / "search.md").read_text(encoding="utf-8"), folder))
    write_json(folder / "search.json", contract(found, rows, fought, notes(found, rules)))
    return folder / "search.html"


def _markdown(
    found: Searched, rows: Sequence[Again], fought: Sequence[Duel], rules: Rules, drawn: Sequence[str]
) -> str:
    title = "Search: training time against forecast accuracy"
    blocks = [headed(found.data, title)]
    blocks += [f"**The question.** {QUESTION}", f"> **The answer.** {answer(found, rows, fought)}"]
    if found.confirmed and (warnings := check_comparable(found.confirmed)):
        blocks.append(f"> **Before believing it.** {' '.join(warnings)}")
    blocks.append("![Training time against validation error of every trial](search/front.png)")
    blocks.append(f"Data: {cell(str(found.data['source']))}, {found.data['rows']:,} hours.")
    blocks += _fresh(found, rows, fought, rules)
    blocks += _front(found)
    blocks += ["## The search itself"]
    blocks += [f"![{caption}](search/{name}.png)" for name, caption in CAPTIONS.items() if name in drawn]
    if found.importances:
        blocks.append(importance_table(found))
    blocks += ["## How it was searched and measured", "\n".join(f"- {line}" for line in notes(found, rules))]
    return "\n\n".join(with_ahead(blocks, found.data)) + "\n"


def _fresh(found: Searched, rows: Sequence[Again], fought: Sequence[Duel], rules: Rules) -> list[str]:
    """The section on the points that were trained again, or the sentence that there are none."""
    if not rows:
        return ["## On fresh seeds", "No point was trained again yet. The command `isotrain search confirm` does it."]
    blocks = ["## On fresh seeds", cursed(rows), again_table(found, rows, rules)]
    if fought:
        blocks += ["### Against each method, on the same seeds", duel_table(fought)]
    return [*blocks, "![What the search measured against what fresh seeds gave](search/confirmed.png)"]


def _front(found: Searched) -> list[str]:
    reading = (
        "The search measured each point once, with a seed of its own, so the order along the front may be chance. "
        "“Known as” names a method of params.yaml that was tried first."
    )
    again = (
        "Run the command in the project's folder. It trains the method `isolated` and leaves params.yaml changed: "
        "restore the file (`git checkout params.yaml`) before the study goes on."
    )
    table = front_table(found)
    return ["## The front", reading, table, "### To train a point again", again, commands(found)]
