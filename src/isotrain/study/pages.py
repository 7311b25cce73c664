"""The pages of the study, in English and in French, and its figures: written from recorded numbers alone."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.lines import Line2D

from isotrain.compare.statistics import Interval
from isotrain.files import write_text
from isotrain.report.drawing import GREY, STYLE, colours, label_points, new_figure, save, seconds_axis
from isotrain.report.tables import kilowatts, table
from isotrain.study.chapter import Chapter, Effect, Json, Part, in_times, said
from isotrain.study.chapters import chapters_of
from isotrain.study.race import profile
from isotrain.study.race_chapters import row_of, times_of

COLOUR = {"yes": "#009E73", "trade": "#E69F00", "no": "#D55E00", "not separated": GREY}
FRENCH = {"yes": "oui", "trade": "compromis", "no": "non", "not separated": "non tranché"}
FRENCH_PARTS: dict[Part, str] = {
    "trained": "*Réseau déjà entraîné, nouveau compteur ou nouveau mois* (presque tout reste isolé ; ce qui est dégelé "
    "est choisi sur les dernières semaines, laissées de côté)",
    "credit": "*Crédit à travers le temps* (le gradient d'une heure vers la précédente est laissé de côté, et rétabli "
    "tard là où la mémoire est longue)",
    "units": "*Unités ou couches isolées*",
}
FIGURE = "effects.png"
FAR = 1.05  # times the target: what is above is not drawn
SHOWN = 3  # settings that a sentence names


def write_pages(study: Json, root: Path, out: Path, figures: str) -> list[Path]:
    """``results.md``, ``resultats.fr.md`` and ``jury.md`` in ``out``, with figures in its folder ``figures``.

    ``root``: the project, where the experiments recorded their results.
    """
    chapters = chapters_of(study, root)
    effects = [one for chapter in chapters for one in chapter.effects]
    folder = out / figures
    folder.mkdir(parents=True, exist_ok=True)
    simulated = any(race["data"]["simulated"] for race in study["races"].values())
    drawn = {name: draw_race(race, folder / f"{name}.png") for name, race in study["races"].items()}
    if effects:
        draw_effects(effects, folder / FIGURE)
    texts = {
        "results.md": english(study, chapters, effects, figures, drawn),
        "resultats.fr.md": french(study, chapters, effects, figures, simulated),
        "jury.md": jury(study, chapters),
    }
    for name, text in texts.items():
        write_text(out / name, text)
    return [out / name for name in texts]


def english(
    study: Json, chapters: Sequence[Chapter], effects: Sequence[Effect], figures: str, drawn: Mapping[str, str]
) -> str:
    """``results.md``."""
    lines = ["# What isolation does to computing time and to accuracy\n"]
    lines += [f"![Times sooner and error of every setting beside its strongest rival]({figures}/{FIGURE})\n"] * bool(
        effects
    )
    lines += [f"{number}. {sentence}" for number, sentence in enumerate(answer(chapters, effects), 1)]
    lines.append(
        f"\nWritten by `isotrain study` (profile {study['profile']}, protocol {study['protocol']}, [its "
        "rules](protocol.md)): each row below is judged against the strongest rival that isolates nothing, or that "
        "saves nothing by it. Intervals are 90 %. Ten hard questions: [jury.md](jury.md). [En "
        "français](resultats.fr.md).\n"
    )
    lines += ["## Every setting\n", effect_table(effects), ""]
    for chapter in chapters:
        lines += [f"## ({chapter.letter}) {chapter.title}\n"]
        lines += [f"**Question.** {chapter.question}\n"] * bool(chapter.question)
        lines += [f"**Verdict.** {chapter.verdict}\n"]
        names = [name for name, race in study["races"].items() if race["title"] in chapter.tables]
        for heading, text in chapter.tables.items():
            lines += [f"*{heading}*\n", text, ""]
        lines += [f"![{drawn[name]}]({figures}/{name}.png)\n" for name in names]
        lines += [f"**Command.** `{chapter.command}`\n"]
        lines += [f"**Record.** {chapter.record}\n"] * bool(chapter.record)
    return "\n".join(lines).rstrip() + "\n"


def answer(chapters: Sequence[Chapter], effects: Sequence[Effect]) -> list[str]:
    """Five sentences: where it pays, where it does not, what is open, memory, accuracy."""
    by = {chapter.letter: chapter for chapter in chapters}
    found = {word: [one for one in effects if one.pays == word] for word in COLOUR}
    count, left = len(effects), [*found["trade"], *found["not separated"]]
    memory, accuracy = by["c"].facts, by["g"].facts
    return [
        f"**Isolation pays** in {len(found['yes'])} of {count} settings{_named(found['yes'])}.",
        f"**It does not pay** in {len(found['no'])}{_named(found['no'])}.",
        f"**A trade, or not separated** from the rival by these seeds: {len(left)}{_named(left)}.",
        "**Memory decides about credit**: "
        + (
            f"asked for a symbol 168 silent steps ago, a network without credit is right in {memory['none']:.2f} of "
            f"the cases (chance 0.125), with credit along the cell alone in {memory['cell']:.2f}."
            if memory
            else "not recorded here."
        ),
        "**The most accurate forecaster** isolates too: "
        + (
            f"`rich`, which leaves credit out, has {kilowatts(accuracy['rich'])} kW on Drahi-X, with nothing left out "
            f"{kilowatts(accuracy['whole'])}, LightGBM on the same inputs {kilowatts(accuracy['boosting'])}, the best "
            f"mean of networks {kilowatts(accuracy['best'])}."
            if accuracy
            else "not recorded here."
        ),
    ]


def _named(effects: Sequence[Effect]) -> str:
    """The clearest of ``effects``, one of each chapter before a second."""
    left = sorted(effects, key=_clear, reverse=True)
    firsts = {one.chapter: one for one in reversed(left)}
    named = [
        *(one for one in left if firsts[one.chapter] is one),
        *(one for one in left if firsts[one.chapter] is not one),
    ]
    named = named[:SHOWN]
    return (": " if named else "") + "; ".join(f"{one.label} ({_figures(one)})" for one in named)


def _clear(one: Effect) -> float:
    """How far its seconds are from the rival's, as a logarithm."""
    return abs(math.log(one.times.median)) if one.times and 0 < one.times.median < math.inf else 0.0


