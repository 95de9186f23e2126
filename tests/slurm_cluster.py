"""A throw-away Slurm cluster on this machine: real daemons, a folder and ports of its own, gone without a trace."""

import contextlib
import getpass
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from slurm_config import (
    CLUSTER_NAME,
    DATABASE_OPTIONS,
    KINDS,
    MESSAGE_TIMEOUT_S,
    PARTITIONS,
    accounting_port,
    set_message_timeout,
    write_configuration,
)

PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "mariadb-install-db", "sbatch", "sacctmgr")
KEEPER = Path(__file__).with_name("slurm_keeper.py")
PORTS_OF_ONE = 8  # controller, accounting, and up to four nodes
PORT_BLOCKS = range(20_000, 32_000, PORTS_OF_ONE)  # below the ports that the kernel gives to outgoing connections
PATIENCE_S = 120  # for a condition that a machine under no load meets in a second or two


class ClusterError(RuntimeError):
    """A cluster did not start, or did not do as told."""


def lacking(kind: str) -> str:
    """Return why no cluster of a kind can run on this machine; empty if one can."""
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        return f"Slurm is not installed: no {', '.join(missing)} on PATH"
    if os.geteuid() != 0:
        return f"a throw-away Slurm needs root, and this is {getpass.getuser()}"
    if KINDS[kind].memory_limits and not Path("/sys/fs/cgroup/memory").is_dir():
        return "the memory controller of cgroups v1 is not mounted at /sys/fs/cgroup/memory"
    return ""


