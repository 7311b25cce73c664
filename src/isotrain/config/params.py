"""params.yaml as a whole: loading, overriding by dotted path, methods resolved, one view a stage."""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar, overload

from pydantic import BeforeValidator, TypeAdapter, ValidationError, model_validator

from isotrain.config.ingest import Ingest
from isotrain.config.reader import read_yaml
from isotrain.config.search import Search
from isotrain.config.sections import (
    Budget,
    Compare,
    Method,
    Model,
    Paths,
    Role,
    Runtime,
    Section,
    Tracking,
    Training,
    Window,
    fields_of,
    type_of,
)
from isotrain.errors import InputError, holds_secret
from isotrain.files import sha256_text
from isotrain.isolation.settings import Policy as Isolation
from isotrain.isolation.settings import Schedule

METHOD_SECTIONS = ("model", "training", "runtime")
MOST_PROBLEMS, LONGEST_VALUE = 10, 80  # that a message shows
ENVIRONMENT = {"search.url": "ISOTRAIN_STUDY_URL", "tracking.uri": "MLFLOW_TRACKING_URI"}


def _numbers_only(isolation: Any) -> Any:
    """Refuse ``true`` and text for a number in the library's own settings, as every other section does."""
    inner = isolation.get("schedule") if isinstance(isolation, Mapping) else None
    for kind, values, prefix in ((Isolation, isolation, ""), (Schedule, inner, "schedule.")):
        for key, field in fields_of(kind).items() if isinstance(values, Mapping) else ():
            value = values.get(key)  # type: ignore[union-attr]
            if type_of(field) in (int, float) and isinstance(value, bool | str):
                raise ValueError(f"{prefix}{key} = {value!r} is no number")
    return isolation


class WindowView(Section):
    """What the stage ``window`` reads."""

    window: Window


class IngestView(WindowView):
    """What the stage ``ingest`` reads: limits of faults come from the training part of the window."""

    ingest: Ingest = Ingest()


class Settings(Section):
    """Everything that a fit of one method depends on, resolved."""

    method: str
    about: str
    role: Role
    budget: Budget | None
    model: Model
    training: Training
    runtime: Runtime
    isolation: Annotated[Isolation | None, BeforeValidator(_numbers_only)]  # None = nothing is isolated
    tracking: Tracking

    @model_validator(mode="after")
    def _zone_fits_regime(self) -> Self:
        streamed, chosen = self.training.regime == "streamed", self.isolation
        if chosen and chosen.zone == "step" and chosen.measured and streamed:
            raise ValueError(
                "isolation.zone step with criterion neglected needs training.regime windowed: in a streamed stretch "
                "many hours have a loss, so give the hours before each (isolation.steps) and another criterion"
            )
        return self


