"""Keep the report of the last run as docs/results/NAME; refuse what may not be quoted (docs/results/README.md).

python pipelines/record.py NAME params.yaml
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from isotrain.compare.results import Run, chosen_runs, short_commit
from isotrain.config import Params, decisive, extended, load
from isotrain.config.reader import read_yaml
from isotrain.data.windows import read_meta
from isotrain.errors import InputError, run_as_command
from isotrain.files import read_json, write_json, write_text

RESULTS = Path("docs/results")
REPRODUCE = "run `make reproduce` and record again"
FILES = ("tradeoff.md", "tradeoff.json", "metrics.json")
PACKAGES = {"lightning": "pytorch-lightning", "numpy": "numpy", "isotrain": "isotrain"}
RESOLVED = {"step": "model.hidden", "time": "training.steps"}  # what a budget decided when the study ran


def main(name: str, params: str) -> None:
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(f"NAME={name} is not the name of a folder: call, for example, make record NAME=drahix")
    view = load(params)
    fits = chosen_runs(view.paths.runs, view.compare.methods, view.compare.seeds)
    check_commits(fits)
    check_settings(view, fits)
    report = Path(view.paths.report)
    check_report(report, fits)
    draft = RESULTS / f".{name}.part"
    shutil.rmtree(draft, ignore_errors=True)
    (draft / "figures").mkdir(parents=True)
    for file in (report / file for file in FILES):
        shutil.copyfile(file, draft / file.name)
    if "extends" in read_yaml(Path(params)):  # a record stands alone
        write_text(draft / "params.yaml", yaml.safe_dump(extended(Path(params)), sort_keys=False, allow_unicode=True))
    else:
        shutil.copyfile(params, draft / "params.yaml")
    for figure in sorted((report / "figures").glob("*.png")):
        shutil.copyfile(figure, draft / "figures" / figure.name)
    write_json(draft / "record.json", described(fits))
    shutil.rmtree(RESULTS / name, ignore_errors=True)
    draft.rename(RESULTS / name)
    print(f"recorded: {RESULTS / name}; name it in {RESULTS / 'README.md'}")


def check_commits(fits: Sequence[Run]) -> None:
    """Refuse fits of which no single commit holds the code."""
    remedy = f"commit everything, {REPRODUCE}"
    for fit in fits:
        if fit.commit is None:
            raise InputError(f"{fit.name} was made outside git, so that no commit names its code: {remedy}")
        if fit.commit.endswith("+"):
            shown = short_commit(fit.commit)
            raise InputError(f"{fit.name} was made with changes that are not committed ({shown}): {remedy}")
    if len(commits := {short_commit(fit.commit): fit.name for fit in fits}) > 1:
        some = ", ".join(f"{name} of {commit}" for commit, name in commits.items())
        raise InputError(f"the fits come from {len(commits)} commits ({some}): {REPRODUCE}")


def check_settings(view: Params, fits: Sequence[Run]) -> None:
    """Refuse a params.yaml that says anything else than what was run."""
    there = {fit.name for fit in fits}
    wanted = [f"{method}-{seed}" for method in view.compare.methods for seed in view.compare.seeds]
    if missing := [name for name in wanted if name not in there]:
        raise InputError(f"compare asks for fits that were not made ({', '.join(missing[:3])}): {REPRODUCE}")
    windows: Mapping[str, Any] = read_meta(Path(view.paths.windows) / "windows.json")
    ran: dict[str, Any] = {"ingest.target": fits[0].data.get("target", view.ingest.target)}
    ran |= {f"window.{key}": windows[key] for key in ("history", "horizon", "stride")}
    said: dict[str, Any] = {"ingest.target": view.ingest.target}
    said |= {f"window.{key}": getattr(view.window, key) for key in ("history", "horizon", "stride")}
    _same(said, ran, "the windows")
    if windows["sha256"] != fits[0].data["sha256"]:
        raise InputError(f"the fits learnt another series than the one in {view.paths.windows}: {REPRODUCE}")
    for fit in fits:
        said = json.loads(json.dumps(decisive(view.settings(fit.method))))
        beside = RESOLVED[fit.budget.kind] if fit.budget else None
        _same({k: v for k, v in said.items() if k != beside}, fit.params, fit.name)


def _same(said: dict[str, Any], ran: Any, what: str) -> None:
    for path, value in said.items():
        if path not in ran or ran[path] != value:
            other = ran.get(path, "nothing")
            raise InputError(f"params.yaml says {path} = {value}, but {what} ran with {other}: {REPRODUCE}")


def check_report(report: Path, fits: Sequence[Run]) -> None:
    """Refuse a report that is absent, or that was made of other fits."""
    if absent := [name for name in FILES if not (report / name).exists()]:
        raise InputError(f"{report / absent[0]} does not exist: {REPRODUCE}")
    reported = {(r["method"], r["seed"], r["finished_at"]) for r in read_json(report / "tradeoff.json")["runs"]}
    if reported != {(fit.method, fit.seed, fit.finished_at) for fit in fits}:
        raise InputError(f"{report / 'tradeoff.json'} was made of other fits than those in place now: {REPRODUCE}")


def described(fits: Sequence[Run]) -> dict[str, Any]:
    """``record.json``: what made these fits; of the series its name and digest alone."""
    first = fits[0]
    source = Path(first.data["source"]).name
    return {
        "commit": first.commit,
        "command": "make reproduce" if first.data["simulated"] else f"make reproduce DATA={source}",
        "date": max(fit.finished_at for fit in fits)[:10],
        "versions": {
            **{name: first.hardware[name] for name in ("python", "torch")},
            **{name: version(package) for name, package in PACKAGES.items()},
        },
        "hardware": dict(first.hardware),
        "data": {"source": source, **{key: first.data[key] for key in ("simulated", "rows", "sha256")}},
    }


if __name__ == "__main__":
    run_as_command(main)
