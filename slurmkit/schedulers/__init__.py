"""The seam between slurmkit and whatever starts jobs: a protocol of five verbs."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from slurmkit.records import WorkOrder
from slurmkit.resources import Resources
from slurmkit.states import JobState


@dataclass(frozen=True, slots=True)
class JobRequest:
    """One job to submit.

    Attributes:
        order: what its worker shall do.
        resources: what it asks for.
        after: ids of jobs that must complete well before it may start.
        after_index: positions, in the same submission, of requests with the same meaning.
    """

    order: WorkOrder
    resources: Resources
    after: tuple[str, ...] = ()
    after_index: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class JobReport:
    """What a scheduler knows of one job now.

    Attributes:
        state: where the job stands.
        evidence: the scheduler's own words, one line, for people.
        exit_code, signal: of the worker process, once it ended.
        peak_rss_mb: largest memory that the scheduler saw, in MiB.
        started_at, ended_at: UTC, ISO 8601.
        restarts: how often the job was queued again.
        why_pending: why it does not start yet.
    """

    state: JobState
    evidence: str = ""
    exit_code: int | None = None
    signal: int | None = None
    peak_rss_mb: float | None = None
    started_at: str | None = None
    ended_at: str | None = None
    restarts: int = 0
    why_pending: str = ""


class Scheduler(Protocol):
    """What slurmkit needs of a scheduler. All raise `SchedulerError` when it is out of reach."""

    name: str

    def submit(self, token: str, requests: Sequence[JobRequest], folder: Path) -> list[str]:
        """Hand over jobs, all or none.

        Args:
            token: unique name of this submission, by which `find` can find it again.
            requests: the jobs, in the order in which they should start.
            folder: submitit's folder, flat, exists.

        Returns:
            job ids, in the order of the requests.
        """
        ...

    def find(self, token: str) -> list[str] | None:
        """Return the job ids of a submission by its token, in order; None if it never arrived."""
        ...

    def query(self, job_ids: Collection[str]) -> dict[str, JobReport]:
        """Report on jobs. One that the scheduler does not know is absent from the answer."""
        ...

    def cancel(self, job_ids: Collection[str]) -> None:
        """End jobs with all their processes; those that have ended already are left alone."""
        ...

    def wake(self) -> None:
        """Make sure that queued jobs will start (the local queue's supervisor may have died)."""
        ...
