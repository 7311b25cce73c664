"""A forecast is refused where there is nothing to forecast from, and a bundle where a bit of it is wrong."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.serve.small_forecaster import TIME_COLUMN, Fitted

from isotrain.config.sections import Tracking
from isotrain.errors import InputError
from isotrain.files import read_json, write_json
from isotrain.forecast.bundle import best_bundle, load_bundle, load_state, save_state
from isotrain.serve.predict import predict, read_series
from isotrain.serve.registry import fetch, log_model

Change = Callable[[pd.DataFrame], pd.DataFrame]


def changed(plain: Fitted, folder: Path, change: Change) -> Path:
    path = plain.csv(folder / "latest.csv")
    change(pd.read_csv(path)).to_csv(path, index=False)
    return path


def hollow(share: float) -> Change:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[len(table) - int(share * 336) :, "TGBT"] = np.nan
        return table

    return change


def scaled(column: str, factor: float, offset: float = 0.0) -> Change:
    return lambda table: table.assign(**{column: table[column] * factor + offset})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (hollow(334 / 336), r"of the last \d+ h of TGBT, which the forecast reads, \d+ are missing.*more than 25%"),
        (hollow(0.6), r"of the last \d+ h of TGBT.*more than 25%"),
        (scaled("TGBT", 0.001), r"of the last \d+ h of TGBT.*check its unit"),  # megawatts: every hour is an outage
        (lambda t: t.assign(**{TIME_COLUMN: t[TIME_COLUMN].str.replace("2017", "1950")}), r"no year in which"),
        (
            lambda t: t.assign(**{TIME_COLUMN: pd.date_range("2017-01-01", periods=len(t), freq="90min", tz="UTC")}),
            r"rows are 90 minutes apart",
        ),
        (lambda t: t.rename(columns={"TGBT": "T5"}), r"no column 'TGBT'; it has"),
    ],
)
def test_a_forecast_from_nothing_is_refused(change: Change, words: str, plain: Fitted, tmp_path: Path) -> None:
    bundle = load_bundle(plain.folder)
    with pytest.raises(InputError, match=words):
        read_series(bundle, changed(plain, tmp_path, change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (scaled("TGBT", 0.01, 3.5), "exceed 3.7.* kW; the forecaster was trained on"),  # the load of a zone
        (scaled("AirTemp", 1.8, 80.0), "of AirTemp is .*; over the training part it was"),
    ],
)
def test_what_is_far_from_the_training_part_is_warned_of_by_number(
    change: Change, words: str, plain: Fitted, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = load_bundle(plain.folder)
    lenient = replace(bundle, ingest=bundle.ingest.model_copy(update={"checks": no_limits(bundle)}))
    read_series(lenient, changed(plain, tmp_path, change))
    assert re.search(words, caplog.text), caplog.text


def no_limits(bundle: object) -> object:
    ingest = bundle.ingest  # type: ignore[attr-defined]
    wide = {"lowest": -1e6, "highest": 1e6, "stuck_hours": None, "outage_below": None, "jump": None}
    return {name: ingest.check(name).model_copy(update=wide) for name in ingest.columns}


def test_the_series_itself_is_read_in_silence(plain: Fitted, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bundle = load_bundle(plain.folder)
    answer = predict(bundle, read_series(bundle, plain.csv(tmp_path / "latest.csv")))
    assert not caplog.text and len(answer) == 24
    trained = plain.windows.target[: plain.windows.ranges("train")[0][1]]
    np.testing.assert_allclose(bundle.load_ranges[0], np.quantile(trained, [0.01, 0.5, 0.99]), rtol=1e-6)


@pytest.fixture
def copy(plain: Fitted, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain.folder, tmp_path / "bundle"))


@pytest.mark.parametrize("name", ["forecaster.json", "model.ckpt", "residuals.npz"])
@pytest.mark.parametrize("damage", ["empty", "cut", "random", "one bit", "another kind"])
def test_a_damaged_bundle_is_one_line_that_names_the_file(name: str, damage: str, copy: Path) -> None:
    path = copy / name
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(
        {
            "empty": b"",
            "cut": content[:middle],
            "random": np.random.default_rng(0).bytes(len(content)),
            "one bit": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "another kind": b"<!DOCTYPE html><html></html>",
        }[damage]
    )
    with pytest.raises(InputError, match=name.replace(".", r"\.")) as caught:
        load_bundle(copy)
    assert "train again" in str(caught.value) and "\n" not in str(caught.value)


def test_whole_weights_of_another_fit_are_refused(copy: Path) -> None:
    state = load_state(copy / "model.ckpt")
    save_state(copy / "model.ckpt", {"state_dict": {name: value + 1 for name, value in state["state_dict"].items()}})
    with pytest.raises(InputError, match=r"model\.ckpt is not the file that forecaster\.json was written for"):
        load_bundle(copy)


@pytest.mark.parametrize("store", ["http://127.0.0.1:1", "sqlite:///damaged.db", "garbage://me:hunter2@host"])
def test_a_store_that_takes_no_model_is_one_line(
    store: str, plain: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged.db").write_bytes(b"this is no database" * 100)
    csv = plain.csv(tmp_path / "latest.csv")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    for ask in (
        lambda: log_model(load_bundle(plain.folder), csv, Tracking()),
        lambda: fetch("models:/forecaster/1"),
    ):
        with pytest.raises(InputError, match="check MLFLOW_TRACKING_URI") as caught:
            ask()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["settings", "windows", "load_range", "residuals_sha256", "sha256"])
def test_a_bundle_without_one_of_its_keys_is_refused(key: str, copy: Path) -> None:
    about = read_json(copy / "forecaster.json")
    del about[key]
    write_json(copy / "forecaster.json", about)
    with pytest.raises(InputError, match=r"forecaster\.json is damaged, its checksum does not agree"):
        load_bundle(copy)


def test_residuals_that_have_gone_are_missed(copy: Path) -> None:
    (copy / "residuals.npz").unlink()
    with pytest.raises(InputError, match=r"residuals\.npz"):
        load_bundle(copy)


def test_a_damaged_result_is_named_when_the_best_is_looked_for(copy: Path) -> None:
    (copy / "result.json").write_text('{"val_mae": 4')
    with pytest.raises(InputError, match=r"result\.json cannot be read"):
        best_bundle(copy.parent)
