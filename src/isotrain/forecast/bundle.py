"""A forecaster in a folder: everything that a forecast of new data needs, and no code.

A fit's result folder is such a bundle. ``forecaster.json``: the settings, how files of the series are written, and what
was fitted on the training part (the windows' meta). ``model.ckpt``: the weights. ``residuals.npz``: errors on the
validation part, from which intervals of any coverage are calibrated; a refit has none. Each is read with a checksum.

What a study publishes (:func:`publish`) is a bundle too. Its forecast is the mean of one network, or none, and of
fitted baselines, each in a file of its own: a ridge's coefficients as numpy's arrays, LightGBM's trees as its own text.
"""

import io
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from isotrain.config import Ingest, Settings
from isotrain.data.windows import Meta, OfSeries, Windows, ahead_words, complete, known_ahead, needed_hours, of_one
from isotrain.errors import InputError
from isotrain.files import checksum, read_json, read_sealed, reading, replacing, sha256, write_json, write_sealed
from isotrain.forecast.forecasts import Forecasts
from isotrain.forecast.intervals import Intervals, calibrate, working_hours
from isotrain.forecast.network import Forecaster, for_one_series
from isotrain.forecast.series import Series

FORMAT = 4  # of forecaster.json, as it is written
FORMATS = (4,)  # that are read; older ones know one series only
LISTED = 5  # series that an error names
PUBLISHED = "forecaster"  # the folder beside the report that a study publishes its best forecaster in
ABOUT, WEIGHTS, RESIDUALS = "forecaster.json", "model.ckpt", "residuals.npz"
RANGE = (0.01, 0.5, 0.99)  # quantiles of the load over the training part that a forecast compares new data with
TRAIN_AGAIN = "remove its folder and train again (dvc repro)"


def write_bundle(folder: Path, settings: Settings, windows: Windows) -> None:
    """Make the folder of a finished fit, with its ``model.ckpt`` and ``forecasts.npz``, a bundle.

    The ``ingest`` of each series must hold the section of params.yaml that it was read with.
    """
    with np.load(folder / "forecasts.npz") as forecasts:
        if "val_prediction" in forecasts:  # else a refit: its errors on what it was trained on say nothing
            errors = forecasts["val_truth"] - forecasts["val_prediction"]
            _write_residuals(folder, windows, forecasts["val_origins"], errors)
    _write(folder, settings.method, settings.model_dump(mode="json"), windows)


def publish(
    folder: Path,
    name: str,
    network: Path | None,
    baselines: Sequence[Path],
    seen: Forecasts,
    windows: Windows,
    candidates: Mapping[str, float],
) -> None:
    """Make ``folder``, emptied first, the bundle whose forecast is the mean of a network's and of fitted baselines'.

    Args:
        folder: where it goes.
        name: what is said wherever it is used.
        network: the result folder of a fit, or None.
        baselines: the files of the fitted baselines; each must be there, else :class:`InputError`.
        seen: its forecasts of the validation part, from whose errors the intervals come.
        windows: what its parts were fitted on.
        candidates: validation MAE (kW) of everything that it was chosen from, by name.
    """
    if missing := [path for path in baselines if not path.is_file()]:
        raise InputError(f"{missing[0]} is missing: remove its folder and run `dvc repro baselines`")
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    settings = None
    if network is not None:
        settings = read_about(network)["settings"]
        save_state(folder / WEIGHTS, {"state_dict": load_state(network / WEIGHTS)["state_dict"]})
    for path in baselines:
        shutil.copyfile(path, folder / path.name)
    _write_residuals(folder, windows, seen.origins, (seen.truth - seen.prediction).astype(np.float32))
    _write(folder, name, settings, windows, [path.name for path in baselines], candidates)


def write_adapted(
    folder: Path,
    parent: "Bundle",
    windows: Windows,
    origins: NDArray[np.int64],
    residuals: NDArray[np.float32],
    lineage: Mapping[str, Any],
) -> None:
    """Make ``folder``, which holds the weights, the bundle of the network of ``parent`` adapted to ``windows``.

    ``residuals`` (m, K), kW, at ``origins`` are those that intervals come from; ``lineage`` says where it comes from.
    """
    assert parent.settings is not None, "there is no network"
    _write_residuals(folder, windows, origins, residuals)
    _write(folder, parent.name, parent.settings.model_dump(mode="json"), windows, lineage=lineage)


