"""The local queue as a `Scheduler`: work orders go through submitit's plugin into the journal."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from submitit.core.utils import DelayedSubmission

from slurmkit.resources import Resources
from slurmkit.schedulers import JobReport, JobRequest, Room
from slurmkit.schedulers.local import launch
from slurmkit.schedulers.local.executor import Ask, LocalQueueExecutor, cancel_jobs, journal_of
from slurmkit.schedulers.local.payload import carry_out


class LocalScheduler:
    """The bounded queue of this machine.

    Args:
        queue: its folder, ``runs/.queue/<host>``.
    """

    name = "local"

    def __init__(self, queue: Path) -> None:
        self._queue = queue.absolute()
        self._journal = journal_of(self._queue)

    def split(self, requests: Sequence[JobRequest]) -> list[list[int]]:
        """Take all in one submission."""
        return [list(range(len(requests)))]

    def room(self, resources: Resources) -> Room | None:
        """Set no limit: jobs wait here as long as it takes."""
        del resources
        return None

    def memory_cap(self, resources: Resources) -> tuple[int, str] | None:
        """Set none: what can never run here is refused when it is submitted."""
        del resources
        return None

    def preview(self, token: str, requests: Sequence[JobRequest], folder: Path) -> str:
        """Return nothing: no script is made here."""
        del token, requests, folder
        return ""

    def submit(self, token: str, requests: Sequence[JobRequest], folder: Path) -> list[str]:
        """Hand over jobs, all or none; a token that the queue knows already adds none (see `Scheduler.submit`)."""
        if (known := self.find(token, folder)) is not None:
            self.wake()
            return known
        executor = LocalQueueExecutor(folder, queue=self._queue)
        functions = [DelayedSubmission(carry_out, request.order.to_json()) for request in requests]
        jobs = executor.submit_batch(functions, [_ask(request) for request in requests], token)
        return [job.job_id for job in jobs]

    def find(self, token: str, folder: Path) -> list[str] | None:
        """Return the job ids of a submission by its token, in order; None if it never arrived."""
        del folder
        self._journal.refresh()
        return self._journal.batch_of(token)

    def query(self, jobs: Mapping[str, str]) -> dict[str, JobReport]:
        """Report on jobs.

        If any has not ended, a supervisor is seen to first: a job that died with its supervisor must not look alive.
        """
        asked = set(jobs)
        self._journal.refresh()
        reports = self._journal.reports(asked)
        if any(not report.state.ended for report in reports.values()):
            self.wake()
            self._journal.refresh()
            reports = self._journal.reports(asked)
        return reports

    def cancel(self, job_ids: Collection[str]) -> None:
        """End jobs with all their processes; those that have ended already are left alone."""
        if self._queue.is_dir():
            cancel_jobs(self._queue, list(job_ids))

    def wake(self) -> None:
        """Start a supervisor if there is work and none lives; never for another machine's queue."""
        self._journal.refresh()
        if self._journal.state.active and self._journal.elsewhere() is None:
            launch.wake_supervisor(self._queue)


def _ask(request: JobRequest) -> Ask:
    resources = request.resources
    return Ask(
        cpus=resources.cpus,
        gpus=resources.gpus,
        mem_mb=resources.mem_mb,
        time_s=resources.time_s,
        after=request.after,
        after_index=request.after_index,
    )
