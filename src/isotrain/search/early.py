"""When a trial of several objectives may end early: it cannot reach the front, as far as finished trials tell.

With several objectives Optuna neither reports nor prunes, so this is our own rule. At a validation a trial has spent
some seconds, which can only grow, and has some best error, which can only fall. How far it may still fall is taken
from the finished trials: the largest improvement that any of them made from the same share of its training on. If some
point of the front has less time and less error than even that, the trial ends.

The rule is optimistic for errors, yet it biases the study: the sampler sees the error at the end of a shortened
training with the seconds of a whole one, a point that lies above and never on the front, and late improvers unlike any
finished trial are lost. So it is off by default.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from isotrain.files import read_json

LEAST = 10  # finished trials before any ends early

History = Sequence[tuple[float, float]]  # (share of the training done, best error so far) at each validation


@dataclass(frozen=True)
class Rule:
    """What finished trials tell.

    ``front``: (seconds, error) of the best; ``histories``: one of each trial that was trained to its end.
    """

    front: Sequence[tuple[float, float]]
    histories: Sequence[History]

    @classmethod
    def of(cls, folder: Path) -> "Rule":
        """The rule as the results in a study's folder have it now."""
        results = [read_json(path) for path in sorted(folder.glob("trials/*/result.json"))]
        whole = [result for result in results if not result["early"]]
        return cls([(r["seconds"], r["val_mae"]) for r in whole], [_history(r["history"]) for r in whole])

    def hopeless(self, error: float, seconds: float, share: float) -> bool:
        """Whether a trial cannot reach the front that has ``error`` (its best) and ``seconds`` at ``share``."""
        if len(self.histories) < LEAST:
            return False
        optimistic = error - max(improvement(history, share) for history in self.histories)
        return any(time < seconds and least < optimistic for time, least in self.front)


def improvement(history: History, share: float) -> float:
    """By how much the error fell after ``share`` of the training: from the last validation before it to the end.

    Before the first validation nothing is known of the error then: infinite.
    """
    before = [error for done, error in history if done <= share + 1e-9]
    return before[-1] - history[-1][1] if before else float("inf")


def _history(rows: list[dict[str, float]]) -> History:
    steps, least = rows[-1]["step"], float("inf")
    history = []
    for row in rows:
        least = min(least, row["val_mae"])
        history.append((row["step"] / steps, least))
    return history
