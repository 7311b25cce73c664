"""From a trained forecaster and a new series to a forecaster of that series, in a folder of its own."""

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isotrain.adapt.candidates import CANDIDATES, Candidate, Ground
from isotrain.adapt.choose import KEPT, SEASON, Choice, choose
from isotrain.config import Window, cuda_is_there
from isotrain.data.ingest import Tidy, ingest
from isotrain.data.schema import flag_column
from isotrain.data.windowing import described
from isotrain.data.windows import DAY, PARTS, Meta, OfSeries, Statistics, Weather, Windows, needed_hours
from isotrain.errors import InputError
from isotrain.files import sha256
from isotrain.forecast.bundle import WEIGHTS, Bundle, save_state, write_adapted
from isotrain.forecast.stretches import WEEK

log = logging.getLogger(__name__)
DRAFT = ".part"  # the end of the name of a folder that is being written
FEWEST = 2  # weeks of origins: one to fit, one held out
LIMITS = Window(train=0.75, validation=0.2)  # limits of the new load come from three quarters of its hours


@dataclass(frozen=True)
class Adapted:
    """A forecaster adapted to one new series.

    Attributes:
        parent: the forecaster that it comes from, which stays as it was.
        windows: the new series, with its scales, as the forecaster reads it.
        choice: what was thawed, and why.
        name: of the new series.
    """

    parent: Bundle
    windows: Windows
    choice: Choice

    @property
    def name(self) -> str:
        """Of the new series."""
        return self.windows.series[0]["name"]

    @property
    def words(self) -> str:
        """What was thawed, why, and what that gained, in three lines."""
        c = self.choice
        on = f"the last {c.held_out} of {c.weeks} weeks, held out"
        tried = ", ".join(f"{one.name} {one.gain:+.1%} (standard error {one.doubt:.1%})" for one in c.shown)
        if c.name == KEPT:
            thawed = (
                f"{self.name}: nothing was thawed, the forecaster is kept as it is, with the scale of the new series"
            )
            why = f"{'no candidate surely gained' if c.weeks < SEASON else 'every candidate lost'} on {on}: {tried}"
        else:
            thawed = f"{self.name}: thawed: {CANDIDATES[c.name].about}, strength {c.strength:g}; the rest is isolated"
            why = "surely gained it gained most" if c.weeks < SEASON else "did not surely lose it changes most"
            why = f"of the candidates that {why}: {tried}"
        return f"{thawed}\n{why}\ngain on {on}: {c.gain:+.1%} of the error of the forecaster as it was"

    @property
    def lineage(self) -> dict[str, Any]:
        """Where it comes from: its parent, the data, and the choice."""
        one, c = self.windows.series[0], self.choice
        return {
            "parent": self.parent.name,
            "parent_folder": self.parent.folder.name,
            "parent_weights_sha256": sha256(self.parent.folder / WEIGHTS),
            "source": one["source"],
            "sha256": one["sha256"],
            "rows": one["rows"],
            "thawed": c.name,
            "strength": c.strength,
            "weeks": c.weeks,
            "weeks_held_out": c.held_out,
            "gain": c.gain,
            "tried": {t.name: {"strength": t.strength, "gain": t.gain, "standard_error": t.doubt} for t in c.shown},
        }

    def save(self, out: Path) -> Path:
        """Write the bundle as the folder ``out``, whole or not at all; :class:`InputError` if something is there."""
        refuse_existing(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        draft = out.with_name(f".{out.name}.{os.getpid()}{DRAFT}")
        draft.mkdir()
        try:
            weights = {**self.parent.weights, **self.choice.weights}
            save_state(draft / WEIGHTS, {"state_dict": {f"net.{name}": value for name, value in weights.items()}})
            scale = self.windows.series[0]["statistics"]["scale"]
            errors = (self.choice.errors * scale).astype(np.float32)
            write_adapted(draft, self.parent, self.windows, self.choice.origins, errors, self.lineage)
            draft.replace(out)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return out


def refuse_existing(out: Path) -> None:
    """:class:`InputError` if there is something at ``out``: nothing is written over."""
    if out.exists():
        raise InputError(f"{out} is there already: remove it, or name another folder with --out")


def adapt(bundle: Bundle, tidy: Tidy, candidates: Mapping[str, Candidate] = CANDIDATES) -> Adapted:
    """Adapt the network of ``bundle`` to the series ``tidy``, such as :func:`read_new` reads.

    Raises :class:`InputError` for a forecaster without a network, and a series that lacks a column or is too short.

    Example:
        After a study has trained ``rich``::

            bundle = load_bundle(Path("results/runs/rich-0"))
            adapted = adapt(bundle, read_new(bundle, Path("meter.csv")))
            print(adapted.words)
            adapted.save(Path("results/adapted/meter"))
    """
    bundle = bundle.for_another(tidy.facts["name"])
    windows = windows_of(bundle, tidy)
    first, last = windows.ranges("train")[0]
    ground = Ground.of(bundle.network(windows).to(device_of(bundle)), first, last)
    return Adapted(bundle, windows, choose(ground, first, last, candidates))


def device_of(bundle: Bundle) -> str:
    """Where ``bundle`` is adapted: on a GPU where there is one, unless ``training.accelerator`` was ``cpu``.

    A forecaster that was trained on a GPU is adapted on a machine without one too.
    """
    asked = bundle.settings.training.accelerator if bundle.settings else "cpu"
    return "cuda" if asked != "cpu" and cuda_is_there() else "cpu"


def read_new(bundle: Bundle, path: Path, series: str | None = None) -> Tidy:
    """The file ``path``, written as those of the ``series`` that ``bundle`` was trained on (its first by default).

    The limits beyond which a load is a fault are derived anew: they are another meter's. Raises :class:`InputError`
    naming file, column and remedy.
    """
    card = one_of(bundle, series).ingest
    checks = {key: check for key, check in card.checks.items() if key in card.columns and key != card.target}
    settings = card.model_copy(update={"source": path.name, "series": "one", "checks": checks})
    try:
        return ingest(settings, path.resolve().parent, LIMITS)
    except InputError as problem:
        raise InputError(f"{path} cannot be adapted to: {problem}") from None


def one_of(bundle: Bundle, series: str | None = None) -> Bundle:
    """``bundle`` for one of the series that it was trained on, the first unless it is named."""
    return bundle.only(series or bundle.names[0])


def windows_of(bundle: Bundle, tidy: Tidy) -> Windows:
    """The series ``tidy`` as the network of ``bundle`` reads it; its training part are all origins.

    Its scales are those of its own load. Weather keeps the scales and the climate that the forecaster was trained
    with, as a mean over its series: those of a few weeks would say little. Raises :class:`InputError` for a series that
    lacks a column or has too few hours.
    """
    if bundle.settings is None:
        raise InputError(f"{bundle.folder} has no network, and only a network is adapted: name a fit with --model")
    table, facts, target = tidy.frame, tidy.facts, bundle.meta["target"]
    pool = bundle.meta["series"]
    wanted = [target, *(about["name"] for about in pool[0]["statistics"]["weather"])]
    if missing := [name for name in wanted if name not in table]:
        raise InputError(f"{facts['source']} lacks {', '.join(missing)}: the forecaster reads {', '.join(wanted)}")
    first = needed_hours(bundle.meta, **bundle.reads)
    horizon = bundle.meta["horizon"]
    if len(table) < (needed := first + FEWEST * WEEK + horizon - 1):
        raise InputError(
            f"{facts['source']} has {len(table)} h and adapting takes {needed} h: {first} h that a forecast looks back "
            f"over and {FEWEST} weeks to adapt to; {needed - len(table)} h are missing"
        )
    load = table[target]
    scale = float(load.std())
    if not scale > 0:
        raise InputError(f"{facts['source']}: {target} is constant: there is nothing to adapt to")
    one: OfSeries = {
        **pool[0],
        "number": -1,
        "time_zone": facts["time_zone"],
        "country": facts["country"],
        "statistics": pooled([series["statistics"] for series in pool], scale),
        "mase_scale": float((load - load.shift(DAY)).abs().mean()),
    }
    meta: Meta = {**bundle.meta, "series": [one]}
    windows = described(table, facts, meta)
    end = len(table) - horizon + 1
    windows.series[0]["origins"] = {"train": [first, end], **{part: [end, end] for part in PARTS[1:]}}
    held = table[flag_column(target)].iloc[first:] == 0
    if held.mean() < 0.5:
        raise InputError(f"{facts['source']}: of {target} only {held.mean():.0%} of the hours to adapt to are measured")
    return windows


def pooled(statistics: list[Statistics], scale: float) -> Statistics:
    """Statistics with the ``scale`` of a new series, and of the weather the mean over the series trained on."""
    weather: list[Weather] = []
    for columns in zip(*(one["weather"] for one in statistics), strict=True):
        mean, std = (float(np.mean([column[key] for column in columns])) for key in ("mean", "std"))
        one = columns[0].copy()
        one["mean"], one["std"] = mean, std
        weather.append(one)
    climate = {
        kind: [float(value) for value in np.mean([one["climate"][kind] for one in statistics], axis=0)]
        for kind in statistics[0]["climate"]
    }
    return {"scale": scale, "weather": weather, "climate": climate}
