"""The first half of the road to MLflow: every run is written to disk as a pending run, without importing MLflow.

``tracked(...)`` opens a run and yields a :class:`Run` that takes parameters, metrics, tags and artifacts. All of it
goes into the folder ``pending_runs/<name>-<key>/`` of the project: ``run.json`` and ``artifacts/``. Nothing here asks
a server, so no state of MLflow can cost a finished fit, and a fit spends milliseconds on being tracked.

:func:`isotrain.training.outbox.send` is the second half. It takes a second to import, because MLflow does, and sends
all that is pending. A process that waits for fits calls it when they have ended; called while a fit runs, it also shows
in MLflow what the fit has written so far (a run writes its file again every 30 s).
"""

import contextlib
import logging
import math
import os
import re
import shutil
import signal
import socket
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import psutil

from isotrain.errors import masked
from isotrain.files import read_json, sha256_text, write_json

if TYPE_CHECKING:
    from isotrain.data.windows import Meta
    from isotrain.forecast.forecasts import Errors

log = logging.getLogger(__name__)
SERIES = ("source", "simulated", "rows", "sha256", "target", "unit")  # what :meth:`Run.dataset` reads of a series
EXPERIMENTS = (".dvc", "tmp", "exps")  # where DVC runs queued experiments
EVERY_SECONDS = 30.0  # between two times that an open run is written
RUN, ARTIFACTS = "run.json", "artifacts"
FIT = "isotrain.fit"  # tag: the key of a fit or of a baseline, by which a report finds its run
ABOUT = "mlflow.note.content"  # tag: what MLflow shows as the description of a run, and as the note of an experiment
CURVE = {  # what is known at a validation -> metric; a name of its own, so that the final figure has its name alone
    "train_seconds": "curve/seconds",
    "val_mae": "curve/val_mae",
    "train_loss": "curve/train_loss",
    "isolated_fraction": "curve/isolated_fraction",
}

PICTURE = r"(!\[[^]]*\])\(([^):]+)\)"  # of Markdown: its caption, its path
READING = """**How to read the runs.** A row is one training of a method (a fit) with one seed, or a baseline.
`final/isolated_fraction` is the share that was isolated (frozen), as a mean over the steps. `final/seconds_to_target`
is how many training seconds it took to reach the validation error of the tuned reference: empty for a baseline, NaN if
the fit never reached it. `final/train_seconds` counts training alone. Errors (MAE) are in kW, and a smaller one is
better. The charts of a selection begin with the learning curves (`curve/`), then the final figures as bars (`final/`).

[The whole report](tradeoff.html)
"""


@dataclass
class PendingRun:
    """A run on its way to MLflow: what ``run.json`` holds. Moments are milliseconds since 1970.

    Attributes:
        name: shown in MLflow.
        experiment: the experiment of MLflow that it belongs to.
        uri: the store that it is sent to, a password in it masked: that stays in the environment.
        key: the tags that no other run has: by them a run that was sent half is found again, and never sent twice.
        began: when it began.
        ended: when it ended; None while it runs.
        status: RUNNING, FINISHED, FAILED (an exception) or KILLED (a signal, or the process is gone).
        tags: its other tags.
        params: dotted path -> value, as text.
        metrics: (name, value, step, moment); a value that is no number of JSON is text: nan, inf, -inf.
        series: what :data:`SERIES` names of the series behind it.
        process: the machine, the process and when it started, to tell whether it still runs.
        taken_up: the run of MLflow that ``mlflow run`` opened for it.
        note: the note of the experiment, Markdown; its pictures and pages are paths of this run's artifacts.
        reported: (key, metrics) of each run that this one reports on, to be written beside what that run has.

    Example:
        >>> run = PendingRun("rich-0", "isotrain", "sqlite:///mlflow.db", {"isotrain.run": "1"}, began=0)
        >>> run.metric("val_mae", 5.1, step=20, moment=1000)
        >>> PendingRun.read(run.write(Path("pending_runs"))).metrics
        [['val_mae', 5.1, 20, 1000]]
    """

    name: str
    experiment: str
    uri: str
    key: dict[str, str]
    began: int
    ended: int | None = None
    status: str = "RUNNING"
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    metrics: list[tuple[str, float | str, int, int]] = field(default_factory=list)
    series: dict[str, Any] | None = None
    process: dict[str, Any] | None = None
    taken_up: str | None = None
    note: str | None = None
    reported: list[tuple[str, dict[str, float | str]]] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> "PendingRun":
        """The run in ``folder``; ``FileNotFoundError`` if it was sent meanwhile, ``ValueError`` if it is damaged."""
        try:
            return cls(**read_json(folder / RUN))
        except TypeError as problem:
            raise ValueError(f"{folder / RUN} is no pending run: {problem}") from None

    @property
    def folder(self) -> str:
        """The name of its folder below ``pending_runs``."""
        return f"{self.name.replace('/', '-')}-{sha256_text(repr(sorted(self.key.items())))[:8]}"

    def metric(self, name: str, value: float, step: int, moment: int) -> None:
        """Add a metric."""
        self.metrics.append((name, _json_number(value), step, moment))

    def write(self, outbox: Path) -> Path:
        """Write it whole below ``outbox``, over what was written of it before; returns its folder."""
        write_json(outbox / self.folder / RUN, asdict(self))
        return outbox / self.folder

    @property
    def is_abandoned(self) -> bool:
        """Whether it is open and its process, one of this machine, is gone."""
        process = self.process or {}
        ours = self.status == "RUNNING" and process.get("host") == socket.gethostname()
        return ours and _born(int(process["pid"])) != process["born"]


