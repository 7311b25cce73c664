"""Chapters that are read from what experiments recorded, which their commands make again: (c) to (g), and (i).

What is not recorded is said, and never made up.
"""

import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from isotrain.compare.statistics import Interval, speedup
from isotrain.files import read_json
from isotrain.report.tables import kilowatts, table, three_digits
from isotrain.study.chapter import Chapter, Effect, Json, bracketed, in_times, interval, said, spread

WEEKS = (4, 13, 52)  # of a new meter, in the first figure
# ways to a forecast of a new meter that isolate nothing; `unadapted` isolates everything
CONTROLS = ("everything", "early stopping", "small, whole", "small, from scratch", "ridge", "pooled LightGBM")


def recorded(root: Path) -> Iterator[Chapter]:
    """(c) to (g); of a file that is missing the chapter says which, and what makes it."""
    for letter, title, command, files, make in RECORDED:
        if missing := [file for file in files if not (root / file).exists()]:
            verdict = f"Not recorded here ({', '.join(missing)}): the command below makes it."
            yield Chapter(letter, title, "", verdict, command, "", {})
        else:
            yield make(*(_read(root / file) for file in files))


def _read(path: Path) -> Any:
    """What a file of JSON holds, or one of JSON lines, as a list."""
    if path.suffix == ".json":
        return read_json(path)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


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
        effects.append(
            Effect(label, french, "c", "credit", f"dense, {key[1]} units", times, error, len(pairs), to_target=True)
        )
    pool = {row["name"]: row for row in drammen["tables"]["perfect"]}
    if {"pool", "pool-whole"} <= pool.keys():
        ratio = pool["pool-whole"]["seconds"] / pool["pool"]["seconds"]
        error_ratio = pool["pool"]["mae"] / pool["pool-whole"]["mae"]
        effects.append(Effect(f"{drammen['series']} buildings, 64 units given: no credit",
                              f"{drammen['series']} bâtiments, 64 unités imposées : sans crédit", "c", "credit",
                              "pool-whole", _exactly(ratio), _exactly(error_ratio), pool["pool"]["seeds"]))  # fmt: skip
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
                    "trained", rival, interval([b["seconds"] / a["seconds"] for a, b in pairs]),
                    interval([a["mae"] / b["mae"] for a, b in pairs]), _seeds(pairs),
                ))  # fmt: skip
    verdict = _adapting_verdict(means, places)
    month, effects_of_months, words = _months(monthly)
    tables["Month after month, 8 buildings"] = month
    effects += effects_of_months
    verdict += words
    question = "A trained network, a new meter: how much should be thawed, and what does that gain over the controls?"
    command = "python -m experiments.adapt.run --drahix CSV --drammen TIDY WINDOWS --seeds 5"
    made = f"{_recorded(results, monthly)}, seeds: {results['seeds']} (months: {monthly['seeds']})"
    return Chapter("d", "A trained network, a new meter", question, verdict, command,
                   made, tables, effects)  # fmt: skip


def _months(monthly: Json) -> tuple[str, list[Effect], str]:
    """Adapted again each month: a table, isolated beside the whole network trained on, and a sentence."""
    by = {(row["way"], row["target"], row["month"], row["seed"]): row for row in monthly["rows"]}
    rival, own = "warm, whole", "isolated, trained longer"  # for as many steps, on the same past
    lines = []
    for way in dict.fromkeys(row["way"] for row in monthly["rows"]):
        pairs = [(row, by[rival, *key]) for (name, *key), row in by.items() if name == way]
        later = [row["seconds"] for row, _ in pairs if row["number"]]
        ratio = interval([a["mae"] / b["mae"] for a, b in pairs])
        lines.append([way, bracketed(ratio), f"{statistics.mean(later):.2f}"])
    pairs = [(row, by[rival, *key]) for (name, *key), row in by.items() if name == own and row["number"]]
    error = interval([a["mae"] / b["mae"] for a, b in pairs])
    times = interval([b["seconds"] / a["seconds"] for a, b in pairs])
    found = Effect(
        "buildings, month after month: adapted",
        "bâtiments, mois après mois : adapté",
        "d",
        "trained",
        rival,
        times,
        error,
        _seeds(pairs),
    )
    words = (
        f" Month after month the error is {bracketed(error)} of that of the whole network trained on, "
        f"{in_times(times)} as fast."
    )
    return table(["way", "error ÷ the whole network's, trained on", "s a month"], lines), [found], words


def _seeds(pairs: Sequence[tuple[Json, Json]]) -> int:
    """How many seeds the rows of ``pairs`` have."""
    return len({row["seed"] for row, _ in pairs})


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
                bracketed(ratio), bracketed(whole),
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
        f"networks of which some learnt the building's zones too {kilowatts(best)}. Peers: [the "
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
