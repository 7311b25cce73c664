"""The library alone: LSTM and isolation where nothing of the study is installed."""

import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[1]

# No package is found whose distribution is not among the arguments, as if it were not installed.
ALONE = """
import importlib.metadata, re, sys
from importlib.machinery import PathFinder

core = set(sys.argv[1:])
owners = importlib.metadata.packages_distributions()

class Core(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        owned = {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners.get(name.partition(".")[0], [])}
        return super().find_spec(name, path, target) if not owned or core & owned else None

sys.meta_path[sys.meta_path.index(PathFinder)] = Core
"""

TRAINING = """
import torch
from isotrain.isolation import Isolator, MaskedAdam, Policy, Schedule
from isotrain.lstm import LSTM

torch.manual_seed(0)
lstm = LSTM(3, 8)
optimizer = MaskedAdam(lstm.parameters(), lr=0.1)
policy = Policy("unit", "exact", "magnitude", Schedule(fraction=0.5, start=0.4), every=1)
isolator = Isolator(lstm, optimizer, policy)
before = lstm.weight_hh_l0.detach().clone()
for step in range(3):
    optimizer.zero_grad()
    lstm(torch.randn(5, 2, 3))[0].square().mean().backward()
    isolator.before_step(step, 3)
    optimizer.step()
assert not torch.equal(lstm.weight_hh_l0, before)
print(len(lstm.isolated.units[0]))
"""


def distributions(names: Iterable[str]) -> set[str]:
    """The distributions ``names`` and all that they need in this environment, without extras."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name not in found:
            found.add(name)
            needs = [Requirement(line) for line in requires(name) or ()]
            waiting += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


def alone(program: str) -> subprocess.CompletedProcess[str]:
    """Run ``program`` where the core dependencies of pyproject.toml can be imported and no other package."""
    needs = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    core = distributions(Requirement(line).name for line in needs) | {"isotrain"}
    return subprocess.run(
        [sys.executable, "-c", ALONE + program, *core], capture_output=True, text=True, check=False, cwd=PROJECT / "src"
    )


def test_the_study_is_not_there() -> None:
    """The check of the checks: what the study installs is refused, so that the tests below mean something."""
    studies = ["pytorch_lightning", "pandas", "mlflow", "optuna", "psutil", "yaml", "pydantic"]
    assert set(studies) <= set(packages_distributions())
    for name in studies:
        assert f"No module named '{name}'" in alone(f"import {name}").stderr


@pytest.mark.slow
def test_a_network_trains_with_isolation() -> None:
    ended = alone(TRAINING)
    assert (ended.stdout, ended.returncode) == ("4\n", 0), ended.stderr


def test_the_lightning_callback_says_what_to_install() -> None:
    ended = alone("from isotrain.isolation import Isolation")
    assert ended.returncode == 1
    assert "pip install 'isotrain[study]'" in ended.stderr.splitlines()[-1]
