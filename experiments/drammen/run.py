"""One network for the public buildings of Drammen, beside LightGBM with the same information.

    python -m experiments.drammen.run DATA [--only perfect,history] [--widths] [--table]

DATA is the folder that holds ``drammen-36-buildings.zip``. Both settings of weather (``params.yaml``: that of the hours
forecast is known; ``history.yaml``: it is not) go through the stages of the pipeline; ``--widths`` compares widths and
depths, each at the best of three rates on validation. What is there already is not made again. Every call ends by
writing the page of what is there, docs/results/drammen; with ``--table`` that is all it does.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from isotrain.compare.statistics import Interval, mae_difference
from isotrain.config import MethodsView, Params, load
from isotrain.data.windows import Windows, ahead_words
from isotrain.errors import run_as_command
from isotrain.files import read_json, write_json, write_text
from isotrain.forecast.forecasts import Forecasts, mae, mean_forecast, read_forecasts
from isotrain.report.drawing import PALETTE, STYLE, new_figure, save
from isotrain.training.fits import fit_in_child, import_everything
from isotrain.training.machine import commit, hardware

HERE = Path("experiments/drammen")
SETTINGS = {"perfect": HERE / "params.yaml", "history": HERE / "history.yaml"}
OUT = Path("docs/results/drammen")
LEAD = 24  # hours ahead, at which the published table has its errors
AGAINST = "lightgbm-rich"
ROWS = (
    "same-hour-yesterday",
    "ridge-rich",
    "lightgbm-rich",
    "pool-state-zeroed",
    "pool-tuned",
    "pool-whole",
    "pool",
    "pool-refit",
)
SHAPES = ((16, 1), (64, 1), (64, 2), (128, 1), (256, 1))  # units, layers
RATES = {16: (0.014, 0.028, 0.056), 64: (0.007, 0.014, 0.028), 128: (0.005, 0.01, 0.02), 256: (0.0035, 0.007, 0.014)}
WIDTH_STEPS = 1000
PUBLISHED = {"LightGBM": 4.03, "XGBoost": 4.20, "PatchTST": 6.96, "ridge": 7.46, "LSTM": 8.38}  # kWh, 42 buildings


def main(*words: str) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=Path("data/raw"))
    parser.add_argument("--only", default="perfect,history", help="settings of weather, separated by commas")
    parser.add_argument("--widths", action="store_true", help="compare widths and depths too")
    parser.add_argument("--table", action="store_true", help="only write the page of what is there")
    asked = parser.parse_args(words)
    if not asked.table:
        for name in asked.only.split(","):
            stages(SETTINGS[name], asked.data)
        if asked.widths:
            widths(load(SETTINGS["perfect"]))
    write_page()


def stages(settings: Path, data: Path) -> None:
    """The stages of the pipeline on ``settings``; the first two only where their results are not there."""
    paths = load(settings).paths
    calls = [["baselines", paths.windows, paths.baselines], ["train", paths.windows, paths.runs]]
    if not (Path(paths.windows) / "windows.json").exists():
        calls = [["ingest", str(data), paths.tidy, paths.data_report], ["window", paths.tidy, paths.windows], *calls]
    calls.append(["compare", paths.windows, paths.runs, paths.baselines, paths.report])
    for name, *words in calls:
        subprocess.run([sys.executable, f"pipelines/{name}.py", *words, str(settings)], check=True)


def widths(params: Params) -> None:
    """A thousand steps of the method ``pool`` at each width and depth, at three rates."""
    windows = Windows.load(params.paths.windows)
    import_everything()
    for hidden, layers in SHAPES:
        for rate in RATES[hidden]:
            changes: dict[str, Any] = {
                "model.hidden": hidden,
                "model.layers": layers,
                "model.decoder": min(max(hidden, 32), 128),
                "training.learning_rate": rate,
                "training.steps": WIDTH_STEPS,
            }
            name = f"width-{hidden}-{layers}-{rate:g}"
            folder = Path(params.paths.runs).with_name("widths") / name
            if not (folder / "result.json").exists():
                s = MethodsView.model_validate(params.model_dump(include=set(MethodsView.model_fields))).settings(
                    "pool", changes
                )
                fit_in_child(s.model_copy(update={"method": name}), 0, windows, folder)


def at_lead(forecasts: Forecasts, lead: int = LEAD) -> Forecasts:
    """The forecasts ``lead`` hours ahead alone."""
    column = slice(lead - 1, lead)
    return replace(forecasts, prediction=forecasts.prediction[:, column], truth=forecasts.truth[:, column])


def rows(params: Params) -> list[dict[str, Any]]:
    """A row for each forecaster: errors over all leads and at :data:`LEAD`, seconds of training, commit of the code.

    The commit of a baseline is that of the code by which the page is written: another code fits it again.
    """
    found: list[dict[str, Any]] = []
    paths, compare = params.paths, params.compare
    reference = Path(paths.baselines) / AGAINST
    against = [read_forecasts(reference)] if (reference / "forecasts.npz").exists() else None
    seconds = {}
    if (path := Path(paths.baselines) / "baselines.json").exists():
        seconds = {row["name"]: row["seconds"] for row in read_json(path)["baselines"]}
    for name in ROWS:
        folders = [Path(paths.runs) / f"{name}-{seed}" for seed in compare.seeds]
        folders = [folder for folder in folders if (folder / "result.json").exists()]
        if name in seconds:
            folders, spent, made_at = [Path(paths.baselines) / name], [seconds[name]], [commit()]
        else:
            results = [read_json(folder / "result.json") for folder in folders]
            spent, made_at = [r["train_seconds"] for r in results], [r["commit"] for r in results]
        if not folders:
            continue
        members = [read_forecasts(folder) for folder in folders]
        shown = {name: (members, float(np.median(spent)))}
        if name == "pool-refit" and len(members) > 1:
            shown[f"mean of {len(members)} pool-refit"] = [mean_forecast(members)], sum(spent)
        for what, (forecasts, total) in shown.items():
            errors = row(what, forecasts, total, against, compare.confidence, compare.bootstrap)
            found.append({**errors, "commit": ", ".join(sorted({str(one) for one in made_at}))})
    return found


def row(
    name: str,
    members: Sequence[Forecasts],
    seconds: float,
    against: list[Forecasts] | None,
    confidence: float,
    resamples: int,
) -> dict[str, Any]:
    """Errors in kW, their median over seeds; ``difference``: at the lead, less those of LightGBM, by week blocks."""
    near = [at_lead(one) for one in members]
    compared: Interval | None = None
    if against and name != AGAINST:
        compared = mae_difference(near, [at_lead(one) for one in against], confidence, resamples)
    return {
        "name": name,
        "seeds": len(members),
        "mae": float(np.median([mae(one) for one in members])),
        "mae_at_lead": float(np.median([mae(one) for one in near])),
        "difference": None if compared is None else compared.as_json(),
        "seconds": seconds,
    }


def write_page() -> None:
    """README.md, drammen.json and drammen.png in docs/results/drammen; a row that cannot be made stays as it was."""
    before = read_json(OUT / "drammen.json") if (OUT / "drammen.json").exists() else {}
    record: dict[str, Any] = {key: before.get(key, {}) for key in ("weather", "tables")}
    record |= {"widths": before.get("widths", []), "series": before.get("series")}
    for name, settings in SETTINGS.items():
        params = load(settings)
        if (Path(params.paths.windows) / "windows.json").exists():
            windows = Windows.load(params.paths.windows)
            record["series"] = len(windows.series)
            made = {one["name"]: one for one in [*record["tables"].get(name, []), *rows(params)]}
            record["tables"][name] = sorted(made.values(), key=lambda one: [*ROWS, one["name"]].index(one["name"]))
            record["weather"][name] = ahead_words(windows.meta) or "no weather of the hours forecast is known"
    assert record["tables"], "nothing was run yet"
    record["widths"] = width_rows(load(SETTINGS["perfect"])) or record["widths"]
    record |= {"date": date.today().isoformat(), "hardware": hardware(), "lead": LEAD, "published": PUBLISHED}
    write_json(OUT / "drammen.json", record)
    save(figure(record["tables"], record["weather"]), OUT / "drammen.png")
    write_text(OUT / "README.md", page(record))


def width_rows(params: Params) -> list[dict[str, Any]]:
    """Of each shape the fit of the best rate on validation."""
    folder = Path(params.paths.runs).with_name("widths")
    results = [read_json(path) for path in folder.glob("*/result.json")]
    found = []
    for hidden, layers in SHAPES:
        own = [r for r in results if (r["params"]["model.hidden"], r["params"]["model.layers"]) == (hidden, layers)]
        if own:
            best = min(own, key=lambda r: r["val_relative"])
            errors = read_forecasts(folder / best["method"])
            found.append(
                {
                    "units": hidden,
                    "layers": layers,
                    "rate": best["params"]["training.learning_rate"],
                    "rates": len(own),
                    "seconds": best["train_seconds"],
                    "val_relative": best["val_relative"],
                    "test_relative": best["test_relative"],
                    "test_mae_at_lead": mae(at_lead(errors)),
                    "commit": best["commit"],
                }
            )
    return found


def page(record: dict[str, Any]) -> str:
    """The page as Markdown."""
    machine, words = record["hardware"], record["weather"]
    lines = [
        "# Drammen: one network for 36 buildings",
        "",
        f"MAE in kW (kWh in an hour) on targets from 2021-07-01 to 2022-03-18, {record['series']} public buildings, "
        "trained on the hours before. Written by `python -m experiments.drammen.run` "
        f"([experiment](../../../experiments/drammen/README.md)) on {record['date']}, "
        f"one core of: {machine['cpu']}.",
        "",
        "![Errors](drammen.png)",
        "",
    ]
    for name, table in record["tables"].items():
        lines += [
            f"## With {words[name]}" if name == "perfect" else "## Without the weather of the hours forecast",
            "",
            f"| forecaster | seeds | MAE, all leads | MAE, {LEAD} h ahead | less LightGBM's, {LEAD} h ahead | "
            "training, s | commit |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for r in table:
            gap = r["difference"]
            compared = "" if gap is None else f"{gap['median']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]"
            lines.append(
                f"| {r['name']} | {r['seeds']} | {r['mae']:.3f} | {r['mae_at_lead']:.3f} | {compared} | "
                f"{r['seconds']:.0f} | {r['commit']} |"
            )
        lines += [
            "",
            f"{words[name][:1].upper()}{words[name][1:]}. Intervals: 90 %, whole weeks of all buildings drawn.",
            "",
        ]
    if record["widths"]:
        lines += [
            "## Width and depth",
            "",
            f"The method `pool` for {WIDTH_STEPS} steps, one seed, the best of three rates on validation; "
            f"{words['perfect']}. Relative: in a building's standard deviation over the training part.",
            "",
            f"| units | layers | rate | training, s | validation, relative | test, relative | MAE, {LEAD} h ahead | "
            "commit |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        lines += [
            f"| {w['units']} | {w['layers']} | {w['rate']:g} | {w['seconds']:.0f} | {w['val_relative']:.4f} | "
            f"{w['test_relative']:.4f} | {w['test_mae_at_lead']:.3f} | {w['commit']} |"
            for w in record["widths"]
        ]
        lines.append("")
    published = ", ".join(f"{name} {error:.2f}" for name, error in record["published"].items())
    lines += [
        "## The published table",
        "",
        "A public study of 42 buildings of this data set (repository `danbujoreanu/building-energy-load-forecast`), "
        f"{LEAD} h ahead with the weather of the target hour known, gives in kWh: {published}. Our 36 buildings are "
        "not quite its 42, so a row above is compared with the rows above, and only roughly with these.",
        "",
    ]
    return "\n".join(lines)


def figure(tables: dict[str, list[dict[str, Any]]], words: dict[str, str]) -> mpl.figure.Figure:
    """Error at the lead of each forecaster, a panel for each setting of weather."""
    with mpl.rc_context(STYLE):
        drawn, grid = new_figure(9.2, 3.6, f"Drammen: error {LEAD} h ahead", columns=max(len(tables), 1))
        for axes, (name, table) in zip(grid[0], tables.items(), strict=True):
            names = [r["name"] for r in table][::-1]
            values = [r["mae_at_lead"] for r in table][::-1]
            colours = [PALETTE[1] if one.endswith(AGAINST) else PALETTE[0] for one in names]
            axes.barh(names, values, color=colours, height=0.7)
            for at, value in enumerate(values):
                axes.text(value, at, f" {value:.2f}", va="center", fontsize=8)
            axes.set_xlim(0, 1.15 * max(values, default=1.0))
            axes.set_xlabel("MAE, kW")
            axes.set_title(words[name], fontsize=8)
    return drawn


if __name__ == "__main__":
    run_as_command(main)