class MethodsView(Section):
    """The sections from which each method's :class:`Settings` are resolved."""

    model: Model
    training: Training
    runtime: Runtime
    isolation: Annotated[Isolation, BeforeValidator(_numbers_only)] = Isolation()
    methods: dict[str, Method]
    tracking: Tracking = Tracking()

    @model_validator(mode="after")
    def _methods_name_folders(self) -> Self:
        for name in self.methods:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", name):
                raise ValueError(
                    f"methods: {_cut(name)!r}: the name of a method is that of a folder, so it holds letters, digits, "
                    "dots, dashes and underscores only"
                )
        return self

    def settings(self, name: str, overrides: Mapping[str, object] | None = None) -> Settings:
        """The settings of the method ``name``, with ``overrides`` (dotted path -> value) laid over them.

        Raises :class:`InputError` for a method that does not exist, or that extends one that does not.

        A method's ``isolation`` is laid over the library's defaults, not over the section ``isolation``: an experiment
        with that section changes the one method that says ``isolation: section``.
        """
        values = self._values(name, overrides)
        if values["isolation"] is not None and _isolates_nothing(values["isolation"]):
            values["isolation"] = None
        return _validate(Settings, values, self._where(name, overrides))

    def whole_settings(self, name: str) -> Settings:
        """As :meth:`settings`; where nothing is isolated, with the library's own isolation at a fraction of 0."""
        values = self._values(name, None)
        if values["isolation"] is None:
            values["isolation"] = plain(Isolation(schedule=Schedule(fraction=0.0)))
        return _validate(Settings, values, self._where(name, None))

    def _values(self, name: str, overrides: Mapping[str, object] | None) -> dict[str, Any]:
        method = self._extended(name)
        values: dict[str, Any] = {
            "method": name,
            **method.model_dump(include={"about", "role", "budget"}),
            **self.model_dump(include={*METHOD_SECTIONS, "tracking"}),
        }
        for section in METHOD_SECTIONS:
            values[section] = _merged(values[section], getattr(method, section))
        values["isolation"] = plain(self.isolation) if method.isolation == "section" else method.isolation
        for dotted, value in (overrides or {}).items():
            values = _merged(values, _nested(dotted, value))
        return values

    @staticmethod
    def _where(name: str, overrides: Mapping[str, object] | None) -> str:
        return f"params.yaml, methods.{name}" + (f" with {dict(overrides)}" if overrides else "")

    def _extended(self, name: str, of: tuple[str, ...] = ()) -> Method:
        """The method ``name`` with all that it inherits."""
        if name not in self.methods:
            problem = f"methods.{of[-1]}.extends = {name!r}" if of else f"methods.{name}"
            raise InputError(f"params.yaml: {problem} does not exist; {nearest(name, self.methods)}")
        if name in of:
            raise InputError(f"params.yaml: methods.{name} extends itself: {' -> '.join((*of, name))}")
        own = self.methods[name]
        if own.extends is None:
            return own
        parent = self._extended(own.extends, (*of, name))
        changes: dict[str, Any] = {
            section: _merged(getattr(parent, section), getattr(own, section)) for section in METHOD_SECTIONS
        }
        both = isinstance(parent.isolation, Mapping) and isinstance(own.isolation, Mapping)
        inherited = parent.isolation if own.isolation is None else own.isolation
        changes["isolation"] = _merged(parent.isolation, own.isolation) if both else inherited  # type: ignore[arg-type]
        return own.model_copy(update=changes)


class CompareView(MethodsView):
    """What the stages ``train``, ``baselines`` and ``compare`` read."""

    compare: Compare


class SearchView(MethodsView):
    """What the stage ``search`` reads."""

    search: Search


class SearchReportView(SearchView):
    """What the stage ``search_report`` reads."""

    compare: Compare


VIEWS: dict[str, type[Section]] = {
    "ingest": IngestView,
    "window": WindowView,
    "baselines": CompareView,
    "train": CompareView,
    "compare": CompareView,
    "search": SearchView,
    "search_report": SearchReportView,
}


class Params(IngestView, SearchView, CompareView):
    """The whole file."""

    paths: Paths = Paths()

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        w = self.window
        known = self.ingest.source == "simulated" or (self.ingest.source == "auto" and isinstance(w.train, float))
        simulated = self.ingest.simulated.hours if known else None
        train, validation, _ = w.ends(self.ingest.simulated.start.replace(tzinfo=UTC), simulated or 0)
        if simulated is not None and min(train, validation - train) < w.history + 2 * w.horizon:
            raise ValueError(
                f"window.history of {w.history} h and window.horizon of {w.horizon} h do not fit into the parts of "
                f"ingest.simulated.hours = {simulated}: shorten the window or lengthen the series"
            )
        if simulated is not None and self.training.regime == "streamed" and train < self.training.stretch:
            raise ValueError(
                f"training.stretch of {self.training.stretch} h does not fit into the training part of "
                f"ingest.simulated.hours = {simulated}: shorten it"
            )
        if self.training.regime == "streamed" and self.training.stretch <= w.history:
            raise ValueError(
                f"training.stretch of {self.training.stretch} h must exceed window.history of {w.history} h: "
                "the first losses come after the warm-up"
            )
        named = {
            "compare.methods": self.compare.methods,
            "compare.reference_stock": list(self.compare.reference_stock.values()),
            "compare.reference_tuned": list(self.compare.reference_tuned.values()),
            "search.base": [self.search.base],
            "search.against": self.search.against,
            "search.known": self.search.known,
        }
        for path, names in named.items():
            for name in names:
                if name not in self.methods:
                    raise ValueError(
                        f"{path} names {name!r}, which methods does not define; {nearest(name, self.methods)}"
                    )
        for name in self.compare.methods:
            budget = self.methods[name].budget
            if budget and budget.of not in self.compare.methods:
                raise ValueError(
                    f"methods.{name}.budget is measured on {budget.of!r}, which compare.methods does not run: "
                    f"add {budget.of} to compare.methods or take {name} out"
                )
        return self


