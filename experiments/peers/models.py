"""What a user of each peer writes, and one run of it. Read by the peers' own Python: nothing of isotrain is imported.

    PYTHON -m experiments.peers.models JOB.json

:mod:`experiments.peers.run` writes JOB.json and calls this; the answer is written where the job says.
"""

import inspect
import json
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

HORIZON = 24
SPARSE = 25  # hours from one origin to the next where every origin takes too long: all hours of a day come up
TRIALS = 10
SHORTER = 3  # a trial trains for a third of the steps, and the settings chosen for all of them


@dataclass(frozen=True)
class Task:
    """Hours to learn from and to forecast."""

    table: pd.DataFrame  # unique_id, ds, y and the covariates, every hour of every series up to the same last hour
    known: list[str]  # covariates known at the target hour
    past: list[str]  # covariates known up to the origin
    hours: int  # the last so many are forecast, and not learnt from
    step: int  # hours from one origin to the next

    @property
    def origins(self) -> int:
        return (self.hours - HORIZON) // self.step + 1


Peer = Callable[..., pd.DataFrame]  # of a task and settings: unique_id, ds, cutoff and the forecast in the last column


# What a user writes: the lines of each body are counted. Switches that keep a run silent and on one core are given as
# settings and are not.


def nixtla_network(task: Task, network: str, **settings: Any) -> pd.DataFrame:
    from neuralforecast import NeuralForecast, models

    covariates: dict[str, Any] = {"futr_exog_list": task.known, "hist_exog_list": task.past}
    model = getattr(models, network)(h=HORIZON, **covariates, **settings)
    forecaster = NeuralForecast([model], freq="h")
    return forecaster.cross_validation(task.table, n_windows=None, test_size=task.hours, step_size=task.step)


def mlforecast(task: Task, lags: list[int], windows: list[int], **settings: Any) -> pd.DataFrame:
    from lightgbm import LGBMRegressor
    from mlforecast import MLForecast
    from mlforecast.lag_transforms import ExpandingMean, RollingMean
    from mlforecast.target_transforms import Differences

    forecaster = MLForecast(
        LGBMRegressor(**settings),
        freq="h",
        lags=lags,
        lag_transforms={1: [ExpandingMean()], 24: [RollingMean(window) for window in windows]},
        target_transforms=[Differences([24])],
    )
    table = task.table.drop(columns=task.past)  # it takes only what is known at the target hour
    times = {"h": HORIZON, "n_windows": task.origins, "step_size": task.step}
    return forecaster.cross_validation(table, **times, refit=False, static_features=[])


def deepar(task: Task, **settings: Any) -> pd.DataFrame:
    from gluonts.dataset.pandas import PandasDataset
    from gluonts.dataset.split import split
    from gluonts.torch import DeepAREstimator

    columns = {"item_id": "unique_id", "timestamp": "ds", "target": "y", "feat_dynamic_real": task.known}
    past, to_come = split(PandasDataset.from_long_dataframe(task.table, freq="h", **columns), offset=-task.hours)
    estimator = DeepAREstimator(freq="h", prediction_length=HORIZON, num_feat_dynamic_real=len(task.known), **settings)
    predictor = estimator.train(past)
    times = to_come.generate_instances(HORIZON, windows=task.origins, distance=task.step)
    answers = list(predictor.predict(times.input))
    return pd.concat(
        pd.DataFrame(
            {
                "unique_id": answer.item_id,
                "ds": answer.index.to_timestamp(),
                "cutoff": answer.start_date.to_timestamp() - pd.Timedelta(hours=1),
                "forecast": answer.quantile(0.5),
            }
        )
        for answer in answers
    )


def mstl(task: Task, seasons: list[int], weeks: int) -> pd.DataFrame:
    from statsforecast import StatsForecast
    from statsforecast.models import MSTL

    forecaster = StatsForecast([MSTL(season_length=seasons)], freq="h")
    table = task.table[["unique_id", "ds", "y"]]  # it takes no covariates
    times = {"h": HORIZON, "test_size": task.hours, "step_size": task.step, "n_windows": None}
    return forecaster.cross_validation(df=table, input_size=168 * weeks, **times)