def _figures(one: Effect) -> str:
    missed = one.times is not None and not math.isfinite(one.times.median)
    parts = [f"never at the error of `{one.rival}`"] if missed else []
    parts += [f"{in_times(one.times)} as fast as `{one.rival}`"] if one.times and not missed else []
    if one.error:
        parts.append(f"error {one.error.median:.3f} of its")
    return ", ".join(parts)


def effect_table(effects: Sequence[Effect]) -> str:
    """Every setting, in the order of the chapters."""
    lines = [
        [f"({one.chapter}) {one.label}", f"`{one.rival}`", in_times(one.times) if one.times else "–",
         _ratio(one.error), f"**{one.pays}**" if one.pays == "yes" else one.pays]
        for one in effects
    ]  # fmt: skip
    return table(
        ["what is isolated, where", "strongest rival", "as fast as the rival", "error ÷ the rival's", "pays"],
        lines,
        left=(0, 1),
    )


def _ratio(value: Interval | None) -> str:
    if value is None or not math.isfinite(value.median):
        return "–"
    ends = "" if value.low == value.high else f" [{value.low:.3f}, {value.high:.3f}]"
    return f"{value.median:.3f}{ends}"


def french(study: Json, chapters: Sequence[Chapter], effects: Sequence[Effect], figures: str, simulated: bool) -> str:
    """``resultats.fr.md``: one page, for the laboratory."""
    by = {chapter.letter: chapter for chapter in chapters}
    count = {word: sum(one.pays == word for one in effects) for word in COLOUR}
    lines = ["# Ce que l'isolation change au temps de calcul et à la précision\n"]
    lines += ["**Série simulée** : les cas (a), (b) et (h) ne viennent pas d'un bâtiment réel.\n"] * simulated
    lines += [f"![Gain de temps et erreur de chaque cas, face à son meilleur rival]({figures}/{FIGURE})\n"] * bool(
        effects
    )
    lines.append(
        "Isoler (geler) une partie d'un réseau, c'est ne calculer pour elle ni gradient ni mise à jour d'Adam. "
        "Chaque cas est comparé au rival le plus fort qui n'isole rien : un réseau plus petit, réglé par la même "
        f"recherche, jugé sur d'autres graines. Sur {len(effects)} cas, l'isolation est payante dans {count['yes']}, "
        f"ne l'est pas dans {count['no']} ; {count['trade']} sont des compromis et {count['not separated']} ne sont "
        "pas tranchés.\n"
    )
    rows = [
        [
            f"({one.chapter}) {one.label_fr}",
            _fois(one.times),
            _ratio(one.error).replace(", ", " ; ").replace(".", ","),
            FRENCH[one.pays],
        ]
        for one in effects
    ]
    lines += [
        table(["ce qui est isolé, et où", "fois plus rapide que le rival", "erreur ÷ celle du rival", "payant"], rows),
        "",
    ]
    lines.append("**À retenir**\n")
    facts = by["g"].facts
    for part, words in FRENCH_PARTS.items():
        own = [one for one in effects if one.part == part]
        if own:
            paying, worse = (sum(one.pays == word for one in own) for word in ("yes", "no"))
            lines.append(f"- {words} : payant dans {paying} cas sur {len(own)}, non payant dans {worse}.")
    if "rich" in facts:
        lines.append(
            f"- *Précision* : {_virgule(facts['rich'])} kW pour le meilleur réseau, {_virgule(facts['boosting'])} kW "
            "pour LightGBM avec les mêmes entrées (erreur absolue moyenne, partie de test de Drahi-X)."
        )
    race = study["races"].get("building")
    if race is not None:
        dense, tuned = (row_of(race, name)["to_target"]["median"] for name in ("dense", "tuned"))
        lines.append(
            "- *Références* (un bâtiment) : PyTorch réglé "
            f"{said(tuned).replace('never', 'jamais').replace('.', ',')}, réseau dense sur nos noyaux "
            f"{said(dense).replace('never', 'jamais').replace('.', ',')}, pour la même erreur de validation."
        )
    lines.append(
        "\nProtocole : [protocol.md](protocol.md) ; tous les tableaux : [results.md](results.md). Intervalles à 90 "
        "%. Commande : `isotrain study`."
    )
    return "\n".join(lines).rstrip() + "\n"


