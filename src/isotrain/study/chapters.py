"""The chapters of the study: of each a question, a table, a verdict, a command, and its rows in the first figure.

Chapters (a), (b) and (h) are races of this study. The others are read from what their experiments recorded, which
their commands make again. What is not recorded is said, and never made up.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isotrain.compare.results import short_commit
from isotrain.compare.statistics import Interval, median_interval, speedup
from isotrain.files import read_json
from isotrain.report.tables import kilowatts, table, three_digits
from isotrain.study.race import ACCURATE, CONFIDENCE, MARGIN, RESAMPLES, better
from isotrain.study.races import CHAPTERS, NETWORKS

DEAREST = 2.0  # times the rival's seconds that a surely lower error may cost
LEAST = 3  # seeds without which nothing is decided
WEEKS = (4, 13, 52)  # of a new meter, in the first figure
# ways to a forecast of a new meter that isolate nothing; `unadapted` isolates everything
CONTROLS = ("everything", "early stopping", "small, whole", "small, from scratch", "ridge", "pooled LightGBM")
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Effect:
    """A row of the first figure: what isolating does beside the strongest rival that isolates nothing.

    ``times``: how many times fewer seconds. ``error``: its error over the rival's. None: not measured. ``to_target``:
    the seconds are those to one error, so that they are compared at equal error already.
    """

    label: str
    label_fr: str
    chapter: str
    rival: str
    times: Interval | None
    error: Interval | None
    seeds: int = 5
    to_target: bool = False

    @property
    def pays(self) -> str:
        """``yes``, ``no``, ``trade`` or ``not separated``, by rule 13 of docs/protocol.md."""
        if self.seeds < LEAST:
            return "not separated"
        sooner = self.times is not None and self.times.low > 1
        affordable = self.times is None or self.times.median >= 1 / DEAREST
        equal = self.to_target or self.error is None or self.error.high <= 1 + MARGIN
        truer = self.error is not None and self.error.high < 1
        if (sooner and equal) or (truer and affordable):
            return "yes"
        later = self.times is not None and self.times.high < 1
        worse = self.error is not None and self.error.low > 1
        if sooner and worse:
            return "trade"
        return "no" if later or worse else "not separated"


@dataclass(frozen=True)
class Chapter:
    """What a page shows of one question. ``tables``: heading -> Markdown; ``record``: commit, date, hardware."""

    letter: str
    title: str
    question: str
    verdict: str
    command: str
    record: str
    tables: Mapping[str, str]
    effects: Sequence[Effect] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def chapters_of(study: Json, root: Path) -> list[Chapter]:
    """All chapters, in their order; of a file that is missing the chapter says which, and what makes it."""
    made = [building(study), laboratory(study)]
    for letter, title, command, files, make in RECORDED:
        paths = [root / file for file in files]
        if missing := [file for file, path in zip(files, paths, strict=True) if not path.exists()]:
            verdict = f"Not recorded here ({', '.join(missing)}): the command below makes it."
            made.append(Chapter(letter, title, "", verdict, command, "", {}))
        else:
            made.append(make(*(read_json(path) for path in paths if path.suffix == ".json"), *_lines(paths)))
    made += [networks(study), graphics(root)]
    made.append(failures(made))
    return sorted(made, key=lambda chapter: chapter.letter)


# Races -----------------------------------------------------------------------------------------------------------


def building(study: Json) -> Chapter:
    """(a): one building from scratch, every setting free."""
    title, question = "One building, from scratch", (
        "With width, depth, rate and length free, does leaving out units, layers, time steps or credit reach the "
        "error of the tuned network sooner than the best network of which nothing is left out?"
    )  # fmt: skip
    race = study["races"].get("building")
    if race is None:
        return _absent("a", title, question)
    names = ("units", "layer", "credit-thawed", "hours-4")
    simulated = race["data"]["simulated"]
    a_building, un_batiment = (
        ("simulated building", "bâtiment simulé") if simulated else ("one building", "un bâtiment")
    )
    french = {
        "units": "unités",
        "layer": "couche",
        "credit-thawed": "crédit, rétabli tard",
        "hours-4": "tout sauf les 4 dernières heures",
    }
    english = {
        "units": "units",
        "layer": "a layer",
        "credit-thawed": "credit, thawed late",
        "hours-4": "all but the last 4 h",
    }
    effects = [
        effect(race, name, race["rival"], f"{a_building}: {english[name]}", f"{un_batiment} : {french[name]}", "a")
        for name in names
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
    return Effect(label, label_fr, chapter, rival, sooner(own, other), error, len(own["seeds"]), to_target=True)


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


def interval(values: Sequence[float]) -> Interval:
    """Median with the protocol's interval."""
    return median_interval(values, CONFIDENCE, RESAMPLES)