def lines(peer: Peer) -> int:
    """Of the body of ``peer`` that are not blank."""
    return sum(bool(line.strip()) for line in inspect.getsource(peer).splitlines()) - 1


@dataclass(frozen=True)
class Model:
    """A peer, its defaults, and what its search turns."""

    peer: Peer
    defaults: dict[str, Any]
    space: dict[str, list[Any]]
    fit: str = ""  # module:class.method whose seconds are those of the fit; nothing: fit and forecast are one
    given: dict[str, Any] = field(default_factory=dict)  # switches that are no choice
    lasts: str = ""  # the setting that a trial has a third of
    packages: tuple[str, ...] = ("neuralforecast",)
    step: dict[str, int] = field(default_factory=dict)  # of a data set, hours between origins; 1 unless said
    trial_step: dict[str, int] = field(default_factory=dict)  # the same for the trials; SPARSE unless said
    weather: bool = True  # whether it takes covariates known at the target hour


# 256 windows a step (BiTCN 128, TiDE 64) instead of 1,024, and 20 epochs of DeepAR instead of 100: one core has no
# hours for it
CPU: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_checkpointing": False,
}
QUIET: dict[str, Any] = {**CPU, "enable_model_summary": False, "inference_windows_batch_size": 1024, "random_seed": 0}
RATES = [3e-4, 1e-3, 3e-3, 1e-2]
COMMON: dict[str, Any] = {"input_size": 168, "scaler_type": "standard", "max_steps": 1000, "learning_rate": 1e-3}
COMMON_SPACE: dict[str, list[Any]] = {
    "input_size": [72, 168, 336],
    "max_steps": [500, 1000, 2000],
    "learning_rate": RATES,
}


MULTIVARIATE = ("TSMixerx",)  # one network of all series at once, which takes their number instead


def network(name: str, batch: int, **widths: list[Any]) -> Model:
    """One of neuralforecast's, with ``batch`` windows a step; the first of each of ``widths`` is its default."""
    defaults: dict[str, Any] = {**COMMON, **{width: values[0] for width, values in widths.items()}}
    fit = f"neuralforecast.models:{name}.fit"
    # a step copies every window of its series: their 32 series a step would take 18 GB on Drammen
    given = {
        "network": name,
        "windows_batch_size": batch,
        **({} if name in MULTIVARIATE else {"batch_size": 1}),
        **QUIET,
    }
    step = {} if name in MULTIVARIATE else {"drammen": SPARSE}
    return Model(nixtla_network, defaults, {**COMMON_SPACE, **widths}, fit, given, "max_steps", step=step)


def both(step: int) -> dict[str, int]:
    return {"drahix": step, "drammen": step}


MODELS: dict[str, Model] = {
    "tsmixerx": network("TSMixerx", 32, ff_dim=[64, 32, 128]),
    "nhits": network("NHITS", 256, mlp_units=[3 * [[512, 512]], 3 * [[128, 128]], 3 * [[256, 256]]]),
    "mlforecast": Model(
        mlforecast,
        {"lags": [1, 24], "windows": [48], "n_estimators": 100, "num_leaves": 31, "learning_rate": 0.1},
        {
            "lags": [[1, 24], [1, 2, 3, 24, 25, 168], [*range(1, 25), 48, 72, 96, 120, 144, 168]],
            "windows": [[48], [24, 168]],
            "n_estimators": [100, 300, 600],
            "num_leaves": [15, 31, 63],
            "learning_rate": [0.03, 0.05, 0.1],
        },
        "mlforecast:MLForecast.fit",
        {"n_jobs": 1, "random_state": 0, "verbosity": -1},
        packages=("mlforecast", "lightgbm"),
        step=both(SPARSE),
    ),
    "mstl": Model(
        mstl,
        {"seasons": [24, 168], "weeks": 13},
        {"seasons": [[24, 168], [24], [168]], "weeks": [4, 8, 13, 26, 52]},
        packages=("statsforecast",),
        step={"drahix": SPARSE, "drammen": 7 * SPARSE},
        trial_step={"drahix": 7 * SPARSE, "drammen": 21 * SPARSE},
        weather=False,
    ),
    "bitcn": network("BiTCN", 128, hidden_size=[16, 32, 64]),
    "deepar": Model(
        deepar,
        {"context_length": 24, "hidden_size": 40, "num_layers": 2, "lr": 1e-3, "epochs": 20},
        {
            "context_length": [24, 72, 168],
            "hidden_size": [20, 40, 80],
            "num_layers": [1, 2],
            "lr": RATES,
            "epochs": [10, 20, 40],
        },
        "gluonts.torch:DeepAREstimator.train",
        lasts="epochs",
        packages=("gluonts",),
        step=both(SPARSE),
    ),
    "tide": network("TiDE", 64, hidden_size=[512, 128, 256]),
}


