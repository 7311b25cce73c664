"""Do limits derived from a series find its faults, and spare what is genuine, as well as limits chosen by hand do?

    python -m experiments.limits.run DATA [--out experiments/limits/results]

DATA is a folder with the files that :mod:`experiments.published_series` names. Writes limits.md: for each series how
many hours `ingest.checks: auto` and `drahix` flag as faults, gaps and night offsets apart, and how many of them are the
same.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
from experiments.published_series import ONE_BUILDING, drammen, drammen_numbers, located

from isotrain.config.ingest import PROFILES, Ingest, Simulated
from isotrain.data import simulate
from isotrain.data.ingest import Tidy, ingest
from isotrain.data.schema import Flag, flag_column
from isotrain.files import write_text

FAULTS = [Flag.STUCK, Flag.OUTAGE, Flag.IMPOSSIBLE]
SEEDS = range(5)
NAMES = {"drahix": "Drahi-X", "household": "household", "victoria": "Victoria"}


def described(data: Path, folder: Path) -> Iterator[tuple[str, Ingest]]:
    """Each series with the settings that read it as it was published; members of a zip file go into ``folder``."""
    others: dict[str, dict[str, dict[str, str]]] = {
        "household": {"humidity": {"kind": "other", "unit": "%"}, "wind_speed": {"kind": "other"}}
    }
    for name, section in ONE_BUILDING.items():
        yield NAMES[name], located(section, data, folder, **others.get(name, {}))
    for number in drammen_numbers(data):
        wind = {"kind": "other", "unit": "m/s"}
        yield f"Drammen {number}", located(drammen(number), data, folder, WindSpd=wind)


def by(settings: Ingest, checks: str) -> Tidy:
    """The series under the limits named ``checks``, however much they flag."""
    return ingest(settings.model_copy(update={"checks": PROFILES[checks], "most_flagged": 1.0}), Path())


def faults(tidy: Tidy) -> pd.DataFrame:
    """Whether each hour of each column is flagged as a fault: (hours, columns)."""
    names = list(tidy.facts["columns"])
    return tidy.frame[[flag_column(name) for name in names]].isin(FAULTS).set_axis(names, axis=1)


def row(name: str, column: str, auto: pd.Series, profile: pd.Series) -> list[str]:
    counts = (auto.sum(), profile.sum(), (auto & profile).sum())
    share = [f"{mask.mean():.2%}" for mask in (auto, profile)]
    return [name, column, f"{len(auto):,}", *(f"{int(count):,}" for count in counts), *share]


def simulated(seed: int) -> list[str]:
    """Faults that the simulator put in: how many of them each finds, and how many hours each flags besides."""
    settings = Ingest(source="simulated", simulated=Simulated(seed=seed))
    with patch.object(simulate, "spoil", lambda *_, **__: None):
        clean = simulate.building(settings.simulated)
    cells = [str(seed)]
    for checks in ("auto", "drahix"):
        tidy = by(settings, checks)
        wrong = tidy.raw.notna() & (tidy.raw != clean.loc[tidy.raw.index, tidy.raw.columns])
        found, truth = faults(tidy).to_numpy(), wrong.to_numpy()
        # in a run of equal values the hour that the others repeat is flagged too, and is as measured
        cells += [f"{int((found & truth).sum())} of {int(truth.sum())}", str(int((found & ~truth).sum()))]
    return cells


def table(head: list[str], rows: list[list[str]], words: int) -> str:
    rule = ["---"] * words + ["---:"] * (len(head) - words)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("experiments/limits/results"))
    chosen = parser.parse_args()
    rows, buildings = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, settings in described(chosen.data, Path(folder)):
            auto, profile = (faults(by(settings, checks)) for checks in ("auto", "drahix"))
            if name.startswith("Drammen"):
                target = settings.target
                buildings.append((auto[target].mean(), profile[target].mean()))
            else:
                shown = [column for column in auto if auto[column].any() or profile[column].any()]
                rows += [row(name, column, auto[column], profile[column]) for column in shown or [settings.target]]
    head = ["series", "column", "hours", "auto", "drahix", "both", "auto, share", "drahix, share"]
    shares = np.array(buildings).T
    of_buildings = [
        [checks, f"{np.median(share):.2%}", f"{share.max():.2%}", str(int((share > 0.005).sum()))]
        for checks, share in zip(("auto", "drahix"), shares, strict=True)
    ]
    text = f"""# Faults flagged by derived limits and by those of Drahi-X

Hours flagged as stuck, off or impossible; a column in which neither flags any is left out.

{table(head, rows, 2)}

The load (`ElImp`) of the {len(buildings)} Drammen buildings, share of the hours flagged:

{table(["limits", "median", "largest", "buildings above 0.5 %"], of_buildings, 1)}

Simulated buildings, values that the simulator spoilt and that were found, and values flagged besides:

{table(["seed", "auto: found", "besides", "drahix: found", "besides"], [simulated(seed) for seed in SEEDS], 1)}
"""
    write_text(chosen.out / "limits.md", text)
    print(text)


if __name__ == "__main__":
    main()
