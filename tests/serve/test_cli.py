"""The command `isotrain`, as a user runs it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.serve.small_forecaster import PARAMS, Fitted, numbers

from isotrain.cli import run
from isotrain.config import load
from isotrain.forecast.bundle import load_bundle
from isotrain.serve.predict import predict, read_series


def test_a_forecast_and_its_figure_are_written(
    plain: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO")
    (tmp_path / "params.yaml").write_text(PARAMS.read_text())
    runs = tmp_path / load(PARAMS).paths.runs
    runs.mkdir(parents=True)
    (runs / "tuned-0").symlink_to(plain.folder)
    csv = plain.csv(tmp_path / "latest.csv")
    run("forecast", "--csv", str(csv), "--out", "made/forecast.csv", "--plot", "made/forecast.png", "--coverage", "0.5")
    assert "tuned-0" in caplog.text
    written = pd.read_csv("made/forecast.csv")
    bundle = load_bundle(plain.folder)
    direct = predict(bundle, read_series(bundle, csv), 0.5)
    assert list(written) == ["time_utc", "time_local", "lead_h", "forecast_kw", "low_kw", "high_kw"]
    assert list(written["time_local"]) == list(direct["time_local"])
    np.testing.assert_allclose(numbers(written), numbers(direct), atol=6e-4)
    assert Path("made/forecast.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--csv", "none.csv", "--out", "f.csv", "--model", "{folder}"), "error: none.csv does not exist"),
        (("--csv", "none.csv", "--out", "f.csv", "--model", "elsewhere"), "error: elsewhere holds no forecaster"),
        (("--csv", "none.csv", "--out", "f.csv", "--coverage", "80"), "--coverage: 80 must lie between 0 and 1"),
        (("--csv", "none.csv", "--out", ""), "--out: '' names no file"),
        (("--csv", "none.csv", "--out", "f.csv", "--plot", "f.doc"), "--plot: f.doc must end in .png or .svg"),
    ],
)
def test_a_refusal_is_one_line_and_status_2(
    plain: Fitted, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    given = [word.format(folder=plain.folder) for word in words]
    command = [sys.executable, "-m", "isotrain.cli", "forecast", *given]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_imports_nothing_heavy() -> None:
    look = (
        "import sys; from isotrain.cli import parser; parser().format_help(); "
        "print(sorted({'torch', 'mlflow', 'pandas', 'matplotlib', 'pydantic'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
