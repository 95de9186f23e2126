"""One look at Slurm every two seconds, however many shells want to know.

What squeue and sacct said is kept in a file, as they said it. A shell that comes while another one asks waits for that
answer; one that comes soon after uses it.
"""

import contextlib
import functools
import os
import pwd
import time
from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slurmkit import files
from slurmkit.errors import LockTimeoutError, SchedulerError, StoreError
from slurmkit.resources import format_duration
from slurmkit.schedulers import JobReport, OutOfReachError
from slurmkit.schedulers.slurm.commands import call
from slurmkit.schedulers.slurm.listing import SACCT_FORMAT, SQUEUE_FORMAT, QueueRow, Table, parse_sacct, parse_squeue
from slurmkit.schedulers.slurm.verdict import Evidence, active_ids, reports_of

POLL_INTERVAL_S = 2.0
"""How old an answer may be that is used again."""

_ASKED_RECENTLY_S = 30.0
"""A poll also covers what other shells asked in this time, so that their next look can use it."""

_WHOLE_ARRAY_FROM = 20
"""From so many tasks of an array on, accounting is asked for the whole array: one id, and one range scan there."""

_LONGEST_LIST = 100_000
"""Bytes of job ids for one sacct: Linux takes 128 KiB in one argument (MAX_ARG_STRLEN)."""

_LOOK_BACK = "now-365days"
"""Where accounting begins to look; its own default is midnight. Ids are given, so an early start costs nothing."""

_SQUEUE = ("squeue", "--noheader", "--states=all", "--array", SQUEUE_FORMAT)
"""Asks for every task (``--array``): folded, squeue shows one restart count and all reasons for all tasks that wait."""

_LOCK_TIMEOUT_S = 180.0
"""Longer than a poll can take: squeue and sacct have a minute each."""

_queue_rows = functools.lru_cache(maxsize=1)(parse_squeue)
"""The answer just had is read twice: for what accounting must tell, and for the reports."""


@dataclass(slots=True)
class _Poll:
    """What one poll saw, as it is kept.

    Attributes:
        taken_at: when it began, in seconds since 1970; 0: never.
        answered_at: when it had its answer: its age counts from here, so that a slow answer still serves who waited.
        asked: ids that it covers, with the job's name and when somebody last asked for it.
        squeue, sacct: what these printed.
        no_accounting: why sacct told nothing; empty: it did, or was not needed.
        failed_at, failure: when Slurm was last out of reach since, and its words.
    """

    taken_at: float = 0.0
    answered_at: float = 0.0
    asked: dict[str, tuple[str, float]] = field(default_factory=dict[str, tuple[str, float]])
    squeue: str = ""
    sacct: str = ""
    no_accounting: str = ""
    failed_at: float = 0.0
    failure: str = ""

    def reports(self, jobs: Mapping[str, str]) -> dict[str, JobReport]:
        """Read the answer for some of the jobs."""
        evidence = Evidence(_queue_rows(self.squeue), parse_sacct(self.sacct), self.taken_at, self.no_accounting)
        return reports_of(jobs, evidence, _user_name)

    def covers(self, jobs: Mapping[str, str]) -> bool:
        """Say whether the poll asked for all of the jobs, by the same names."""
        return all(self.asked.get(job, ("", 0.0))[0] == name for job, name in jobs.items())


class Watch:
    """Where jobs stand, as Slurm shows it, at the cost of one poll for all shells.

    Attributes:
        folder: where answers are kept; one for each project and cluster. Made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._kept = folder / "poll.json"
        self._lock = folder / "poll.lock"
        self._changed = folder / "changed.json"
        self._not_before = 0.0

    def reports(self, jobs: Mapping[str, str]) -> dict[str, JobReport]:
        """Report on jobs: id to name. One that Slurm does not know by both is absent.

        Raises:
            OutOfReachError: the controller does not answer; carries what was last seen of the jobs, and when.
            SchedulerError: Slurm is not installed here, or refused.
        """
        if not jobs:
            return {}
        poll = before = self._read()
        if not self._usable(poll, jobs):
            with self._one_at_a_time():
                poll = self._read()
                came = (poll.answered_at, poll.failed_at) != (before.answered_at, before.failed_at)
                if not self._usable(poll, jobs, came_meanwhile=came):
                    poll = _poll(poll, jobs)
                    self._keep(poll)
        if poll.failure:
            raise _out_of_reach(poll, jobs)
        return poll.reports(jobs)

    def forget(self) -> None:
        """Make the next look, of this and of other shells, a fresh one: jobs were submitted or cancelled."""
        self._not_before = time.time()
        with contextlib.suppress(OSError, StoreError):  # without a file only this shell knows
            self._changed.parent.mkdir(parents=True, exist_ok=True)
            files.write_json(self._changed, self._not_before, mode=0o600, durable=False)

    def _usable(self, poll: _Poll, jobs: Mapping[str, str], *, came_meanwhile: bool = False) -> bool:
        """Say whether an answer, or a failure to get one, is young enough; a failure is one for all jobs.

        One that came while this shell waited for it is, however long it took this shell to notice.
        """
        begin, end = (poll.failed_at, poll.failed_at) if poll.failure else (poll.taken_at, poll.answered_at)
        if begin <= max(self._not_before, self._last_change()):
            return False
        young = came_meanwhile or 0.0 <= time.time() - end < POLL_INTERVAL_S
        return young and (bool(poll.failure) or poll.covers(jobs))

    def _last_change(self) -> float:
        try:
            return float(files.read_json(self._changed))
        except (FileNotFoundError, StoreError, TypeError, ValueError):
            return 0.0

    def _read(self) -> _Poll:
        """Read the kept answer; one that cannot be read, or was kept by another version, is none."""
        try:
            record: dict[str, Any] = files.read_json(self._kept)
            asked = {job: (str(name), float(at)) for job, (name, at) in record.pop("asked").items()}
            return _Poll(asked=asked, **record)
        except (FileNotFoundError, StoreError, TypeError, ValueError, KeyError, AttributeError):
            return _Poll()

    def _keep(self, poll: _Poll) -> None:
        with contextlib.suppress(StoreError):  # full or read-only: each shell then asks for itself
            files.write_json(self._kept, poll, mode=0o600, durable=False)

    @contextlib.contextmanager
    def _one_at_a_time(self) -> Generator[None]:
        """Hold the lock of polls; where there can be none (read-only folder), or its holder hangs, go on without."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError, StoreError, LockTimeoutError):
                self._lock.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(files.lock(self._lock, timeout_s=_LOCK_TIMEOUT_S))
            yield