def _virgule(value: float) -> str:
    return f"{value:.2f}".replace(".", ",")


def _fois(ratio: Interval | None) -> str:
    if ratio is None:
        return "–"
    return in_times(ratio).replace(" times", "").replace("missed", "manqué").replace(", ", " ; ").replace(".", ",")


def jury(study: Json, chapters: Sequence[Chapter]) -> str:
    """``jury.md``: ten questions, each answered by a line of a table."""
    by = {chapter.letter: chapter for chapter in chapters}
    race = study["races"].get("building")
    if race is None:
        answers = ["chapter (a) was not run"] * 8
    else:
        rows = {row["name"]: row for row in race["racers"]}

        def took(name: str) -> str:
            return f"`{name}` {said(rows[name]['to_target']['median'])}" if name in rows else f"`{name}` was not run"

        def ratio(name: str) -> str:
            if name not in rows:
                return "was not run with"
            value = rows[name]["error_ratio"]
            return (
                "diverged"
                if value["median"] is None
                else f"{value['median']:.3f} [{value['low'] or 0:.3f}, {value['high'] or math.inf:.3f}]"
            )

        shares = profile({name: times_of(row) for name, row in rows.items()})
        first = max(shares, key=lambda name: sum(one == 1.0 for one in shares[name]))
        answers = [
            f"No: {race['points']} settings of it were tried, as of every other method. {took('stock')}, "
            f"{took('tuned')}, and on our own kernels {took('dense')}.",
            f"That is the rival everywhere: {took('dense')} has its width, depth, rate and length free. Beside it "
            f"{took('units')}, {took('hours-4')}, {took('credit-thawed')}.",
            "No: the length is free for every method, and the rate decays over whatever length was chosen.",
            f"Units drawn at random: {took('random-units')}; those that Adam moves least: {took('units')}. Of the "
            f"criteria, {by['e'].verdict.split(';')[0].lower()}.",
            f"The masked control computes everything and drops half: error {ratio('masked-units')} of the "
            f"reference's, {took('masked-units')}.",
            f"Its output set to zero: error {ratio('state-zeroed')} of the reference's. So on this series it matters "
            "a little; that is why tasks of long memory stand in chapter (c).",
            "Training seconds, everything that isolation costs in them; one pinned core, methods in turn, fits that "
            f"the machine slowed down run again; its clock varied by {race['machine_drift'] - 1:.0%}. Most seeds "
            f"were first with `{first}`.",
            f"Tested: `hours-4` has {ratio('hours-4')} of the reference's error, `credit-thawed` "
            f"{ratio('credit-thawed')}; equal means within {race['margin']:.0%} by the whole interval.",
        ]  # fmt: skip
    questions = [
        "Is the reference a straw man?",
        "Would a smaller network not do as well?",
        "Is the gain that of a shorter training?",
        "Would random zones do as well?",
        "Is it the noise of leaving weights alone, not the saving?",
        "Does the LSTM's memory matter on this series at all?",
        "Are these seconds real?",
        "Is equal error shown or assumed?",
        "Was the test part used to choose anything?",
        "Does it hold for other series, other networks, a GPU?",
    ]
    answers += [
        "No. Settings are chosen on validation with seeds of their own; the test error stands in the tables once, "
        "for what was chosen. Two choices of this project were made earlier with test errors in view, and their "
        "pages say so: the thresholds of adapting, and the defaults of the features.",
        f"Other series: (c) has 36 buildings and a text, (d) zones and buildings. Other networks: {by['h'].verdict} "
        f"GPU: {by['i'].verdict}",
    ]
    lines = ["# Ten hard questions\n", "Each answer quotes lines of the tables in [results.md](results.md).\n"]
    for number, (question, reply) in enumerate(zip(questions, answers, strict=True), 1):
        lines += [f"**{number}. {question}** {reply}\n"]
    return "\n".join(lines).rstrip() + "\n"


