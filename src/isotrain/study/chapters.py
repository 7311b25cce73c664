"""The chapters of the study: of each a question, a table, a verdict, a command, and its rows in the first figure."""

from collections.abc import Sequence
from pathlib import Path

from isotrain.report.tables import table
from isotrain.study.chapter import Chapter, Json, bracketed, in_times
from isotrain.study.race_chapters import building, laboratory, networks
from isotrain.study.recorded_chapters import graphics, recorded


def chapters_of(study: Json, root: Path) -> list[Chapter]:
    """All chapters, in their order; of a file that is missing the chapter says which, and what makes it."""
    made = [building(study), laboratory(study), *recorded(root), networks(study), graphics(root)]
    made.append(failures(made))
    return sorted(made, key=lambda chapter: chapter.letter)


def failures(chapters: Sequence[Chapter]) -> Chapter:
    """(j): what does not work, from the other chapters."""
    lines = []
    for chapter in chapters:
        for one in chapter.effects:
            if one.pays == "no":
                ratio = in_times(one.times) if one.times else "–"
                error = bracketed(one.error) if one.error else "–"
                lines.append([one.label, f"({chapter.letter})", f"`{one.rival}`", ratio, error])
    by = {chapter.letter: chapter for chapter in chapters}
    if "count" in by["e"].facts:
        facts = by["e"].facts
        lines.append(
            [
                "criteria for units and weights",
                "(e)",
                "random zones",
                "–",
                f"{facts['count'] - facts['wins']} of {facts['count']} not better",
            ]
        )
    verdict = f"In {len(lines)} of the settings above isolating costs time or error beside its rival." if lines else (
        "Nothing was worse than its rival by an interval."
    )  # fmt: skip
    question = "Where does isolating not pay?"
    tables = (
        {"Beside the rival": table(["what", "chapter", "rival", "as fast as the rival", "error ÷ rival"], lines)}
        if lines
        else {}
    )
    return Chapter("j", "What does not work", question, verdict, "isotrain study", "", tables)