V = TypeVar("V", bound=Section)


@overload
def load(path: str | Path = ..., *, overrides: Mapping[str, object] | None = ...) -> Params: ...
@overload
def load(
    path: str | Path = ..., *, view: type[V], overrides: Mapping[str, object] | None = ..., trains: bool = ...
) -> V: ...
def load(
    path: str | Path = "params.yaml",
    *,
    view: type[Section] = Params,
    overrides: Mapping[str, object] | None = None,
    trains: bool = False,
) -> Section:
    """Read ``path``, apply ``overrides`` (dotted path -> value), check every section and method, return ``view``.

    Raises :class:`InputError` naming each dotted path that is unknown, missing, of the wrong type or out of
    bounds, and what was expected; the whole file is checked whatever the view, before any work starts. ``trains``: of a
    stage that the training of this machine comes after, so that a device that it lacks is refused too.
    """
    values = extended(Path(path))
    for dotted, value in (overrides or {}).items():
        values = _merged(values, _nested(dotted, value))
    _refuse_secrets(values, str(path))
    params = _validate(Params, values, str(path))
    settings = {name: params.settings(name) for name in params.methods}
    for one in settings.values():
        _check_memory(one, params.window)
    for name in params.compare.methods:
        check_isolation(settings[name])
    _check_references(params.compare, settings)
    if trains:
        for name in params.compare.methods:
            check_device(settings[name])
    return view.model_construct(**{field: getattr(params, field) for field in view.model_fields})


def extended(path: Path, above: Sequence[Path] = ()) -> dict[str, Any]:
    """The settings of the file ``path``, laid over those of the file that its ``extends`` names, if it has one.

    ``above`` are the files that extend it.

    So a study of one's own is a file of what differs. The path in ``extends`` is relative to the file that says it.
    Columns are those of the file that says any: another series has none of the columns below.
    """
    values = read_yaml(path)
    base = values.pop("extends", None)
    if base is None:
        return values
    under = path.parent / str(base)
    if not isinstance(base, str) or not under.is_file():
        raise InputError(f"{path}: extends = {_cut(repr(base))} names no file: write a path relative to {path.parent}")
    if under.resolve() in (files := [*above, path.resolve()]):
        raise InputError(f"{path}: extends {base}, which extends {path} itself: one of them must stand alone")
    below = extended(under, files)
    merged = _merged(below, values)
    if isinstance(own := values.get("ingest"), Mapping) and "columns" in own:
        merged["ingest"]["columns"] = own["columns"]
    return merged


def plain(section: Any) -> dict[str, Any]:
    """A section as mappings, lists and numbers, as YAML and JSON write it."""
    return TypeAdapter(type(section)).dump_python(section, mode="json")  # type: ignore[no-any-return]


def flatten(section: object, prefix: str = "") -> dict[str, Any]:
    """Dotted path -> plain value, the form in which MLflow and Optuna name parameters."""
    items = section if isinstance(section, Mapping) else plain(section)
    flat: dict[str, Any] = {}
    for key, value in items.items():
        dotted = f"{prefix}{key}"
        flat |= flatten(value, f"{dotted}.") if isinstance(value, Mapping) else {dotted: value}
    return flat


def decisive(settings: Settings) -> dict[str, Any]:
    """What decides a fit, seed and data apart: dotted path -> value, without its name and where its run is kept."""
    beside = {"method", "about", "role", "budget", "tracking"}
    return flatten({key: value for key, value in plain(settings).items() if key not in beside and value is not None})


