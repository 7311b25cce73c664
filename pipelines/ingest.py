"""Stage ``ingest``: each raw series becomes an hourly table without gaps; a report says what was repaired."""

from pathlib import Path

from isotrain.config import IngestView, load
from isotrain.config.experiments import run_stage


def main(raw: str, tidy: str, reports: str, params: str) -> None:
    """Read folder ``raw``; write the tables to folder ``tidy`` and the report to folder ``reports``."""
    settings = load(params, view=IngestView, trains=True)  # refused before what takes seconds to import

    from isotrain.data.ingest import ingest, ingest_all, write, write_all
    from isotrain.report.data_report import report
    from isotrain.report.overview import Overview

    if settings.ingest.series == "each":
        many, overview = ingest_all(settings.ingest, Path(raw), settings.window), Overview(Path(reports))
        write_all(many, Path(tidy), overview.note)
        overview.write(many.left_out, many.remarks)
    else:
        series = ingest(settings.ingest, Path(raw), settings.window)
        write(series, Path(tidy))
        report(series, Path(reports))


if __name__ == "__main__":
    run_stage(main)
