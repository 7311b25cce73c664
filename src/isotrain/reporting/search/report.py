"""The search as a page, a contract and a set of figures."""

from collections.abc import Sequence
from pathlib import Path

from isotrain.errors import InputError
from isotrain.files import write_json, write_text
from isotrain.reporting.page import html_page
from isotrain.reporting.search.figures import draw_all
from isotrain.reporting.search.tables import (
    again_table,
    commands,
    contract,
    duel_table,
    front_table,
    importance_table,
)
from isotrain.reporting.search.verdicts import Again, Duel, Rules, again, duels
from isotrain.reporting.search.words import QUESTION, answer, cursed, notes
from isotrain.reporting.tables import cell
from isotrain.tradeoff.results import check_comparable
from isotrain.tradeoff.searched import Searched

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
        raise InputError(f"study {found.study} has no finished trial to report: run `make search`, or wait for one")
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
    blocks = [f"# SIMULATED series. {title}" if found.data["simulated"] else f"# {title}"]
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
    return "\n\n".join(blocks) + "\n"


def _fresh(found: Searched, rows: Sequence[Again], fought: Sequence[Duel], rules: Rules) -> list[str]:
    """The points run again, or that there are none."""
    if not rows:
        return ["## On fresh seeds", "No point was run again yet: `isotrain search confirm` does."]
    blocks = ["## On fresh seeds", cursed(rows), again_table(found, rows, rules)]
    if fought:
        blocks += ["### Against each method, on the same seeds", duel_table(fought)]
    return [*blocks, "![What the search measured against what fresh seeds gave](search/confirmed.png)"]


def _front(found: Searched) -> list[str]:
    reading = (
        "As the search measured them, once each and with a seed of their own: the order along the front may be chance. "
        "“Known as”: a method of params.yaml that was tried first."
    )
    again = (
        "In the project's folder. The fit is then the method `isolated`, and params.yaml is left changed: restore it "
        "(`git checkout params.yaml`) before the study goes on."
    )
    table = front_table(found)
    return ["## The front", reading, table, "### To train a point again", again, commands(found)]
