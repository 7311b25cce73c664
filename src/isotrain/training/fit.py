"""The one way to train: a method, a seed and windows in; a result, a checkpoint and an MLflow run out."""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import cast

import pytorch_lightning as pl
import torch

from isotrain.config import Settings, check_device, check_isolation, decisive
from isotrain.data.windows import Windows, data_key
from isotrain.errors import InputError
from isotrain.files import read_json, write_json
from isotrain.forecast.bundle import write_bundle
from isotrain.forecast.encoders import LSTMEncoder
from isotrain.forecast.module import ForecastModule
from isotrain.forecast.network import Forecaster
from isotrain.forecast.series import Series
from isotrain.forecast.stretches import Sampler
from isotrain.isolation import AdaptiveCredit, AdaptiveHorizon, Chooser, Isolation, Policy, callback_of
from isotrain.lstm import runtime
from isotrain.training.checkpoints import Resume, SealedCheckpoints
from isotrain.training.clock import Clock, RandomState, Row, StopWhenDiverged
from isotrain.training.fits import Allowed, fit_key
from isotrain.training.graphed import GraphedModule
from isotrain.training.machine import alone, commit, hardware, machine_seconds
from isotrain.training.processes import Place, SameFit, place
from isotrain.training.result import Result, log_result, scored, timed
from isotrain.training.tracking import ABOUT, CURVE, FIT, Run, learnt, log_series, noted, series_tags, tracked

logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # its tips are not ours to pass on
warnings.filterwarnings("ignore", message=".*LeafSpec", module="pytorch_lightning")  # Lightning's own to mend
warnings.filterwarnings("ignore", message="The `srun` command")  # srun starts a fit of several processes only
warnings.filterwarnings("ignore", message="It is recommended to use `self.log")  # the sums are of all processes
warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")  # its heir sends the series about
warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")  # it depends on the step
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fit:
    """What to train, and where the results go."""

    settings: Settings
    seed: int
    windows: Windows
    out: Path
    budget: Allowed | None = None  # what a control may spend, as it was measured

    @property
    def name(self) -> str:
        """The method and the seed."""
        return f"{self.settings.method}-{self.seed}"

    @property
    def trained_part(self) -> str:
        """The part whose last origin is the last to train on: a refit goes on to the end of the validation part."""
        return "validation" if self.settings.training.refit else "train"

    @property
    def key(self) -> str:
        """What its result is known by."""
        return fit_key(self.settings, self.seed, data_key(self.windows.meta))

    @cached_property
    def place(self) -> Place:
        """Which of ``runtime.processes`` this process is."""
        return place(self.settings)


def fit(settings: Settings, seed: int, windows: Windows, out: str | Path, budget: Allowed | None = None) -> Result:
    """Train once and write ``result.json``, ``forecasts.npz`` and ``model.ckpt`` into ``out``; returns the result.

    Raises :class:`InputError` for settings that the series cannot serve, before anything is trained. An
    interrupted fit leaves a checkpoint in ``out``; the same call resumes it. Where ``runtime.processes`` share it all
    make the same call and return the result that the first one wrote; ConnectionError when one of them is gone.
    """
    job = Fit(settings, seed, windows, Path(out), budget)
    effect = prepare_process(settings)
    loop = Loop(job)
    if job.place.rank:
        with job.place.together():
            return _follow(job, loop)
    tracking = settings.tracking
    with tracked(tracking.experiment, tracking.uri, job.name, _tags(job)) as run:
        run.params({**decisive(settings), "seed": seed, **{f"runtime.effect.{k}": v for k, v in effect.items()}})
        run.dataset(windows.meta)
        with alone(), job.place.together():
            result = _train(job, loop, run)
        log_result(run, result)
        log_series(run, noted(settings.about, windows.meta), result["by_series"])
        run.artifacts(job.out)
    return result


def prepare(job: Fit) -> tuple[ForecastModule, list[pl.Callback]]:
    """The module and its callbacks, everything seeded."""
    s = job.settings
    pl.seed_everything(job.seed, verbose=False)
    isolated = s.isolation
    remember = isolated is not None and (isolated.remember or isolated.renewed > 0)
    _check_states(job)
    shape = s.model.model_dump(exclude={"inputs", "leave_out"})
    net = Forecaster(
        Series(job.windows, s.model.inputs, s.model.leave_out),
        **shape,
        backend=s.runtime.backend,
        remember=job.trained_part if remember else None,
        renew=isolated.renewed if isolated else 0,
    )
    on_gpu = device(s) == "cuda"
    if on_gpu and s.runtime.fp16 and isinstance(net.encoder, LSTMEncoder):
        net.encoder.lstm.compute = "fp16"
    graphed = on_gpu and s.runtime.graphs
    if graphed and s.runtime.processes > 1:
        log.info("no CUDA graphs: runtime.processes = %d meet within each step", s.runtime.processes)
        graphed = False
    module = (GraphedModule if graphed else ForecastModule)(
        net,
        sampler(job),
        torch.from_numpy(job.windows.origins("validation")),
        learning_rate=s.training.learning_rate,
        rise=s.training.rise,
        weight_decay=s.training.weight_decay,
        fused=s.runtime.fused_adam,
        masked=isolated.adam if isolated else None,
        share=(job.place.rank, job.place.count),
    )
    return module, [
        *([SameFit(job.key)] if job.place.count > 1 else []),
        RandomState(),
        StopWhenDiverged(),
        *([isolation(job, isolated)] if isolated else []),
    ]


