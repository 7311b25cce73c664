"""Which zones are isolated: does it matter? Ranks every criterion against random zones after equal steps.

    python -m experiments.criteria.run WINDOWS [--zones unit arc] [--fraction 0.75] [--seeds 5] [--jobs 2]

WINDOWS is the output of the stage `window`. Progress is kept in OUT/results.partial: the same command goes on where it
stopped. Results: OUT/results.json, criteria.md and figures.
"""

import argparse
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from datetime import date
from pathlib import Path

from experiments.criteria import page
from experiments.criteria.fits import CRITERIA, SCHEDULES, Job, fit
from experiments.criteria.ranking import NAMES, agreement

from isotrain.data.windows import Windows
from isotrain.files import write_json
from isotrain.training.machine import commit, hardware


def jobs(words: argparse.Namespace) -> list[Job]:
    """Seed after seed, so that an interrupted run has every condition of the seeds that it finished."""
    found = []
    for seed in range(words.seeds):
        for zone in words.zones:
            found.append(Job(words.windows, words.params, zone, words.fraction, None, "constant", seed))
            for schedule in SCHEDULES:
                found += [Job(words.windows, words.params, zone, words.fraction, c, schedule, seed) for c in CRITERIA]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("windows")
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--zones", nargs="+", default=["unit", "arc"])
    parser.add_argument("--fraction", type=float, default=0.75)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("experiments/criteria/results"))
    parser.add_argument("--redraw", action="store_true", help="page and figures again, from results.json")
    words = parser.parse_args()
    if not words.redraw:
        write_json(words.out / "results.json", measure(words))
    page.write(json.loads((words.out / "results.json").read_text()), words.out)
    print(words.out / "criteria.md")


def measure(words: argparse.Namespace) -> dict[str, object]:
    partial = words.out / "results.partial"
    partial.parent.mkdir(parents=True, exist_ok=True)
    done = {}
    for line in partial.read_text().splitlines() if partial.exists() else []:
        entry = json.loads(line)
        done[json.dumps(entry["job"])] = entry["result"]
    todo = [job for job in jobs(words) if json.dumps(asdict(job)) not in done]
    print(f"{len(todo)} fits to do, {len(done)} done", file=sys.stderr)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(words.jobs, spawn) as pool, partial.open("a") as log:
        running = {pool.submit(fit, job): job for job in todo}
        for number, future in enumerate(as_completed(running), 1):
            job, result = asdict(running[future]), dict(future.result())
            done[json.dumps(job)] = result
            log.write(json.dumps({"job": job, "result": result}) + "\n")
            log.flush()
            print(
                f"{number}/{len(todo)} {job['zone']} {job['criterion']} {job['schedule']} {job['seed']}",
                file=sys.stderr,
            )
        rankings = {}
        for zone in words.zones:
            matrix, more = pool.submit(
                agreement, Job(words.windows, words.params, zone, 0.5, "update_norm", "constant", 0)
            ).result()
            rankings[zone] = {"names": list(NAMES), "correlation": matrix.tolist(), **more}
    meta = Windows.load(words.windows).meta
    rows = [{"zone": job.zone, **done[json.dumps(asdict(job))]} for job in jobs(words)]
    partial.unlink()
    return {
        "date": date.today().isoformat(),
        "commit": commit(),
        "hardware": hardware(),
        "data": {key: meta[key] for key in ("simulated", "target", "rows")},
        "fraction": words.fraction,
        "seeds": words.seeds,
        "rows": rows,
        "rankings": rankings,
    }


if __name__ == "__main__":
    main()
