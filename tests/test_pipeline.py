"""dvc.yaml declares exactly what its stages read: parameters, and code down to the last import."""

import ast
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


@cache
def import_graph() -> grimp.ImportGraph:
    return grimp.build_graph("isotrain")


def imported_modules(script: Path) -> set[str]:
    """Every isotrain module that runs when the script does, packages on the way included."""
    graph = import_graph()
    direct: set[str] = set()
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("isotrain"):
            direct.add(node.module)
            direct |= {f"{node.module}.{name.name}" for name in node.names} & graph.modules
    found = direct | {upstream for module in direct for upstream in graph.find_upstream_modules(module)}
    packages = {".".join(module.split(".")[:n]) for module in found for n in range(2, module.count(".") + 1)}
    wider = packages | {up for package in packages for up in graph.find_upstream_modules(package)}
    return (found | wider) - {"isotrain"}


def file_of(module: str) -> Path:
    path = ROOT / "src" / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def holds_only_a_docstring(path: Path) -> bool:
    return all(isinstance(node, ast.Expr) for node in ast.parse(path.read_text()).body)


def declared_files(stage: str) -> set[Path]:
    files: set[Path] = set()
    for dep in STAGES[stage]["deps"]:
        if not dep.startswith("$"):
            path = ROOT / dep
            assert path.exists(), f"{stage} declares {dep}, which does not exist"
            files |= set(path.rglob("*.py")) if path.is_dir() else {path}
    return files


def sections(params: list[Any]) -> set[str]:
    return {entry.split(".")[0] for entry in params}


@pytest.mark.parametrize("stage", STAGES)
def test_code_dependencies_are_the_imports(stage: str) -> None:
    modules = imported_modules(ROOT / "pipelines" / f"{stage}.py")
    needed = {path for path in map(file_of, modules) if not holds_only_a_docstring(path)}
    needed.add(ROOT / "pipelines" / f"{stage}.py")
    needed |= {source for path in needed for source in path.parent.glob("*.cpp")}  # compiled by what lies beside them
    declared = declared_files(stage)
    assert needed <= declared, f"{stage} runs {sorted(map(str, needed - declared))} without declaring it"
    idle = {path for path in declared - needed if path.name != "__init__.py"}
    assert not idle, f"{stage} declares {sorted(map(str, idle))}, which it never runs"


@pytest.mark.parametrize("stage", STAGES)
def test_parameters_are_the_fields_of_the_view(stage: str) -> None:
    view = VIEWS.get(stage)
    declared = sections(STAGES[stage].get("params", []))
    assert declared == (set(view.model_fields) if view else set())


@pytest.mark.parametrize("stage", STAGES)
def test_scripts_are_short_and_named_after_their_stage(stage: str) -> None:
    assert len((ROOT / "pipelines" / f"{stage}.py").read_text().splitlines()) <= 30
    assert f"pipelines/{stage}.py" in STAGES[stage]["cmd"]


def test_every_path_stands_in_params_yaml_only() -> None:
    text = "".join(path.read_text() for path in PIPELINES)
    for path in PATHS.values():
        assert f" {path}\n" not in text and f" {path}/" not in text, f"{path} is written out in dvc.yaml"


def test_every_method_of_a_seed_runs_before_the_next_seed() -> None:
    assert list(STAGES["train"]["matrix"]) == ["seed", "method"]
