"""The report of made-up fits: the contract key by key, the words, the figures."""

import json
import math
import re
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text
from tests.report.made_up_runs import (
    ABOUT,
    HOUR,
    LEVELS,
    METHODS,
    MONDAY,
    MadeUp,
    change,
    make_baseline,
    make_baselines,
    make_runs,
)

from isotrain.compare.accuracy import best_on_validation
from isotrain.compare.comparison import Comparison, Settings
from isotrain.compare.results import read_runs
from isotrain.compare.statistics import week_of
from isotrain.errors import InputError
from isotrain.forecast.forecasts import Forecasts
from isotrain.report.drawing import PALETTE, REFERENCES, colours, label_points, new_figure, spread, titled
from isotrain.report.figures import chosen_weeks, daily_rows
from isotrain.report.page import write_report
from isotrain.report.tables import differences, entries, kilowatts
from isotrain.report.words import answer, budget_lines, masked_lines, notes, verdicts

SETTINGS = Settings(
    {"streamed": "stock", "windowed": "stock-windowed"},
    {"streamed": "tuned", "windowed": "tuned-windowed"},
    bootstrap=300,
    about=ABOUT,
)
FIGURES = ("tradeoff", "learning_curves", "isolated_share", "forecasts", "error_by_lead", "error_by_month", "phases")
TUNED = MadeUp("streamed", 42, 5.02, role="reference")
FASTER = MadeUp("streamed", 20, 4.8, isolated=0.5)
WORSE = MadeUp("streamed", 20, 5.6, isolated=0.5)


def smaller(step_ms: float, val_mae: float) -> MadeUp:
    """A control whose step costs as much as that of ``layer``."""
    return MadeUp("streamed", step_ms, val_mae, role="control", budget={"step": "layer", "goal_ms": 20.0, "hidden": 8})


