"""What an experiment leaves in params.yaml: the lines that it names, and no value that was refused."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import modify_yaml

from isotrain.config import CompareView, experiments, flatten, load
from isotrain.config.experiments import put_back, reset
from isotrain.config.params import check_isolation
from isotrain.errors import InputError
from isotrain.forecast.encoders import ENCODERS
from isotrain.isolation import Isolator, MaskedAdam

ROOT = Path(__file__).parents[1]
PARAMS = ROOT / "params.yaml"
SHAPE = (
    "write the file as DVC does: python -c \"from dvc.utils.hydra import apply_overrides as a; a('params.yaml', [])\""
)


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of params.yaml, committed to git, in the working folder."""
    monkeypatch.chdir(tmp_path)
    goal = tmp_path / "params.yaml"
    goal.write_bytes(PARAMS.read_bytes())
    git("init", "--quiet")
    commit("start")
    return goal


def git(*words: str) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    return subprocess.run(["git", *who, *words], check=True, capture_output=True, text=True).stdout.strip()


def commit(message: str) -> str:
    git("add", "params.yaml")
    git("commit", "--quiet", "--allow-empty", "--message", message)
    return git("rev-parse", "HEAD")


def set_param(*overrides: str) -> None:
    """What `dvc exp run -S` does to the file."""
    apply_overrides("params.yaml", list(overrides))


def test_the_file_has_the_shape_that_dvc_writes(params: Path) -> None:
    set_param()
    assert params.read_text() == PARAMS.read_text(), SHAPE
    with modify_yaml("params.yaml"):
        pass
    assert params.read_text() == PARAMS.read_text(), SHAPE


def test_an_experiment_changes_the_lines_that_it_names_and_loses_no_comment(params: Path) -> None:
    before = params.read_text()
    set_param("isolation.schedule.fraction=0.25")
    changed = [(a, b) for a, b in zip(before.splitlines(), params.read_text().splitlines(), strict=True) if a != b]
    assert [a for a, _ in changed] == ["    fraction: 1.0 # of the zones, but for zone step; 0 = isolation off"]
    lists = [path for path, value in flatten(load(PARAMS)).items() if isinstance(value, list)]
    named = [path for path in lists if not path.startswith(("methods", "search.space", "isolation"))]
    assert {"compare.methods", "compare.seeds", "model.leave_out"} <= set(named)
    for number, value in enumerate(("[]", "[a,b]")):  # of the shortest and of a short list
        set_param(*(f"{path}={value}" for path in named))
        left = params.read_text()
        assert re.findall(r"# .*", left) == re.findall(r"# .*", before), number
        assert set(re.findall(r"^ *\w+:", left, re.M)) == set(re.findall(r"^ *\w+:", before, re.M))


def refused(monkeypatch: pytest.MonkeyPatch, baseline: str, *overrides: str) -> str:
    """`dvc exp run -S ...`, whose stage refuses: what the stage adds to its line."""
    set_param(*overrides)
    words = ["python", "/somewhere/bin/dvc", "exp", "run"]
    given = [word for one in overrides for word in ("-S", one)]
    monkeypatch.setattr(experiments, "_command_lines", lambda: [["sh", "-c", "python"], words + given, ["bash"]])
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", baseline)
    return put_back()


def test_a_refused_value_is_put_back_and_an_edit_by_hand_stays(params: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    baseline = git("rev-parse", "HEAD")
    mine = params.read_text().replace("target: TGBT #", "target: T1 # mine,")
    params.write_text(mine)
    said = refused(monkeypatch, baseline, "compare.methods=[tunde]", "training.steps=-1", "+training.foo=1")
    assert "training.steps is 300, training.foo is not there again" in said
    assert params.read_text() == mine


def test_what_the_last_experiment_was_accepted_with_is_what_comes_back(
    params: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    baseline = git("rev-parse", "HEAD")
    set_param("training.steps=200")
    experiment = commit("an experiment")  # DVC keeps it out of every branch
    git("reset", "--quiet", "--soft", baseline)
    git("update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/some-name", experiment)
    assert refused(monkeypatch, baseline, "training.steps=-1") == "; in params.yaml training.steps is 200 again"
    assert load("params.yaml").training.steps == 200


def test_a_stage_that_no_experiment_runs_puts_nothing_back(params: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_EXP_BASELINE_REV", raising=False)
    set_param("training.steps=-1")
    assert put_back() == "" and "steps: -1" in params.read_text()


@pytest.mark.parametrize(
    "words", [["-S", "a.b=1"], ["-Sa.b=1"], ["--set-param", "a.b=1"], ["--set-param=params.yaml:a.b=1"]]
)
def test_the_ways_to_write_a_setting_on_the_command_line(words: list[str]) -> None:
    line = ["/bin/python", "/bin/dvc", "exp", "run", *words, "--set-param", "other.yaml:c=2", "train"]
    assert experiments._paths_set([["sh"], line]) == ["a.b"]
    assert experiments._paths_set([["pytest", "-S", "x=1"]]) == []


def test_reset_undoes_experiments_and_keeps_series_budget_and_own_methods(params: Path) -> None:
    by_hand = params.read_text().replace("target: TGBT #", "target: T1 #").replace("trials: 40 #", "trials: 7 #")
    kept = by_hand.replace("methods:\n", "methods:\n  mine:\n    role: tested\n    about: mine\n", 1)
    params.write_text(kept)
    set_param("isolation.schedule.fraction=0.25", "compare.methods=[tuned]", "model.hidden=8", "training.rise=1e-05")
    said = reset()
    assert params.read_text() == kept
    assert "model.hidden is 64 again" in said.splitlines() and len(said.splitlines()) == 4
    assert reset() == ""


def test_reset_outside_git_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "params.yaml").write_bytes(PARAMS.read_bytes())
    with pytest.raises(InputError, match=r"git show cannot say what params\.yaml was: fatal"):
        reset()


@pytest.mark.parametrize("zone", ["layer", "unit", "gate", "weight"])
@pytest.mark.parametrize("fraction", [0.5, 0.74, 0.75, 0.87, 0.88, 0.96, 0.97, 1.0])
@pytest.mark.parametrize("layers", [1, 2])
def test_what_would_isolate_everything_is_refused_before_any_stage_as_by_the_network_itself(
    zone: str, fraction: float, layers: int
) -> None:
    """Against the isolator of a real encoder of 4 units."""
    changes: dict[str, Any] = {"model.hidden": 4, "model.layers": layers, "isolation.schedule.fraction": fraction}
    changes |= {"isolation.zone": zone, "isolation.mode": "masked", "isolation.criterion": "random"}
    settings = load(PARAMS, view=CompareView, overrides={"compare.methods": ["tuned"]}).settings("isolated", changes)
    assert settings.isolation is not None
    encoder = ENCODERS["lstm"](3, 4, layers, 48, "torch")

    def refuses(call: Any) -> bool:
        try:
            call()
        except InputError as problem:
            assert "would isolate" in str(problem)
            return True
        return False

    there = refuses(lambda: Isolator(encoder, MaskedAdam(encoder.parameters()), settings.isolation))  # type: ignore[arg-type]
    assert refuses(lambda: check_isolation(settings)) == there
