"""What a queue's journal says: jobs, their order, who waits for whom. Pure: records in, state out."""

import heapq
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from slurmkit.schedulers import JobReport
from slurmkit.states import JobState

Record = dict[str, Any]


@dataclass(slots=True)
class Batch:
    """Jobs that were submitted together, and what they share.

    Attributes:
        id: of the batch; its jobs are called ``<id>_<index>``.
        token: the submitter's own name for the submission, if it gave one.
        folder: submitit's folder.
        python: command line of the interpreter that runs the jobs.
        like: what decides whether a job may be forked from the supervisor (see `launch.interpreter_fingerprint`).
        environment: name of the file with the submitter's environment variables.
        cwd, umask: of the submitter.
        jobs: ids, in order.
        open: how many of them have not ended.
    """

    id: str
    token: str | None
    folder: str
    python: list[str]
    like: str
    environment: str
    cwd: str
    umask: int
    submitted_at: str
    jobs: list[str] = field(default_factory=list[str])
    open: int = 0


@dataclass(slots=True)
class Job:
    """One job of the queue and where it stands.

    Attributes:
        place: position in the queue; a job that is queued again keeps it.
        cpus, gpus, mem_mb, time_s: what it asks for; None: no limit.
        warn_s: how long before the time limit it is told (SIGUSR2).
        after: ids of the jobs that must complete first.
        anyhow: it is enough that these have ended.
        waits_for: how many of them have not.
        restarts: how often it has been queued again; also the number of its current start.
        boot: the machine's boot id when it was started.
        gpu_ids: devices that it has been given.
        cancelled: somebody asked for its end.
        warned: it was told that its time will soon be over.
        verdict: why the supervisor is ending it, and the evidence.
    """

    id: str
    batch: str
    place: int
    cpus: int
    gpus: int
    mem_mb: int | None
    time_s: float | None
    warn_s: float
    after: tuple[str, ...]
    anyhow: bool = False
    waits_for: int = 0
    state: JobState = JobState.PENDING
    restarts: int = 0
    boot: str = ""
    gpu_ids: tuple[str, ...] = ()
    started_at: str | None = None
    ended_at: str | None = None
    cancelled: bool = False
    warned: bool = False
    verdict: tuple[JobState, str] | None = None
    evidence: str = ""
    exit_code: int | None = None
    signal: int | None = None
    peak_rss_mb: float | None = None

    def report(self) -> JobReport:
        """Return what the queue tells others of the job."""
        why = ""
        if self.state is JobState.PENDING:
            why = f"waits for {self.waits_for} other job(s)" if self.waits_for else "waits for a free slot"
        return JobReport(
            state=self.state,
            evidence=self.evidence,
            exit_code=self.exit_code,
            signal=self.signal,
            peak_rss_mb=self.peak_rss_mb,
            started_at=self.started_at,
            ended_at=self.ended_at,
            restarts=self.restarts,
            why_pending=why,
        )


