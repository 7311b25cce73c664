"""Races: equal budgets, seeds that are not used twice, and a judgement against values worked out by hand."""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.compare.test_target import a_run

from isotrain.config import CompareView, Params, load
from isotrain.data.windows import Windows
from isotrain.errors import InputError
from isotrain.files import read_json, write_json
from isotrain.study import race as races
from isotrain.study import study as studies
from isotrain.study.race import ACCURATE, SEARCH_SEEDS, Budget, Race, Racer, better, judged, points_of, profile
from isotrain.study.races import CHAPTERS, PROFILES, budget_of, race_of
from isotrain.study.study import run_study
from isotrain.training import fits

ROOT = Path(__file__).parents[2]
SPACE = {"training.learning_rate": (0.01, 0.02, 0.04), "training.steps": (100, 200), "model.hidden": (8, 16)}
TUNED = Racer("tuned", "tuned", "reference", "as it is")
DENSE = Racer("dense", "native", "control", "nothing isolated")
HOURS = Racer("hours", "hours-4", "tested", "the last hours")


@given(st.integers(1, 12), st.integers(1, 12))
def test_a_larger_search_begins_with_the_points_of_a_smaller(fewer: int, more: int) -> None:
    fewer, more = sorted((fewer, more))
    points = points_of(SPACE, more)
    assert points[:fewer] == points_of(SPACE, fewer)
    assert len({tuple(point.items()) for point in points}) == more  # none twice
    assert all(point[path] in SPACE[path] for point in points for path in SPACE)


def test_a_space_smaller_than_the_budget_is_tried_whole() -> None:
    assert len(points_of(SPACE, 100)) == 12


def test_what_is_fixed_is_not_changed_by_a_point() -> None:
    method = Racer("two", "layer", "tested", "", {"model.layers": 2}, {"schedule": {"start": 0.1}}).at(
        {"model.layers": 1, "model.hidden": 8, "training.steps": 60}
    )
    view = load(ROOT / "params.yaml", view=CompareView)
    settings = view.model_copy(update={"methods": {**view.methods, "two": method}}).settings("two")
    assert (settings.model.layers, settings.model.hidden, settings.training.steps) == (2, 8, 60)
    assert settings.isolation is not None
    assert (settings.isolation.zone, settings.isolation.schedule.start) == ("layer", 0.1)


@given(st.lists(st.floats(0.1, 9) | st.just(math.inf), min_size=1, max_size=5),
       st.lists(st.floats(0.1, 9) | st.just(math.inf), min_size=1, max_size=5))  # fmt: skip
def test_one_of_two_is_sooner(a: list[float], b: list[float]) -> None:
    assert better(a, b) + better(b, a) == pytest.approx(1.0)


def test_a_profile_counts_from_the_quickest_of_each_seed() -> None:
    found = profile({"a": [1.0, 4.0, math.inf], "b": [2.0, 2.0, 3.0]})
    assert found == {"a": [1.0, 2.0, math.inf], "b": [1.0, 1.0, 2.0]}


def test_a_race_is_judged_as_by_hand() -> None:
    """Target 1.005 x 4.0; tuned reaches it after 4 s, dense after 3, hours after 2 with all seeds."""
    race = Race("r", "A race", "tuned", (TUNED, DENSE, HOURS), SPACE)
    accurate = Racer(ACCURATE, "tuned", "reference", "")
    reach = {ACCURATE: (8.0, 4.0), "tuned": (4.0, 4.01), "dense": (3.0, 4.0), "hours": (2.0, 4.02)}
    runs = {name: [a_run((1.0, 9.0), (s, e), seed=k) for k in range(3)] for name, (s, e) in reach.items()}
    chosen = {name: {"training.steps": 100, "training.learning_rate": 0.01} for name in reach}
    found = judged(race, [accurate, *race.racers], runs, {"chosen": chosen, "log": {}})
    rows = {row["name"]: row for row in found["racers"]}
    assert found["target"] == pytest.approx(4.02)
    assert found["rival"] == "dense"  # never a tested one, and the quickest of the others
    assert {name: row["to_target"]["median"] for name, row in rows.items()} == {n: s for n, (s, _) in reach.items()}
    assert rows["hours"]["speedup"]["median"] == pytest.approx(1.5)
    assert rows["hours"]["better"] == 1.0
    assert rows["hours"]["error_ratio"]["median"] == pytest.approx(1.005)
    assert "speedup" not in rows["dense"]


def test_a_seed_that_missed_took_for_ever() -> None:
    race = Race("r", "A race", "tuned", (TUNED, HOURS), SPACE)
    good, bad = a_run((2.0, 4.0)), a_run((2.0, 5.0))
    runs = {ACCURATE: [good] * 3, "tuned": [good] * 3, "hours": [good, bad, bad]}
    chosen = {name: {"training.steps": 100, "training.learning_rate": 0.01} for name in runs}
    accurate = Racer(ACCURATE, "tuned", "reference", "")
    found = judged(race, [accurate, TUNED, HOURS], runs, {"chosen": chosen, "log": {}})
    row = found["racers"][-1]
    assert (row["reached"], row["to_target"]["median"]) == (1, None)
    assert row["seeds"][1]["to_target"] is None


