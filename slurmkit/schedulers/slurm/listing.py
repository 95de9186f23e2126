"""What squeue and sacct print, as rows. Pure: text in, rows out."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

SQUEUE_FIELDS = (
    "JobArrayID",
    "State",
    "RestartCnt",
    "exit_code",
    "SubmitTime",
    "StartTime",
    "EndTime",
    "NodeList",
    "Reason",
    "Name",
)
SQUEUE_FORMAT = "--Format=" + ",".join(f"{name}:|" for name in SQUEUE_FIELDS)
"""A suffix and no size: fields are printed whole (``man squeue``, -O). The name, which can hold anything, is last."""

SACCT_FIELDS = (
    "JobID",
    "State",
    "ExitCode",
    "DerivedExitCode",
    "Submit",
    "Start",
    "End",
    "MaxRSS",
    "ReqMem",
    "TimelimitRaw",
    "NodeList",
    "Reason",
    "JobName",
)
SACCT_FORMAT = "--format=" + ",".join(SACCT_FIELDS)
"""With ``--parsable2`` fields are printed whole with ``|`` between them; the name is last here too."""

_JOB_ID = re.compile(r"(\d+)(?:_(?:(\d+)|\[([^\]]*)\]))?")
"""``12``, ``12_3``, or tasks that still wait: ``12_[3-9,12%4]``."""

_TASKS = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")
"""Part of a folded array: ``7``, ``3-9``, ``0-98:2``."""

_MEMORY = re.compile(r"(\d+(?:\.\d+)?)([KMGTP]?)")
_MEMORY_UNITS_MB = {"": 1 / 1024**2, "K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2, "P": 1024.0**3}


class Exit(NamedTuple):
    """How a process ended, as accounting writes it (``3:0``, ``0:9``): exit code, signal."""

    code: int
    signal: int


@dataclass(frozen=True, slots=True)
class QueueRow:
    """One row of squeue.

    Attributes:
        name: the job's name.
        state, reason: Slurm's words.
        restarts: how often it was queued again; of folded tasks only of the row as a whole.
        exit: exit code and signal.
        submit, start, end: seconds since 1970; expected ones where they lie ahead; None: not known.
        nodes: where it runs or ran; empty: nowhere yet.
    """

    name: str
    state: str
    reason: str
    restarts: int
    exit: Exit
    submit: int | None
    start: int | None
    end: int | None
    nodes: str


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step of a job in accounting: ``batch``, ``extern``, ``0``, ..."""

    step: str
    state: str
    exit: Exit | None
    max_rss_mb: float | None


@dataclass(slots=True)
class JobRow:
    """One job in accounting, with its steps; a job that was queued again has one for each time.

    Attributes:
        name: the job's name.
        state: Slurm's word, with what follows it (``CANCELLED by 0``).
        exit, derived_exit: of the script, and the worst of the steps that srun started in it.
        submit, start, end: seconds since 1970; None: not yet, or never.
        memory_mb: what it asked for, in MiB.
        limit_min: time limit, in minutes.
        nodes: where it ran; empty: nowhere.
        reason: what it waited for last.
        steps: its steps.
    """

    name: str
    state: str
    exit: Exit | None
    derived_exit: Exit | None
    submit: int | None
    start: int | None
    end: int | None
    memory_mb: float | None
    limit_min: int | None
    nodes: str
    reason: str
    steps: list[StepRow] = field(default_factory=list[StepRow])


RowT = TypeVar("RowT")


class Table(Generic[RowT]):
    """Rows by the job or the tasks that they speak of; a row of folded tasks stays one row."""

    def __init__(self) -> None:
        self._single: dict[str, list[RowT]] = {}
        self._folded: dict[str, list[tuple[_Tasks, RowT]]] = {}

    def add(self, job_id: str, row: RowT) -> bool:
        """Add a row under the id that Slurm printed; say whether that is the id of a job."""
        match = _JOB_ID.fullmatch(job_id)
        if match is None:
            return False
        if match[3] is None:
            self._single.setdefault(job_id, []).append(row)
        else:
            self._folded.setdefault(match[1], []).append((_Tasks(match[3]), row))
        return True

    def rows(self, job_id: str) -> list[RowT]:
        """Return the rows that speak of a job (``12``) or of a task of an array (``12_3``).

        A task with rows of its own is not to be judged by others: sacct goes on naming it in the folded row, as
        never started. A task without any is in a folded row, or in one of the whole array (``12``): so squeue
        shows tasks that were cancelled before any of them had started.
        """
        own = self._single.get(job_id)
        array, _, task = job_id.partition("_")
        if own is not None or not task.isdigit():
            return own or []
        folded = [row for tasks, row in self._folded.get(array, ()) if int(task) in tasks]
        return folded or self._single.get(array, [])


