"""The pages are true: links lead somewhere, commands exist, the dictionary is whole, errors are quoted as printed."""

import ast
import json
import re
import shlex
from argparse import ArgumentError
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from tests.search.made_up_study import made_up_study
from tests.search.real_study import job, tiny_place
from tests.search.test_page import RULES, confirmed, searched
from tests.test_training import small

from isotrain import cli
from isotrain.compare.comparison import Settings
from isotrain.compare.results import read_baselines, read_runs
from isotrain.config import Ingest
from isotrain.config.ingest import Simulated
from isotrain.config.sections import Tracking
from isotrain.data.ingest import ingest, write
from isotrain.data.windows import Windows
from isotrain.report import page as report_page
from isotrain.report.search import page as search_page
from isotrain.search.objective import objective
from isotrain.search.study import open_study
from isotrain.search.tracking import pending_run
from isotrain.training.baselines import run_baselines
from isotrain.training.fit import fit
from isotrain.training.fits import Allowed

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md")), *sorted(ROOT.glob("*/*/README.md"))]
CODE = [*sorted((ROOT / "src").rglob("*.py")), *sorted((ROOT / "pipelines").glob("*.py"))]
COMMANDS = re.compile(r"^ *(?:srun .*?)?((?:isotrain|make|dvc repro)\b[^|#\n]*)", re.MULTILINE)
SPAN = re.compile(r"`([^`]+)`")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The anchors of the headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        goal = (page.parent / path).resolve() if path else page
        assert goal.exists(), link
        assert not anchor or anchor in anchors(goal), link


def test_every_page_is_in_the_index() -> None:
    linked = set(re.findall(r"\]\(([\w./-]+)", text_of(DOCS / "index.md")))
    assert {page.name for page in DOCS.glob("*.md")} - linked == {"index.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    """Their first words: what the parser of isotrain, the Makefile and dvc.yaml know."""
    text = text_of(page)
    blocks = re.findall(r"```(?:bash|sh)?\n(.*?)```", text, re.DOTALL)
    spans = [span for span in SPAN.findall(text) if not span.startswith("make_")]
    targets = set(re.findall(r"^([a-z-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    others = {"pipelines/dvc.yaml", "pipelines/adapt/dvc.yaml", "--force"}
    stages = {*yaml.safe_load(text_of(ROOT / "dvc.yaml"))["stages"], *others}
    for command in COMMANDS.findall("\n".join([*blocks, *spans])):
        words = [word for word in shlex.split(command.strip()) if word != "&&"]
        if words[0] == "make":
            assert {word for word in words[1:] if re.fullmatch("[a-z-]+", word)} <= targets, command
        elif words[0] == "dvc":
            assert set(words[2:]) <= stages, command
        elif len(words) > 1 and words[1] != "...":
            with pytest.MonkeyPatch.context() as patch, suppress(Unfinished):
                patch.setattr(cli.argparse.ArgumentParser, "error", refuse)
                cli.parser().parse_args(words[1:])


class Unfinished(Exception):
    """A command that is named in a sentence, without its words."""


def refuse(self: Any, message: str) -> None:
    if "are required:" in message:
        raise Unfinished(message)
    raise ArgumentError(None, message)


def test_lines_to_be_copied_to_a_cluster_are_short_and_have_no_prompt() -> None:
    for block in re.findall(r"```\n(.*?)```", text_of(DOCS / "cluster.md"), re.DOTALL):
        for line in block.splitlines():
            assert len(line) < 100 and not line.startswith(("$", ">", "#")), line


def test_what_a_student_changes_comes_first_in_the_job() -> None:
    lines = text_of(ROOT / "cluster" / "search.sbatch").splitlines()
    settings = [line.split("=")[0].removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")]
    first = settings[: settings.index("job-name")]
    assert first == ["partition", "account", "time", "array", "mem", "export"]
    assert all(f"`{name}`" in text_of(DOCS / "cluster.md") for name in first)


# errors


def literals(path: Path) -> Iterator[str]:
    """Every text of a module; in place of what an f-string computes stands NUL."""
    for node in ast.walk(ast.parse(text_of(path))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"%[\d.]*[sdgf]", "\0", node.value)


def is_printed(quote: str, texts: list[str]) -> bool:
    """Whether a text holds the parts of ``quote`` between its capitals and dots, in their order."""
    parts = [re.escape(part.strip()) for part in re.split(r"\.\.\.|\b[A-Z]{3,}\b", quote) if part.strip()]
    pattern = re.compile(".*".join(parts), re.DOTALL)
    return any(pattern.search(text) for text in texts)


def quoted() -> list[str]:
    """The errors of this project that the page quotes: code in the first column, with no other program named behind."""
    rows = re.findall(r"^\| (`.*?) \|", text_of(DOCS / "troubleshooting.md"), re.MULTILINE)
    return [row.strip("`") for row in rows if row.endswith("`")]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Everything that the project can print."""
    words = [text for path in CODE for text in literals(path)]
    return [*words, text_of(ROOT / "Makefile"), text_of(ROOT / "cluster" / "search.sbatch")]


@pytest.mark.parametrize("quote", quoted())
def test_errors_are_quoted_as_they_are_printed(quote: str, texts: list[str]) -> None:
    assert is_printed(quote, texts)


def test_what_nobody_prints_is_found_out(texts: list[str]) -> None:
    assert len(quoted()) > 20
    assert not is_printed("FILE holds hardly any of its sheep", texts)


# the dictionary


def dictionary() -> dict[str, set[str]]:
    """Heading -> names in the first column of the tables below it."""
    found = {}
    for section in text_of(DOCS / "results-files.md").split("\n## ")[1:]:
        title, _, body = section.partition("\n")
        rows = re.findall(r"^\| (`[^|]*)\|", body, re.MULTILINE)
        found[title] = {name for row in rows for name in SPAN.findall(row)}
    return found


def paths(value: Any, within: str = "") -> Iterator[str]:
    """The dotted path of every value; those inside a list have the path of the list."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from paths(inner, f"{within}.{key}" if within else str(key))
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        for one in value:
            yield from paths(one, within)
    else:
        yield within


def unknown(written: Any, names: set[str]) -> set[str]:
    """The paths of ``written`` that ``names`` lack; what they end with may be the three figures of an interval."""
    open_ends = tuple(name.removesuffix("*") for name in names if name.endswith(".*"))
    plain = {re.sub(r"\.(median|low|high)$", "", path) for path in paths(written)} - names - {""}
    return {path for path in plain if not f"{path}.".startswith(open_ends)}


@pytest.fixture(scope="module")
def study(windows: Windows, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A tiny study: its files where the stages put them, its MLflow runs still pending."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        write(ingest(Ingest(simulated=Simulated(hours=24 * 7 * 10)), folder), folder / "tidy")
        windows.save(folder / "windows")
        run_baselines(["same-hour-yesterday", "ridge"], windows, folder / "baselines", Tracking(), 1)
        for method in ("tuned", "autonomous-75", "steps-adaptive"):
            fit(small(method, training__steps=20), 0, windows, folder / "runs" / f"{method}-0")
        settings = Settings({"streamed": "tuned"}, {"streamed": "tuned"}, bootstrap=50, against="ridge")
        without_figures(patch, report_page)
        report_page.write_report(read_runs("runs"), read_baselines("baselines"), folder / "report", settings, windows)
        here = tiny_place(folder, windows)
        asked = open_study(here).ask()
        here.space.suggest(asked)
        outcome = objective(here)(job(here), lambda *_: None)
        for name, value in {**outcome.attrs, "seed": 0, "worker": "host:1", "early": False}.items():
            asked.set_user_attr(name, value)
        asked.study.tell(asked, outcome.values)
        pending_run(here, asked.study.trials[0]).write(folder / "pending_runs")
        yield folder


def without_figures(patch: pytest.MonkeyPatch, module: ModuleType) -> None:
    """Drawing takes most of the time of a report, and says nothing here."""
    patch.setattr(module, "draw_all", lambda *_: [])
    patch.setattr(module, "html_page", lambda *_: "")
    for name in {"fans", "_draw_isolation"} & set(vars(module)):
        patch.setattr(module, name, lambda *_: [])


FILES = {
    "series.json": "tidy/series.json",
    "windows.json": "windows/windows.json",
    "baselines.json": "baselines/baselines.json",
    "tradeoff.json": "report/tradeoff.json",
    "result.json": "runs/*/result.json",
    "search.json": "results/search/*/trials/*/result.json",
}