def said(seconds: float | None) -> str:
    """Seconds, or that the target was missed."""
    return "never" if seconds is None or not math.isfinite(seconds) else f"{three_digits(seconds)} s"


def in_times(ratio: Interval) -> str:
    """A ratio with its interval, if it has one."""
    if not math.isfinite(ratio.median):
        return "missed"
    if ratio.low == ratio.high:
        return f"{ratio.median:.2f} times"
    ends = (f"{one:.2f}" if math.isfinite(one) else "missed" if one < 0 else "∞" for one in (ratio.low, ratio.high))
    return f"{ratio.median:.2f} times [{', '.join(ends)}]"


def spread(value: Json, say: Callable[[float], str], absent: str = "–") -> str:
    """Median and interval of a row."""
    middle, low, high = value["median"], value["low"], value["high"]
    if middle is None:
        return absent
    ends = [say(one) if one is not None else "missed" for one in (low, high)]
    return say(middle) if low == high else f"{say(middle)} ({ends[0]}–{ends[1]})"


def _ends(value: Json) -> Interval | None:
    if None in value.values():
        return None
    return Interval(value["median"], value["low"], value["high"])


def _absent(letter: str, title: str, question: str) -> Chapter:
    return Chapter(letter, title, question, "Not run yet: the command below runs it.", _study_command(letter), "", {})


def _study_command(letter: str) -> str:
    assert letter in CHAPTERS
    return f"isotrain study --profile standard --chapters {letter}"


def _lines(paths: Sequence[Path]) -> list[Any]:
    """Of each file of JSON lines its rows."""
    import json

    return [
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
        for path in paths
        if path.suffix == ".jsonl"
    ]


def _recorded(*sources: Json) -> str:
    """Commit, date and hardware, where a file of results says them."""
    commits = dict.fromkeys(
        commit[:12] for source in sources for commit in _commits(source)
    )  # fmt: skip
    dates = dict.fromkeys(source["date"] for source in sources if "date" in source)
    machines = dict.fromkeys(source["hardware"]["cpu"] for source in sources if "hardware" in source)
    return ", ".join([*(["commit " + ", ".join(commits)] if commits else []), *dates, *machines])


def _commits(source: Json) -> list[str]:
    if "tables" in source and isinstance(source["tables"], Mapping):  # each row has its own
        return [row["commit"] for rows in source["tables"].values() for row in rows if row.get("commit")]
    found = source.get("commits") or source.get("commit") or []
    return [found] if isinstance(found, str) else list(found)


# What experiments recorded ---------------------------------------------------------------------------------------


