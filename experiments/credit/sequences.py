"""Credit left out where it can fail: Reber's grammar, a symbol recalled after a long silence, the next character.

    python -m experiments.credit.sequences [reber embedded recall text] [--text FILE] [--seeds 5]
        [--out experiments/credit/results] [--table]

One LSTM between symbols and their prediction, trained by each method of :data:`METHODS`. Fits run one at a time, each
in a process of its own, every method of one seed before the next seed; what is in ``sequences.jsonl`` is not run again,
so that the command can be stopped and called again. The text is any plain file; it is read and never kept.
"""

import argparse
import json
import math
import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from isotrain.compare.statistics import median_interval
from isotrain.files import write_text
from isotrain.lstm import LSTM, runtime
from isotrain.lstm.horizon import CreditMeasurement
from isotrain.lstm.kernels import layer
from isotrain.report.drawing import GREY, PALETTE, STYLE, new_figure, save
from isotrain.training.fits import import_everything, in_child
from isotrain.training.machine import alone, commit, hardware

STEPS = {"reber": 600, "embedded": 2000, "recall": 1200, "text": 500}  # of a training
IGNORED = -100  # of cross_entropy: a step whose prediction does not count


@dataclass(frozen=True)
class Method:
    """How a network is trained.

    Attributes:
        credit, part: of :meth:`isotrain.lstm.LSTM.isolate`.
        thaw: share of the training after which credit is whole.
        measured: the share of the gradient neglected above which credit is whole, measured every 20 steps.
        whole_every: every so many steps one has whole credit.
        sampled: the weight gradient is so many times that of every ``sampled``-th time step, from a random one on.
        layers: of the LSTM.
        backend: of the LSTM.
        tuned: bf16, fused Adam, denormals flushed, freed pages kept.
    """

    credit: Any = "full"
    part: int = 0
    thaw: float | None = None
    measured: float | None = None
    whole_every: int = 0
    sampled: int = 1
    layers: int = 1
    backend: str = "native"
    tuned: bool = True


METHODS = {
    "stock": Method(backend="torch", tuned=False),
    "tuned": Method(backend="torch"),
    "native": Method(),
    "cell": Method("cell"),
    "none": Method("none"),
    "part-16": Method("cell", part=16),
    "cell-thawed": Method("cell", thaw=0.6),
    "cell-measured": Method("cell", measured=0.5),
    # ideas, on the text alone
    "cell-whole-every-4": Method("cell", whole_every=4),
    "sampled-quarter": Method(sampled=4),
    "cell-sampled-quarter": Method("cell", sampled=4),
    "two-layers": Method(layers=2),
    "two-layers-cell": Method("cell", layers=2),
    "two-layers-cell-none": Method({0: "cell", 1: "none"}, layers=2),
}
MAIN = list(METHODS)[:8]


