"""Not a stage: bring a CSV (path or URL) into data/raw under DVC, and make it the series that the study reads."""

import subprocess
import sys
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from isotrain.config import load
from isotrain.data.ingest import BROUGHT_IN
from isotrain.errors import InputError, run_as_command
from isotrain.files import write_text


def main(source: str, params: str) -> None:
    chosen = load(params)
    remote = urlsplit(source).scheme in ("http", "https")
    if not remote and not Path(source).is_file():
        raise InputError(f"{source} is neither a file nor an http(s) address")
    name = PurePosixPath(unquote(urlsplit(source).path)).name if remote else Path(source).name
    raw = Path(chosen.paths.raw)
    subprocess.run([sys.executable, "-m", "dvc", "import-url", "--force", source, str(raw / name)], check=True)
    write_text(raw / BROUGHT_IN, name + "\n")
    if chosen.ingest.source != "auto":
        raise InputError(f"{raw / name} is there, and {params} reads {chosen.ingest.source}: set ingest.source to auto")
    print(f"the study reads {raw / name} from now on; remove {raw / BROUGHT_IN} to go back to the simulated series")


if __name__ == "__main__":
    run_as_command(main)
