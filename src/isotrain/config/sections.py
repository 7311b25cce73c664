"""The sections of params.yaml other than ``ingest`` and ``search``: one class a section, units in the comments.

The section ``isolation`` is the library's own :class:`isotrain.isolation.settings.Policy`.
"""

import dataclasses
from collections.abc import Mapping
from types import NoneType
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

from isotrain.isolation.settings import Policy as Isolation


class Section(BaseModel):
    """Base of every section."""

    model_config = ConfigDict(extra="forbid", frozen=True)


SectionField = FieldInfo | dataclasses.Field[Any]  # the latter of the section isolation


def fields_of(kind: Any) -> Mapping[str, SectionField]:
    """The settings of a section by name; none if ``kind`` is the type of a setting."""
    if dataclasses.is_dataclass(kind):
        return {field.name: field for field in dataclasses.fields(kind)}
    return kind.model_fields if isinstance(kind, type) and issubclass(kind, Section) else {}


def type_of(field: SectionField) -> Any:
    """The type that a setting is declared with; where it may be None too, the type that it has otherwise."""
    declared = field.annotation if isinstance(field, FieldInfo) else field.type
    others = [kind for kind in get_args(declared) if kind is not NoneType]
    return others[0] if NoneType in get_args(declared) and len(others) == 1 else declared


Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]


class Paths(Section):
    """Folders, relative to the project. dvc.yaml hands them to the stages; nothing else names a path."""

    raw: str
    tidy: str
    data_report: str
    windows: str
    methods: str
    runs: str
    report: str
    search: str


class Window(Section):
    """How the series becomes origins, windows and three parts in time order."""

    history: Count  # hours that the encoder sees before an origin
    horizon: Count  # hours forecast from an origin: the leads
    train: Fraction  # share of the hours
    validation: Fraction  # share of the hours; the rest is the test part
    stride: Count  # hours between two origins of the validation and test parts

    @model_validator(mode="after")
    def _parts_leave_a_test(self) -> "Window":
        if self.train <= 0 or self.validation <= 0 or self.train + self.validation >= 1:
            raise ValueError(
                f"train {self.train} and validation {self.validation} must be above 0 and sum to less than 1: "
                "the rest is the test part"
            )
        return self


class Model(Section):
    """The forecaster's shape."""

    inputs: Literal["plain", "rich"]  # plain: series, weather, calendar, a skip; rich: statistics of the past besides
    leave_out: list[str]  # groups of features to do without
    encoder: Literal["lstm", "gru", "tcn", "zeroed"]  # zeroed: the LSTM's output set to zero
    hidden: Count  # units in each layer of the encoder
    layers: Count
    decoder: Count  # width of the decoder over the leads
    dropout: float = Field(ge=0.0, lt=1.0)  # in the decoder
    state_dropout: float = Field(ge=0.0, lt=1.0)  # of the encoder's state at an origin


class Training(Section):
    """One fit."""

    regime: Literal["streamed", "windowed"]
    refit: bool  # train on the validation part too: its validation error then says nothing
    steps: Count  # optimiser steps
    stretches: Count  # streamed: stretches in a step
    stretch: Count  # streamed: hours in a stretch, warm-up (= window.history) included
    origins: Count  # streamed: origins drawn in a stretch
    windows: Count  # windowed: windows in a step, one origin each
    learning_rate: Positive  # peak of the one-cycle schedule
    rise: Fraction  # share of the steps in which the rate rises
    weight_decay: float = Field(ge=0.0)  # decoupled, on matrices
    clip: float = Field(ge=0.0)  # norm of the gradient; 0 = no clipping
    validate_every: Count  # steps
    accelerator: Literal["auto", "cpu", "cuda"]


class Runtime(Section):
    """Everything that decides speed but not the model; each can be switched off alone."""

    keep_allocator: bool  # glibc keeps freed pages instead of returning them to the system
    flush_denormals: bool
    backend: Literal["auto", "native", "torch", "reference"]  # what computes the LSTM; auto: ours where it can
    bf16: bool  # autocast
    fused_adam: bool
    pin_threads: bool  # one core a thread: else two of them now and then share one, and a step takes twice as long
    threads: int = Field(ge=0)  # 0 = every core that this process may use


BaselineName = Literal[
    "same-hour-yesterday", "same-hour-last-week", "same-day-type", "ridge", "ridge-refit", "ridge-rich",
    "ridge-rich-refit", "echo-state", "echo-state-refit", "lightgbm", "lightgbm-refit", "lightgbm-rich",
    "lightgbm-rich-refit",
]  # fmt: skip


class Compare(Section):
    """What the report compares."""

    methods: list[str] = Field(min_length=1)
    seeds: list[int] = Field(min_length=1)
    reference_stock: dict[Literal["streamed", "windowed"], str]
    reference_tuned: dict[Literal["streamed", "windowed"], str]
    tolerance: Fraction  # the target is so far above the tuned reference's median best validation error, as a share
    baselines: list[BaselineName]  # forecasts without a network, on the same origins
    against: BaselineName | None  # the baseline that every forecast is compared with, week by week
    coverage: float = Field(gt=0.0, lt=1.0)  # of the forecast intervals
    confidence: float = Field(gt=0.0, lt=1.0)  # of the bootstrap intervals
    bootstrap: Count  # resamples

    @model_validator(mode="after")
    def _no_repeats(self) -> "Compare":
        for name, values in (("methods", self.methods), ("seeds", self.seeds), ("baselines", self.baselines)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names something twice: {values}")
        if self.against is not None and self.against not in self.baselines:
            raise ValueError(f"against {self.against} is not among baselines: {', '.join(self.baselines)}")
        return self


class Tracking(Section):
    """Where MLflow keeps the runs. MLFLOW_TRACKING_URI in the environment wins over ``uri``."""

    experiment: str
    uri: str | None  # null = mlflow.db beside params.yaml


Changes = dict[str, object]


class Method(Section):
    """A named condition: a sentence for the report, and what it changes in the sections above."""

    about: str
    model: Changes = Field(default_factory=dict)
    training: Changes = Field(default_factory=dict)
    runtime: Changes = Field(default_factory=dict)
    isolation: Changes = Field(default_factory=dict)