def credit(building: Json, drammen: Json, sequences: Sequence[Json]) -> Chapter:
    """(c): credit through time."""
    effects, rows = [], []
    fits: dict[tuple[str, int, int], dict[int, Json]] = {}
    for row in sequences:
        if row["task"] == "text":
            fits.setdefault((row["method"], row["width"], row["steps"]), {})[row["seed"]] = row
    dense = {key: own for key, own in fits.items() if key[0] == "native"}
    for width in (128, 256):
        own, same = fits.get(("cell-measured", width, 500), {}), fits.get(("native", width, 500), {})
        common = sorted(own.keys() & same.keys())
        if not common:
            continue
        target = statistics.median_high(same[seed]["score"] for seed in common)
        key, rival = min(
            dense.items(), key=lambda item: statistics.median_high(_reached(r, target) for r in item[1].values())
        )
        pairs = [(rival[seed], own[seed]) for seed in sorted(own.keys() & rival.keys())]
        times = interval([speedup(_reached(a, target), _reached(b, target)) for a, b in pairs])
        error = interval([own[seed]["score"] / same[seed]["score"] for seed in common])
        label = f"text, {width} units: credit, thawed by measurement"
        french = f"texte, {width} unités : crédit, rétabli sur mesure"
        effects.append(Effect(label, french, "c", f"dense, {key[1]} units", times, error, len(pairs), to_target=True))
    pool = {row["name"]: row for row in drammen["tables"]["perfect"]}
    if {"pool", "pool-whole"} <= pool.keys():
        ratio = pool["pool-whole"]["seconds"] / pool["pool"]["seconds"]
        error_ratio = pool["pool"]["mae"] / pool["pool-whole"]["mae"]
        effects.append(Effect(f"{drammen['series']} buildings, 64 units given: no credit",
                              f"{drammen['series']} bâtiments, 64 unités imposées : sans crédit", "c", "pool-whole",
                              _exactly(ratio), _exactly(error_ratio), pool["pool"]["seeds"]))  # fmt: skip
    reached = {}
    for task in ("reber", "embedded", "recall"):
        for method in ("native", "cell", "none", "cell-measured"):
            scores = [row["score"] for row in sequences if (row["task"], row["method"]) == (task, method)]
            reached[task, method] = statistics.median(scores) if scores else math.nan
    names = {
        "reber": "Reber's grammar",
        "embedded": "embedded Reber grammar",
        "recall": "recall after 168 silent steps",
    }
    for task, name in names.items():
        rows.append([name, *(f"{reached[task, m]:.2f}" for m in ("native", "cell", "none", "cell-measured"))])
    given = {(row["shape"], row["method"]): row for row in building["rows"]}
    wide = [
        [f"`{method}`", three_digits(row["step_ms"]),
         spread(row["to_target_s"], three_digits, "missed"), row["equal"]]
        for method in ("stock", "tuned", "native", "credit-cell", "credit-thawed", "credit-none", "hours-4")
        for row in [given["streamed-256", method]]
    ]  # fmt: skip
    verdict = (
        "Where the memory is short nothing is lost: 256 units given on the building take "
        f"{said(given['streamed-256', 'hours-4']['to_target_s']['median'])} instead of "
        f"{said(given['streamed-256', 'tuned']['to_target_s']['median'])} (tuned). Where it is long, no credit fails "
        f"({reached['recall', 'none']:.2f} right in recall, chance 0.125) and credit along the cell does not "
        f"({reached['recall', 'cell']:.2f}); a measurement while training says when to thaw."
    )
    question = "Can the gradient from one time step to the one before be left out, at first or for good?"
    tables = {
        "Tasks of memory: share right, medians of five seeds": table(
            ["task", "whole", "cell", "none", "cell, thawed by measurement"], rows
        ),
        "The building, 256 units given: seconds to the error of tuned, equality within 0.5 %": table(
            ["method", "ms a step", "s to the target", "equal to native"], wide
        ),
    }
    command = (
        "python -m experiments.credit.building data/windows --seeds 5` and `python -m experiments.credit.sequences"
    )
    facts = {"none": reached["recall", "none"], "cell": reached["recall", "cell"]}
    made = _recorded(building, drammen)
    return Chapter("c", "Credit through time", question, verdict, command, made, tables, effects, facts)


def _exactly(value: float) -> Interval:
    """One measurement, which has no interval."""
    return Interval(value, value, value)


def _reached(row: Json, target: float) -> float:
    return min((one["seconds"] for one in row["rows"] if one["score"] <= target), default=math.inf)