class Run:
    """An open run, kept on disk until it is sent."""

    def __init__(self, pending: PendingRun, outbox: Path) -> None:
        self._pending, self._outbox = pending, outbox
        self._write()

    def params(self, values: Mapping[str, Any]) -> None:
        """Parameters under their dotted paths."""
        self._pending.params |= {key: str(value) for key, value in values.items()}
        self._write()

    def once(self, values: Mapping[str, float]) -> None:
        """Metrics that a run has once, to four digits: the table of MLflow shows every digit that it is given.

        All at step 0: what has later steps is drawn as a curve, what has none as bars.
        """
        now = now_ms()
        for name, value in values.items():
            self._pending.metric(name, four_digits(value), 0, now)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Metrics at ``step``, with the machine's and the process's load beside them."""
        now = now_ms()
        for name, value in {**values, **_system()}.items():
            self._pending.metric(name, value, step, now)
        if time.monotonic() - self._written > EVERY_SECONDS:
            self._write()

    def history(self, rows: Iterable[Mapping[str, Any]], prefix: str) -> None:
        """The numbers of rows that each have a ``step``, as metrics ``prefix/name``."""
        now = now_ms()
        for row in rows:
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float):
                    self._pending.metric(f"{prefix}/{name}", value, row["step"], now)

    def tags(self, values: Mapping[str, str]) -> None:
        """Tags besides those that the run was opened with."""
        self._pending.tags |= {key: str(value) for key, value in values.items()}

    def note(self, text: str) -> None:
        """The note of the experiment, in place of its old one: Markdown that names artifacts of this run by path."""
        self._pending.note = text

    def report_on(self, fit: str, metrics: Mapping[str, float]) -> None:
        """This run reports on the one whose tag :data:`FIT` is ``fit``, and gives it ``metrics``."""
        self._pending.reported.append((fit, {name: _json_number(four_digits(v)) for name, v in metrics.items()}))

    def dataset(self, meta: Mapping[str, Any]) -> None:
        """Name the series behind the run: source, digest (sha256), rows."""
        self._pending.series = {key: meta[key] for key in SERIES}

    def artifacts(self, path: Path, folder: str | None = None) -> None:
        """Keep a copy of a file, or of every file of a folder, below ``folder`` in the run's artifacts.

        A copy, because the folder of a fit may be written anew, or removed with a temporary copy of the project, before
        the run is sent.
        """
        goal = self._outbox / self._pending.folder / ARTIFACTS / (folder or "")
        if path.is_dir():
            shutil.copytree(path, goal, dirs_exist_ok=True)
        else:
            goal.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, goal)

    def end(self, status: str) -> None:
        """Close the run with ``status``."""
        self._pending.status, self._pending.ended = status, now_ms()
        self._write()

    def _write(self) -> None:
        self._pending.write(self._outbox)
        self._written = time.monotonic()


@contextmanager
def tracked(
    experiment: str, uri: str | None, name: str, tags: Mapping[str, str], *, whole_pipeline: bool = False
) -> Iterator[Run]:
    """Open a pending run called ``name``; it ends FINISHED, FAILED (an exception) or KILLED (a signal).

    Args:
        experiment: the experiment of MLflow that it belongs to.
        uri: of the store that it will be sent to, read by :func:`tracking_uri`.
        name: shown in MLflow.
        tags: of the run.
        whole_pipeline: the run that ``mlflow run`` opened is taken up by the fit that it was asked for, or, with True,
            by the report of the pipeline.
    """
    run = Run(
        PendingRun(
            name=name,
            experiment=experiment,
            uri=masked(tracking_uri(uri)),
            key={"isotrain.run": uuid.uuid4().hex},
            began=now_ms(),
            tags={key: str(value) for key, value in tags.items()} | dvc_tags(),
            process={"host": socket.gethostname(), "pid": os.getpid(), "born": _born(os.getpid())},
            taken_up=None if "DVC_STAGE" in os.environ and not whole_pipeline else os.environ.get("MLFLOW_RUN_ID"),
        ),
        outbox_folder(),
    )
    status = "FAILED"
    try:
        with _terminable():
            yield run
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        run.end(status)


def log_report(run: Run, page: Path, runs: Path, baselines: Path) -> None:
    """The report: ``page`` and what lies beside it as artifacts, its head as the note of the experiment.

    The answer comes first: folded, MLflow shows the first line of a note. Each fit in the report, of the folder
    ``runs``, gets the seconds to the target, which are known now; NaN if it missed.
    """
    report = read_json(page.with_suffix(".json"))
    _, *head = page.with_suffix(".md").read_text("utf-8").split("\n## ")[0].split("\n\n")
    kind = "**SIMULATED series.** " if report["data"]["simulated"] else ""
    ahead = f"**With {report['data']['ahead']}.** " if report["data"].get("ahead") else ""
    answer = f"{kind}{ahead}**The answer.** {report['answer']}"
    note = "\n\n".join([answer, *(block.strip() for block in head if report["answer"] not in block), READING])
    published = report.get("published")
    about = "the report of the study; the whole page is the artifact tradeoff.html"
    run.tags({ABOUT: about, "published": published["name"] if published else "none"})
    run.artifacts(page.parent)
    log_note(run, note, page.parent)
    for row in report["runs"]:
        fit = read_json(runs / f"{row['method']}-{row['seed']}" / "result.json")
        seconds = row["seconds_to_target"]
        run.report_on(fit["key"], {"final/seconds_to_target": math.nan if seconds is None else seconds})
    for row in read_json(baselines / "baselines.json")["baselines"]:
        run.report_on(row["key"], {})


def log_note(run: Run, note: str, folder: Path) -> None:
    """The note of the experiment, with the pictures of ``folder`` that it names, as wide as MLflow's page."""
    from PIL import Image

    run.note(re.sub(PICTURE, r"\1(note/\2)", note))
    with tempfile.TemporaryDirectory() as scratch:
        for _, picture in re.findall(PICTURE, note):
            small = Path(scratch) / picture
            small.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(folder / picture) as drawn:
                drawn.thumbnail((900, 900))  # MLflow cuts off what is wider than its page
                drawn.save(small)
        run.artifacts(Path(scratch), "note")


