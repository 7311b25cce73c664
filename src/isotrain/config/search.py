"""The section ``search`` of params.yaml: one study, and the space that its trials vary."""

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import combinations
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator
from pydantic.fields import FieldInfo

from isotrain.config.sections import (
    Count,
    Model,
    Positive,
    Runtime,
    Section,
    SectionField,
    Seed,
    Training,
    fields_of,
    type_of,
)
from isotrain.isolation.settings import Policy as Isolation

Scalar = bool | int | float | str | None
VARIED: dict[str, type] = {"model": Model, "training": Training, "runtime": Runtime, "isolation": Isolation}


def field_at(path: str) -> SectionField:
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
        known = fields_of(section if isinstance(section, type) else type_of(section))
    if known:
        raise ValueError(f"space.{path} is a section: name a setting in it, such as {path}.{next(iter(known))}")
    assert isinstance(section, FieldInfo | dataclasses.Field)
    return section


def is_whole(path: str) -> bool:
    """Whether the setting at a dotted path is a whole number."""
    return type_of(field_at(path)) is int


def check_value(path: str, field: SectionField, value: Scalar) -> None:
    """ValueError naming the path if its field refuses ``value`` by type or by limit."""
    kind: Any = field.annotation if isinstance(field, FieldInfo) else field.type
    if isinstance(field, FieldInfo) and field.metadata:
        kind = Annotated[(kind, *field.metadata)]
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as problem:
        expected = problem.errors()[0]["msg"]
        raise ValueError(f"space.{path}: {value!r} is refused: {expected}") from None
    if isinstance(field, dataclasses.Field) and "check" in field.metadata:
        field.metadata["check"](f"space.{path}", value)


FORMS = ("low", "choices", "value")


