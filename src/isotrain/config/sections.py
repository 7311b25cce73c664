"""The sections of params.yaml other than ``ingest`` and ``search``: one class a section, units in the comments.

The section ``isolation`` is the library's own :class:`isotrain.isolation.settings.Policy`.
"""

import dataclasses
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from types import NoneType
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo


class Section(BaseModel):
    """Base of every section: no unknown key, no infinity, and ``true`` or ``"1"`` is no number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


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
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what the generators of numpy and torch take
# Limits beyond any use, so that a slip of the keyboard is refused at once; what a fit needs is estimated besides.
Hours = Annotated[int, Field(ge=1, le=24 * 366 * 100)]
Size = Annotated[int, Field(ge=1, le=1_000_000)]
Units = Annotated[int, Field(ge=1, le=65_536)]
FeatureGroup = Literal[
    "calendar", "climate", "daily_lags", "day_type", "known_ahead", "load", "load_history", "origin_statistics",
    "recent", "weather", "weather_history",
]  # fmt: skip


class Paths(Section):
    """Folders, relative to the project. dvc.yaml hands them to the stages; nothing else names a path."""

    raw: str = "data/raw"
    tidy: str = "data/tidy"
    data_report: str = "reports/data"
    windows: str = "data/windows"
    baselines: str = "results/baselines"
    runs: str = "results/runs"
    report: str = "reports"
    search: str = "results/search"
    meters: str = "data/meters"
    adapted: str = "results/adapted"


def _share_or_date(end: Any) -> Any:
    if not isinstance(end, str):
        return end
    try:
        return date.fromisoformat(end)
    except ValueError:
        raise ValueError(
            f"{end!r} is neither a share of the hours, such as 0.7, nor a date, such as 2021-07-01"
        ) from None


PartEnd = Annotated[Fraction | date, BeforeValidator(_share_or_date)]


class Window(Section):
    """How the series becomes origins, windows and three parts in time order.

    ``train`` and ``validation`` are shares of the hours, of each series its own, or the dates (UTC, at midnight) at
    which these parts end, the same for every series; the test part is what follows.
    """

    history: Hours = 168  # hours that the encoder sees before an origin
    horizon: Hours = 24  # hours forecast from an origin: the leads
    train: PartEnd = 0.7  # share of the hours, or the date it ends
    validation: PartEnd = 0.1  # share of the hours, or the date it ends; the rest is the test part
    stride: Hours = 1  # hours between two origins of the validation and test parts
    only: dict[str, str] = Field(default_factory=dict)  # of many series those with these facts: {category: School}

    @model_validator(mode="after")
    def _parts_leave_a_test(self) -> "Window":
        train, validation = self.train, self.validation
        if isinstance(train, date) != isinstance(validation, date):
            raise ValueError(
                f"train {train} and validation {validation} must both be shares of the hours, or both dates"
            )
        if isinstance(train, date) and isinstance(validation, date):
            if train >= validation:
                raise ValueError(f"train ends on {train}, which must lie before {validation}, the end of validation")
        elif (
            isinstance(train, float)
            and isinstance(validation, float)
            and (train <= 0 or validation <= 0 or train + validation >= 1)
        ):
            raise ValueError(
                f"train {self.train} and validation {self.validation} must be above 0 and sum to less than 1: "
                "the rest is the test part"
            )
        return self

    def ends(self, first_hour: datetime, rows: int) -> list[int]:
        """One past the last of ``rows`` hours in the training, validation and test part of a series.

        Example:
            >>> Window(train=0.7, validation=0.1).ends(datetime(2020, 1, 1, tzinfo=UTC), 1000)
            [700, 799, 1000]
            >>> dates = Window(train=date(2020, 1, 11), validation=date(2020, 1, 21))
            >>> dates.ends(datetime(2020, 1, 1, tzinfo=UTC), 1000)
            [240, 480, 1000]
        """
        train, validation = self.train, self.validation
        if isinstance(train, float) and isinstance(validation, float):
            return [int(rows * train), int(rows * (train + validation)), rows]
        days = [datetime.combine(day, time(), UTC) for day in (train, validation) if isinstance(day, date)]
        return [min(max(int((day - first_hour).total_seconds()) // 3600, 0), rows) for day in days] + [rows]


class Model(Section):
    """The forecaster's shape."""

    inputs: Literal["plain", "rich"]  # plain: series, weather, calendar, a skip; rich: statistics of the past besides
    leave_out: list[FeatureGroup]  # groups of features to do without
    encoder: Literal["lstm", "gru", "tcn", "attention", "zeroed"]  # zeroed: the LSTM's output set to zero
    hidden: Units  # units in each layer of the encoder
    layers: int = Field(ge=1, le=100)
    decoder: Units  # width of the decoder over the leads
    dropout: float = Field(ge=0.0, lt=1.0)  # in the decoder
    state_dropout: float = Field(ge=0.0, lt=1.0)  # of the encoder's state at an origin


