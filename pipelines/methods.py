"""Stage methods: resolve each method into the settings of its fits, so that a fit depends on nothing else."""

from pathlib import Path

from isotrain.config import MethodsView, load
from isotrain.errors import run_as_command
from isotrain.files import write_json


def main(folder: str, params: str) -> None:
    view = load(params, view=MethodsView)
    for name in view.methods:
        write_json(Path(folder) / f"{name}.json", view.settings(name).model_dump())


if __name__ == "__main__":
    run_as_command(main)
