"""Every command of README and of the pages in docs is run by a test, or it says here why none can."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = "make|isotrain|dvc|mlflow|python3?|git|sbatch|srun|scancel|squeue|pip|optuna-dashboard|source|export|curl"
TRY = "tests/test_end_to_end.py::test_the_commands_that_readme_gives_to_try_things"
ONE = "tests/test_end_to_end.py::test_one_fit_by_mlflow_and_a_forecast_from_the_end_of_the_series"
OWN = "tests/test_end_to_end.py::test_a_file_of_ones_own_becomes_the_series"
PROJECT = "tests/test_end_to_end.py::test_the_pipeline_ends_in_a_report_and_runs_in_mlflow"
SERVED = "tests/serve/test_registry.py::test_mlflow_loads_and_serves_it"
BENCH = "tests/benchmarks/test_protocol.py::test_an_interrupted_run_goes_on_where_it_stopped"
GPU = "tests/benchmarks/test_gpu_bench.py::test_an_interrupted_run_goes_on_after_the_last_row"
ADAPT = "tests/adapt/test_adapt.py::test_the_command_adapts_a_folder_and_each_run_names_its_parent"
ARRAY = "tests/cluster/test_adapt_on_slurm.py::test_each_meter_is_adapted_to_once_though_tasks_are_killed"
SLURM = "tests/cluster/test_search_on_slurm.py::test_a_worker_killed_outright_is_replaced"
STUDY = "tests/search/test_real_worker.py::test_a_worker_runs_the_study_to_its_end"
RACES = "tests/study/test_race.py::test_a_study_runs_to_its_pages_and_goes_on_where_it_was"
CONFIRM = "tests/search/test_confirm.py::test_a_point_is_run_once_a_seed"
SYNC = "tests/search/test_trial_runs.py::test_sync_finds_the_trials_whose_worker_wrote_no_pending_run"
STATUS = "tests/search/test_status.py::test_every_trial_is_counted"
FETCHES = "it installs packages from the network: the machine that runs these tests was set up by it"
MEASURED = "it needs series that are not in the repository"
SELF = "it runs these tests, or the checks that stand beside them"
# the beginning of a command -> the test that runs it, or why none does; the longest that fits counts
TESTED = {
    "make reproduce": OWN,
    "make setup": FETCHES,
    "make search": STUDY,
    "make study": RACES,
    "isotrain study": RACES,
    "make test": SELF,
    "make check": SELF,
    "make bench": BENCH,
    "make bench-gpu": GPU,
    "python -m benchmarks.gpu.run": GPU,
    "isotrain adapt": ADAPT,
    "isotrain forecast": ONE,
    "isotrain log-model": SERVED,
    "isotrain reset": TRY,
    "isotrain search worker": STUDY,
    "isotrain search status": STATUS,
    "isotrain search confirm": CONFIRM,
    "isotrain search sync": SYNC,
    "dvc exp run": TRY,
    "dvc exp show": TRY,
    "dvc metrics diff": TRY,
    "dvc repro": TRY,
    "dvc repro pipelines/dvc.yaml": STUDY,
    "dvc repro pipelines/adapt/dvc.yaml": "tests/adapt/test_stage.py::test_each_meter_of_the_folder_is_adapted_to",
    "mlflow ui": "it serves until it is stopped: tests/mlflow_server.py serves the same store",
    "mlflow run . --env-manager local -e train": ONE,
    "mlflow run . -e search": STUDY,
    "mlflow models serve": SERVED,
    "python pipelines/train.py": "tests/test_end_to_end.py::test_a_stopped_study_says_how_to_go_on",
    "python -m benchmarks.lstm.run": BENCH,
    "python -m benchmarks.adapting": "tests/benchmarks/test_adapting.py::test_every_meter_is_adapted_to",
    "python pipelines/fetch.py": "tests/test_fetch.py::test_a_file_of_the_folder_itself_becomes_the_series_as_it_is",
    "python -m experiments.limits.run": MEASURED,
    "python -m experiments.credit": MEASURED,
    "python -m experiments.criteria": "an archive: its script is that of another commit",
    "python -m experiments.adapt": MEASURED,
    "python -m experiments.adam_in_rnns.run": "it takes two minutes and is run when its page is written",
    "python -m isotrain.training.outbox": OWN,
    "python -m isotrain.lstm.kernels": "every set-up runs it",
    "dvc gc": "it is DVC's own",
    "dvc config": "it is DVC's own",
    "dvc metrics show": TRY,
    "isotrain inspect": "tests/data/test_inspect.py::test_the_command_makes_a_file_the_series_of_the_study",
    "pip config": "it is pip's own",
    "export HTTPS_PROXY": "it sets a variable",
    "mlflow run": ONE,
    "python benchmarks/": "it measures for minutes and decides nothing",
    "python3 -m pip download": FETCHES,
    "pip install": FETCHES,
    "git clone": FETCHES,
    "git diff params.yaml": "it is git's own",
    "source .venv/bin/activate": "a virtual environment's own",
    "export ISOTRAIN_STUDY_URL": "it sets a variable: tests/search/postgres.py uses one",
    "sbatch": SLURM,
    "sbatch cluster/train.sbatch": "tests/cluster/test_shared_fit.py::test_two_nodes_train_what_one_process_trains",
    "sbatch cluster/adapt.sbatch": ARRAY,
    "squeue": "it is SLURM's own",
    "scancel": "it is SLURM's own; tests/cluster cancels a job by it",
    "srun": SLURM,
    "optuna-dashboard": "the extra is not installed",
    "curl": SERVED,
}


def commands_of(text: str) -> list[str]:
    """The commands in fenced blocks, comments aside, and those in line."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    blocks = [block for language, block in fenced if language != "python"]
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    found = [re.sub(r"^(?:[A-Z_]+=\S+ )+", "", re.sub(r" +#.*", "", line)) for line in lines]
    return [one for one in (*found, *re.findall(r"`([^`\n]+)`", prose)) if re.match(rf"({PROGRAMS}) ", one)]


COMMANDS = [
    (path.relative_to(ROOT).as_posix(), command)
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for command in dict.fromkeys(commands_of(path.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_command_that_a_page_gives_is_run_by_a_test(page: str, command: str) -> None:
    fitting = [beginning for beginning in TESTED if command.startswith(beginning)]
    assert fitting, f"{page} gives `{command}`: run it in a test, and name the test in {Path(__file__).name}"


@pytest.mark.parametrize("test", sorted({test for test in TESTED.values() if "::" in test}))
def test_the_test_is_there(test: str) -> None:
    file, _, name = test.partition("::")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_no_entry_is_left_of_a_command_that_no_page_gives() -> None:
    assert [one for one in TESTED if not any(command.startswith(one) for _, command in COMMANDS)] == []
