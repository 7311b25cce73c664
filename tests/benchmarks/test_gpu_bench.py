"""The benchmark of a GPU, without one: what it would time, how it goes on, what it writes of made-up rows."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks/ is no part of the installed package

from benchmarks.gpu import run as command
from benchmarks.gpu.run import (
    CHOOSING,
    COST,
    METHODS,
    RATES,
    SEEDS,
    chosen_rate,
    markdown,
    run_tests,
    speedups,
    timed,
    to_equal_error,
)
from benchmarks.gpu.steps import SHAPES, Step, Way, counted, measure, rule, ways
from benchmarks.lstm.conditions import Shape

from isotrain.lstm import backends, credit, lstm
from isotrain.lstm.cudnn import H100

FACTS = {
    "device": "made up",
    "torch": "2",
    "cuda": "13",
    "cudnn": 9,
    "triton": None,
    "date": "2026-11-28",
    "commit": "none",
}


def row(shape: str, way: str, ms: float | None, **more: Any) -> dict[str, Any]:
    return {"shape": shape, "way": way, "label": f"the way {way}", "ms": ms, **more}


def fit(method: str, seed: int, *curve: tuple[float, float], rate: float = 0.015, **more: Any) -> dict[str, Any]:
    about = {"series": "simulated", "width": 64, "method": method, "seed": seed, "rate": rate, "kind": "training"}
    return {**about, "curve": [list(at) for at in curve], **more}


MADE_UP = {
    "tests": {"said": "9 passed, 1 failed, 0 errors, 0 skipped", "failed": ["E  a test"]},
    "a": row(
        "256x1x168x64", "tuned", 4.0, launches=2, kernels=40, memory_mib=100.4, longest=["gemm (9 us)"], rule="why"
    ),
    "b": row("256x1x168x64", "tuned-bf16", 2.0),
    "c": row("256x1x168x64", "credit-none", 0.5),
    "d": row("256x1x168x64", "steps-4", None, error="OutOfMemoryError: all of it"),
    "e": row("64x2x168x512", "credit-none", 1.0),
    "f": fit("tuned", 0, (1.0, 5.0), (2.0, 4.0)),
    "g": fit("tuned", 1, (1.0, 5.0), (2.5, 4.2)),
    "h": fit("credit-none", 0, (0.5, 4.1), (1.0, 3.9)),
    "i": fit("small", 0, (0.5, 9.0), (0.7, 8.0), rate=0.045),
    "k": fit("tuned", 100, (0.1, 1.0), kind="rate", took=2.4),  # chose a rate: neither timed nor a target
    "j": {"series": "Drahi-X", "width": 64, "method": "tuned", "seed": 0, "error": "not run: mlflow not installed"},
}


def test_the_reference_is_the_fastest_that_leaves_nothing_out() -> None:
    found = speedups({"rows": MADE_UP})
    assert [one["speedup"] for one in found["256x1x168x64"]] == [0.5, 1.0, 4.0, None]
    assert [one["speedup"] for one in found["64x2x168x512"]] == [None]


def test_seconds_to_the_error_of_tuned() -> None:
    """Its median least error is 4.1, and 1 % above that is 4.141."""
    found = {one["method"]: one for one in to_equal_error(list(MADE_UP.values()))}
    assert found["tuned"]["target"] == pytest.approx(4.141)
    assert found["tuned"]["seconds"] == math.inf  # the mean of 2.0 and a miss
    assert found["credit-none"]["seconds"] == 0.5
    assert found["small"]["seconds"] == math.inf


def test_a_rate_is_chosen_by_the_validation_error_of_its_own_seed() -> None:
    rows = [
        fit("tuned", 100, (1.0, 5.0), (2.0, 4.2), rate=0.005, kind="rate"),
        fit("tuned", 100, (1.0, 4.1), (2.0, math.nan), rate=0.015, kind="rate"),  # diverged after its best
        fit("tuned", 100, (1.0, math.nan), rate=0.045, kind="rate"),
        fit("stock", 100, (1.0, 3.0), rate=0.045, kind="rate"),
        fit("tuned", 0, (1.0, 1.0), rate=0.005),  # what is timed chooses nothing
        {**fit("small", 100, rate=0.005, kind="rate"), "error": "OutOfMemoryError"},
    ]
    del rows[-1]["curve"]
    assert chosen_rate(rows, "simulated", 64, "tuned") == 0.015
    assert chosen_rate(rows, "simulated", 64, "stock") == 0.045
    assert chosen_rate(rows, "simulated", 256, "tuned") is None
    assert chosen_rate(rows, "simulated", 64, "small") is None


def test_every_method_has_the_same_budget_to_choose_a_rate_and_it_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole command is estimated at nine minutes at most, with the real series too."""
    monkeypatch.setenv("ISOTRAIN_REAL_SERIES", "some.csv")
    jobs = command._jobs(command._parser().parse_args([]), {})
    keys = [job.key for job in jobs]
    assert len(set(keys)) == len(keys)
    for series, width in (("simulated", 256), ("simulated", 64), ("Drahi-X", 256)):
        for method in METHODS:
            rates = [keys.index(f"rate {series} {width} {method} {rate:g}") for rate in RATES]
            timed = [keys.index(f"training {series} {width} {method} {seed}") for seed in SEEDS]
            assert max(rates) < min(timed)
    assert CHOOSING not in SEEDS
    assert sum(COST[job.kind] for job in jobs) <= 540


