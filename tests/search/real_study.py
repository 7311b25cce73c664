"""A study whose trials are real trainings of a tiny network, for the objective and the pending runs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from isotrain.data.windows import Windows
from isotrain.search.study import Place, place
from isotrain.search.worker import Job

ROOT = Path(__file__).parents[2]
TINY: dict[str, dict[str, Any]] = {
    "window": {"history": 48},
    "model": {"hidden": 6, "decoder": 8},
    "training": {
        "steps": 30,
        "stretches": 2,
        "stretch": 100,
        "origins": 4,
        "windows": 4,
        "validate_every": 10,
        "accelerator": "cpu",
    },
    "isolation": {"every": 5},
    "runtime": {"threads": 1},
    "tracking": {"uri": None},
}


def tiny_place(folder: Path, windows: Windows, **search: Any) -> Place:
    """A place in ``folder``, its windows saved; ``search`` changes the section."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, changes in TINY.items():
        values[section] |= changes
    space = {"isolation.schedule.fraction": {"low": 0.0, "high": 0.7}, "isolation.zone": {"choices": ["unit", "layer"]}}
    values["model"]["layers"] = 2  # so that there is a layer to isolate
    values["search"] |= {"sampler": "random", "known": [], "space": space, "trials": 3, "startup": 2, **search}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    here = place(folder / "params.yaml")
    windows.save(here.windows)
    return replace(here, tracking=here.tracking.model_copy(update={"uri": f"sqlite:///{folder}/mlflow.db"}))


def job(here: Place, number: int = 0, seed: int = 0, **changes: Any) -> Job:
    """A trial with these settings, ``__`` for a dot."""
    overrides = {path.replace("__", "."): value for path, value in changes.items()}
    return Job(number, seed, overrides, here.space.settings(overrides), here.folder / "trials" / str(number))
