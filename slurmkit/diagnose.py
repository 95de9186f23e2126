"""Why an attempt ended as it did: evidence in, a reason and the line that shows it out. Pure."""

import json
import math
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, cast

import orjson

from slurmkit.log_tail import LogTail, names_gpu_memory, names_host_memory, printable
from slurmkit.records import TRY_AGAIN_EXIT_CODE, Json, Outcome
from slurmkit.resources import format_duration, format_memory
from slurmkit.schedulers import JobReport
from slurmkit.states import REQUEUES, JobState, Reason, State

_LIMIT_REACHED = 0.9
"""Share of the memory limit from which a SIGKILL is taken for the kernel's: samples miss the last moments."""

_MAX_UNASKED_RESTARTS = 20
"""How often a command may ask to be queued again without having been signalled: more is a loop that gets nowhere."""

_REASON_OF_JOB: dict[JobState, Reason] = {
    JobState.OUT_OF_MEMORY: Reason.OOM_HOST,
    JobState.TIMEOUT: Reason.TIMEOUT,
    JobState.PREEMPTED: Reason.PREEMPTED,
    JobState.NODE_FAIL: Reason.NODE_FAIL,
}
"""Ends that a scheduler brings about, and that a worker may not live to record."""

Ended = Literal["completed", "failed", "cancelled", "requeue"]


class Verdict(NamedTuple):
    """What a worker makes of its command's end.

    Attributes:
        outcome: as in ``outcome.json``.
        reason: why it failed; with ``requeue``, why it was asked to stop.
        evidence: what shows it, most telling first.
    """

    outcome: Ended
    reason: Reason | None
    evidence: list[str]


@dataclass(frozen=True, slots=True)
class CommandEnd:
    """What a worker saw of its command.

    Attributes:
        exit_code: None if a signal ended it, or if it never started.
        signal: what ended it.
        not_started: why it could not be started; None: it was.
        passed_on: signals that the worker was sent and passed on, in order.
        duration_s: how long it ran.
        time_limit_s, mem_limit_mb: what the run asked for.
        peak_rss_mb: largest memory of its process tree, in MiB.
        restart: how often this attempt had been queued again.
        requeued: reason to how often it had asked for that itself.
        requeue: reason to how often it may; what is not in it is as `REQUEUES` says.
        error: the command's own ``error.json``.
        stderr: the end of its stderr.
        metrics_problem: what is wrong with ``metrics.json``; None: nothing.
        pin_problems: imports that did not come from the pinned commit.
    """

    exit_code: int | None = None
    signal: int | None = None
    not_started: str | None = None
    passed_on: tuple[int, ...] = ()
    duration_s: float = 0.0
    time_limit_s: int | None = None
    mem_limit_mb: int | None = None
    peak_rss_mb: float = 0.0
    restart: int = 0
    requeued: Mapping[str, int] = field(default_factory=dict[str, int])
    requeue: Mapping[str, int] = field(default_factory=dict[str, int])
    error: Mapping[str, Json] | None = None
    stderr: LogTail = field(default_factory=LogTail)
    metrics_problem: str | None = None
    pin_problems: tuple[str, ...] = ()


def diagnose_exit(end: CommandEnd) -> Verdict:
    """Say how an attempt ended, as far as its worker can know.

    The rules, first that fits: code from elsewhere; never started; asked to be queued again; completed; what
    ``error.json`` says; what stderr says; what signals and limits say; the exit code.
    """
    if end.pin_problems:
        return Verdict(
            "failed", Reason.PIN_MISMATCH, [*end.pin_problems, *([] if end.exit_code == 0 else [_exit(end)])]
        )
    if end.not_started is not None:
        if end.passed_on:
            return _stopped_before_start(end)
        return Verdict("failed", Reason.ERROR, [f"the command did not start: {end.not_started}"])
    if end.exit_code == TRY_AGAIN_EXIT_CODE:
        return _queue_again(end)
    if end.exit_code == 0 and end.metrics_problem is None:
        return Verdict("completed", None, [])
    said = _from_error_record(end) or (None if end.exit_code == 0 else _from_stderr(end))
    if said is not None:
        reason, line = said
        return Verdict("failed", reason, [line, _exit(end), *_memory(end, reason)])
    if end.exit_code == 0:
        return Verdict("failed", Reason.NO_METRICS, ["exit code 0", f"metrics.json: {end.metrics_problem}"])
    return _from_exit(end)