def task_of(data: dict[str, Any], table: pd.DataFrame, first: str, last: str, step: int, *, known: bool) -> Task:
    """Forecasts at the origins from ``first`` on, every ``step`` hours, whose targets end at ``last`` or before."""
    start, end = pd.Timestamp(first), pd.Timestamp(last)
    origins = int((end - start) / pd.Timedelta(hours=1) + 1 - HORIZON) // step
    hours = origins * step + HORIZON
    table = table[table.ds < start + pd.Timedelta(hours=hours)]
    weather = data["past"]
    return Task(table, data["known"] + (weather if known else []), [] if known else weather, hours, step)


@contextmanager
def timed(place: str) -> Iterator[list[float]]:
    """Processor seconds of each call of the method at ``place``, ``module:class.method``."""
    seconds: list[float] = []
    if not place:
        yield seconds
        return
    module, path = place.split(":")
    kind, method = path.split(".")
    owner = getattr(__import__(module, fromlist=[kind]), kind)
    untimed = getattr(owner, method)

    def measured(*words: Any, **named: Any) -> Any:
        since = time.process_time()
        answer = untimed(*words, **named)
        seconds.append(time.process_time() - since)
        return answer

    setattr(owner, method, measured)
    try:
        yield seconds
    finally:
        setattr(owner, method, untimed)


def run(model: Model, task: Task, settings: dict[str, Any]) -> tuple[pd.DataFrame, dict[str, float]]:
    """Forecasts of ``task``: unique_id, origin, lead, forecast; and the processor seconds of fit and forecast."""
    given = {**model.given, **settings}
    if "epochs" in given:  # gluonts hands them to Lightning
        given["trainer_kwargs"] = {**CPU, "enable_checkpointing": True, "max_epochs": given.pop("epochs")}
        given["trainer_kwargs"] |= {"enable_model_summary": False, "default_root_dir": "."}
    if given.get("network") in MULTIVARIATE:
        given["n_series"] = task.table.unique_id.nunique()
    if model.lasts:
        from pytorch_lightning import seed_everything

        seed_everything(0, verbose=False)  # gluonts has no argument for it
    since = time.process_time()
    with timed(model.fit) as fits:
        answer = model.peer(task, **given)
    whole = time.process_time() - since
    fit = sum(fits) if model.fit else whole
    answer = answer.reset_index()
    forecast = answer.columns[-1] if model.peer is not nixtla_network else model.given["network"]
    if forecast == "y":
        forecast = next(name for name in answer if name not in ("index", "unique_id", "ds", "cutoff", "y"))
    origin = answer.cutoff + pd.Timedelta(hours=1)
    lead = ((answer.ds - answer.cutoff) / pd.Timedelta(hours=1)).astype(int)
    found = {"unique_id": answer.unique_id.astype(str), "origin": origin, "lead": lead, "ds": answer.ds}
    return pd.DataFrame({**found, "forecast": answer[forecast]}), {"fit": fit, "forecast": whole - fit}