def _check_states(job: Fit) -> None:
    """:class:`InputError` if the states over all series that isolation keeps exceed this machine's memory."""
    isolated, model = job.settings.isolation, job.settings.model
    if isolated is None or model.encoder != "lstm":
        return
    units = model.hidden * model.layers
    if isolated.renewed:
        name, off, kept = "renew", "0", 2.0 * units  # h and c
    elif isolated.remember and (isolated.autonomous or (isolated.zone, isolated.mode) == ("layer", "exact")):
        name, off, kept = "remember", "false", units * max(isolated.schedule(step / 100) for step in range(101))
    else:
        return
    ranges = job.windows.ranges("train", job.trained_part)
    copies = min(len(ranges), 2)  # those of each series, and then all of them one after the other
    needed, there = 4 * copies * ranges[-1][1] * kept / 2**30, hardware()["memory_gb"]
    if needed > there:
        raise InputError(
            f"isolation.{name} keeps the states of {model.layers} x {model.hidden} units over {ranges[-1][1]:,} hours, "
            f"which takes {needed:.0f} GiB, and this machine has {there:.0f}: set isolation.{name} to {off}, so that "
            "they are run in each stretch"
        )


def sampler(job: Fit) -> Sampler:
    """Which stretches each step draws; :class:`InputError` if what there is to train on is shorter than one."""
    t, meta = job.settings.training, job.windows.meta
    ranges = job.windows.ranges("train", job.trained_part)
    longest = max(last - first for first, last in ranges)
    if t.regime == "streamed" and not meta["history"] < t.stretch < longest + meta["history"]:
        raise InputError(
            f"training.stretch of {t.stretch} h must exceed window.history of {meta['history']} h and fit into the "
            f"training part ({longest} origins)"
        )
    count = t.stretches if t.regime == "streamed" else t.windows
    if count < job.place.count:
        name = "stretches" if t.regime == "streamed" else "windows"
        raise InputError(
            f"training.{name} of {count} a step are too few for runtime.processes = {job.place.count}: "
            "each takes one at least"
        )
    return Sampler(t.regime, ranges, meta["history"], t.stretch, count, t.origins, job.seed)


def isolation(job: Fit, s: Policy) -> Chooser:
    """The callback of the section ``isolation``; :class:`InputError` for an encoder that cannot do what it asks."""
    check_isolation(job.settings)
    chosen = replace(s, modules=s.modules or (None if s.measured else ["net.encoder.*"]))
    return callback_of(chosen, window=job.windows.meta["history"], seed=job.seed)


class Loop:
    """One training, seeded and set up, to be run once: what a fit, a trial of the search and an experiment share.

    Attributes:
        module: what is trained.
        chosen: the callbacks that choose what to isolate.
        clock: times it; ``on_row`` gets each validation while it stands still.

    Raises :class:`InputError` for settings that the series cannot serve.

    Example:
        >>> from isotrain.config import CompareView, load
        >>> short = {"training.steps": 4, "training.validate_every": 2, "training.stretch": 100, "window.history": 48}
        >>> settings = load("params.yaml", view=CompareView, overrides=short).settings("native")
        >>> loop = Loop(Fit(settings, seed=0, windows=Windows.load("data/windows"), out=Path("run")))
        >>> trainer = loop.run()
        >>> [row["step"] for row in loop.clock.rows]
        [2, 4]
    """

    def __init__(self, job: Fit, on_row: Callable[[Row], None] = lambda row: None) -> None:
        self.settings, self._job = job.settings, job
        self.device = device(job.settings)
        if self.device == "cuda":  # the result says it of every fit
            log.info("training on %s", torch.cuda.get_device_name())
        self.module, self._callbacks = prepare(job)
        self.chosen = [c for c in self._callbacks if isinstance(c, Isolation | AdaptiveHorizon | AdaptiveCredit)]
        self.clock = Clock(
            on_row,
            selection=lambda: sum(c.seconds for c in self.chosen),
            share=lambda: sum(c.history[-1]["share"] for c in self.chosen if c.history),  # a look-up, not a count
        )

    def run(
        self, *before_clock: pl.Callback, resume: str | None = None, steps: int | None = None, validate: bool = True
    ) -> pl.Trainer:
        """Train, with ``before_clock`` called before the clock in each hook; returns Lightning's trainer.

        ``resume`` is a checkpoint to go on from, ``steps`` a length other than the settings' own.
        """
        s, steps = self.settings, steps or self.settings.training.steps
        together = self._job.place.arguments(
            self._job.key, unused=s.isolation is not None or s.model.encoder == "zeroed"
        )
        trainer = pl.Trainer(
            max_steps=steps,
            limit_val_batches=None if validate else 0,
            accelerator=self.device,
            precision="bf16-mixed" if s.runtime.bf16 else "32-true",
            gradient_clip_val=s.training.clip or None,
            val_check_interval=min(s.training.validate_every, steps),
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[*self._callbacks, *before_clock, self.clock],
            **{**together, "plugins": [SealedCheckpoints(), *together["plugins"]]},
        )
        trainer.fit(self.module, ckpt_path=resume, weights_only=True)
        return trainer


