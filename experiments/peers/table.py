"""What the results of every peer and ours say, as a page and a figure.

python -m experiments.peers.table
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from experiments.peers.models import MODELS, SPARSE
from matplotlib.lines import Line2D

from isotrain.errors import InputError
from isotrain.files import read_json, write_text
from isotrain.report.drawing import PALETTE, Label, label_points, new_figure, save

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
TITLES = {"drahix": "Drahi-X, one building", "drammen": "Drammen, 36 buildings"}
MODES = {
    "drahix": {"default": "defaults", "search": "ten trials"},
    "drammen": {"default": "defaults", "search": "ten trials", "weather": "defaults and perfect weather forecast"},
}
COLOURS = {  # of settings, in the figure
    "no weather known ahead": PALETTE[0],
    "perfect weather forecast": PALETTE[4],
    "defaults": PALETTE[1],
    "ten trials": PALETTE[2],
    "defaults and perfect weather forecast": PALETTE[3],
}
NAMES = {
    "tsmixerx": "TSMixerx",
    "nhits": "NHITS",
    "mlforecast": "mlforecast, LightGBM",
    "mstl": "MSTL",
    "bitcn": "BiTCN",
    "deepar": "DeepAR",
    "tide": "TiDE",
}
RECORD = "docs/results/forecaster"
WEATHER = {"perfect": "perfect weather forecast", "history": "no weather known ahead"}
RECORDED = ("rich", "rich-refit", "rich-refit, ensemble of 5 seeds", "lightgbm-rich-refit")
HEAD = (
    "forecaster", "settings", "MAE, kW, every origin", "every 25th", "every 175th", "at lead 24",
    "fit, s", "forecast, s", "search, s", "lines",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A forecaster on a data set: errors in kW by the hours from origin to origin, seconds of the processor."""

    name: str
    settings: str
    ours: bool
    errors: Mapping[str, Mapping[str, float]]
    fit: float | None = None
    forecast: float | None = None
    search: float | None = None
    lines: int | None = None
    commit: str | None = None  # of the code, where the forecaster was run and timed for this page

    def error(self, step: int, which: str = "mae") -> float | None:
        return self.errors.get(str(step), {}).get(which)

    @property
    def last_lead(self) -> float | None:
        """MAE at the last lead, of as many origins as were forecast."""
        return next((found for step in (1, SPARSE, 7 * SPARSE) if (found := self.error(step, "mae_last_lead"))), None)

    @property
    def timed_here(self) -> bool:
        """Whether it was run for this page, not for a record of its own."""
        return self.forecast is not None

    def cells(self) -> list[str]:
        """What follows its name in the table."""
        errors = [*(self.error(step) for step in (1, SPARSE, 7 * SPARSE)), self.last_lead]
        seconds = ["–" if each is None else f"{each:.3g}" if each < 100 else f"{each:.0f}" for each in self.seconds]
        return [
            self.settings,
            *("–" if error is None else f"{error:.2f}" for error in errors),
            *seconds,
            "–" if self.lines is None else str(self.lines),
        ]

    @property
    def seconds(self) -> tuple[float | None, float | None, float | None]:
        return self.fit, self.forecast, self.search or None


def peers(dataset: str, results: Path) -> Iterator[Row]:
    """A row for each peer and mode, without errors where it was not run."""
    for model, name in NAMES.items():
        for mode, words in MODES[dataset].items():
            path = results / f"{dataset}-{model}-{mode}.json"
            if not path.exists():
                if mode != "weather" or MODELS[model].weather:
                    yield Row(name, words, False, {})
                continue
            found = read_json(path, "remove it and run the peer again")
            seconds = found["seconds"]
            yield Row(
                name, words, False, found["errors"],
                None if model == "mstl" else seconds["fit"],
                seconds["fit"] + seconds["forecast"] if model == "mstl" else seconds["forecast"],
                seconds["search"], found["lines"], found.get("commit"),
            )  # fmt: skip


def ours(dataset: str, results: Path, records: Path, readme: str) -> list[Row]:
    """Our rows: on Drahi-X from ``results`` and the record of five seeds, on Drammen from the record of drammen."""
    rows = []
    lines = dict.fromkeys(
        ["rich", "pool"], len(commands(readme))
    )  # the others are no part of the study that these commands run
    if dataset == "drahix":
        path = results / "drahix-ours.json"
        for name, found in read_json(path, "run experiments.peers.ours").items() if path.exists() else ():
            words = f"timed as the peers, {found['seeds']} seeds"
            timed = found["fit"], found["forecast"], None
            rows.append(Row(name, words, True, found["errors"], *timed, lines.get(name), found.get("commit")))
        for one in read_json(records / "forecaster" / "tradeoff.json", "record it again")["accuracy"]["forecasts"]:
            if one["name"] in RECORDED:
                errors = {"1": {"mae": one["test_mae"]["median"], "mae_last_lead": one["mae_by_lead"][-1]}}
                rows.append(
                    Row(one["name"], RECORD, True, errors, one["seconds"]["median"], None, None, lines.get(one["name"]))
                )
    path = records / "drammen" / "drammen.json"
    for weather, found in read_json(path)["tables"].items() if dataset == "drammen" and path.exists() else ():
        words = WEATHER[weather]
        for one in (each for each in found if each["name"] in ("pool", "lightgbm-rich", "ridge-rich")):
            errors = {"1": {"mae": one["mae"], "mae_last_lead": one["mae_at_lead"]}}
            rows.append(Row(one["name"], words, True, errors, one["seconds"], None, None, lines.get(one["name"])))
    return rows or [Row("ours", "a record of experiments.drammen", True, {})]


