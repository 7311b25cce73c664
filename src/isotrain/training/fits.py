"""All fits of a study: a process each, forked from one that has imported everything; what is finished is kept.

Importing what a fit needs takes longer than many a fit. The parent imports it once and computes nothing, so that each
child has an allocator, threads and a treatment of denormal numbers of its own, and one runs at a time.
"""

import ctypes
import json
import logging
import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from isotrain.config import CompareView, Settings, check_device, key_of
from isotrain.data.windows import Windows, data_key
from isotrain.errors import InputError, passing
from isotrain.files import read_json, reading, write_json
from isotrain.training.machine import code_key, commit, machine_key

log = logging.getLogger(__name__)
T = TypeVar("T")
WIDTHS = 8  # the widths that a budget chooses from are multiples of it
TIMED_STEPS = 24  # of a width, the first quarter left out
REPEATS = 2  # of a fit that was disturbed, or whose budget has changed since
SLOWER = 1.1  # by which a clock of a fit exceeds the fastest of the others: the fit was disturbed
SEND_EVERY_SECONDS = 20.0  # to MLflow, while there are more fits to come
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Allowed(TypedDict, total=False):
    """What the budget of a control allows, as it was measured in this study on the method ``time`` or ``step``."""

    key: str  # of what it was measured from
    time: str
    step: str
    seconds: float  # training seconds of the method ``time``
    goal_ms: float  # the mean step of the method ``step``
    step_ms: float  # a step of the control itself
    steps: int  # how many steps fit into ``seconds``
    hidden: int  # the width whose step costs nearest to ``goal_ms``


def run_fits(
    view: CompareView,
    windows: str | Path,
    runs: str | Path,
    methods: Sequence[str] = (),
    seeds: Sequence[int] = (),
    repeats: int | None = None,
) -> None:
    """Train each of ``methods`` with each of ``seeds`` (empty: those of ``compare``) into ``runs``.

    Every method of one seed comes before the next seed, so that the machine's changes of speed fall on all alike; a
    fit during which the machine was slower is run again, at most ``repeats`` times (None: :data:`REPEATS`). A fit whose
    result is there with the same settings, seed, data, code and machine is not run again. Where ``runtime.processes``
    share a fit each makes the same call: nothing is then run again for its seconds. Raises :class:`InputError` as
    :func:`isotrain.training.fit.fit` does.
    """
    runs, series = Path(runs), Windows.load(windows)
    names = sorted(methods or view.compare.methods, key=lambda name: view.methods[name].budget is not None)
    chosen = list(seeds or view.compare.seeds)
    for name in names:
        check_device(view.settings(name))
    rank = _rank(view, names)
    budgets = Budgets(view, series, runs, chosen[0])
    study = [(name, seed) for seed in chosen for name in names]
    stale = [fit for fit in study if not budgets.is_current(*fit)]
    if not stale:
        log.info("all %d fits are there already", len(study))
        return
    import_everything()
    if rank is not None:
        _run(stale, budgets, series, rank)
        return
    again = REPEATS if repeats is None else repeats
    for _ in range(1 + again):
        _run(stale, budgets, series)
        _run([fit for fit in study if not budgets.is_current(*fit)], budgets, series)  # whose budget changed meanwhile
        if not again or not (stale := _disturbed(budgets, study)):
            break
        log.warning("the machine was slower during %s", ", ".join(f"{name}-{seed}" for name, seed in stale))


def _rank(view: CompareView, names: Sequence[str]) -> int | None:
    """Which of the processes that share every fit this one is; None where each fit has a process of its own.

    Raises :class:`InputError` for methods that cannot be trained so, or that differ in this.
    """
    if {view.settings(name).runtime.processes for name in names} == {1}:
        return None
    from isotrain.training.processes import place

    if budgeted := [name for name in names if view.methods[name].budget]:
        raise InputError(
            f"the budget of {', '.join(budgeted)} is measured on one process: set runtime.processes to 1, or name "
            "methods without a budget"
        )
    places = {place(view.settings(name)) for name in names}
    if len(places) > 1:
        raise InputError("runtime.processes differs between the methods: train those of one number at a time")
    return places.pop().rank


def _run(waiting: Sequence[tuple[str, int]], budgets: "Budgets", series: Windows, rank: int | None = None) -> None:
    from isotrain.training.outbox import send

    began = sent = time.monotonic()
    try:
        for done, (name, seed) in enumerate(waiting):
            left = f", about {in_words((time.monotonic() - began) / done * (len(waiting) - done))} left" if done else ""
            passing(f"fit {done + 1} of {len(waiting)}{left}: {name}, seed {seed}")
            settings, budget = budgets.settings(name)
            fit_in_child(settings, seed, series, budgets.folder(name, seed), budget)
            if not rank and time.monotonic() - sent > SEND_EVERY_SECONDS:
                send()
                sent = time.monotonic()
    finally:
        if not rank:
            send()