def _write_residuals(
    folder: Path, windows: Windows, origins: NDArray[np.int64], residuals: NDArray[np.float32]
) -> None:
    of = windows.series_at(origins - 1)
    with replacing(folder / RESIDUALS) as draft, draft.open("wb") as stream:
        np.savez(stream, residuals=residuals, working=working_hours(windows, origins), of=of)


def _write(
    folder: Path,
    name: str,
    settings: dict[str, Any] | None,
    windows: Windows,
    baselines: Sequence[str] = (),
    candidates: Mapping[str, float] | None = None,
    lineage: Mapping[str, Any] | None = None,
) -> None:
    seen = [windows.target[one["first"] : one["origins"]["train"][1]] for one in windows.series]
    about = {
        "format": FORMAT,
        "name": name,
        "settings": settings,
        "baselines": dict.fromkeys(baselines, ""),
        "candidates": dict(candidates or {}),
        "windows": windows.meta,
        "load_range": [[float(value) for value in np.quantile(load, RANGE)] for load in seen],  # of each series
        **({"adapted": dict(lineage)} if lineage else {}),
    }
    write_about(folder, about)


def write_about(folder: Path, about: dict[str, Any]) -> None:
    """Write ``forecaster.json`` with checksums of itself and of the files beside it, which must be there if ever."""
    beside = {name: sha256(folder / name) if (folder / name).is_file() else None for name in (RESIDUALS, WEIGHTS)}
    plain = {
        **about,
        "baselines": {name: sha256(folder / name) for name in about.get("baselines", {})},
        "residuals_sha256": beside[RESIDUALS],
        "weights_sha256": beside[WEIGHTS],
    }
    write_json(folder / ABOUT, {**plain, "sha256": checksum(plain)})