def commands(readme: str) -> list[str]:
    """What README has a user write for a series of their own, from the file to a forecast."""
    section = readme.split("## Your own series")[1].split("\n## ")[0].splitlines()
    found = [line for line in section if line.startswith("isotrain ") or line == "make reproduce"]
    if not found:
        raise InputError("README.md, section Your own series: there is no command of ours any more")
    return found


def table(rows: list[Row]) -> str:
    """Markdown, ours in bold, the least error of any origins first; below it what was not measured."""
    measured = sorted((row for row in rows if row.errors), key=least)
    lines = [[f"**{row.name}**" if row.ours else row.name, *row.cells()] for row in measured]
    rule = [":--", ":--", *["--:"] * (len(HEAD) - 2)]
    drawn = "\n".join(f"| {' | '.join(line)} |" for line in [list(HEAD), rule, *lines])
    missing: dict[str, list[str]] = {}
    for row in rows:
        if not row.errors:
            missing.setdefault(row.name, []).append(row.settings)
    words = "; ".join(f"{name} ({', '.join(settings)})" for name, settings in missing.items())
    commits = sorted({row.commit for row in rows if row.commit})
    older = [f"{row.name} ({row.settings})" for row in measured if row.timed_here and not row.commit]
    notes = [f"Commits of the forecasters timed here: {', '.join(commits)}." if commits else ""]
    notes += [f"Run before results named their commit: {', '.join(older)}." if older else ""]
    notes += [f"Not measured: {words}." if missing else ""]
    return "\n\n".join([drawn, *(note for note in notes if note)]) + "\n"


def least(row: Row) -> float:
    """The error that a row is placed by: at every 25th origin, else at whatever was forecast."""
    steps = (SPARSE, 1, 7 * SPARSE)
    return next((found for step in steps if (found := row.error(step)) is not None), float("inf"))


def figure(rows: Mapping[str, list[Row]], path: Path) -> None:
    """Processor seconds against error, a panel a data set of which anything was measured."""
    timed = {
        dataset: [row for row in of_dataset if row.errors and row.settings != RECORD and (row.fit or row.forecast)]
        for dataset, of_dataset in rows.items()
    }
    timed = {dataset: of_dataset for dataset, of_dataset in timed.items() if of_dataset}
    drawn, axes = new_figure(5.2 * len(timed), 5.2, "Processor seconds of a fit against test error", 1, len(timed))
    for axis, (dataset, of_dataset) in zip(axes[0], timed.items(), strict=True):
        points: list[Label] = []
        for row in of_dataset:
            colour = COLOURS.get(row.settings, PALETTE[0])
            points.append((row.fit or row.forecast or 0.0, least(row), row.name.partition(",")[0], colour))
        for seconds, error, _, colour in points:
            axis.scatter(seconds, error, color=colour, s=36, zorder=3)
        axis.set_xscale("log")
        axis.set(title=TITLES[dataset], xlabel="fit, s of the processor (MSTL: all its fits)", ylabel="test MAE, kW")
        axis.margins(0.3, 0.15)
        axis.xaxis.set_major_formatter("{x:g}")
        label_points(axis, points, size=8)
    words = [f"ours, {settings}" if settings in WEATHER.values() else settings for settings in COLOURS]
    dots = [
        Line2D([], [], color=colour, marker="o", ls="", label=word)
        for word, colour in zip(words, COLOURS.values(), strict=True)
    ]
    drawn.legend(handles=dots, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    save(drawn, path)


def write(results: Path, records: Path, out: Path, readme: str) -> None:
    """``README.md`` and ``peers.png`` in ``out``."""
    rows = {dataset: [*ours(dataset, results, records, readme), *peers(dataset, results)] for dataset in TITLES}
    figure(rows, out / "peers.png")
    parts = ["# Peers on the same origins\n", "`python -m experiments.peers.table`; "
             "[what was run, and how](../../../experiments/peers/README.md).\n",
             "![Processor seconds of a fit against test error](peers.png)\n"]  # fmt: skip
    for dataset, title in TITLES.items():
        parts += [f"## {title}\n", table(rows[dataset]), ""]
    write_text(out / "README.md", "\n".join(parts))


def main() -> None:
    records = ROOT / "docs" / "results"
    write(RESULTS, records, records / "peers", (ROOT / "README.md").read_text("utf-8"))


if __name__ == "__main__":
    main()
