"""The command ``isotrain``: reads an unknown file, forecasts with a trained forecaster, searches for a better one.

Each command imports what it needs when it runs, so that ``--help`` and a mistyped word are answered at once.
"""

import argparse
import logging
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from isotrain.errors import InputError, run_as_command

if TYPE_CHECKING:
    import pandas as pd

    from isotrain.forecast.bundle import Bundle

    Table = Callable[[], tuple[Bundle, pd.DataFrame]]  # reads a series; the forecaster of it

PARAMS = "params.yaml"
ERRORS_OF = (
    "for a refit: the result folder of the same method trained without the validation part, whose errors there make "
    "the interval"
)
OF_MANY = "which series it is, of a forecaster that was trained on many"


def main() -> None:
    """The console script."""
    run_as_command(run)


def run(*words: str) -> None:
    """Do what ``words`` ask for; :class:`isotrain.errors.InputError` for a file or a folder that cannot be used."""
    asked = parser().parse_args(words)
    asked.command(asked)


def parser() -> argparse.ArgumentParser:
    """What may be asked."""
    top = argparse.ArgumentParser(
        "isotrain", description="Read a file, use a trained forecaster, search for a better one."
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    _add_inspect(
        commands.add_parser("inspect", help="find out how a CSV is written; --write makes it the study's series")
    )

    forecast = commands.add_parser("forecast", help="forecast the hours after the last row of a series")
    forecast.add_argument(
        "--csv",
        type=Path,
        help="recent history, in the form of the training file, and after it what is known ahead of the hours to be "
        "forecast, if the forecaster reads any (default: the series of the study); of a folder or a zip file each file "
        "is the series that it is called after",
    )
    forecast.add_argument("--series", metavar="NAME", help=f"{OF_MANY} (default: what the file is called, else all)")
    forecast.add_argument("--out", type=_file, required=True, help="the CSV to write: a row an hour, kW")
    forecast.add_argument("--plot", type=_figure, help="a figure to write too, .png or .svg")
    forecast.add_argument(
        "--model",
        metavar="MODEL",
        help="result folder of a fit, runs:/... or models:/... (default: what was published)",
    )
    forecast.add_argument(
        "--coverage", type=_share, default=0.8, help="coverage of the interval, between 0 and 1 (0.8)"
    )
    forecast.add_argument("--errors-of", metavar="FOLDER", help=ERRORS_OF)
    forecast.set_defaults(command=_forecast)

    adapt = commands.add_parser(
        "adapt", help="adapt a trained forecaster to new series: what to thaw is chosen by their data"
    )
    adapt.add_argument("--csv", type=Path, required=True, help="the new series, written as the training file is; of a "
                       "folder or a zip file each table is one")  # fmt: skip
    adapt.add_argument(
        "--out",
        type=_file,
        default=Path("results/adapted"),
        help="the folder to write: of each series a forecaster below it (results/adapted)",
    )
    adapt.add_argument(
        "--model",
        metavar="MODEL",
        help="the forecaster to adapt: result folder of a fit, runs:/... or models:/... (default: what was published)",
    )
    adapt.add_argument(
        "--series", metavar="NAME", help="which of its series the new ones are written as (default: its first)"
    )
    adapt.set_defaults(command=_adapt)

    log_model = commands.add_parser("log-model", help="log a trained forecaster as an MLflow model")
    log_model.add_argument("folder", nargs="?", help="result folder of a fit (default: what was published)")
    log_model.add_argument("--csv", type=Path, required=True, help="the series: its end becomes the input example")
    log_model.add_argument("--series", metavar="NAME", help=f"{OF_MANY} (default: what the file is called)")
    log_model.add_argument("--name", help="register the model under this name (models:/NAME/1)")
    log_model.add_argument("--errors-of", metavar="FOLDER", help=ERRORS_OF)
    log_model.set_defaults(command=_log_model)

    reset = commands.add_parser("reset", help="set back what experiments (dvc exp run -S) changed in params.yaml")
    reset.set_defaults(command=_reset)

    study = commands.add_parser(
        "study", help="run the study: what isolation does to time and accuracy (docs/protocol.md)"
    )
    study.add_argument(
        "--profile",
        choices=["quick", "standard", "full"],
        default="quick",
        help="quick: minutes | standard: about an hour | full: a night (quick)",
    )
    study.add_argument(
        "--chapters", nargs="+", choices=["a", "b", "h"], default=[], metavar="LETTER",
        help="the races to run: a, the building | b, the laboratory's network | h, other networks (default: all)",
    )  # fmt: skip
    study.add_argument("--params", default=PARAMS, help=f"the file of settings ({PARAMS})")
    study.add_argument("--out", type=Path, default=Path("results/study"), help="the folder to write (results/study)")
    study.add_argument("--record", action="store_true", help="run nothing: make what was run the pages of docs/")
    study.set_defaults(command=_study)

    search = commands.add_parser("search", help="one worker of a study, how the study stands, its MLflow runs")
    _add_search(search.add_subparsers(required=True, metavar="COMMAND"))
    return top


def _add_search(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    for name, command, about in (
        ("worker", _worker, "run trials of the study until its budget is spent; as many at once as you like"),
        ("status", _status, "how the study stands"),
        (
            "confirm",
            _confirm,
            "run the front's best points again on fresh seeds, beside the methods that they would replace",
        ),
        ("sync", _sync, "send to MLflow the runs, of fits and of trials, that could not be sent when they ended"),
    ):
        one = commands.add_parser(name, help=about)
        one.add_argument("--params", default=PARAMS, help=f"the file that describes the study ({PARAMS})")
        one.set_defaults(command=partial(_on_a_study, command))


def _add_inspect(inspect: argparse.ArgumentParser) -> None:
    inspect.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="a CSV, also in a zip file (a.zip/b.csv); several: one series; a folder or a zip file: each file is one",
    )
    inspect.add_argument(
        "--write", action="store_true", help=f"put the file into the folder of raw files, the section into {PARAMS}"
    )
    inspect.add_argument(
        "--picture", type=_figure, metavar="PNG", help="the figure to write: series, week, flagged hours"
    )
    order = inspect.add_mutually_exclusive_group()
    for name, first in (("--day-first", True), ("--month-first", False)):
        what = "the day" if first else "the month"
        order.add_argument(name, dest="day_first", action="store_const", const=first, help=f"dates begin with {what}")
    inspect.add_argument("--time-zone", metavar="ZONE", help="of the building, such as Europe/Oslo")
    inspect.add_argument("--country", metavar="CODE", help="whose public holidays count, such as NO")
    inspect.add_argument("--target", metavar="HEADING", help="the column to forecast")
    inspect.add_argument("--unit", choices=["W", "kW", "MW", "Wh", "kWh", "MWh"], help="of the column to forecast")
    inspect.set_defaults(command=_inspect)


def _on_a_study(command: Callable[[argparse.Namespace], None], asked: argparse.Namespace) -> None:
    from isotrain.search.storage import reachable

    with reachable():
        command(asked)


def _inspect(asked: argparse.Namespace) -> None:
    logging.info("reading %s", ", ".join(map(str, asked.files)))
    logging.getLogger("isotrain.data").setLevel(logging.WARNING)  # the limits of each column stand in the data report
    from isotrain.config import load
    from isotrain.data.cells import unpacked
    from isotrain.data.ingest import ingest, ingest_all
    from isotrain.data.inspect import (
        Asked,
        agreement,
        as_yaml,
        bring_in,
        flagged,
        inspect,
        inspect_many,
        picture,
        words,
        write_section,
    )
    from isotrain.data.locate import tables_of
    from isotrain.data.schema import TIME

    raw = Path(load(PARAMS).paths.raw) if asked.write else Path()  # a fault in the file of settings is said at once
    known = Asked(asked.day_first, asked.time_zone, asked.country, asked.target, asked.unit)
    with tempfile.TemporaryDirectory() as folder:
        series = tables_of(asked.files[0]) if len(asked.files) == 1 else []
        if len(series) > 1:
            paths, near = [asked.files[0].resolve()], asked.files[0].resolve().parent
            proposal = inspect_many(series, known)
            print(f"{words(proposal)}\n\n{as_yaml(proposal.section)}", flush=True)
            settings = proposal.settings(asked.files[0].name).model_copy(update={"broken": "leave_out"})
            many = ingest_all(settings, near)
            tidy, *_ = (one for number, one in enumerate(many) if number == 0)  # all are read, the first is shown
            print(f"{agreement(many)}\n\n{tidy.facts['name']}:")
        else:
            paths = [unpacked(path, Path(folder)).resolve() for path in asked.files]
            proposal = inspect(paths, known)
            print(f"{words(proposal)}\n\n{as_yaml(proposal.section)}", flush=True)
            near = paths[0].parent
            names = [path.name if path.parent == near else str(path) for path in paths]
            tidy = ingest(proposal.settings(names[0] if len(names) == 1 else names), near)  # it has the last word
        load_kw = tidy.frame.set_index(TIME)[tidy.facts["target"]]
        print(f"{picture(load_kw, tidy.facts['time_zone'], tidy.facts['unit'])}\n\n{flagged(tidy.facts)}")
        if asked.picture:
            from isotrain.report.data_report import figure
            from isotrain.report.drawing import save

            save(figure(tidy), asked.picture)
            logging.info("%s: the series, its typical week, the flagged hours", asked.picture)
        if asked.write:
            source = bring_in(paths, raw)
            write_section(Path(PARAMS), {"source": source, **proposal.section})
            load(PARAMS)
            print(f"\n{PARAMS} reads {source} of {raw} from now on. Next: make reproduce")
        else:
            again = " ".join(map(str, asked.files))
            print(f"\nNothing is written yet. To make it the study's series: isotrain inspect {again} --write")


def _forecast(asked: argparse.Namespace) -> None:
    from isotrain.data.windows import PERFECT, ahead_words
    from isotrain.files import replacing
    from isotrain.serve.predict import in_one, predict, use_one_thread

    logging.getLogger("isotrain.lstm").setLevel(logging.WARNING)  # do not report which kernels compute it
    use_one_thread()
    bundle = _bundle(_folder(asked.model), asked.errors_of)
    logging.info("forecaster: %s, method %s", asked.model or bundle.folder, bundle.name)
    if bundle.ahead:
        logging.info("it learnt with %s", ahead_words(bundle.meta))
        if PERFECT in ahead_words(bundle.meta):
            logging.info("so its interval leaves out the errors that a real weather forecast has")
    tables = _tables(bundle, asked.csv, asked.series)
    if len(tables) > 1 and asked.plot:
        raise InputError(f"--plot draws one series, and there are {len(tables)}: name one with --series")
    answers, refused = {}, {}
    for name, table_of in tables.items():
        try:
            one, table = table_of()
            answers[name] = predict(one, table, asked.coverage)
        except InputError as problem:
            if len(tables) == 1:
                raise
            refused[name] = problem
            logging.warning("%s has no forecast: %s", name, problem)
    if answers:
        written = in_one(answers) if len(tables) > 1 else answers[name]
        with replacing(asked.out) as draft:
            written.to_csv(draft, index=False, float_format="%.3f")
        of_many = f"{len(answers)} of {len(tables)} series, " if len(tables) > 1 else ""
        first = written["time_local"].iloc[0]
        logging.info("%s: %s%d h from %s on", asked.out, of_many, len(answers[next(iter(answers))]), first)
    if refused:
        raise InputError(f"no forecast of {len(refused)} of {len(tables)} series: {', '.join(refused)} (why: above)")
    if asked.plot:
        from isotrain.report.drawing import save
        from isotrain.report.fans import forecast_figure

        save(forecast_figure(one, table), asked.plot)
        logging.info("%s: the last week and the forecast", asked.plot)


def _adapt(asked: argparse.Namespace) -> None:
    from isotrain.adapt.many import adapt_all
    from isotrain.config import load
    from isotrain.data.locate import tables_of
    from isotrain.forecast.bundle import load_bundle

    for quiet in ("isotrain.data.ingest", "isotrain.lstm"):  # of each meter its limits, and what computes the network
        logging.getLogger(quiet).setLevel(logging.WARNING)
    bundle = load_bundle(_folder(asked.model))
    logging.info("forecaster: %s, method %s", asked.model or bundle.folder, bundle.name)
    tracking = load(PARAMS).tracking if Path(PARAMS).is_file() else None  # outside of a project there are no runs
    adapt_all(bundle, tables_of(asked.csv), asked.out, asked.series, asked.model or str(bundle.folder), tracking)


def _tables(bundle: "Bundle", csv: Path | None, series: str | None) -> "dict[str, Table]":
    """What is to be forecast: by name, how to read the series and the forecaster of it.

    All series of the study, or of the folder or zip file ``csv``; ``series`` alone if it is given.
    """
    from isotrain.config import load
    from isotrain.data.ingest import folders, named_by_file
    from isotrain.data.locate import named, tables_of
    from isotrain.serve.predict import read_series

    def of_file(path: Path, name: str | None) -> "tuple[Bundle, pd.DataFrame]":
        one = bundle.only(name) if name else bundle.of_file(path)
        return one, read_series(one, path)

    if series:
        bundle.only(series)  # refused before anything is read
    if csv is not None:
        files = named_by_file(tables_of(csv))
        if len(files) == 1:
            return {name: partial(of_file, path, series) for name, path in files.items()}
        if series and series not in files:
            raise InputError(f"{csv} holds no file of the series {series} but of {named([*files])}")
        return {name: partial(of_file, path, name) for name, path in files.items() if series in (None, name)}
    tidy = Path(load(PARAMS).paths.tidy)
    if not tidy.is_dir():
        raise InputError(f"there is no series in {tidy}: run `make reproduce` first, or name a file with --csv")
    found = folders(tidy)
    if len(bundle.names) == 1:  # of a study of one series whatever it is called
        series = bundle.names[0]
        found = dict(zip([series], found.values(), strict=True)) if len(found) == 1 else found
    if series and series not in found:
        raise InputError(f"the study in {tidy} has no series {series}: name a file of it with --csv")
    wanted = [series] if series else [*found]
    return {name: partial(_of_study, bundle, name, found[name]) for name in wanted}


def _of_study(bundle: "Bundle", name: str, tidy: Path) -> "tuple[Bundle, pd.DataFrame]":
    """The series in the folder ``tidy``, the last hours of it as the future where something is known ahead."""
    from isotrain.data.ingest import read
    from isotrain.serve.predict import check_recent, end_known_ahead, past_and_future

    bundle = bundle.only(name)
    table, facts = read(tidy)
    table.attrs["source"] = facts["source"]
    table = end_known_ahead(table, bundle)
    past, future = past_and_future(table, bundle.meta["target"])
    check_recent(past, bundle)
    if len(future):
        logging.info(
            "the last %d h of the series serve as what is known ahead: the forecast begins before them", len(future)
        )
    return bundle, table


def _study(asked: argparse.Namespace) -> None:
    from isotrain.config import load
    from isotrain.study.study import STUDY, record, run_study

    if asked.record:
        for page in record(asked.out / asked.profile / STUDY, Path()):
            logging.info("%s", page)
        return
    page = run_study(load(asked.params), asked.profile, asked.chapters, asked.out, Path())
    logging.info("the answer: %s", page)


def _log_model(asked: argparse.Namespace) -> None:
    from isotrain.config import load
    from isotrain.serve.registry import log_model

    bundle = _bundle(_folder(asked.folder), asked.errors_of)
    uri = log_model(bundle, asked.csv, load(PARAMS).tracking, asked.name, asked.series or "")
    logging.info("logged as %s: %s", uri, bundle.description)


def _reset(asked: argparse.Namespace) -> None:
    from isotrain.config.experiments import reset

    print(reset() or f"{PARAMS} has no value of an experiment")


def _worker(asked: argparse.Namespace) -> None:
    from isotrain.config import check_device
    from isotrain.search.local_workers import own_cores
    from isotrain.search.study import place

    at = place(asked.params)
    base = at.space.settings({})
    own_cores(base.runtime.threads)  # torch, imported below, must find its cores chosen
    check_device(base)

    from isotrain.search.objective import objective
    from isotrain.search.tracking import TrialTracking
    from isotrain.search.worker import work

    work(at, objective(at), on_finished=TrialTracking(at))


def _status(asked: argparse.Namespace) -> None:
    from isotrain.search.status import status
    from isotrain.search.study import place

    print(status(place(asked.params)))


def _confirm(asked: argparse.Namespace) -> None:
    from isotrain.search.confirm import confirm_best
    from isotrain.search.study import place

    confirm_best(place(asked.params))


def _sync(asked: argparse.Namespace) -> None:
    from isotrain.search.study import place
    from isotrain.search.tracking import sync

    print(sync(place(asked.params)))


def _bundle(folder: Path, errors_of: str | None) -> "Bundle":
    from isotrain.forecast.bundle import load_bundle

    bundle = load_bundle(folder)
    return bundle.with_errors_of(load_bundle(Path(errors_of))) if errors_of else bundle


def _folder(model: str | None) -> Path:
    """The folder of the forecaster that ``--model`` names."""
    from isotrain.config import load

    if model is None:
        from isotrain.forecast.bundle import PUBLISHED, best_bundle

        paths = load(PARAMS).paths
        if (published := Path(paths.report) / PUBLISHED).is_dir():
            return published
        logging.warning("the report has published no forecaster yet: the best network of %s is used", paths.runs)
        return best_bundle(Path(paths.runs))
    if not model.startswith(("runs:/", "models:/")):
        return Path(model)
    from isotrain.serve.registry import fetch  # MLflow takes a second to import

    return fetch(model, load(PARAMS).tracking.uri if Path(PARAMS).is_file() else None)


def _file(word: str) -> Path:
    if not Path(word).name:
        raise argparse.ArgumentTypeError(f"{word!r} names no file")
    return Path(word)


def _figure(word: str) -> Path:
    path = Path(word)
    if path.suffix not in (".png", ".svg"):
        raise argparse.ArgumentTypeError(f"{word} must end in .png or .svg")
    return path


def _share(word: str) -> float:
    share = float(word)
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{word} must lie between 0 and 1, such as 0.8")
    return share


if __name__ == "__main__":
    main()
