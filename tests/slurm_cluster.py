"""A throw-away Slurm cluster on this machine: real daemons in one folder, on ports of their own, gone without a trace.

``python tests/slurm_cluster.py up [KIND]`` and ``down`` hold one for trying things by hand (``make slurm-up``).
"""

import getpass
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

PROGRAMS = ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "mariadb-install-db", "sbatch", "sacctmgr")
KEEPER = Path(__file__).with_name("slurm_keeper.py")
PORTS_OF_ONE = 8  # controller, accounting, and up to four nodes
PORT_BLOCKS = range(20_000, 32_000, PORTS_OF_ONE)  # below the ports that the kernel gives to outgoing connections
START_TIMEOUT_S = 60
SETTLE_TIMEOUT_S = 60

SLURM_CONF = """\
ClusterName={name}
SlurmctldHost=localhost
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# cred_expire is also how long a requeued job waits before it can start again (default 120 s)
AuthInfo=socket={folder}/munge.socket,cred_expire=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
ProctrackType=proctrack/{proctrack}
TaskPlugin=task/{task}
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1,max_rpc_cnt=0,default_queue_depth=1000
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout=6
MessageTimeout=10
KillWait=3
MinJobAge=60
MaxArraySize=1001
MaxJobCount=20000
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{accounting}
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefMemPerCPU=100 PriorityTier=1 PreemptMode=REQUEUE
PartitionName=urgent Nodes=ALL MaxTime=INFINITE DefMemPerCPU=100 PriorityTier=10 PreemptMode=OFF
PartitionName=short Nodes=ALL MaxTime=1 DefMemPerCPU=100 PriorityTier=1 PreemptMode=REQUEUE
"""
ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={port}
AccountingStoragePass={folder}/munge.socket
AccountingStorageEnforce=limits,qos
"""
NO_ACCOUNTING = "AccountingStorageType=accounting_storage/none\n"
NODE = "NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory={memory_mb}\n"
CGROUP_CONF = "CgroupAutomount=yes\nCgroupPlugin=cgroup/v1\nConstrainRAMSpace=yes\nConstrainSwapSpace=yes\n"
SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdPort={port}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
PidFile={folder}/slurmdbd.pid
"""
DATABASE_OPTIONS = (  # nothing of it outlives the cluster: no write need reach the disk
    "--no-defaults",
    "--user=root",
    "--skip-networking",
    "--innodb-buffer-pool-size=64M",
    "--innodb-log-file-size=16M",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
    "--skip-innodb-doublewrite",
)


@dataclass(frozen=True)
class Kind:
    """What differs between clusters.

    Attributes:
        nodes: how many nodes.
        cpus: of each node, declared; the machine may have fewer.
        accounting: whether slurmdbd and MariaDB run.
        memory_limits: whether cgroups (v1) hold each job to its memory, so that OUT_OF_MEMORY is real.
    """

    nodes: int
    cpus: int
    accounting: bool
    memory_limits: bool


KINDS = {
    "memory": Kind(nodes=1, cpus=64, accounting=True, memory_limits=True),
    "nodes": Kind(nodes=4, cpus=128, accounting=True, memory_limits=False),
    "bare": Kind(nodes=4, cpus=128, accounting=False, memory_limits=False),
}


class ClusterError(RuntimeError):
    """A cluster did not start, or did not do as told."""


def lacking() -> str:
    """Return why no cluster can run on this machine; empty if one can."""
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        return f"Slurm is not installed: no {', '.join(missing)} on PATH"
    return "" if os.geteuid() == 0 else f"a throw-away Slurm needs root, and this is {getpass.getuser()}"


class Cluster:
    """A Slurm cluster of its own: ``with Cluster("nodes") as cluster: cluster.run("sbatch", ...)``.

    Attributes:
        folder: everything of it; short, for a socket's path has at most 107 bytes.
        env: to be added to the environment of any program that shall use this cluster.
        nodes: names of the nodes.
    """

    def __init__(self, kind: str) -> None:
        self.kind = KINDS[kind]
        self.folder = Path(tempfile.mkdtemp(prefix="sk-"))
        self.env = {"SLURM_CONF": str(self.folder / "slurm.conf")}
        self._block: socket.socket | None = None
        self._keeper: subprocess.Popen[str] | None = None
        self.nodes = tuple(f"n{number}" for number in range(1, self.kind.nodes + 1))

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
