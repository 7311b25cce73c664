"""What a study publishes is the mean of its members on new data too, with the intervals of that mean's own errors."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tests.serve.small_forecaster import PARAMS, Fitted, numbers

from isotrain.baselines import BASELINES, RESTORED, file_of
from isotrain.baselines.trees import EFFORTS
from isotrain.cli import run
from isotrain.config import load
from isotrain.errors import InputError
from isotrain.forecast.bundle import PUBLISHED, load_bundle, publish, read_about, write_about
from isotrain.forecast.forecasts import Forecasts
from isotrain.forecast.intervals import calibrate, working_hours
from isotrain.serve.predict import predict, read_series
from isotrain.serve.registry import _lean_copy

ORIGIN = 3000
CANDIDATES = {"both": 4.0, "ridge-rich": 4.5}


@pytest.fixture(scope="session")
def kept(plain: Fitted, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, np.ndarray, np.ndarray]]:
    """Every baseline that can be published: its file, and its forecasts of validation and of one later origin."""
    patch = pytest.MonkeyPatch()
    few = {name: replace(effort, rounds=8, stride=7) for name, effort in EFFORTS.items()}
    patch.setattr("isotrain.baselines.trees.EFFORTS", few)
    folder, found = tmp_path_factory.mktemp("kept"), {}
    for name in RESTORED:
        fitted = BASELINES[name](plain.windows)
        (folder / file_of(name)).write_bytes(fitted.file)
        seen = fitted(plain.windows.origins("validation"))
        found[name] = folder / file_of(name), seen, fitted(np.array([ORIGIN]))[0]
    patch.undo()
    return found


def published(plain: Fitted, kept: dict, folder: Path, names: list[str], *, network: bool) -> np.ndarray:
    """Publish these in ``folder``; the mean of their forecasts of the validation part."""
    windows = plain.windows
    origins = windows.origins("validation")
    answers = [kept[name][1] for name in names]
    answers += [plain.net.forecast(torch.from_numpy(origins)).numpy()] if network else []
    truth = windows.targets(origins).astype(float)
    seen = Forecasts(origins, windows.time[origins], np.mean(answers, axis=0, dtype=float), truth)
    files = [kept[name][0] for name in names]
    publish(folder, "both", plain.folder if network else None, files, seen, windows, CANDIDATES)
    return seen.prediction


@pytest.mark.parametrize(
    ("names", "network"),
    [
        *(([name], False) for name in RESTORED),
        ([], True),
        (["ridge-rich"], True),
        (["ridge-rich", "lightgbm-quick"], True),
    ],
)
def test_a_forecast_is_the_mean_of_the_members_with_intervals_of_its_own_errors(
    names: list[str], network: bool, plain: Fitted, kept: dict, tmp_path: Path
) -> None:
    folder = tmp_path / PUBLISHED
    seen = published(plain, kept, folder, names, network=network)
    bundle = load_bundle(folder)
    answer = predict(bundle, read_series(bundle, plain.csv(tmp_path / "latest.csv", ORIGIN)), 0.5)
    members = [kept[name][2] for name in names]
    members += [plain.net.forecast(torch.tensor([ORIGIN]))[0].numpy()] if network else []
    np.testing.assert_allclose(answer["forecast_kw"], np.mean(members, axis=0), rtol=1e-4)
    origins = plain.windows.origins("validation")
    limits = calibrate(plain.windows.targets(origins) - seen, working_hours(plain.windows, origins), 0.5)
    _, high = limits.around(np.mean(members, axis=0)[None], working_hours(plain.windows, np.array([ORIGIN])))
    np.testing.assert_allclose(answer["high_kw"], high[0], rtol=1e-3)


def test_what_mlflow_keeps_gives_the_same_forecast(plain: Fitted, kept: dict, tmp_path: Path) -> None:
    published(plain, kept, tmp_path / PUBLISHED, ["ridge-rich", "lightgbm-quick"], network=True)
    bundle = load_bundle(tmp_path / PUBLISHED)
    copy = load_bundle(_lean_copy(bundle, tmp_path / "copy"))
    table = read_series(bundle, plain.csv(tmp_path / "latest.csv"))
    np.testing.assert_array_equal(numbers(predict(copy, table)), numbers(predict(bundle, table)))
    assert copy.description == "both: the least validation MAE of all that could be published (kW: both 4.000, " + (
        "ridge-rich 4.500)."
    )


def test_publishing_anew_leaves_nothing_of_before(plain: Fitted, kept: dict, tmp_path: Path) -> None:
    published(plain, kept, tmp_path / PUBLISHED, ["ridge", "lightgbm"], network=True)
    published(plain, kept, tmp_path / PUBLISHED, ["ridge-rich"], network=False)
    left = {path.name for path in (tmp_path / PUBLISHED).iterdir()}
    assert left == {"forecaster.json", "residuals.npz", "ridge-rich.npz"}


def test_a_member_that_was_not_kept_is_named(plain: Fitted, kept: dict, tmp_path: Path) -> None:
    gone = {**kept, "ridge": (tmp_path / "ridge.npz", *kept["ridge"][1:])}
    with pytest.raises(InputError, match=r"ridge\.npz is missing.*dvc repro baselines"):
        published(plain, gone, tmp_path / PUBLISHED, ["ridge"], network=True)


@pytest.mark.parametrize("name", ["ridge-rich.npz", "lightgbm-quick.txt"])
@pytest.mark.parametrize("damage", ["missing", "one bit", "code"])
def test_a_damaged_member_is_one_line_that_names_the_file(
    name: str, damage: str, plain: Fitted, kept: dict, tmp_path: Path
) -> None:
    folder = tmp_path / PUBLISHED
    published(plain, kept, folder, ["ridge-rich", "lightgbm-quick"], network=True)
    content = (folder / name).read_bytes()
    middle = len(content) // 2
    if damage == "missing":
        (folder / name).unlink()
    elif damage == "one bit":
        (folder / name).write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    else:  # a pickle with the right checksum: it is refused, not run
        with (folder / name).open("wb") as stream:
            np.savez(stream, weights=np.array([print], dtype=object))
        write_about(folder, read_about(folder))
    table = read_series(load_bundle(plain.folder), plain.csv(tmp_path / "latest.csv"))
    with pytest.raises(InputError, match=re.escape(name)) as caught:
        predict(load_bundle(folder), table)
    assert "train again" in str(caught.value) and "\n" not in str(caught.value)


def test_a_member_outside_the_folder_is_refused(plain: Fitted, kept: dict, tmp_path: Path) -> None:
    folder = tmp_path / PUBLISHED
    published(plain, kept, folder, ["ridge"], network=False)
    shutil.move(folder / "ridge.npz", tmp_path / "ridge.npz")
    write_about(folder, {**read_about(folder), "baselines": {"../ridge.npz": ""}})
    with pytest.raises(InputError, match="it lies elsewhere"):
        load_bundle(folder)


def test_the_command_uses_what_is_published(
    plain: Fitted, kept: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO")
    (tmp_path / "params.yaml").write_text(PARAMS.read_text())
    runs, folder = Path(load(PARAMS).paths.runs), Path(load(PARAMS).paths.report) / PUBLISHED
    runs.mkdir(parents=True)
    (runs / "tuned-0").symlink_to(plain.folder)
    published(plain, kept, folder, ["ridge-rich"], network=True)
    csv = plain.csv(tmp_path / "latest.csv")
    run("forecast", "--csv", str(csv), "--out", "forecast.csv")
    assert "both" in caplog.text and "no forecaster yet" not in caplog.text
    bundle = load_bundle(folder)
    expected = predict(bundle, read_series(bundle, csv))
    np.testing.assert_allclose(numbers(pd.read_csv("forecast.csv")), numbers(expected), atol=6e-4)
    run("forecast", "--csv", str(csv), "--out", "single.csv", "--model", str(plain.folder))
    assert not np.allclose(numbers(pd.read_csv("single.csv")), numbers(expected), atol=0.01)
    shutil.rmtree(folder)
    run("forecast", "--csv", str(csv), "--out", "fallback.csv")
    assert "no forecaster yet: the best network of" in caplog.text
    assert Path("fallback.csv").read_text() == Path("single.csv").read_text()
