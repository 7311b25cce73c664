"""params.yaml as a whole: loading, overriding by dotted path, one view a stage."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

import yaml
from pydantic import ValidationError, model_validator

from isotrain.config.ingest import Ingest
from isotrain.config.search import Search
from isotrain.config.sections import (
    Compare,
    Isolation,
    Method,
    Model,
    Paths,
    Runtime,
    Section,
    Tracking,
    Training,
    Window,
    fields_of,
    type_of,
)
from isotrain.errors import InputError
from isotrain.files import read_json

METHOD_SECTIONS = ("model", "training", "runtime", "isolation")


class IngestView(Section):
    """What the stage ``ingest`` reads."""

    ingest: Ingest


class WindowView(Section):
    """What the stage ``window`` reads."""

    window: Window


class Settings(Section):
    """Everything that a fit of one method depends on, resolved: what the stage ``train`` reads."""

    method: str
    model: Model
    training: Training
    runtime: Runtime
    isolation: Isolation | None  # None = nothing is isolated
    tracking: Tracking

    @model_validator(mode="after")
    def _zone_fits_regime(self) -> "Settings":
        if self.isolation and self.isolation.zone == "step" and self.training.regime == "streamed":
            raise ValueError(
                "isolation.zone step needs training.regime windowed: in a streamed stretch every hour has a loss"
            )
        return self


class MethodsView(Section):
    """What the stage ``methods`` reads, to resolve each method into :class:`Settings`."""

    model: Model
    training: Training
    runtime: Runtime
    isolation: Isolation
    methods: dict[str, Method]
    tracking: Tracking

    def settings(self, name: str, overrides: Mapping[str, object] | None = None) -> Settings:
        """These sections as the method ``name`` changes them; :class:`InputError` if there is none.

        ``overrides`` (dotted path -> value) are laid over the method. Where the isolated fraction is 0 the section
        ``isolation`` is dropped: nothing in it matters, so changing it does not make such a method out of date.
        """
        resolved = self.whole_settings(name, overrides)
        isolating = resolved.isolation is not None and resolved.isolation.schedule.fraction > 0
        return resolved if isolating else resolved.model_copy(update={"isolation": None})

    def whole_settings(self, name: str, overrides: Mapping[str, object] | None = None) -> Settings:
        """As :meth:`settings`, the section ``isolation`` kept where it isolates nothing."""
        if name not in self.methods:
            raise InputError(f"params.yaml: methods.{name} does not exist; there are {', '.join(self.methods)}")
        sections = self.model_dump(include={*METHOD_SECTIONS, "tracking"})
        changes = {section: getattr(self.methods[name], section) for section in METHOD_SECTIONS}
        values = {"method": name, **_merged(sections, changes)}
        for dotted, value in (overrides or {}).items():
            values = _merged(values, _nested(dotted, value))
        where = f"params.yaml, methods.{name}" + (f" with {dict(overrides)}" if overrides else "")
        return _validate(Settings, values, where)


class CompareView(Section):
    """What the stage ``compare`` reads."""

    compare: Compare
    methods: dict[str, Method]
    tracking: Tracking


class SearchView(MethodsView):
    """What the stage ``search`` reads."""

    search: Search


class SearchReportView(SearchView):
    """What the stage ``search_report`` reads."""

    compare: Compare


VIEWS: dict[str, type[Section]] = {
    "ingest": IngestView,
    "window": WindowView,
    "methods": MethodsView,
    "compare": CompareView,
    "search": SearchView,
    "search_report": SearchReportView,
}


class Params(IngestView, WindowView, SearchView, CompareView):
    """The whole file."""

    paths: Paths

    @model_validator(mode="after")
    def _sections_agree(self) -> "Params":
        w = self.window
        simulated = self.ingest.simulated.hours if self.ingest.source == "simulated" else None
        if simulated is not None and simulated * min(w.train, w.validation) < w.history + 2 * w.horizon:
            raise ValueError(
                f"window.history of {w.history} h and window.horizon of {w.horizon} h do not fit into the parts of "
                f"ingest.simulated.hours = {simulated}: shorten the window or lengthen the series"
            )
        if self.training.regime == "streamed" and self.training.stretch <= w.history:
            raise ValueError(
                f"training.stretch of {self.training.stretch} h must exceed window.history of {w.history} h: "
                "the first losses come after the warm-up"
            )
        for name in self.compare.methods:
            if name not in self.methods:
                raise ValueError(f"compare.methods names {name!r}, which methods does not define")
        named = {"base": [self.search.base], "against": self.search.against, "known": self.search.known}
        for key, names in named.items():
            if unknown := [name for name in names if name not in self.methods]:
                raise ValueError(f"search.{key} names {', '.join(unknown)}, which methods does not define")
        return self


V = TypeVar("V", bound=Section)


@overload
def load(path: str | Path = ..., *, overrides: Mapping[str, object] | None = ...) -> Params: ...
@overload
def load(path: str | Path = ..., *, view: type[V], overrides: Mapping[str, object] | None = ...) -> V: ...
def load(
    path: str | Path = "params.yaml",
    *,
    view: type[Section] = Params,
    overrides: Mapping[str, object] | None = None,
) -> Section:
    """Read ``path``, apply ``overrides`` (dotted path -> value), check every section and method, return ``view``.

    Raises :class:`InputError` naming each dotted path that is unknown, missing, of the wrong type or out of
    bounds, and what was expected; the whole file is checked whatever the view, before any work starts.
    """
    values = _read(Path(path))
    for dotted, value in (overrides or {}).items():
        values = _merged(values, _nested(dotted, value))
    params = _validate(Params, values, str(path))
    for name in params.methods:
        params.settings(name)
    return view.model_construct(**{field: getattr(params, field) for field in view.model_fields})


def load_settings(path: str | Path) -> Settings:
    """The settings that the stage ``methods`` resolved; :class:`InputError` if they are missing or not valid."""
    try:
        return _validate(Settings, read_json(path), str(path))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: run `dvc repro methods` first") from None


def flatten(section: Section | Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted path -> plain value, the form in which MLflow and Optuna name parameters."""
    items = section.model_dump() if isinstance(section, Section) else section
    flat: dict[str, Any] = {}
    for key, value in items.items():
        dotted = f"{prefix}{key}"
        plain = list(value) if isinstance(value, tuple) else value  # as it comes back from a file
        flat |= flatten(value, f"{dotted}.") if isinstance(value, Mapping) else {dotted: plain}
    return flat


def decisive(settings: Settings) -> dict[str, Any]:
    """What decides a fit, seed and data apart: dotted path -> value, without its name and where its run is kept."""
    return flatten(settings.model_dump(exclude={"method", "tracking"}))


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: run from the project's folder") from None
    except yaml.YAMLError as problem:
        raise InputError(f"{path} is not valid YAML: {problem}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold sections (key: value), found {type(values).__name__}")
    return values


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
        raise InputError(f"{where}: " + "; ".join(lines)) from None


def _explain(view: type[Section], error: Any) -> str:
    dotted = ".".join(str(part) for part in error["loc"])
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
    if isinstance(error.get("ctx", {}).get("error"), InputError):  # it begins with the name of the setting
        return f"{dotted}.{message}"
    given = "" if error["type"] == "value_error" else f" = {error['input']!r}"
    return f"{dotted}{given}: {message}"


def _keys_at(view: type, location: tuple[int | str, ...]) -> list[str]:
    """The keys allowed at ``location``, as far as sections can be followed."""
    for part in location:
        known = fields_of(view)
        if str(part) in known:
            kind = type_of(known[str(part)])
            view = Method if kind == dict[str, Method] else kind if fields_of(kind) else view
    return list(fields_of(view))
