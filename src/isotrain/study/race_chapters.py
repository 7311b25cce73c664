"""Chapters (a), (b) and (h), which are races of this study: their effects, verdicts and tables."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isotrain.compare.results import short_commit
from isotrain.compare.statistics import Interval, speedup
from isotrain.report.tables import kilowatts, table, three_digits
from isotrain.study.chapter import LEAST, Chapter, Effect, Json, Part, in_times, interval, said, spread
from isotrain.study.race import ACCURATE, MARGIN, better
from isotrain.study.races import CHAPTERS, NETWORKS

CREDIT = ("credit-thawed", "hours-4")  # the racers that leave out credit; the others leave out units or layers


def building(study: Json) -> Chapter:
    """(a): one building from scratch, every setting free."""
    title, question = "One building, from scratch", (
        "With width, depth, rate and length free, does leaving out units, layers, time steps or credit reach the "
        "error of the tuned network sooner than the best network of which nothing is left out?"
    )  # fmt: skip
    race = study["races"].get("building")
    if race is None:
        return _absent("a", title, question)
    simulated = race["data"]["simulated"]
    a_building, un_batiment = (
        ("simulated building", "bâtiment simulé") if simulated else ("one building", "un bâtiment")
    )
    effects = [
        effect(race, name, race["rival"], f"{a_building}: {english}", f"{un_batiment} : {french}", "a")
        for name, english, french in (
            ("units", "units", "unités"),
            ("layer", "a layer", "couche"),
            ("credit-thawed", "credit, thawed late", "crédit, rétabli tard"),
            ("hours-4", "all but the last 4 h", "tout sauf les 4 dernières heures"),
        )
        if any(row["name"] == name for row in race["racers"])
    ]
    tables = {race["title"]: race_table(race)}
    if rows := study.get("baselines"):
        lines = [[f"`{row['name']}`", three_digits(row["seconds"]), f"{row['val_mae'] / race['target']:.3f}",
                  kilowatts(row["test_mae"])] for row in rows]  # fmt: skip
        tables["Without a network"] = table(["forecast", "fit, s", "validation error ÷ target", "test MAE, kW"], lines)
    return Chapter("a", title, question, race_verdict(race), _study_command("a"), race_record(race), tables, effects)


def laboratory(study: Json) -> Chapter:
    """(b): five layers of 150 units."""
    title, question = "The laboratory's network", (
        "What does training five layers of 150 units cost, what could it cost, and what does a network of free size "
        "cost?"
    )  # fmt: skip
    race = study["races"].get("laboratory")
    if race is None:
        return _absent("b", title, question)
    effects = [
        effect(race, name, best_dense(race, without="small-dense"), f"5 x 150 units given: {english}",
               f"5 x 150 unités imposées : {french}", "b")
        for name, english, french in (
            ("layers", "three lower layers", "trois couches basses"),
            ("hours-4", "all but the last 4 h", "tout sauf les 4 dernières heures"),
        )
    ]  # fmt: skip
    small = [row for row in race["racers"] if row["name"] == "small-dense"]
    verdict = race_verdict(race, without="small-dense")
    if small:
        took, least = small[0]["to_target"]["median"], best_tested(race)["to_target"]["median"]
        verdict += (
            f" The dense network of free size that chapter (a) found reaches the same error in {said(took)}"
            + (f", {least / took:.1f} times sooner than the best of these." if took and least else ".")
        )  # fmt: skip
    return Chapter("b", title, question, verdict, _study_command("b"), race_record(race),
                   {race["title"]: race_table(race)}, effects)  # fmt: skip


def networks(study: Json) -> Chapter:
    """(h): other networks."""
    title = "Networks in general"
    question = "Does isolating the lower half save time in a gated recurrent unit, a convolution and self-attention?"
    found = {name: study["races"][name] for name in NETWORKS if name in study["races"]}
    if not found:
        return _absent("h", title, question)
    french = {"gru": "GRU", "tcn": "convolution", "attention": "attention"}
    english = {"gru": "GRU", "tcn": "convolution", "attention": "self-attention"}
    effects = [
        effect(race, "lower-half", race["rival"], f"{english[name]}: the lower half",
               f"{french[name]} : la moitié basse", "h")
        for name, race in found.items()
    ]  # fmt: skip
    verdict = " ".join(
        f"*{english[name][0].upper()}{english[name][1:]}*: {race_verdict(race)}" for name, race in found.items()
    )
    first = next(iter(found.values()))
    tables = {race["title"]: race_table(race) for race in found.values()}
    return Chapter("h", title, question, verdict, _study_command("h"), race_record(first), tables, effects)


def row_of(race: Json, name: str) -> Any:
    """The row of the racer ``name``."""
    return next(row for row in race["racers"] if row["name"] == name)


def times_of(row: Json) -> list[float]:
    """Seconds to the target, a value a seed; infinite where it was missed."""
    return [math.inf if one["to_target"] is None else one["to_target"] for one in row["seeds"]]


def _errors(row: Json) -> list[float]:
    return [math.inf if one["val_mae"] is None else one["val_mae"] for one in row["seeds"]]


def sooner(own: Json, rival: Json) -> Interval:
    """How many times sooner the row ``own`` reaches the target than ``rival``, paired by seed."""
    return interval([speedup(b, a) for a, b in zip(times_of(own), times_of(rival), strict=True)])


def effect(race: Json, name: str, rival: str, label: str, label_fr: str, chapter: str) -> Effect:
    """``name`` beside ``rival``, paired by seed."""
    own, other = row_of(race, name), row_of(race, rival)
    error = interval([a / b for a, b in zip(_errors(own), _errors(other), strict=True)])
    part: Part = "credit" if name in CREDIT else "units"
    return Effect(label, label_fr, chapter, part, rival, sooner(own, other), error, len(own["seeds"]), to_target=True)


def _first(rows: Sequence[Any]) -> Any:
    """The row that reaches the target first, by the median; of those that miss it the one of the least error."""
    return min(rows, key=lambda row: (statistics.median_high(times_of(row)), row["val_mae"]["median"]))


def best_dense(race: Json, without: str = "") -> str:
    """What reaches the target first of those that are not tested."""
    rows = [row for row in race["racers"] if row["role"] != "tested" and row["name"] != without]
    return str(_first(rows)["name"])


def tested(race: Json) -> list[Any]:
    """The rows that are tested."""
    return [row for row in race["racers"] if row["role"] == "tested"]


def best_tested(race: Json) -> Any:
    """The tested row that reaches the target first."""
    return _first(tested(race))


def race_verdict(race: Json, without: str = "") -> str:
    """Which tested racer is first, beside the first that isolates nothing, in two sentences."""
    rival, best = row_of(race, best_dense(race, without)), best_tested(race)
    own = times_of(best)
    reference = row_of(race, race["reference"])
    if not math.isfinite(statistics.median_high(own)):
        return (
            f"No tested method reaches {kilowatts(race['target'])} kW with half of its seeds; `{rival['name']}` takes "
            f"{said(rival['to_target']['median'])}. A step of `{best['name']}` takes "
            f"{three_digits(best['step_ms']['median'])} ms, one of `{reference['name']}` "
            f"{three_digits(reference['step_ms']['median'])}."
        )
    ratio = sooner(best, rival)
    sure = "pays" if ratio.low > 1 else "does not pay" if ratio.high < 1 else "cannot be separated from it"
    if len(own) < LEAST:
        sure = "has too few seeds to be judged"
    chance = better(own, times_of(rival))
    surely = sum(sooner(row, rival).low > 1 for row in tested(race))
    return (
        f"`{best['name']}` reaches {kilowatts(race['target'])} kW in {said(best['to_target']['median'])}, the best "
        f"that isolates nothing, `{rival['name']}`, in {said(rival['to_target']['median'])} (tuned PyTorch "
        f"{said(reference['to_target']['median'])}): {in_times(ratio)} as fast, sooner with probability "
        f"{chance:.2f}. It {sure}. Of {len(tested(race))} tested, {surely} are surely sooner."
    )


def race_table(race: Json) -> str:
    """A row a racer."""
    head = ["method", "what", "settings", "ms a step", "s to the target", "reached", "× the rival", "sooner with p",
            "error ÷ reference", "equal", "test MAE, kW"]  # fmt: skip
    lines = []
    for row in race["racers"]:
        name, count = row["name"], len(row["seeds"])
        ratio, equal = _ends(row["error_ratio"]), "–"
        if ratio and name != ACCURATE:
            inside = ratio.low >= 1 - MARGIN and ratio.high <= 1 + MARGIN
            equal = "yes" if inside else "lower" if ratio.high < 1 else "higher" if ratio.low > 1 else "not shown"
        lines.append([
            f"**`{name}`**" if row["role"] == "tested" else f"`{name}`", row["about"], settings_of(row["point"]),
            spread(row["step_ms"], three_digits), spread(row["to_target"], three_digits, "missed"),
            f"{row['reached']} of {count}",
            "rival" if name == race["rival"] else spread(row["speedup"], "{:.2f}".format, "missed"),
            f"{row['better']:.2f}" if "better" in row else "–",
            spread(row["error_ratio"], "{:.3f}".format), equal, spread(row["test_mae"], kilowatts),
        ])  # fmt: skip
    about = (
        f"Target {kilowatts(race['target'])} kW: {race['tolerance']:.1%} above the median error of `{ACCURATE}`. "
        f"{race['points']} settings tried of each method, {len(race['racers'][0]['seeds'])} other seeds judged. "
        f"*Equal*: the interval of the error over that of `{ACCURATE}` lies within {race['margin']:.0%} of 1."
    )
    return f"{about}\n\n{table(head, lines, left=(0, 1, 2))}"


def race_record(race: Json) -> str:
    """Series, commit, hardware, date."""
    data = race["data"]
    series = "the **simulated** series" if data["simulated"] else Path(data["source"]).name
    commits = ", ".join(short_commit(one) for one in race["commits"])
    return (
        f"{series}, commit {commits}, {race['hardware']['cpu']}, one core, {race['date']}; the machine's clock varied "
        f"by {race['machine_drift'] - 1:.0%}"
    )


def settings_of(point: Json) -> str:
    """A point in words."""
    parts = []
    if "model.hidden" in point:
        parts.append(f"{point.get('model.layers', 1)} x {point['model.hidden']} units")
    parts.append(f"{point['training.steps']} steps")
    return ", ".join([*parts, f"rate {point['training.learning_rate']:g}"])


def _ends(value: Json) -> Interval | None:
    if None in value.values():
        return None
    return Interval(value["median"], value["low"], value["high"])


def _absent(letter: str, title: str, question: str) -> Chapter:
    return Chapter(letter, title, question, "Not run yet: the command below runs it.", _study_command(letter), "", {})


def _study_command(letter: str) -> str:
    assert letter in CHAPTERS
    return f"isotrain study --profile standard --chapters {letter}"
