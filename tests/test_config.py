"""params.yaml is refused by name, with the remedy, before any work."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from pipelines import baselines, ingest, train, window

from isotrain.config import VIEWS, IngestView, MethodsView, flatten, key_of, load
from isotrain.config import params as params_module
from isotrain.config.params import memory_needed
from isotrain.errors import InputError

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
        ("isolation.schedule.fraction", 1.5, ("isolation.schedule.fraction = 1.5", "outside [0, 1]")),
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
        ("methods.layer.isolation.zone", "gate", ("methods.layer", "mode = 'exact'", "zone='gate'", "use mode masked")),
        (
            "methods.steps-adaptive.training.regime",
            "streamed",
            ("methods.steps-adaptive", "neglected needs", "windowed"),
        ),
        (
            "isolation.schedule.fraction",
            0.75,
            ("methods.isolated", "plays no part for zone step", "set isolation.steps"),
        ),
        ("model.encoder", "gru", ("methods.autonomous-75", "needs model.encoder lstm", "masked")),
        ("isolation.zone", "uint", ("isolation.zone", "did you mean 'unit'?")),
        ("compare.baselines", ["rigde"], ("compare.baselines.0 = 'rigde'", "did you mean 'ridge'?")),
        ("training.stretch", 50_000, ("training.stretch of 50000 h", "ingest.simulated.hours")),
        ("methods.small.extends", "nativ", ("methods.small.extends", "'nativ'", "did you mean 'native'?")),
        ("methods.native.extends", "small", ("extends itself", "small -> native")),
        ("methods.small.role", "contrl", ("methods.small.role", "'contrl'", "'control'")),
        ("methods.small.budget", {"time": "tuned", "step": "tuned"}, ("methods.small.budget", "one of time")),
        ("methods.small.budget.step", "cut-75", ("methods.small.budget", "'cut-75'", "add cut-75 to compare.methods")),
        ("compare.reference_tuned.streamed", "tunde", ("compare.reference_tuned", "did you mean 'tuned'?")),
        ("compare.methods", ["stock", "native"], ("compare.reference_tuned.streamed = 'tuned'", "name one of them")),
        ("compare.methods", ["tuned", "stock", "steps-24", "native-windowed"], ("compare.reference_tuned.windowed",)),
        ("compare.methods", ["native"], ()),
        ("compare.methods", ["tuned", "isolated", "steps-24"], ()),
        ("compare.reference_tuned.streamed", "tuned-windowed", ("compare.reference_tuned.streamed", "none of them")),
        ("training.rise", 1.0, ("training.rise = 1.0", "less than 1")),
        ("training.rise", 1 / 300, ("training", "one step of 300")),
        ("training.steps", True, ("training.steps = True", "valid integer")),
        ("training.steps", 10**12, ("training.steps", "10000000")),
        ("training.learning_rate", float("inf"), ("training.learning_rate = inf", "finite")),
        ("training.weight_decay", float("nan"), ("training.weight_decay = nan", "finite")),
        ("training.clip", False, ("training.clip = False", "valid number")),
        ("isolation.every", True, ("isolation", "every = True is no number")),
        ("isolation.schedule.fraction", True, ("isolation", "schedule.fraction = True is no number")),
        ("methods.layer.isolation.every", True, ("methods.layer", "every = True is no number")),
        ("isolation.schedule.start", float("nan"), ("isolation.schedule.start = nan", "outside [0, 1]")),
        ("model.hidden", 100_000, ("model.hidden = 100000", "65536")),
        ("model.layers", 1000, ("model.layers = 1000", "100")),
        ("model.hidden", 60_000, ("GiB of memory", "model.hidden 60000", "lower")),
        ("training.stretches", 900_000, ("GiB of memory", "training.stretches 900000", "lower")),
        ("model.leave_out", ["day_tpye"], ("model.leave_out", "'day_tpye'", "'day_type'")),
        ("methods.rich.model.leave_out", ["day_tpye"], ("methods.rich", "model.leave_out", "'day_tpye'")),
        ("compare.bootstrap", 10**9, ("compare.bootstrap = 1000000000", "100000")),
        ("compare.seeds", [-1], ("compare.seeds.0 = -1", "greater than or equal to 0")),
        ("compare.seeds", [2**40], ("compare.seeds.0", str(2**32))),
        ("compare.seeds", [True, 2], ("compare.seeds.0 = True", "valid integer")),
        ("search.fresh_seeds", [2**40], ("search.fresh_seeds.0", str(2**32))),
        ("ingest.file.encoding", "base64", ("ingest.file.encoding", "'base64' is no encoding")),
        ("ingest.file.encoding", "utf-9", ("ingest.file.encoding", "'utf-9' is no encoding")),
        ("ingest.file.separator", '"', ("ingest.file.separator", "part of a field")),
        ("ingest.file.separator", "e", ("ingest.file.separator", "part of a field")),
        ("ingest.file.decimal", ",", ("ingest.file", "separator and decimal are both")),
        ("ingest.country", False, ("ingest.country", 'quote it, country: "NO"')),
        ("ingest.country", "N", ("ingest.country", "no code of a country")),
        ("ingest.source", [], ("ingest.source", "names no file")),
        ("ingest.source", ["auto", "a.csv"], ("ingest.source", "stand alone")),
        ("ingest.checks", "drahi", ("ingest.checks", "is no profile", "auto or drahix")),
        ("ingest.checks", {"T9": {"highest": 1.0}}, ("checks.T9", "neither a kind", "nor a column")),
        ("ingest.checks", {"load": {"hihgest": 1.0}}, ("ingest.checks.load.hihgest", "not a key")),
        ("ingest.columns.AirTemp.unit", "degF", ("ingest.columns.AirTemp", "write degC", "kind other")),
        ("ingest.columns.TGBT.unit", "GWh", ("ingest.columns.TGBT", "Wh, kWh, MWh")),
        ("ingest.simulated.start", "0160-01-01", ("ingest.simulated", "1970")),
        ("search.url", "postgresql://me:hunter2@host/db", ("search.url holds a password", "ISOTRAIN_STUDY_URL")),
        ("tracking.uri", "http://me:hunter2@host", ("tracking.uri holds a password", "MLFLOW_TRACKING_URI")),
        ("ingest.source", "https://host/a.csv?token=hunter2", ("ingest.source holds a password", "take it out")),
    ],
)
def test_what_is_wrong_is_refused_by_name(dotted: str, value: object, words: tuple[str, ...]) -> None:
    if words:
        message = refusal({dotted: value})
        assert all(word in message for word in words), message
        assert "hunter2" not in message and len(message) < 2000
    else:
        load(PARAMS, overrides={dotted: value})


@pytest.mark.parametrize(
    "stage",
    [
        lambda params: ingest.main("nowhere", "nowhere", "nowhere", params),
        lambda params: window.main("nowhere", "nowhere", params),
        lambda params: baselines.main("nowhere", "nowhere", params),
        lambda params: train.main("nowhere", "nowhere", params),
    ],
    ids=["ingest", "window", "baselines", "train"],
)
@pytest.mark.parametrize("where", ["training.accelerator", "methods.native.training.accelerator"])
def test_a_gpu_that_is_not_there_is_refused_by_every_stage_up_to_the_training(
    where: str, stage: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a folder is read, none of which exists here; what trains nothing may run where no GPU is."""
    monkeypatch.setattr(params_module, "cuda_is_there", lambda: False)
    values = yaml.safe_load(PARAMS.read_text())
    *sections, key = where.split(".")
    section = values
    for name in sections:
        section = section.setdefault(name, {})
    section[key] = "cuda"
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=r"training\.accelerator = 'cuda' .*no CUDA device.*set it to auto"):
        stage(str(params))
    assert load(params).training.accelerator in ("cuda", "auto")
    monkeypatch.setattr(params_module, "cuda_is_there", lambda: True)
    load(params, view=IngestView, trains=True)


