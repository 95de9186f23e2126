"""submitit's plugin: ``AutoExecutor(folder, cluster="slurmkit_local")`` submits to the local queue."""

import functools
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, NoReturn

from submitit.core import core, job_environment
from submitit.core.utils import DelayedSubmission, JobPaths

from slurmkit.errors import SchedulerError, SlurmkitError, UsageError
from slurmkit.records import TRY_AGAIN_EXIT_CODE
from slurmkit.schedulers.local import launch
from slurmkit.schedulers.local.child import DEFERRED
from slurmkit.schedulers.local.journal import Journal, now
from slurmkit.schedulers.local.machine import this_machine
from slurmkit.schedulers.local.processes import MARK
from slurmkit.schedulers.local.state import QueueState, Record

NAME = "slurmkit_local"


@dataclass(frozen=True, slots=True)
class Ask:
    """What one job asks of the queue.

    Attributes:
        after: ids of jobs that must complete first.
        after_index: positions, in the same batch, of jobs with the same meaning.
        anyhow: it is enough that they have ended.
        Others as in `state.Job`.
    """

    cpus: int = 1
    gpus: int = 0
    mem_mb: int | None = None
    time_s: float | None = None
    warn_s: float = 30.0
    after: tuple[str, ...] = ()
    after_index: tuple[int, ...] = ()
    anyhow: bool = False

    def to_record(self, batch: str) -> Record:
        """Return what differs from the defaults."""
        after = [*self.after, *(f"{batch}_{index}" for index in self.after_index)]
        defaults = asdict(Ask())
        asked = {key: value for key, value in asdict(self).items() if value != defaults[key] and "after" not in key}
        return {**asked, "after": after} if after else asked


@functools.cache
def journal_of(queue: Path) -> Journal:
    """Return this process's view of a queue's journal, which grows by what is new."""
    return Journal(queue)


class LocalQueueWatcher(core.InfoWatcher):
    """What submitit asks for the states of jobs.

    Args:
        queue: folder of the queue.
    """

    def __init__(self, queue: Path) -> None:
        super().__init__(delay_s=1)
        self._queue = queue
        self._seen: tuple[object, int] | None = None

    def update(self) -> None:
        """Read what the journal has that is new."""
        self._num_calls += 1
        journal = journal_of(self._queue)
        journal.refresh()
        seen = (journal.position, len(self._registered))
        if seen == self._seen:
            return
        self._seen = seen
        for job_id, report in journal.reports(self._registered - self._finished).items():
            self._info_dict[job_id] = {"State": report.state.value.upper(), "Evidence": report.evidence}
            if report.state.ended:
                self._finished.add(job_id)

    def get_state(self, job_id: str, mode: str = "standard") -> str:
        """Return a job's state, in capitals, as submitit has it."""
        return self.get_info(job_id, mode=mode).get("State", "UNKNOWN")

    def update_if_long_enough(self, mode: str) -> None:
        """Look each time: a look at a journal that has not grown costs some microseconds."""
        if mode != "cache":
            self.update()

    def clear(self) -> None:
        """Forget all states."""
        super().clear()
        self._seen = None


@functools.cache
def _watcher_of(queue: Path) -> LocalQueueWatcher:
    return LocalQueueWatcher(queue)


class LocalQueueJob(core.Job[core.R]):
    """A job in the local queue.

    Args:
        folder, job_id, tasks: as submitit's jobs have them.
        queue: folder of the queue; by default `launch.default_queue`.
    """

    _results_timeout_s = 1

    def __init__(self, folder: Path | str, job_id: str, tasks: Sequence[int] = (0,), queue: Path | None = None) -> None:
        self._queue = queue or launch.default_queue()
        super().__init__(folder, job_id, tasks)

    @property
    def watcher(self) -> LocalQueueWatcher:  # pyright: ignore[reportIncompatibleVariableOverride] (one a queue)
        """What knows the job's state."""
        return _watcher_of(self._queue)

    def done(self, force_check: bool = False) -> bool:
        """Whether the job has ended with all its processes, so that its state is final, too."""
        known = self.watcher.get_state(self.job_id) != "UNKNOWN"
        return self.watcher.is_done(self.job_id) if known else super().done(force_check)

    def wait(self) -> None:
        """Wait for the job's end, closely at first."""
        pause_s = 0.005
        while not self.done():
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.2, 0.5)

    def cancel(self, check: bool = True) -> None:  # noqa: ARG002 (submitit's signature)
        """End the job with all its processes; nothing, if it has ended."""
        cancel_jobs(self._queue, [self.job_id])

    def _interrupt(self, timeout: bool = False) -> None:
        """Not offered: submitit's own tests use it."""
        raise NotImplementedError("the local queue interrupts jobs by their time limit alone")


