"""All that Slurm shows of one job, as one `JobReport`. Pure."""

import re
import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache

from slurmkit.resources import format_duration, format_memory
from slurmkit.schedulers import JobReport
from slurmkit.schedulers.slurm.listing import Exit, JobRow, QueueRow, Table
from slurmkit.states import SLURM_WORDS, JobState

ACCOUNTING_GRACE_S = 15.0
"""How long accounting may lag behind an end before squeue's word is taken. Seen: 2 s; more while slurmdbd is busy."""

_OOM_EXIT = Exit(0, 125)
"""What accounting shows where the kernel killed for memory (SIG_OOM in slurm.h)."""

_COULD_NOT_START = Exit(0, 53)
"""What a node answers that cannot open a job's log or enter its folder; nothing of the job was run (22.05)."""

_FAILED = frozenset({JobState.FAILED, JobState.OUT_OF_MEMORY})
_TELLS_EXIT = _FAILED | {JobState.COMPLETED}
"""States of jobs whose script ended by itself."""

_CANCELLED_BY = re.compile(r"CANCELLED by (\d+)")

_WAITED_IN_VAIN = frozenset({"Dependency", "DependencyNeverSatisfied", "None", ""})
"""What accounting shows as the reason of a job that was taken away because its dependency failed (22.05).

None is one whose dependency had failed before it was submitted.
"""

_STUCK: Mapping[str, str] = {
    "JobHeldUser": "held by its owner; `scontrol release {job}` lets it start",
    "JobHeldAdmin": "held by an administrator, who alone can release it",
    "DependencyNeverSatisfied": "a job that it waits for did not complete, so it will never start; cancel it",
    "PartitionTimeLimit": "its time limit is longer than the partition allows; ask for less time or another partition",
    "PartitionNodeLimit": "the partition does not allow that many nodes, or they are down; ask for fewer",
    "BadConstraints": "no node has what it asks for; change constraint, memory, CPUs or GPUs",
    "InvalidAccount": "its account is not valid here; submit it with another",
    "InvalidQOS": "its QOS is not valid here; submit it with another",
    "AccountNotAllowed": "the partition does not take its account; submit it with another",
    "QOSNotAllowed": "the partition does not take its QOS; submit it with another",
    "launch failed requeued held": "a node could not start it, so Slurm holds it; `scontrol release {job}` tries again",
    "job requeued in held state": "queued again and held; `scontrol release {job}` lets it start",
    "JobHoldMaxRequeue": "queued again too often, so Slurm holds it; `scontrol release {job}` tries again",
    "ReservationDeleted": "its reservation was deleted; submit it without",
    "ReqNodeNotAvail": "nodes that it could run on are down, drained or reserved; it starts when they are back",
    "BeginTime": "not before its begin time; one that was queued again also waits, two minutes as a rule",
}
"""Reasons that call for a word, most of them because they do not go away by themselves, and what to do.

From ``man squeue`` (JOB REASON CODES) and job_reason_string in Slurm.
"""

_LIMITS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"(QOS|Assoc)Max\w*(PerJob|PerNode|WallDuration|MinutesPerJob)\w*"),
        "it asks for more than one job may have; ask for less",
    ),
    (re.compile(r"QOSMin\w*"), "it asks for less than this QOS wants; ask for more"),
    (re.compile(r"(QOS|Assoc)Max\w*"), "the limit for one person or account is reached; it starts when others end"),
    (re.compile(r"(QOS|Assoc)Grp\w*Minutes\w*"), "the group's budget is used up; it waits until some is free again"),
)
"""Limits of accounting, by pattern: first that fits."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one poll saw.

    Attributes:
        queue: squeue's rows.
        accounting: sacct's rows.
        taken_at: when squeue was asked, in seconds since 1970.
        no_accounting: why sacct told nothing; empty: it did.
    """

    queue: Table[QueueRow]
    accounting: Table[JobRow]
    taken_at: float
    no_accounting: str = ""


def reports_of(
    jobs: Mapping[str, str], evidence: Evidence, user_name: Callable[[int], str] = str
) -> dict[str, JobReport]:
    """Say where jobs stand; one that Slurm does not know by that id and that name is absent.

    Args:
        jobs: job id to the job's name; what follows ``+`` in an id tells runs of one job apart.
        evidence: what was seen of them.
        user_name: gives the name of a user id.
    """
    reports: dict[str, JobReport] = {}
    for job_id, name in jobs.items():
        slurm_id, packed, _ = job_id.partition("+")
        report = _report(slurm_id, name, evidence, user_name)
        if report is not None:
            reports[job_id] = replace(report, shared=True) if packed else report
    return reports


