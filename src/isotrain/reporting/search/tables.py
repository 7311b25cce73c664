"""The search as tables for people and as a contract for programs."""

from collections.abc import Mapping, Sequence
from typing import Any

from isotrain.reporting.search.verdicts import Again, Duel, Rules, finite, isolates
from isotrain.reporting.tables import cell, error, seconds, table, three_digits
from isotrain.tradeoff.results import Run
from isotrain.tradeoff.searched import Point, Searched
from isotrain.tradeoff.statistics import Interval
from isotrain.tradeoff.target import best_validation


def front_table(found: Searched) -> str:
    """The front as searched, the fastest first, with what tells its points apart; above it what they share."""
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
    """What to type for each point of the front."""
    return "\n\n".join(f"Trial {point.number}:\n\n    {point.command}" for point in found.front)


def again_table(found: Searched, rows: Sequence[Again], rules: Rules) -> str:
    """What was searched beside what fresh seeds gave."""
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
    """Shares in percent beside what chance reaches."""
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
    """search.json."""
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
    """Dotted path -> value of what is the same in all of several ``points``."""
    if len(points) < 2:
        return {}
    first = points[0].settings
    return {path: value for path, value in first.items() if all(p.settings.get(path) == value for p in points)}


def _settings(point: Point, shared: Mapping[str, Any]) -> str:
    """What ``point`` does not share, without the names of the sections: the command has them."""
    own = {path.rpartition(".")[2]: value for path, value in point.settings.items() if path not in shared}
    return ", ".join(f"{name} {cell(_short(value))}" for name, value in own.items())


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _three(value: Interval) -> str:
    return f"{value.median:.3f} ({value.low:.3f}–{value.high:.3f})"


def _difference(value: Interval | None) -> str:
    return "–" if value is None else f"{value.median:+.3f} ({value.low:+.3f} to {value.high:+.3f})"
