"""Stage train: every fit of the study, or with METHOD and SEED that one fit alone."""

from isotrain.config import CompareView, load
from isotrain.config.experiments import run_stage
from isotrain.errors import InputError
from isotrain.training.fits import run_fits


def main(windows: str, runs: str, params: str, method: str = "", seed: str = "") -> None:
    view = load(params, view=CompareView, trains=True)
    if method:
        view.settings(method)  # refused here where it does not exist
    if seed and not (seed.isdecimal() and int(seed) < 2**32):
        raise InputError(f"the seed {seed!r} must be a whole number from 0 to 4294967295")
    run_fits(view, windows, runs, [method] if method else [], [int(seed)] if seed else [])


if __name__ == "__main__":
    run_stage(main)
