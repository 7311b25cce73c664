"""Chosen points of the front again, on seeds that the search never saw, beside the methods they would replace.

The best of many noisy trials is better than it will ever be again (the winner's curse): what a search found counts
once it was repeated with other seeds, its seconds measured alone on the machine as those of every other method.
"""

import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from isotrain.config import Settings, decisive
from isotrain.errors import InputError
from isotrain.files import read_json, write_json
from isotrain.tradeoff.results import Run, check_comparable, read_run

log = logging.getLogger(__name__)
SCRIPT = Path("pipelines/train.py")  # a process a fit: some switches of stock hold for a whole process


def confirm(methods: Mapping[str, Settings], seeds: Sequence[int], windows: Path, folder: Path) -> None:
    """Fit each of ``methods`` (name -> settings) with each of ``seeds``, every method of one seed before the next.

    The results lie in ``<folder>/confirm/<name>-<seed>``, the settings in ``<folder>/settings``. A result that is
    there for the same settings and data is kept, so a call that was cut short goes on where it stopped. Works in
    the project's folder; a fit that fails raises ``CalledProcessError``.
    """
    data = str(read_json(windows / "windows.json")["sha256"])
    for name, settings in methods.items():
        write_json(folder / "settings" / f"{name}.json", settings.model_dump())
    for seed in seeds:
        for name, settings in methods.items():
            out = folder / "confirm" / f"{name}-{seed}"
            if is_current(out, settings, data):
                log.info("%s: kept", out)
                continue
            given = [folder / "settings" / f"{name}.json", seed, windows, out]
            subprocess.run([sys.executable, str(SCRIPT), *map(str, given)], check=True)


def confirmed_runs(names: Sequence[str], seeds: Sequence[int], folder: Path) -> tuple[Run, ...]:
    """The fits of ``names`` and ``seeds`` that :func:`confirm` left in ``folder``, those there are.

    Raises :class:`~isotrain.errors.InputError` if they are of different data or hardware, or damaged.
    """
    places = [folder / "confirm" / f"{name}-{seed}" for name in names for seed in seeds]
    runs = tuple(read_run(place) for place in places if (place / "result.json").exists())
    try:
        if runs:
            check_comparable(runs)
    except InputError as problem:
        raise InputError(f"{problem}; of a search: remove {folder / 'confirm'}, then confirm it again") from None
    return runs


def is_current(out: Path, settings: Settings, data: str) -> bool:
    """Whether ``out`` holds a finished fit of exactly these settings on this series."""
    if not (out / "result.json").exists():
        return False
    result = read_json(out / "result.json")
    same: bool = result["params"] == decisive(settings) and result["data"]["sha256"] == data
    return same
