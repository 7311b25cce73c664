"""Stage window: the tidy table becomes arrays, in three parts."""

import logging
from pathlib import Path

from isotrain.config import WindowView, load
from isotrain.config.experiments import run_stage


def main(tidy: str, windows: str, params: str) -> None:
    settings = load(params, view=WindowView, trains=True).window  # refused before what takes seconds to import

    from isotrain.data.ingest import read_all, read_facts
    from isotrain.data.windowing import describe, make_all
    from isotrain.data.windows import Windows

    make_all(read_all(Path(tidy)), read_facts(Path(tidy)), settings, Path(windows))
    logging.info("windows: %s", describe(Windows.load(windows)))


if __name__ == "__main__":
    run_stage(main)