def adapting(results: Json, monthly: Json) -> Chapter:
    """(d): a trained network and a new meter."""
    rows = results["rows"]
    places = {"drahix": ("a new zone", "une nouvelle zone"), "drammen": ("a new building", "un nouveau bâtiment")}
    effects, tables = [], {}
    means: dict[tuple[str, str, int], float] = {}
    for pool, (english, french) in places.items():
        own = [row for row in rows if row["pool"] == pool]
        if not own:
            continue
        by = {(row["way"], row["weeks"], row["target"], row["seed"]): row for row in own}
        weeks = sorted({row["weeks"] for row in own}, key=lambda w: w or 10**6)
        ways = [way for way in dict.fromkeys(row["way"] for row in own) if way != "unadapted"]
        lines = []
        for way in ways:
            cells = []
            for amount in weeks:
                ratio = [
                    row["mae"] / by["unadapted", amount, row["target"], row["seed"]]["mae"]
                    for (name, w, _, _), row in by.items()
                    if (name, w) == (way, amount)
                ]
                if ratio:
                    means[pool, way, amount] = statistics.mean(ratio)
                cells.append(f"{statistics.mean(ratio):.3f}" if ratio else "–")
            year = [row["seconds"] for (name, w, _, _), row in by.items() if (name, w) == (way, 52)]
            lines.append(
                [f"**{way}**" if way == "chosen" else way, *cells, f"{statistics.mean(year):.2f}" if year else "–"]
            )
        head = ["way", *(f"{w} weeks" if w else "all" for w in weeks), "s, a year"]
        tables[f"{english.capitalize()}: error over that of the forecaster as it was"] = table(head, lines)
        for amount in WEEKS:
            rival = _strongest(by, amount)
            pairs = [
                (row, by[rival, amount, row["target"], row["seed"]])
                for (name, w, _, _), row in by.items()
                if (name, w) == ("chosen", amount) and (rival, amount, row["target"], row["seed"]) in by
            ]
            if pairs:
                effects.append(Effect(
                    f"{english}, {amount} weeks of data: adapted", f"{french}, {amount} semaines : adapté", "d",
                    rival, interval([b["seconds"] / a["seconds"] for a, b in pairs]),
                    interval([a["mae"] / b["mae"] for a, b in pairs]),
                ))  # fmt: skip
    verdict = _adapting_verdict(means, places)
    month, effects_of_months, words = _months(monthly)
    tables["Month after month, 8 buildings"] = month
    effects += effects_of_months
    verdict += words
    question = "A trained network, a new meter: how much should be thawed, and what does that gain over the controls?"
    command = "python -m experiments.adapt.run --drahix CSV --drammen TIDY WINDOWS --seeds 5"
    return Chapter("d", "A trained network, a new meter", question, verdict, command,
                   f"{_recorded(results, monthly)}, seeds: {results['seeds']}", tables, effects)  # fmt: skip


def _months(monthly: Json) -> tuple[str, list[Effect], str]:
    """Adapted again each month: a table, isolated beside the whole network trained on, and a sentence."""
    by = {(row["way"], row["target"], row["month"], row["seed"]): row for row in monthly["rows"]}
    rival, own = "warm, whole", "isolated, trained"
    lines = []
    for way in dict.fromkeys(row["way"] for row in monthly["rows"]):
        pairs = [(row, by[rival, *key]) for (name, *key), row in by.items() if name == way]
        later = [row["seconds"] for row, _ in pairs if row["number"]]
        ratio = interval([a["mae"] / b["mae"] for a, b in pairs])
        lines.append([way, _bracketed(ratio), f"{statistics.mean(later):.2f}"])
    pairs = [(row, by[rival, *key]) for (name, *key), row in by.items() if name == own and row["number"]]
    error = interval([a["mae"] / b["mae"] for a, b in pairs])
    times = interval([b["seconds"] / a["seconds"] for a, b in pairs])
    found = Effect(
        "buildings, month after month: adapted", "bâtiments, mois après mois : adapté", "d", rival, times, error
    )
    words = (
        f" Month after month the error is {_bracketed(error)} of that of the whole network trained on, "
        f"{in_times(times)} as fast."
    )
    return table(["way", "error ÷ the whole network's, trained on", "s a month"], lines), [found], words


def _bracketed(ratio: Interval) -> str:
    return f"{ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"


def _adapting_verdict(means: Mapping[tuple[str, str, int], float], places: Mapping[str, tuple[str, str]]) -> str:
    """The choice beside a small network adapted whole and one from scratch, each over the unadapted forecaster."""
    parts = []
    for pool, (english, _) in places.items():
        clauses = []
        for way, words in (("chosen", "the choice"), ("small, whole", "a small network adapted whole"),
                           ("small, from scratch", "one from scratch")):  # fmt: skip
            errors = [means.get((pool, way, amount)) for amount in WEEKS]
            clauses.append(f"{words} has {', '.join(f'{one:.3f}' if one else '–' for one in errors)}")
        parts.append(f"Of {english}, with {', '.join(map(str, WEEKS))} weeks: {'; '.join(clauses)}.")
    return f"Errors over those of the forecaster as it was. {' '.join(parts)}"


def _strongest(by: Mapping[tuple[str, int, str, int], Json], weeks: int) -> str:
    """Of the ways that isolate nothing the one of the least error at this amount, on the series that all have."""
    errors: dict[str, list[float]] = {}
    for (way, amount, target, seed), row in by.items():
        if amount == weeks and way in CONTROLS:
            errors.setdefault(way, []).append(row["mae"] / by["unadapted", weeks, target, seed]["mae"])
    return min(errors, key=lambda way: statistics.mean(errors[way]), default="")


