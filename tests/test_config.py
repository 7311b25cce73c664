"""params.yaml is refused by name, with the remedy, before any work."""

from pathlib import Path
from typing import get_args

import pytest
import yaml

from isotrain.config import VIEWS, IngestView, MethodsView, flatten, load, load_settings
from isotrain.config.sections import Isolation, Schedule
from isotrain.errors import InputError
from isotrain.files import write_json
from isotrain.isolation import CRITERIA, SCHEDULES, MaskedAdam
from isotrain.isolation.optimisers import CORRECTIONS, VARIANTS
from isotrain.isolation.selection import SCOPES
from isotrain.isolation.zones import COUNTS, KINDS
from isotrain.lstm.plan import MODES
from isotrain.vocabulary import MODES_OF_ZONE

PARAMS = Path(__file__).parents[1] / "params.yaml"


def refusal(overrides: dict[str, object]) -> str:
    with pytest.raises(InputError) as caught:
        load(PARAMS, overrides=overrides)
    return str(caught.value)


def test_the_file_in_the_repository_is_valid() -> None:
    params = load(PARAMS)
    assert params.window.horizon == 24
    assert set(params.compare.methods) <= set(params.methods)


@pytest.mark.parametrize(
    ("dotted", "value", "words"),
    [
        ("isolation.schedule.fracton", 0.5, ("isolation.schedule.fracton", "did you mean 'fraction'")),
        ("isolation.schedule.fraction", 1.5, ("isolation.schedule.fraction", "1.5", "less than or equal to 1")),
        ("training.steps", "many", ("training.steps", "'many'", "valid integer")),
        ("training.learning_rate", 0.0, ("training.learning_rate", "greater than 0")),
        ("training.regime", "sideways", ("training.regime", "'streamed' or 'windowed'")),
        ("window.train", 0.95, ("window", "the rest is the test part")),
        ("window.history", 100_000, ("window.history", "ingest.simulated.hours", "shorten the window")),
        ("training.stretch", 100, ("training.stretch", "window.history", "warm-up")),
        ("isolation.schedule.start", 1.0, ()),
        ("compare.methods", ["tuned", "best"], ("compare.methods", "'best'")),
        ("compare.seeds", [1, 1], ("seeds", "twice")),
        ("methods.small.model.hiden", 8, ("methods.small", "model.hiden", "did you mean 'hidden'")),
        ("methods.layer.isolation.zone", "gate", ("methods.layer", "mode exact", "zone gate")),
        ("methods.steps-24.training.regime", "streamed", ("methods.steps-24", "zone step needs", "windowed")),
    ],
)
def test_what_is_wrong_is_refused_by_name(dotted: str, value: object, words: tuple[str, ...]) -> None:
    if words:
        message = refusal({dotted: value})
        assert all(word in message for word in words), message
    else:
        load(PARAMS, overrides={dotted: value})


def test_a_missing_section_a_missing_file_and_broken_yaml_are_named(tmp_path: Path) -> None:
    values = yaml.safe_load(PARAMS.read_text())
    del values["window"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match="window is missing"):
        load(tmp_path / "params.yaml")
    with pytest.raises(InputError, match=r"nowhere.yaml does not exist"):
        load(tmp_path / "nowhere.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1,")
    with pytest.raises(InputError, match="not valid YAML"):
        load(tmp_path / "broken.yaml")


def test_settings_never_change_after_loading() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(PARAMS).window.history = 3


def test_an_override_reaches_its_dotted_path_and_nothing_else() -> None:
    changed, plain = (flatten(load(PARAMS, overrides=o)) for o in ({"isolation.schedule.fraction": 0.25}, {}))
    assert {key for key in plain if plain[key] != changed[key]} == {"isolation.schedule.fraction"}
    assert changed["isolation.schedule.fraction"] == 0.25


def test_a_view_holds_its_sections_only() -> None:
    view = load(PARAMS, view=IngestView)
    assert set(view.model_dump()) == {"ingest"}
    assert set(VIEWS) == {"ingest", "window", "methods", "compare", "search", "search_report"}


def test_a_method_is_the_file_with_its_changes() -> None:
    view = load(PARAMS, view=MethodsView, overrides={"isolation.schedule.fraction": 0.25})
    assert view.settings("isolated").isolation is not None
    assert view.settings("isolated").isolation.schedule.fraction == 0.25
    assert view.settings("small").model.hidden != view.settings("tuned").model.hidden
    assert view.settings("small").training == view.settings("tuned").training
    with pytest.raises(InputError, match=r"methods.fastest does not exist; there are stock"):
        view.settings("fastest")


def test_what_isolates_nothing_does_not_depend_on_the_section_isolation() -> None:
    before, after = (load(PARAMS, view=MethodsView, overrides={"isolation.every": every}) for every in (20, 30))
    assert before.settings("tuned") == after.settings("tuned")
    assert before.settings("isolated") != after.settings("isolated")


def test_settings_survive_the_file_between_two_stages(tmp_path: Path) -> None:
    view = load(PARAMS, view=MethodsView)
    for name in view.methods:
        write_json(tmp_path / "settings.json", view.settings(name).model_dump())
        assert load_settings(tmp_path / "settings.json") == view.settings(name)
    with pytest.raises(InputError, match="dvc repro methods"):
        load_settings(tmp_path / "absent.json")


def test_params_yaml_may_say_what_the_registries_hold() -> None:
    """``isotrain.config`` stands below ``isotrain.isolation`` and repeats its names."""

    def words(section: type, field: str) -> set[str]:
        return set(get_args(section.model_fields[field].annotation))  # type: ignore[attr-defined]

    assert words(Isolation, "criterion") == {*CRITERIA, "neglected"}
    assert words(Isolation, "zone") == set(KINDS) == set(MODES_OF_ZONE)
    assert words(Isolation, "mode") == set(MODES)
    assert words(Isolation, "scope") == set(SCOPES)
    assert words(Isolation, "count") == set(COUNTS)
    assert words(Isolation, "moments") == set(MaskedAdam.policies)
    assert words(Isolation, "correction") == set(CORRECTIONS)
    assert words(Isolation, "variant") == set(VARIANTS)
    assert words(Schedule, "shape") == set(SCHEDULES)
