"""Targets and times to them, against values worked out by hand."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrain.compare.comparison import Comparison, Settings, best_validation, reference_target, seconds_to_target
from isotrain.compare.results import Budget, Role, Run, Source, Validation

DATA: Source = {"source": "simulated", "sha256": "a" * 64, "rows": 1, "simulated": True}


def history(*pairs: tuple[float, float]) -> tuple[Validation, ...]:
    """Validations at (training seconds, validation MAE)."""
    return tuple(Validation(step, seconds, mae, 0.0) for step, (seconds, mae) in enumerate(pairs))


def a_run(
    *pairs: tuple[float, float],
    method: str = "tuned",
    seed: int = 0,
    regime: str = "streamed",
    diverged: bool = False,
    role: Role = "tested",
    budget: Budget | None = None,
    **params: Any,
) -> Run:
    """A fit of which only the history matters."""
    return Run(
        folder=Path("nowhere"), method=method, role=role, budget=budget, params=params, seed=seed,
        regime=regime, started_at="", finished_at="",
        commit="c", diverged=diverged, data=DATA, hardware={}, parameters=1, steps=len(pairs), train_seconds=1,
        phase_seconds={}, step_ms_median=1.0, machine_seconds=1.0, isolated_fraction=0.5, val_mae=1.0,
        test_mae=1.0, test_rmse=1.0, test_mase=1.0, history=history(*pairs), mae_by_lead=(),
    )  # fmt: skip


def test_the_best_error_is_the_smallest_seen_not_the_last() -> None:
    assert best_validation(history((1, 6.0), (2, 5.0), (3, 5.5))) == 5.0
    assert best_validation(()) == math.inf


@pytest.mark.parametrize(
    ("bests", "target"),
    [
        ([5.0], 5.0),
        ([5.0, 5.2], 5.2),
        ([5.2, 4.9, 5.0], 5.0),
        ([5.3, 5.0, 5.1, 5.2], 5.2),
    ],
)
def test_the_target_is_the_median_best_of_the_reference_and_occurred(bests: list[float], target: float) -> None:
    assert reference_target([a_run((1, 9.0), (2, best)) for best in bests]) == target


def test_without_a_reference_there_is_no_target() -> None:
    assert reference_target([]) is None
    assert reference_target([a_run((1, 9.0), diverged=True)]) is None
    assert reference_target([a_run()]) is None


def test_a_diverged_fit_sets_no_target_and_reaches_none() -> None:
    diverged = a_run((1, 9.0), (2, math.inf), diverged=True)
    assert reference_target([a_run((1, 9.0), (2, 5.0)), diverged]) == 5.0
    assert seconds_to_target(diverged, 9.5) == math.inf


@pytest.mark.parametrize(
    ("target", "seconds"),
    [(5.0, 20.0), (4.99, 30.0), (6.0, 10.0), (4.0, math.inf)],
    ids=["exactly at the target", "the next validation, not between", "the first", "never"],
)
def test_seconds_to_target(target: float, seconds: float) -> None:
    assert seconds_to_target(a_run((10, 6.0), (20, 5.0), (30, 4.5), (40, 5.5)), target) == seconds


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=8))
def test_at_least_half_of_the_reference_reaches_its_own_target(bests: list[float]) -> None:
    runs = [a_run((1, 200.0), (2, best)) for best in bests]
    target = reference_target(runs)
    assert target is not None
    reached = [math.isfinite(seconds_to_target(run, target)) for run in runs]
    assert 2 * sum(reached) >= len(runs)


def test_the_tolerance_lifts_the_target_for_every_method_alike() -> None:
    runs = [a_run((1.0, 5.0)), a_run((1.0, 5.2), seed=1), a_run((0.5, 5.21), method="layer")]
    for tolerance, expected in ((0.0, math.inf), (0.005, 0.5)):
        comparison = Comparison(runs, Settings({}, {"streamed": "tuned"}, tolerance=tolerance))
        assert comparison.targets["streamed"] == pytest.approx(5.2 * (1 + tolerance))
        layer = comparison.find("layer")
        assert layer is not None and layer.to_target[0] == expected
