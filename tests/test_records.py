"""What is recorded under docs/results is true: its settings load, or it says of which commit it is an archive."""

import re
import subprocess
from pathlib import Path

import pytest

from isotrain.config import load

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