class Dimension(Section):
    """What one dotted path may be: a range, a list of choices, or one value; all of it only ``when`` others hold."""

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None
    choices: list[Scalar] | None = Field(default=None, min_length=1)
    value: Scalar = None
    when: dict[str, list[Scalar]] = Field(default_factory=dict)  # dotted path -> values at which this one counts

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        forms = [form for form in FORMS if form in self.model_fields_set]
        if len(forms) != 1 or ("high" in self.model_fields_set) != (forms == ["low"]):
            raise ValueError("write one of low and high, choices, value")
        if self.is_range:
            self._check_range()
        elif self.log or self.step is not None:
            raise ValueError("log and step belong to low and high")
        return self

    def _check_range(self) -> None:
        if self.low is None or self.high is None or not self.low < self.high:
            raise ValueError(f"low = {self.low} must lie below high = {self.high}")
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError(f"low = {self.low} and high = {self.high} must be finite")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError(f"log needs low = {self.low} above 0, and no step")
        if self.step is not None and not (self.step > 0 and _whole((self.high - self.low) / self.step)):
            raise ValueError(f"step = {self.step} must be above 0 and lead from low = {self.low} to high = {self.high}")

    @property
    def is_range(self) -> bool:
        """Whether it has low and high."""
        return "low" in self.model_fields_set

    @property
    def is_fixed(self) -> bool:
        """Whether it is one value, so that nothing is left to sample."""
        return "value" in self.model_fields_set

    @property
    def ends(self) -> list[Scalar]:
        """Values that must all be valid for the path: those listed, or the bounds."""
        return [self.value] if self.is_fixed else self.choices or [self.low, self.high]

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether every condition of ``when`` is met by ``values`` (dotted path -> value)."""
        return all(values[path] in allowed for path, allowed in self.when.items())

    def has(self, value: Any) -> bool:
        """Whether ``value`` is one that this dimension can take."""
        if not self.is_range:
            return value in self.ends
        assert self.low is not None and self.high is not None
        inside = isinstance(value, int | float) and self.low <= value <= self.high
        return inside and (self.step is None or _whole((value - self.low) / self.step))

    def __str__(self) -> str:
        if not self.is_range:
            return f"one of {self.ends}"
        return f"{self.low} to {self.high}" + (f" in steps of {self.step}" if self.step is not None else "")


def _as_paths(written: Any, prefix: str = "") -> Any:
    """Sections within sections, or dotted paths, to dotted path -> list of what stands there."""
    if not isinstance(written, Mapping):
        return written
    flat: dict[str, Any] = {}
    for key, inner in written.items():
        path = f"{prefix}{key}"
        nested = isinstance(inner, Mapping) and not {*FORMS, "high"} & {*inner}
        found = (
            _as_paths(inner, f"{path}.") if nested else {path: inner if isinstance(inner, list | tuple) else [inner]}
        )
        if twice := sorted(flat.keys() & found.keys()):
            raise ValueError(f"space.{twice[0]} is written twice, nested and with dots: leave one")
        flat |= found
    return flat


def in_order(space: Mapping[str, Sequence[Dimension]]) -> list[str]:
    """The paths of ``space``, each after those that its conditions read, else by the alphabet.

    So the order of keys in the file decides nothing. ValueError, naming the paths, for conditions in a circle.
    """
    reads = {path: sorted({read for one in space[path] for read in one.when}) for path in sorted(space)}
    try:
        return [path for path in TopologicalSorter(reads).static_order() if path in space]
    except CycleError as problem:
        circle = " -> ".join(problem.args[1])
        raise ValueError(f"space: conditions go in a circle, {circle}: remove one `when` of them") from None


Dimensions = Annotated[dict[str, list[Dimension]], BeforeValidator(_as_paths)]


class Search(Section):
    """One study: what is varied, what is minimised, when it ends."""

    study: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")  # also the name of its folder
    url: str | None = Field(pattern=r"^postgresql(\+psycopg)?://")  # null = the journal in the study's folder
    base: str  # the method whose settings each trial changes
    objectives: Literal["trade-off", "time-to-target"]  # validation MAE and seconds | seconds to the target
    target: Positive | None  # kW of validation MAE
    sampler: Literal["tpe", "nsga2", "random"]
    startup: Count  # random trials before the sampler models
    seed: Seed
    trials: Count | None  # finished
    hours: Positive | None  # since the study began
    stall: Count | None  # finished trials in a row without a growing hypervolume
    workers: int = Field(ge=0, le=4096)  # of `make search`; 0 = as many as cores can be pinned
    early_stop: bool = False
    retries: int = Field(default=2, ge=0)  # of a trial whose worker vanished
    lease: Positive = 60.0  # s without a sign of life
    patience: float = Field(default=300.0, ge=0)  # s to wait for storage
    failures: Count = 5  # in a row, after which a worker gives up
    winners: Count  # points of the front that are run again
    fresh_seeds: list[Annotated[int, Field(ge=1000, lt=2**32)]] = Field(
        min_length=1
    )  # trials have seeds below 1000 or their number
    against: list[str]  # methods run beside them
    known: list[str]  # methods enqueued first
    space: Dimensions = Field(min_length=1)

    @model_validator(mode="after")
    def _target_belongs_to_its_objective(self) -> Self:
        if (self.target is not None) != (self.objectives == "time-to-target"):
            raise ValueError("target is needed with objectives time-to-target, and must be null otherwise")
        if self.objectives == "time-to-target" and (self.sampler == "nsga2" or self.stall is not None):
            raise ValueError("sampler nsga2 and stall need two objectives: use tpe or random, and stall null")
        if self.trials is None and self.hours is None and self.stall is None:
            raise ValueError("one of trials, hours and stall must end the study")
        return self

    @model_validator(mode="after")
    def _space_fits_the_sections(self) -> Self:
        for path, variants in self.space.items():
            field = field_at(path)
            for variant in variants:
                for end in variant.ends:
                    check_value(path, field, end)
                for condition, allowed in variant.when.items():
                    for value in allowed:
                        check_value(f"{path}.when.{condition}", field_at(condition), value)
            _check_exclusive(path, variants)
        in_order(self.space)
        return self


def _check_exclusive(path: str, variants: list[Dimension]) -> None:
    for one, other in combinations(variants, 2):
        shared = one.when.keys() & other.when.keys()
        if not any(all(value not in other.when[key] for value in one.when[key]) for key in shared):
            raise ValueError(
                f"space.{path}: two of its variants can hold at once: give each its own values of one `when`"
            )


def _whole(number: float) -> bool:
    return abs(number - round(number)) < 1e-9 * max(1.0, abs(number))
