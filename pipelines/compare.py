"""Stage compare: baselines on the same origins, then the report of all fits."""

from pathlib import Path

from isotrain.config import CompareView, load
from isotrain.data.windows import Windows
from isotrain.errors import run_as_command
from isotrain.files import write_json
from isotrain.forecast.baselines import score_baselines
from isotrain.reporting.report import write_report
from isotrain.tracking import tracked
from isotrain.tradeoff.comparison import Settings
from isotrain.tradeoff.results import read_runs


def main(windows: str, runs: str, report: str, params: str) -> None:
    view = load(params, view=CompareView)
    wanted = view.compare
    fits = [run for run in read_runs(runs) if run.method in wanted.methods and run.seed in wanted.seeds]
    baselines = score_baselines(Windows.load(windows))
    write_json(Path(report) / "baselines.json", {"baselines": baselines})
    about = {name: view.methods[name].about for name in wanted.methods}
    settings = Settings(**wanted.model_dump(exclude={"methods", "seeds"}), about=about)
    page = write_report(fits, baselines, report, settings)
    with tracked(view.tracking.experiment, view.tracking.uri, "report", {"kind": "report"}, whole_pipeline=True) as run:
        run.artifacts(page.parent)


if __name__ == "__main__":
    run_as_command(main)