# Figures ---------------------------------------------------------------------------------------------------------


def draw_effects(effects: Sequence[Effect], path: Path) -> None:
    """A row a setting: how many times as fast as its rival, and its error over the rival's."""
    with mpl.rc_context(STYLE):
        title = "What isolation gains over the strongest rival that isolates nothing"
        shape: dict[str, Any] = {"columns": 2, "sharey": True, "gridspec_kw": {"width_ratios": [3, 2]}}
        figure, grid = new_figure(10.5, 1.6 + 0.3 * len(effects), title, **shape)
        left, right = grid[0]
        for place, one in enumerate(reversed(effects)):
            colour = COLOUR[one.pays]
            for axes, value in ((left, one.times), (right, one.error)):
                if value is None or not math.isfinite(value.median):
                    axes.text(
                        1.0,
                        place,
                        "missed" if value is not None else "–",
                        color=colour,
                        ha="center",
                        va="center",
                        fontsize=8,
                    )
                    continue
                low = value.low if math.isfinite(value.low) else value.median / 3
                high = value.high if math.isfinite(value.high) else value.median * 3
                axes.plot([low, high], [place, place], color=colour, lw=1.8, solid_capstyle="round")
                axes.plot(value.median, place, "o", color=colour, ms=6)
        for axes in (left, right):
            axes.axvline(1.0, color="#333333", lw=0.9)
            axes.grid(axis="y", visible=False)
        left.set_xscale("log")
        low, high = left.get_xlim()
        left.set_xlim(max(low, 0.15), min(max(high, 2.2), 30))
        seconds_axis(left)
        left.set(xlabel="times as fast as the rival (right of 1: isolation is faster)", ylim=(-0.7, len(effects) - 0.3))
        right.set(xlabel="error over the rival's (left of 1: lower)")
        left.set_yticks(
            range(len(effects)), [f"({one.chapter}) {one.label}" for one in reversed(effects)], fontsize=8.5
        )
        words = dict(zip(COLOUR, ("pays", "sooner, for more error", "does not pay", "not separated"), strict=True))
        handles = [Line2D([], [], color=COLOUR[word], marker="o", lw=1.8, label=label) for word, label in words.items()]
        figure.legend(handles=handles, loc="outside lower right", ncols=4, frameon=False)
        save(figure, path)


