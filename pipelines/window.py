"""Stage window: the tidy table becomes arrays, in three parts."""

import logging
from pathlib import Path

import pandas as pd

from isotrain.config import WindowView, load
from isotrain.data.windowing import describe, make_windows
from isotrain.errors import run_as_command
from isotrain.files import read_json, reading


def main(tidy: str, windows: str, params: str) -> None:
    settings = load(params, view=WindowView, trains=True).window
    with reading(tidy, "remove the folder and run `dvc repro`"):
        table, facts = pd.read_parquet(Path(tidy) / "series.parquet"), read_json(Path(tidy) / "series.json")
    made = make_windows(table, facts, settings)
    made.save(windows)
    logging.info("windows: %s", describe(made))


if __name__ == "__main__":
    run_as_command(main)
