"""Stage train: one fit of one method with one seed."""

from isotrain.config import load_settings
from isotrain.data.windows import Windows
from isotrain.errors import run_as_command
from isotrain.training.fit import fit
from isotrain.training.outbox import send


def main(settings: str, seed: str, windows: str, out: str) -> None:
    fit(load_settings(settings), int(seed), Windows.load(windows), out)
    send()


if __name__ == "__main__":
    run_as_command(main)
