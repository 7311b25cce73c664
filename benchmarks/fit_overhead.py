"""What a fit costs besides its training, in processor seconds: python -m benchmarks.fit_overhead [--fits 8].

Runs fits of the default study's `native` on the simulated series as the stage train does, and subtracts the processor
time that the training loop itself took. The process that imports everything is counted once, beside them.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

from isotrain.config import CompareView, load


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("windows", nargs="?", default="data/windows", help="folder of the stage window")
    words.add_argument("--fits", type=int, default=8)
    asked = words.parse_args()
    seeds = list(range(asked.fits))
    view = load(view=CompareView, overrides={"compare.methods": ["native"], "compare.seeds": seeds})
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        from isotrain.training.fits import run_fits
        from isotrain.training.outbox import open_store

        open_store(os.environ["MLFLOW_TRACKING_URI"], "isotrain")  # a new store takes seconds, once
        began, before = time.perf_counter(), _processor()
        run_fits(view, asked.windows, folder)
        wall, spent = time.perf_counter() - began, {who: now - before[who] for who, now in _processor().items()}
        results = [json.loads(path.read_text()) for path in Path(folder).glob("*/result.json")]
    training = sum(result["train_seconds"] for result in results)
    fits = len(results)
    print(f"{fits} fits, {wall:.1f} s: {training / fits:.2f} s of training each")
    print(
        f"processor seconds a fit beyond its training: {(spent['children'] - training) / fits:.2f} in its own process"
    )
    print(f"of the process that starts them: {spent['self']:.1f} s in all, imports and MLflow")
    print(f"in all, a fit: {(spent['children'] + spent['self'] - training) / fits:.2f} s")


def _processor() -> dict[str, float]:
    kinds = {"self": resource.RUSAGE_SELF, "children": resource.RUSAGE_CHILDREN}
    return {name: sum(resource.getrusage(kind)[:2]) for name, kind in kinds.items()}


if __name__ == "__main__":
    main()
