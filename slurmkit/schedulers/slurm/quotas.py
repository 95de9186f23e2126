"""Pure: from what Slurm's programs print to what the cluster lets a person have.

Where several limits of a kind are set, Slurm uses the first that it finds: of the partition's QOS, of the job's QOS, of
the association (``resource_limits.html``). Groups above an association all count.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from slurmkit.resources import parse_time_s

DEFAULT_QOS = "normal"
"""What Slurm takes where nothing else is said."""


class Quota(NamedTuple):
    """A limit and what is used of it; a limit of None: there is none."""

    limit: int | None = None
    used: int = 0


NO_QUOTA = Quota()


class Bound(NamedTuple):
    """A limit that holds for somebody, and whose it is, in words."""

    limit: int
    used: int
    whose: str


class Partition(NamedTuple):
    """A partition, or several that a job may choose from.

    Attributes:
        name: of it.
        default: whether jobs go there that name none.
        max_time_s: longest limit that a job may ask for; None: any.
        default_time_s: what a job has that asks for none; None: the longest.
        max_mem_mb: what a job can have on one node, at most, in MiB; None: not known.
        gpus: the most on one node.
        qos: whose limits hold for all its jobs; empty: none.
    """

    name: str
    default: bool
    max_time_s: int | None
    default_time_s: int | None
    max_mem_mb: int | None
    gpus: int
    qos: str


class Grant(NamedTuple):
    """What accounting lets a person use: an account (for one partition, or all: empty) with some QOS."""

    account: str
    partition: str
    default_qos: str
    qos: tuple[str, ...]


class QosLimits(NamedTuple):
    """Limits of jobs submitted under a QOS."""

    user: int | None = None
    account: int | None = None
    group: int | None = None


@dataclass(slots=True)
class Association:
    """A user in an account, or (no user) an account, with what is used by it."""

    account: str
    user: str = ""
    partition: str = ""
    parent: str = ""
    submitted: Quota = NO_QUOTA
    group_submitted: Quota = NO_QUOTA
    group_minutes: dict[str, Quota] = field(default_factory=dict[str, Quota])


@dataclass(slots=True)
class QosUse:
    """What is used of a QOS: by all, by account, and by user (their numbers)."""

    submitted: Quota = NO_QUOTA
    minutes: dict[str, Quota] = field(default_factory=dict[str, Quota])
    accounts: dict[str, Quota] = field(default_factory=dict[str, Quota])
    users: dict[str, Quota] = field(default_factory=dict[str, Quota])


@dataclass(slots=True)
class Usage:
    """What the controller counts now (``scontrol show assoc_mgr``)."""

    default_account: str = ""
    associations: list[Association] = field(default_factory=list[Association])
    qos: dict[str, QosUse] = field(default_factory=dict[str, QosUse])


@dataclass(frozen=True, slots=True)
class Applicant:
    """Who wants to submit, and where.

    Attributes:
        user, uid: the person.
        account: what the job is charged to.
        partition: its name; empty: not known.
        qos: those whose limits hold, first the partition's.
    """

    user: str
    uid: int
    account: str
    partition: str
    qos: tuple[str, ...]


def parse_config(text: str) -> dict[str, str]:
    """Read ``scontrol show config``."""
    return dict(re.findall(r"^(\w+)\s*= (.*?)\s*$", text, re.MULTILINE))


def parse_partitions(text: str, nodes: str) -> dict[str, Partition]:
    """Read ``scontrol show partition --oneliner``.

    Args:
        text: what it printed.
        nodes: what sinfo printed: ``partition|MiB|generic resources``, a line a kind of node.
    """
    memory: dict[str, int] = {}
    gpus: dict[str, int] = {}
    for name, mem_mb, gres in (line.split("|", 2) for line in nodes.splitlines() if line.count("|") >= 2):
        memory[name] = max(memory.get(name, 0), int(re.sub(r"\D.*", "", mem_mb) or 0))
        gpus[name] = max(gpus.get(name, 0), sum(map(int, re.findall(r"\bgpu(?::[^:,(]+)?:(\d+)", gres))))
    found: dict[str, Partition] = {}
    for pairs in map(_pairs, text.splitlines()):
        if "PartitionName" in pairs:
            name = pairs["PartitionName"]
            allowed = _number(pairs.get("MaxMemPerNode", ""))
            sizes = [size for size in (memory.get(name), allowed) if size]
            found[name] = Partition(
                name=name,
                default=pairs.get("Default") == "YES",
                max_time_s=_time_s(pairs.get("MaxTime", "")),
                default_time_s=_time_s(pairs.get("DefaultTime", "")),
                max_mem_mb=min(sizes, default=None),
                gpus=gpus.get(name, 0),
                qos="" if pairs.get("QoS", "N/A") == "N/A" else pairs["QoS"],
            )
    return found


def any_of(partitions: Sequence[Partition]) -> Partition:
    """Return the most that a job can have that may start in any of several partitions."""
    times = [partition.max_time_s for partition in partitions]
    sizes = [partition.max_mem_mb for partition in partitions]
    if len(partitions) == 1:
        return partitions[0]
    return Partition(
        name=",".join(partition.name for partition in partitions),
        default=False,
        max_time_s=None if None in times else max(filter(None, times)),
        default_time_s=None,
        max_mem_mb=None if None in sizes else max(filter(None, sizes)),
        gpus=max(partition.gpus for partition in partitions),
        qos="",
    )


def parse_grants(text: str) -> list[Grant]:
    """Read ``sacctmgr show assoc format=Account,Partition,DefaultQOS,QOS`` of a person."""
    rows = (line.split("|") for line in text.splitlines() if line.count("|") == 3)
    return [Grant(account, partition, default, tuple(qos.split(","))) for account, partition, default, qos in rows]


def parse_qos(text: str) -> dict[str, QosLimits]:
    """Read ``sacctmgr show qos format=Name,MaxSubmitPU,MaxSubmitPA,GrpSubmit``."""
    rows = (line.split("|") for line in text.splitlines() if line.count("|") == 3)
    return {name: QosLimits(_number(user), _number(account), _number(group)) for name, user, account, group in rows}


def parse_usage(text: str) -> Usage:
    """Read ``scontrol show assoc_mgr flags=users,assoc,qos``."""
    usage = Usage()
    for pairs in _records(text):
        if "QOS" in pairs:
            usage.qos[_word(pairs["QOS"])] = _qos_use(pairs)
        elif "Account" in pairs:
            usage.associations.append(
                Association(
                    account=pairs["Account"],
                    user=_word(pairs.get("UserName", "")),
                    partition=pairs.get("Partition", ""),
                    parent=_word(pairs.get("ParentAccount", "")),
                    submitted=_quota(pairs.get("MaxSubmitJobs", "")),
                    group_submitted=_quota(pairs.get("GrpSubmitJobs", "")),
                    group_minutes=_by_resource(pairs),
                )
            )
        elif "DefAccount" in pairs:
            usage.default_account = pairs["DefAccount"]
    return usage


def _records(text: str) -> Iterator[dict[str, str]]:
    """Yield each record; limits of single accounts and users get their name: ``MaxSubmitJobsPA of lab``."""
    record: dict[str, str] = {}
    owner = ""
    for line in text.splitlines():
        pairs = _pairs(line)
        if pairs and not line[0].isspace():
            yield record
            record, owner = {}, ""
        elif not pairs:
            owner = line.strip()
        record |= {f"{name} of {owner}" if owner and line[:1].isspace() else name: v for name, v in pairs.items()}
    yield record


def _qos_use(pairs: dict[str, str]) -> QosUse:
    use = QosUse(_quota(pairs.get("GrpSubmitJobs", "")), _by_resource(pairs))
    for name, value in pairs.items():
        kind, _, owner = name.partition(" of ")
        if kind == "MaxSubmitJobsPA":
            use.accounts[owner] = _quota(value)
        elif kind == "MaxSubmitJobsPU":
            use.users[owner] = _quota(value)
    return use


def _by_resource(pairs: dict[str, str]) -> dict[str, Quota]:
    words = [word.partition("=") for word in pairs.get("GrpTRESMins", "").split(",")]
    return {name: _quota(value) for name, _, value in words if name}


def bounds_of_jobs(who: Applicant, usage: Usage, limits: dict[str, QosLimits]) -> list[Bound]:
    """Return the limits of jobs submitted (running ones count) that hold for somebody."""
    chain = list(_chain(who, usage))
    group = _first(
        Bound(limit, use.submitted.used, f"QOS {name} lets all users together")
        for name, use in _uses(who, usage)
        if (limit := _or(use.submitted.limit, limits.get(name, QosLimits()).group)) is not None
    ) or [
        Bound(one.group_submitted.limit, one.group_submitted.used, f"{_named(one)} lets all in it together")
        for one in chain
        if one.group_submitted.limit is not None
    ]
    per_account = _first(
        Bound(limit, quota.used, f"QOS {name} lets an account")
        for name, use in _uses(who, usage)
        for quota in [use.accounts.get(who.account, NO_QUOTA)]
        if (limit := _or(quota.limit, limits.get(name, QosLimits()).account)) is not None
    )
    per_user = _first(
        Bound(limit, quota.used, f"QOS {name} lets a user")
        for name, use in _uses(who, usage)
        for quota in [use.users.get(str(who.uid), NO_QUOTA)]
        if (limit := _or(quota.limit, limits.get(name, QosLimits()).user)) is not None
    )
    own = [
        Bound(one.submitted.limit, one.submitted.used, f"account {one.account} lets {one.user}")
        for one in chain
        if one.user and one.submitted.limit is not None
    ]
    return [*group, *(per_account + per_user or own)]


def bounds_of_minutes(who: Applicant, usage: Usage, resource: str) -> list[Bound]:
    """Return the limits of minutes of a resource (``cpu``, ``gres/gpu``) that hold for somebody."""
    by_qos = (
        Bound(quota.limit, quota.used, f"QOS {name}")
        for name, use in _uses(who, usage)
        if (quota := use.minutes.get(resource, NO_QUOTA)).limit is not None
    )
    return _first(by_qos) or [
        Bound(quota.limit, quota.used, _named(one))
        for one in _chain(who, usage)
        if (quota := one.group_minutes.get(resource, NO_QUOTA)).limit is not None
    ]


def default_qos(grants: Iterable[Grant], account: str, partition: str) -> str:
    """Return the QOS of a job that asks for none, as Slurm chooses it."""
    fitting = [one for one in grants if one.account == account and one.partition in {"", partition}]
    grant = max(fitting, key=lambda one: bool(one.partition), default=Grant(account, "", "", ()))
    only = grant.qos[0] if len(grant.qos) == 1 else ""
    return grant.default_qos or only or DEFAULT_QOS


def _uses(who: Applicant, usage: Usage) -> Iterator[tuple[str, QosUse]]:
    return ((name, usage.qos.get(name, QosUse())) for name in who.qos)


def _chain(who: Applicant, usage: Usage) -> Iterator[Association]:
    """Yield a person's association, then the accounts above it."""
    own = [a for a in usage.associations if (a.account, a.user) == (who.account, who.user)]
    here = [one for one in own if one.partition and one.partition == who.partition]
    yield from (here or [one for one in own if not one.partition])[:1]
    accounts = {one.account: one for one in usage.associations if not one.user}
    above = who.account
    while above in accounts:
        one = accounts.pop(above)  # popped: a circle would end
        yield one
        above = one.parent


def _named(one: Association) -> str:
    return f"account {one.account}" + (f" (user {one.user})" if one.user else "")


def _first(bounds: Iterator[Bound]) -> list[Bound]:
    """Return the first, in a list, or an empty list."""
    return [bound for bound in [next(bounds, None)] if bound]


def _or(first: int | None, second: int | None) -> int | None:
    return second if first is None else first


def _pairs(line: str) -> dict[str, str]:
    return dict(re.findall(r"(\S+?)=(\S*)", line))


def _word(text: str) -> str:
    """Return a name without its number: ``root(0)``."""
    return text.partition("(")[0]


def _quota(text: str) -> Quota:
    """Read ``7(2)``: a limit and what is used of it; ``N(2)``: no limit."""
    limit, _, used = text.partition("(")
    return Quota(_number(limit), _number(used.rstrip(")")) or 0)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _time_s(text: str) -> int | None:
    return parse_time_s(text) if re.fullmatch(r"[\d:-]*[1-9][\d:-]*", text) else None
