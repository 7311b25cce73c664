"""Which methods race on which network, and how much each profile of the study spends."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from isotrain.study.race import Budget, Race, Racer

Profile = Literal["quick", "standard", "full"]
PROFILES: dict[Profile, dict[str, Budget]] = {
    "quick": {"building": Budget(3, 1, 2), "laboratory": Budget(1, 1, 2), "networks": Budget(1, 1, 2)},
    "standard": {"building": Budget(24, 4, 5), "laboratory": Budget(4, 2, 5), "networks": Budget(3, 1, 3)},
    "full": {"building": Budget(96, 8, 10), "laboratory": Budget(12, 3, 7), "networks": Budget(12, 3, 7)},
}
NETWORKS = ("gru", "tcn", "attention")

RATES = (0.007, 0.01, 0.014, 0.02, 0.028, 0.04, 0.056, 0.08)  # each sqrt(2) times the one before
FREE: Mapping[str, Sequence[Any]] = {
    "training.learning_rate": RATES,
    "training.steps": (120, 200, 300, 400, 500),
    "model.hidden": (16, 24, 32, 48, 64, 128),
    "model.layers": (1, 1, 2),
}
TWO = {"model.layers": 2}
LABORATORY = {"model.hidden": 150, "model.layers": 5}


CHAPTERS = {"a": ("building",), "b": ("laboratory",), "h": NETWORKS}  # the races of each chapter that has any


def budget_of(profile: Profile, race: str) -> Budget:
    """What ``race`` may spend."""
    return PROFILES[profile][race if race in PROFILES[profile] else "networks"]


def race_of(name: str, building: Mapping[str, Any] | None = None) -> Race:
    """The race of this name. ``building``: the result of that race, whose dense network is a control elsewhere."""
    if name == "building":
        return _building()
    return _laboratory(building) if name == "laboratory" else _network(name)


def _building() -> Race:
    racers = (
        Racer("tuned", "tuned", "reference", "`nn.LSTM` with bf16, fused Adam and denormals flushed"),
        Racer("stock", "stock", "reference", "`nn.LSTM` and Adam as a user writes them, at the settings of `tuned`",
              follows="tuned"),
        Racer("dense", "native", "control", "nothing isolated, on the same kernels as those that isolate"),
        Racer("masked-units", "masked-unit-50", "control", "half of the units computed and then not updated"),
        Racer("random-units", "autonomous-75", "control", "`units`, chosen at random",
              isolation={"criterion": "random"}),
        Racer("state-zeroed", "state-zeroed", "control", "the output of the LSTM set to zero"),
        Racer("units", "autonomous-75", "tested", "three units in four, those that Adam moves least, cut off after a "
              "quarter of the training and remembered"),
        Racer("units-cut", "cut-75", "tested", "the same units pass no gradient on"),
        Racer("layer", "layer", "tested", "the lower of two layers, for the second half, remembered", fixed=TWO),
        Racer("credit-cell", "credit-cell", "tested", "credit along the cell alone"),
        Racer("credit-thawed", "credit-thawed", "tested", "credit along the cell alone, all of it after 60 %"),
        Racer("credit-none", "credit-none", "tested", "no credit from hour to hour"),
        Racer("hours-4", "hours-4", "tested", "the backward over the last 4 hours before each origin"),
        Racer("hours-4-thawed", "hours-4-thawed", "tested", "`hours-4`, the whole backward after 70 %"),
    )  # fmt: skip
    return Race("building", "One building from scratch, every setting free", "tuned", racers, FREE)


def _laboratory(building: Mapping[str, Any] | None) -> Race:
    space = {"training.learning_rate": RATES[1:6], "training.steps": (120, 160, 200)}
    fixed = LABORATORY
    racers = [
        Racer("tuned", "tuned", "reference", "five layers of 150 units, nothing isolated", fixed),
        Racer("stock", "stock", "reference", "`nn.LSTM` and Adam as a user writes them, at the settings of `tuned`",
              fixed, follows="tuned"),
        Racer("dense", "native", "control", "nothing isolated, on the same kernels as those that isolate", fixed),
        Racer("layers", "layer", "tested", "the three lower layers, for the second half, remembered", fixed,
              {"schedule": {"fraction": 0.6, "start": 0.5}}),
        Racer("credit-cell", "credit-cell", "tested", "credit along the cell alone", fixed),
        Racer("credit-none", "credit-none", "tested", "no credit from hour to hour", fixed),
        Racer("hours-4", "hours-4", "tested", "the backward over the last 4 hours before each origin", fixed),
    ]  # fmt: skip
    if building is not None:
        point = next(row["point"] for row in building["racers"] if row["name"] == "dense")
        racers.append(
            Racer("small-dense", "native", "control", "the dense network that chapter (a) found", given=point)
        )
    return Race("laboratory", "The laboratory's network, five layers of 150 units", "tuned", tuple(racers), space)


def _network(encoder: str) -> Race:
    space = {"training.learning_rate": RATES[:6], "training.steps": (80, 120)}
    fixed = {"model.encoder": encoder, "model.hidden": 32, "model.layers": 2}
    masked = {"zone": "layer", "mode": "masked", "criterion": "depth", "schedule": {"fraction": 0.5, "start": 0.3}}
    racers = (
        Racer("whole", "tuned", "reference", "two layers of 32 units, nothing isolated", fixed),
        Racer("one-layer", "tuned", "control", "one layer, nothing isolated", {**fixed, "model.layers": 1}),
        Racer("masked", "tuned", "control", "the lower half computed and then not updated, from 30 % on", fixed,
              masked),
        Racer("lower-half", "tuned", "tested", "the lower half isolated from 30 % on", fixed,
              {**masked, "mode": "exact"}),
    )  # fmt: skip
    return Race(encoder, NAMES[encoder], "whole", racers, space)


NAMES = {
    "gru": "A gated recurrent unit in the LSTM's place",
    "tcn": "A temporal convolution in the LSTM's place",
    "attention": "Causal self-attention in the LSTM's place",
}
