"""dvc.yaml: its stages are packages, and each declares every package whose code decides what it writes."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

from isotrain.config import VIEWS

ROOT = Path(__file__).parents[1]
PIPELINES = [ROOT / "dvc.yaml", ROOT / "pipelines" / "dvc.yaml"]
STAGES: dict[str, Any] = {k: v for path in PIPELINES for k, v in yaml.safe_load(path.read_text())["stages"].items()}
PATHS: dict[str, str] = yaml.safe_load((ROOT / "params.yaml").read_text())["paths"]
# Code that decides no result: settings reach a stage as its params, and these only carry or show.
CARRIERS = {"config", "errors", "files"}
# What a stage's script uses of a package that is not a dependency of it, and why that decides nothing that it writes.
EXCEPTIONS = {
    "ingest": {"report"},  # the drawing of the data report: its colours
    "baselines": {
        "data",
        "training",
        "forecast",
        "isolation",
        "lstm",
    },  # the windows; tracking and the machine's lock; scores
    "train": {"data"},  # what it reads of the windows comes from the stage window, which depends on it
    "compare": {
        "baselines",
        "data",
        "forecast",
        "isolation",
        "lstm",
        "serve",
        "training",
    },  # forecasts are read, nothing is computed; of baselines the names of those that can be published
    "search": {"compare", "data", "forecast", "isolation", "lstm", "training"},  # checked when the study is opened
    "search_report": {"baselines", "data", "forecast", "isolation", "lstm", "serve", "training"},
}


@cache
def import_graph() -> grimp.ImportGraph:
    return grimp.build_graph("isotrain")


def imported_packages(script: Path) -> set[str]:
    """Every package of isotrain that runs when the script does."""
    graph = import_graph()
    direct: set[str] = set()
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("isotrain"):
            direct.add(node.module)
            direct |= {f"{node.module}.{name.name}" for name in node.names} & graph.modules
    found: set[str] = set()
    waiting = list(direct)
    while waiting:
        module = waiting.pop()
        if module in found or module == "isotrain":
            continue
        found.add(module)
        if module.split(".")[1] not in CARRIERS:
            waiting += graph.find_modules_directly_imported_by(module)
    return {module.split(".")[1] for module in found}


def declared_packages(stage: str) -> set[str]:
    deps = [dep for dep in STAGES[stage]["deps"] if dep.startswith("src/")]
    assert all((ROOT / dep).exists() for dep in deps)
    return {dep.split("/")[2] for dep in deps}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_the_packages_that_it_runs(stage: str) -> None:
    needed = imported_packages(ROOT / "pipelines" / f"{stage}.py") - CARRIERS
    declared = declared_packages(stage) - CARRIERS
    assert needed - declared == needed & (EXCEPTIONS.get(stage, set()) - declared), "run without being declared"
    assert declared <= needed, "declared and never run"


def test_a_word_or_a_colour_of_the_report_retrains_nothing() -> None:
    for stage in ("window", "baselines", "train"):
        assert not {"report", "compare", "serve", "search"} & declared_packages(stage)


def test_dependencies_are_few_and_each_is_a_package_or_a_file_that_stands_for_a_stage() -> None:
    deps = [dep for stage in STAGES.values() for dep in stage["deps"]]
    assert len(deps) - sum(len(STAGES[stage]["deps"]) for stage in ("search", "search_report")) <= 30
    for dep in deps:
        assert (
            dep.startswith(("${", "pipelines/"))
            or dep.count("/") == 2
            or dep.endswith(("data_report.py", "overview.py"))
        )


@pytest.mark.parametrize("stage", STAGES)
def test_parameters_are_of_the_view_of_the_stage(stage: str) -> None:
    declared = {entry.split(".")[0] for entry in STAGES[stage].get("params", [])}
    assert declared <= set(VIEWS[stage].model_fields)


@pytest.mark.parametrize("stage", STAGES)
def test_scripts_are_short_and_named_after_their_stage(stage: str) -> None:
    assert len((ROOT / "pipelines" / f"{stage}.py").read_text().splitlines()) <= 40
    assert f"pipelines/{stage}.py" in STAGES[stage]["cmd"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "missing a required argument: 'windows': call train.py WINDOWS RUNS PARAMS METHOD SEED"),
        (("w", "r", "params.yaml", "tuned", "1", "2"), "too many positional arguments: call train.py"),
        (("w", "r", "params.yaml", "tunde", "1"), "methods.tunde does not exist; did you mean 'tuned'?"),
        (("w", "r", "params.yaml", "../../x", "1"), "methods.../../x does not exist"),
        (("w", "r", "params.yaml", "tuned", "-1"), "the seed '-1' must be a whole number from 0"),
        (("w", "r", "params.yaml", "tuned", str(2**40)), "must be a whole number from 0"),
    ],
)
def test_words_that_a_stage_does_not_take_are_refused(words: tuple[str, ...], message: str) -> None:
    command = [sys.executable, "pipelines/train.py", *words]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 2 and message in ended.stderr and ended.stderr.count("\n") == 1


def test_every_path_stands_in_params_yaml_only() -> None:
    text = "".join(path.read_text() for path in PIPELINES)
    for path in PATHS.values():
        assert f" {path}\n" not in text and f" {path}/" not in text, f"{path} is written out in dvc.yaml"
