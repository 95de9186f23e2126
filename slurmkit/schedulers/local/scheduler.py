"""The local queue as a `Scheduler`: work orders go through submitit's plugin into the journal."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from submitit.core.utils import DelayedSubmission

from slurmkit.resources import Resources
from slurmkit.schedulers import JobReport, JobRequest
from slurmkit.schedulers.local import launch
from slurmkit.schedulers.local.executor import Ask, LocalQueueExecutor, cancel_jobs, journal_of
from slurmkit.schedulers.local.payload import call, carry_out
from slurmkit.schedulers.unlimited import Unlimited


class LocalScheduler(Unlimited):
    """The bounded queue of this machine.

    Args:
        queue: its folder, ``runs/.queue/<host>``.
    """

    name = "local"

    def __init__(self, queue: Path) -> None:
        self._queue = queue.absolute()
        self._journal = journal_of(self._queue)

    def submit(self, token: str, requests: Sequence[JobRequest], folder: Path) -> list[str]:
        """Hand over jobs, all or none; a token that the queue knows already adds none (see `Scheduler.submit`)."""
        if (known := self.find(token, folder)) is not None:
            self.wake()
            return known
        executor = LocalQueueExecutor(folder, queue=self._queue)
        functions = [DelayedSubmission(carry_out, request.order.to_json()) for request in requests]
        jobs = executor.submit_batch(functions, [_ask(request) for request in requests], token)
        return [job.job_id for job in jobs]

    def submit_after(
        self, token: str, words: Sequence[str], after: Collection[str], folder: Path, like: Resources
    ) -> str:
        """Submit a command that starts when other jobs have ended, however (see `Scheduler.submit_after`)."""
        del like
        executor = LocalQueueExecutor(folder, queue=self._queue)
        asked = Ask(after=tuple(after), anyhow=True)
        (job,) = executor.submit_batch([DelayedSubmission(call, list(words))], [asked], token)
        return job.job_id

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
