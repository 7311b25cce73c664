"""Series that others have published, as sections `ingest`: what experiments read that ask about more than one building.

DATA is a folder with the Drahi-X export, ``foreign/household_hourly.csv``, ``foreign/vic_electricity.csv`` and
``drammen-36-buildings.zip``. Nothing of them is in this repository.
"""

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from isotrain.config import Ingest
from isotrain.data.cells import unpacked

DRAMMEN = "drammen-36-buildings.zip"
ONE_BUILDING: Mapping[str, dict[str, Any]] = {
    "drahix": {"source": "DrahiX_SIRTA_allzones_20160715_20210520_1h.csv"},
    "household": {
        "source": "foreign/household_hourly.csv",
        "target": "Load",
        "time_zone": "Europe/Copenhagen",
        "country": "DK",
        "file": {"time_column": "date", "time_format": "%m/%d/%Y %H:%M"},
        "columns": {"Load": {"kind": "load"}, "temp_dry": {"kind": "temperature"}},
    },
    "victoria": {
        "source": "foreign/vic_electricity.csv",
        "target": "Demand",
        "time_zone": "Australia/Melbourne",
        "country": "AU",
        "file": {"time_column": "Time", "step_minutes": 30},
        "columns": {"Demand": {"kind": "load", "unit": "MW"}, "Temperature": {"kind": "temperature"}},
    },
}


def drammen(number: int) -> dict[str, Any]:
    """The section of one public building of Drammen."""
    return {
        "source": f"{DRAMMEN}/building_{number}.txt",
        "target": "ElImp",
        "time_zone": "Europe/Oslo",
        "country": "NO",
        "file": {"time_column": "TimeStamp", "separator": ";"},
        "columns": {
            "ElImp": {"kind": "load", "unit": "Wh"},
            "Tout": {"kind": "temperature"},
            "SolGlob": {"kind": "solar"},
        },
    }


def drammen_numbers(data: Path) -> Iterator[int]:
    """Of the buildings in the zip file of the folder ``data``."""
    with zipfile.ZipFile(data / DRAMMEN) as archive:
        yield from sorted(
            int(Path(name).stem.removeprefix("building_")) for name in archive.namelist() if ".txt" in name
        )


def located(section: Mapping[str, Any], data: Path, folder: Path, **others: dict[str, str]) -> Ingest:
    """The settings of ``section``, of a file of ``data``, with ``others`` as columns besides.

    A member of a zip file is unpacked into ``folder``.
    """
    columns = {"columns": {**section["columns"], **others}} if others else {}
    source = unpacked(data / section["source"], folder)
    return Ingest.model_validate({**section, **columns, "source": str(source)})