def prepare_process(s: Settings) -> dict[str, str]:
    """Set this process up as the section ``runtime`` asks; what took effect, in words.

    Raises :class:`InputError` for a device that this machine lacks.
    """
    check_device(s)
    of_process = s.runtime.model_dump(exclude={"backend", "bf16", "fp16", "fused_adam", "graphs", "processes"})
    if s.runtime.processes > 1:  # which would all take the first core: to give each its own is SLURM's part
        of_process["pin_threads"] = False
    return runtime.prepare(**of_process)


def device(s: Settings) -> str:
    """Where a fit trains: cuda or cpu."""
    asked = s.training.accelerator
    return asked if asked != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def time_steps(settings: Settings, windows: Windows, steps: int) -> list[float]:
    """Seconds of each of ``steps`` training steps, without validation and with nothing kept: what a step costs."""
    plain = settings.model_copy(update={"isolation": None})
    prepare_process(plain)
    loop = Loop(Fit(plain, 0, windows, Path()))
    with alone():
        loop.run(steps=steps, validate=False)
    return loop.clock.step_seconds


def _train(job: Fit, loop: Loop, run: Run) -> Result:
    s, module, clock = job.settings, loop.module, loop.clock
    saves = Resume(checkpoint_to_resume(job))

    def on_row(row: Row) -> None:
        hidden = {"val_mae"} if s.training.refit else set()  # an error of what was trained on says nothing
        shown = {CURVE[key]: float(value) for key, value in row.items() if key in CURVE and key not in hidden}  # type: ignore[arg-type]
        run.metrics(shown, row["step"])
        says = f"loss {row['train_loss']:.3f}" if s.training.refit else f"val MAE {row['val_mae']:.3f} kW"
        if module.trainer.strategy.broadcast(saves.is_due(row["train_seconds"])):
            saves.save(module.trainer, row["train_seconds"])
            log.info("step %d of %d: %s, %.1f s", row["step"], s.training.steps, says, row["train_seconds"])

    clock.on_row = on_row
    started = datetime.now(UTC)
    speed = machine_seconds()
    trainer = loop.run(resume=saves.newest())
    speed = (speed + machine_seconds()) / 2
    result: Result = {
        "method": s.method,
        "role": s.role,
        "budget": job.budget,
        "seed": job.seed,
        "regime": s.training.regime,
        "started_at": started.isoformat(timespec="seconds"),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "key": job.key,
        "data": learnt(job.windows.meta),
        "hardware": hardware(),
        "params": decisive(s),
        "parameters": sum(p.numel() for p in module.parameters()),
        "machine_seconds": speed,
        "backend": module.net.encoder.backend,
        "selections": [row for c in loop.chosen for row in c.history],
        **timed(clock),
        **scored(module, clock, job.windows, job.out, refit=s.training.refit),
    }
    if s.runtime.backend == "auto" and s.model.encoder == "lstm" and not result["backend"].startswith("native"):
        log.warning("%s was not computed by our kernels but by %s", job.name, result["backend"])
    for callback in loop.chosen:
        if callback.history:
            callback.record.save(job.out / "isolation.npz")
    trainer.save_checkpoint(job.out / "model.ckpt")
    if not result["diverged"]:
        write_bundle(job.out, s, job.windows)
    write_json(job.out / "result.json", result)
    saves.remove()
    trainer.strategy.barrier()  # the others read it
    return result


def _follow(job: Fit, loop: Loop) -> Result:
    """What a process does that is not the first of a fit: it trains along, and reads what the first one wrote."""
    saves = Resume(checkpoint_to_resume(job), writes=False)

    def on_row(row: Row) -> None:
        if loop.module.trainer.strategy.broadcast(False):  # the first one's answer
            saves.save(loop.module.trainer, row["train_seconds"])

    loop.clock.on_row = on_row
    trainer = loop.run(resume=saves.newest())
    trainer.save_checkpoint(job.out / "model.ckpt")  # which waits for the first one's
    trainer.strategy.barrier()
    return cast(Result, read_json(job.out / "result.json"))


def checkpoint_to_resume(job: Fit) -> Path:
    """Where an interrupted fit of exactly these settings, seed, data and code left its state."""
    return job.out / f"resume-{job.key}.ckpt"


def _tags(job: Fit) -> dict[str, str]:
    meta = job.windows.meta
    return {
        "kind": "fit",
        "study": job.settings.tracking.study,
        "method": job.settings.method,
        "seed": str(job.seed),
        ABOUT: noted(job.settings.about, meta),
        FIT: job.key,
        **series_tags(meta),
        "git.commit": commit() or "none",
        "regime": job.settings.training.regime,
        "role": job.settings.role,
    }
