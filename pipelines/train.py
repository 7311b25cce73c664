"""Stage train: every fit of the study, or with METHOD and SEED that one fit alone."""

from isotrain.config import CompareView, load
from isotrain.errors import run_as_command
from isotrain.training.fits import run_fits


def main(windows: str, runs: str, params: str, method: str = "", seed: str = "") -> None:
    view = load(params, view=CompareView, trains=True)
    run_fits(view, windows, runs, [method] if method else [], [int(seed)] if seed else [])


if __name__ == "__main__":
    run_as_command(main)