def active_ids(jobs: Mapping[str, str], queue: Table[QueueRow]) -> set[str]:
    """Return the ids of jobs that squeue shows as pending or running: of these accounting has no news."""
    active: set[str] = set()
    for job_id, name in jobs.items():
        row = _latest(queue.rows(job_id.partition("+")[0]), name)
        state = SLURM_WORDS.get(row.state) if row is not None else None
        if state is not None and not state.ended:
            active.add(job_id)
    return active


def _report(job_id: str, name: str, evidence: Evidence, user_name: Callable[[int], str]) -> JobReport | None:
    seen = _latest(evidence.queue.rows(job_id), name)
    past = sorted(
        (row for row in evidence.accounting.rows(job_id) if row.name == name), key=lambda row: row.submit or 0
    )
    accounted = past[-1] if past else None
    if seen is not None:
        state = SLURM_WORDS.get(seen.state)
        if state is None:
            return None
        if state is JobState.PENDING:
            return _pending(job_id, seen)
        if state is JobState.RUNNING:
            return _running(seen)
        if accounted is None or not _tells_of(accounted, seen):
            return _ended_unaccounted(seen, state, evidence)
    if accounted is None:
        return None
    report = _ended(accounted, seen, user_name)
    return _with_history(report, past[:-1], seen) if report is not None else None


def _with_history(report: JobReport, before: list[JobRow], seen: QueueRow | None) -> JobReport:
    """Add how often the job was queued again and what ended its earlier starts: accounting has a row for each."""
    restarts = max(len(before), seen.restarts if seen else 0)
    if not restarts:
        return report
    words = ", ".join(dict.fromkeys(row.state for row in before))
    after = f" after {words}" if words else ""
    return replace(report, restarts=restarts, evidence=f"{report.evidence}; queued again {restarts}x{after}")


def _latest(rows: Iterable[QueueRow], name: str) -> QueueRow | None:
    return max((row for row in rows if row.name == name), key=lambda row: row.submit or 0, default=None)


def _tells_of(accounted: JobRow, seen: QueueRow) -> bool:
    """Say whether accounting has the end that squeue shows, and not only that of an earlier start of the same job."""
    state = _state(accounted)
    if state is None or not state.ended or accounted.end is None:
        return False
    return seen.start is None or accounted.end >= seen.start


def _state(row: JobRow) -> JobState | None:
    return SLURM_WORDS.get(row.state.partition(" ")[0])


def _pending(job_id: str, row: QueueRow) -> JobReport:
    again = f"; queued again {row.restarts}x" if row.restarts else ""
    return JobReport(
        JobState.PENDING,
        f"Slurm: {row.state}, {_plain(row.reason)}{again}",
        restarts=row.restarts,
        why_pending=explain(row.reason, job_id) + again,
    )


def explain(reason: str, job_id: str) -> str:
    """Say why a job waits: Slurm's reason, and what to do about it where it does not go away by itself."""
    plain = _plain(reason)
    code = plain.partition(",")[0]  # ReqNodeNotAvail goes on with the nodes that are missing
    words = _STUCK.get(code) or next((words for pattern, words in _LIMITS if pattern.fullmatch(code)), None)
    return f"{plain}: {words.format(job=job_id)}" if words else plain


def _plain(reason: str) -> str:
    """Return a reason without brackets, and with the blanks that some versions print as underscores."""
    text = reason.strip().removeprefix("(").removesuffix(")")
    spaced = text.replace("_", " ")
    return spaced if spaced in _STUCK else text


def _running(row: QueueRow) -> JobReport:
    return JobReport(
        JobState.RUNNING, f"Slurm: {row.state}{_on(row.nodes)}", started_at=_utc(row.start), restarts=row.restarts
    )


def _ended_unaccounted(row: QueueRow, state: JobState, evidence: Evidence) -> JobReport:
    """Report an end that only squeue shows: accounting may still come, and knows more of it."""
    ran = bool(row.nodes)
    lag = evidence.taken_at - row.end if row.end is not None else ACCOUNTING_GRACE_S
    if state is not JobState.COMPLETED and not evidence.no_accounting and lag < ACCOUNTING_GRACE_S:
        note = f"Slurm: {row.state}, ended; accounting not in yet"
        if not ran:
            return JobReport(JobState.PENDING, note, restarts=row.restarts, why_pending="ended; accounting not in yet")
        return JobReport(JobState.RUNNING, note, started_at=_utc(row.start), restarts=row.restarts)
    if state is JobState.CANCELLED and not ran and row.reason == "DependencyNeverSatisfied":
        state = JobState.DEPENDENCY_FAILED
    source = f"by squeue alone ({evidence.no_accounting or 'not in accounting'})"
    parts = [row.state, *_exit_words(row.exit, state), *_before_start(ran, row.reason)]
    exit_code, by_signal = _process_end(row.exit, state, ran)
    return JobReport(
        state,
        f"Slurm: {', '.join(parts)}{_on(row.nodes)}; {source}",
        exit_code=exit_code,
        signal=by_signal,
        started_at=_utc(row.start) if ran else None,
        ended_at=_utc(row.end),
        restarts=row.restarts,
    )