def read_about(folder: Path) -> dict[str, Any]:
    """``forecaster.json`` without its checksum; :class:`InputError` if it is damaged or of another format."""
    path = folder / ABOUT
    with reading(path, TRAIN_AGAIN):
        about = dict(read_json(path, TRAIN_AGAIN))
    if about.get("format") not in FORMATS:
        read = " and ".join(map(str, FORMATS))
        raise InputError(f"{path} has format {about.get('format')}, this version reads {read}: train again (dvc repro)")
    if about.pop("sha256", None) != checksum(about):
        raise InputError(f"{path} is damaged, its checksum does not agree: {TRAIN_AGAIN}")
    return about


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` as ``torch.save`` does, with a checksum behind it, which ``torch.load`` passes over."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_sealed(path, buffer.getvalue())


def load_state(path: Path) -> dict[str, Any]:
    """What :func:`save_state` wrote, tensors and plain values alone; :class:`InputError` if it is damaged."""
    with reading(path, TRAIN_AGAIN):
        return dict(torch.load(io.BytesIO(read_sealed(path)), map_location="cpu", weights_only=True))


@dataclass(frozen=True)
class Bundle:
    """What :func:`load_bundle` read from ``folder``: the forecast is the mean of its network and its baselines."""

    folder: Path
    name: str  # the method of a fit, or what is published
    settings: Settings | None  # of the network; None where there is none
    ingest: Ingest  # of the columns that the forecaster reads
    meta: Meta  # of the windows it was trained on
    weights: dict[str, torch.Tensor]  # of the network
    baselines: dict[str, bytes]  # file -> its content, as isotrain.baselines restores it
    candidates: dict[str, float]  # what it was chosen from -> validation MAE, kW; empty: it was not chosen
    residuals: NDArray[np.float32] | None  # (m, K), truth - forecast on the validation part, kW
    working: NDArray[np.bool_] | None  # (m, K)
    of: NDArray[np.int64] | None  # (m,), which series each row of both belongs to
    load_ranges: list[list[float]]  # kW, of each series quantiles RANGE of the load that it was trained on
    adapted: dict[str, Any] | None = None  # where it comes from, if it was adapted: parent, data, what was thawed

    @property
    def series(self) -> OfSeries:
        """What is known of its one series; :class:`InputError` if it was trained on several and none was chosen."""
        if len(self.meta["series"]) > 1:
            raise InputError(f"{self.folder} was trained on {_listed(self.meta)}: name one of them")
        return self.meta["series"][0]

    @property
    def names(self) -> list[str]:
        """The series that it was trained on."""
        return [one["name"] for one in self.meta["series"]]

    def for_another(self, name: str) -> "Bundle":
        """The same forecaster for a series called ``name``, which need not be one that it was trained on.

        Of many series it then has the bias of this one, or the mean of all.
        """
        index = self.names.index(name) if name in self.names else None
        return replace(self, weights=for_one_series(self.weights, index))

    def only(self, name: str) -> "Bundle":
        """The same forecaster for the series ``name`` alone; :class:`InputError` if it was not trained on it."""
        if name not in self.names:
            raise InputError(f"{self.folder} was not trained on {name} but on {_listed(self.meta)}: name one of these")
        index = self.names.index(name)
        one = self.meta["series"][index]
        alone = replace(
            self,
            meta=of_one(self.meta, index),
            ingest=_what_is_read(Ingest.model_validate(one["ingest"])),
            load_ranges=[self.load_ranges[index]],
            weights=for_one_series(self.weights, index),
        )
        if self.residuals is None or self.working is None or self.of is None:
            return alone
        own = np.flatnonzero(self.of == index)
        return replace(alone, residuals=self.residuals[own], working=self.working[own], of=np.zeros_like(own))

    def of_file(self, path: Path) -> "Bundle":
        """The same forecaster for the series that the file ``path`` is called after, or for its one series, whatever
        the file is called; else :class:`InputError`."""
        return self if len(self.names) == 1 else self.only(path.stem)

    @property
    def reads(self) -> dict[str, Any]:
        """Which features it reads: those of the network; with a baseline any."""
        if self.baselines or self.settings is None:
            return {"inputs": "rich", "leave_out": []}
        return {"inputs": self.settings.model.inputs, "leave_out": self.settings.model.leave_out}

    @property
    def needed_hours(self) -> int:
        """Hours of history that a forecast needs."""
        return needed_hours(self.meta, **self.reads)

    @property
    def ahead(self) -> list[str]:
        """The columns whose values at the hours forecast it reads: a file must hold them."""
        return known_ahead(self.meta, self.reads["leave_out"])

    @property
    def description(self) -> str:
        """What it is and, if it was chosen, from what, in a sentence; and what it takes for known ahead, in another."""
        ahead = f" Learnt with {ahead_words(self.meta)}." if self.ahead else ""
        if self.adapted:
            ahead = f" Adapted to {self.adapted['source']}; thawed: {self.adapted['thawed']}.{ahead}"
        if not self.candidates:
            return f"The forecaster {self.name}.{ahead}"
        ranked = ", ".join(f"{name} {error:.3f}" for name, error in sorted(self.candidates.items(), key=lambda c: c[1]))
        return f"{self.name}: the least validation MAE of all that could be published (kW: {ranked}).{ahead}"

    def network(self, windows: Windows) -> Forecaster:
        """The trained network over ``windows``, on the CPU and with torch's kernels: nothing to compile."""
        assert self.settings is not None, "there is no network"
        model = self.settings.model
        shape = model.model_dump(exclude={"inputs", "leave_out"})
        series = Series(windows, model.inputs, model.leave_out)
        net = Forecaster(series, **shape, backend="torch", remember=None)
        with reading(self.folder / WEIGHTS, f"it is of another network than {ABOUT} beside it, {TRAIN_AGAIN}"):
            net.load_state_dict(self.weights)
        return net.eval()

    def with_errors_of(self, other: "Bundle") -> "Bundle":
        """The same forecaster with the validation errors of ``other``.

        For a refit, which was trained on the validation part and so has no errors there: ``other`` is the forecaster
        of the same method that was trained on the training part alone. Raises :class:`InputError` if ``other`` has no
        errors either, or forecasts another target or horizon.
        """
        if other.residuals is None:
            raise InputError(
                f"{other.folder} was trained on the validation part too, so it has no validation errors: name the "
                "result folder of the same method trained on the training part alone"
            )
        mine, theirs = (f"{b.meta['target']} {b.meta['horizon']} h ahead" for b in (self, other))
        if mine != theirs:
            raise InputError(f"{other.folder} forecasts {theirs}, {self.folder} {mine}: name one that forecasts {mine}")
        if self.names != other.names:
            raise InputError(
                f"{other.folder} was trained on {_listed(other.meta)}, {self.folder} on {_listed(self.meta)}"
            )
        return replace(self, residuals=other.residuals, working=other.working, of=other.of)

    def intervals(self, coverage: float) -> Intervals | None:
        """Intervals calibrated on the validation part; None for a refit, which was trained on that part too."""
        if self.residuals is None or self.working is None:
            return None
        return calibrate(self.residuals, self.working, coverage)


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle; :class:`InputError` if it is not one, or of another format."""
    about = read_about(folder) if (folder / ABOUT).is_file() else {}
    for name in (ABOUT, WEIGHTS) if about.get("settings", True) else (ABOUT,):
        if not (folder / name).is_file():
            raise InputError(
                f"{folder} holds no forecaster ({name} is missing): give the result folder of a fit, such as "
                "results/runs/rich-0 after `make reproduce`"
            )
    residuals, working, of = None, None, None
    if digest := about["residuals_sha256"]:
        with np.load(io.BytesIO(_unchanged(folder, RESIDUALS, digest))) as arrays:
            residuals, working, of = arrays["residuals"], arrays["working"], arrays["of"]
    baselines = {name: _unchanged(folder, name, digest) for name, digest in about.get("baselines", {}).items()}
    weights: dict[str, Any] = {}
    if about["settings"]:
        if about.get("weights_sha256") not in (None, sha256(folder / WEIGHTS)):  # None: written before it was kept
            raise InputError(f"{folder / WEIGHTS} is not the file that {ABOUT} was written for: {TRAIN_AGAIN}")
        weights = load_state(folder / WEIGHTS)["state_dict"]
    with reading(folder / ABOUT, TRAIN_AGAIN):
        meta = complete(about["windows"], folder / ABOUT)
        settings = Settings.model_validate(about["settings"]) if about["settings"] else None
        return Bundle(
            folder,
            about.get("name") or (settings.method if settings else ""),
            settings,
            _what_is_read(Ingest.model_validate(meta["series"][0]["ingest"])),
            meta,
            {name.removeprefix("net."): tensor for name, tensor in weights.items()},
            baselines,
            about.get("candidates", {}),
            residuals,
            working,
            of,
            about["load_range"],
            about.get("adapted"),
        )


def _listed(meta: Meta) -> str:
    """The series of ``meta``, a few of them by name."""
    names = [one["name"] for one in meta["series"]]
    return ", ".join(names) if len(names) <= LISTED else f"{len(names)} series ({', '.join(names[:LISTED])}, ...)"


def _unchanged(folder: Path, name: str, digest: str) -> bytes:
    """The content of a file of the bundle; :class:`InputError` if it is missing or another."""
    with reading(folder / name, TRAIN_AGAIN):
        if Path(name).name != name:
            raise ValueError("it lies elsewhere")
        if not (folder / name).is_file():
            raise ValueError("it is missing")
        if sha256(folder / name) != digest:
            raise ValueError("its checksum does not agree")
        return (folder / name).read_bytes()


def best_bundle(runs: Path) -> Path:
    """The folder in ``runs`` whose forecaster has the least error on validation; :class:`InputError` without any."""
    errors: dict[Path, float] = {}
    for path in runs.glob(f"*/{ABOUT}"):
        result = path.with_name("result.json")
        with reading(result, TRAIN_AGAIN):
            error = read_json(result, TRAIN_AGAIN)["val_mae"] if result.exists() else math.inf
            if error is not None:  # a refit has none
                errors[path.parent] = float(error)
    if not errors:
        raise InputError(f"{runs} holds no trained forecaster: run `dvc repro train` first, or name one with --model")
    return min(errors, key=lambda folder: (errors[folder], folder.name))


def _what_is_read(ingest: Ingest) -> Ingest:
    """Without the zones behind the meter, the target excepted: no forecaster reads them, so a file may lack them."""
    used = {key: c for key, c in ingest.columns.items() if c.kind != "sub_load" or key == ingest.target}
    return ingest.model_copy(update={"columns": used})
