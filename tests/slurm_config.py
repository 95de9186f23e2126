"""The configuration of the test clusters: what each kind is, and the files that Slurm's daemons read."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

CLUSTER_NAME = "throwaway"
MEMORY_MB = 64_000  # of each node, declared
PARTITIONS = ("main", "short", "urgent")
MESSAGE_TIMEOUT_S = 60  # so long Slurm's programs and daemons wait for an answer
CRED_EXPIRE_S = {"slurm.conf": 8, "node.conf": 600}
"""What one setting means, by the file that they read, to the controller (how long a requeued job waits before it can
start again; 120 s by default, and for values below 5) and to a node (how long a job's launch may take)."""


@dataclass(frozen=True)
class Kind:
    """What differs between clusters.

    Attributes:
        nodes: how many nodes.
        cpus: of each node, declared; the machine may have fewer.
        accounting: whether slurmdbd and MariaDB run.
        memory_limits: whether cgroups (v1) hold each job to its memory, so that OUT_OF_MEMORY is real.
        usage_interval_s: how often each step reads all of /proc for its usage. With 1 s, 500 jobs at once leave two
            CPUs no time for anything else.
    """

    nodes: int
    cpus: int
    accounting: bool
    memory_limits: bool
    usage_interval_s: int


KINDS = {
    "memory": Kind(nodes=4, cpus=64, accounting=True, memory_limits=True, usage_interval_s=1),
    "nodes": Kind(nodes=4, cpus=64, accounting=True, memory_limits=False, usage_interval_s=30),
    "bare": Kind(nodes=4, cpus=64, accounting=False, memory_limits=False, usage_interval_s=30),
}

SLURM_CONF = """\
ClusterName={name}
SlurmctldHost=localhost
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire={cred_expire_s}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
ProctrackType=proctrack/{proctrack}
TaskPlugin=task/{task}
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=1,default_queue_depth=1000
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency={usage_interval_s}
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
# What is slow is never given up, for a machine can stand still. A node that falls is made known by Cluster.kill_node.
SlurmdTimeout=120
MessageTimeout={message_timeout_s}
TCPTimeout=30
BatchStartTimeout=300
KillWait=60
UnkillableStepTimeout=600
MinJobAge=3600
MaxArraySize=1001
MaxJobCount=20000
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{accounting}{nodes}\
PartitionName=DEFAULT Nodes=ALL MaxTime=INFINITE DefMemPerCPU=100
PartitionName=main Default=YES PriorityTier=1 PreemptMode=REQUEUE
PartitionName=short MaxTime=1 PriorityTier=1 PreemptMode=REQUEUE
PartitionName=urgent PriorityTier=10 PreemptMode=OFF
"""
NODE = "NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory={memory_mb}\n"
ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={port}
AccountingStoragePass={folder}/munge.socket
AccountingStorageEnforce=limits,qos
"""
NO_ACCOUNTING = "AccountingStorageType=accounting_storage/none\n"
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
MessageTimeout=60
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


def controller_port(first: int) -> int:
    """Return slurmctld's port in a block of ports."""
    return first


def accounting_port(first: int) -> int:
    """Return slurmdbd's port in a block of ports; those of the nodes follow."""
    return first + 1


def write_configuration(folder: Path, kind: Kind, nodes: tuple[str, ...], first_port: int) -> None:
    """Write the files that the daemons of a cluster read, and the folders that they write to."""
    for name in ("log", "out", "spool", "state"):
        (folder / name).mkdir()
    accounting = {"folder": folder, "port": accounting_port(first_port)}
    rows = [
        NODE.format(name=name, port=accounting_port(first_port) + at, cpus=kind.cpus, memory_mb=MEMORY_MB)
        for at, name in enumerate(nodes, start=1)
    ]
    for file, cred_expire_s in CRED_EXPIRE_S.items():
        conf = SLURM_CONF.format(
            name=CLUSTER_NAME,
            folder=folder,
            port=controller_port(first_port),
            cred_expire_s=cred_expire_s,
            proctrack="cgroup" if kind.memory_limits else "linuxproc",
            task="cgroup" if kind.memory_limits else "none",
            message_timeout_s=MESSAGE_TIMEOUT_S,
            usage_interval_s=kind.usage_interval_s,
            accounting=ACCOUNTING.format(**accounting) if kind.accounting else NO_ACCOUNTING,
            nodes="".join(rows),
        )
        (folder / file).write_text(conf)
    (folder / "cgroup.conf").write_text(CGROUP_CONF)
    secret = {"slurmdbd.conf": SLURMDBD_CONF.format(**accounting).encode(), "munge.key": os.urandom(128)}
    for name, content in secret.items():
        (folder / name).touch(mode=0o600)  # the daemons refuse what others can read
        (folder / name).write_bytes(content)


def set_message_timeout(folder: Path, seconds: int) -> None:
    """Change how long Slurm's programs wait for an answer, and for a controller to be there, from now on."""
    conf, new = folder / "slurm.conf", folder / "slurm.conf.new"
    new.write_text(re.sub(r"^MessageTimeout=\d+$", f"MessageTimeout={seconds}", conf.read_text(), flags=re.MULTILINE))
    new.rename(conf)
