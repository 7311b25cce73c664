"""Dotted paths into the sections that a trial can vary: the field at a path, and whether it takes a value."""

import difflib
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from isotrain.config.base import Section
from isotrain.config.sections import Isolation, Model, Runtime, Training

Scalar = bool | int | float | str | None
VARIED: dict[str, type[Section]] = {"model": Model, "training": Training, "runtime": Runtime, "isolation": Isolation}


def field_at(path: str) -> FieldInfo:
    """The field of the sections at a dotted path; ValueError naming it if a trial cannot vary it."""
    if path.startswith("runtime.") and path != "runtime.backend":
        raise ValueError(
            f"space.{path}: of section runtime a trial can vary runtime.backend only, the rest is the process's"
        )
    section: Any = None
    known: Mapping[str, Any] = VARIED
    for part in path.split("."):
        if part not in known:
            close = difflib.get_close_matches(part, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
            raise ValueError(f"space.{path} is unknown: {hint}")
        section = known[part]
        kind = section.annotation if isinstance(section, FieldInfo) else section
        known = kind.model_fields if isinstance(kind, type) and issubclass(kind, Section) else {}
    if known:
        raise ValueError(f"space.{path} is a section: name a setting in it, such as {path}.{next(iter(known))}")
    assert isinstance(section, FieldInfo)
    return section


def is_whole(path: str) -> bool:
    """Whether the setting at a dotted path is a whole number."""
    return field_at(path).annotation is int


def check_value(path: str, field: FieldInfo, value: Scalar) -> None:
    """ValueError naming the path if its field refuses ``value`` by type or by limit."""
    kind: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as problem:
        expected = problem.errors()[0]["msg"]
        raise ValueError(f"space.{path}: {value!r} is refused: {expected}") from None