def log_series(run: Run, note: str, by_series: Mapping[str, "Errors"]) -> None:
    """The test errors of each of several series: a table, a small figure, and a sentence below the ``note`` of the run.

    Artifacts, not metrics: 36 series would be 144 of these. MLflow shows ``by_series.json`` as a table, since the tag
    says that it is one.
    """
    if not by_series:
        return
    ranked = sorted(by_series, key=lambda name: -by_series[name]["relative"])
    keys = ["relative", "mae", "rmse", "mase"]
    table = {"columns": ["series", *keys], "data": [[name, *_errors(by_series[name], keys)] for name in ranked]}
    with tempfile.TemporaryDirectory() as scratch:
        write_json(Path(scratch) / "by_series.json", table)
        _draw_series({name: by_series[name]["relative"] for name in ranked}, Path(scratch) / "by_series.png")
        run.artifacts(Path(scratch))
    middle, best, worst = ranked[len(ranked) // 2], ranked[-1], ranked[0]
    low, half, high = (f"{by_series[name]['relative']:.3f}" for name in (best, middle, worst))
    text = (
        f"Test MAE of a series, in its own standard deviation: {half} in the middle, {low} ({best}) to {high} "
        f"({worst}). Every series: *Artifacts*, by_series.json and by_series.png."
    )
    run.tags({ABOUT: f"{note}\n\n{text}", "mlflow.loggedArtifacts": '[{"path": "by_series.json", "type": "table"}]'})


def _errors(errors: "Errors", keys: Sequence[str]) -> list[float]:
    return [four_digits(errors[key]) for key in keys]  # type: ignore[literal-required]


def _draw_series(errors: Mapping[str, float], path: Path) -> None:
    """The errors as bars, in the order of ``errors`` from the top; names where there is room for them."""
    from matplotlib.figure import Figure  # half a second, which a fit of one series does not spend

    names, room = list(errors), 45
    figure = Figure(figsize=(6.4, 1.2 + 0.16 * min(len(names), room)), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(names)), list(errors.values()), color="#0072B2", height=0.8)
    axes.set_yticks(range(len(names)) if len(names) <= room else [], names if len(names) <= room else [], fontsize=7)
    axes.set(ylim=(len(names) - 0.4, -0.6), xlabel="Test MAE (standard deviations of the series)")
    axes.set_ylabel("" if len(names) <= room else f"{len(names)} series, the worst on top")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def noted(about: str, series: "Meta") -> str:
    """The note of a run on ``series``: ``about``, how many series if there are several, and what was known ahead."""
    from isotrain.data.windows import ahead_words  # numpy, which whoever has a series has imported; a sender need not

    ahead, count = ahead_words(series), len(series["series"])
    more = [f"Learnt and scored on {count} series"] * (count > 1) + [f"With {ahead}"] * bool(ahead)
    return ". ".join([about.rstrip("."), *more]) + "." if more else about