def conclude(report: JobReport | None, outcome: Outcome | None, *, attempt: int) -> tuple[State, Reason | None, str]:
    """Say where an attempt stands from all that is known of it: the scheduler's report and the worker's outcome.

    A recorded completion stands, whatever became of the job afterwards. Otherwise the scheduler knows best what it
    did itself (limits, node failures, cancellation), and the worker knows best how its command failed. What nobody
    saw end is unknown.

    Args:
        report: what the scheduler says of the job; None: it does not know the job.
        outcome: the worker's record; None: there is none.
        attempt: number of the attempt; a record of another one is no evidence.

    Returns:
        state, reason if it failed, and the evidence in one line.
    """
    if outcome is not None and outcome["attempt"] != attempt:
        outcome = None
    if outcome is not None and outcome["outcome"] == "completed" and outcome["metrics_sha256"]:
        return State.COMPLETED, None, _line(outcome["evidence"])
    if report is None:
        return _without_report(outcome)
    if not report.state.ended:
        pending = report.state is JobState.PENDING
        return (State.QUEUED, None, report.why_pending) if pending else (State.RUNNING, None, "")
    said = [report.evidence, *_peak(report, outcome)]
    recorded = outcome["evidence"] if outcome else []
    failed_by_itself = report.shared and outcome is not None and outcome["outcome"] == "failed"
    if report.state in _REASON_OF_JOB and not failed_by_itself:  # a shared job's end may be another run's doing
        return State.FAILED, _REASON_OF_JOB[report.state], _line([*said, *recorded])
    if report.state is JobState.CANCELLED:
        return State.CANCELLED, None, _line([report.evidence, *recorded])
    if report.state is JobState.DEPENDENCY_FAILED:
        return State.BLOCKED, None, report.evidence or "a job that it waits for did not complete"
    if outcome is not None:
        return _from_outcome(outcome, report)
    if report.state is JobState.COMPLETED:
        what = "the job ended well, but its outcome.json is not there (a shared folder may lag)"
        return State.UNKNOWN, None, _line([what, report.evidence])
    lost = report.state is JobState.LOST
    what = "worker vanished without an outcome" if lost else f"job ended without an outcome{_job_exit(report)}"
    return State.FAILED, Reason.ERROR, _line([what, *said])


def check_metrics(content: bytes) -> str | None:
    """Say what is wrong with the content of a ``metrics.json``.

    Valid is a JSON object of finite numbers, null, bool, strings and lists; objects in it are flattened with ``/``.

    Returns:
        what is wrong, with line or key; None: nothing.
    """
    if not content.strip():
        return "is empty"
    try:
        record = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        return _not_finite(content) or f"line {error.lineno}, column {error.colno}: not JSON: {error.msg}"
    if not isinstance(record, dict):
        return f"expected an object of metrics, got {type(record).__name__}"
    seen: set[str] = set()
    for key, _ in flatten(cast("dict[str, Json]", record)):
        if key in seen:
            return f"{printable(key)}: appears twice, once nested and once with / in its name"
        seen.add(key)
    return None


