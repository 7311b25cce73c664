"""The whole study: its races, then its pages. Interrupted, the same call goes on where it was."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isotrain.config import Params
from isotrain.data.windows import Windows
from isotrain.errors import InputError
from isotrain.files import read_json, write_json
from isotrain.study.pages import write_pages
from isotrain.study.race import CHOSEN, JUDGED, PROTOCOL, run_race
from isotrain.study.races import CHAPTERS, Profile, budget_of, race_of
from isotrain.training.baselines import run_baselines
from isotrain.training.outbox import send
from isotrain.training.tracking import log_note, tracked

log = logging.getLogger(__name__)
FIGURES = "results/study"  # of the pages, in docs and in a report alike
STUDY = "study.json"
BASELINES = ("ridge", "ridge-rich", "lightgbm-quick")  # beside the networks of chapter (a)
NOTE = """**How to read the runs.** A row is one training of one method with one seed; the tag `study` names its race. A
method with a number (`dense.07`) is a point of the search, `dense.chosen` is judged. `final/seconds_to_target` is how
many training seconds it took to reach the target of its race: NaN if it never did, empty for a point of the search.
The charts of a selection begin with the learning curves (`curve/`).

[All tables](results.md)
"""


def run_study(params: Params, profile: Profile, letters: Sequence[str], out: Path, root: Path) -> Path:
    """Run the races of the chapters ``letters`` (empty: all), write the pages of all that is there; ``results.md``.

    ``out`` holds the fits, ``study.json`` and ``pages``. ``root``: the project, whose experiments recorded the other
    chapters. Raises :class:`InputError` without windows, or for a chapter that is no race.
    """
    windows = Path(params.paths.windows)
    if not (windows / "windows.json").exists():
        raise InputError(f"{windows} holds no windows: run `make study`, or `dvc repro window` first")
    series = Windows.load(windows)
    wanted = [name for letter in letters or CHAPTERS for name in CHAPTERS[letter]]
    path = out / profile / STUDY
    study: dict[str, Any] = read_json(path) if path.exists() else {"races": {}}
    study |= {"profile": profile, "protocol": PROTOCOL}
    other = [name for name, race in study["races"].items() if race["data"]["sha256"] != series.meta["sha256"]]
    if other:
        raise InputError(
            f"{path} is of another series than {windows}: name another folder with --out, or remove {path.parent}"
        )
    tracking = params.tracking.model_copy(update={"experiment": f"{params.tracking.experiment}-study"})
    view = params.model_copy(update={"tracking": tracking})
    for name in wanted:
        log.info("race %s", name)
        race = race_of(name, study["races"].get("building"))
        study["races"][name] = run_race(race, view, windows, out / profile / name, budget_of(profile, name))
        write_json(path, study)
    if "building" in wanted:
        rows = run_baselines(BASELINES, series, out / profile / "baselines", tracking, threads=1)
        study["baselines"] = [{key: row[key] for key in ("name", "seconds", "val_mae", "test_mae")} for row in rows]
        write_json(path, study)
    pages = out / profile / "pages"
    written = write_pages(study, root, pages, FIGURES)
    tags = {"kind": "report", "study": profile}
    with tracked(tracking.experiment, tracking.uri, "study", tags, whole_pipeline=True) as run:
        run.artifacts(pages)
        head = written[0].read_text(encoding="utf-8").split("\nWritten by")[0].strip()
        _, picture, *answer = head.split("\n\n")
        log_note(run, "\n\n".join([*answer, picture, NOTE]), pages)  # folded, MLflow shows the first line
        for name, race in study["races"].items():
            for row in race["racers"]:
                for seed, one in enumerate(row["seeds"]):
                    fit = read_json(out / profile / name / JUDGED / f"{row['name']}{CHOSEN}-{seed}" / "result.json")
                    seconds = math.nan if one["to_target"] is None else one["to_target"]
                    run.report_on(fit["key"], {"final/seconds_to_target": seconds})
    send()
    return written[0]


def record(study: Path, root: Path) -> list[Path]:
    """Put ``study`` into docs/results/study and write docs/results.md, docs/resultats.fr.md and docs/jury.md.

    Where it was not run here the pages are written again from what is recorded, since experiments may have gone on.
    Raises :class:`InputError` for a race whose code no commit, or no single one, holds.
    """
    kept = root / "docs" / FIGURES
    found = read_json(study if study.exists() else kept / STUDY, "run `make study` first")
    for name, race in found["races"].items():
        if len(race["commits"]) != 1 or race["commits"][0].endswith("+") or race["commits"][0] == "None":
            raise InputError(
                f"the race {name} was made at {', '.join(race['commits'])}: commit everything and run it again, so "
                "that one "
                "commit holds its code"
            )
    kept.mkdir(parents=True, exist_ok=True)
    write_json(kept / STUDY, found)
    return write_pages(found, root, root / "docs", FIGURES)
