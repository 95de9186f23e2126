"""The scheduler of `slurmkit run`: a job is the process that the person started, and nothing queues."""

import os
import signal
import socket
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import psutil

from slurmkit.errors import UsageError
from slurmkit.resources import Resources
from slurmkit.schedulers import JobReport, JobRequest
from slurmkit.schedulers.unlimited import Unlimited
from slurmkit.states import JobState


def own_job_id() -> str:
    """Return the job id of this process: its pid and start time, so that a reused pid is another job."""
    process = psutil.Process()
    return f"{process.pid}:{process.create_time()}"


class ForegroundScheduler(Unlimited):
    """Knows of a job only whether its process still lives, on the host where it was started."""

    name = "foreground"

    def __init__(self, host: str) -> None:
        self._host = host

    def submit(self, token: str, requests: Sequence[JobRequest], folder: Path) -> list[str]:
        """Name this process as the job of the one request; the caller then does the work itself."""
        del token, folder
        if len(requests) != 1 or requests[0].after:
            raise UsageError("run: takes one run whose needs are completed.")
        return [own_job_id()]

    def submit_after(
        self, token: str, words: Sequence[str], after: Collection[str], folder: Path, like: Resources
    ) -> str:
        """Refuse it: the person is there to start what comes after."""
        del token, after, folder, like
        raise UsageError(f"run: nothing queues in the foreground. Afterwards: {' '.join(words)}")

    def find(self, token: str, folder: Path) -> list[str] | None:
        """Return None: a process that died before it wrote its job id never started the run."""
        del token, folder
        return None

    def query(self, jobs: Mapping[str, str]) -> dict[str, JobReport]:
        """Report which processes live. Those of another host are not known here."""
        if self._host != socket.gethostname():
            return {}
        return {job: self._report(job) for job in jobs}

    def _report(self, job_id: str) -> JobReport:
        if job_id == own_job_id():  # who asks about its own job is not at work on it: its outcome tells
            return JobReport(JobState.LOST, "the command that did the work is over with it")
        if _alive(job_id):
            return JobReport(JobState.RUNNING, f"in the foreground on {self._host}")
        return JobReport(JobState.LOST, f"process {job_id.partition(':')[0]} on {self._host} is gone")

    def cancel(self, job_ids: Collection[str]) -> None:
        """Ask the processes to stop; their workers end what they started."""
        for job in job_ids:
            if self._host == socket.gethostname() and _alive(job):
                os.kill(int(job.partition(":")[0]), signal.SIGTERM)

    def wake(self) -> None:
        """Nothing queues here."""


def _alive(job_id: str) -> bool:
    pid, _, started = job_id.partition(":")
    try:
        process = psutil.Process(int(pid))
        return abs(process.create_time() - float(started)) < 0.01 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
