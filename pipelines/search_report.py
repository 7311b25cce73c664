"""Stage search_report: the page of the search, from the study and from what was run again on fresh seeds."""

import logging

from isotrain.config import SearchReportView, load
from isotrain.config.experiments import run_stage


def main(report: str, params: str) -> None:
    view = load(params, view=SearchReportView)  # refused before what takes seconds to import

    from isotrain.report.search.page import write_search_report
    from isotrain.report.search.words import Rules
    from isotrain.search.confirm import found
    from isotrain.search.storage import reachable
    from isotrain.search.study import place
    from isotrain.training.outbox import send
    from isotrain.training.tracking import tracked

    rules = Rules(**view.compare.model_dump(include={"confidence", "bootstrap", "tolerance"}))
    with reachable():
        page = write_search_report(found(place(params)), report, rules)
    tags = {"kind": "search report", "study": view.search.study}
    with tracked(view.tracking.experiment, view.tracking.uri, "search report", tags, whole_pipeline=True) as run:
        for path in (page, *(page.with_suffix(kind) for kind in (".md", ".json")), page.with_suffix("")):
            run.artifacts(path, "search" if path.is_dir() else None)
    send()
    logging.info("report: %s", page)


if __name__ == "__main__":
    run_stage(main)