def errors(forecasts: pd.DataFrame, truth: pd.DataFrame, first_target: str) -> dict[str, float]:
    """MAE over all leads and at the last one, kW, of every measured target hour from ``first_target`` on."""
    both = forecasts.merge(truth[["unique_id", "ds", "truth"]], on=["unique_id", "ds"]).dropna(subset="truth")
    both = both[both.ds >= pd.Timestamp(first_target)]
    if both.forecast.isna().any():
        raise ValueError(f"{int(both.forecast.isna().sum())} forecasts are no number")
    wrong = (both.forecast - both.truth).abs()
    return {
        "mae": float(wrong.mean()),
        "mae_last_lead": float(wrong[both.lead == HORIZON].mean()),
        "origins": int(both.origin.nunique()),
    }


def at(forecasts: pd.DataFrame, first: str, step: int) -> pd.DataFrame:
    """Those of every ``step``-th origin from ``first`` on."""
    hours = (forecasts.origin - pd.Timestamp(first)) // pd.Timedelta(hours=1)
    return forecasts[hours % step == 0]


def trials(model: Model) -> list[dict[str, Any]]:
    """The settings to try: the defaults, and nine drawn from the space, the same in every run."""
    draw = random.Random(0)
    drawn: list[dict[str, Any]] = [model.defaults]
    while len(drawn) < TRIALS:
        one = {**model.defaults, **{name: draw.choice(values) for name, values in model.space.items()}}
        if one not in drawn:
            drawn.append(one)
    return drawn


def chosen(model: Model, data: dict[str, Any], table: pd.DataFrame, job: dict[str, Any]) -> dict[str, Any]:
    """The trials with their validation errors and seconds, and the settings of the least error."""
    truth, known = table[["unique_id", "ds", "truth"]], job["mode"] == "weather"
    last = str(pd.Timestamp(data["test"]) - pd.Timedelta(hours=1))
    step = model.trial_step.get(job["dataset"], SPARSE)
    task = task_of(data, table.drop(columns="truth"), data["validation"], last, step, known=known)
    log = Path(job["out"]).with_suffix(".trials")
    done = json.loads(log.read_text()) if log.exists() else []
    for settings in trials(model)[len(done) :]:
        shorter = {model.lasts: max(settings[model.lasts] // SHORTER, 1)} if model.lasts else {}
        forecasts, seconds = run(model, task, {**settings, **shorter})
        error = errors(forecasts, truth, data["validation"])["mae"]
        done.append({"settings": settings, "validation_mae": error, "seconds": sum(seconds.values())})
        log.write_text(json.dumps(done))
        print(f"  trial {len(done)}: {error:.3f} kW, {done[-1]['seconds']:.0f} s, {settings}", flush=True)
    best = min(done, key=lambda one: one["validation_mae"])
    return {"trials": done, "settings": best["settings"], "search": sum(one["seconds"] for one in done)}


def main(path: str) -> None:
    import logging

    import torch

    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    job = json.loads(Path(path).read_text())
    data, model, since = job["data"], MODELS[job["model"]], time.perf_counter()
    table = pd.read_parquet(job["table"])
    step = model.step.get(job["dataset"], 1)
    found: dict[str, Any] = {"settings": model.defaults}
    if job["mode"] == "search":
        found = chosen(model, data, table, job)
    task = task_of(data, table.drop(columns="truth"), data["test"], data["end"], step, known=job["mode"] == "weather")
    forecasts, seconds = run(model, task, found["settings"])
    measured = {
        str(each): errors(at(forecasts, data["test"], each), table, data["scored"])
        for each in (1, SPARSE, 7 * SPARSE)
        if each % step == 0
    }
    answer = {
        **{key: job[key] for key in ("dataset", "model", "mode", "date", "commit")},
        "errors": measured,  # by the hours from one origin to the next
        "seconds": {**seconds, "search": found.pop("search", 0.0)},
        "lines": lines(model.peer),
        "versions": {name: version(name) for name in (*model.packages, "torch")},
        "wall_seconds": time.perf_counter() - since,
        **found,
    }
    Path(job["out"]).write_text(json.dumps(answer, indent=1) + "\n")
    Path(job["out"]).with_suffix(".trials").unlink(missing_ok=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