class LocalQueueJobEnvironment(job_environment.JobEnvironment):
    """What submitit asks about the job that it runs in."""

    _env: ClassVar[dict[str, str]] = {
        "job_id": MARK,
        # One task a job: nobody sets these, and submitit takes its defaults.
        **{key: f"SLURMKIT_{key.upper()}" for key in ("num_tasks", "num_nodes", "node", "global_rank", "local_rank")},
    }

    @classmethod
    def name(cls) -> str:
        """Return the cluster's name."""
        return NAME

    def _requeue(self, countdown: int) -> NoReturn:  # noqa: ARG002 (submitit's signature)
        """Ask to be queued again: the supervisor reads it from the exit code."""
        sys.exit(TRY_AGAIN_EXIT_CODE)

    def _handle_signals(self, paths: JobPaths, submission: DelayedSubmission) -> None:
        """Let submitit's handlers stand, then let in the signals that were held back until now.

        A function with handlers of its own lets them in itself, by the same call, once these stand. For others SIGTERM,
        which comes when the job is cancelled or its time is over, ends the process in order.
        """
        if getattr(submission.function, "installs_signal_handlers", False):
            return
        super()._handle_signals(paths, submission)
        signal.signal(signal.SIGTERM, _exit_in_order)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, DEFERRED)