class Reber:
    """Symbols of Reber's grammar, plain or embedded (Fahlman 1991; Hochreiter and Schmidhuber 1997, figures 3 and 4).

    Plain: the share of the steps at which the most likely next symbol is one that the grammar allows. Embedded: the
    share of the strings whose last but one symbol is right, which is the second, many steps before.
    """

    SYMBOLS = "BTPSXVE"
    GRAPH: Mapping[int, Sequence[tuple[str, int | None]]] = {
        0: [("T", 1), ("P", 2)],
        1: [("S", 1), ("X", 3)],
        2: [("T", 2), ("V", 4)],
        3: [("X", 2), ("S", 5)],
        4: [("P", 3), ("V", 5)],
        5: [("E", None)],
    }
    widths, span, rate, batch, one_hot = (24,), 0, 0.01, 32, True

    def __init__(self, *, embedded: bool, seed: int) -> None:
        self.embedded, self.symbols = embedded, len(self.SYMBOLS)
        self.steps = STEPS["embedded" if embedded else "reber"]
        self._draw = random.Random(seed)
        self._asked = self._strings(512, random.Random(999_983))

    def training(self, step: int) -> tuple[Tensor, Tensor]:
        x, y, *_ = self._strings(self.batch, self._draw)
        return x, y

    def score(self, predict: Any) -> float:
        x, y, allowed, last = self._asked
        logits = predict(x)
        if self.embedded:
            pair = logits[last, torch.arange(len(last))][:, [self.SYMBOLS.index(c) for c in "TP"]]
            right = y[last, torch.arange(len(last))] == torch.where(
                pair[:, 0] > pair[:, 1], self.SYMBOLS.index("T"), self.SYMBOLS.index("P")
            )
            return float(right.float().mean())
        counted = y != IGNORED
        return float(allowed.gather(2, logits.argmax(2, keepdim=True))[..., 0][counted].float().mean())

    def _strings(self, count: int, draw: random.Random) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        strings = [self._string(draw) for _ in range(count)]
        steps = max(len(text) for text, _ in strings) - 1
        x, y = torch.zeros(steps, count, dtype=torch.long), torch.full((steps, count), IGNORED)
        allowed = torch.zeros(steps, count, self.symbols, dtype=torch.bool)
        for k, (text, legal) in enumerate(strings):
            codes = torch.tensor([self.SYMBOLS.index(symbol) for symbol in text])
            x[: len(text) - 1, k], y[: len(text) - 1, k] = codes[:-1], codes[1:]
            for t, symbols in enumerate(legal):
                allowed[t, k, [self.SYMBOLS.index(symbol) for symbol in symbols]] = True
        return x, y, allowed, torch.tensor([len(text) - 3 for text, _ in strings])

    def _string(self, draw: random.Random) -> tuple[str, list[str]]:
        """A string, and which symbols may follow each of its prefixes."""
        text, legal, state = "B", [], 0
        while state is not None:
            legal.append("".join(symbol for symbol, _ in self.GRAPH[state]))
            symbol, follows = draw.choice(self.GRAPH[state])
            text, state = text + symbol, follows  # type: ignore[assignment]
        if not self.embedded:
            return text, legal
        around = draw.choice("TP")
        return f"B{around}{text}{around}E", ["TP", "B", *legal, around, "E"]