def test_a_training_without_a_rate_says_so() -> None:
    assert timed({}, pytest.fail, "simulated", 64, "tuned", 0)["error"] == "no rate could be chosen"


def test_what_is_written_of_made_up_rows(tmp_path: Path) -> None:
    text = markdown({"facts": FACTS, "rows": MADE_UP})
    assert "9 passed, 1 failed" in text and "- `E  a test`" in text
    assert "### 1 layer x 256 units, T=168, B=64" in text
    assert "| `tuned` | 4 | 0.5 | 2 | 40 | 100 | the way tuned |" in text
    assert "| `steps-4` |  |  |  |  |  | OutOfMemoryError: all of it |" in text
    assert "- `tuned`, cuDNN's kernels: why" in text and "- `tuned`, longest: gemm (9 us)" in text
    assert "| simulated | 64 | `small` | 0.045 * | 1 | missed | 0.7 |" in text
    assert "| simulated | 64 | `credit-none` | 0.015 | 1 | 0.5 | 1 |" in text
    assert "Triton missing" in text and "Seconds that it took: rate 2." in text
    assert "- not run: mlflow not installed" in text
    command.write(tmp_path / "gpu-made-up", {"facts": FACTS, "rows": MADE_UP})
    assert json.loads((tmp_path / "gpu-made-up.json").read_text())["rows"]["b"]["ms"] == 2.0
    assert (tmp_path / "gpu-made-up.png").read_bytes().startswith(b"\x89PNG")


def test_launches_and_kernels_are_counted_apart() -> None:
    events = [
        ("aten::mm", "DeviceType.CPU", 0.0),
        ("cudaLaunchKernel", "DeviceType.CPU", 0.0),
        ("cudaGraphLaunch", "DeviceType.CPU", 0.0),
        ("gemm", "DeviceType.CUDA", 5.0),
        ("gemm", "DeviceType.CUDA", 6.0),
        ("add", "DeviceType.CUDA", 1.0),
    ]
    assert counted(events) == {"launches": 2, "kernels": 3, "longest": ["gemm (11 us)", "add (1 us)"]}
    assert counted(events, many=2)["kernels"] == 1.5


def test_every_shape_of_the_table_is_timed_and_has_a_reference() -> None:
    assert {shape.hidden for shape in SHAPES} == {64, 128, 150, 256, 512}
    assert {(s.hidden, s.layers, s.length, s.batch) for s in SHAPES} >= {(150, 5, 96, 500), (512, 2, 168, 512)}
    for shape in SHAPES:
        names = [way.name for way in ways(shape)]
        assert len(set(names)) == len(names)
        assert any(way.tuned for way in ways(shape)) and {"stock", "credit-none", "steps-4"} <= set(names)


@pytest.mark.parametrize(
    ("shape", "way", "said"),
    [
        (Shape(256, 1, 168, 64), "tuned", "persistent: float16 and all sizes fit"),
        (Shape(256, 2, 168, 512), "tuned", "persistent: float16 and all sizes fit"),
        (Shape(256, 2, 168, 64), "tuned-own-sizes", "standard: 2 layers in one module"),
        (Shape(256, 1, 168, 64), "tuned-bf16", "standard: bfloat16 is not float16"),
        (Shape(64, 2, 168, 64), "tuned", "64 units: at most 128, in any type"),
        (Shape(150, 5, 96, 500), "tuned-wide", "persistent: float16 and all sizes fit"),
    ],
)
def test_the_rule_that_holds_is_named(shape: Shape, way: str, said: str) -> None:
    assert rule(shape, next(one for one in ways(shape) if one.name == way), H100) == said