def criteria(results: Json) -> Chapter:
    """(e): choice by statistics."""
    rows = [row for row in results["rows"] if row["schedule"] == "constant" or row["criterion"] is None]
    lines, wins, count = [], 0, 0
    for zone in dict.fromkeys(row["zone"] for row in rows):
        seeds = {(row["criterion"], row["seed"]): row["val_mae"] for row in rows if row["zone"] == zone}
        for criterion in dict.fromkeys(name for name, _ in seeds):
            if criterion in (None, "random"):
                continue
            pairs = [seeds[criterion, s] / seeds["random", s] for name, s in seeds if name == criterion]
            ratio = interval(pairs)
            count, wins = count + 1, wins + (ratio.high < 1)
            whole = interval(
                [seeds[criterion, s] / seeds[None, s] for name, s in seeds if name == criterion and (None, s) in seeds]
            )
            lines.append([
                f"`{criterion}`", "units" if zone == "unit" else "single weights",
                _bracketed(ratio), _bracketed(whole),
            ])  # fmt: skip
    verdict = (
        f"{wins} of {count} comparisons are better than zones drawn anew at random, by an interval that excludes 1; "
        "isolating nothing is better than every criterion. For adapting, a test on held-out weeks chooses (chapter "
        "d)."
    )
    question = (
        f"{results['fraction']:.0%} of the units or weights are isolated: does it matter which criterion chooses them?"
    )
    tables = {"Validation error over that of random zones, and over that of nothing isolated": table(
        ["criterion", "zones", "÷ random", "÷ nothing isolated"], lines, left=(0, 1))}  # fmt: skip
    command = (
        "python -m experiments.criteria.run data/windows --zones unit arc --fraction 0.9 --seeds 5 (at commit 573003e)"
    )
    return Chapter(
        "e",
        "Choice by statistics",
        question,
        verdict,
        command,
        _recorded(results),
        tables,
        (),
        {"wins": wins, "count": count},
    )


def adam(results: Json) -> Chapter:
    """(f): Adam's moments."""
    wanted = {"move a step, in rates": "First moves after a thaw, in learning rates",
              "loss of the last 100 steps, 1e-3": "Half of the units isolated, drawn anew: loss, 10⁻³"}  # fmt: skip
    tables, moves = {}, {}
    for one in results["tables"]:
        if one["head"][0] in wanted:
            tables[wanted[one["head"][0]]] = table(one["head"], one["rows"])
        if one["head"][0] == "move a step, in rates":
            moves = {row[0]: float(row[1]) for row in one["rows"]}
    verdict = (
        f"An isolated weight whose moments are kept moves {moves['hold']:.2f} rates in its first step after the thaw "
        f"(never isolated {moves['never isolated']:.2f}); with moments set to zero and torch's step count "
        f"{moves['reset, global t']:.2f}. TensorFlow 1.5's sparse form moves weights that are isolated. So moments "
        "are kept."
    )
    question = "What do the moments of Adam do to weights that come and go, in torch's form and in TensorFlow 1.5's?"
    return Chapter("f", "Adam", question, verdict, "python -m experiments.adam_in_rnns.run", _recorded(results), tables,
                   (), {"moves": moves})  # fmt: skip