class QueueState:
    """All jobs that the journal holds. Changed by `apply` alone.

    Args:
        look_up: finds the state of a job that has left the journal for the archive; None: nobody knows it.
    """

    def __init__(self, look_up: Callable[[str], JobState | None]) -> None:
        self.jobs: dict[str, Job] = {}
        self.batches: dict[str, Batch] = {}
        self.tokens: dict[str, str] = {}
        self.running: dict[str, None] = {}
        self._ready: list[tuple[int, str]] = []
        self._dependents: dict[str, list[str]] = {}
        self._look_up = look_up
        self._places = 0

    def apply(self, record: Record) -> None:
        """Move on by one record. A record that no longer fits (a job that has ended meanwhile) changes nothing."""
        match record["event"]:
            case "submit":
                self._submit(record)
            case "cancel":
                for job_id in record["jobs"]:
                    self._cancel(job_id, record["time"])
            case "journal":
                pass
            case event:
                job = self.jobs.get(record["job"])
                if job is not None and not job.state.ended:
                    self._move(job, event, record)

    def ready(self) -> Iterator[Job]:
        """Yield, in queue order, the pending jobs that wait for nothing but a slot."""
        passed: list[tuple[int, str]] = []
        try:
            while self._ready:
                entry = heapq.heappop(self._ready)
                job = self.jobs[entry[1]]
                again = bool(passed) and passed[-1] == entry  # a replayed start leaves its entry behind
                if job.state is JobState.PENDING and not again:
                    passed.append(entry)
                    yield job
        finally:
            for entry in passed:
                if self.jobs[entry[1]].state is JobState.PENDING:
                    heapq.heappush(self._ready, entry)

    @property
    def active(self) -> bool:
        """Whether any job is pending or running."""
        return any(batch.open for batch in self.batches.values())

    def _submit(self, record: Record) -> None:
        batch = Batch(
            id=record["batch"],
            token=record.get("token"),
            folder=record["folder"],
            python=record["python"],
            like=record["like"],
            environment=record["environment"],
            cwd=record["cwd"],
            umask=record["umask"],
            submitted_at=record["time"],
        )
        self.batches[batch.id] = batch
        if batch.token is not None:
            self.tokens[batch.token] = batch.id
        for index, asked in enumerate(record["jobs"]):
            self._places += 1
            job = Job(
                id=f"{batch.id}_{index}",
                batch=batch.id,
                place=self._places,
                cpus=asked.get("cpus", 1),
                gpus=asked.get("gpus", 0),
                mem_mb=asked.get("mem_mb"),
                time_s=asked.get("time_s"),
                warn_s=asked.get("warn_s", 30.0),
                after=tuple(asked.get("after", ())),
                anyhow=asked.get("anyhow", False),
            )
            self.jobs[job.id] = job
            batch.jobs.append(job.id)
        batch.open = len(batch.jobs)
        for job_id in batch.jobs:  # after all are known: they may wait for each other, in any order
            self._wait_for_others(self.jobs[job_id], record["time"])

    def _wait_for_others(self, job: Job, time: str) -> None:
        for other_id in job.after:
            other = self.jobs.get(other_id)
            state = other.state if other is not None else self._look_up(other_id)
            gone = state is None or state.ended
            if state is JobState.COMPLETED or job.state.ended or (gone and job.anyhow):
                continue
            if gone:
                self._end(job, JobState.DEPENDENCY_FAILED, _dependency_evidence(other_id, state), time)
                continue
            job.waits_for += 1
            self._dependents.setdefault(other_id, []).append(job.id)
        if not job.state.ended and job.waits_for == 0:
            heapq.heappush(self._ready, (job.place, job.id))

    def _cancel(self, job_id: str, time: str) -> None:
        job = self.jobs.get(job_id)
        if job is None or job.state.ended:
            return
        job.cancelled = True
        if job.state is JobState.PENDING:
            self._end(job, JobState.CANCELLED, "cancelled before it started", time)

    def _move(self, job: Job, event: str, record: Record) -> None:
        match event:
            case "started":
                job.state = JobState.RUNNING
                job.started_at = record["time"]
                job.boot = record["boot"]
                job.gpu_ids = tuple(record.get("gpus", ()))
                job.warned = False
                job.verdict = None
                self.running[job.id] = None
            case "warned":
                job.warned = True
            case "verdict":
                job.verdict = (JobState(record["state"]), record["evidence"])
            case "requeued":
                job.peak_rss_mb = _largest(job.peak_rss_mb, record.get("peak_rss_mb"))
                self.running.pop(job.id, None)
                job.restarts += 1
                job.state = JobState.PENDING
                heapq.heappush(self._ready, (job.place, job.id))
            case "ended":
                job.exit_code = record.get("exit_code")
                job.signal = record.get("signal")
                job.peak_rss_mb = _largest(job.peak_rss_mb, record.get("peak_rss_mb"))
                self._end(job, JobState(record["state"]), record["evidence"], record["time"])
            case _:
                raise ValueError(f"journal: unknown event {event!r}")

    def _end(self, job: Job, state: JobState, evidence: str, time: str) -> None:
        """End a job, and with it, unless it completed, all that wait for it."""
        ending = [(job, state, evidence)]
        while ending:
            job, state, evidence = ending.pop()
            if job.state.ended:
                continue
            job.state, job.evidence, job.ended_at = state, evidence, time
            self.running.pop(job.id, None)
            self.batches[job.batch].open -= 1
            for waiting_id in self._dependents.pop(job.id, ()):
                waiting = self.jobs[waiting_id]
                if state is not JobState.COMPLETED and not waiting.anyhow:
                    ending.append((waiting, JobState.DEPENDENCY_FAILED, _dependency_evidence(job.id, state)))
                    continue
                waiting.waits_for -= 1
                if waiting.waits_for == 0 and waiting.state is JobState.PENDING:
                    heapq.heappush(self._ready, (waiting.place, waiting.id))


def _dependency_evidence(job_id: str, state: JobState | None) -> str:
    if state is None:
        return f"waits for job {job_id}, which this queue does not know"
    return f"waits for job {job_id}, which ended {state.value}"


def _largest(*values: float | None) -> float | None:
    return max((value for value in values if value is not None), default=None)


def describe_exit(exit_code: int | None, signal_number: int | None) -> str:
    """Say how a process ended: ``exit 3``, or ``killed by signal 11 (SIGSEGV)``."""
    if signal_number is None:
        return f"exit {exit_code}"
    try:
        return f"killed by signal {signal_number} ({signal.Signals(signal_number).name})"
    except ValueError:
        return f"killed by signal {signal_number}"
