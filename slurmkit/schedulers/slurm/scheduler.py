"""Slurm as a `Scheduler`."""

import time
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from slurmkit import files
from slurmkit.errors import LimitReachedError, SchedulerError
from slurmkit.resources import Resources
from slurmkit.schedulers import JobReport, JobRequest, Room
from slurmkit.schedulers.slurm import arrays, orders, script
from slurmkit.schedulers.slurm.commands import call
from slurmkit.schedulers.slurm.limits import Limits
from slurmkit.schedulers.slurm.submission import Fate, call_sbatch, read_answer
from slurmkit.schedulers.slurm.watch import Watch

_SETTLED_S = 20.0
"""After this time a submission that the controller does not list, though sbatch had no clear answer, was not taken."""

_LOOK_AGAIN_S = 0.5
_MOST_ARGUMENT_BYTES = 100_000
_LIMIT_WORDS = ("QOS", "Assoc", "MaxSubmit", "MaxJobCount")
"""In sbatch's words: a limit of jobs is reached, and a later submission may be taken. (A time limit that is too long is
no such limit.)"""


class SlurmScheduler:
    """The cluster that this machine submits to.

    Args:
        folder: what the shells of a project share about Slurm, ``runs/.slurm``.
    """

    name = "slurm"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._watch = Watch(folder)

    @cached_property
    def _limits(self) -> Limits:
        return Limits.load(self._folder)

    def split(self, requests: Sequence[JobRequest]) -> list[list[int]]:
        """Sort requests into job arrays (see `arrays.split`)."""
        return arrays.split(requests, self._limits.array_size)

    def room(self, resources: Resources) -> Room | None:
        """Return how many more jobs (array tasks) the cluster takes from this person now; None: no known limit."""
        return self._limits.room(resources)

    def memory_cap(self, resources: Resources) -> tuple[int, str] | None:
        """Return the memory of the partition's largest node, in MiB, and words for it; None: not known."""
        return self._limits.memory_cap(resources)

    def forecast(self, resources: Resources, runs: int) -> list[str]:
        """Say what runs with these resources may use up, and which known limits that breaks, a line each."""
        return self._limits.forecast(resources, runs)

    def preview(self, token: str, requests: Sequence[JobRequest], folder: Path) -> str:
        """Return the script that `submit` would hand to sbatch."""
        array = arrays.shape(requests)
        return script.make(token, array, requests[0].resources, folder, folder / f"{token}.orders")

    def submit(self, token: str, requests: Sequence[JobRequest], folder: Path) -> list[str]:
        """Submit one array.

        Raises:
            LimitReachedError: the cluster takes no more now.
            SchedulerError: it refused, or it is not clear whether it took the array.
        """
        text = self.preview(token, requests, folder)
        array = arrays.shape(requests)
        environment = orders.save_environment(folder)
        orders.write(folder / f"{token}.orders", array.tasks, [request.order for request in requests], environment)
        job = self._sbatch(token, text, requests[0].resources, folder)
        return orders.job_ids(folder / f"{token}.orders", job)

    def submit_after(
        self, token: str, words: Sequence[str], after: Collection[str], folder: Path, like: Resources
    ) -> str:
        """Submit a command that depends ``afterany`` on the arrays of some jobs (see `Scheduler.submit_after`).

        Raises:
            SchedulerError: as `submit`.
        """
        numbers = {job.partition("_")[0] for job in after}
        environment = folder / orders.save_environment(folder)
        return self._sbatch(token, script.make_after(token, words, numbers, like, folder, environment), like, folder)

    def _sbatch(self, token: str, text: str, resources: Resources, folder: Path) -> str:
        """Submit a script; return the job's number.

        Raises:
            SchedulerError: as `submit`.
        """
        path = folder / f"{token}.sh"
        files.write_atomic(path, text.encode(), mode=0o600)
        self._watch.forget()
        call_sbatch(path, folder / f"{token}.answer", script.environment(resources))
        answer = read_answer(folder / f"{token}.answer")
        if answer.fate is Fate.REFUSED:
            refused = LimitReachedError if any(word in answer.words for word in _LIMIT_WORDS) else SchedulerError
            raise refused(f"sbatch: {answer.words}")
        job = answer.job or self._job_number(token, folder)
        if job is None:
            raise SchedulerError(f"sbatch: {answer.words or 'ended without an answer'}. Nothing was submitted.")
        return job

    def find(self, token: str, folder: Path) -> list[str] | None:
        """Return the job ids of a submission by what sbatch answered, or by its name in the controller's list.

        Raises:
            SchedulerError: it cannot be told yet.
        """
        job = self._job_number(token, folder)
        return None if job is None else orders.job_ids(folder / f"{token}.orders", job)

    def _job_number(self, token: str, folder: Path) -> str | None:
        """Return the number of a job by its name; None: it never arrived.

        Where sbatch was interrupted or timed out, the controller may still be about to take it: this waits a moment.
        """
        answer = read_answer(folder / f"{token}.answer")
        if answer.fate in {Fate.NEVER_CALLED, Fate.REFUSED}:
            return None
        job = answer.job
        waited_s = answer.age_s
        while not job:
            job = self._by_name(token)
            if not job and waited_s >= _SETTLED_S:
                return None
            if not job:
                time.sleep(_LOOK_AGAIN_S)
                waited_s += _LOOK_AGAIN_S
        return job

    def _by_name(self, token: str) -> str:
        """Ask the controller, then accounting, for the number of a job by its name."""
        said = call("squeue", "--noheader", "--me", "--states=all", f"--name={token}", "--format=%F")
        if said.strip():
            return said.split()[0]
        try:
            said = call(
                "sacct",
                "--noheader",
                "--allocations",
                "--parsable2",
                f"--name={token}",
                "--format=JobID",
                "--starttime=now-7days",
            )
        except SchedulerError:  # no accounting here
            return ""
        return said.split()[0].partition("_")[0] if said.strip() else ""

    def query(self, jobs: Mapping[str, str]) -> dict[str, JobReport]:
        """Report on jobs by one look at Slurm, which all shells share (see `Watch`)."""
        return self._watch.reports(jobs) if jobs else {}

    def cancel(self, job_ids: Collection[str]) -> None:
        """End jobs by as few calls of scancel as there can be: one, up to thousands of jobs."""
        ids = sorted({job.partition("+")[0] for job in job_ids})
        while ids:
            size = 0
            count = next(
                (i for i, job in enumerate(ids) if (size := size + len(job) + 1) > _MOST_ARGUMENT_BYTES), len(ids)
            )
            call("scancel", "--quiet", *ids[:count])
            ids = ids[count:]
        self._watch.forget()

    def wake(self) -> None:
        """Slurm needs no waking."""
