"""A few hundred of the inputs of `make fuzz`: none ends in a traceback, a hang, half a file or a wrong answer."""

from pathlib import Path

from tests.fuzz.mutations import Input
from tests.fuzz.run import FATES, SHARES, fuzz


def test_what_is_wrong_is_refused_and_what_is_right_is_read(tmp_path: Path) -> None:
    bad: list[str] = []

    def on_bad(kind: str, number: int, given: Input, found: str, said: str) -> None:
        bad.append(f"{kind} {number} ({given.what}): {found}: {said[-300:]}")

    counts = fuzz(300, tmp_path, on_bad)
    assert not bad, "\n".join(bad)
    assert set(counts) == set(SHARES)
    for kind, count in counts.items():
        assert count["refused"] > 0, kind
        assert count["right"] + count["refused"] == sum(count[fate] for fate in FATES) > 0
