"""The results of fits and of baselines, read from their folders and checked before they are compared."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, get_args

from isotrain.errors import InputError
from isotrain.files import read_json

PHASES = ("forward", "backward", "optimizer", "selection", "other")
DRIFT = 1.15  # largest over smallest ``machine_seconds`` from which times are no longer trusted


Role = Literal["reference", "control", "tested"]


class Source(TypedDict):
    """The series that a fit learnt; ``sha256`` of its file."""

    source: str
    simulated: bool
    rows: int
    sha256: str
    ahead: NotRequired[str]  # what was taken for known ahead, in words; empty: nothing
    target: NotRequired[str]
    unit: NotRequired[str]
    series: NotRequired[int]  # how many there are


@dataclass(frozen=True)
class Isolated:
    """What the settings of a fit isolate: the zone, and the mode in which it is left out."""

    zone: str
    mode: str


@dataclass(frozen=True)
class Budget:
    """What limited a control: the training ``time`` of the method ``of``, or the cost of its mean ``step``.

    ``seconds``: that time, or that cost, as it was measured when the study ran.
    """

    kind: Literal["time", "step"]
    of: str
    seconds: float


@dataclass(frozen=True)
class Validation:
    """One check on the validation part: training seconds, error in kW (infinite once diverged, NaN in a refit)."""

    step: int
    train_seconds: float
    val_mae: float
    isolated_fraction: float


@dataclass(frozen=True)
class Run:
    """One fit: seconds, kW, shares in [0, 1]. A diverged fit has infinite errors; a refit's validation errors are NaN.

    ``role``: a reference that times are compared with, a control that could explain a gain otherwise, or a method
    under test. ``params``: every setting that decided the fit, by dotted path. ``budget``: see :class:`Budget`.
    """

    folder: Path
    method: str
    role: Role
    seed: int
    regime: str
    started_at: str
    finished_at: str
    commit: str | None
    diverged: bool
    data: Source
    hardware: Mapping[str, Any]
    params: Mapping[str, Any]
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
    budget: Budget | None = None

    @property
    def name(self) -> str:
        """Method and seed, as the folder is called."""
        return f"{self.method}-{self.seed}"

    @property
    def refit(self) -> bool:
        """Whether it was trained on the validation part too."""
        return bool(self.params.get("training.refit", False))

    @property
    def isolation(self) -> Isolated | None:
        """What its settings isolate; ``None`` where nothing is isolated."""
        mode = self.params.get("isolation.mode")
        return None if mode is None else Isolated(str(self.params["isolation.zone"]), str(mode))


@dataclass(frozen=True)
class Baseline:
    """A forecast without a network, on the origins of the fits: errors in kW, MASE without unit.

    ``seconds``: of its fit, with whatever it chose on validation. A ``refit`` has seen the validation part, and so
    has no error there. ``folder`` holds its ``forecasts.npz``.
    """

    name: str
    folder: Path
    seconds: float
    parameters: int
    refit: bool
    val_mae: float | None
    test_mae: float
    test_rmse: float
    test_mase: float
    mae_by_lead: tuple[float, ...]


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
        return _run(Path(folder), read_json(path, "remove the folder and run `dvc repro train`"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: the fit did not finish; run `dvc repro train`") from None
    except InputError:
        raise
    except KeyError as problem:
        why = "the result is too old or damaged; remove the folder and run `dvc repro train`"
        raise InputError(f"{path} lacks the key {problem}: {why}") from None
    except (TypeError, ValueError, AttributeError) as problem:
        raise InputError(f"{path}: {problem}; remove the folder and run `dvc repro train`") from None


@dataclass(frozen=True)
class Caution:
    """What weakens a comparison: a ``mark`` of a few words for each sentence that quotes it, ``text`` to explain it."""

    mark: str
    text: str


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
    return [caution.text for caution in cautions(runs)]


def cautions(runs: Sequence[Run]) -> list[Caution]:
    """Everything that weakens the comparison of ``runs``, but for a simulated series."""
    found = []
    commits = sorted({run.commit or "" for run in runs})
    shown = ", ".join(short_commit(commit) for commit in commits)
    if len({commit.removesuffix("+") for commit in commits}) > 1:
        text = f"The fits come from {len(commits)} commits ({shown}): a difference may be the code's, not the method's."
        found.append(Caution("several commits", text))
    if dirty := [short_commit(commit) for commit in commits if commit.endswith("+")]:
        text = f"For some fits files differed from the commit ({', '.join(dirty)}): it alone is not what ran."
        found.append(Caution("uncommitted changes", text))
    if (drift := machine_drift(runs)) > DRIFT:
        text = (
            "The machine's speed changed during the comparison: the fixed reference computation took "
            f"{drift:.2f} times as long around the slowest fit as around the fastest."
        )
        found.append(Caution(f"the machine's speed changed {drift:.2f}-fold", text))
    if diverged := [run.name for run in runs if run.diverged]:
        text = f"Diverged, and counted as never reaching the target: {', '.join(diverged)}."
        found.append(Caution(f"{len(diverged)} diverged", text))
    return found


def short_commit(commit: str | None) -> str:
    """Ten digits of ``commit`` and its mark ``+`` for files that differed from it; ``unknown`` where there is none."""
    return commit.removesuffix("+")[:10] + "+" * commit.endswith("+") if commit else "unknown"


def machine_drift(runs: Sequence[Run]) -> float:
    """Largest over smallest ``machine_seconds``: 1 on a machine of constant speed."""
    seconds = [run.machine_seconds for run in runs]
    return max(seconds) / min(seconds)


def _data_key(run: Run) -> str:
    ahead = f" with {run.data['ahead']}" if run.data.get("ahead") else ""
    return f"{run.data['source']} ({run.data['sha256'][:12]}){ahead}"


def _hardware_key(run: Run) -> str:
    # The kernel reports a slightly different total after each boot.
    return str(dict(run.hardware) | {"memory_gb": round(run.hardware["memory_gb"])})


def _run(folder: Path, result: dict[str, Any]) -> Run:
    role = result["role"]
    if role not in get_args(Role):
        raise ValueError(f"role = {role!r} must be {', '.join(get_args(Role))}")
    diverged, params = bool(result.get("diverged", False)), dict(result["params"])
    refit = bool(params.get("training.refit", False))

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
    data: Source = result["data"]
    return Run(
        folder=folder,
        method=str(result["method"]),
        role=role,
        seed=int(result["seed"]),
        regime=str(result["regime"]),
        started_at=str(result["started_at"]),
        finished_at=str(result["finished_at"]),
        commit=result["commit"],
        diverged=diverged,
        data=data,
        hardware=dict(result["hardware"]),
        params=params,
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
        budget=_budget(result["budget"]),
    )


def _budget(budget: Mapping[str, Any] | None) -> Budget | None:
    if budget is None:
        return None
    if "time" in budget:
        return Budget("time", str(budget["time"]), _finite(budget["seconds"]))
    return Budget("step", str(budget["step"]), _finite(budget["goal_ms"]) / 1000)


def read_baselines(folder: str | Path) -> list[Baseline]:
    """The baselines that the stage of this name left in ``folder``, in their order.

    Raises :class:`InputError` if the file is missing, is not JSON, lacks a key or holds a value of the wrong type.
    """
    path = Path(folder) / "baselines.json"
    remedy = "run `dvc repro baselines`"
    try:
        return [_baseline(Path(folder), row) for row in read_json(path, f"remove it and {remedy}")["baselines"]]
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: {remedy}") from None
    except InputError:
        raise
    except KeyError as problem:
        raise InputError(f"{path} lacks the key {problem}: remove it and {remedy}") from None
    except (TypeError, ValueError, AttributeError) as problem:
        raise InputError(f"{path}: {problem}; remove it and {remedy}") from None


def _baseline(folder: Path, row: Mapping[str, Any]) -> Baseline:
    refit = bool(row["refit"])
    return Baseline(
        name=str(row["name"]),
        folder=folder / str(row["name"]),
        seconds=_finite(row["seconds"]),
        parameters=int(row["parameters"]),
        refit=refit,
        val_mae=None if refit else _finite(row["val_mae"]),
        test_mae=_finite(row["test_mae"]),
        test_rmse=_finite(row["test_rmse"]),
        test_mase=_finite(row["test_mase"]),
        mae_by_lead=tuple(_finite(value) for value in row["mae_by_lead"]),
    )


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is not a finite number")
    return number