def _ended(row: JobRow, seen: QueueRow | None, user_name: Callable[[int], str]) -> JobReport | None:
    """Report an end from accounting.

    A job that accounting calls pending or running, and that the controller does not know, is one whose end was never
    written (its controller was set up anew, or it lags behind): nobody knows how it stands.
    """
    state = _state(row)
    if state is None or not state.ended:
        return None
    ran = bool(row.nodes)
    word, step = row.state, ""
    by = _CANCELLED_BY.fullmatch(row.state)
    if by is not None:
        word = f"CANCELLED by {user_name(int(by[1]))}"
    elif state is JobState.CANCELLED and not ran and _waited_in_vain(row, seen):  # a person's cancel says by whom
        state = JobState.DEPENDENCY_FAILED
    shown = row.exit
    if state in _FAILED:
        state, step, shown = _memory_end(row, state)
        word = "OUT_OF_MEMORY" if state is JobState.OUT_OF_MEMORY else word
    peak = max((one.max_rss_mb for one in row.steps if one.max_rss_mb), default=None)
    exit_code, by_signal = _process_end(row.exit, state, ran)
    waited_for = seen.reason if seen is not None else row.reason
    parts = [word, *_exit_words(shown, state, step), *_limit(row, state), *_before_start(ran, waited_for)]
    return JobReport(
        state,
        f"Slurm: {', '.join(parts)}{_on(row.nodes)}",
        exit_code=exit_code,
        signal=by_signal,
        peak_rss_mb=peak,
        started_at=_utc(row.start) if ran else None,
        ended_at=_utc(row.end),
    )


def _waited_in_vain(row: JobRow, seen: QueueRow | None) -> bool:
    return row.reason in _WAITED_IN_VAIN or (seen is not None and seen.reason == "DependencyNeverSatisfied")


def _memory_end(row: JobRow, state: JobState) -> tuple[JobState, str, Exit | None]:
    """Look for a step that the kernel killed for memory: srun in a script makes of it a plain failure of the job.

    Returns:
        the state, and which step ended how.
    """
    for step in row.steps:
        if SLURM_WORDS.get(step.state) is JobState.OUT_OF_MEMORY or step.exit == _OOM_EXIT:
            return JobState.OUT_OF_MEMORY, f"step {step.step} ", step.exit
    if row.derived_exit == _OOM_EXIT:
        return JobState.OUT_OF_MEMORY, "a step ", row.derived_exit
    return state, "", row.exit


def _process_end(ended: Exit | None, state: JobState, ran: bool) -> tuple[int | None, int | None]:
    """Return exit code and signal of the script, where Slurm tells them: for what it ended itself it shows 0:0."""
    if ended is None or not ran or state not in _TELLS_EXIT:
        return None, None
    if ended in {_OOM_EXIT, _COULD_NOT_START}:  # no signals, but numbers of Slurm's own
        return None, None
    return (None, ended.signal) if ended.signal else (ended.code, None)


def _exit_words(ended: Exit | None, state: JobState, step: str = "") -> list[str]:
    if ended is None or state not in _FAILED or ended == Exit(0, 0):
        return []
    if ended == _COULD_NOT_START:
        return ["exit 0:53: the node could not open the job's log or enter its folder"]
    if ended.signal and ended != _OOM_EXIT:
        return [f"{step}ended by {_signal_name(ended.signal)}"]
    return [f"{step}exit {ended.code}:{ended.signal}"]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal, or a number of Slurm's own
        return f"signal {number}"


def _limit(row: JobRow, state: JobState) -> list[str]:
    if state is JobState.OUT_OF_MEMORY and row.memory_mb:
        return [f"limit {format_memory(row.memory_mb)}"]
    if row.state == "TIMEOUT" and row.limit_min:
        return [f"limit {format_duration(row.limit_min * 60)}"]
    return []


def _before_start(ran: bool, reason: str) -> list[str]:
    if ran:
        return []
    return ["before it started" + (f" ({_plain(reason)})" if reason not in {"", "None"} else "")]


def _on(nodes: str) -> str:
    return f", on {nodes}" if nodes else ""


@lru_cache(maxsize=8192)
def _utc(seconds: int | None) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat() if seconds else None
