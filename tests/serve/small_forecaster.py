"""A small forecaster with arbitrary weights, of the simulated building, in the folder of a finished fit."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from isotrain.config import MethodsView, Settings, Window, load
from isotrain.data.ingest import Tidy
from isotrain.data.windowing import make_windows
from isotrain.data.windows import Windows
from isotrain.forecast.bundle import save_state, write_bundle
from isotrain.forecast.network import Forecaster
from isotrain.forecast.series import Series

PARAMS = Path(__file__).parents[2] / "params.yaml"
TIME_COLUMN = "Date and time (UTC)"
READ = ["TGBT", "AirTemp", "Global_Solar_Flux", "Direct_Solar_Flux", "Diffuse_Solar_Flux"]  # the zones T1 to T7 are not


@dataclass(frozen=True)
class Fitted:
    """What a test compares with: the series, the windows and the network of the fit in ``folder``."""

    folder: Path
    tidy: Tidy
    windows: Windows
    net: Forecaster
    settings: Settings

    def csv(self, path: Path, rows: int | None = None) -> Path:
        """The first ``rows`` hours as the file of the series."""
        raw = self.tidy.raw[READ].iloc[:rows]
        raw.reset_index(names=TIME_COLUMN).to_csv(path, index=False)
        return path


def make(tidy: Tidy, folder: Path, inputs: str) -> Fitted:
    windows = make_windows(tidy.frame, tidy.facts, Window(history=48, horizon=24, train=0.6, validation=0.2, stride=1))
    small = {"model.inputs": inputs, "model.leave_out": [], "model.hidden": 6, "model.decoder": 8}
    settings = load(PARAMS, view=MethodsView, overrides=small).settings("tuned")
    torch.manual_seed(0)
    shape = settings.model.model_dump(exclude={"inputs", "leave_out"})
    net = Forecaster(Series(windows, inputs), **shape, backend="torch", remember=None).eval()
    torch.nn.init.normal_(net.decoder.out.weight)  # else the forecast would be the skip alone
    save_state(folder / "model.ckpt", {"state_dict": {f"net.{name}": p for name, p in net.state_dict().items()}})
    origins = windows.origins("validation")
    prediction, truth = net.forecast(torch.from_numpy(origins)).numpy(), windows.targets(origins)
    np.savez(folder / "forecasts.npz", val_origins=origins, val_prediction=prediction, val_truth=truth)
    write_bundle(folder, settings, windows)
    return Fitted(folder, tidy, windows, net, settings)


def numbers(table: pd.DataFrame) -> np.ndarray:
    """Forecast and interval, kW."""
    return table[["forecast_kw", "low_kw", "high_kw"]].to_numpy()
