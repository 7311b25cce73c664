"""The documented way in: `dvc import-url` of a CSV into data/raw, then ingest."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.file_server import serving

from isotrain import files
from isotrain.config.ingest import Ingest, Simulated
from isotrain.data.ingest import ingest
from isotrain.data.simulate import building


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Of a CSV served on loopback."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    table = building(Simulated(hours=1000)).rename_axis("Date and time (UTC)")
    table.to_csv(folder / "made_up.csv")
    with serving(folder) as base:
        yield f"{base}/made_up.csv"


def dvc(project: Path, *arguments: str) -> None:
    """Run DVC in ``project``, with its own settings and no proxy between it and loopback."""
    hidden = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    alone = {f"DVC_{kind}_CONFIG_DIR": str(project / ".settings") for kind in ("GLOBAL", "SYSTEM")}
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=project,
        env=hidden | alone | {"DVC_NO_ANALYTICS": "true"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_series_imported_from_an_address_is_ingested(address: str, tmp_path: Path) -> None:
    project = tmp_path / "project"
    raw = project / "data" / "raw"
    raw.mkdir(parents=True)
    dvc(project, "init", "--no-scm", "--quiet")
    dvc(project, "import-url", address, "data/raw/series.csv")
    assert address in (raw / "series.csv.dvc").read_text()
    tidy = ingest(Ingest(source="series.csv"), raw)
    assert tidy.facts["rows"] == 1000
    assert tidy.facts["sha256"] == files.sha256(tmp_path / "elsewhere" / "made_up.csv")
