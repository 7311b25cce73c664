"""Compare the fits: baselines on the same origins, then the report."""

from pathlib import Path

from isotrain.config import CompareView, load
from isotrain.data.windows import Windows
from isotrain.errors import run_as_command
from isotrain.files import write_json
from isotrain.forecast.baselines import score_baselines
from isotrain.reporting.report import write_report
from isotrain.tradeoff.comparison import Settings
from isotrain.tradeoff.results import read_runs


def main(windows_folder: str, runs_folder: str, report_folder: str, params_path: str = "params.yaml") -> None:
    """Read the windows and the fits, write the report."""
    view = load(params_path, view=CompareView)
    runs = [run for run in read_runs(runs_folder) if run.method in view.compare.methods]
    baselines = score_baselines(Windows.load(windows_folder))
    write_json(Path(runs_folder).parent / "baselines.json", {"baselines": baselines})
    about = {name: view.methods[name].about for name in view.compare.methods}
    references = (dict(view.compare.reference_stock), dict(view.compare.reference_tuned))
    settings = Settings(*references, view.compare.confidence, view.compare.bootstrap, about)
    print(f"report: {write_report(runs, baselines, report_folder, settings)}")


if __name__ == "__main__":
    run_as_command(main)