def in_words(seconds: float) -> str:
    """A time to wait, as people say it."""
    for size, unit in ((3600, "hour"), (60, "minute")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}s"
    return f"{seconds:.0f} seconds" if seconds < 45 else "1 minute"


def _disturbed(budgets: "Budgets", study: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """The fits that the machine slowed down, as far as two clocks tell.

    The fixed computation around one took longer than around the fastest of the study, or its mean step took longer
    than that of the same method with another seed, by a factor above :data:`SLOWER`.
    """
    results = {fit: _result(budgets.folder(*fit)) for fit in study}
    fixed = {fit: result.get("machine_seconds", 0.0) for fit, result in results.items()}
    step = {fit: result.get("train_seconds", 0.0) / result.get("steps", 1) for fit, result in results.items()}
    fastest = {name: min(step[fit] for fit in study if fit[0] == name) for name, _ in study}
    return [fit for fit in study if fixed[fit] > SLOWER * min(fixed.values()) or step[fit] > SLOWER * fastest[fit[0]]]


def fit_key(settings: Settings, seed: int, data: str) -> str:
    """What a result is known by: settings, seed, ``data`` (:func:`.windows.data_key`), code and machine."""
    return key_of(settings, seed, data, code_key(), machine_key())


def is_current(folder: Path, settings: Settings, seed: int, data: str, budget: Mapping[str, Any] | None = None) -> bool:
    """Whether ``folder`` holds the result of this :func:`fit_key`; if so, its role and budget are renewed.

    The role and the budget name a fit and decide nothing in it, so a change of them alone does not train it again.
    """
    result = _result(folder)
    if result.get("key") != fit_key(settings, seed, data):
        return False
    labels = {"role": settings.role, "budget": budget}
    if any(result.get(label) != value for label, value in labels.items()):
        write_json(folder / "result.json", {**result, **labels})
    return True


class Budgets:
    """The settings of each method, with what its budget allows as measured on another method's first fit."""

    def __init__(self, view: CompareView, windows: Windows, runs: Path, seed: int) -> None:
        self._view, self._windows, self._runs, self._seed = view, windows, runs, seed
        self._path = runs / "budgets.json"
        with reading(self._path, "remove it: it is measured again"):
            self._known: dict[str, Allowed] = dict(read_json(self._path)) if self._path.exists() else {}

    def folder(self, name: str, seed: int) -> Path:
        """Where the fit of a method with a seed lies."""
        return self._runs / f"{name}-{seed}"

    def is_current(self, name: str, seed: int) -> bool:
        """Whether that fit is there, of exactly these settings, data, code and machine."""
        found = self._found(name)
        if found is None:
            return False
        data = data_key(self._windows.meta)
        return is_current(self.folder(name, seed), self._with(name, found), seed, data, found or None)

    def settings(self, name: str) -> tuple[Settings, Allowed | None]:
        """The settings of ``name``, and what its budget allows, measured here where that is not known yet."""
        found = self._found(name)
        found = self._measure(name) if found is None else found
        return self._with(name, found), found or None

    def _with(self, name: str, found: Allowed) -> Settings:
        chosen = {"training.steps": found.get("steps"), "model.hidden": found.get("hidden")}
        return self._view.settings(name, {path: value for path, value in chosen.items() if value is not None})

    def _found(self, name: str) -> Allowed | None:
        """What the budget of ``name`` allows, empty if it has none; None if that is to be measured."""
        budget = self._view.methods[name].budget
        if budget is None:
            return {}
        if budget.of not in self._view.compare.methods:
            return {}
        known: Allowed = self._known.get(name, {})
        of = _result(self.folder(budget.of, self._seed))
        current = known.get("key") == self._budget_key(name, of) and self.is_current(budget.of, self._seed)
        return known if current else None

    def _budget_key(self, name: str, of: Mapping[str, Any]) -> str:
        return key_of(
            self._view.settings(name), self._seed, of.get("key"), of.get("train_seconds"), of.get("finished_at")
        )

    def _measure(self, name: str) -> Allowed:
        budget = self._view.methods[name].budget
        assert budget is not None
        of = _result(self.folder(budget.of, self._seed))
        own = self._view.settings(name)
        chosen: Allowed
        if budget.time is not None:
            step = self._step_seconds(own)
            steps = max(1, round(of["train_seconds"] / step))
            chosen = {"time": budget.of, "seconds": of["train_seconds"], "step_ms": 1e3 * step, "steps": steps}
        else:
            goal = of["train_seconds"] / of["steps"]
            width, step = self._width(own, goal, of["params"]["model.hidden"])
            chosen = {"step": budget.of, "goal_ms": 1e3 * goal, "step_ms": 1e3 * step, "hidden": width}
        log.info("budget of %s, measured on %s: %s", name, budget.of, json.dumps(chosen))
        self._known[name] = {"key": self._budget_key(name, of), **chosen}
        write_json(self._path, self._known)
        return self._known[name]

    def _step_seconds(self, settings: Settings) -> float:
        """Mean seconds of a step, from a fit of the same settings in this study, else from a few steps timed now."""
        for name in self._view.compare.methods:
            if self._view.methods[name].budget is None and self.is_current(name, self._seed):
                same = key_of(self._view.settings(name), self._seed) == key_of(settings, self._seed)
                if same:
                    result = _result(self.folder(name, self._seed))
                    return float(result["train_seconds"] / result["steps"])
        return self._timed(settings)

    def _width(self, settings: Settings, goal: float, most: int) -> tuple[int, float]:
        """The number of units, a multiple of :data:`WIDTHS`, whose step costs nearest to ``goal`` seconds."""
        seconds: dict[int, float] = {}

        def cost(width: int) -> float:
            if width not in seconds:
                model = settings.model.model_copy(update={"hidden": width})
                seconds[width] = self._timed(settings.model_copy(update={"model": model}))
            return seconds[width]

        low, high = WIDTHS, max(WIDTHS, most // WIDTHS * WIDTHS)
        while high - low > WIDTHS:
            middle = (low + high) // 2 // WIDTHS * WIDTHS
            low, high = (middle, high) if cost(middle) < goal else (low, middle)
        best = min((low, high), key=lambda width: abs(cost(width) - goal))
        return best, cost(best)

    def _timed(self, settings: Settings) -> float:
        return in_child(partial(_time_steps, settings, self._windows))


def fit_in_child(settings: Settings, seed: int, windows: Windows, out: Path, budget: Allowed | None = None) -> None:
    """As :func:`isotrain.training.fit.fit`, in a forked process; :func:`import_everything` first saves its imports."""
    in_child(partial(_fit, settings, seed, windows, out, budget))


def in_child(call: Callable[[], T]) -> T:
    """What ``call`` returns in a forked process; :class:`InputError` as there, RuntimeError if the process died.

    The child ends with its parent, whatever ends that.
    """
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    child = fork.Process(target=_run_child, args=(call, sender, os.getpid()))
    pressed: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))  # a fork's hooks would swallow it
    try:
        try:
            child.start()
        finally:
            signal.signal(signal.SIGINT, handler)
        sender.close()
        if pressed:
            signal.raise_signal(signal.SIGINT)
        kind, value = receiver.recv()
    except EOFError:
        child.join()
        raise RuntimeError(f"the process of a fit ended with status {child.exitcode}: its log above says why") from None
    except KeyboardInterrupt:
        child.terminate()
        raise
    finally:
        receiver.close()
        if child.pid is not None:
            child.join()
    if kind == "refused":
        raise InputError(value)
    if kind == "system":
        raise OSError(*value)
    return value  # type: ignore[no-any-return]


