"""The experiment about peers, without any of them: its page, its tasks, its errors, what it says when one lacks."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from experiments.peers import table
from experiments.peers.models import HORIZON, MODELS, TRIALS, at, errors, lines, task_of, trials
from experiments.peers.run import installed, main

from isotrain.errors import InputError

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RECORDS = ROOT / "docs" / "results"


def result(folder: Path, dataset: str, model: str, mode: str, **errors: float) -> None:
    """A made-up answer of a peer: the error by the hours between origins, such as ``_25=4.0``."""
    answer = {
        "errors": {step[1:]: {"mae": mae, "mae_last_lead": mae + 1, "origins": 3} for step, mae in errors.items()},
        "seconds": {"fit": 12.3, "forecast": 4.0, "search": 250.0 if mode == "search" else 0.0},
        "lines": 7,
        "commit": "0123456789ab",
    }
    (folder / f"{dataset}-{model}-{mode}.json").write_text(json.dumps(answer))


def cells(page: str, name: str, settings: str) -> list[str]:
    """Of the row of that name, of the last data set that has it."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:1] == "|"]
    return next(row for row in reversed(rows) if row[:2] == [name, settings])


def written(folder: Path, records: Path) -> str:
    table.write(folder, records, folder / "out", README)
    return (folder / "out" / "README.md").read_text(encoding="utf-8")


def test_the_page_says_what_was_measured_and_names_what_was_not(tmp_path: Path) -> None:
    result(tmp_path, "drammen", "nhits", "default", _1=3.456, _25=3.5, _175=3.6)
    result(tmp_path, "drammen", "mstl", "search", _175=4.444)
    page = written(tmp_path, RECORDS)
    assert cells(page, "NHITS", "defaults")[2:] == ["3.46", "3.50", "3.60", "4.46", "12.3", "4", "–", "7"]
    # a fit of MSTL is a forecast too: its seconds are not told apart
    assert cells(page, "MSTL", "ten trials")[2:] == ["–", "–", "4.44", "5.44", "–", "16.3", "250", "7"]
    assert "Commits of the forecasters timed here: 0123456789ab." in page
    missing = page.split("Not measured: ")[2]
    assert "NHITS (ten trials, defaults and perfect weather forecast); " in missing
    assert "MSTL (defaults); " in missing, "it takes no covariates: no weather is expected"
    assert (tmp_path / "out" / "peers.png").stat().st_size > 10_000


def test_the_least_error_comes_first(tmp_path: Path) -> None:
    result(tmp_path, "drammen", "nhits", "default", _1=5.0, _25=5.0)
    result(tmp_path, "drammen", "mlforecast", "default", _25=4.0)
    page = written(tmp_path, RECORDS).split(table.TITLES["drammen"])[1]
    assert page.index("| mlforecast, LightGBM | defaults |") < page.index("| NHITS | defaults |")


def test_our_rows_come_from_the_records(tmp_path: Path) -> None:
    result(tmp_path, "drammen", "nhits", "default", _1=5.0, _25=5.0)
    assert "Not measured: ours (a record" in written(tmp_path, tmp_path_with_forecaster(tmp_path))
    (tmp_path / "drammen").mkdir()
    ours = {"name": "pool", "mae": 3.21, "mae_at_lead": 3.98, "seconds": 11.0}
    (tmp_path / "drammen" / "drammen.json").write_text(json.dumps({"tables": {"perfect": [ours]}}))
    row = cells(written(tmp_path, tmp_path), "**pool**", "perfect weather forecast")
    assert row[2:] == ["3.21", "–", "–", "3.98", "11", "–", "–", "3"]
    assert cells(written(tmp_path, tmp_path), "**rich**", table.RECORD)[-1] == str(len(table.commands(README)))
    assert cells(written(tmp_path, tmp_path), "**rich-refit, ensemble of 5 seeds**", table.RECORD)[2] == "3.27"


def tmp_path_with_forecaster(folder: Path) -> Path:
    """``folder`` with the record of our networks on Drahi-X."""
    copy = folder / "forecaster" / "tradeoff.json"
    copy.parent.mkdir()
    copy.write_bytes((RECORDS / "forecaster" / "tradeoff.json").read_bytes())
    return folder


