"""Running jobs: their processes, their memory, their time, and how they are ended."""

import signal
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime

from slurmkit.resources import format_duration, format_memory
from slurmkit.schedulers.local import processes
from slurmkit.schedulers.local.processes import Process
from slurmkit.schedulers.local.state import Job, Record
from slurmkit.states import JobState

SAMPLE_S = 0.2
"""Time between two looks at the memory of running jobs."""
SAMPLE_SHARE = 0.05
"""Largest part of one CPU that these looks may take; on a machine with very many processes they come less often."""
GRACE_S = 30.0
"""From SIGTERM to SIGKILL: Slurm's KillWait by default. Enough to write a checkpoint that is nearly done."""
SHORT_GRACE_S = 5.0
"""The least of it, for jobs whose time limit is shorter than `GRACE_S`: theirs is as long as their limit."""
MEMORY_GRACE_S = 30.0
"""What a worker has to write down its outcome after its children were killed for their memory, unless it takes more."""
WARN_SHARE = 0.25
"""A job is warned of its end no earlier than in the last quarter of its time."""


@dataclass(slots=True)
class Running:
    """A running job, as its supervisor sees it.

    Attributes:
        worker: its process, as read at its start; signals go to it alone, and it passes them on.
        ours: it is a child of this supervisor (else it was adopted).
        descriptor: pidfd of an adopted worker.
        began: Unix time of the start.
        peak_mb: largest memory seen.
        members: ids and start times of processes once seen in its tree; they stay its own when their parent dies.
        killed: likewise, of those that were killed for their memory, and may take a moment to give it back.
        kill_at: when all of it will be killed (monotonic); None: nobody ends it.
        ended: exit code and signal of the worker, once it has ended; both None: it vanished.
    """

    job: Job
    number: int
    worker: Process
    ours: bool
    descriptor: int | None = None
    peak_mb: float = 0.0
    members: dict[int, int] = field(default_factory=dict[int, int])
    killed: dict[int, int] = field(default_factory=dict[int, int])
    kill_at: float | None = None
    ended: tuple[int | None, int | None] | None = None

    @property
    def began(self) -> float:
        """Unix time of the start."""
        assert self.job.started_at is not None, "a running job has a start"
        return datetime.fromisoformat(self.job.started_at).timestamp()

    def tree(self, seen: dict[int, Process]) -> set[int]:
        """Return the ids of its living processes among those seen, and remember them."""
        roots = [pid for pid, ticks in self.members.items() if pid in seen and seen[pid].ticks == ticks]
        if self.worker.pid in seen and seen[self.worker.pid].ticks == self.worker.ticks:
            roots.append(self.worker.pid)
        pids = processes.family(seen, roots)
        self.members = {pid: seen[pid].ticks for pid in pids}
        return pids


def sample_memory(running: Collection[Running]) -> list[tuple[Running, Record]]:
    """Measure the memory of jobs; return those over their limit, each with the verdict to record.

    One that takes as much again while it has time to write down its outcome has no more of it.
    """
    seen = processes.all_processes()
    verdicts: list[tuple[Running, Record]] = []
    for one in running:
        pids = {pid for pid in one.tree(seen) if one.killed.get(pid) != seen[pid].ticks}
        used_mb = sum(seen[pid].rss_mb for pid in pids)
        limit_mb = one.job.mem_mb
        over = limit_mb is not None and used_mb > limit_mb
        if over:  # pages that its processes share were counted once for each: look closer
            used_mb = processes.proportional_mb(pids)
        one.peak_mb = max(one.peak_mb, used_mb)
        if limit_mb is None or used_mb <= limit_mb:
            continue
        if one.killed:
            one.kill_at = time.monotonic()
        elif one.job.verdict is None and one.kill_at is None:
            who = "1 process" if len(pids) == 1 else f"{len(pids)} processes"
            evidence = f"{format_memory(used_mb)} used by {who}, limit {format_memory(limit_mb)}"
            verdicts.append((one, verdict(one.job, JobState.OUT_OF_MEMORY, evidence)))
    return verdicts


def judge_time(one: Running) -> Record | None:
    """Return what the clock says of a running job: a warning, a verdict, or nothing new."""
    job = one.job
    if job.time_s is None or job.verdict is not None or job.cancelled:
        return None
    ran_s = time.time() - one.began
    if ran_s >= job.time_s:
        evidence = f"ran {format_duration(ran_s)}, limit {format_duration(job.time_s)}"
        return verdict(job, JobState.TIMEOUT, evidence)
    if ran_s >= job.time_s - warning_s(job) and not job.warned:
        return {"event": "warned", "job": job.id}
    return None


def warning_s(job: Job) -> float:
    """Return how long before its limit a job is warned."""
    assert job.time_s is not None, "only a job with a limit is warned"
    return min(job.warn_s, job.time_s * WARN_SHARE)


def verdict(job: Job, state: JobState, evidence: str) -> Record:
    """Return the record of a decision to end a job. It is written first and carried out then."""
    return {"event": "verdict", "job": job.id, "state": state.value, "evidence": evidence}


def begin_end(one: Running) -> None:
    """Begin to end a job that is cancelled or has a verdict: gently, but for memory."""
    if one.job.verdict is not None and one.job.verdict[0] is JobState.OUT_OF_MEMORY:
        one.kill_at = time.monotonic() + MEMORY_GRACE_S
        _free_memory(one)
        return
    one.kill_at = time.monotonic() + min(GRACE_S, max(SHORT_GRACE_S, one.job.time_s or GRACE_S))
    processes.send(one.worker, signal.SIGTERM)


def _free_memory(one: Running) -> None:
    """Kill what the worker has started, and the worker at once only if the memory is its own."""
    seen = processes.all_processes()
    tree = one.tree(seen)
    workers = {one.worker.pid, *processes.own_interpreter(seen, one.worker)} & tree
    below = tree - workers
    one.killed = {pid: seen[pid].ticks for pid in below}
    _kill([seen[pid] for pid in below])
    assert one.job.mem_mb is not None, "the verdict was over a limit"
    if not below or processes.proportional_mb(workers) > one.job.mem_mb:
        _kill([seen[pid] for pid in workers])


def kill_trees(running: Collection[Running]) -> set[str]:
    """Kill all processes of jobs; return the ids of jobs of which some were left to kill."""
    if not running:
        return set()
    seen = processes.all_processes(since=[one.worker for one in running])
    oldest = min(one.worker.ticks for one in running)
    marked = processes.marked(seen, {one.job.id for one in running}, since=oldest)
    left: set[str] = set()
    for one in running:
        pids = one.tree(seen) | marked[one.job.id]
        if pids:
            left.add(one.job.id)
            _kill([seen[pid] for pid in pids])
    return left


def _kill(targets: Collection[Process]) -> None:
    for process in targets:
        processes.send(process, signal.SIGKILL)
