"""A real PostgreSQL on loopback, in a folder and on a port of its own."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.slurm import free_ports

DEBIAN = Path("/usr/lib/postgresql")  # Debian keeps the server's programs here, a folder a version


class Postgres:
    """A server with one database, ``study``; it trusts whoever comes over loopback."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port
        self._command("initdb", "--auth=trust", "--username=isotrain", "--no-sync")
        self.start()
        self._command("createdb", f"--port={port}", "--host=127.0.0.1", "--username=isotrain", "study", data=False)

    @property
    def url(self) -> str:
        """What goes into ``ISOTRAIN_STUDY_URL``."""
        return f"postgresql://isotrain@127.0.0.1:{self._port}/study"

    def start(self) -> None:
        """Serve; returns when it does."""
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c fsync=off -k {self._folder}"
        self._command("pg_ctl", "start", "--wait", f"--log={self._folder}/log", f"--options={options}")

    def stop(self) -> None:
        """Drop every connection and end."""
        self._command("pg_ctl", "stop", "--mode=immediate", "--wait")

    def _command(self, program: str, *words: str, data: bool = True) -> None:
        where = [f"--pgdata={self._folder}/data"] if data else []
        user = "postgres" if os.geteuid() == 0 else None  # the server refuses to be root
        done = subprocess.run(
            [_program(program) or program, *where, *words],
            user=user,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # no pipe: the server would keep it open
            stderr=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode:
            log = self._folder / "log"
            raise RuntimeError(f"{program} {' '.join(words)}: {log.read_text() if log.exists() else done.returncode}")


def why_not() -> str | None:
    """Why PostgreSQL cannot run here; None if it can."""
    return None if _program("initdb") else "PostgreSQL is not installed (apt-get install postgresql)"


@contextmanager
def server() -> Iterator[Postgres]:
    """A new server; ended, and its folder removed, at the end."""
    with tempfile.TemporaryDirectory(prefix="isotrain-postgres-") as name:
        if os.geteuid() == 0:
            shutil.chown(name, "postgres")
        running = Postgres(Path(name), free_ports(1)[0])
        try:
            yield running
        finally:
            running.stop()


def _program(name: str) -> str | None:
    versions = sorted(DEBIAN.glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    return shutil.which(name, path=os.pathsep.join(map(str, versions)) + os.pathsep + os.environ["PATH"])