def series_tags(meta: "Meta") -> dict[str, str]:
    """Which series a run learnt, and what of it was known ahead, so that runs can be found by it."""
    from isotrain.data.windows import ahead_words

    ahead = ahead_words(meta)
    simulated = "yes" if meta["simulated"] else "no"
    found = {"data.source": str(meta["source"]), "data.simulated": simulated, "data.ahead": ahead or "nothing"}
    return {**found, "data.series": str(len(meta["series"]))}


def learnt(meta: "Meta") -> dict[str, Any]:
    """What a result says of the series that it learnt: ``data`` of its file."""
    from isotrain.data.windows import ahead_words

    return {**{key: meta[key] for key in SERIES}, "ahead": ahead_words(meta), "series": len(meta["series"])}  # type: ignore[literal-required]


def dvc_tags() -> dict[str, str]:
    """The stage of DVC that this process belongs to, and the experiment, where there is one."""
    known = {"dvc.stage": "DVC_STAGE", "dvc_exp": "DVC_EXP_NAME"}
    return {tag: os.environ[name] for tag, name in known.items() if os.environ.get(name)}


def tracking_uri(uri: str | None = None) -> str:
    """Where runs are kept: ``MLFLOW_TRACKING_URI``, else ``uri``, else ``mlflow.db`` in the project's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or uri or f"sqlite:///{project_root() / 'mlflow.db'}"


def with_password(uri: str) -> str:
    """``uri`` of a pending run with the password that the environment gives for it."""
    known = os.environ.get("MLFLOW_TRACKING_URI", "")
    return known if masked(known) == uri else uri


def outbox_folder() -> Path:
    """Where the project keeps its pending runs."""
    return project_root() / "pending_runs"


def project_root() -> Path:
    """The project's folder, also from inside a temporary copy in which DVC runs a queued experiment."""
    here = Path.cwd().resolve()
    inside = [n for n in range(len(here.parts)) if here.parts[n : n + 3] == EXPERIMENTS]
    return Path(*here.parts[: inside[0]]) if inside else here


def now_ms() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def four_digits(value: float) -> float:
    """``value`` to four digits if it has a fraction."""
    return value if isinstance(value, int) or not math.isfinite(value) else float(f"{value:.4g}")


def _json_number(value: float) -> float | str:
    return float(value) if math.isfinite(value) else str(float(value))


def _born(pid: int) -> str:
    """When the process started: a number that is used again is another process."""
    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.NoSuchProcess:
        return "never"


def _system() -> dict[str, float]:
    memory = psutil.virtual_memory()
    return {
        "system/cpu_percent": psutil.cpu_percent(),
        "system/memory_used_percent": memory.percent,
        "system/process_rss_mb": psutil.Process().memory_info().rss / 2**20,
    }


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM unwinds the stack like an exit, so that the run is closed on the way out."""

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.getsignal(signal.SIGTERM)
    with contextlib.suppress(ValueError):  # only the main thread may set handlers
        signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGTERM, before)