class Cluster:
    """A Slurm cluster of its own: ``with Cluster("nodes") as cluster: cluster.run("sbatch", ...)``.

    Attributes:
        folder: everything of it. Short, for a socket's path has at most 107 bytes.
        env: what a program needs in its environment, beside what it has, to use this cluster.
        nodes: names of the nodes.
    """

    def __init__(self, kind: str) -> None:
        self.kind = KINDS[kind]
        lock, self._port = _own_ports()
        # Slurm calls a node's cgroup after the node: with memory limits, two clusters must not share names.
        prefix = f"n{self._port}x" if self.kind.memory_limits else "n"
        self.nodes = tuple(f"{prefix}{number}" for number in range(1, self.kind.nodes + 1))
        with lock:
            self._keeper = subprocess.Popen(
                [sys.executable, str(KEEPER), *(self.nodes if self.kind.memory_limits else ())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                pass_fds=[lock.fileno()],
                start_new_session=True,  # Ctrl-C is for the tests; they stop the cluster
            )
        self.folder = Path(self._answer())
        self._ended: set[str] = set()
        self.env = {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """End the cluster and all that it started; harmless when it is stopped.

        Raises:
            ClusterError: something could not be removed.
        """
        if self._keeper.poll() is None:
            self._keeper.communicate()  # closes its standard input: the keeper's sign to end everything
        if self.folder.exists():
            raise ClusterError(f"{self.folder}: still there after the keeper ended ({self._keeper.returncode})")

    def run(self, *command: str, check: bool = True) -> str:
        """Run a program, such as one of Slurm's, for this cluster; return what it prints.

        Raises:
            ClusterError: it failed, and ``check`` is set.
        """
        done = subprocess.run(command, env={**os.environ, **self.env}, capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise ClusterError(f"{' '.join(command)}: exit {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def submit(self, script: str, *options: str) -> str:
        """Submit a line of shell; return the job's id. Its output is ``out/%j`` in the folder of the cluster."""
        given = ["--chdir", str(self.folder / "out"), "--output", "%j", *options, "--wrap", script]
        return self.run("sbatch", "--parsable", *given).strip()

    def processes(self) -> list[psutil.Process]:
        """Return all processes of the cluster: the keeper, the daemons, and what jobs started."""
        keeper = psutil.Process(self._keeper.pid)
        return [keeper, *keeper.children(recursive=True)]

    def states(self, job_id: str) -> list[str]:
        """Return the state of each job or array task that squeue knows by an id, ended ones included."""
        return self.run("squeue", "-h", "-r", "-t", "all", "-o", "%T", "-j", job_id, check=False).split()

    def sacct(self, job_id: str, columns: str = "State,ExitCode") -> list[str]:
        """Return the accounting's row of each job or array task (none of steps), columns parted by ``|``."""
        options = ["-n", "-X", "-P", "--starttime", "now-1days", "-o", columns, "-j", job_id]
        return self.run("sacct", *options).splitlines()

    def alive(self, job_id: str) -> bool:
        """Say whether a job has processes: slurmctld calls it running some time before."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
                if process.environ().get("SLURM_JOB_ID") == job_id:
                    return True
        return False

    def kill_node(self, name: str, *, with_jobs: bool = True) -> None:
        """Kill slurmd of a node once its jobs have processes, and have the controller know that it is down: NODE_FAIL.

        Args:
            name: the node.
            with_jobs: kill its jobs too, as a power cut does; without, they live on unseen, as behind a cut cable.
        """
        running = ("squeue", "--noheader", "--states=running", f"--nodelist={name}", "--format=%A")
        self.wait(lambda: all(map(self.alive, self.run(*running).split())), f"the jobs on {name} have processes")
        self._end_daemon(name, signal.SIGKILL)
        if with_jobs:
            self._order(end_jobs=name)
        self.run("scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=fell")  # sooner than by its silence

    @contextlib.contextmanager
    def nothing_starts(self) -> Iterator[None]:
        """Let no job start for the time of the block; what runs goes on."""
        self._partitions("DOWN")
        try:
            yield
        finally:
            self._partitions("UP")

    def _partitions(self, state: str) -> None:
        for name in PARTITIONS:
            self.run("scontrol", "update", f"PartitionName={name}", f"State={state}")

    def start_node(self, name: str) -> None:
        """Start slurmd of a node; return without waiting for it to register."""
        self._start_daemon(name, "slurmd", "-D", "-N", name, SLURM_CONF=str(self.folder / "node.conf"))

    def stop_controller(self) -> None:
        """End slurmctld in good order, its state saved: Slurm's commands find nobody, and do not wait for it."""
        self._end_daemon("slurmctld", signal.SIGTERM)
        set_message_timeout(self.folder, 1)

    def start_controller(self) -> None:
        """Start slurmctld, and wait until it answers."""
        set_message_timeout(self.folder, MESSAGE_TIMEOUT_S)
        self._start_daemon("slurmctld", "slurmctld", "-D")
        self.wait(lambda: "UP" in self.run("scontrol", "ping", check=False), "slurmctld answers")

    def stop_accounting(self) -> None:
        """End slurmdbd: sacct and sacctmgr find nobody; slurmctld keeps what it would tell."""
        self._end_daemon("slurmdbd", signal.SIGTERM)

    def start_accounting(self) -> None:
        """Start slurmdbd, and wait until it answers."""
        self._start_daemon("slurmdbd", "slurmdbd", "-D", MYSQL_UNIX_PORT=str(self.folder / "database.socket"))
        self.wait(lambda: _answers(socket.AF_INET, ("localhost", accounting_port(self._port))), "slurmdbd answers")

    def reset(self) -> None:
        """Start what was stopped or killed, cancel every job, and wait until the cluster is idle."""
        if "slurmdbd" in self._ended:
            self.start_accounting()
        if "slurmctld" in self._ended:
            self.start_controller()
        for name in self._ended & set(self.nodes):
            self.start_node(name)
        self.cancel_all()
        self.wait_idle()

    def cancel_all(self) -> None:
        """Cancel every job."""
        self.run("scancel", "--user", "root")

    def wait_idle(self) -> None:
        """Wait until there is no job and all nodes wait for one."""
        self.wait(lambda: not self.run("squeue", "-h"), "no job is left")
        self.wait(lambda: self._node_states() == {"idle"}, "all nodes are idle")

    def wait(self, done: Callable[[], object], what: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait until a condition holds.

        Raises:
            ClusterError: it does not within the time, or a daemon ended untold meanwhile.
        """
        deadline = time.monotonic() + timeout_s
        while not done():
            fallen = self._order(fallen=True)
            if fallen or time.monotonic() > deadline:
                why = f"ended: {', '.join(fallen)}" if fallen else f"waited {timeout_s:.0f} s"
                raise ClusterError(f"not so: {what} ({why})\n{self._last_words()}")
            time.sleep(0.05)

    def _start(self) -> None:
        write_configuration(self.folder, self.kind, self.nodes, self._port)
        self._start_daemon("munged", "munged", "--foreground", "--force", *self._munge_options())
        if self.kind.accounting:
            self._start_database()
            self.wait((self.folder / "munge.socket").exists, "munged answers")
            self.start_accounting()
            self._register()
        self.wait((self.folder / "munge.socket").exists, "munged answers")
        self.start_controller()
        for name in self.nodes:
            self.start_node(name)
        self.wait(lambda: self._node_states() == {"idle"}, "all nodes are idle")

    def _munge_options(self) -> list[str]:
        files = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munged.pid", "seed-file": "munge.seed"}
        return [f"--{option}={self.folder / name}" for option, name in files.items()]

    def _start_database(self) -> None:
        data = self.folder / "database"
        options = [*DATABASE_OPTIONS, f"--datadir={data}", f"--tmpdir={self.folder}"]
        self.run("mariadb-install-db", *options, "--auth-root-authentication-method=normal", "--skip-test-db")
        path = str(self.folder / "database.socket")
        self._start_daemon("mariadbd", "mariadbd", *options, f"--socket={path}")
        self.wait(lambda: _answers(socket.AF_UNIX, path), "MariaDB answers")

    def _register(self) -> None:
        """Tell the accounting of the cluster, and of the QOS ``few``: at most five jobs of a user at a time."""
        self.run("sacctmgr", "-i", "add", "cluster", CLUSTER_NAME)
        self.run("sacctmgr", "-i", "add", "qos", "few", "MaxSubmitJobsPerUser=5")
        self.run("sacctmgr", "-i", "modify", "user", "root", "set", "qos=normal,few")

    def _node_states(self) -> set[str]:
        return set(self.run("sinfo", "-h", "-N", "-o", "%t").split())

    def _end_daemon(self, name: str, number: signal.Signals) -> None:
        self._order(end=name, signal=number)
        self._ended.add(name)

    def _start_daemon(self, name: str, *command: str, **environment: str) -> None:
        self._ended.discard(name)
        self._order(start=name, command=command, environment={**self.env, **environment})

    def _order(self, **order: object) -> Any:
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(json.dumps(order) + "\n")
        self._keeper.stdin.flush()
        return json.loads(self._answer())

    def _answer(self) -> str:
        assert self._keeper.stdout is not None
        line = self._keeper.stdout.readline()
        if not line:
            raise ClusterError("the keeper of the cluster has died")
        return line.rstrip("\n")

    def _last_words(self) -> str:
        """Return the last lines of every daemon's log."""
        logs = sorted((self.folder / "log").glob("*"))
        return "\n".join(f"--- {path.name}\n" + "\n".join(path.read_text().splitlines()[-5:]) for path in logs)


def _own_ports() -> tuple[socket.socket, int]:
    """Return the first port of a block that no other cluster has, and the lock that keeps it so while it is open."""
    for first in random.sample(PORT_BLOCKS, len(PORT_BLOCKS)):
        lock = socket.socket(socket.AF_UNIX)
        try:
            lock.bind(f"\0slurmkit-tests-ports-{first}")  # abstract: gone with its last holder, no file to remove
            for port in range(first, first + PORTS_OF_ONE):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("", port))
        except OSError:
            lock.close()
            continue
        return lock, first
    raise ClusterError(f"no {PORTS_OF_ONE} ports in a row are free in {PORT_BLOCKS}")


def _answers(family: socket.AddressFamily, address: str | tuple[str, int]) -> bool:
    with socket.socket(family) as probe:
        return probe.connect_ex(address) == 0
