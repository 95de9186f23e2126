"""What the cluster lets in: how large an array may be, how many jobs, how much time and memory.

What seldom changes (configuration, partitions, QOS) is asked once an hour and kept for all shells; what is used of a
limit is asked of the controller each time, as it alone counts what it will hold against the next submission.
"""

import contextlib
import os
import pwd
import re
import time
from dataclasses import dataclass
from pathlib import Path

from slurmkit import files
from slurmkit.errors import SchedulerError, StoreError
from slurmkit.records import SCHEMA, Json
from slurmkit.resources import Resources, format_duration, format_memory, hours_in_words
from slurmkit.schedulers import Room
from slurmkit.schedulers.slurm import quotas
from slurmkit.schedulers.slurm.commands import call
from slurmkit.schedulers.slurm.quotas import Applicant, Partition, Usage

_KEEP_S = 3600
_DEFAULT_ARRAY_SIZE = 1001
"""MaxArraySize where nothing else is configured (``man slurm.conf``)."""

_CONFIG = ("MaxArraySize", "AccountingStorageEnforce", "SchedulerParameters")
"""What of the configuration is kept."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a cluster lets a person have.

    Attributes:
        array_size: numbers of tasks in an array are below this.
        enforced: whether limits of associations and QOS hold.
        partitions: by name.
        grants: accounts and QOS that the person may use.
        qos: limits of each.
    """

    array_size: int
    enforced: bool
    partitions: dict[str, Partition]
    grants: list[quotas.Grant]
    qos: dict[str, quotas.QosLimits]

    @classmethod
    def load(cls, folder: Path) -> "Limits":
        """Return the limits of the cluster that this machine submits to.

        Args:
            folder: where they are kept for an hour; a full disk is no obstacle.

        Raises:
            SchedulerError: the controller does not answer, and was never asked before.
        """
        path = folder / "cluster.json"
        kept = _kept(path)
        if kept is not None and 0 <= time.time() - kept["asked_at"] < _KEEP_S:
            return cls.from_json(kept)
        try:
            record = _ask()
        except SchedulerError:
            if kept is None:
                raise
            return cls.from_json(kept)
        if record["complete"]:
            with contextlib.suppress(StoreError, OSError):
                folder.mkdir(parents=True, exist_ok=True)
                files.write_json(path, record, mode=0o600, durable=False)
        return cls.from_json(record)

    @classmethod
    def from_json(cls, record: dict[str, Json]) -> "Limits":
        """Read what Slurm's programs printed (see `_ask`)."""
        config: dict[str, str] = record["config"]
        size = int(config.get("MaxArraySize", _DEFAULT_ARRAY_SIZE))
        tasks = re.search(r"\bmax_array_tasks=(\d+)", config.get("SchedulerParameters", ""))
        return cls(
            array_size=max(1, min(size, int(tasks[1])) if tasks else size),
            enforced=_enforced(config),
            partitions=quotas.parse_partitions(record["partitions"], record["nodes"]),
            grants=quotas.parse_grants(record["grants"]),
            qos=quotas.parse_qos(record["qos"]),
        )

    def room(self, resources: Resources) -> Room | None:
        """Return how many more jobs this person may submit now; each task of an array is one.

        Returns:
            None: no limit is known. What stands in the way of asking is met by the submission itself.
        """
        usage = self._usage()
        if usage is None:
            return None
        who = self._applicant(resources, usage)
        bounds = quotas.bounds_of_jobs(who, usage, self.qos)
        if not bounds:
            return None
        tightest = min(bounds, key=lambda bound: bound.limit - bound.used)
        verb = "is" if tightest.used == 1 else "are"
        why = f"{tightest.whose} have {_count(tightest.limit, 'job')} submitted, {tightest.used:,} {verb}"
        return Room(max(0, tightest.limit - tightest.used), why)

    def partition(self, name: str | None) -> Partition | None:
        """Return a partition, or what several of them (``a,b``) allow at most.

        Args:
            name: None: where jobs go that name none.

        Returns:
            None: there is none such.
        """
        name = name or os.environ.get("SBATCH_PARTITION")
        if name is None:
            return next((one for one in self.partitions.values() if one.default), None)
        found = [self.partitions.get(one) for one in name.split(",")]
        return None if None in found else quotas.any_of([one for one in found if one])

    def memory_cap(self, resources: Resources) -> tuple[int, str] | None:
        """Return the most memory that one run can have, in MiB, and why; None: not known."""
        partition = self.partition(resources.partition)
        if partition is None or partition.max_mem_mb is None:
            return None
        why = f"a job on partition {partition.name} can have {format_memory(partition.max_mem_mb)} a node"
        if resources.pack > 1:
            why += f", shared by {resources.pack} packed runs"
        return partition.max_mem_mb // resources.pack, why

    def forecast(self, resources: Resources, runs: int) -> list[str]:
        """Say what runs with these resources may use up, and which known limits that breaks, a line each."""
        partition = self.partition(resources.partition)
        if partition is None and resources.partition and self.partitions:
            known = ", ".join(self.partitions)
            return [f"partition {resources.partition}: this cluster has none of that name. It has: {known}."]
        time_s = resources.time_s or (partition and (partition.default_time_s or partition.max_time_s))
        lines = [hours_in_words(resources, runs, time_s)]
        if partition is not None:
            lines += _against_partition(resources, partition)
        return [*lines, *self._against_minutes(resources, runs, time_s)] if time_s else lines

    def _against_minutes(self, resources: Resources, runs: int, time_s: int) -> list[str]:
        """Compare with how many minutes of CPUs and GPUs an account or QOS has left."""
        usage = self._usage()
        if usage is None:
            return []
        who = self._applicant(resources, usage)
        minutes = runs * time_s / 60 * resources.nodes
        asked = {
            "cpu": ("CPU", minutes * resources.cpus),
            "gres/gpu": ("GPU", minutes * resources.gpus / resources.pack),
        }
        return [
            f"{bound.whose} has {max(0, bound.limit - bound.used) / 60:,.1f} of {bound.limit / 60:,.1f} {word}-hours "
            f"left, and these may use {wanted / 60:,.1f} (GrpTRESMins)"
            for resource, (word, wanted) in asked.items()
            for bound in quotas.bounds_of_minutes(who, usage, resource)
            if wanted > bound.limit - bound.used
        ]

    def _applicant(self, resources: Resources, usage: Usage) -> Applicant:
        account = resources.account or os.environ.get("SBATCH_ACCOUNT") or usage.default_account
        partition = self.partition(resources.partition)
        name = partition.name if partition else ""
        qos = resources.qos or os.environ.get("SBATCH_QOS") or quotas.default_qos(self.grants, account, name)
        first = [partition.qos] if partition and partition.qos else []
        return Applicant(_user(), os.getuid(), account, name, tuple(dict.fromkeys([*first, qos])))

    def _usage(self) -> Usage | None:
        """Ask the controller what it counts; None: nothing is counted, or it cannot be told."""
        if not self.enforced:
            return None
        try:
            return quotas.parse_usage(
                call("scontrol", "show", "assoc_mgr", f"users={_user()}", "flags=users,assoc,qos")
            )
        except SchedulerError:
            return None