class Recall:
    """One of eight symbols, 168 steps of noise, and the question which it was: the share that is answered right."""

    NOISE, ASK, SILENT = 8, 9, 168
    symbols, widths, span, rate, batch, steps, one_hot = 10, (24,), SILENT, 0.01, 32, STEPS["recall"], True

    def __init__(self, seed: int) -> None:
        self._draw = torch.Generator().manual_seed(seed)

    def training(self, step: int) -> tuple[Tensor, Tensor]:
        return self._drawn(self.batch, self._draw)

    def score(self, predict: Any) -> float:
        x, y = self._drawn(512, torch.Generator().manual_seed(999_983))
        return float((predict(x)[-1].argmax(1) == y[-1]).float().mean())

    def _drawn(self, count: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        symbol = torch.randint(0, 8, (count,), generator=draw)
        x = torch.full((self.SILENT + 2, count), self.NOISE)
        x[0], x[-1] = symbol, self.ASK
        y = torch.full_like(x, IGNORED)
        y[-1] = symbol
        return x, y


class Text:
    """The next character of a text: 64 passages side by side, read on from where the last step ended; nats a
    character on the last tenth of the text."""

    span, rate, batch, length, one_hot, steps = 0, 0.01, 64, 128, False, STEPS["text"]
    widths = (128, 256)

    def __init__(self, path: str) -> None:
        text = Path(path).read_text(encoding="utf-8")
        alphabet = sorted(set(text))
        self.symbols = len(alphabet)
        codes = torch.tensor([alphabet.index(c) for c in alphabet])
        table = {c: int(code) for c, code in zip(alphabet, codes, strict=True)}
        data = torch.tensor([table[c] for c in text])
        end = int(0.9 * len(data))
        self._passages = data[: end // self.batch * self.batch].view(self.batch, -1).T
        self._held_out = data[end : end + (len(data) - end) // 16 * 16].view(16, -1).T[:1500]
        self.each = (len(self._passages) - 1) // self.length  # steps until the passages are at their end

    def training(self, step: int) -> tuple[Tensor, Tensor]:
        first = step % self.each * self.length
        read = self._passages[first : first + self.length + 1]
        return read[:-1], read[1:]

    def goes_on(self, step: int) -> bool:
        return step % self.each > 0

    def score(self, predict: Any) -> float:
        logits = predict(self._held_out[:-1])
        return float(cross_entropy(logits.flatten(0, 1), self._held_out[1:].flatten()))


class Network(nn.Module):
    """Symbols, embedded or as they are, an LSTM, the logits of the next symbol."""

    def __init__(self, task: Any, width: int, method: Method) -> None:
        super().__init__()
        self.embed = nn.Embedding(task.symbols, task.symbols if task.one_hot else 64)
        if task.one_hot:
            self.embed.weight = nn.Parameter(torch.eye(task.symbols), requires_grad=False)
        own = method.backend != "torch"
        inputs = self.embed.embedding_dim
        self.lstm = LSTM(inputs, width, method.layers, backend="native") if own else nn.LSTM(inputs, width)
        with torch.no_grad():
            if task.span:  # gates that open and close as slowly as the task asks (Tallec and Ollivier, 1804.11188)
                keeps = torch.log(1 + (task.span - 1) * torch.rand(width))
                self.lstm.bias_ih_l0[:width] = -keeps
                self.lstm.bias_ih_l0[width : 2 * width] = keeps
        self.out = nn.Linear(width, task.symbols)

    def forward(self, x: Tensor, states: Any = None) -> tuple[Tensor, Any]:
        y, states = self.lstm(self.embed(x), states)
        return self.out(y), states


def trained(make: Any, name: str, width: int, share: float, seed: int) -> dict[str, Any]:
    """Train once; ``share`` of the task's steps. Seconds are those of the training, with what a measurement costs."""
    method, task = METHODS[name], make(seed=seed)
    fast = method.tuned
    runtime.prepare(keep_allocator=fast, flush_denormals=fast, pin_threads=True, threads=1)
    torch.manual_seed(seed)
    net, steps = Network(task, width, method), round(share * task.steps)
    if method.sampled > 1:
        layer._product = partial(_sampled, layer._product, method.sampled)
    trains = [p for p in net.parameters() if p.requires_grad]
    adam = torch.optim.Adam(trains, lr=task.rate, betas=(0.9, 0.99), fused=True if fast else None)
    isolated, states, seconds, thawed = method.credit != "full", None, 0.0, None
    neglected: list[float] = []
    rows: list[dict[str, float]] = []
    with alone():
        for step in range(steps):
            x, y = task.training(step)
            begin = time.perf_counter()
            if isolated and method.thaw is not None and step >= method.thaw * steps:
                isolated, thawed = False, step
            states = states if getattr(task, "goes_on", lambda _: False)(step) else None
            whole = not isolated or (method.whole_every and step % method.whole_every == 0)
            measures = isolated and method.measured is not None and step % 20 == 0
            if method.credit != "full":
                net.lstm.isolate(**({} if measures or whole else {"credit": method.credit, "part": method.part}))
            measurement = CreditMeasurement(net.lstm, method.credit, method.part) if measures else None  # type: ignore[arg-type]
            if measurement:
                measurement.attach()
            with torch.autocast("cpu", torch.bfloat16, enabled=fast):
                logits, states = net(x, states)
            loss = cross_entropy(logits.flatten(0, 1).float(), y.flatten(), ignore_index=IGNORED)
            states = tuple(state.detach() for state in states)
            warm = 0.05 * steps
            fall = 0.5 * (1 + math.cos(math.pi * max(0.0, step - warm) / (steps - warm)))
            for group in adam.param_groups:
                group["lr"] = task.rate * min(1.0, (step + 1) / warm) * (0.98 * fall + 0.02)
            adam.zero_grad()
            loss.backward()
            if measurement:
                measurement.detach()
                neglected.append(measurement.neglected())
                if len(neglected) >= 3 and sum(neglected[-3:]) / 3 > method.measured:
                    isolated, thawed = False, step
            nn.utils.clip_grad_norm_(trains, 1.0)
            adam.step()
            seconds += time.perf_counter() - begin
            if (step + 1) % max(1, steps // 20) == 0:
                rows.append({"step": step + 1, "seconds": seconds, "score": scored(net, task)})
    return {
        "method": name,
        "width": width,
        "seed": seed,
        "steps": steps,
        "seconds": seconds,
        "score": rows[-1]["score"],
        "rows": rows,
        "thawed_at": thawed,
        "neglected": [round(share, 4) for share in neglected],
        "commit": commit(),
    }


def _sampled(product: Any, every: int, rows: Tensor, gates: Tensor, places: int, first: int) -> Tensor:
    """The weight gradient from every ``every``-th time step, from a random one on: right on average."""
    own = slice(first + int(torch.randint(every, ())), len(gates), every)
    found: Tensor = product(rows[:-1][own], gates[own], places, 0)
    return every * found


def scored(net: Network, task: Any) -> float:
    """The task's score of the network as it is, without a graph."""
    net.eval()
    with torch.no_grad():
        found = float(task.score(lambda x: net(x)[0].float()))
    net.train()
    return found


def plan(task: str, seed: int) -> Iterator[tuple[str, int, float]]:
    """Method, width, share of the task's steps. On the text dense networks of several lengths are the curve to beat.

    Ideas are tried with the first seed alone, what one layer keeps and the other leaves out with three.
    """
    if task != "text":
        for method in MAIN:
            yield method, (Recall if task == "recall" else Reber).widths[0], 1.0
        return
    for width in Text.widths:
        for method in MAIN if width == 128 else ("tuned", "native", "cell", "cell-thawed", "cell-measured"):
            yield method, width, 1.0
        for share in (0.6, 0.8, 1.6) if width == 128 else (0.6, 0.8):
            yield "native", width, share
    for method in ("cell-thawed", "cell-measured"):
        yield method, 128, 1.6
    yield "native", 192, 1.0
    for method in list(METHODS)[len(MAIN) :]:
        if seed < (3 if method.startswith("two-layers") else 1):
            yield method, 128, 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=["reber", "embedded", "recall", "text"])
    parser.add_argument("--text", default="", help="a plain text; without one the task text is left out")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", default="experiments/credit/results", type=Path)
    parser.add_argument("--table", action="store_true", help="write the page of what is there")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    kept = asked.out / "sequences.jsonl"
    known = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    if asked.table:
        write_page(asked.out, known)
        return
    makes = {
        "reber": partial(Reber, embedded=False),
        "embedded": partial(Reber, embedded=True),
        "recall": Recall,
        "text": partial(_text, asked.text),
    }
    done = {(r["task"], r["method"], r["width"], r["steps"], r["seed"]) for r in known}
    import_everything()
    for task in asked.tasks:
        if task == "text" and not asked.text:
            print("no --text FILE: the task text is left out")
            continue
        for seed in range(asked.seeds):
            for method, width, share in plan(task, seed):
                if (task, method, width, round(share * STEPS[task]), seed) in done:
                    continue
                result = in_child(partial(trained, makes[task], method, width, share, seed))
                with kept.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps({"task": task, **result}) + "\n")
                print(f"{task} {method} {width} x {result['steps']} steps, seed {seed}: {result['score']:.4f} in "
                      f"{result['seconds']:.2f} s", flush=True)  # fmt: skip


def _text(path: str, *, seed: int) -> Text:
    return Text(path)


def write_page(out: Path, known: Sequence[Mapping[str, Any]]) -> None:
    """``sequences.md``: a table a task."""
    machine = hardware()
    blocks = [
        "# Credit left out: symbol sequences",
        f"Commit {', '.join(sorted({r['commit'] for r in known}))}, {machine['cpu']}, one core; written by "
        "`python -m experiments.credit.sequences --table`. Medians over the seeds, in brackets their 90 % interval "
        "(the range, up to three seeds).",
    ]
    titles = {
        "reber": "Reber's grammar: share of the steps whose likeliest next symbol is allowed",
        "embedded": "Embedded Reber grammar: share of the strings whose last but one symbol is right",
        "recall": "Recall after 168 silent steps: share right",
        "text": "Next character of a text: nats a character",
    }
    for task, title in titles.items():
        rows = [r for r in known if r["task"] == task]
        groups = dict.fromkeys((r["width"], r["steps"], r["method"]) for r in rows)
        if not groups:
            continue
        lines = ["| units | steps | method | seeds | ms a step | training, s | result | after half | thawed at step |"]
        lines.append("| --: | --: | :-- | --: | --: | --: | --: | --: | --: |")
        for width, steps, method in sorted(groups, key=lambda g: (g[0], g[1], list(METHODS).index(g[2]))):
            own = [r for r in rows if (r["width"], r["steps"], r["method"]) == (width, steps, method)]
            step = statistics.median(1e3 * r["seconds"] / r["steps"] for r in own)
            half = [next(v["score"] for v in r["rows"] if v["step"] >= steps // 2) for r in own]
            thaws = [r["thawed_at"] for r in own if r["thawed_at"] is not None]
            lines.append(
                f"| {width} | {steps} | `{method}` | {len(own)} | {step:.2f} | "
                f"{_said([r['seconds'] for r in own], '.2f')} | {_said([r['score'] for r in own], '.4f')} | "
                f"{_said(half, '.3f')} | "
                f"{int(statistics.median(thaws)) if thaws else '–'} |"
            )
        blocks += [f"## {title}", "\n".join(lines)]
        if task == "text":
            draw(out, [r for r in rows if r["seed"] == 0])
            blocks.append("![Seconds against nats](text.png)")
    write_text(out / "sequences.md", "\n\n".join(blocks) + "\n")
    print(out / "sequences.md")


def draw(out: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """``text.png``: training seconds against nats a character; dense lengths and widths are the curve to beat."""
    shown = {
        "native": "nothing left out, several widths and lengths",
        "cell-thawed": "cell for 60 %, then whole",
        "cell-measured": "cell until half of the gradient is neglected",
        "cell": "cell throughout",
        "none": "none throughout",
    }
    with mpl.rc_context(STYLE):
        figure, grid = new_figure(
            9.5, 5.0, "The next character: what a nat costs (the first seed, with which all were run)"
        )
        axes = grid[0, 0]
        for colour, (method, label) in zip((GREY, *PALETTE), shown.items(), strict=False):
            groups = dict.fromkeys((r["width"], r["steps"]) for r in rows if r["method"] == method)
            points = []
            for group in groups:
                own = [r for r in rows if r["method"] == method and (r["width"], r["steps"]) == group]
                seconds, nats = (statistics.median(r[key] for r in own) for key in ("seconds", "score"))
                points.append((seconds, nats))
                if method == "native":
                    axes.annotate(
                        f"{group[0]} x {group[1]}",
                        (seconds, nats),
                        (4, -9 if group[0] == 192 else 4),
                        textcoords="offset points",
                        size=7,
                    )
            axes.plot(*zip(*points, strict=True), "o", color=colour, label=label, ms=6)
        axes.set(xlabel="training, s (units x steps beside each grey point)", ylabel="nats a character")
        axes.legend(frameon=False)
        save(figure, out / "text.png")


def _said(values: Sequence[float], form: str) -> str:
    found = median_interval(values, 0.9, 2000)
    ends = "" if found.low == found.high else f" ({found.low:{form}}–{found.high:{form}})"
    return f"{found.median:{form}}{ends}"


if __name__ == "__main__":
    main()
