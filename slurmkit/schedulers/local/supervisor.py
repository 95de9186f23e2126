"""The supervisor: one detached process a queue, that starts, watches and ends jobs, and ends itself when idle.

It holds nothing that is not on disk: killed at any point, the next one reads the journal and the claims, takes over the
workers that live and goes on. A start is recorded before the fork and claimed after it; an end is recorded once
nothing of the job is left.
"""

import os
import select
import signal
import time
from contextlib import suppress
from pathlib import Path

from slurmkit.errors import StoreError
from slurmkit.records import TRY_AGAIN_EXIT_CODE
from slurmkit.schedulers.local import processes, watch
from slurmkit.schedulers.local.child import DEFERRED, NOT_CLAIMED, Start
from slurmkit.schedulers.local.claims import Claim, Claims
from slurmkit.schedulers.local.journal import Journal, now
from slurmkit.schedulers.local.machine import Machine, Slots
from slurmkit.schedulers.local.order import Order
from slurmkit.schedulers.local.state import Job, QueueState, Record, describe_exit
from slurmkit.schedulers.local.watch import Running
from slurmkit.states import JobState

IDLE_S = 10.0
"""How long a supervisor without work waits for more before it ends."""
MAX_RESTARTS = 100
"""How often a job may ask to be queued again."""
_RETRY_S = 1.0
_TIDY_S = 60.0
_LOOK_S = 1.0
"""A journal that grew without a byte in the FIFO (its writer was killed in between) is noticed after this time."""


