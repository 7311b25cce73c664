"""Set aggregates of the real series beside the simulator's, and put the table into docs/simulator.md.

    ISOTRAIN_REAL_SERIES=path/to/series.csv python -m experiments.simulator_aggregates.run [--write]

Without --write the table is printed only. Both series pass through the same ingest first.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd

from isotrain import files
from isotrain.config.ingest import Ingest, Simulated
from isotrain.data.ingest import ingest

PROJECT = Path(__file__).parents[2]
SEEDS = (0, 1, 2)
BEGIN, END = "<!-- aggregates: made by experiments/simulator_aggregates/run.py -->", "<!-- end of aggregates -->"


def real_series() -> Path:
    """The file named by ISOTRAIN_REAL_SERIES, or the first table in ../shared/data."""
    named = os.environ.get("ISOTRAIN_REAL_SERIES")
    return Path(named) if named else next((PROJECT.parent / "shared" / "data").glob("*.csv"))


def aggregates(frame: pd.DataFrame, raw: pd.DataFrame) -> dict[str, float]:
    """What is compared: of repaired values (``frame``) unless a row says otherwise. kW, degC, W/m2."""
    table = frame.set_index("time")
    load, air, sun = table["TGBT"], table["AirTemp"], table["Global_Solar_Flux"]
    hours = pd.DatetimeIndex(table.index).tz_convert("Europe/Paris")
    working = hours.day_of_week < 5
    before = np.arange(len(load)) < 0.75 * len(load)
    late = np.arange(len(load)) >= 0.8 * len(load)
    at = {hour: hours.hour == hour for hour in (3, 7, 10, 15, 20)}
    zones = table[[f"T{n}" for n in range(1, 8)]]
    return {
        "TGBT mean": load.mean(),
        "TGBT standard deviation": load.std(),
        "TGBT mean of the first 75 %": load[before].mean(),
        "TGBT mean of the last 20 %": load[late].mean(),
        "TGBT 99th percentile": load.quantile(0.99),
        "TGBT 1st percentile": load.quantile(0.01),
        "autocorrelation after 1 h": load.autocorr(1),
        "autocorrelation after 24 h": load.autocorr(24),
        "autocorrelation after 168 h": load.autocorr(168),
        "MAE of the hour before": load.diff().abs().mean(),
        "MAE of the same hour yesterday": load.diff(24).abs().mean(),
        "RMSE of the same hour yesterday": (load.diff(24) ** 2).mean() ** 0.5,
        "MAE of the same hour last week": load.diff(168).abs().mean(),
        "MAE of the same hour yesterday, last 20 %": load.diff(24).abs()[late].mean(),
        "MAE of the same hour last week, last 20 %": load.diff(168).abs()[late].mean(),
        **{f"Monday to Friday {h} h local / mean": load[working & s].mean() / load.mean() for h, s in at.items()},
        **{f"weekend {h} h local / mean": load[~working & s].mean() / load.mean() for h, s in at.items()},
        "slope on temperature below 15 degC, kW/K": _slope(load, air, (air < 15).to_numpy() & before),
        "slope on temperature above 23 degC, kW/K": _slope(load, air, (air > 23).to_numpy() & working & before),
        "TGBT less its zones": (load - zones.sum(axis=1)).mean(),
        **{f"{name} mean": zones[name].mean() for name in zones},
        "AirTemp mean": air.mean(),
        "AirTemp standard deviation": air.std(),
        "AirTemp, MAE of the same hour yesterday": air.diff(24).abs().mean(),
        "AirTemp, MAE of the hour before": air.diff().abs().mean(),
        "Global_Solar_Flux mean": sun.mean(),
        "Direct_Solar_Flux mean": table["Direct_Solar_Flux"].mean(),
        "Diffuse_Solar_Flux mean": table["Diffuse_Solar_Flux"].mean(),
        "Global_Solar_Flux, MAE of the same hour yesterday": sun.diff(24).abs().mean(),
        "share of hours with a negative flux, raw": (raw["Global_Solar_Flux"] < 0).mean(),
    }


def _slope(load: pd.Series, air: pd.Series, where: np.ndarray) -> float:
    return float(np.polyfit(air[where], load[where], 1)[0])


def table() -> str:
    """The comparison as Markdown."""
    real = ingest(Ingest(source=str(real_series())), real_series().parent)
    made = [ingest(Ingest(simulated=Simulated(seed=seed)), PROJECT) for seed in SEEDS]
    columns = [aggregates(tidy.frame, tidy.raw) for tidy in (real, *made)]
    head = ["aggregate", "real", *(f"simulated, seed {seed}" for seed in SEEDS)]
    rows = [[name, *(f"{column[name]:.2f}" for column in columns)] for name in columns[0]]
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, rule, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into docs/simulator.md")
    asked = parser.parse_args()
    text = table()
    print(text)
    if asked.write:
        page = PROJECT / "docs" / "simulator.md"
        start, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        files.write_text(page, f"{start}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
