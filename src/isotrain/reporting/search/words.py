"""What the figures of a search say, in sentences computed from them."""

from collections.abc import Sequence

from isotrain.reporting.search.verdicts import Again, Duel, Rules, change_of_seconds, curse, isolates, rise_in_error
from isotrain.reporting.tables import cell
from isotrain.reporting.verdicts import joined
from isotrain.tradeoff.searched import Searched

QUESTION = "Which settings of isolation give the best forecasts for the training time that they cost?"


def answer(found: Searched, rows: Sequence[Again], fought: Sequence[Duel]) -> str:
    """The top of the page: nothing is called better before fresh seeds have said so."""
    if not found.front:
        return "No trial has finished yet, so there is nothing to say."
    if not fought:
        return (
            f"Open. The front has {len(found.front)} points, but none was run again on fresh seeds beside another "
            f"method, so nothing here is called better than anything else.{_simulated(found)}"
        )
    said = [_against(rival, [duel for duel in fought if duel.rival == rival]) for rival in found.against]
    compared = f"Of {len(rows)} points of the front run again on fresh seeds, {'; '.join(filter(None, said))}."
    return f"{compared} {_what_isolates(rows, fought)}{_simulated(found)}"


def cursed(rows: Sequence[Again]) -> str:
    """How far the search's own figures of the chosen points can be believed."""
    rise, change = curse(rows, rise_in_error), curse(rows, change_of_seconds)
    worse = sum(rise_in_error(row) > 0 for row in rows)
    return (
        "The best of many noisy trials tends to look better than it is. "
        f"On fresh seeds {worse} of {len(rows)} points have a larger validation MAE than the search measured "
        f"({rise:+.3f} kW, median over the points); their seconds, each "
        f"fit alone on the machine, are {change:.2f} times those that the search estimated "
        f"(from {min(map(change_of_seconds, rows)):.2f} to {max(map(change_of_seconds, rows)):.2f})."
    )


def notes(found: Searched, rules: Rules) -> list[str]:
    """How it was searched and measured, and what weakens it."""
    failed = ", ".join(f"{number} {cell(why)}" for why, number in sorted(found.failed.items()))
    early = sum(point.early for point in found.points)
    lines = [
        f"Study {cell(found.study)}, sampler {found.sampler}, begun {found.began or 'at an unknown time'}; objectives: "
        f"{', '.join(found.objectives)}, minimised.",
        f"Trials: {len(found.points)} finished"
        + (f", {early} of them stopped early" if early else "")
        + (f"; {found.pruned} pruned" if found.pruned else "")
        + f"; {sum(found.failed.values())} failed" + (f" ({failed})" if failed else "")
        + f"; {found.repeated} were repeats of trials whose worker had vanished or was told to stop.",
        "Seconds of a trial are estimated from step costs measured in quiet moments (docs/search.md); seconds on fresh "
        "seeds are measured over whole fits, each alone on the machine, validation and logging excluded.",
        "The validation MAE is the best of a training, the test MAE that of its end.",
    ]  # fmt: skip
    if len(found.hosts) > 1:
        lines.append(
            f"Trials ran on {len(found.hosts)} machines ({', '.join(map(cell, found.hosts))}): their seconds compare "
            "only as far as these machines are equally fast."
        )
    if found.reference:
        corner = " and ".join(f"{n} {v:.4g}" for n, v in zip(found.objectives, found.reference, strict=False))
        lines.append(
            f"Hypervolume: the area that the front dominates within {corner}, a tenth beyond the worst of the first "
            f"{found.startup} trials."
        )
    if found.confirmed:
        lines += _confirmation(found, rules)
    return lines


def _confirmation(found: Searched, rules: Rules) -> list[str]:
    seeds = sorted({run.seed for run in found.confirmed})
    hardware = "; ".join(
        f"{k.replace('_', ' ')} {cell(str(v or 'none'))}" for k, v in found.confirmed[0].hardware.items()
    )
    dates = sorted(run.started_at[:16].replace("T", " ") for run in found.confirmed)
    percent = f"{100 * rules.confidence:g} %"
    return [
        f"Fresh seeds: {', '.join(map(str, seeds))}; fits from {dates[0]} to {dates[-1]} UTC, every method of one seed "
        "before the next.",
        f"Hardware of these fits: {hardware}.",
        f"Brackets: {percent} bootstrap intervals of the median over seeds; with three seeds or fewer their range. "
        f"Differences in test MAE: {percent} paired week-block bootstrap over common hours; it speaks of other weeks.",
        f"A point beats a rival if one of time and test MAE is clearly better (the whole interval is) and the other at "
        f"worst equal (the whole interval within {100 * rules.tolerance:g} %); clearly better in one and clearly worse "
        "in the other is a trade.",
        "Several points are compared with several rivals, so one verdict in some tens may be chance.",
    ]


def _against(rival: str, fought: Sequence[Duel]) -> str:
    if not fought:
        return ""
    beating = [str(duel.point.number) for duel in fought if duel.verdict == "beats it"]
    beaten = sum(duel.verdict == "is beaten" for duel in fought)
    if beating:
        return f"{len(beating)} beat{'s' if len(beating) == 1 else ''} `{rival}` (trial {joined(beating)})"
    return f"none beats `{rival}`" + (f", which beats {beaten}" if beaten else "")


def _what_isolates(rows: Sequence[Again], fought: Sequence[Duel]) -> str:
    """Whether it is isolation that wins: the front may hold small networks that isolate nothing."""
    isolating = {row.point.number for row in rows if isolates(row.runs)}
    winners = {duel.point.number for duel in fought if duel.verdict == "beats it"}
    if not winners:
        return f"{len(isolating)} of them isolated anything."
    return f"Points that beat something: {len(winners)}, of which {len(winners & isolating)} isolated anything."


def _simulated(found: Searched) -> str:
    return " The series is SIMULATED: this says nothing about a real building." if found.data["simulated"] else ""