class Training(Section):
    """One fit."""

    regime: Literal["streamed", "windowed"]
    refit: bool  # train on the validation part too: its validation error then says nothing
    steps: int = Field(ge=1, le=10_000_000)  # optimiser steps
    stretches: Size  # streamed: stretches in a step
    stretch: Hours  # streamed: hours in a stretch, warm-up (= window.history) included
    origins: Size  # streamed: origins drawn in a stretch
    windows: Size  # windowed: windows in a step, one origin each
    learning_rate: Positive  # peak of the one-cycle schedule
    rise: float = Field(ge=0.0, lt=1.0)  # share of the steps in which the rate rises; it falls in the others
    weight_decay: float = Field(ge=0.0)  # decoupled, on matrices
    clip: float = Field(ge=0.0)  # norm of the gradient; 0 = no clipping
    validate_every: Count  # steps
    accelerator: Literal["auto", "cpu", "cuda"]

    @model_validator(mode="after")
    def _rate_falls(self) -> "Training":
        if abs(self.rise * self.steps - 1) < 1e-9:  # torch's one-cycle schedule divides by the steps after the first
            raise ValueError(f"rise of {self.rise} is one step of {self.steps}: set rise to 0, or to two steps or more")
        return self


class Runtime(Section):
    """Everything that decides speed but not the model; each can be switched off alone."""

    backend: Literal["auto", "native", "torch", "reference"]  # what computes the LSTM; auto: ours where it can
    keep_allocator: bool  # glibc keeps freed pages instead of returning them to the system
    flush_denormals: bool
    bf16: bool  # autocast
    fp16: bool = False  # the LSTM's own products in float16, on a GPU alone: what cuDNN's fastest kernels need
    fused_adam: bool
    graphs: bool = True  # on a GPU: training steps are recorded once and replayed
    pin_threads: bool  # one core a thread: else two of them now and then share one, and a step takes twice as long
    threads: int = Field(ge=0, le=4096)  # 0 = every core that this process may use
    processes: int = Field(default=1, ge=1, le=4096)  # that share a fit; srun starts them


BaselineName = Literal[
    "same-hour-yesterday", "same-hour-last-week", "same-day-type", "ridge", "ridge-refit", "ridge-rich",
    "ridge-rich-refit", "echo-state", "echo-state-refit", "lightgbm", "lightgbm-refit", "lightgbm-rich",
    "lightgbm-rich-refit", "lightgbm-quick",
]  # fmt: skip


class Compare(Section):
    """What the study runs and what its report compares."""

    methods: list[str] = Field(min_length=1)
    seeds: list[Seed] = Field(min_length=1)
    reference_stock: dict[Literal["streamed", "windowed"], str]
    reference_tuned: dict[Literal["streamed", "windowed"], str]
    tolerance: Fraction  # the target is so far above the tuned reference's median best validation error, as a share
    baselines: list[BaselineName]  # forecasts without a network, on the same origins
    against: BaselineName | None  # the baseline that every forecast is compared with, week by week
    coverage: float = Field(default=0.8, gt=0.0, lt=1.0)  # of the forecast intervals
    confidence: float = Field(default=0.9, gt=0.0, lt=1.0)  # of the bootstrap intervals
    bootstrap: int = Field(default=2000, ge=1, le=100_000)  # resamples

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

    experiment: str = "isotrain"
    uri: str | None = None  # null = mlflow.db beside params.yaml
    study: str = "main"  # a tag of every fit, baseline and report


Role = Literal["reference", "control", "tested"]
Changes = dict[str, object]


class Budget(Section):
    """What a control may spend, as measured on another method when the study runs."""

    time: str | None = None  # the method whose training seconds are the budget: training.steps follows
    step: str | None = None  # the method whose mean step costs as much: model.hidden follows

    @model_validator(mode="after")
    def _one_of_both(self) -> "Budget":
        if (self.time is None) == (self.step is None):
            raise ValueError("budget needs one of time (same training seconds) and step (same cost of a step)")
        return self

    @property
    def of(self) -> str:
        """The method that sets the budget."""
        return self.time or str(self.step)


class Method(Section):
    """A named condition: what it extends, what it stands for in the report, and what it changes."""

    about: str  # one sentence for the report
    role: Role  # reference: times are compared with it | control: could embarrass a tested method | tested
    extends: str | None = None  # the method whose changes it starts from
    budget: Budget | None = None
    model: Changes = Field(default_factory=dict)
    training: Changes = Field(default_factory=dict)
    runtime: Changes = Field(default_factory=dict)
    isolation: Changes | Literal["section"] | None = None  # null: nothing; section: params.yaml's own section