def made_up(folder: Path, speed: Mapping[str, float]) -> Any:
    """In place of run_fits: results whose seconds to 4 kW are the steps of the point divided by the racer's speed."""
    asked: list[tuple[str, tuple[int, ...]]] = []

    def run(view: CompareView, windows: Path, runs: Path, methods: Sequence[str] = (), seeds: Sequence[int] = (),
            repeats: int | None = None) -> None:  # fmt: skip
        for name in view.compare.methods:
            asked.append((name, tuple(seeds)))
            settings = view.settings(name)
            for seed in seeds:
                (runs / f"{name}-{seed}").mkdir(parents=True, exist_ok=True)
                write_json(runs / f"{name}-{seed}" / "made.json", {
                    "steps": settings.training.steps, "seconds": settings.training.steps / speed[name.split(".")[0]],
                    "rate": settings.training.learning_rate, "name": name, "seed": seed,
                })  # fmt: skip

    def read(path: Path) -> Any:
        made = read_json(path / "made.json")
        error = 4.0 if made["rate"] == 0.02 else 4.5  # one rate learns
        return a_run((made["seconds"], error), method=made["name"], seed=made["seed"])

    return run, read, asked


def test_every_racer_is_searched_alike_and_judged_on_seeds_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, read, asked = made_up(tmp_path, {"tuned": 1.0, "dense": 2.0, "hours": 4.0, "stock": 0.5, "most-accurate": 1.0})
    monkeypatch.setattr(races, "run_fits", run)
    monkeypatch.setattr(races, "read_run", read)
    stock = Racer("stock", "stock", "reference", "", follows="tuned")
    race = Race("r", "A race", "tuned", (TUNED, stock, DENSE, HOURS), SPACE)
    view = load(ROOT / "params.yaml", view=CompareView)
    found = races.run_race(race, view, tmp_path, tmp_path, Budget(12, 2, 4))
    searched = {name: {n for n, _ in asked if n.startswith(f"{name}.") and n[-1].isdigit()} for name in speed_of(asked)}
    assert {len(points) for name, points in searched.items() if name not in ("stock", ACCURATE)} == {12}
    assert not searched["stock"]
    judging = {seed for name, seeds in asked if name.endswith(".chosen") for seed in seeds}
    assert judging == {0, 1, 2, 3} and not judging & set(SEARCH_SEEDS)
    points = {row["name"]: row["point"] for row in found["racers"]}
    assert all(point["training.learning_rate"] == 0.02 for point in points.values())  # what learns
    assert points["hours"]["training.steps"] == 100  # and is quickest
    assert points["stock"] == points["tuned"]
    assert found["rival"] == "dense"
    assert found["racers"][-1]["speedup"]["median"] == pytest.approx(2.0)


def speed_of(asked: Sequence[tuple[str, tuple[int, ...]]]) -> set[str]:
    return {name.split(".")[0] for name, _ in asked}


def test_every_race_of_every_profile_has_settings_that_load() -> None:
    view = load(ROOT / "params.yaml", view=CompareView)
    building = {"racers": [{"name": "dense", "point": {"model.hidden": 24, "training.steps": 200}}]}
    for name in (one for names in CHAPTERS.values() for one in names):
        race = race_of(name, building)
        assert race.reference in {racer.name for racer in race.racers}
        assert any(racer.role == "control" for racer in race.racers)
        for profile_ in PROFILES:
            for point in points_of(race.space, budget_of(profile_, name).points):
                named = {f"{racer.name}.x": racer.at(racer.given or point) for racer in race.racers}
                whole = races.with_methods(view, named)
                assert all(whole.settings(method) for method in named)


@pytest.mark.slow
def test_a_study_runs_to_its_pages_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, windows: Windows
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr("isotrain.training.fit.alone", nullcontext)
    monkeypatch.setattr(fits, "REPEATS", 0)
    small = {"training.stretches": 2, "training.stretch": 100, "training.origins": 4, "training.validate_every": 10,
             "window.history": 48, "model.decoder": 8}  # fmt: skip
    params = load(ROOT / "params.yaml", view=Params, overrides=small)
    with pytest.raises(InputError, match="holds no windows"):
        run_study(params, "quick", ["a"], Path("study"), ROOT)
    windows.save(Path(params.paths.windows))
    space = {"training.learning_rate": (0.02,), "training.steps": (20, 30), "model.hidden": (8,)}
    stock = Racer("stock", "stock", "reference", "", follows="tuned")
    hours = Racer("hours-4", "hours-4", "tested", "")
    race = Race("building", "One building", "tuned", (TUNED, stock, DENSE, hours), space)
    monkeypatch.setattr(studies, "race_of", lambda name, building: race)
    monkeypatch.setattr(studies, "budget_of", lambda profile, name: Budget(1, 1, 2))
    page = run_study(params, "quick", ["a"], Path("study"), ROOT)
    text = page.read_text(encoding="utf-8")
    assert "**simulated** series" in text and "`hours-4`" in text
    assert all((page.parent / name).exists() for name in ("resultats.fr.md", "jury.md", "results/study/effects.png"))
    made = {path: path.stat().st_mtime_ns for path in Path("study").rglob("result.json")}
    assert len(made) == 3 + 2 * 5  # a point has one fit, what is judged two; stock is not searched
    next(iter(made)).unlink()
    run_study(params, "quick", ["a"], Path("study"), ROOT)
    again = {path for path, when in made.items() if path.stat().st_mtime_ns != when}
    assert again == {next(iter(made))}  # only what was lost
    write_json(Path("study/quick/study.json"), {"races": {"building": {"data": {"sha256": "another"}}}})
    with pytest.raises(InputError, match="another series"):
        run_study(params, "quick", ["a"], Path("study"), ROOT)


def test_a_study_of_code_that_no_commit_holds_is_not_recorded(tmp_path: Path) -> None:
    write_json(tmp_path / "study.json", {"races": {"building": {"commits": ["abc+"]}}})
    with pytest.raises(InputError, match="commit everything"):
        studies.record(tmp_path / "study.json", tmp_path)
