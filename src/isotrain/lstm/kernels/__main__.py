"""``python -m isotrain.lstm.kernels``: compile the kernels at set-up; without a compiler, warn and go on."""

import logging

from isotrain.errors import InputError, run_as_command
from isotrain.lstm.kernels.build import build


def main() -> None:
    """Build, or warn."""
    try:
        build()
    except InputError as error:
        logging.getLogger(__name__).warning("%s", error)


if __name__ == "__main__":
    run_as_command(main)
