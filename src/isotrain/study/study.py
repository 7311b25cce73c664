"""The whole study: its races, then its pages. Interrupted, the same call goes on where it was."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isotrain.config import Params
from isotrain.data.windows import Windows
from isotrain.errors import InputError
from isotrain.files import read_json, write_json
from isotrain.study.pages import write_pages
from isotrain.study.race import PROTOCOL, run_race
from isotrain.study.races import CHAPTERS, Profile, budget_of, race_of
from isotrain.training.outbox import send
from isotrain.training.tracking import tracked

log = logging.getLogger(__name__)
FIGURES = "results/study"  # of the pages, in docs and in a report alike
STUDY = "study.json"
NOTE = """**One row is one training of one method with one seed.** The tag `study` names its race. A method with a
number (`dense.07`) is a point of the search, `dense.chosen` is judged. `final/train_seconds` and `final/val_mae` are
the columns to sort by; the charts show the learning curves (`curve/`).
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
    pages = out / profile / "pages"
    written = write_pages(study, root, pages, FIGURES)
    with tracked(tracking.experiment, tracking.uri, "study", {"kind": "report", "study": profile}) as run:
        run.artifacts(pages)
        head = written[0].read_text(encoding="utf-8").split("\nWritten by")[0].replace(f"({FIGURES}/", "(pages/")
        run.note(f"{NOTE}\n{head}")
    send()
    return written[0]


def record(study: Path, root: Path) -> list[Path]:
    """Put ``study.json`` into docs/results/study and write docs/results.md, docs/resultats.fr.md and docs/jury.md."""
    found = read_json(study, "run `make study` first")
    for name, race in found["races"].items():
        if len(race["commits"]) != 1 or race["commits"][0].endswith("+") or race["commits"][0] == "None":
            raise InputError(
                f"the race {name} was made at {', '.join(race['commits'])}: commit everything and run it again, so "
                "that one "
                "commit holds its code"
            )
    kept = root / "docs" / FIGURES
    kept.mkdir(parents=True, exist_ok=True)
    write_json(kept / STUDY, found)
    return write_pages(found, root, root / "docs", FIGURES)
