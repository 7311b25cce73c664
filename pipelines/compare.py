"""Stage compare: the report of all fits beside the baselines."""

import logging
from pathlib import Path

from isotrain.config import CompareView, load
from isotrain.config.experiments import run_stage


def main(windows: str, runs: str, baselines: str, report: str, params: str) -> None:
    view = load(params, view=CompareView)  # refused before what takes seconds to import

    from isotrain.compare.comparison import Settings
    from isotrain.compare.results import chosen_runs, read_baselines
    from isotrain.data.windows import Windows
    from isotrain.report.page import write_report
    from isotrain.training.outbox import send
    from isotrain.training.tracking import tracked

    wanted, tracking = view.compare, view.tracking
    fits = chosen_runs(runs, wanted.methods, wanted.seeds)
    about = {name: view.methods[name].about for name in wanted.methods}
    settings = Settings(**wanted.model_dump(exclude={"methods", "seeds", "baselines"}), about=about)
    page = write_report(fits, read_baselines(Path(baselines)), report, settings, Windows.load(windows))
    with tracked(tracking.experiment, tracking.uri, "report", {"kind": "report"}, whole_pipeline=True) as run:
        run.artifacts(page.parent)
    send()
    logging.info("report: %s", page)


if __name__ == "__main__":
    run_stage(main)