def flatten(record: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    """Yield the values of nested objects with their keys joined by ``/``, in order; lists are values."""
    open_items: list[tuple[str | None, Json]] = [(None, record)]
    while open_items:
        key, value = open_items.pop()
        if isinstance(value, dict):
            items = cast("dict[str, Json]", value)
            prefix = "" if key is None else f"{key}/"
            open_items.extend((prefix + name, inner) for name, inner in reversed(items.items()))
        elif key is not None:
            yield key, value


def _not_finite(content: bytes) -> str | None:
    """Find the NaN or infinity for which a file is not JSON, though Python's json module writes and reads it so."""
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    for key, value in flatten(cast("dict[str, Json]", record)):
        if not _finite(value):
            shown = f"{printable(key)} is {printable(str(value))}"
            return f"{shown}, which is no number in JSON; write null, and the reason under a key of its own"
    return None


def _finite(value: Json) -> bool:
    if isinstance(value, list):
        return all(_finite(item) for item in cast("list[Json]", value))
    return not isinstance(value, float) or math.isfinite(value)


def _stopped_before_start(end: CommandEnd) -> Verdict:
    evidence = [f"{_signal_name(end.passed_on[0])} came before the command was started"]
    if signal.SIGUSR2 in end.passed_on:
        return _back_to_the_queue(end, Reason.TIMEOUT, evidence)
    return Verdict("cancelled", None, evidence)


def _queue_again(end: CommandEnd) -> Verdict:
    if not end.passed_on and end.restart >= _MAX_UNASKED_RESTARTS:
        line = f"exit code {TRY_AGAIN_EXIT_CODE} for the {end.restart + 1}th time, without having been asked to stop"
        return Verdict("failed", Reason.ERROR, [line])
    if not end.passed_on:
        return Verdict("requeue", None, [_exit(end)])
    reason = Reason.TIMEOUT if _reached_time_limit(end) else Reason.PREEMPTED
    return _back_to_the_queue(end, reason, [_exit(end)])


def _back_to_the_queue(end: CommandEnd, reason: Reason, evidence: list[str]) -> Verdict:
    """Let an attempt that was asked to stop go on later, as often as it may; then that it was stopped is a failure."""
    limit = end.requeue.get(reason, REQUEUES[reason])
    before = end.requeued.get(reason, 0)
    if limit is None or before < limit:
        return Verdict("requeue", reason, evidence)
    done = {0: "wants to be queued again", 1: "queued again once already"}
    times = done.get(before, f"queued again {before} times already")
    return Verdict("failed", reason, [f"{times} (on_failure.{reason}.requeue: {limit})", *evidence])


def _from_error_record(end: CommandEnd) -> tuple[Reason, str] | None:
    """Read the command's own word: kind, type, message, step, term. Any other kind leaves it to the other evidence."""
    if end.error is None:
        return None
    kind, error_type, message, step, term = map(end.error.get, ("kind", "type", "message", "step", "term"))
    words = f"{error_type or ''}: {message or ''}".strip(": ")
    at = f" at step {step}" if step is not None else ""
    of = f" in {term}" if term else ""
    line = printable(f"error.json: {kind}{at}{of}: {words or 'no message'}")
    if kind == Reason.DIVERGED:
        return Reason.DIVERGED, line
    if kind == Reason.OOM_GPU or names_gpu_memory(words):
        return Reason.OOM_GPU, line
    if kind in ("oom", Reason.OOM_HOST) or names_host_memory(words):
        return Reason.OOM_HOST, line
    return None


def _from_stderr(end: CommandEnd) -> tuple[Reason, str] | None:
    """Say whether the command complained of memory before it ended."""
    telling = end.stderr.telling()
    if telling is None:
        return None
    line = f"stderr line {telling.number}: {telling.text}"
    if names_gpu_memory(telling.text):
        return Reason.OOM_GPU, line
    return (Reason.OOM_HOST, line) if names_host_memory(telling.text) else None


def _from_exit(end: CommandEnd) -> Verdict:
    """Diagnose by exit code, signal and limits; the most telling line of stderr goes with it."""
    telling = end.stderr.telling()
    words = [f"stderr line {telling.number}: {telling.text}"] if telling else []
    if end.signal == signal.SIGKILL and not end.passed_on and _reached_memory_limit(end):
        return Verdict("failed", Reason.OOM_HOST, [_exit(end), *_memory(end, Reason.OOM_HOST), *words])
    if end.passed_on:
        names = ", ".join(map(_signal_name, end.passed_on))
        stopped = [f"{names} passed on", _exit(end), *words]
        if _reached_time_limit(end):
            return Verdict("failed", Reason.TIMEOUT, stopped)
        return Verdict("cancelled", None, stopped)
    if end.error is not None and end.error.get("message"):
        words.insert(0, printable(f"error.json: {end.error.get('type', 'error')}: {end.error['message']}"))
    return Verdict("failed", Reason.ERROR, [*words, _exit(end)])


def _reached_memory_limit(end: CommandEnd) -> bool:
    return end.mem_limit_mb is not None and end.peak_rss_mb >= _LIMIT_REACHED * end.mem_limit_mb


def _reached_time_limit(end: CommandEnd) -> bool:
    """SIGUSR2 is sent for nothing else; SIGTERM counts from the moment at which the limit is reached."""
    if signal.SIGUSR2 in end.passed_on:
        return True
    return end.time_limit_s is not None and end.duration_s >= end.time_limit_s


def _memory(end: CommandEnd, reason: Reason) -> list[str]:
    if reason is not Reason.OOM_HOST:
        return []
    limit = f"limit {format_memory(end.mem_limit_mb)}, " if end.mem_limit_mb is not None else ""
    return [f"{limit}peak {format_memory(end.peak_rss_mb)}"]


def _exit(end: CommandEnd) -> str:
    ended = f"ended by {_signal_name(end.signal)}" if end.signal is not None else f"exit code {end.exit_code}"
    limit = f" of {format_duration(end.time_limit_s)}" if end.passed_on and end.time_limit_s is not None else ""
    return f"{ended} after {format_duration(end.duration_s)}{limit}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _without_report(outcome: Outcome | None) -> tuple[State, Reason | None, str]:
    if outcome is None:
        return State.UNKNOWN, None, "the scheduler does not know the job, and its worker left no outcome"
    if outcome["outcome"] == "requeue":
        what = "to be queued again, but the scheduler does not know the job"
        return State.UNKNOWN, None, _line([what, *outcome["evidence"]])
    return _from_outcome(outcome, None)


def _from_outcome(outcome: Outcome, report: JobReport | None) -> tuple[State, Reason | None, str]:
    """Conclude from the worker's word where the scheduler has nothing of its own to say."""
    evidence = outcome["evidence"]
    if outcome["outcome"] == "cancelled":
        return State.CANCELLED, None, _line(evidence)
    reason = Reason(outcome["reason"]) if outcome["reason"] else Reason.ERROR
    if outcome["outcome"] == "requeue":
        assert report is not None
        evidence = ["saved a checkpoint, but the job was not queued again", *evidence, report.evidence]
    if outcome["outcome"] == "completed":  # without a hash it cannot be told from an older result
        reason, evidence = Reason.NO_METRICS, ["outcome.json has no hash of metrics.json", *evidence]
    return State.FAILED, reason, _line(evidence)


def _job_exit(report: JobReport) -> str:
    return f", exit code {report.exit_code}" if report.exit_code is not None else ""


def _peak(report: JobReport, outcome: Outcome | None) -> list[str]:
    """Return the larger of both peaks for an end by memory; a scheduler's own is often taken too early."""
    if report.state is not JobState.OUT_OF_MEMORY:
        return []
    peaks = [report.peak_rss_mb or 0.0, outcome["peak_rss_mb"] if outcome else 0.0]
    said = [report.evidence, *(outcome["evidence"] if outcome else [])]
    if max(peaks) == 0.0 or any("peak" in line for line in said):
        return []
    return [f"peak {format_memory(max(peaks))}"]


def _line(parts: list[str]) -> str:
    return "; ".join(part for part in parts if part)