class Supervisor:
    """The loop. Single-threaded, so that a fork of it is a sound process.

    Args:
        queue: folder of the queue.
        machine: what its jobs may use.
        lock: descriptor that holds ``supervisor.lock``; given back when the loop ends.
        like, base_path, mark_address: what `child.Start` needs to know of this interpreter.
    """

    def __init__(
        self, queue: Path, machine: Machine, lock: int, *, like: str, base_path: tuple[str, ...], mark_address: int
    ) -> None:
        self.queue = queue
        self._machine = machine
        self._lock: int | None = lock
        self._like = like
        self._base_path = base_path
        self._mark_address = mark_address
        self._journal = Journal(queue)
        self._claims = Claims(queue / "claims")
        self._boot = processes.boot_id()
        self._running: dict[str, Running] = {}
        self._to_fork: list[Job] = []
        self._order = Order()
        self._stopping = False
        self._busy_at = time.monotonic()
        self._sampled_at = 0.0
        self._tidied_at = time.monotonic()
        self._sample_pause_s = watch.SAMPLE_S
        self._poll = select.poll()
        self._wake = _open_fifo(queue / "wake")
        self._poll.register(self._wake, select.POLLIN)
        self._signalled = self._receive_signals()

    def adopt(self) -> None:
        """Take over what an earlier supervisor left: workers that live, ends not recorded, starts not made."""
        self._journal.refresh()
        jobs = self._journal.state.jobs
        self._claims.clear_all_but({(job_id, jobs[job_id].restarts) for job_id in self._journal.state.running})
        claims = self._claims.all()
        for job_id in list(self._journal.state.running):
            job = self._journal.state.jobs[job_id]
            claim = claims.get((job_id, job.restarts))
            if claim is not None and claim.pid == 0 and job.boot == self._boot:
                self._to_fork.append(job)  # recorded, and never begun
                continue
            self._adopt_worker(job, claim or Claim(0, 0, None))

    def _adopt_worker(self, job: Job, claim: Claim) -> None:
        """Watch a worker that is not our child."""
        alive = job.boot == self._boot and processes.is_alive(claim.pid, claim.ticks)
        worker = processes.read_process(claim.pid) if alive else None
        if worker is None:
            worker = processes.Process(claim.pid, 0, 0, claim.ticks, 0.0, zombie=True)
        one = Running(job, job.restarts, worker, ours=False)
        self._running[job.id] = one
        with suppress(ProcessLookupError):
            one.descriptor = os.pidfd_open(worker.pid) if alive else None
        if one.descriptor is None or not processes.is_alive(worker.pid, worker.ticks):
            self._adopted_end(one)
        else:
            self._poll.register(one.descriptor, select.POLLIN)

    def run(self) -> Start | None:
        """Work until there is none left, or SIGTERM comes (running jobs go on, and are adopted later).

        Returns:
            None in the supervisor; in the process of a job, which is a fork of it, what that job is.
        """
        child = self._fork_all()
        while child is None and not self._stopping:
            try:
                if self._is_removed():
                    break
                child = self._step()
                if child is None and self._idle() and self._leave():
                    break
            except (StoreError, OSError) as error:  # a full disk: nothing new starts, what runs goes on
                _say(f"{error} Trying again.")
                time.sleep(_RETRY_S)
            if child is None:
                self._sleep()
        return child

    def _is_removed(self) -> bool:
        """Whether somebody has removed the queue's folder. Nobody can ask for its jobs again: they are ended."""
        assert self._lock is not None, "held until the loop ends"
        try:
            there = (self.queue / "supervisor.lock").stat().st_ino == os.fstat(self._lock).st_ino
        except FileNotFoundError:
            there = False
        if not there:
            _say(f"{self.queue}: was removed. Ending its {len(self._running)} running job(s).")
            while watch.kill_trees(list(self._running.values())):
                time.sleep(0.01)
        return not there

    def _step(self) -> Start | None:
        self._journal.refresh()
        self._rebind()
        self._reap()
        verdicts = self._look_at_memory()
        ended = [one for one in self._running.values() if one.ended is not None]
        left = watch.kill_trees([one for one in ended if one.job.boot == self._boot])  # else its ids are others' now
        self._settle([one for one in ended if one.job.id not in left], verdicts)
        self._end_due()
        self._tidy()
        return self._fork_all()

    def _tidy(self) -> None:
        """Keep the journal short, now and then."""
        if time.monotonic() - self._tidied_at > _TIDY_S:
            self._tidied_at = time.monotonic()
            if self._journal.compact():
                self._rebind()

    def _settle(self, ended: list[Running], verdicts: list[tuple[Running, Record]]) -> None:
        """Record ends, verdicts and starts in one append, then let go of what has ended and tell what must be told."""
        judged = [(one, record) for one in self._running.values() if (record := watch.judge_time(one)) is not None]
        decided = [(one, record) for one, record in [*verdicts, *judged] if one.ended is None]
        may_start = next(self._journal.state.ready(), None) is not None
        if not ended and not decided and not may_start:
            return
        starts: list[str] = []

        def plan(state: QueueState) -> list[Record]:
            records = [{**_end_record(state.jobs[one.job.id], one), "time": now()} for one in ended]
            records += [{**record, "time": now()} for _, record in decided]
            for record in records:
                state.apply(record)
            return records + self._plan_starts(state, {one.job.id for one in ended}, starts)

        self._journal.commit(plan)
        self._rebind()
        for one in ended:
            del self._running[one.job.id]
            claim = Claim(one.worker.pid, one.worker.ticks, one.ended[0] if one.ended else None)
            self._claims.clear(one.job.id, one.number, claim)
        for one, record in decided:
            if record["event"] == "warned":
                processes.send(one.worker, signal.SIGUSR2)
        self._to_fork += [self._journal.state.jobs[job_id] for job_id in starts]

    def _plan_starts(self, state: QueueState, gone: set[str], starts: list[str]) -> list[Record]:
        """Choose what starts now; offer each start to be claimed; return the records."""
        slots = Slots(self._machine)
        waiting = [(job.id, job) for job in self._to_fork]
        for job_id, job in [*((one.job.id, one.job) for one in self._running.values()), *waiting]:
            if job_id not in gone:
                slots.take(job.cpus, job.mem_mb, job.gpu_ids)
        records: list[Record] = []

        def begin(job: Job) -> None:
            gpu_ids = tuple(slots.gpu_ids[: job.gpus])
            slots.take(job.cpus, job.mem_mb, gpu_ids)
            self._claims.offer(job.id, job.restarts)
            record = {"event": "started", "job": job.id, "time": now(), "boot": self._boot, "gpus": gpu_ids}
            state.apply(record)
            records.append(record)
            starts.append(job.id)

        def refuse(job: Job, why: str) -> None:
            record = {"event": "ended", "job": job.id, "time": now(), "state": JobState.FAILED.value, "evidence": why}
            state.apply(record)
            records.append(record)

        self._order.choose(state, slots, begin, refuse)
        return records

    def _fork_all(self) -> Start | None:
        """Fork the processes of the starts that are on record."""
        while self._to_fork:
            job = self._to_fork[0]
            batch = self._journal.state.batches[job.batch]
            start = Start(
                queue=self.queue,
                job=job,
                batch=batch,
                number=job.restarts,
                in_fork=batch.like == self._like,
                base_path=self._base_path,
                mark_address=self._mark_address,
            )
            pid = _fork()
            if pid == 0:
                return start
            worker = processes.read_process(pid)
            assert worker is not None, "a child that nobody has waited for is there"
            self._running[job.id] = Running(job, job.restarts, worker, ours=True)
            self._to_fork.pop(0)
        return None

    def _reap(self) -> None:
        """Take the exit status of our children, and notice the end of adopted workers."""
        by_pid = {one.worker.pid: one for one in self._running.values() if one.ours}
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if (one := by_pid.get(pid)) is not None:
                one.peak_mb = max(one.peak_mb, usage.ru_maxrss / 1024)  # KiB on Linux
                self._child_end(one, os.waitstatus_to_exitcode(status))
        for one in self._running.values():
            if not one.ours and one.ended is None and not processes.is_alive(one.worker.pid, one.worker.ticks):
                self._adopted_end(one)

    def _child_end(self, one: Running, code: int) -> None:
        if code == NOT_CLAIMED:
            claim = self._claims.all().get((one.job.id, one.number), Claim(0, 0, None))
            if claim.pid != one.worker.pid:  # a fork of the supervisor before us was slower than that one's end
                self._adopt_worker(one.job, claim)
                return
        one.ended = (code, None) if code >= 0 else (None, -code)

    def _adopted_end(self, one: Running) -> None:
        """Read from its claim how a worker that was not our child has ended; without a word, it vanished."""
        if one.descriptor is not None:
            self._poll.unregister(one.descriptor)
            os.close(one.descriptor)
            one.descriptor = None
        claim = self._claims.all().get((one.job.id, one.number))
        one.ended = (claim.exit_code if claim is not None else None, None)

    def _look_at_memory(self) -> list[tuple[Running, Record]]:
        alive = [one for one in self._running.values() if one.ended is None]
        before = time.monotonic()
        if not alive or before - self._sampled_at < self._sample_pause_s:
            return []
        verdicts = watch.sample_memory(alive)
        self._sampled_at = time.monotonic()
        self._sample_pause_s = max(watch.SAMPLE_S, (self._sampled_at - before) / watch.SAMPLE_SHARE)
        return verdicts

    def _end_due(self) -> None:
        """Begin to end jobs that are cancelled or judged, and kill those whose grace is over."""
        alive = [one for one in self._running.values() if one.ended is None]
        for one in alive:
            if one.kill_at is None and (one.job.cancelled or one.job.verdict is not None):
                watch.begin_end(one)
        watch.kill_trees([one for one in alive if one.kill_at is not None and time.monotonic() >= one.kill_at])

    def _sleep(self) -> None:
        """Wait for a byte in the FIFO, a signal, the end of an adopted worker, or the next thing that is due."""
        pause_s = _LOOK_S
        if any(one.ended is not None or one.kill_at is not None for one in self._running.values()):
            pause_s = 0.02
        elif self._running:
            pause_s = min(pause_s, self._sample_pause_s)
        self._poll.poll(pause_s * 1000)
        for descriptor in (self._wake, self._signalled):
            with suppress(BlockingIOError):
                os.read(descriptor, 65536)

    def _idle(self) -> bool:
        if self._running or self._to_fork or self._journal.state.active:
            self._busy_at = time.monotonic()
            return False
        return time.monotonic() - self._busy_at > IDLE_S

    def _leave(self) -> bool:
        """Give the lock back, unless work has come: under the journal's lock, so that none is overlooked."""
        self._journal.compact()

        def plan(state: QueueState) -> list[Record]:
            if not state.active and self._lock is not None:
                os.close(self._lock)
                self._lock = None
            return []

        self._journal.commit(plan)
        return self._lock is None

    def _rebind(self) -> None:
        """A journal that was read anew has new objects for the same jobs."""
        for one in self._running.values():
            one.job = self._journal.state.jobs[one.job.id]
        self._to_fork = [self._journal.state.jobs[job.id] for job in self._to_fork]

    def _receive_signals(self) -> int:
        """Have signals wake the poll; SIGTERM ends the loop."""
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _note)
        signal.signal(signal.SIGTERM, self._stop)
        self._poll.register(reader, select.POLLIN)
        return reader

    def _stop(self, *_: object) -> None:
        self._stopping = True