def _poll(before: _Poll, jobs: Mapping[str, str]) -> _Poll:
    """Ask Slurm for these jobs, and for those that others asked for just before and that had not ended then."""
    now = time.time()
    recent = {job: seen for job, seen in before.asked.items() if now - seen[1] < _ASKED_RECENTLY_S and job not in jobs}
    told = before.reports({job: name for job, (name, _) in recent.items()}) if recent else {}
    asked = {job: seen for job, seen in recent.items() if job not in told or not told[job].state.ended}
    asked |= {job: (name, now) for job, name in jobs.items()}
    try:
        squeue = call(*_SQUEUE, f"--user={os.getuid()}")
    except OutOfReachError as error:
        return replace(before, failed_at=time.time(), failure=str(error))
    poll = _Poll(taken_at=now, asked=asked, squeue=squeue)
    queue = _queue_rows(squeue)
    wanted = _not_active({job: name for job, (name, _) in asked.items()}, queue)
    try:
        poll.sacct = "".join(_sacct(chunk) for chunk in _chunks(_compact(wanted, queue)))
    except SchedulerError as error:
        poll.no_accounting = str(error).removeprefix("sacct: ")
    poll.answered_at = time.time()
    return poll


def _not_active(jobs: Mapping[str, str], queue: Table[QueueRow]) -> set[str]:
    return {job.partition("+")[0] for job in jobs.keys() - active_ids(jobs, queue)}


def _sacct(ids: str) -> str:
    return call(
        "sacct", "--parsable2", "--noheader", "--duplicates", f"--jobs={ids}", f"--starttime={_LOOK_BACK}", SACCT_FORMAT
    )


def _compact(job_ids: Iterable[str], queue: Table[QueueRow]) -> list[str]:
    """Name jobs for sacct: single tasks of an array where they are few, the array where they are many.

    A task that ended before it started is found by its array only: accounting keeps such tasks folded, and does not
    look into the fold.
    """
    arrays: dict[str, list[str]] = defaultdict(list)
    for job_id in job_ids:
        arrays[job_id.partition("_")[0]].append(job_id)
    names: list[str] = []
    for array, tasks in sorted(arrays.items()):
        single = len(tasks) < _WHOLE_ARRAY_FROM and all(any(row.nodes for row in queue.rows(task)) for task in tasks)
        names += sorted(tasks) if single else [array]
    return names


def _chunks(ids: list[str]) -> Iterable[str]:
    """Join ids by commas into as few lists as an argument's length allows."""
    chunk: list[str] = []
    length = 0
    for job_id in ids:
        if length + len(job_id) >= _LONGEST_LIST:
            yield ",".join(chunk)
            chunk, length = [], 0
        chunk.append(job_id)
        length += len(job_id) + 1
    if chunk:
        yield ",".join(chunk)


def _out_of_reach(poll: _Poll, jobs: Mapping[str, str]) -> OutOfReachError:
    words = f"Slurm cannot be asked: {poll.failure.removeprefix('squeue: ')}."
    if not poll.taken_at:
        return OutOfReachError(f"{words} Nothing was seen before. Try again when its controller answers.")
    since = datetime.fromtimestamp(poll.taken_at, UTC)
    clock = since.astimezone()
    shown = clock.strftime("%H:%M:%S" if clock.date() == datetime.now().astimezone().date() else "%Y-%m-%d %H:%M:%S")
    ago = format_duration(max(0.0, time.time() - poll.taken_at))
    last = {
        job: report
        for job, report in poll.reports(jobs).items()
        # squeue lists all jobs of a person, but accounting told only of those that were asked for.
        if not report.state.ended or poll.asked.get(job, ("", 0.0))[0] == jobs[job]
    }
    return OutOfReachError(f"{words} Shown is what was seen at {shown} ({ago} ago).", since=since, last=last)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