@pytest.mark.slow
@pytest.mark.parametrize("title", FILES)
def test_every_key_that_is_written_is_in_the_dictionary(title: str, study: Path) -> None:
    written = list(study.glob(FILES[title]))
    assert written
    names = dictionary()[title]
    assert {str(path): unknown(json.loads(text_of(path)), names) for path in written} == {
        str(path): set() for path in written
    }


@pytest.mark.slow
def test_every_figure_of_metrics_json_and_of_a_budget_is_in_the_dictionary(study: Path) -> None:
    figures = json.loads(text_of(study / "report" / "metrics.json")).values()
    assert {name for one in figures for name in one} == dictionary()["metrics.json"]
    assert set(Allowed.__annotations__) == dictionary()["budgets.json"]


@pytest.mark.slow
def test_every_key_of_the_report_of_a_search_is_in_the_dictionary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_figures(monkeypatch, search_page)
    found = confirmed(searched(made_up_study(24)), tmp_path / "fits")
    page = search_page.write_search_report(found, tmp_path / "report", RULES)
    assert not unknown(json.loads(text_of(page.with_suffix(".json"))), dictionary()["search.json"])


@pytest.mark.slow
def test_every_metric_and_tag_of_mlflow_is_in_the_dictionary(study: Path) -> None:
    names = dictionary()["MLflow"]
    runs = [json.loads(text_of(path)) for path in study.glob("pending_runs/*/run.json")]
    assert len(runs) == 6
    metrics = {metric[0] for run in runs for metric in run["metrics"]}
    tags = {tag for run in runs for tag in {**run["tags"], **run["key"]}}
    assert not {name for name in metrics | tags if unknown({name: 0}, names)}


def test_the_dictionary_names_nothing_that_the_code_does_not_know() -> None:
    code = "\n".join(text_of(path) for path in CODE)
    stems = {name.removesuffix(".*").split(".")[-1].split("/")[-1] for names in dictionary().values() for name in names}
    stems = {stem for stem in stems if not re.search(rf"\b{re.escape(stem)}\b", code)}
    assert stems <= {"value_0", "value_1"}  # counted by the code


def test_a_key_that_the_dictionary_lacks_is_found_out() -> None:
    assert unknown({"a": {"b": 1, "c": {"median": 1}}, "d": [{"e": 1}]}, {"a.b", "d.*"}) == {"a.c"}