class _Tasks:
    """The tasks of a folded array, as ranges: ``3-9,12,20-98:2%4``."""

    def __init__(self, text: str) -> None:
        parts = (_TASKS.fullmatch(part) for part in text.partition("%")[0].split(","))
        ranges = sorted((int(m[1]), int(m[2] or m[1]), int(m[3] or 1)) for m in parts if m)
        self._ranges = ranges
        self._starts = [first for first, _, _ in ranges]

    def __contains__(self, task: int) -> bool:
        at = bisect_right(self._starts, task) - 1
        if at < 0:
            return False
        first, last, step = self._ranges[at]
        return task <= last and (task - first) % step == 0


def parse_squeue(text: str) -> Table[QueueRow]:
    """Read what ``squeue --noheader`` printed in `SQUEUE_FORMAT`. Lines that are no row (banners) are left out."""
    table = Table[QueueRow]()
    for line in text.split("\n"):
        fields = line.split("|", len(SQUEUE_FIELDS) - 1)
        if len(fields) < len(SQUEUE_FIELDS):
            continue
        job_id, state, restarts, status, submit, start, end, nodes, reason, name = fields
        row = QueueRow(
            name=name.removesuffix("|"),
            state=state,
            reason=reason,
            restarts=_number(restarts) or 0,
            exit=_wait_status(_number(status) or 0),
            submit=_number(submit),
            start=_number(start),
            end=_number(end),
            nodes=nodes,
        )
        table.add(job_id, row)
    return table


def parse_sacct(text: str) -> Table[JobRow]:
    """Read what ``sacct --parsable2 --noheader --duplicates`` printed in `SACCT_FORMAT`: each job before its steps."""
    table = Table[JobRow]()
    latest: tuple[str, JobRow] | None = None
    for line in text.split("\n"):
        fields = line.split("|", len(SACCT_FIELDS) - 1)
        if len(fields) < len(SACCT_FIELDS):
            continue
        job_id, _, step = fields[0].partition(".")
        if not step:
            row = _job_row(fields)
            latest = (job_id, row) if table.add(job_id, row) else None
        elif latest is not None and latest[0] == job_id:
            latest[1].steps.append(StepRow(step, fields[1], _exit(fields[2]), memory_mb(fields[7])))
    return table


def _job_row(fields: Sequence[str]) -> JobRow:
    _, state, ended, derived, submit, start, end, _, memory, limit, nodes, reason, name = fields
    return JobRow(
        name=name,
        state=state,
        exit=_exit(ended),
        derived_exit=_exit(derived),
        submit=_number(submit),
        start=_number(start),
        end=_number(end),
        memory_mb=memory_mb(memory),
        limit_min=_number(limit),
        nodes="" if nodes == "None assigned" else nodes,
        reason=reason,
    )


@lru_cache(maxsize=4096)  # thousands of rows, few sizes
def memory_mb(text: str) -> float | None:
    """Read ``3132K``, ``8000M``, ``4Gn`` (a node) or ``2Gc`` (a CPU); a bare number is bytes. None: not known, or 0."""
    match = _MEMORY.match(text)
    return float(match[1]) * _MEMORY_UNITS_MB[match[2]] or None if match else None


def _number(text: str) -> int | None:
    """Read a count or a time; words (``N/A``, ``None``, ``Unknown``, ``UNLIMITED``) are None."""
    return int(text) if text.isascii() and text.isdigit() else None


@lru_cache(maxsize=1024)  # thousands of rows, few ways to end
def _exit(text: str) -> Exit | None:
    code, _, number = text.partition(":")
    return Exit(int(code), int(number)) if code.isdigit() and number.isdigit() else None


def _wait_status(status: int) -> Exit:
    """Split what squeue prints as the exit code: the status of wait(2). With a signal, the other byte is no code."""
    number = status & 0x7F
    return Exit(0 if number else status >> 8 & 0xFF, number)
