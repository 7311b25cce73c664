"""Forecasters that others publish, on the same origins as ours: error, processor seconds, lines of code.

    python -m experiments.peers.run drahix|drammen DATA FOLDER --python PEERS [--names NAME ...] [--modes MODE ...]
    python -m experiments.peers.run table

DATA is the folder that :mod:`experiments.published_series` describes, FOLDER holds what is prepared (hours of the series:
not for the repository), PEERS the Python of an environment with the extra ``peers``. What is in ``results`` is not run
again. ``default``: their defaults; ``search``: ten trials; ``weather``: defaults, with the weather of the target hours
known, a perfect forecast of it.
"""

import argparse
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

from experiments.peers.models import MODELS
from isotrain.errors import InputError
from isotrain.files import read_json, write_json

HERE = Path(__file__).parent
RESULTS = HERE / "results"
MODES = ("default", "weather", "search")


def installed(python: str) -> None:
    """:class:`InputError` that says what to install, where ``python`` lacks a peer."""
    wanted = sorted({package for model in MODELS.values() for package in model.packages})
    code = f"import sys; from importlib.util import find_spec as f; sys.exit(' '.join(p for p in {wanted} if not f(p)))"
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
    out = RESULTS / f"{dataset}-{model}-{mode}.json"
    if out.exists():
        return
    print(f"{dataset} {model} {mode}", flush=True)
    job = folder.resolve() / f"job-{out.name}"
    table = folder.resolve() / f"{dataset}.parquet"
    names = {"dataset": dataset, "model": model, "mode": mode, "date": date.today().isoformat()}
    write_json(job, {**names, "data": read_json(folder / f"{dataset}.json"), "table": str(table), "out": str(out)})
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])}
    command = [python, "-m", "experiments.peers.models", str(job)]
    subprocess.run(command, cwd=folder, env={**os.environ, **threads}, check=True)
