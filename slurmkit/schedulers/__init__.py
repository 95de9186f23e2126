"""The seam between slurmkit and whatever starts jobs: a protocol of a few verbs."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol

from slurmkit.errors import SchedulerError
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
        shared: several runs share the job, so its end need not be the end of each.
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
    shared: bool = False


class OutOfReachError(SchedulerError):
    """The scheduler cannot be asked now.

    Attributes:
        since: when it last answered; None: not known.
        last: what was known then of the jobs asked for.
    """

    def __init__(
        self, message: str, *, since: datetime | None = None, last: Mapping[str, JobReport] | None = None
    ) -> None:
        super().__init__(message)
        self.since = since
        self.last = dict(last or {})


class Room(NamedTuple):
    """How many more jobs a scheduler takes now, and what sets that limit."""

    jobs: int
    why: str


class Scheduler(Protocol):
    """What slurmkit needs of a scheduler. All raise `SchedulerError` when it is out of reach."""

    name: str

    def split(self, requests: Sequence[JobRequest]) -> list[list[int]]:
        """Say which requests go into one submission, by their positions.

        A submission is taken as a whole or not at all. A request stands behind those that it waits for.
        """
        ...

    def room(self, resources: Resources) -> Room | None:
        """Say how many more jobs with these resources are taken now; None: no limit is known."""
        ...

    def memory_cap(self, resources: Resources) -> tuple[int, str] | None:
        """Return the most memory that a run can have there, in MiB, and what sets that; None: not known."""
        ...

    def forecast(self, resources: Resources, runs: int) -> list[str]:
        """Say what runs with these resources may use up, and which known limits that breaks, a line each."""
        ...

    def preview(self, token: str, requests: Sequence[JobRequest], folder: Path) -> str:
        """Return, for people, exactly what `submit` would hand over; empty where there is no such text."""
        ...

    def submit(self, token: str, requests: Sequence[JobRequest], folder: Path) -> list[str]:
        """Hand over the jobs of one submission, all or none.

        Args:
            token: unique name of this submission, by which `find` can find it again; letters, digits and ``._-+=``.
            requests: the jobs, in the order in which they should start.
            folder: submitit's folder, flat, exists.

        Returns:
            job ids, in the order of the requests.
        """
        ...

    def find(self, token: str, folder: Path) -> list[str] | None:
        """Return the job ids of a submission by its token, in order; None if it never arrived.

        Raises:
            SchedulerError: that cannot be told yet.
        """
        ...

    def query(self, jobs: Mapping[str, str]) -> dict[str, JobReport]:
        """Report on jobs: id to the token of its submission. One that the scheduler does not know is absent.

        The token is the better name: schedulers can give a job id out again after they were set up anew.
        """
        ...

    def submit_after(
        self, token: str, words: Sequence[str], after: Collection[str], folder: Path, like: Resources
    ) -> str:
        """Submit a command that runs in the current folder once other jobs have ended, however they ended.

        Args:
            token: unique name of this submission.
            words: the command.
            after: ids of the jobs.
            folder: submitit's folder, for its log.
            like: what those jobs ask for: it goes where they go, and asks for little itself.

        Returns:
            its job id.
        """
        ...

    def cancel(self, job_ids: Collection[str]) -> None:
        """End jobs with all their processes; those that have ended already are left alone."""
        ...

    def wake(self) -> None:
        """Make sure that queued jobs will start (the local queue's supervisor may have died)."""
        ...