def draw_race(race: Mapping[str, Any], path: Path) -> str:
    """Seconds against validation error of all that was tried and judged, and the performance profile; its caption."""
    roles = {row["name"]: row["role"] for row in race["racers"]}
    paint = colours(roles)
    marked = "SIMULATED series: " if race["data"]["simulated"] else ""
    with mpl.rc_context(STYLE):
        figure, grid = new_figure(11, 4.8, f"{marked}{race['title']}", columns=2, gridspec_kw={"width_ratios": [3, 2]})
        left, right = grid[0]
        best = race["target"]
        named = []
        for row in race["racers"]:
            name = row["name"]
            tried = [
                one
                for one in race["search"].get(name, [])
                if one["val_mae"] is not None and one["val_mae"] < FAR * best
            ]
            left.plot(
                [one["seconds"] for one in tried],
                [one["val_mae"] for one in tried],
                ".",
                color=paint[name],
                ms=4,
                alpha=0.45,
            )
            x, y = row["train_seconds"]["median"], row["val_mae"]["median"]
            if y is not None and y < FAR * best:
                left.plot(x, y, "o" if roles[name] == "tested" else "s", color=paint[name], ms=7)
                named.append((x, y, name, paint[name]))
        left.axhline(best, color="#333333", lw=0.9, ls="--")
        left.set(
            xscale="log",
            xlabel="training, s (small: tried in the search; large: judged, median)",
            ylabel="validation MAE, kW",
        )
        seconds_axis(left)
        label_points(left, named, size=7.5)
        shares = profile({row["name"]: times_of(row) for row in race["racers"]})
        most = max((one for own in shares.values() for one in own if math.isfinite(one)), default=2.0)
        drawn = [name for name in shares if roles[name] != "control" or name == race["rival"]]
        for place, name in enumerate(drawn):
            own = shares[name]
            reached = [one for one in own if math.isfinite(one)]
            heights = [(place + 1) / len(own) for place in range(len(reached))]
            right.step([1.0, *reached, 1.05 * most], [0.0, *heights, heights[-1] if heights else 0.0], where="post",
                       color=paint[name], lw=1.8, ls=("-", "--", ":")[place % 3], label=name)  # fmt: skip
        right.set(
            xscale="log",
            xlabel="times as long as the quickest with that seed",
            ylabel="share of the seeds that reached the target",
            ylim=(-0.02, 1.04),
            xlim=(1.0, 1.05 * most),
        )
        seconds_axis(right)
        right.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
        save(figure, path)
    return f"{race['title']}: seconds against validation error, and the performance profile"
