"""Stage baselines: forecasts without a network, fitted and scored on the same origins."""

from pathlib import Path

from isotrain.config import CompareView, load
from isotrain.config.experiments import run_stage


def main(windows: str, out: str, params: str) -> None:
    view = load(params, view=CompareView, trains=True)  # refused before what takes seconds to import

    from isotrain.data.windows import Windows
    from isotrain.training.baselines import run_baselines
    from isotrain.training.outbox import send

    run_baselines(view.compare.baselines, Windows.load(windows), Path(out), view.tracking, view.runtime.threads)
    send()


if __name__ == "__main__":
    run_stage(main)
