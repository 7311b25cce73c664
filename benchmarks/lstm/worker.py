"""A process that trains when told to: allocator and denormal settings are a process's own, so stock has one alone.

Requests and answers are tuples over a pipe, one answer a request; the caller asks one worker at a time, so never do
two of them run together. A worker ends when its pipe is closed.
"""

import multiprocessing
import signal
import traceback
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.lstm.conditions import Condition, Regime, Shape
from benchmarks.lstm.protocol import Block, Rules, measure, steps_of_a_block

from isotrain.errors import InputError


class Absent(Exception):
    """A condition cannot be timed; the message says why."""


class Worker:
    """The caller's end. ``prepared`` = with the settings of a tuned process."""

    def __init__(self, prepared: bool, threads: int, regime: Regime) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, prepared, threads, regime), daemon=True)
        self._process.start()
        theirs.close()
        self.settings: dict[str, str] = self._answer("start")

    def open(self, shape: Shape, condition: Condition, rules: Rules) -> int:
        """Build and warm up a condition; the steps of its blocks. Raises :class:`Absent`."""
        return self._ask("open", shape, condition, rules)

    def block(self, name: str, steps: int) -> Block:
        """Time one block. Raises :class:`Absent`."""
        return self._ask("block", name, steps)

    def clear(self) -> None:
        """Forget every condition."""
        self._ask("clear")

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(10)

    def _ask(self, *request: Any) -> Any:
        self._pipe.send(request)
        return self._answer(str(request))

    def _answer(self, request: str) -> Any:
        try:
            kind, value = self._pipe.recv()
        except EOFError:
            self._process.join(10)
            raise RuntimeError(f"worker ended with status {self._process.exitcode} during {request}") from None
        if kind == "absent":
            raise Absent(value)
        return value


def serve(pipe: Connection, prepared: bool, threads: int, regime: Regime) -> None:
    """The worker's end: answer requests until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller decides what an interruption means
    bench = Bench(regime)
    pipe.send(("done", settle(prepared, threads)))
    while True:
        try:
            request = pipe.recv()
            pipe.send(bench.answer(*request))
        except (EOFError, BrokenPipeError):
            return


def settle(prepared: bool, threads: int) -> dict[str, str]:
    """Apply the process-wide settings, before the first tensor operation; what took effect, in words."""
    if prepared:
        from isotrain.lstm.runtime import prepare

        return prepare(keep_allocator=True, flush_denormals=True, threads=threads)
    import torch

    torch.set_num_threads(threads)
    return {"threads": str(torch.get_num_threads())}


class Bench:
    """The conditions that are open in this process."""

    def __init__(self, regime: Regime) -> None:
        # torch is imported here, not where the caller reads this file
        from benchmarks.lstm.load import load

        from isotrain.training.machine import machine_seconds

        self._regime: Regime = regime
        self._load, self._kernel = load, lambda: machine_seconds(5)
        self._open: dict[str, Any] = {}

    def answer(self, verb: str, *arguments: Any) -> tuple[str, Any]:
        """Do what is asked; ``("done", value)`` or ``("absent", reason)``."""
        try:
            return "done", getattr(self, f"_{verb}_")(*arguments)
        except InputError as problem:
            return "absent", f"not available: {problem}"
        except Exception as problem:  # noqa: BLE001 - one condition's defect must not cost the others' times
            traceback.print_exc()
            return "absent", f"failed: {type(problem).__name__}: {problem}"

    def _open_(self, shape: Shape, condition: Condition, rules: Rules) -> int:
        from benchmarks.lstm.step import Training, seconds_of

        training = Training(shape, condition, self._regime)
        steps = steps_of_a_block(seconds_of(training.step), rules)
        self._open[condition.name] = training
        return steps

    def _block_(self, name: str, steps: int) -> Block:
        return measure(self._open[name].step, steps, self._kernel, self._load)

    def _clear_(self) -> None:
        self._open.clear()
