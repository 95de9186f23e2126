"""States of runs and jobs, reasons of failure, and the only table of Slurm's words."""

from enum import StrEnum


class State(StrEnum):
    """Where a run stands."""

    PLANNED = "planned"
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    BLOCKED = "blocked"
    UNKNOWN = "unknown"

    @property
    def terminal(self) -> bool:
        """Whether only a new attempt can move the run on."""
        return self in TERMINAL

    @property
    def active(self) -> bool:
        """Whether the scheduler still has the run in hand, as far as is known."""
        return self in ACTIVE


TERMINAL = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})
ACTIVE = frozenset({State.QUEUED, State.RUNNING, State.UNKNOWN})


class Reason(StrEnum):
    """Why a run failed."""

    OOM_HOST = "oom_host"
    OOM_GPU = "oom_gpu"
    TIMEOUT = "timeout"
    PREEMPTED = "preempted"
    NODE_FAIL = "node_fail"
    DIVERGED = "diverged"
    ERROR = "error"
    NO_METRICS = "no_metrics"
    PIN_MISMATCH = "pin_mismatch"


REASON_GROUPS: dict[str, frozenset[Reason]] = {
    "oom": frozenset({Reason.OOM_HOST, Reason.OOM_GPU}),
}
"""Words that stand for several reasons in ``--reason`` and ``on_failure``."""


def reasons_named(word: str) -> frozenset[Reason]:
    """Return the reasons that a word names: a reason, or a group such as ``oom``.

    Raises:
        ValueError: no reason or group has that name.
    """
    if word in REASON_GROUPS:
        return REASON_GROUPS[word]
    return frozenset({Reason(word)})


REQUEUES: dict[Reason, int | None] = {Reason.TIMEOUT: 3, Reason.PREEMPTED: None}
"""Reasons for which a run that was asked to stop goes back to the queue by itself, and how often an attempt may do so
where the definition does not say (``on_failure.<reason>.requeue``); None: as often as the scheduler stops it."""


class JobState(StrEnum):
    """What a scheduler says of a job, in the same words for all schedulers."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    OUT_OF_MEMORY = "out_of_memory"
    TIMEOUT = "timeout"
    PREEMPTED = "preempted"
    NODE_FAIL = "node_fail"
    DEPENDENCY_FAILED = "dependency_failed"
    """Never started: a job that it waits for did not complete."""
    LOST = "lost"
    """Started, and its worker is gone without a word (killed, or the machine went down)."""

    @property
    def ended(self) -> bool:
        """Whether the scheduler is done with the job."""
        return self is not JobState.PENDING and self is not JobState.RUNNING


SLURM_WORDS: dict[str, JobState] = {
    "PENDING": JobState.PENDING,
    "CONFIGURING": JobState.PENDING,
    "EXPEDITING": JobState.PENDING,
    "POWER_UP_NODE": JobState.PENDING,
    "REQUEUED": JobState.PENDING,
    "REQUEUE_FED": JobState.PENDING,
    "REQUEUE_HOLD": JobState.PENDING,
    "RESV_DEL_HOLD": JobState.PENDING,
    "SPECIAL_EXIT": JobState.PENDING,
    "RUNNING": JobState.RUNNING,
    "COMPLETING": JobState.RUNNING,
    "RESIZING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "STAGE_OUT": JobState.RUNNING,
    "STOPPED": JobState.RUNNING,
    "SUSPENDED": JobState.RUNNING,
    "COMPLETED": JobState.COMPLETED,
    "FAILED": JobState.FAILED,
    "CANCELLED": JobState.CANCELLED,
    "REVOKED": JobState.CANCELLED,
    "OUT_OF_MEMORY": JobState.OUT_OF_MEMORY,
    "TIMEOUT": JobState.TIMEOUT,
    "DEADLINE": JobState.TIMEOUT,
    "PREEMPTED": JobState.PREEMPTED,
    "NODE_FAIL": JobState.NODE_FAIL,
    "BOOT_FAIL": JobState.NODE_FAIL,
    "RECONFIG_FAIL": JobState.NODE_FAIL,
}
"""Slurm's job state words (``man squeue``, JOB STATE CODES, 22.05 to 25.05) in our terms.

Left out, so that it shows as unknown: LAUNCH_FAILED and UPDATE_DB, which say nothing of where the job goes from there.
"""
