"""The failures that a study is put through, and what was counted before and after each.

    python -m experiments.search.failures --out experiments/search [--outage 20]

Runs the tests of failures, without a cluster and on a real SLURM, with storage out of reach for ``--outage`` seconds,
and turns what they kept into a table. Ends with an error, and no table, if one failed; one that was skipped is a row.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
TESTS = {"tests/search/test_failures.py": "this machine", "tests/cluster/test_search_on_slurm.py": "SLURM"}
HEAD = """\
# What a study was put through

`python -m experiments.search.failures`, {day}, {system}, two workers a study, a budget of 12 trials (4 or 6 in
some); storage out of reach for {outage:g} s. A trial and its repeats are one trial. *asked*: trials; *again*: repeats;
*open*: running, queued or to be queued; *twice*: finished more than once. None was lost: each trial that a worker
began, by its own account, is in the study. What is to be repeated when the budget is reached is run to its end.

| failure | where | when it came | at the end | a line of the log |
| --- | --- | --- | --- | --- |
"""


def main() -> None:
    """Run the tests; write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of failures.md")
    parser.add_argument("--outage", type=float, default=20, help="seconds (20)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.xml"
        environment = {**os.environ, "ISOTRAIN_OUTAGE": str(asked.outage)}
        command = [
            sys.executable,
            "-m",
            "pytest",
            *TESTS,
            "--override-ini=junit_family=xunit1",
            f"--junitxml={results}",
        ]
        if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
            sys.exit("no table: a test failed")
        rows = [row for case in ElementTree.parse(results).iter("testcase") for row in _rows(case)]
    head = HEAD.format(day=date.today().isoformat(), system=platform.system(), outage=asked.outage)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "failures.md").write_text(head + "".join(rows))


def _rows(case: ElementTree.Element) -> Iterator[str]:
    """The row of a test that kept counts, or was skipped."""
    kept = {item.get("name"): item.get("value") for item in case.iter("property")}
    name, _, variant = str(case.get("name")).removeprefix("test_").partition("[")
    failure = name.replace("_", " ") + (f" ({variant.rstrip(']')})" if variant else "")
    where = next(words for file, words in TESTS.items() if Path(file).stem in str(case.get("classname")))
    skipped = case.find("skipped")
    if skipped is not None:
        yield f"| {failure} | {where} | not run: {skipped.get('message')} | | |\n"
    elif "after" in kept:
        yield f"| {failure} | {where} | {kept.get('before', '')} | {kept['after']} | {kept.get('log', '')} |\n"


if __name__ == "__main__":
    main()
