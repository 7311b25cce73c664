"""The results of fits, read from their folders and checked before anybody compares them."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isotrain.errors import InputError
from isotrain.files import read_json

PHASES = ("forward", "backward", "optimizer", "selection", "other")
DRIFT = 1.15  # largest over smallest ``machine_seconds`` from which times are no longer trusted


@dataclass(frozen=True)
class Validation:
    """One look at the validation part: training seconds, error in kW (infinite once diverged, NaN in a refit)."""

    step: int
    train_seconds: float
    val_mae: float
    isolated_fraction: float


@dataclass(frozen=True)
class Run:
    """One fit: seconds, kW, shares in [0, 1]. A diverged fit has infinite errors.

    A ``refit`` was trained on the validation part too: its validation errors are NaN, as good as never measured.
    """

    folder: Path
    method: str
    seed: int
    regime: str
    started_at: str
    finished_at: str
    commit: str | None
    diverged: bool
    data: Mapping[str, Any]
    hardware: Mapping[str, Any]
    parameters: int
    steps: int
    train_seconds: float
    phase_seconds: Mapping[str, float]
    step_ms_median: float
    machine_seconds: float
    isolated_fraction: float
    val_mae: float
    test_mae: float
    test_rmse: float
    test_mase: float
    history: tuple[Validation, ...]
    mae_by_lead: tuple[float, ...]
    refit: bool = False

    @property
    def name(self) -> str:
        """Method and seed, as the folder is called."""
        return f"{self.method}-{self.seed}"


def chosen_runs(folder: str | Path, methods: Sequence[str], seeds: Sequence[int]) -> list[Run]:
    """The comparable fits in ``folder`` of these methods and seeds; raises as :func:`read_runs` does."""
    runs = [run for run in read_runs(folder) if run.method in methods and run.seed in seeds]
    if not runs:
        raise InputError(f"{folder} holds no fit of compare.methods and compare.seeds: run `dvc repro train` first")
    check_comparable(runs)
    return runs


def read_runs(folder: str | Path) -> list[Run]:
    """Every ``<folder>/*/result.json``, by method and seed.

    Raises :class:`InputError` if a file is missing, is not JSON, lacks a key or holds a value of the wrong
    type, if a method and seed occur twice, or if there is no fit at all.
    """
    folders = sorted(path for path in Path(folder).glob("*") if path.is_dir() and not path.name.startswith("."))
    runs = sorted((read_run(path) for path in folders), key=lambda run: (run.method, run.seed))
    if not runs:
        raise InputError(f"{folder} holds no fit: run `dvc repro train` first")
    names = [run.name for run in runs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{folder}: more than one folder holds {', '.join(twice)}: remove the older one")
    return runs


def read_run(folder: str | Path) -> Run:
    """The fit whose ``result.json`` lies in ``folder``; raises as :func:`read_runs` does."""
    path = Path(folder) / "result.json"
    try:
        return _run(Path(folder), read_json(path))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: the fit did not finish; run `dvc repro train`") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as problem:
        raise InputError(f"{path} is not JSON ({problem}): remove the folder and run `dvc repro train`") from None
    except KeyError as problem:
        raise InputError(f"{path} lacks the key {problem}: remove the folder and run `dvc repro train`") from None
    except (TypeError, ValueError, AttributeError) as problem:
        raise InputError(f"{path}: {problem}; remove the folder and run `dvc repro train`") from None


def check_comparable(runs: Sequence[Run]) -> list[str]:
    """Refuse runs whose times cannot be compared; return what weakens the comparison, as sentences.

    Raises :class:`InputError` naming the runs if data or hardware differ.
    """
    for what, key in (("data", _data_key), ("hardware", _hardware_key)):
        groups: dict[str, list[str]] = {}
        for run in runs:
            groups.setdefault(key(run), []).append(run.name)
        if len(groups) > 1:
            detail = "; ".join(f"{', '.join(names)} on {value}" for value, names in groups.items())
            remedy = "run `dvc repro --force` so that all are made alike"
            raise InputError(f"fits on different {what} cannot be compared: {detail}: {remedy}")
    warnings = []
    commits = sorted({run.commit or "unknown" for run in runs})
    if len(commits) > 1:
        warnings.append(
            f"The fits come from {len(commits)} commits ({', '.join(commit[:10] for commit in commits)}): "
            "a difference may be the code's rather than the method's."
        )
    if machine_drift(runs) > DRIFT:
        warnings.append(
            "The machine's speed changed during the comparison: the fixed reference computation took "
            f"{machine_drift(runs):.2f} times as long around the slowest fit as around the fastest."
        )
    if diverged := [run.name for run in runs if run.diverged]:
        warnings.append(f"Diverged, and counted as never reaching the target: {', '.join(diverged)}.")
    return warnings


def machine_drift(runs: Sequence[Run]) -> float:
    """Largest over smallest ``machine_seconds``: 1 on a machine of constant speed."""
    seconds = [run.machine_seconds for run in runs]
    return max(seconds) / min(seconds)


def _data_key(run: Run) -> str:
    return f"{run.data['source']} ({run.data['sha256'][:12]})"


def _hardware_key(run: Run) -> str:
    # The kernel reports a slightly different total after each boot.
    return str(dict(run.hardware) | {"memory_gb": round(run.hardware["memory_gb"])})


def _run(folder: Path, result: dict[str, Any]) -> Run:
    diverged = bool(result.get("diverged", False))

    refit = bool(result["params"].get("training.refit", False))

    def error(value: Any) -> float:
        return math.inf if value is None and diverged else _finite(value)

    def validation_error(value: Any) -> float:
        return math.nan if refit and not diverged else error(value)

    history = tuple(
        Validation(
            int(v["step"]),
            _finite(v["train_seconds"]),
            validation_error(v["val_mae"]),
            _finite(v["isolated_fraction"]),
        )
        for v in result["history"] or ()
    )
    missing = {"source", "simulated", "rows", "sha256"} - set(result["data"])
    if missing or "memory_gb" not in result["hardware"]:
        raise KeyError(f"data.{min(missing)}" if missing else "hardware.memory_gb")
    if not result["machine_seconds"] > 0:
        raise ValueError(f"machine_seconds = {result['machine_seconds']} must be above 0")
    return Run(
        folder=folder,
        method=str(result["method"]),
        seed=int(result["seed"]),
        regime=str(result["regime"]),
        started_at=str(result["started_at"]),
        finished_at=str(result["finished_at"]),
        commit=result["commit"],
        diverged=diverged,
        data=dict(result["data"]),
        hardware=dict(result["hardware"]),
        parameters=int(result["parameters"]),
        steps=int(result["steps"]),
        train_seconds=_finite(result["train_seconds"]),
        phase_seconds={phase: _finite(result["phase_seconds"][phase]) for phase in PHASES},
        step_ms_median=error(result["step_ms_median"]),
        machine_seconds=_finite(result["machine_seconds"]),
        isolated_fraction=_finite(result["isolated_fraction"]),
        val_mae=validation_error(result["val_mae"]),
        test_mae=error(result["test_mae"]),
        test_rmse=error(result["test_rmse"]),
        test_mase=error(result["test_mase"]),
        history=history,
        mae_by_lead=tuple(error(value) for value in result["mae_by_lead"] or ()),
        refit=refit,
    )


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is not a finite number")
    return number
