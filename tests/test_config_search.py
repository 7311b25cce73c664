"""Section search: the space is refused by name wherever it does not fit the settings that it varies."""

from pathlib import Path

import pytest

from isotrain.config import load
from isotrain.config.search import field_at
from isotrain.errors import InputError
from isotrain.search.study import place

PARAMS = Path(__file__).parents[1] / "params.yaml"
RISE = "search.space.training.rise"


@pytest.mark.parametrize(
    ("dotted", "value", "words"),
    [
        ("search.space.isolation.schedule.fracton", {"low": 0.0, "high": 1.0}, ("fracton", "did you mean fraction")),
        ("search.space.isolaton.zone", {"choices": ["unit"]}, ("isolaton", "did you mean isolation")),
        (f"{RISE}.high", 1.5, ("space.training.rise", "1.5", "less than 1")),
        (f"{RISE}.low", "none", ("training.rise",)),
        (f"{RISE}.low", 0.4, ("low = 0.4 must lie below high = 0.4",)),
        (
            "search.space.isolation.schedule.start",
            {"low": 0.0, "high": 0.75, "log": True},
            ("log needs low = 0.0 above 0",),
        ),
        (f"{RISE}.step", 0.4, ("step = 0.4", "lead from low = 0.05 to high = 0.4")),
        (f"{RISE}.choices", [0.5], ("write one of",)),
        (f"{RISE}.hihg", 0.5, ("hihg",)),
        ("search.space.training.steps.low", 80.5, ("space.training.steps", "80.5")),
        ("search.space.training.regime.value", "sideways", ("space.training.regime", "'streamed' or 'windowed'")),
        ("search.space.isolation.thaw.choices", [1, 0], ("space.isolation.thaw", "boolean")),
        ("search.space.isolation.zone.choices", ["unit", "brick"], ("space.isolation.zone", "'brick'")),
        ("search.space.isolation.thaw.when", {"isolation.zoen": ["unit"]}, ("isolation.zoen", "did you mean zone")),
        ("search.space.isolation.thaw.when", {"isolation.zone": ["brick"]}, ("isolation.thaw.when", "'brick'")),
        ("search.space.isolation.zone.when", {"isolation.mode": ["exact"]}, ("isolation.mode -> isolation", "circle")),
        ("search.space.training.rise.when", {"training.rise": [0.1]}, ("training.rise -> training.rise", "circle")),
        ("search.space", {"model": {"hidden": {"value": 8}}, "model.hidden": {"value": 9}}, ("written twice",)),
        (
            "search.space.isolation.criterion",
            [{"choices": ["random"]}, {"value": "depth", "when": {"isolation.zone": ["layer"]}}],
            ("isolation.criterion", "variants can hold at once"),
        ),
        ("search.space.runtime.threads", {"low": 1, "high": 4}, ("runtime.threads", "runtime.backend only")),
        ("search.base", "best", ("search.base", "best")),
        ("search.known", ["native", "best"], ("search.known", "best")),
        ("search.target", 4.5, ("target", "time-to-target")),
        ("search.objectives", "time-to-target", ("target", "time-to-target")),
        ("search.trials", None, ("one of trials, hours and stall",)),
        ("search.url", "sqlite:///study.db", ("search.url", "postgresql")),
        ("search.fresh_seeds", [3], ("fresh_seeds", "1000")),
    ],
)
def test_what_is_wrong_is_refused_by_name(dotted: str, value: object, words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        load(PARAMS, overrides={dotted: value})
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_section_is_no_dimension() -> None:
    with pytest.raises(ValueError, match=r"isolation\.schedule is a section: name a setting in it"):
        field_at("isolation.schedule")


def test_dotted_and_nested_paths_are_the_same_space() -> None:
    plain = load(PARAMS).search
    flat = {path: [variant.model_dump(exclude_unset=True) for variant in v] for path, v in plain.space.items()}
    again = type(plain).model_validate({**plain.model_dump(exclude={"space"}), "space": flat})
    assert again == plain


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("  known:\n  - native\n", ("steps-24", "training.regime")),
        ("  known:\n  - native\n", ("stock", "runtime.")),
        ("hidden: {low: 16, high: 96, step: 8}", ("small", "its model.hidden = 24 is not 64 to 96 in steps of 8")),
    ],
)
def test_a_known_method_outside_the_space_is_refused(change: str, words: tuple[str, ...], tmp_path: Path) -> None:
    text = PARAMS.read_text()
    assert change in text
    new = change.replace("known:\n", f"known:\n  - {words[0]}\n").replace("low: 16", "low: 64")
    (tmp_path / "params.yaml").write_text(text.replace(change, new))
    with pytest.raises(InputError) as caught:
        place(tmp_path / "params.yaml")
    assert all(word in str(caught.value) for word in words), str(caught.value)
