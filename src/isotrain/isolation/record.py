"""What happened to the zones as training went on: small enough to keep with every run, enough to draw it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isotrain.files import replacing
from isotrain.isolation.zonemap import ActiveShares, ZoneMap

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


class Record:
    """One entry a change of what is isolated.

    Attributes:
        entries: each has ``step``; ``active``: layer -> (gates, units) uint8, the share of active weights in 255ths;
            ``scores``: zone map -> (2, len(QUANTILES)) quantiles of the scores of active and of isolated zones (NaN
            where there is none, or none finite).
    """

    def __init__(self, maps: Iterable[ZoneMap]) -> None:
        self.entries: list[dict[str, Any]] = []
        self._shares = {zone_map.name: ActiveShares(zone_map) for zone_map in maps}

    def add(self, step: int, active: Mapping[str, Tensor], scores: Mapping[str, Tensor]) -> None:
        """Take down the choice ``active`` (zone map -> bool a zone), made by ``scores`` before ``step``."""
        shares = {
            layer: share for name, share_of in self._shares.items() for layer, share in share_of(active[name]).items()
        }
        self.entries.append(
            {
                "step": step,
                "active": {layer: (255 * share).round().to(torch.uint8).cpu() for layer, share in shares.items()},
                "scores": {
                    name: torch.stack([_quantiles(score[here]) for here in (chosen, ~chosen)])
                    for name, score in scores.items()
                    for chosen in (active[name].to(score.device),)
                },
            }
        )

    def save(self, path: Path) -> None:
        """Write ``steps`` (n,), ``active/<layer>`` (n, gates, units) and ``scores/<map>`` (n, 2, quantiles) as npz."""
        arrays: dict[str, Any] = {"steps": np.array([entry["step"] for entry in self.entries])}
        for kind in ("active", "scores"):
            for name in self.entries[0][kind]:
                arrays[f"{kind}/{name}"] = torch.stack([entry[kind][name] for entry in self.entries]).numpy()
        with replacing(path) as draft, draft.open("wb") as stream:
            np.savez_compressed(stream, **arrays)


def load(path: Path) -> Record:
    """The record that :meth:`Record.save` wrote: to be drawn, not to be added to."""
    record = Record([])
    with np.load(path) as stored:
        arrays = {name: torch.from_numpy(stored[name]) for name in stored.files}
    for number, step in enumerate(arrays.pop("steps").tolist()):
        entry: dict[str, Any] = {"step": step, "active": {}, "scores": {}}
        for name, values in arrays.items():
            kind, _, key = name.partition("/")
            entry[kind][key] = values[number]
        record.entries.append(entry)
    return record


def _quantiles(scores: Tensor) -> Tensor:
    finite = scores[scores.isfinite()].double().cpu()
    if not len(finite):
        return torch.full((len(QUANTILES),), torch.nan, dtype=torch.double)
    ranks = torch.tensor(QUANTILES, dtype=torch.double) * (len(finite) - 1)  # torch.quantile stops at 16 million values
    return finite.sort().values[ranks.round().long()]