def _end_record(job: Job, one: Running) -> Record:
    """Return how a job ended: what its worker said, and what was decided about it."""
    assert one.ended is not None, "only called for what has ended"
    exit_code, signal_number = one.ended
    record: Record = {"event": "ended", "job": job.id, "peak_rss_mb": round(one.peak_mb, 1) or None}
    killed_for = job.verdict[0] if job.verdict is not None else None
    if exit_code == TRY_AGAIN_EXIT_CODE and not job.cancelled and killed_for is not JobState.OUT_OF_MEMORY:
        if job.restarts < MAX_RESTARTS:
            return {**record, "event": "requeued"}
        state, evidence = JobState.FAILED, f"asked to be queued again more than {MAX_RESTARTS} times"
    elif job.verdict is not None and (exit_code != 0 or killed_for is JobState.OUT_OF_MEMORY):
        state, evidence = job.verdict
    elif exit_code == 0:
        state, evidence = JobState.COMPLETED, "exit 0"
    elif job.cancelled:
        state, evidence = JobState.CANCELLED, f"cancelled while it ran, {_described(one)}"
    elif exit_code is None and signal_number in {None, signal.SIGKILL}:
        state, evidence = JobState.LOST, _described(one)
    else:
        state, evidence = JobState.FAILED, _described(one)
    return {**record, "state": state.value, "evidence": evidence, "exit_code": exit_code, "signal": signal_number}


def _described(one: Running) -> str:
    assert one.ended is not None, "only called for what has ended"
    if one.ended == (None, None):
        return f"worker {one.worker.pid} vanished without an exit code"
    return describe_exit(*one.ended)


def _fork() -> int:
    """Fork; in the child, the signals of `DEFERRED` are held back from its first moment on."""
    signal.pthread_sigmask(signal.SIG_BLOCK, DEFERRED)
    pid = -1
    try:
        pid = os.fork()
    finally:
        if pid != 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, DEFERRED)
    return pid


def _say(what: str) -> None:
    print(f"{now()} {what}", flush=True)


def _note(*_: object) -> None:
    """Handle a signal by having been woken."""


def _open_fifo(path: Path) -> int:
    with suppress(FileExistsError):
        os.mkfifo(path, 0o600)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)  # RDWR: it never reads as closed