def key_of(settings: Settings, seed: int, *others: object) -> str:
    """16 digits that two fits share if they have the same settings, seed and ``others`` (data, code, machine)."""
    return sha256_text(repr((sorted(decisive(settings).items()), seed, *others)))[:16]


def nearest(name: str, known: Mapping[str, Any] | list[str]) -> str:
    """A hint at the name that was meant."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"


def _isolates_nothing(isolation: Mapping[str, Any]) -> bool:
    schedule = isolation.get("schedule")
    return isinstance(schedule, Mapping) and schedule.get("fraction") == 0


def memory_needed(settings: Settings, window: Window) -> float:
    """GiB that a fit needs at least: weights with gradient and Adam's moments, and what a step keeps for its backward.

    An LSTM keeps four gates, cell and state of each hour and unit; the decoder, three layers of each lead.
    """
    m, t = settings.model, settings.training
    streamed = t.regime == "streamed"
    hours = t.stretches * t.stretch if streamed else t.windows * window.history
    leads = window.horizon * (t.stretches * t.origins if streamed else t.windows)
    weights = 4 * ((8 * m.layers - 4) * m.hidden**2 + 2 * m.hidden * m.decoder)
    return float(4 * (weights + 6 * hours * m.hidden * m.layers + 3 * leads * m.decoder) / 2**30)


def _check_memory(settings: Settings, window: Window) -> None:
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    if (needed := memory_needed(settings, window)) > there:
        m, t = settings.model, settings.training
        hours = f"stretches {t.stretches} of {t.stretch} h" if t.regime == "streamed" else f"windows {t.windows}"
        raise InputError(
            f"params.yaml, methods.{settings.method}: a fit needs about {needed:.0f} GiB of memory (model.hidden "
            f"{m.hidden}, model.layers {m.layers}, model.decoder {m.decoder}, training.{hours}), this machine has "
            f"{there:.0f}: lower them"
        )


def _check_references(compare: Compare, settings: Mapping[str, Settings]) -> None:
    """Refuse methods of a regime among which none sets the target that the others are to reach.

    A single method of a regime is compared with nothing, so that it needs no target.
    """
    regimes: dict[str, list[str]] = {}
    for name in compare.methods:
        if not settings[name].training.refit:  # its validation error, which a target is made of, says nothing
            regimes.setdefault(settings[name].training.regime, []).append(name)
    for regime, names in regimes.items():
        reference = dict(compare.reference_tuned).get(regime)  # type: ignore[call-overload]
        if len(names) > 1 and reference not in names:
            given = "is missing" if reference is None else f"= {reference!r} is none of them"
            raise InputError(
                f"params.yaml: compare.methods compares {', '.join(names)}, which are {regime}, and "
                f"compare.reference_tuned.{regime} {given}, so that nothing sets the target that they are to reach: "
                "name one of them there, or add the reference to compare.methods"
            )


def check_device(settings: Settings) -> None:
    """:class:`InputError` if ``settings`` ask for a GPU and torch sees none; torch is imported only if they do."""
    if settings.training.accelerator != "cuda":
        return
    if not cuda_is_there():
        raise InputError(
            f"params.yaml: training.accelerator = 'cuda' (of methods.{settings.method}), and torch sees no CUDA device "
            "on this machine: set it to auto, which takes one where there is one, or to cpu"
        )


def check_isolation(settings: Settings) -> None:
    """:class:`InputError` if ``settings`` isolate what their encoder does not have, cannot leave out, or all of it.

    The network says so too, when it is there; here no stage has begun yet.
    """
    isolation, model = settings.isolation, settings.model
    if isolation is None or isolation.modules is not None:
        return
    section, fraction = settings.method == "isolated", isolation.schedule.fraction
    where = f"params.yaml, methods.{settings.method}" + (" (the section isolation)" if section else "")
    if model.encoder not in ("lstm", "zeroed") and isolation.mode != "masked" and isolation.zone != "layer":
        raise InputError(
            f"{where}: isolation.mode {isolation.mode} of zone {isolation.zone} needs model.encoder lstm: in "
            f"{model.encoder} the gradients of whole layers alone can be left out, so set isolation.zone to layer and "
            "isolation.mode to exact, or, for a zone of weights, isolation.mode to masked"
        )
    if (convolution := isolation.zone in ("channel", "kernel")) and model.encoder != "tcn":
        raise InputError(f"{where}: isolation.zone {isolation.zone} is of a convolution: it needs model.encoder tcn")
    if section and isolation.zone == "step" and 0 < fraction < 1:
        raise InputError(
            f"{where}: isolation.schedule.fraction = {fraction:g} plays no part for zone step: set isolation.steps "
            "(hours before an origin), or isolation.zone to unit and isolation.criterion to update_norm"
        )
    if isolation.unfolded or convolution or isolation.count != "zones" or model.encoder in ("tcn", "attention"):
        return
    zones = {"layer": model.layers, "unit": model.hidden, "gate": 4 * model.hidden}.get(isolation.zone, 10**9)
    peak = max(isolation.schedule(step / 100) for step in range(101))
    if int(peak * zones + 0.5) == zones:  # rounded to whole zones, as isotrain.isolation.selection does
        most = "lower it" if zones == 1 or zones > 10**6 else f"give less than {(zones - 0.5) / zones:g}"
        other = ", or set isolation.zone to unit and isolation.criterion to update_norm" if zones <= 4 else ""
        raise InputError(
            f"{where}: isolation.schedule.fraction = {fraction:g} would isolate every "
            f"{isolation.zone} of the encoder, so that nothing in it trains: {most}{other}"
        )


def cuda_is_there() -> bool:
    """Whether torch sees a CUDA device."""
    if version("torch").endswith("+cpu"):  # without importing it, which takes a second
        return False
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asks the driver without making a context
    import torch

    return torch.cuda.is_available()


def _refuse_secrets(values: Mapping[str, Any], where: str) -> None:
    """A password in a file is a password in git, in dvc.lock and in every report that quotes the settings."""
    for dotted, value in flatten(values).items():
        if holds_secret(str(value)):
            variable = ENVIRONMENT.get(dotted)
            remedy = f"put the address into the environment as {variable}" if variable else "take it out"
            raise InputError(f"{where}: {dotted} holds a password, which git and the reports would keep: {remedy}")


def _nested(dotted: str, value: object) -> dict[str, Any]:
    *parents, leaf = dotted.split(".")
    nested: dict[str, Any] = {leaf: value}
    for key in reversed(parents):
        nested = {key: nested}
    return nested


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _validate(view: type[V], values: Mapping[str, Any], where: str) -> V:
    try:
        return view.model_validate(values)
    except ValidationError as problem:
        lines = [_explain(view, error) for error in problem.errors()]
        more = [f"and {len(lines) - MOST_PROBLEMS} more"] if len(lines) > MOST_PROBLEMS else []
        raise InputError(f"{where}: " + "; ".join(lines[:MOST_PROBLEMS] + more)) from None


def _explain(view: type[Section], error: Any) -> str:
    dotted = ".".join(_cut(str(part)) for part in error["loc"])
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):  # of a section, of the library's settings
        known = _keys_at(view, error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"{dotted} is not a key; {hint}"
    if error["type"] == "missing":
        return f"{dotted} is missing"
    message = error["msg"].removeprefix("Value error, ")
    if not dotted:
        return str(message)
    if setting := re.match(r"(\w+)=(.*)", message, re.DOTALL):  # a setting of the library's own objects names itself
        return f"{dotted}.{setting[1]} = {setting[2]}"
    given = "" if error["type"] == "value_error" else f" = {_cut(repr(error['input']))}"
    choices = re.findall(r"'([^']*)'", message) if error["type"] == "literal_error" else []
    if near := difflib.get_close_matches(str(error["input"]), choices, n=1):
        given += f" (did you mean {near[0]!r}?)"
    return f"{dotted}{given}: {message[:400]}"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


def _keys_at(view: type, location: tuple[int | str, ...]) -> list[str]:
    """The keys allowed at ``location``, as far as sections can be followed."""
    for part in location:
        known = fields_of(view)
        if str(part) in known:
            kind = type_of(known[str(part)])
            view = Method if kind == dict[str, Method] else kind if fields_of(kind) else view
    return list(fields_of(view))
