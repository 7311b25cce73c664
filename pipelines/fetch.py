"""Not a stage: bring a CSV (path or URL) into data/raw under DVC, and make it the study's series."""

import subprocess
import sys
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from ruamel.yaml import YAML

from isotrain.config import load
from isotrain.errors import InputError, run_as_command


def main(source: str, params: str) -> None:
    remote = urlsplit(source).scheme in ("http", "https")
    if not remote and not Path(source).is_file():
        raise InputError(f"{source} is neither a file nor an http(s) address")
    name = PurePosixPath(unquote(urlsplit(source).path)).name if remote else Path(source).name
    goal = Path(load(params).paths.raw) / name
    subprocess.run([sys.executable, "-m", "dvc", "import-url", "--force", source, str(goal)], check=True)
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 4096
    values = yaml.load(Path(params))
    values["ingest"]["source"] = str(goal)
    yaml.dump(values, Path(params))
    print(f"{params}: ingest.source is now {goal}")


if __name__ == "__main__":
    run_as_command(main)