def _against_partition(resources: Resources, partition: Partition) -> list[str]:
    """Name what no job in a partition can have."""
    found: list[str] = []
    where = f"partition {partition.name}"
    if resources.time_s and partition.max_time_s and resources.time_s > partition.max_time_s:
        asked, most = format_duration(resources.time_s), format_duration(partition.max_time_s)
        found.append(f"{where} takes jobs of up to {most}, and these ask for {asked}: they would never start")
    mem_mb = (resources.mem_mb or 0) * resources.pack
    if partition.max_mem_mb and mem_mb > partition.max_mem_mb:
        most = format_memory(partition.max_mem_mb)
        found.append(f"{where} gives a job up to {most} a node, and these ask for {format_memory(mem_mb)}")
    if resources.gpus > partition.gpus:
        found.append(f"{where} has at most {_count(partition.gpus, 'GPU')} a node, and these ask for {resources.gpus}")
    return found


def _ask() -> dict[str, Json]:
    """Ask for what seldom changes.

    Returns:
        the printed texts, to be kept; ``complete``: False where accounting did not answer (it may, later).
    """
    config = quotas.parse_config(call("scontrol", "show", "config"))
    record: dict[str, Json] = {
        "schema": SCHEMA,
        "cluster": _cluster(),
        "asked_at": time.time(),
        "config": {name: config[name] for name in _CONFIG if name in config},
        "partitions": call("scontrol", "--all", "show", "partition", "--oneliner"),
        "nodes": call("sinfo", "--all", "--noheader", "--exact", "--format=%R|%m|%G"),
        "grants": "",
        "qos": "",
        "complete": True,
    }
    if _enforced(config):
        show = ("sacctmgr", "--noheader", "--parsable2", "show")
        name = f"cluster={config.get('ClusterName', '')}"
        try:
            columns = "format=Account,Partition,DefaultQOS,QOS"
            record["grants"] = call(*show, "assoc", "where", f"user={_user()}", name, columns)
            columns = "format=Name,MaxSubmitPU,MaxSubmitPA,GrpSubmit"
            record["qos"] = call(*show, "qos", columns)
        except SchedulerError:
            record["complete"] = False
    return record


def _kept(path: Path) -> dict[str, Json] | None:
    """Return what was asked before, of this cluster and for this person; None: nothing."""
    try:
        record = files.read_json(path)
        fits = record["schema"] == SCHEMA and record["cluster"] == _cluster() and record["asked_at"] >= 0
        Limits.from_json(record)
    except (FileNotFoundError, StoreError, KeyError, TypeError, ValueError, AttributeError):
        return None
    return record if fits else None


def _cluster() -> list[Json]:
    """Return what the answers depend on."""
    return [os.environ.get("SLURM_CONF", ""), os.environ.get("SLURM_CLUSTERS", ""), os.getuid()]


def _enforced(config: dict[str, str]) -> bool:
    """Say whether limits hold (``man slurm.conf``, AccountingStorageEnforce)."""
    return not {"limits", "safe", "all"}.isdisjoint(config.get("AccountingStorageEnforce", "").lower().split(","))


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