@pytest.mark.parametrize("hidden", [6, 130, 256])
def test_all_ways_that_leave_nothing_out_train_alike(hidden: int) -> None:
    """Up to the rounding of their types, in the loss of some steps."""
    shape = Shape(hidden, 2, 9, 3)
    found = {}
    for way in ways(shape):
        if way.tuned or way.name in ("stock", "eager"):
            step = Step(shape, way, "cpu")
            found[way.name] = [float(step()) for _ in range(5)]
    assert len(found) >= 4
    for losses in found.values():
        assert losses == pytest.approx(found["stock"], rel=2e-2)
        assert losses[-1] < losses[0]


def test_a_way_that_fails_is_a_row_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr("benchmarks.gpu.steps.Step", fails)
    found = measure(Shape(6, 1, 5, 2), Way("tuned", "tuned"), "cpu")
    assert found["ms"] is None and found["error"] == "RuntimeError: no such kernel"


def words(folder: Path, *more: str) -> list[str]:
    common = ["--device", "cpu", "--output", str(folder), "--block", "0.001", "--no-tests"]
    return [*common, "--shapes", "6x1x12x2", *more]


def test_an_interrupted_run_goes_on_after_the_last_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[str] = []

    def counting(shape: Shape, way: Way, *others: Any) -> Any:
        if len(done) == 3:
            done.append("interrupted")
            raise KeyboardInterrupt
        done.append(way.name)
        return measure(shape, way, *others)

    monkeypatch.setattr(command, "measure", counting)
    with pytest.raises(KeyboardInterrupt):
        command.main(words(tmp_path, "--no-fits"))
    (partial,) = tmp_path.glob("*.partial")
    with partial.open("a") as file:
        file.write('{"key": "cut sho')  # as a kill leaves it
    command.main(words(tmp_path, "--no-fits"))
    assert "going on after 3 rows" in capsys.readouterr().out
    every = [way.name for way in ways(Shape(6, 1, 12, 2))]
    assert [name for name in done if name != "interrupted"] == every
    assert not partial.exists()
    (result,) = tmp_path.glob("*.json")
    rows = json.loads(result.read_text())["rows"]
    assert [one["way"] for one in rows.values()] == every and all(one["ms"] > 0 for one in rows.values())


def test_when_its_time_is_over_it_writes_what_it_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.main(words(tmp_path, "--no-fits", "--seconds", "0"))
    assert "not everything was measured: the same command goes on where it stopped" in capsys.readouterr().out
    assert len(list(tmp_path.glob("*.partial"))) == len(list(tmp_path.glob("*.md"))) == 1


def test_a_row_of_the_table_is_of_plain_torch_where_others_are_of_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the code of a GPU, with kernels that say that they were called."""

    class Called(Exception):
        pass

    class Kernels:
        @staticmethod
        def forward(*_: Any) -> Any:
            raise Called

    for part in (credit, backends, lstm):
        monkeypatch.setattr(part, "on_gpu", lambda x: True)
    monkeypatch.setattr(credit, "scan", lambda: Kernels)
    shape = Shape(6, 1, 9, 3)
    by_triton, plain = (way for way in ways(shape) if way.credit == "cell")
    with pytest.raises(Called):
        Step(shape, by_triton, "cpu")()
    step = Step(shape, plain, "cpu")
    losses = [float(step()) for _ in range(5)]
    assert losses[-1] < losses[0]
    assert credit.scan() is Kernels  # type: ignore[comparison-overlap]  # for the rows that follow


@pytest.mark.slow
def test_its_trainings_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command.main([*words(tmp_path), "--tiny"])
    (result,) = tmp_path.glob("*.json")
    found = json.loads(result.read_text())["rows"]
    rows = [one for one in found.values() if "series" in one]
    assert [one["method"] for one in rows] == [*["tuned"] * 3, *["stock"] * 3, "tuned", "stock"]
    assert [one["rate"] for one in rows[:3]] == [*RATES]
    assert all(len(one["curve"]) == 2 and "error" not in one for one in rows)
    for one in rows[6:]:
        assert one["rate"] == chosen_rate(rows, "simulated", 6, one["method"])
    assert len({str(one["curve"]) for one in rows[:3]}) == 3
    torch.set_flush_denormal(False)


@pytest.mark.slow
def test_it_counts_the_tests_that_it_runs() -> None:
    found = run_tests(100.0, "gpu", ["tests/lstm/test_reference.py"])
    passed, skipped = (4, 0) if torch.cuda.is_available() else (0, 4)
    assert found == {"said": f"{passed} passed, 0 failed, 0 errors, {skipped} skipped", "failed": []}


def test_without_a_gpu_it_says_so_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    command.main(["--output", str(tmp_path)])
    said = capsys.readouterr().out
    assert said == "no CUDA device: nothing was measured, and the tables of docs/gpu.md stay 'not measured'\n"
    assert list(tmp_path.iterdir()) == []
