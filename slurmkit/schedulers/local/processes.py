"""Processes as Linux shows them under /proc: who belongs to a job, what they use, and how to end them all.

A process is named by its id and its start time, so that a process id which is used again is never mistaken.
"""

import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

MARK = "SLURMKIT_JOB"
"""Environment variable that all processes of a job carry; its value is the job's id."""

ENTRY = "submitit.core._submit"
"""The module that runs a job in an interpreter of its own."""

FORKS_PER_S = 100_000
"""More than any machine makes."""

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass(frozen=True, slots=True)
class Process:
    """One line of ``/proc/<pid>/stat`` (man proc(5)).

    Attributes:
        ticks: start time, in clock ticks after boot.
        rss_mb: resident memory; pages shared with others are counted in full.
        zombie: it has ended and only its exit status is left.
    """

    pid: int
    parent: int
    session: int
    ticks: int
    rss_mb: float
    zombie: bool


def read_process(pid: int) -> Process | None:
    """Return a process, or None if there is none of that id."""
    try:  # without a file object: this runs thousands of times a second
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(descriptor, 4096)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in parentheses, may hold blanks and parentheses itself: fields are counted from the last one.
    fields = text[text.rindex(b")") + 2 :].split()
    return Process(
        pid=pid,
        parent=int(fields[1]),
        session=int(fields[3]),
        ticks=int(fields[19]),
        rss_mb=int(fields[21]) * _PAGE_MB,
        zombie=fields[0] in {b"Z", b"X"},
    )


def all_processes(*, since: Collection[Process] = ()) -> dict[int, Process]:
    """Return all processes of the machine (or container) by id.

    Args:
        since: processes; what is surely older than all of them is left out.
    """
    first = min((process.pid for process in since), default=0)
    if not all(_ids_have_grown_since(process) for process in since):
        first = 0
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 (speed)
    found = (read_process(pid) for pid in pids if pid >= first)
    return {process.pid: process for process in found if process is not None}


def _ids_have_grown_since(process: Process) -> bool:
    """Whether all processes that began after one have larger ids: ids go up, until they begin anew at the largest."""
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - process.ticks / _TICKS_PER_S
    largest = int(Path("/proc/sys/kernel/pid_max").read_text(encoding="ascii"))
    latest = int(Path("/proc/loadavg").read_text(encoding="ascii").split()[4])
    return latest >= process.pid and age_s * FORKS_PER_S < largest


def is_alive(pid: int, ticks: int) -> bool:
    """Whether that very process still runs."""
    process = read_process(pid)
    return process is not None and process.ticks == ticks and not process.zombie


def family(processes: dict[int, Process], roots: Iterable[int]) -> set[int]:
    """Return the roots, their descendants, and all in a session that one of them leads; the living alone."""
    children: dict[int, list[int]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process.pid)
        if process.session != process.pid:
            children.setdefault(process.session, []).append(process.pid)
    found: set[int] = set()
    open_pids = [pid for pid in roots if pid in processes]
    while open_pids:
        pid = open_pids.pop()
        if pid not in found:
            found.add(pid)
            open_pids.extend(children.get(pid, ()))
    return {pid for pid in found if not processes[pid].zombie}


def marked(processes: dict[int, Process], job_ids: Collection[str], *, since: int = 0) -> dict[str, set[int]]:
    """Return, for each job, the living processes that carry its mark or descend from one that does.

    Args:
        processes: all processes.
        job_ids: of the jobs.
        since: start time, in ticks, of the oldest worker: no process of theirs is older.
    """
    found: dict[str, set[int]] = {job_id: set() for job_id in job_ids}
    for process in processes.values():
        if process.ticks >= since and not process.zombie and (job_id := _mark_of(process.pid)) in found:
            found[job_id].add(process.pid)
    return {job_id: family(processes, pids) if pids else pids for job_id, pids in found.items()}


def _mark_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123 (this runs thousands of times a second)
            environment = file.read()
    except OSError:  # gone, or somebody else's
        return ""
    start = environment.find(b"\0" + MARK.encode() + b"=")
    if start < 0:
        if not environment.startswith(MARK.encode() + b"="):
            return ""
        start = -1
    value = environment[start + len(MARK) + 2 :].split(b"\0", 1)[0]
    return value.decode(errors="replace").strip()


def own_interpreter(processes: dict[int, Process], worker: Process) -> set[int]:
    """Return the interpreter that a job's process has executed and stays beside; nothing if it goes on itself."""
    children = [process.pid for process in processes.values() if process.parent == worker.pid and not process.zombie]
    return {pid for pid in children if ENTRY.encode() in _command_line(pid).split(b"\0")}


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # gone
        return b""


def proportional_mb(pids: Iterable[int]) -> float:
    """Return the memory of processes with shared pages counted once (their PSS), in MiB."""
    total_kb = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines():
                if line.startswith(b"Pss:"):
                    total_kb += int(line.split()[1])
    return total_kb / 1024


def send(process: Process, number: signal.Signals) -> None:
    """Send a signal to that very process, or to nobody if it has ended."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        now = read_process(process.pid)  # the descriptor holds whoever has the id now: is it the one that is meant?
        if now is not None and now.ticks == process.ticks:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
    finally:
        os.close(descriptor)


def boot_id() -> str:
    """Return what names the time since the machine was switched on."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
