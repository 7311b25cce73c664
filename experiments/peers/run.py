"""Forecasters that others publish, on the same origins as ours: error, processor seconds, lines of code.

    python -m experiments.peers.run drahix|drammen --data DATA --folder FOLDER --python PEERS [--names NAME ...]
        [--modes MODE ...]

DATA is the folder that :mod:`experiments.published_series` describes. FOLDER holds what is prepared: hours of the
series, so not for the repository. PEERS is the Python of an environment with the extra ``peers``. What is in
``results`` is not run again. The modes: ``default``, their defaults; ``search``, ten trials; ``weather``, defaults and
the weather of the target hours known, a perfect forecast of it. At the end :mod:`experiments.peers.table` writes it up.
"""

import argparse
import os
import subprocess
from datetime import date
from pathlib import Path

from experiments.peers import table
from experiments.peers.data import prepare
from experiments.peers.models import MODELS

from isotrain.errors import InputError, run_as_command
from isotrain.files import read_json, write_json
from isotrain.training.machine import commit

HERE = Path(__file__).parent


def installed(python: str) -> None:
    """:class:`InputError` that says what to install, where ``python`` lacks a peer."""
    wanted = sorted({package for model in MODELS.values() for package in model.packages})
    lacking = f"' '.join(p for p in {wanted} if not find_spec(p))"
    code = f"import sys; from importlib.util import find_spec; sys.exit({lacking} or 0)"
    try:
        answer = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    except OSError as problem:
        raise InputError(f"--python {python}: {problem.strerror}; name the Python of the peers' environment") from None
    if answer.returncode:
        raise InputError(
            f"{python} lacks {answer.stderr.strip()}: make an environment of its own, `python -m venv PEERS` and "
            "`PEERS/bin/pip install '.[peers]'`, and give --python PEERS/bin/python"
        )


def run(dataset: str, model: str, mode: str, folder: Path, python: str) -> None:
    """One peer in a process of its own, unless its result is there."""
    out = table.RESULTS / f"{dataset}-{model}-{mode}.json"
    if out.exists():
        return
    print(f"{dataset} {model} {mode}", flush=True)
    job = folder.resolve() / f"job-{out.name}"
    hours = folder.resolve() / f"{dataset}.parquet"
    names = {"dataset": dataset, "model": model, "mode": mode, "date": date.today().isoformat(), "commit": commit()}
    write_json(job, {**names, "data": read_json(folder / f"{dataset}.json"), "table": str(hours), "out": str(out)})
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])}
    command = [python, "-m", "experiments.peers.models", str(job)]
    subprocess.run(command, cwd=folder, env={**os.environ, **threads}, check=True)


def main(*given: str) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=list(table.MODES))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--python", required=True)
    parser.add_argument("--names", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--modes", nargs="+", choices=["default", "search", "weather"])
    words = parser.parse_args(given)
    installed(words.python)
    if not (words.folder / f"{words.dataset}.json").exists():
        words.folder.mkdir(parents=True, exist_ok=True)
        prepare(words.dataset, words.data, words.folder)
    for mode in words.modes or table.MODES[words.dataset]:
        for model in words.names:
            if mode != "weather" or MODELS[model].weather:
                run(words.dataset, model, mode, words.folder, words.python)
    table.main()


if __name__ == "__main__":
    run_as_command(main)