def shorter(step_ms: float, val_mae: float, steps: int = 300) -> MadeUp:
    """A control stopped at the time that ``layer`` takes."""
    budget = {"time": "layer", "seconds": 6.0, "steps": steps}
    return MadeUp("streamed", step_ms, val_mae, role="control", budget=budget, steps=steps)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every made-up method; one fit of ``state-zeroed`` diverged."""
    folder = make_runs(tmp_path_factory.mktemp("runs"))
    errors = dict.fromkeys(["best_val_mae", "val_mae", "test_mae", "test_rmse", "test_mase", "mae_by_lead"])
    change(folder, "state-zeroed-1", diverged=True, history=[], **errors)
    return folder


@pytest.fixture(scope="module")
def report(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of ``runs``."""
    folder = tmp_path_factory.mktemp("report")
    return write_report(read_runs(runs), make_baselines(folder / "baselines"), folder, SETTINGS).parent


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures are made but not rendered, for tests of what is said: rendering takes most of a report's time."""

    def save_nothing(figure: Figure, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.png").touch()
        (folder / f"{name}.svg").write_text("<svg></svg>")

    monkeypatch.setattr("isotrain.report.figures.save_figure", save_nothing)


def read(report: Path) -> Any:
    return json.loads((report / "tradeoff.json").read_text(encoding="utf-8"))


def compared(folder: Path, methods: dict[str, MadeUp], settings: Settings = SETTINGS, **changes: Any) -> Comparison:
    """A comparison of made-up methods of two seeds; ``changes`` are made to every result."""
    make_runs(folder, methods, seeds=(0, 1))
    for run in list(folder.iterdir()):
        change(folder, run.name, **changes)
    return Comparison(read_runs(folder), settings)


def judged(comparison: Comparison) -> dict[str, tuple[bool | None, str]]:
    return {v.method.name: (v.pays, v.text) for v in verdicts(comparison, differences(comparison))}


def answered(comparison: Comparison) -> str:
    return answer(comparison, verdicts(comparison, differences(comparison)))


# the contract


def test_the_json_has_exactly_the_keys_agreed_on(report: Path) -> None:
    page = read(report)
    agreed = {"data", "hardware", "target", "methods", "baselines", "answer", "verdicts", "warnings"}
    assert set(page) == agreed | {"accuracy", "intervals", "targets_by_regime", "runs", "notes", "published"}
    assert set(page["data"]) == {"source", "simulated", "rows", "sha256", "ahead", "series"}
    assert set(page["target"]) == {"metric", "value", "unit"}
    figures = {"isolated_fraction", "val_mae", "test_mae", "test_rmse", "test_mase", "train_seconds"}
    figures |= {"step_ms", "seconds_to_target", "speedup_vs_stock", "speedup_vs_tuned"}
    assert [method["name"] for method in page["methods"]] == list(METHODS)
    for method in page["methods"]:
        assert set(method) == {"name", "seeds"} | figures
        assert method["seeds"] == 3
        for figure in figures:
            assert set(method[figure]) == {"median", "low", "high"}
    levels = LEVELS.items()
    assert page["baselines"] == [{"name": n, "test_mae": mae, "test_rmse": 1.5 * mae} for n, mae in levels]
    assert len(page["runs"]) == 3 * len(METHODS)


def test_the_figures_in_the_json_are_those_of_the_fits(report: Path, runs: Path) -> None:
    page = read(report)
    fits = [json.loads((runs / f"layer-{seed}" / "result.json").read_text()) for seed in range(3)]
    layer = next(method for method in page["methods"] if method["name"] == "layer")
    maes = sorted(fit["test_mae"] for fit in fits)
    assert layer["test_mae"] == {"median": maes[1], "low": maes[0], "high": maes[2]}
    tuned = [json.loads((runs / f"tuned-{seed}" / "result.json").read_text()) for seed in range(3)]
    target = median(fit["best_val_mae"] for fit in tuned)
    assert page["target"] == {"metric": "val_mae", "value": target, "unit": "kW"}
    assert page["targets_by_regime"]["streamed"] == target
    assert page["targets_by_regime"]["windowed"] != target
    to_target = [next((v["train_seconds"] for v in fit["history"] if v["val_mae"] <= target), math.inf) for fit in fits]
    assert layer["seconds_to_target"]["median"] == median(to_target)


def test_what_missed_the_target_is_null(report: Path) -> None:
    page = read(report)
    short = next(method for method in page["methods"] if method["name"] == "short")
    nothing = {"median": None, "low": None, "high": None}
    assert short["seconds_to_target"] == short["speedup_vs_tuned"] == nothing
    zeroed = next(method for method in page["methods"] if method["name"] == "state-zeroed")
    assert zeroed["test_mae"]["high"] is None  # the diverged fit
    assert zeroed["test_mae"]["median"] is not None
    assert any("state-zeroed-1" in note for note in page["notes"])


def test_metrics_are_the_medians(report: Path) -> None:
    metrics = json.loads((report / "metrics.json").read_text())
    assert list(metrics) == ["series", *METHODS]
    data = read(report)["data"]
    assert metrics["series"] == {
        "source": data["source"],
        "hours": data["rows"],
        "sha256": data["sha256"][:12],
        "ahead": "",
    }
    assert metrics["short"]["seconds_to_target"] is None
    for method in read(report)["methods"]:
        names = ("val_mae", "test_mae", "train_seconds", "seconds_to_target")
        assert metrics[method["name"]] == {name: method[name]["median"] for name in names}


def test_the_page_and_the_metrics_say_first_what_is_published(tmp_path: Path) -> None:
    rows = [make_baseline(tmp_path / "baselines", "ridge-rich", 4.4, 1000)]
    fits = read_runs(make_runs(tmp_path / "runs", {"tuned": TUNED, "layer": FASTER}))
    best = best_on_validation(fits, rows)
    assert best is not None
    folder = write_report(fits, rows, tmp_path / "report", SETTINGS, published=best).parent
    head = (folder / "tradeoff.md").read_text(encoding="utf-8").split("## The figures")[0]
    line = next(line for line in head.splitlines() if "What is published" in line)
    assert (
        best.description in line
        and f"{kilowatts(best.mae)} kW" in line
        and f"all {len(best.candidates)} candidates" in line
    )
    published = {"name": best.name, "val_mae": best.val_mae, "test_mae": best.mae}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert published.items() <= metrics.pop("published").items() and list(metrics) == ["series", "tuned", "layer"]
    page = read(folder)
    assert published.items() <= page["published"].items()
    assert (f"published: {best.name}" in {row["name"] for row in page["accuracy"]["forecasts"]}) == (
        len(best.members) > 1
    )


# the page


def test_the_page_begins_with_what_matters_and_names_every_method(report: Path) -> None:
    text = (report / "tradeoff.md").read_text(encoding="utf-8")
    assert "SIMULATED" in text.splitlines()[0]
    places = ["The question", "The answer", "figures/tradeoff.png", "| method |", "## Verdicts", "phases.png"]
    found = [text.index(place) for place in [*places, "## How it was measured"]]
    assert found == sorted(found)
    page = (report / "tradeoff.html").read_text(encoding="utf-8")
    for name, about in ABOUT.items():
        assert f"| `{name}` |" in text
        assert about in text
        assert f"<code>{name}</code></td>" in page


def test_the_html_needs_nothing_else(report: Path) -> None:
    page = (report / "tradeoff.html").read_text(encoding="utf-8")
    sources = re.findall(r'src="([^"]+)"', page)
    assert len(sources) == len(FIGURES)
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    assert "href=" not in page
    assert 'name="viewport"' in page
    assert "@media print" in page


def test_text_from_outside_cannot_break_the_page(tmp_path: Path) -> None:
    make_runs(tmp_path / "runs", {"tuned": TUNED}, seeds=(0,))
    settings = replace(SETTINGS, about={"tuned": "a <script>alert(1)</script> | b"})
    baselines = [replace(make_baseline(tmp_path, "odd", 5.0, 0), name="<b>x</b>|y")]
    folder = write_report(read_runs(tmp_path / "runs"), baselines, tmp_path, settings).parent
    page = (folder / "tradeoff.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "<b>x" not in page
    assert "&lt;b&gt;x&lt;/b&gt;|y</td>" in page


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_there_and_not_blank(report: Path, name: str) -> None:
    picture = imread(report / "figures" / f"{name}.png")[..., :3]
    assert picture.shape[1] == 1260
    inked = (picture < 0.9).any(axis=2).mean()
    assert 0.01 < inked < 0.6
    assert len(np.unique((picture * 255).astype(int) @ (1, 256, 65536))) > 20
    svg = (report / "figures" / f"{name}.svg").read_text(encoding="utf-8")
    assert "<dc:date>" not in svg
    assert svg.count("<path") > 20


@pytest.mark.slow
def test_equal_fits_give_equal_bytes(tmp_path: Path) -> None:
    make_runs(tmp_path / "runs", {"tuned": TUNED, "layer": FASTER}, seeds=(0,))
    baselines = make_baselines(tmp_path / "baselines")
    for name in ("a", "b"):
        write_report(read_runs(tmp_path / "runs"), baselines, tmp_path / name, SETTINGS)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 4 + 2 * len(FIGURES)
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_nothing_is_written_when_the_hardware_differs(runs: Path, tmp_path: Path) -> None:
    fits = read_runs(runs)
    fits[3] = replace(fits[3], hardware=dict(fits[3].hardware) | {"threads": 64})
    with pytest.raises(InputError, match=rf"hardware.*{fits[3].name}"):
        write_report(fits, [], tmp_path / "report", SETTINGS)
    assert not (tmp_path / "report").exists()


def test_a_report_without_references_baselines_or_isolation_is_still_written(tmp_path: Path) -> None:
    make_runs(tmp_path / "runs", {"small": smaller(20, 5.0)}, seeds=(0,))
    folder = write_report(read_runs(tmp_path / "runs"), [], tmp_path, SETTINGS).parent
    page = read(folder)
    assert page["target"]["value"] is None
    assert page["methods"][0]["speedup_vs_tuned"] == {"median": None, "low": None, "high": None}
    assert any("tuned reference is absent" in note for note in page["notes"])
    assert "nothing to answer yet" in (folder / "tradeoff.md").read_text(encoding="utf-8")
    assert not (folder / "figures" / "isolated_share.png").exists()


def test_no_fit_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no fit to report"):
        write_report([], [], tmp_path, SETTINGS)


# the words


def test_isolation_pays_only_if_it_beats_tuned_and_the_controls(tmp_path: Path) -> None:
    methods = {"tuned": TUNED, "layer": FASTER, "small": smaller(30, 4.8), "short": shorter(30, 4.8)}
    comparison = compared(tmp_path, methods)
    pays, text = judged(comparison)["layer"]
    assert pays is True
    assert "2 of 2 seeds" in text
    assert "against `tuned`, `small` and `short` (not run in this regime: the same network on our kernels)" in text
    assert answered(comparison).startswith("Yes, for `layer`.")


def test_a_smaller_network_that_is_as_fast_takes_the_gain_away(tmp_path: Path) -> None:
    comparison = compared(tmp_path, {"tuned": TUNED, "layer": FASTER, "small": smaller(10, 4.8)})
    pays, text = judged(comparison)["layer"]
    assert pays is False
    assert "faster than `tuned`" in text
    assert "slower than `small`" in text
    assert "Isolation does not pay here" in text
    assert answered(comparison).startswith("Isolation does not pay here.")
    assert "But `small` reaches it at least as soon" in answered(comparison)


def test_missing_the_target_does_not_pay(tmp_path: Path) -> None:
    comparison = compared(tmp_path, {"tuned": TUNED, "layer": WORSE})
    pays, text = judged(comparison)["layer"]
    assert pays is False
    assert "0 of 2 seeds" in text
    assert "clearly worse" in text
    assert "misses the target" in answered(comparison)


def test_without_a_control_of_equal_cost_nothing_is_claimed(tmp_path: Path) -> None:
    kernels = MadeUp("streamed", 40, 5.0, role="control")  # the same network: no control of equal cost
    comparison = compared(tmp_path, {"tuned": TUNED, "layer": FASTER, "native": kernels})
    pays, text = judged(comparison)["layer"]
    assert pays is None
    assert "faster than `native`" in text
    assert "no control of equal cost" in text
    assert answered(comparison).startswith("These seeds do not decide it.")


def test_without_tuned_nothing_is_judged(tmp_path: Path) -> None:
    comparison = compared(tmp_path, {"layer": FASTER})
    assert judged(comparison)["layer"][0] is None
    assert "no tuned reference" in answered(comparison)


@pytest.mark.parametrize(("step_ms", "suspicious"), [(43, False), (20, True)])
def test_masking_is_said_to_save_nothing(tmp_path: Path, step_ms: float, suspicious: bool) -> None:
    masked = MadeUp("streamed", step_ms, 5.0, isolated=0.5, role="control", mode="masked")
    (line,) = masked_lines(compared(tmp_path, {"tuned": TUNED, "nothing-saved": masked}))
    assert "**saves nothing**" in line
    assert ("check the timing" in line) is suspicious


@pytest.mark.usefixtures("unrendered")
def test_a_measured_series_is_not_called_simulated_and_its_test_part_has_a_caveat(tmp_path: Path) -> None:
    data = {"source": "/somewhere/drahix.csv", "simulated": False, "rows": 43_000, "sha256": "cd" * 32, "unit": "kW"}
    comparison = compared(tmp_path / "runs", {"tuned": TUNED, "layer": FASTER}, data=data)
    folder = write_report(comparison.runs, [], tmp_path, SETTINGS).parent
    for name in ("tradeoff.md", "tradeoff.html", "tradeoff.json"):
        text = (folder / name).read_text(encoding="utf-8")
        assert "simulated series" not in text.lower()
        assert "drahix.csv" in text and "somewhere" not in text
    assert any("COVID" in note for note in notes(comparison))


@pytest.mark.usefixtures("unrendered")
def test_a_perfect_weather_forecast_is_said_at_every_table_and_picture_and_in_every_answer(tmp_path: Path) -> None:
    ahead = "perfect weather forecast (AirTemp)"
    data = {"source": "drahix.csv", "simulated": False, "rows": 43_000, "sha256": "cd" * 32, "ahead": ahead}
    comparison = compared(tmp_path / "runs", {"tuned": TUNED, "layer": FASTER}, data=data)
    folder = write_report(comparison.runs, [], tmp_path, SETTINGS).parent
    text = (folder / "tradeoff.md").read_text(encoding="utf-8")
    assert text.splitlines()[0].endswith(f", with {ahead}")
    blocks = text.split("\n\n")
    shown = [number for number, block in enumerate(blocks) if "|---" in block.replace(" ", "") or "![" in block]
    assert len(shown) > 5 and all(blocks[number + 1] == f"*With {ahead}.*" for number in shown)
    page = read(folder)
    assert f"Caution: {ahead}" in page["answer"] and page["data"]["ahead"] == ahead
    assert f"<em>With {ahead}.</em>" in (folder / "tradeoff.html").read_text(encoding="utf-8")
    assert titled(comparison.runs[0], "Errors").splitlines() == ["Errors", ahead]


@pytest.mark.usefixtures("unrendered")
def test_what_is_really_known_ahead_is_said_but_weakens_nothing(tmp_path: Path) -> None:
    data = {"source": "a.csv", "simulated": False, "rows": 9000, "sha256": "cd" * 32, "ahead": "known ahead: Price"}
    comparison = compared(tmp_path / "runs", {"tuned": TUNED, "layer": FASTER}, data=data)
    text = (write_report(comparison.runs, [], tmp_path, SETTINGS).parent / "tradeoff.md").read_text(encoding="utf-8")
    assert "*With known ahead: Price.*" in text and "Caution" not in answered(comparison)


@pytest.mark.usefixtures("unrendered")
def test_the_notes_say_what_weakens_the_comparison(tmp_path: Path, runs: Path) -> None:
    assert not any("COVID" in note or "side by side" in note for note in notes(Comparison(read_runs(runs), SETTINGS)))
    at_once = {"started_at": "2026-03-01T10:00:00+00:00", "finished_at": "2026-03-01T10:05:00+00:00"}
    comparison = compared(tmp_path, {"tuned": TUNED}, **at_once)
    comparison.runs[0].__dict__["machine_seconds"] = 2.0
    text = " ".join(notes(comparison))
    assert "side by side" in text
    assert "speed changed during the comparison" in text
    assert "2026-03-01" in text
    assert "range of the seeds" in text
    page = write_report(comparison.runs, [], tmp_path / "report", SETTINGS).read_text(encoding="utf-8")
    assert page.index("speed changed") < page.index("<img")


# what weakens a comparison goes with every sentence that quotes it


@pytest.mark.usefixtures("unrendered")
def test_every_sentence_that_can_be_quoted_carries_the_marks(tmp_path: Path, runs: Path) -> None:
    fits = read_runs(runs)
    slow = replace(fits[0], machine_seconds=1.88, commit="fedcba9876543210+")
    page = read(write_report([slow, *fits[1:]], [], tmp_path, SETTINGS).parent)
    wanted = "(Caution: SIMULATED series; several commits; uncommitted changes; the machine's speed changed 1.88-fold;"
    text = (tmp_path / "tradeoff.md").read_text(encoding="utf-8")
    verdict_section = text.split("## Verdicts")[1].split("### Against")[0]
    quoted = [page["answer"], *(verdict["text"] for verdict in page["verdicts"])]
    quoted += [line for line in verdict_section.splitlines() if line.startswith("- ")]
    assert len(quoted) == 1 + 2 + 2 + 1 + 2  # the answer, the verdicts twice, the masked control, two budgets
    assert all(wanted in sentence for sentence in quoted)
    assert [warning["mark"] for warning in page["warnings"]][:2] == ["SIMULATED series", "several commits"]
    assert all(warning["text"] in text for warning in page["warnings"])
    assert "0123456789, fedcba9876+" in text


def test_a_comparison_without_weakness_has_no_mark(tmp_path: Path) -> None:
    data = {"source": "drahix.csv", "simulated": False, "rows": 43_000, "sha256": "cd" * 32}
    comparison = compared(tmp_path, {"tuned": TUNED, "layer": FASTER}, data=data)
    assert "Caution" not in answered(comparison) + judged(comparison)["layer"][1]


# the budgets of the controls


def test_a_budget_is_said_with_the_seconds_that_it_was_derived_from(tmp_path: Path) -> None:
    methods = {"small": smaller(20.2, 5.0), "short": shorter(40, 5.0, steps=60)}
    comparison = compared(tmp_path, methods)
    lines = dict(zip(["short", "small"], sorted(budget_lines(comparison)), strict=True))
    short = comparison.find("short")
    assert short is not None
    spent = median(run.train_seconds for run in short.runs)
    assert "`short` is the training time of `layer`, measured as 6.00 s; its own is " in lines["short"]
    assert f"{spent:.2f} s, {100 * (1 - spent / 6):.0f} % less. **That is no control of equal cost.**" in lines["short"]
    assert "`small` is the mean step of `layer`, measured as 20.0 ms; its own is 20." in lines["small"]
    assert "no control of equal cost" not in lines["small"]


# nothing is compared with itself, nor with nothing


CHANGED_REFERENCES = [
    SETTINGS,
    replace(SETTINGS, reference_stock={"streamed": "tuned", "windowed": "tuned-windowed"}),
    replace(SETTINGS, reference_tuned={"streamed": "layer", "windowed": "steps-24"}),
]
SUBSET = ["stock", "tuned", "masked-unit-50", "layer", "small", "short", "tuned-windowed", "steps-24"]


def sentences(comparison: Comparison) -> list[str]:
    """Every sentence of words.py."""
    found = verdicts(comparison, {})
    lines = [answer(comparison, found), *(v.text for v in found), *masked_lines(comparison)]
    return [*lines, *budget_lines(comparison), *notes(comparison)]


@pytest.mark.parametrize("settings", CHANGED_REFERENCES)
def test_no_subset_of_the_methods_is_compared_with_itself_or_with_nothing(settings: Settings, runs: Path) -> None:
    fits = [run for run in read_runs(runs) if run.seed < 2 and run.method in SUBSET]
    words = "times as fast as|faster than|slower than|as fast as|against|sooner than|as long as with"
    compares = re.compile(rf"(`[^`]+`)(?:(?!\. |`).)*(?:{words}) \1")
    for size in range(1, len(SUBSET) + 1):
        for names in combinations(SUBSET, size):
            comparison = Comparison([run for run in fits if run.method in names], replace(settings, bootstrap=10))
            for line in sentences(comparison):
                assert not compares.search(line), line
                assert not re.search(r"\b(nan|inf|None)\b", line), line
                absent = set(re.findall(r"`([^`]+)`", line)) - set(names)
                assert not absent or line.startswith("The budget of"), line  # which was measured all the same
            for method, row in zip(comparison.methods, entries(comparison), strict=True):
                for key, chosen in (("stock", settings.reference_stock), ("tuned", settings.reference_tuned)):
                    reference = chosen[method.regime]
                    if reference == method.name or reference not in names:
                        assert row[f"speedup_vs_{key}"]["median"] is None


def test_a_reference_has_no_speedup_against_itself_in_the_table(report: Path) -> None:
    text = (report / "tradeoff.md").read_text(encoding="utf-8")
    rows = {name: re.search(rf"\| `{name}` \|.*", text) for name in ("stock", "tuned", "layer")}
    columns = {name: [cell.strip() for cell in row[0].split("|")] for name, row in rows.items() if row}
    assert columns["stock"][7] == columns["tuned"][8] == "–"
    assert "–" not in (columns["stock"][8], columns["tuned"][7], columns["layer"][7], columns["layer"][8])


# what was isolated when


@pytest.mark.usefixtures("unrendered")
def test_the_page_shows_what_each_tested_method_isolated(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def picture(folder: Path) -> Figure | None:
        asked.append(folder.name)
        return None if "steps" in folder.name else new_figure(4, 2, "drawn")[0]

    monkeypatch.setattr("isotrain.report.page.draw_run", picture)
    folder = write_report(read_runs(runs), [], tmp_path, SETTINGS).parent
    text = (folder / "tradeoff.md").read_text(encoding="utf-8")
    assert asked == ["layer-0", "steps-24-0"]
    section = text.split("## What was isolated when")[1].split("## ")[0]
    assert "figures/isolation-layer.png" in section and "steps" not in section
    page = (folder / "tradeoff.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 1


# labels and weeks


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=12), st.floats(0.1, 5))
def test_spread_keeps_the_order_and_the_distance(wanted: list[float], gap: float) -> None:
    placed = spread(wanted, gap)
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    in_order = [placed[i] for i in order]
    assert all(b - a >= gap - 1e-6 for a, b in pairwise(in_order))
    if all(b - a >= gap for a, b in pairwise(sorted(wanted))):
        assert placed == pytest.approx(wanted)


def test_names_of_crowded_points_do_not_overlap() -> None:
    figure, grid = new_figure(8, 5, "title")
    axes = grid[0, 0]
    points = [(0.5 + 0.01 * i, 0.5 + 0.005 * (-1) ** i, f"method-{i}", "black") for i in range(6)]
    axes.set(xlim=(0, 1), ylim=(0, 1))
    label_points(axes, points)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in axes.texts if text.arrow_patch is None]
    boxes += [Text.get_window_extent(text) for text in axes.texts if text.arrow_patch is not None]
    assert len(boxes) == 6
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def hourly(weeks: int, errors: list[float], stride: int = 1) -> Forecasts:
    """Origins every ``stride`` hours from a Monday; all errors of a week equal."""
    origins = np.arange(0, weeks * 168, stride)
    time = MONDAY + HOUR * origins
    error = np.array(errors)[week_of(time) - week_of(time)[0]]
    return Forecasts(origins, time, np.repeat(error[:, None], 24, axis=1), np.zeros((len(origins), 24)))


@pytest.mark.parametrize(("stride", "pieces", "apart"), [(1, 7, 24), (7, 6, 28), (48, 4, 48)])
def test_a_week_is_tiled_by_pieces_that_do_not_overlap(stride: int, pieces: int, apart: int) -> None:
    one = hourly(2, [1.0, 1.0], stride)
    rows = daily_rows(one, int(week_of(one.time)[0]))
    assert len(rows) == pieces
    assert set(np.diff(one.time[rows])) == {apart * HOUR}


def test_weeks_are_chosen_by_rule() -> None:
    one = hourly(5, [3.0, 9.0, 1.0, 2.0, 4.0])
    first = int(week_of(one.time)[0])
    assert chosen_weeks(one) == [("First full week and week of median error", first), ("Worst week", first + 1)]
    one.truth[:100] = np.nan  # the first week is no longer full
    assert [week - first for _, week in chosen_weeks(one)] == [1, 3]
    assert chosen_weeks(hourly(2, [1.0, 1.0], stride=48)) == []


def test_a_windowed_verdict_names_what_streamed_training_needs_for_the_same_error(runs: Path) -> None:
    found = judged(Comparison(read_runs(runs), SETTINGS))
    assert re.search(r"`tuned`, streamed and isolating nothing, reaches this error in [\d.]+ s", found["steps-24"][1])
    assert "isolating nothing" not in found["layer"][1]


def test_worse_by_less_than_the_tolerance_is_not_a_reason_against(tmp_path: Path) -> None:
    methods = {"tuned": TUNED, "layer": MadeUp("streamed", 20, 5.03, isolated=0.5)}
    texts = [
        judged(compared(tmp_path / f"{share}", methods, replace(SETTINGS, tolerance=share)))["layer"][1]
        for share in (0.0, 0.5)
    ]
    assert "by no more than the tolerance" not in texts[0]
    assert "clearly worse" not in texts[1]


def test_a_colour_follows_the_role_of_a_method_not_its_name() -> None:
    one = colours({"a": "reference", "tuned": "tested", "b": "reference", "c": "control"})
    assert [one[name] for name in ("a", "b")] == list(REFERENCES[:2])
    assert [one[name] for name in ("tuned", "c")] == list(PALETTE[:2])
