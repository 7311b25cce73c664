"""A real MLflow server on loopback, for tests of what happens while it is down."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def server(port: int, folder: Path) -> Iterator[str]:
    """Its address while the block runs; what it keeps lies in ``folder``."""
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "kept")]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen([*command, *store], stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None, (folder / "server.log").read_text()
                time.sleep(0.2)
        yield uri
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)
