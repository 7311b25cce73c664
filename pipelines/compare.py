"""Stage compare: the report of all fits beside the baselines."""

import logging
from pathlib import Path

from isotrain.config import CompareView, load
from isotrain.config.experiments import run_stage


def main(windows: str, runs: str, baselines: str, report: str, params: str) -> None:
    view = load(params, view=CompareView)  # refused before what takes seconds to import

    from isotrain.compare.accuracy import best_on_validation
    from isotrain.compare.comparison import Settings
    from isotrain.compare.results import chosen_runs, read_baselines
    from isotrain.data.windows import Windows
    from isotrain.report.page import write_report
    from isotrain.training.outbox import send
    from isotrain.training.tracking import log_report, tracked

    wanted, tracking, series = view.compare, view.tracking, Windows.load(windows)
    fits, rows = chosen_runs(runs, wanted.methods, wanted.seeds), read_baselines(Path(baselines))
    about = {name: view.methods[name].about for name in wanted.methods}
    settings = Settings(**wanted.model_dump(exclude={"methods", "seeds", "baselines"}), about=about)
    if best := best_on_validation(fits, rows):
        best.publish(Path(report), series)
    page = write_report(fits, rows, report, settings, series, best)
    absent = {*wanted.baselines} - {row.name for row in rows}  # such as LightGBM where it is not installed
    tags = {"kind": "report", "study": tracking.study, "baselines.absent": ", ".join(sorted(absent)) or "none"}
    with tracked(tracking.experiment, tracking.uri, "report", tags, whole_pipeline=True) as run:
        log_report(run, page, Path(runs), Path(baselines))
    send()
    logging.info("report: %s", page)


if __name__ == "__main__":
    run_stage(main)
