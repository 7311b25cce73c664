"""What is recorded under docs/results is true: its settings load, or it says of which commit it is an archive."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from pipelines.record import main as record
from tests.report.made_up_runs import TIME, MadeUp, change, make_runs

from isotrain.compare.results import read_runs
from isotrain.config import decisive, load
from isotrain.data.windows import Meta, write_meta
from isotrain.errors import InputError

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
FOLDERS = sorted(path for path in RESULTS.iterdir() if path.is_dir())
ARCHIVE = re.compile(r"^Archive of commit `([0-9a-f]{40})`\.$", re.MULTILINE)


def git(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)


def archived_commit(folder: Path) -> str | None:
    """The commit that ``ARCHIVE.md`` in ``folder`` names, if there is such a file."""
    path = folder / "ARCHIVE.md"
    if not path.exists():
        return None
    found = ARCHIVE.search(path.read_text(encoding="utf-8"))
    assert found, f"{path} must hold a line: Archive of commit `<40 hexadecimal digits>`."
    return found[1]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_record_loads_or_names_the_commit_of_its_archive(folder: Path) -> None:
    commit = archived_commit(folder)
    if (folder / "study.json").exists():  # the races of the study: tests/study/test_pages.py holds the pages to them
        return
    if (folder / "README.md").exists():  # an experiment's page, which has no settings of the study: how it was written
        assert re.search(r"`python -m experiments\.[\w.]+`", (folder / "README.md").read_text(encoding="utf-8"))
        return
    if commit is None:
        load(folder / "params.yaml")
        return
    assert f"git worktree add ../isotrain-archive {commit}" in (folder / "ARCHIVE.md").read_text(encoding="utf-8")
    if git("rev-parse", "--is-shallow-repository").stdout.strip() == "false":  # else its format alone can be checked
        assert git("cat-file", "-e", f"{commit}^{{commit}}").returncode == 0, f"{folder.name}: no commit {commit}"


def test_the_list_of_records_is_complete() -> None:
    text = (RESULTS / "README.md").read_text(encoding="utf-8")
    assert [folder.name for folder in FOLDERS if f"`{folder.name}`" not in text] == []


def test_the_readme_links_to_no_archive() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    quoted = re.findall(r"docs/results/([\w.-]+)/", text)
    assert all((RESULTS / name).is_dir() for name in quoted)
    assert [name for name in quoted if archived_commit(RESULTS / name)] == []


# pipelines/record.py

DATA = {"source": "/somewhere/mine.csv", "simulated": False, "rows": 9000, "sha256": "cd" * 32, "target": "TGBT"}
RUN = MadeUp("streamed", 40, 5.0)
MADE = {"tuned": RUN, "isolated": RUN, "short": MadeUp("streamed", 40, 5.0, role="control", budget=TIME)}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a study that may be recorded: settings, windows, fits and a report that agree."""
    monkeypatch.chdir(tmp_path)
    said = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    said["compare"] |= {"methods": list(MADE), "seeds": [0, 1]}
    Path("params.yaml").write_text(yaml.safe_dump(said, sort_keys=False))
    view = load("params.yaml")
    make_runs(Path(view.paths.runs), MADE, seeds=(0, 1))
    for method in MADE:
        params = json.loads(json.dumps(decisive(view.settings(method))))
        params |= {"training.steps": 190} if method == "short" else {}  # what its budget allowed
        for seed in (0, 1):
            change(Path(view.paths.runs), f"{method}-{seed}", params=params, data=DATA)
    windows = Path(view.paths.windows)
    shape = {key: getattr(view.window, key) for key in ("history", "horizon", "stride")}
    meta: Any = dict.fromkeys(Meta.__required_keys__, "none") | {"series": [{"ingest": {}}]} | shape | DATA
    write_meta(windows / "windows.json", meta, of_arrays={})
    report = Path(view.paths.report)
    (report / "figures").mkdir(parents=True)
    for name in ("tradeoff.md", "metrics.json", "figures/a.png", "figures/a.svg"):
        (report / name).write_text("{}")
    fits = [{k: getattr(run, k) for k in ("method", "seed", "finished_at")} for run in read_runs(view.paths.runs)]
    (report / "tradeoff.json").write_text(json.dumps({"runs": fits}))
    return tmp_path


def test_a_record_holds_the_report_and_what_made_it(study: Path) -> None:
    old = study / "docs" / "results" / "mine" / "old.md"
    old.parent.mkdir(parents=True)
    old.touch()
    record("mine", "params.yaml")
    folder = study / "docs" / "results" / "mine"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*.*")}
    report = {"tradeoff.md", "tradeoff.json", "metrics.json", "figures/a.png"}
    assert files == report | {"params.yaml", "record.json"}
    assert (folder / "params.yaml").read_bytes() == (study / "params.yaml").read_bytes()
    text = (folder / "record.json").read_text()
    made = json.loads(text)
    assert made["commit"] == "0123456789abcdef"
    assert made["command"] == "make reproduce DATA=mine.csv"
    assert made["date"] == "2026-03-02"
    assert set(made["versions"]) == {"python", "torch", "lightning", "numpy", "isotrain"}
    assert all(re.match(r"\d", number) for number in made["versions"].values())
    assert made["hardware"]["cpu"].startswith("Made-up")
    assert made["data"] == {"source": "mine.csv", "simulated": False, "rows": 9000, "sha256": "cd" * 32}
    assert "somewhere" not in text and str(study) not in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"commit": None}, r"tuned-1 was made outside git.*commit everything"),
        ({"commit": "0123456789abcdef+"}, r"tuned-1 was made with changes.*0123456789\+.*commit everything"),
        ({"commit": "fedcba9876543210"}, r"2 commits.*fedcba9876.*make reproduce"),
        ({"finished_at": "2027-03-02T01:10:00+00:00"}, r"tradeoff\.json was made of other fits"),
        ({"params": {}}, r"params\.yaml says model.* but tuned-1 ran with nothing"),
    ],
)
def test_fits_that_may_not_be_quoted_are_refused_and_nothing_is_left(
    study: Path, changes: dict[str, Any], words: str
) -> None:
    change(Path(load("params.yaml").paths.runs), "tuned-1", **changes)
    with pytest.raises(InputError, match=words):
        record("mine", "params.yaml")
    assert not (study / "docs").exists()


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("training.learning_rate", 0.5, r"training\.learning_rate = 0\.5, but isolated-0 ran with"),
        ("training.steps", 7, r"training\.steps = 7, but isolated-0 ran with"),
        ("window.history", 72, r"window\.history = 72, but the windows ran with"),
        ("ingest.target", "T7", r"ingest\.target = T7, but the windows ran with TGBT"),
        ("compare.seeds", [0, 1, 5], r"not made \(tuned-5, isolated-5, short-5\): run `make reproduce`"),
    ],
)
def test_settings_that_were_not_run_are_refused(study: Path, path: str, value: object, words: str) -> None:
    section, key = path.split(".")
    said = yaml.safe_load(Path("params.yaml").read_text())
    said[section][key] = value
    Path("params.yaml").write_text(yaml.safe_dump(said, sort_keys=False))
    with pytest.raises(InputError, match=words):
        record("mine", "params.yaml")
    assert not (study / "docs").exists()


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden"])
@pytest.mark.usefixtures("study")
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="make record NAME=drahix"):
        record(name, "params.yaml")


def test_a_report_that_was_not_written_is_refused(study: Path) -> None:
    (study / load("params.yaml").paths.report / "metrics.json").unlink()
    with pytest.raises(InputError, match=r"metrics\.json does not exist.*make reproduce"):
        record("mine", "params.yaml")
