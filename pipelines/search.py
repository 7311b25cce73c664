"""Stage search: the study, by as many workers as this machine has cores; goes on where it was interrupted."""

from isotrain.errors import run_as_command
from isotrain.search.local import run_workers


def main(params: str) -> None:
    run_workers(params)


if __name__ == "__main__":
    run_as_command(main)