def ingredients(forecaster: Json, drammen: Json, pretraining: Json, members: Json) -> Chapter:
    """(g): what accuracy is made of."""
    known = {one["name"]: one["test_mae"] for one in forecaster["accuracy"]["forecasts"]}
    about = {
        "rich-refit": "the most accurate network, trained on the validation part too",
        "rich": "the most accurate network: statistics of the past, no credit",
        "rich-whole": "the same, nothing left out of the backward",
        "rich-state-zeroed": "the same, the output of the LSTM set to zero",
        "plain-128": "the series, weather and calendar alone",
        "plain-128-state-zeroed": "the same, the output of the LSTM set to zero",
        "lightgbm-rich": "boosting on the inputs of `rich`",
        "ridge-rich": "ridge on the inputs of `rich`",
        "ridge": "ridge on the plain inputs",
    }
    lines = [
        [f"`{name}`", words, spread(_as_json(known[name]), kilowatts)] for name, words in about.items() if name in known
    ]
    for row in pretraining["rows"]:
        if row["way"] == "all trained on":
            pool = {"zones": "the building's zones", "drammen": "36 other buildings", "both": "both"}[row["pool"]]
            lines.append(["`rich`, pretrained", f"on {pool}, one seed", kilowatts(row["test"])])
    for row in members["test"]:
        of = row["of"].replace("alone", "`rich`").replace("pooled", "`rich` trained on the building's zones too")
        for way in ("as it is", "refitted"):
            what = "mean of all seeds" if row["what"] == "mean" else f"median of {members['seeds'].get(row['of'])}"
            lines.append([of, f"{what}, {way}", kilowatts(row[way])])
    for kind, words in (("perfect", "perfect weather forecast"), ("history", "no weather known ahead")):
        for row in drammen["tables"][kind]:
            if row["name"] in ("pool", "pool-state-zeroed", "lightgbm-rich", "ridge-rich"):
                lines.append([f"Drammen: `{row['name']}`", f"24 h ahead, {words}", kilowatts(row["mae_at_lead"])])
    best = min(row["refitted"] for row in members["test"])
    rich, zeroed, boosting = (_middle(known[name]) for name in ("rich", "rich-state-zeroed", "lightgbm-rich"))
    verdict = (
        f"Inputs matter most: {kilowatts(_middle(known['plain-128']))} to {kilowatts(rich)} kW. The LSTM's state adds "
        f"{zeroed / rich - 1:.1%} beside them; boosting on the same inputs has {kilowatts(boosting)} kW, the mean of "
        f"networks of which one learnt the building's zones too {kilowatts(best)}. Peers: [the "
        "page](results/peers/README.md)."
    )
    question = "What makes the forecast accurate: recurrence, inputs, weather known ahead, pretraining?"
    command = "experiments/forecaster, experiments/drammen, experiments/pretraining, experiments/peers: their READMEs"
    made = _recorded(forecaster, drammen, pretraining, members)
    facts = {"rich": rich, "whole": _middle(known["rich-whole"]), "boosting": boosting, "best": best}
    tables = {"Test MAE, kW": table(["forecaster", "what", "kW"], lines, left=(0, 1))}
    return Chapter("g", "Ingredients of accuracy", question, verdict, command, made, tables, (), facts)


def _middle(value: Any) -> float:
    return float(value["median"] if isinstance(value, Mapping) else value)


def _as_json(value: Any) -> Json:
    return value if isinstance(value, Mapping) else {"median": value, "low": value, "high": value}


def graphics(root: Path) -> Chapter:
    """(i): on a GPU."""
    found = sorted((root / "benchmarks/results").glob("gpu-*.md"))
    verdict = f"Measured: {', '.join(path.stem for path in found)} in benchmarks/results." if found else (
        "Not measured: no GPU was at hand. One command measures it."
    )  # fmt: skip
    question = "What does leaving out credit save on a GPU, beside cuDNN with graphs?"
    return Chapter("i", "GPU", question, verdict, "make bench-gpu PYTHON=/path/to/python3", "", {})


def failures(chapters: Sequence[Chapter]) -> Chapter:
    """(j): what does not work, from the other chapters."""
    lines = []
    for chapter in chapters:
        for one in chapter.effects:
            if one.pays == "no":
                ratio = in_times(one.times) if one.times else "–"
                error = _bracketed(one.error) if one.error else "–"
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


RECORDED: tuple[tuple[str, str, str, tuple[str, ...], Callable[..., Chapter]], ...] = (
    ("c", "Credit through time", "python -m experiments.credit.building data/windows --seeds 5",
     ("experiments/credit/results/building.json", "docs/results/drammen/drammen.json",
      "experiments/credit/results/sequences.jsonl"), credit),
    ("d", "A trained network, a new meter", "python -m experiments.adapt.run",
     ("experiments/adapt/results/results.json", "experiments/adapt/results/monthly/results.json"), adapting),
    ("e", "Choice by statistics", "experiments/criteria", ("experiments/criteria/results/results.json",), criteria),
    ("f", "Adam", "python -m experiments.adam_in_rnns.run", ("docs/adam-in-rnns/results.json",), adam),
    ("g", "Ingredients of accuracy", "experiments/forecaster",
     ("docs/results/forecaster/tradeoff.json", "docs/results/drammen/drammen.json",
      "experiments/pretraining/results/results.json", "experiments/forecaster/results/members.json"), ingredients),
)  # fmt: skip