def test_a_missing_peer_is_named_with_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lacks .*neuralforecast.*pip install '\.\[peers\]'.*--python"):
        installed(sys.executable)
    with pytest.raises(InputError, match="no-such-python: No such file or directory; name the Python"):
        installed("no-such-python")
    with pytest.raises(InputError, match="neuralforecast"):  # before the series are read, which are not there either
        main("drahix", "--data", str(tmp_path), "--folder", str(tmp_path / "new"), "--python", sys.executable)
    assert not (tmp_path / "new").exists()


def hours(count: int) -> pd.DataFrame:
    ds = pd.date_range("2021-01-01", periods=count, freq="h")
    return pd.DataFrame({"unique_id": "a", "ds": ds, "y": np.arange(count, dtype=float)})


@pytest.mark.parametrize("step", [1, 25, 175])
def test_a_task_forecasts_every_origin_that_has_all_its_targets_before_the_end(step: int) -> None:
    series, first, last = hours(1000), 500, 899
    data: dict[str, Any] = {"known": ["hour"], "past": ["temperature"]}
    task = task_of(data, series, str(series.ds[first]), str(series.ds[last]), step, known=False)
    origins = [o for o in range(first, 1000) if (o - first) % step == 0 and o + HORIZON - 1 <= last]
    assert task.origins == len(origins)
    assert len(task.table) - task.hours == first, "what is learnt from ends before the first origin"
    assert len(task.table) - HORIZON == origins[-1]
    assert (task.known, task.past) == (["hour"], ["temperature"])
    perfect = task_of(data, series, str(series.ds[first]), str(series.ds[last]), step, known=True)
    assert (perfect.known, perfect.past) == (["hour", "temperature"], [])


def test_only_measured_targets_from_the_first_scored_hour_on_count() -> None:
    truth = hours(60).rename(columns={"y": "truth"})
    truth.loc[30, "truth"] = np.nan
    origins, leads = np.meshgrid([10, 20, 30], np.arange(1, HORIZON + 1), indexing="ij")
    target = (origins + leads - 1).ravel()
    off = np.random.default_rng(0).normal(size=target.size)
    forecasts = pd.DataFrame(
        {"unique_id": "a", "ds": truth.ds[target].array, "origin": truth.ds[origins.ravel()].array,
         "lead": leads.ravel(), "forecast": target + off}
    )  # fmt: skip
    counted = (target >= 15) & (target != 30)
    found = errors(forecasts, truth, str(truth.ds[15]))
    assert found["mae"] == pytest.approx(np.abs(off[counted]).mean())
    assert found["mae_last_lead"] == pytest.approx(np.abs(off[counted & (leads.ravel() == HORIZON)]).mean())
    assert set(at(forecasts, str(truth.ds[10]), 20).origin) == {truth.ds[10], truth.ds[30]}
    forecasts.loc[40, "forecast"] = np.nan
    with pytest.raises(ValueError, match="1 forecasts are no number"):
        errors(forecasts, truth, str(truth.ds[15]))


@pytest.mark.parametrize("name", list(MODELS))
def test_a_search_tries_the_defaults_and_nine_others_of_the_space(name: str) -> None:
    model = MODELS[name]
    tried = trials(model)
    assert tried[0] == model.defaults
    assert len({json.dumps(one, sort_keys=True) for one in tried}) == TRIALS
    assert all(one[key] in values for one in tried[1:] for key, values in model.space.items())
    assert all(model.defaults[key] in values for key, values in model.space.items()), "the space holds the defaults"
    assert tried == trials(model)


def test_lines_are_those_of_the_body() -> None:
    def peer() -> None:
        first = 1

        assert first

    assert lines(peer) == 2  # type: ignore[arg-type]


def test_an_environment_that_lacks_nothing_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    one = next(iter(MODELS.values()))
    monkeypatch.setattr("experiments.peers.run.MODELS", {"numpy": replace(one, packages=("numpy",))})
    installed(sys.executable)
