"""From a trained forecaster and a file to a forecaster of that file, whole or not at all."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.serve.small_forecaster import PARAMS, READ, TIME_COLUMN, Fitted

import isotrain.adapt.adapt as module
from isotrain.adapt.adapt import Adapted, adapt, read_new, windows_of
from isotrain.adapt.many import adapt_all
from isotrain.cli import run
from isotrain.data.ingest import Tidy
from isotrain.errors import InputError
from isotrain.files import sha256
from isotrain.forecast.bundle import Bundle, load_bundle, read_about
from isotrain.serve.predict import predict, read_series


def csv_of(tidy: Tidy, path: Path, rows: int | None = None, times: float = 1.0) -> Path:
    raw = tidy.raw[READ].iloc[:rows].copy()
    raw["TGBT"] *= times
    raw.reset_index(names=TIME_COLUMN).to_csv(path, index=False)
    return path


def digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in folder.iterdir()}


@pytest.fixture(scope="module")
def adapted(parent: Bundle, new: Tidy, tmp_path_factory: pytest.TempPathFactory) -> Adapted:
    return adapt(parent, read_new(parent, csv_of(new, tmp_path_factory.mktemp("csv") / "meter-7.csv")))


def test_it_forecasts_and_says_where_it_comes_from(
    adapted: Adapted, parent: Bundle, fitted: Fitted, new: Tidy, tmp_path: Path
) -> None:
    before = digests(fitted.folder)
    folder = adapted.save(tmp_path / "meter-7")
    assert digests(fitted.folder) == before, "the parent has changed"
    bundle = load_bundle(folder)
    lineage = read_about(folder)["adapted"]
    assert lineage == bundle.adapted
    assert lineage["parent_weights_sha256"] == sha256(fitted.folder / "model.ckpt")
    assert lineage["source"] == "meter-7.csv"
    assert lineage["rows"] == len(new.frame)
    assert lineage["thawed"] == adapted.choice.name
    assert "Adapted to meter-7.csv" in bundle.description
    answer = predict(bundle, read_series(bundle, csv_of(new, tmp_path / "later.csv")))
    assert answer["forecast_kw"].notna().all()
    assert (answer["low_kw"] < answer["high_kw"]).all()
    direct = adapted.windows
    net = parent.network(direct)
    net.load_state_dict({**parent.weights, **adapted.choice.weights})
    assert bundle.series["statistics"] == direct.series[0]["statistics"]
    assert all(torch.equal(value, bundle.weights[name]) for name, value in net.state_dict().items())


def test_the_interval_is_that_of_the_errors_on_the_weeks_held_out(adapted: Adapted, tmp_path: Path) -> None:
    bundle = load_bundle(adapted.save(tmp_path / "meter"))
    scale = bundle.series["statistics"]["scale"]
    assert bundle.residuals is not None
    np.testing.assert_allclose(bundle.residuals, adapted.choice.errors * scale, rtol=1e-5)
    assert len(bundle.residuals) == 168 * adapted.choice.held_out


def test_scales_are_the_new_load_s_and_the_weather_is_the_parent_s(adapted: Adapted, parent: Bundle, new: Tidy) -> None:
    statistics, known = adapted.windows.series[0]["statistics"], parent.meta["series"][0]["statistics"]
    assert statistics["scale"] == pytest.approx(new.frame["TGBT"].std(), rel=1e-6)
    assert statistics["weather"] == known["weather"]
    assert statistics["climate"] == known["climate"]


def test_a_load_ten_times_as_large_is_adapted_to_alike(
    adapted: Adapted, parent: Bundle, new: Tidy, tmp_path: Path
) -> None:
    large = adapt(parent, read_new(parent, csv_of(new, tmp_path / "large.csv", times=10.0)))
    assert large.choice.name == adapted.choice.name
    assert large.choice.strength == adapted.choice.strength
    assert large.choice.gain == pytest.approx(adapted.choice.gain, abs=1e-3)
    for name, value in adapted.choice.weights.items():
        torch.testing.assert_close(large.choice.weights[name], value, rtol=1e-2, atol=1e-3)


def test_the_mean_over_a_pool_is_what_its_weather_is_scaled_by(parent: Bundle, new: Tidy) -> None:
    one = parent.meta["series"][0]
    colder = json.loads(json.dumps(one))
    colder["name"] = "colder"
    colder["statistics"]["weather"][0]["mean"] -= 10
    pool = replace(parent, meta={**parent.meta, "series": [one, colder]})
    found = windows_of(pool, new).series[0]["statistics"]["weather"][0]["mean"]
    assert found == pytest.approx(one["statistics"]["weather"][0]["mean"] - 5)


def test_three_lines_say_what_was_thawed(adapted: Adapted) -> None:
    what, why, gain = adapted.words.splitlines()
    assert what.startswith("meter-7: ")
    assert all(one.name in why for one in adapted.choice.shown)
    assert f"{adapted.choice.gain:+.1%}" in gain


def test_what_cannot_be_adapted_to_is_refused_by_name(parent: Bundle, new: Tidy, tmp_path: Path) -> None:
    table = new.raw[READ].reset_index(names=TIME_COLUMN)
    cases = {
        "short.csv": (table.iloc[:500], r"short.csv has 500 h and adapting takes \d+ h: .* h are missing"),
        "without.csv": (table.drop(columns="AirTemp"), "without.csv.*AirTemp"),
        "half.csv": (table.iloc[::2], "half.csv"),
        "constant.csv": (table.assign(TGBT=5.0), "constant.csv"),
    }
    for name, (content, message) in cases.items():
        content.to_csv(tmp_path / name, index=False)
        with pytest.raises(InputError, match=message):
            adapt(parent, read_new(parent, tmp_path / name))
    with pytest.raises(InputError, match="was not trained on elsewhere"):
        read_new(parent, tmp_path / "short.csv", series="elsewhere")
    with pytest.raises(InputError, match="has no network"):
        windows_of(replace(parent, settings=None), new)


def test_nothing_is_written_over_and_nothing_is_left_half(
    adapted: Adapted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapted.save(tmp_path / "there")
    before = digests(tmp_path / "there")
    with pytest.raises(InputError, match="is there already"):
        adapted.save(tmp_path / "there")
    assert digests(tmp_path / "there") == before

    def full(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(module, "write_adapted", full)
    with pytest.raises(OSError, match="no space"):
        adapted.save(tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_the_command_adapts_a_folder_and_each_run_names_its_parent(
    fitted: Fitted, new: Tidy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("isotrain.training.outbox.send", list)  # the runs stay pending, to be read
    caplog.set_level("INFO")
    (tmp_path / "params.yaml").write_text(PARAMS.read_text())
    (tmp_path / "meters").mkdir()
    csv_of(new, tmp_path / "meters" / "a.csv")
    csv_of(new, tmp_path / "meters" / "b.csv", times=3.0)
    csv_of(new, tmp_path / "meters" / "short.csv", rows=600)
    words = ["adapt", "--model", str(fitted.folder), "--csv", "meters", "--out", "made"]
    with pytest.raises(InputError, match=r"short.csv has 600 h"):
        run(*words)
    assert {path.name for path in Path("made").iterdir()} == {"a", "b", ".claims"}
    assert caplog.text.count("gain on the last") == 2
    runs = [json.loads(path.read_text()) for path in Path("pending_runs").glob("*/run.json")]
    assert {one["name"] for one in runs} == {"adapted-a", "adapted-b"}
    assert {one["tags"]["parent"] for one in runs} == {str(fitted.folder)}
    assert {one["status"] for one in runs} == {"FINISHED"}
    before = {path: sha256(path) for path in Path("made").rglob("*.json")}
    with pytest.raises(InputError):
        run(*words)
    assert {path: sha256(path) for path in Path("made").rglob("*.json")} == before, "what is there stays"


KILLED = """
import os, sys
from pathlib import Path
import isotrain.adapt.adapt as module
from isotrain.adapt.many import adapt_all
from isotrain.forecast.bundle import load_bundle
model, csv, out = map(Path, sys.argv[1:])
module.write_adapted = lambda *_: os.kill(os.getpid(), 9)
adapt_all(load_bundle(model), [csv], out, None, "", None)
"""


@pytest.mark.slow
def test_what_a_killed_process_left_is_taken_up(fitted: Fitted, parent: Bundle, new: Tidy, tmp_path: Path) -> None:
    csv, out = csv_of(new, tmp_path / "meter.csv"), tmp_path / "made"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(fitted.folder), str(csv), str(out)])
    assert ended.returncode == -9
    assert not (out / "meter").exists()
    assert [path.name for path in out.glob("*.part")]
    assert adapt_all(parent, [csv], out, None, "", None) == [out / "meter"]
    assert {path.name for path in out.iterdir()} == {"meter", ".claims"}
    load_bundle(out / "meter")


@pytest.mark.slow
def test_several_processes_adapt_to_each_series_once(fitted: Fitted, new: Tidy, tmp_path: Path) -> None:
    (tmp_path / "meters").mkdir()
    for number in range(6):
        csv_of(new, tmp_path / "meters" / f"{number}.csv", times=1.0 + number)
    words = [
        sys.executable,
        "-m",
        "isotrain.cli",
        "adapt",
        "--model",
        str(fitted.folder),
        "--csv",
        "meters",
        "--out",
        "made",
    ]
    both = [subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum(text.count("gain on the last") for text in said) == 6
    assert {path.name for path in (tmp_path / "made").iterdir()} == {*map(str, range(6)), ".claims"}


def test_a_new_series_gets_the_mean_of_the_biases_of_those_trained_on(
    adapted: Adapted, parent: Bundle, new: Tidy, tmp_path: Path
) -> None:
    """Two biases whose mean is zero change nothing for a series that was not among them; one that was keeps its own."""
    bias = torch.randn(1, len(parent.weights["decoder.of_state.bias"]))
    pool = replace(parent, weights={**parent.weights, "decoder.of_series": torch.cat([bias, -bias])})
    found = adapt(pool, Tidy(new.frame, new.raw, {**new.facts, "name": "of no one"}))
    assert found.choice.name == adapted.choice.name
    saved = load_bundle(found.save(tmp_path / "one"))
    assert "decoder.of_series" not in saved.weights
    torch.testing.assert_close(
        saved.weights["decoder.of_state.bias"], parent.weights["decoder.of_state.bias"], rtol=1e-6, atol=1e-6
    )
    own = pool.for_another(parent.names[0]).weights["decoder.of_state.bias"]
    torch.testing.assert_close(own, parent.weights["decoder.of_state.bias"] + bias[0])