@pytest.mark.parametrize("name", ["../../x", "..", "a/b", "/etc/x", "a b", "", "a\n", ".hidden", "x" * 65, "-rf"])
def test_the_name_of_a_method_is_that_of_a_folder(name: str, tmp_path: Path) -> None:
    values = yaml.safe_load(PARAMS.read_text())
    values["methods"][name] = dict(values["methods"]["native"])
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=r"methods: .*the name of a method is that of a folder"):
        load(tmp_path / "params.yaml")


def test_a_hundred_problems_are_a_screen(tmp_path: Path) -> None:
    values = yaml.safe_load(PARAMS.read_text())
    values["training"] |= {f"key{n}": "x" * 1000 for n in range(100)}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    message = refusal_of(tmp_path / "params.yaml")
    assert "training.key0 is not a key" in message and "and 90 more" in message and len(message) < 5000


def refusal_of(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load(path)
    return str(caught.value)


def test_a_fit_needs_at_least_the_memory_that_its_tensors_take() -> None:
    """Against the sizes of a real network's parameters: the estimate is of that order, and grows as they do."""
    view = load(PARAMS, view=MethodsView)
    window = load(PARAMS).window
    for hidden in (64, 4096):
        settings = view.settings("native", {"model.hidden": hidden, "training.stretches": 1, "training.stretch": 200})
        lstm = torch.nn.LSTM(60, hidden, 1, device="meta")
        weights = 16 * sum(p.numel() for p in lstm.parameters()) / 2**30  # with gradient and Adam's two moments
        assert 0.5 < memory_needed(settings, window) / weights < (1.2 if hidden == 4096 else 40)


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
    changed, plain = (flatten(load(PARAMS, overrides=o)) for o in ({"isolation.schedule.stop": 0.25}, {}))
    assert {key for key in plain if plain[key] != changed[key]} == {"isolation.schedule.stop"}
    assert changed["isolation.schedule.stop"] == 0.25


def test_a_view_holds_its_sections_only() -> None:
    view = load(PARAMS, view=IngestView)
    assert set(view.model_dump()) == {"ingest", "window"}
    assert set(VIEWS) == {"ingest", "window", "baselines", "train", "compare", "search", "search_report"}


def test_a_method_is_the_file_with_its_changes() -> None:
    view = load(PARAMS, view=MethodsView, overrides={"isolation.schedule.stop": 0.25})
    assert view.settings("isolated").isolation is not None
    assert view.settings("isolated").isolation.schedule.stop == 0.25
    assert view.settings("small").model.hidden != view.settings("tuned").model.hidden
    assert view.settings("small").training == view.settings("tuned").training
    with pytest.raises(InputError, match=r"methods.fastest does not exist; there are tuned"):
        view.settings("fastest")


def test_a_method_starts_from_what_it_extends() -> None:
    view = load(PARAMS, view=MethodsView)
    cut, whole = view.settings("cut-75").isolation, view.settings("autonomous-75").isolation
    assert cut is not None and whole is not None
    assert (cut.mode, whole.mode) == ("cut", "autonomous")
    assert (cut.criterion, cut.schedule) == (whole.criterion, whole.schedule)
    assert all(view.settings(f"rich-{e}").training == view.settings("rich").training for e in ("gru", "attention"))


def test_nothing_is_isolated_unless_a_method_says_so() -> None:
    view = load(PARAMS, view=MethodsView)
    silent = [name for name, method in view.methods.items() if method.isolation is None and method.extends is None]
    assert {"stock", "tuned", "native", "state-zeroed"} <= set(silent)
    assert all(view.settings(name).isolation is None for name in silent)


def test_the_section_isolation_reaches_the_method_isolated_alone() -> None:
    before, after = (load(PARAMS, view=MethodsView, overrides={"isolation.every": every}) for every in (20, 30))
    for resolved in (MethodsView.settings, MethodsView.whole_settings):  # of a fit; of the search
        changed = [name for name in before.methods if resolved(before, name) != resolved(after, name)]
        assert changed == ["isolated"]


def test_the_order_of_keys_never_matters(tmp_path: Path) -> None:
    (tmp_path / "sorted.yaml").write_text(yaml.safe_dump(yaml.safe_load(PARAMS.read_text()), sort_keys=True))
    ordered, as_written = load(tmp_path / "sorted.yaml"), load(PARAMS)
    for name in as_written.methods:
        assert ordered.settings(name) == as_written.settings(name)
        assert key_of(ordered.settings(name), 0) == key_of(as_written.settings(name), 0)


def test_a_key_changes_with_what_decides_a_fit_and_with_nothing_else() -> None:
    view = load(PARAMS, view=MethodsView)
    tuned = view.settings("tuned")
    assert key_of(tuned, 0) == key_of(tuned.model_copy(update={"about": "other words", "role": "control"}), 0)
    others = [key_of(tuned, 1), key_of(tuned, 0, "data"), key_of(view.settings("tuned", {"training.steps": 161}), 0)]
    assert len({key_of(tuned, 0), *others}) == 4


def test_a_file_that_extends_another_says_what_differs(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "params.yaml").write_text((Path(__file__).parents[1] / "params.yaml").read_text("utf-8"), "utf-8")
    own = tmp_path / "study" / "params.yaml"
    own.write_text("extends: ../params.yaml\ncompare:\n  seeds: [7]\nmodel: {hidden: 24}\n", encoding="utf-8")
    base, found = load(tmp_path / "params.yaml"), load(own)
    assert (found.compare.seeds, found.model.hidden) == ([7], 24)
    assert found.compare.methods == base.compare.methods
    assert found.model.decoder == base.model.decoder


def test_a_file_that_says_columns_has_none_of_those_it_extends(tmp_path: Path) -> None:
    shutil.copy(PARAMS, tmp_path / "params.yaml")
    own = tmp_path / "own.yaml"
    own.write_text("extends: params.yaml\ningest:\n  target: Load\n  columns: {Load: {kind: load}}\n", encoding="utf-8")
    assert list(load(own).ingest.columns) == ["Load"]
    own.write_text("extends: params.yaml\ningest:\n  target: T1\n", encoding="utf-8")
    assert list(load(own).ingest.columns) == list(load(PARAMS).ingest.columns)


@pytest.mark.parametrize("named", ["../absent.yaml", "[a]", "params.yaml"])
def test_a_file_that_extends_what_cannot_be_extended_is_refused(tmp_path: Path, named: str) -> None:
    own = tmp_path / "params.yaml"
    own.write_text(f"extends: {named}\n", encoding="utf-8")
    with pytest.raises(InputError, match="extends"):
        load(own)