def _run_child(call: Callable[[], object], sender: Connection, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both: the parent says so, and ends this one
    if hasattr(signal, "SIGTERM") and os.uname().sysname == "Linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before this process asked to follow it
            raise SystemExit(128 + signal.SIGTERM)
    try:
        answer: tuple[str, object] = ("done", call())
    except InputError as problem:
        answer = ("refused", str(problem))
    except OSError as problem:  # such as a full disk: the parent says it in one line
        answer = ("system", (problem.errno, problem.strerror or str(problem), problem.filename))
    sender.send(answer)


def import_everything() -> None:
    """What a fit imports, once, in the parent: it must start no thread and touch no accelerator."""
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asks the driver without making a context
    import isotrain.training.fit  # noqa: F401

    commit()  # cached for the children


def _fit(settings: Settings, seed: int, windows: Windows, out: Path, budget: Allowed | None) -> None:
    for chatty in ("lstm", "isolation"):  # the result has what computed the LSTM, what took effect, each selection
        logging.getLogger(f"isotrain.{chatty}").setLevel(logging.WARNING)
    from isotrain.training.fit import fit

    fit(settings, seed, windows, out, budget)


def _time_steps(settings: Settings, windows: Windows) -> float:
    from isotrain.training.fit import time_steps

    seconds = time_steps(settings, windows, TIMED_STEPS)
    return statistics.median(seconds[TIMED_STEPS // 4 :])


def _result(folder: Path) -> dict[str, Any]:
    """The result in ``folder``; empty where there is none, or one that cannot be read and is made again."""
    path = folder / "result.json"
    try:
        found = read_json(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as problem:
        log.warning("%s cannot be read (%s): the fit is run again", path, problem)
        return {}
    return found if isinstance(found, dict) else {}