class LocalQueueExecutor(core.Executor):
    """Submits to the bounded local queue.

    Args:
        folder: for pickles and logs; flat.
        max_num_timeout, max_pickle_size_gb: as in submitit.
        python: command line of the interpreter; by default this one.
        queue: folder of the queue; by default `launch.default_queue`.
    """

    job_class = LocalQueueJob

    def __init__(
        self,
        folder: Path | str,
        max_num_timeout: int = 3,
        max_pickle_size_gb: float = 1.0,
        python: str | None = None,
        queue: Path | None = None,
    ) -> None:
        super().__init__(folder)
        self.max_num_timeout = max_num_timeout
        self.max_pickle_size_gb = max_pickle_size_gb
        self._python = [sys.executable] if python is None else shlex.split(python)
        self._forkable = python is None
        self.queue = queue or launch.default_queue()

    @classmethod
    def name(cls) -> str:
        """Return the cluster's name."""
        return NAME

    @classmethod
    def affinity(cls) -> int:
        """Available, but only for those who ask for it."""
        return 0

    @classmethod
    def _valid_parameters(cls) -> set[str]:
        return {"signal_delay_s"}

    def _internal_update_parameters(self, **kwargs: Any) -> None:
        for name in ("nodes", "tasks_per_node"):
            if kwargs.get(name, 1) != 1:
                raise UsageError(f"{NAME}: {name}={kwargs[name]}: the local queue runs one task a job. Set {name}=1.")
        super()._internal_update_parameters(**kwargs)

    def _internal_process_submissions(self, delayed_submissions: list[DelayedSubmission]) -> list[core.Job[Any]]:
        """Submit functions as one batch."""
        asked = self.parameters
        timeout_min, mem_gb = asked.get("timeout_min"), asked.get("mem_gb")
        ask = Ask(
            cpus=asked.get("cpus_per_task", 1),
            gpus=asked.get("gpus_per_node", 0),
            mem_mb=None if mem_gb is None else round(mem_gb * 1024),
            time_s=None if timeout_min is None else timeout_min * 60,
            warn_s=asked.get("signal_delay_s", 30.0),
        )
        return self.submit_batch(delayed_submissions, [ask] * len(delayed_submissions))

    def submit_batch(
        self, functions: Sequence[DelayedSubmission], asks: Sequence[Ask], token: str | None = None
    ) -> list[core.Job[Any]]:
        """Submit functions that ask for different things as one batch, all or none.

        Args:
            functions: what the jobs run, in the order in which they should start.
            asks: what each asks for.
            token: a name for the submission; if the queue knows it already, its jobs are returned and none is added.

        Raises:
            SchedulerError: a job can never run on this machine, or the queue cannot be written.
        """
        _refuse_impossible(asks)
        launch.make_queue(self.queue)
        journal = journal_of(self.queue)
        batch = launch.new_batch_id()
        record: Record = {
            "event": "submit",
            "time": now(),
            "batch": batch,
            "token": token,
            "folder": str(self.folder),
            "python": self._python,
            "like": launch.interpreter_fingerprint() if self._forkable else "",
            "environment": launch.save_environment(self.queue),
            "cwd": str(Path.cwd()),
            "umask": _umask(),
            "jobs": [ask.to_record(batch) for ask in asks],
        }

        def plan(state: QueueState) -> list[Record]:
            if (host := journal.elsewhere()) is not None:
                raise SchedulerError(f"{self.queue}: belongs to {host}. Submit there, or to this machine's own queue.")
            if token is not None and journal.batch_of(token) is not None:
                return []
            state.apply(record)
            return [record]

        pickles = self._dump_all(functions, batch)
        try:
            submitted = journal.commit(plan)
        except SlurmkitError:  # not after a Ctrl-C: the record may stand already, and its jobs need their pickles
            _remove(pickles)
            raise
        if not submitted:
            _remove(pickles)
        launch.wake_supervisor(self.queue)
        job_ids = [f"{batch}_{index}" for index in range(len(asks))]
        if not submitted and token is not None:
            job_ids = journal.batch_of(token) or []
        return [LocalQueueJob(self.folder, job_id, queue=self.queue) for job_id in job_ids]

    def _dump_all(self, functions: Sequence[DelayedSubmission], batch: str) -> list[Path]:
        """Write the pickles of a batch, all or none."""
        pickles: list[Path] = []
        try:
            for index, function in enumerate(functions):
                pickles.append(self._dump(function, f"{batch}_{index}", len(functions), first=index == 0))
        except BaseException:
            _remove(pickles)
            raise
        return pickles

    def _dump(self, function: DelayedSubmission, job_id: str, count: int, *, first: bool) -> Path:
        """Write a job's pickle where the job looks for it."""
        function.set_timeout(self.parameters.get("timeout_min", 5), self.max_num_timeout)
        path = JobPaths(self.folder, job_id=job_id).submitted_pickle
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            function.dump(path)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise SchedulerError(f"{path}: cannot be written: {error.strerror}. Nothing was submitted.") from error
        size_gb = path.stat().st_size / 2**30
        if first and size_gb * count > self.max_pickle_size_gb:
            path.unlink()
            raise SchedulerError(
                f"{path.name}: {count} x {size_gb:.2f} GB of function and arguments, more than "
                f"max_pickle_size_gb={self.max_pickle_size_gb:g}. Pass large data by file name."
            )
        return path


def cancel_jobs(queue: Path, job_ids: Sequence[str]) -> None:
    """End jobs with all their processes; those that are unknown or have ended are left alone.

    Raises:
        StoreError: the journal cannot be written.
    """

    def plan(state: QueueState) -> list[Record]:
        known = [job_id for job_id in job_ids if job_id in state.jobs and not state.jobs[job_id].state.ended]
        if not known:
            return []
        record: Record = {"event": "cancel", "time": now(), "jobs": known}
        state.apply(record)
        return [record]

    journal = journal_of(queue)
    if journal.commit(plan) and journal.elsewhere() is None:
        launch.wake_supervisor(queue)


def _remove(pickles: Sequence[Path]) -> None:
    for path in pickles:
        path.unlink(missing_ok=True)


def _refuse_impossible(asks: Sequence[Ask]) -> None:
    machine = this_machine(gpus=any(ask.gpus for ask in asks))
    for index, ask in enumerate(asks):
        if (why := machine.refusal(ask.cpus, ask.gpus, ask.mem_mb)) is not None:
            raise SchedulerError(f"job {index + 1} of {len(asks)} {why}")


def _exit_in_order(number: int, _frame: FrameType | None) -> NoReturn:
    """Unwind, as for an error, and exit as a shell says that a signal did it."""
    sys.exit(128 + number)


def _umask() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    raise AssertionError("Linux tells every process its umask (4.7 and later)")
