"""A real SLURM on loopback: one controller and several nodes on this machine, in a folder and on ports of its own."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue")

# Timeouts are short so that a lost node is noticed within seconds; cred_expire likewise: a requeued job waits so long.
CONFIGURATION = """\
ClusterName=isotrain
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={first}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={munge},cred_expire=5
CryptoType=crypto/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,bf_interval=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
PropagateResourceLimits=NONE
JobRequeue=1
ReturnToService=2
KillWait=10
SlurmdTimeout=10
InactiveLimit=0
MinJobAge=300
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=5
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


class Slurm:
    """A running cluster; every method is a command that a user would type."""

    def __init__(self, folder: Path, nodes: list[str]) -> None:
        self.folder = folder
        self.nodes = nodes
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def command(self, *words: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
        """What ``words`` print; ``CalledProcessError`` if they fail."""
        done = subprocess.run(
            [str(word) for word in words],
            env={**self.environment, **(env or {})},
            cwd=cwd,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def submit(self, *words: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
        """The number of the job that ``sbatch words`` made."""
        return self.command("sbatch", "--parsable", *words, env=env, cwd=cwd)

    def tasks(self, job: str) -> dict[str, str]:
        """Task (``job_index``) -> state (PENDING, RUNNING, COMPLETED, ...), ended tasks included."""
        lines = self.command("squeue", "--noheader", "--array", "--states=all", f"--jobs={job}", "--format=%i %T")
        return dict(line.split() for line in lines.splitlines())

    def fields(self, task: str) -> dict[str, str]:
        """What ``scontrol show job`` prints of a task."""
        words = self.command("scontrol", "--oneliner", "show", "job", task).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def set_node(self, node: str, state: str) -> None:
        """``scontrol update``: drain, down, resume."""
        self.command("scontrol", "update", f"nodename={node}", f"state={state}", "reason=test")

    def node_states(self) -> dict[str, str]:
        """Node -> state (idle, allocated, drained, down, ...)."""
        return dict(line.split() for line in self.command("sinfo", "-hN", "-o", "%N %T").splitlines())

    def wait(self, job: str, seconds: float = 120) -> dict[str, str]:
        """The state of each task once all have ended; ``TimeoutError`` with the states otherwise."""
        over = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}
        until(lambda: over.issuperset(self.tasks(job).values()), seconds, lambda: self.tasks(job))
        return self.tasks(job)


def until(holds: Callable[[], object], seconds: float = 60, seen: Callable[[], object] = lambda: "") -> None:
    """Wait until ``holds()``; ``TimeoutError`` with what was ``seen()`` after ``seconds``."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s: {seen()}")
        time.sleep(0.1)


def why_not() -> str | None:
    """Why SLURM cannot run here; None if it can."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"SLURM is not installed: no {', '.join(missing)} (apt-get install slurm-wlm munge)"
    return None if os.geteuid() == 0 else "SLURM's daemons are started as root"


@contextmanager
def cluster(folder: Path, nodes: int = 3) -> Iterator[Slurm]:
    """A cluster of so many nodes of two cores, all idle; at the end every daemon is ended by its process id."""
    names = [f"n{i}" for i in range(nodes)]
    controller, *ports = free_ports(nodes + 1)
    host = socket.gethostname()
    (folder / "state").mkdir()
    text = CONFIGURATION.format(
        host=host.split(".")[0], folder=folder, controller=controller, first=ports[0], munge=folder / "munge.socket"
    )
    for name, port in zip(names, ports, strict=True):
        (folder / "spool" / name).mkdir(parents=True)
        text += f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=4000\n"
    (folder / "slurm.conf").write_text(text)
    slurm = Slurm(folder, names)
    with ExitStack() as stack:
        for number, words in enumerate(_daemons(folder, names)):
            stack.enter_context(_running(words, slurm.environment, folder / f"{number}-{words[0]}.out"))
            if words[0] == "munged":
                until((folder / "munge.socket").exists)
        until(lambda: _idle(slurm) == set(names), 30, lambda: (folder / "1-slurmctld.out").read_text()[-2000:])
        yield slurm
        subprocess.run(["scancel", "--user=root"], env=slurm.environment, check=False)
        until(lambda: not slurm.command("squeue", "--noheader"), 30, lambda: slurm.command("squeue"))


def _daemons(folder: Path, nodes: list[str]) -> Iterator[list[str]]:
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    files = {"key": key, "socket": "munge.socket", "pid": "munged.pid", "log": "munged.log", "seed": "munged.seed"}
    paths = [f"--{name}{'' if name == 'socket' else '-file'}={folder / file}" for name, file in files.items()]
    yield ["munged", "--foreground", "--force", *paths]
    yield ["slurmctld", "-D", "-i", "-f", f"{folder}/slurm.conf"]
    for node in nodes:
        yield ["slurmd", "-D", "-f", f"{folder}/slurm.conf", "-N", node]


@contextmanager
def _running(words: list[str], environment: Mapping[str, str], log: Path) -> Iterator[None]:
    with log.open("w") as stream:
        daemon = subprocess.Popen(words, env=environment, stdout=stream, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        daemon.terminate()
        try:
            daemon.wait(10)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _idle(slurm: Slurm) -> set[str]:
    try:
        return {node for node, state in slurm.node_states().items() if state == "idle"}
    except subprocess.CalledProcessError:
        return set()  # the controller does not answer yet


def free_ports(count: int) -> list[int]:
    """So many ports of loopback on which nobody listens."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
